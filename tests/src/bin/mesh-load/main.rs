//! `mesh-load`: a client (and silent server) that tests run inside pods; it says on stdout, as one JSON document, what it saw. It must not judge.

mod http;
mod impostor;
mod rogue;
mod tcp;

use clap::{Parser, Subcommand};
use std::net::SocketAddr;

#[derive(Parser)]
#[command(about = "Load and faults from inside a pod; one JSON document on stdout")]
struct Flags {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Requests at a steady rate until stdin ends.
    Http(http::Flags),
    /// Connections that echo one byte, then idle until stdin ends, then echo again.
    Idle {
        /// HOST:PORT of an echo server.
        target: String,
        /// How many.
        #[arg(long, default_value_t = 100)]
        connections: usize,
    },
    /// One connection: sends so many bytes at once, then the end, and counts what comes back.
    Burst {
        /// HOST:PORT of an echo server.
        target: String,
        /// How many bytes.
        #[arg(long, default_value_t = 1 << 20)]
        bytes: usize,
    },
    /// Long connections that echo a line every 20 ms until stdin ends.
    Steady {
        /// HOST:PORT of an echo server.
        target: String,
        /// How many.
        #[arg(long, default_value_t = 4)]
        connections: usize,
    },
    /// Dials a tunnel port with a certificate of the test's own and asks for a tunnel.
    Rogue(rogue::Flags),
    /// Listens as somebody else's tunnel port until stdin ends.
    Impostor(impostor::Flags),
    /// Accepts connections and never says anything.
    Silent {
        /// Port.
        #[arg(long)]
        port: u16,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let report = match Flags::parse().what {
        What::Http(flags) => http::run(flags).await?,
        What::Idle { target, connections } => tcp::idle(&target, connections).await?,
        What::Burst { target, bytes } => tcp::burst(&target, bytes).await?,
        What::Steady { target, connections } => tcp::steady(&target, connections).await?,
        What::Rogue(flags) => rogue::run(flags).await?,
        What::Impostor(flags) => impostor::run(flags).await?,
        What::Silent { port } => tcp::silent(port).await?,
    };
    println!("{report}");
    Ok(())
}

/// Resolves when the test closes our stdin.
async fn stdin_ends() {
    let (ended, wait) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Whatever is written there, only its end counts; an error is an end too.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = ended.send(());
    });
    let _ = wait.await;
}

/// The first address of HOST:PORT.
async fn resolve(target: &str) -> anyhow::Result<SocketAddr> {
    tokio::net::lookup_host(target).await?.next().ok_or_else(|| anyhow::anyhow!("{target} has no address"))
}
