//! Connections that are held open and say nothing. It must not know which proxy is at their other end.

use super::still_open;
use crate::{
    arena::{Arena, PROXY, Place},
    client::{Connection, connect, tls},
};
use anyhow::{Context, Result, anyhow, ensure};
use nix::sched::{CloneFlags, unshare};
use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread::{self, Scope, ScopedJoinHandle},
};

/// Connections from one address: the arena has 60,000 ports for each.
const FROM_ONE: u32 = 30_000;
/// The clients' addresses begin here, with their prefix.
const CLIENTS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 78, 0, 1), 24);
/// Threads that open connections.
const OPENERS: u32 = 2;

/// What an idle connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP/1.1, kept after one request.
    Kept,
    /// The same inside TLS.
    Tls,
}

/// Gives the arena the addresses of clients.
pub fn addresses(arena: &Arena) -> Result<()> {
    let prefix = format!("{}/{}", CLIENTS.0, CLIENTS.1);
    let added = arena.command("ip").args(["addr", "add", &prefix, "dev", "lo"]).status()?;
    ensure!(added.success(), "the arena gets no addresses for clients");
    Ok(())
}

/// Connections on a thread whose files are not the process's, so that their number has no other limit than the proxy's own.
pub struct Held<'scope> {
    close: Sender<()>,
    thread: ScopedJoinHandle<'scope, Result<()>>,
}

impl<'scope> Held<'scope> {
    /// Opens so many connections in the arena.
    pub fn open(scope: &'scope Scope<'scope, '_>, arena: &'scope Arena, kind: Kind, count: u32) -> Result<Self> {
        let ((opened, all), (close, closed)) = (channel(), channel());
        let hold = move || arena.inside(move || hold(kind, count, opened, closed));
        let held = Self { close, thread: scope.spawn(hold) };
        match all.recv() {
            Ok(()) => Ok(held),
            // Its thread has ended, and says why.
            Err(_) => Err(held.close().err().unwrap_or_else(|| anyhow!("connections ended before they were held"))),
        }
    }

    /// Closes them; fails if one was closed before.
    pub fn close(self) -> Result<()> {
        drop(self.close);
        self.thread.join().map_err(|_| anyhow!("a thread that holds connections panicked"))?
    }
}

fn hold(kind: Kind, count: u32, opened: Sender<()>, closed: Receiver<()>) -> Result<()> {
    unshare(CloneFlags::CLONE_FILES).context("a thread with files of its own")?;
    let mut streams = open(kind, count)?;
    opened.send(()).context("nobody waits for the connections")?;
    // It is never sent to, only dropped.
    let _ = closed.recv();
    still_open(&mut streams)
}

/// Opens so many connections, each after one request that was answered.
pub fn open(kind: Kind, count: u32) -> Result<Vec<TcpStream>> {
    let port = if kind == Kind::Tls { 8443 } else { 8080 };
    let to: SocketAddr = format!("{PROXY}:{port}").parse()?;
    let one = |n: u32| {
        let from = Ipv4Addr::from(u32::from(CLIENTS.0) + n / FROM_ONE);
        let stream = connect(Some(from), to)?;
        let (answer, stream) = match kind {
            Kind::Kept => {
                let mut connection = Connection::new(stream);
                (connection.get("bench", "/small")?, connection.into_inner())
            }
            Kind::Tls => {
                let mut connection = Connection::new(tls(stream)?);
                let answer = connection.get("bench", "/small")?;
                // The proxy does not see that its peer forgets the keys.
                (answer, connection.into_inner().sock)
            }
        };
        ensure!(answer.status == 200, "answered {}", answer.status);
        Ok(stream)
    };
    let one = &one;
    let part = |part: u32| (part..count).step_by(OPENERS as usize).map(one).collect::<Result<Vec<_>>>();
    let part = &part;
    thread::scope(|scope| {
        // A thread of a thread in the arena is in the arena, and shares its files.
        let openers: Vec<_> = (0..OPENERS).map(|n| scope.spawn(move || part(n))).collect();
        let mut all = Vec::with_capacity(count as usize);
        for opener in openers {
            all.append(&mut opener.join().map_err(|_| anyhow!("an opener panicked"))??);
        }
        Ok(all)
    })
}
