//! The built-in echo server, image `heddle.dev/echo`: it answers in every protocol with what it saw, and misbehaves on request. It must not know the mesh.
//!
//! Arguments: `--http PORT` (HTTP/1.1, h2c, gRPC and WebSocket on one port), `--tls PORT` (the same over TLS, with a certificate made at start),
//! `--tcp PORT` (echo), `--greet PORT` (speaks first, then echoes), `--udp PORT`. Each may be given several times; without any: `--http 8080`.

pub mod behaviour;
pub mod client;
pub mod grpc;
pub mod http;
pub mod streams;

use anyhow::{Context, Result};
use behaviour::Behaviour;
use clap::Args;
use serde_json::{Map, Value, json};
use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, atomic::AtomicU64},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What the server listens to and how it behaves without being asked.
#[derive(Clone, Debug, Default, Args)]
pub struct Settings {
    /// Ports for HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket.
    #[arg(long)]
    pub http: Vec<u16>,
    /// The same over TLS.
    #[arg(long)]
    pub tls: Vec<u16>,
    /// Names in the certificate for TLS.
    #[arg(long, default_value = "localhost")]
    pub tls_name: Vec<String>,
    /// Ports that echo bytes.
    #[arg(long)]
    pub tcp: Vec<u16>,
    /// Ports that greet first, as a database does, then echo.
    #[arg(long)]
    pub greet: Vec<u16>,
    /// Ports that echo datagrams.
    #[arg(long)]
    pub udp: Vec<u16>,
    /// What it does with each HTTP request, in the form of the query: `every=3&status=503&delay=20ms`.
    #[arg(long, default_value = "")]
    pub behave: String,
}

/// Who answers, and how many requests it has seen.
#[derive(Debug)]
pub struct Server {
    who: Map<String, Value>,
    requests: AtomicU64,
    connections: AtomicU64,
    default: Behaviour,
    streams: TaskTracker,
    /// Set when the server is told to end: no new connections, requests under way are finished.
    ending: CancellationToken,
}

impl Server {
    /// A report starts with this.
    pub fn report(&self) -> Map<String, Value> {
        self.who.clone()
    }
}

/// Runs until SIGTERM; then requests under way are finished.
pub async fn serve(settings: Settings) -> Result<()> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut who = Map::new();
    who.insert("pod".into(), json!(variable("ECHO_POD")));
    who.insert("namespace".into(), json!(variable("ECHO_NAMESPACE")));
    who.insert("node".into(), json!(variable("ECHO_NODE")));
    let server = Arc::new(Server {
        who,
        requests: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        default: Behaviour::parse(&settings.behave).map_err(anyhow::Error::msg).context("--behave")?,
        streams: TaskTracker::new(),
        ending: CancellationToken::new(),
    });
    let mut http_ports = settings.http.clone();
    if [&settings.http, &settings.tls, &settings.tcp, &settings.greet, &settings.udp].iter().all(|p| p.is_empty()) {
        http_ports.push(8080);
    }
    for port in http_ports {
        tokio::spawn(http::serve(Arc::clone(&server), listen(port)?, None));
    }
    if !settings.tls.is_empty() {
        let acceptor = http::acceptor(&settings.tls_name)?;
        for port in &settings.tls {
            tokio::spawn(http::serve(Arc::clone(&server), listen(*port)?, Some(acceptor.clone())));
        }
    }
    for port in settings.tcp {
        tokio::spawn(streams::echo(Arc::clone(&server), listen(port)?, false));
    }
    for port in settings.greet {
        tokio::spawn(streams::echo(Arc::clone(&server), listen(port)?, true));
    }
    for port in settings.udp {
        let socket = tokio::net::UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("UDP port {port}"))?;
        tokio::spawn(streams::datagrams(Arc::clone(&server), socket));
    }
    let mut end = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    end.recv().await;
    server.ending.cancel();
    server.streams.close();
    server.streams.wait().await;
    Ok(())
}

/// Both families on one socket, or IPv4 alone where IPv6 is off.
fn listen(port: u16) -> Result<TcpListener> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let listener = std::net::TcpListener::bind(both)
        .or_else(|_| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)))
        .with_context(|| format!("TCP port {port}"))?;
    listener.set_nonblocking(true)?;
    Ok(TcpListener::from_std(listener)?)
}
