//! The plain connections that wait for their next request, and the streams in use of shared ones. It must not dial.

use super::http1::{AfterUse, Connection};
use crate::http::body::BodyError;
use bytes::Bytes;
use foldhash::fast::RandomState;
use h2::client::SendRequest;
use http_body::Frame;
use hyper::body::Incoming;
use mesh_core::mesh::Uid;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    time::{Instant, MissedTickBehavior, interval},
};

/// Idle HTTP/1.1 connections kept for one address. All were in use at once a moment ago; of many that answer together, those beyond it are closed
/// and dialled again by the next requests, so it lies above what one application is usually given at once.
const IDLE_PER_ADDRESS: usize = 1024;
/// An idle connection is closed after this; most servers keep them longer.
const IDLE: Duration = Duration::from_secs(60);
/// How often a pool looks for connections that are too old or that the application has closed.
const SWEEP: Duration = Duration::from_secs(5);
/// Streams of one HTTP/2 connection that we use; what most servers allow at least (RFC 9113 §6.5.2: "no smaller than 100").
pub(super) const STREAMS: u32 = 100;

/// The connections of one workload. They end with it.
#[derive(Debug, Default)]
pub(super) struct Pool {
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    http1: HashMap<Key, Arc<Waiting>, RandomState>,
    http2: HashMap<Key, Vec<Shared>, RandomState>,
    /// Whether somebody looks after them.
    swept: bool,
}

/// An application: its address, and the pod behind it, so that a reused address is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) address: SocketAddr,
    pub(super) uid: Option<Uid>,
}

/// The connections to one application that wait for their next request. Who has one of them knows where it came from.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Vec<Idle>>);

/// A connection that waits.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) connection: Box<Connection>,
    pub(super) since: Instant,
}

/// An HTTP/2 connection that many share.
#[derive(Debug)]
struct Shared {
    sender: SendRequest<Bytes>,
    streams: Arc<AtomicUsize>,
    /// Since when it has no stream, as far as somebody looked.
    unused: Option<Instant>,
}

/// The HTTP/1.1 connection that a response comes on; it goes back to its pool when the response is through.
#[derive(Debug)]
pub struct Pooled {
    from: Arc<Waiting>,
    connection: Box<Connection>,
}

/// A stream in use of a shared connection, whose count it is in.
#[derive(Debug)]
pub struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pooled {
    pub(super) fn new(from: Arc<Waiting>, connection: Box<Connection>) -> Self {
        Self { from, connection }
    }

    /// The next frame of the response body.
    pub fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.connection.poll_frame(body, cx)
    }

    /// The response was read to its end. Dropping it otherwise closes the connection.
    pub fn reusable(self) {
        let Self { from, connection } = self;
        match connection.after_use() {
            AfterUse::Idle(connection) => from.keep(connection),
            AfterUse::Ended => {}
            AfterUse::Busy(mut connection) => {
                // None: the process ends.
                let Ok(runtime) = Handle::try_current() else { return };
                runtime.spawn(async move {
                    if connection.settle().await {
                        from.keep(connection);
                    }
                });
            }
        }
    }
}

impl Waiting {
    pub(super) fn take(&self, now: Instant) -> Option<Idle> {
        // The newest is the warmest; if that is too old, all are.
        self.0.lock().pop().filter(|idle| now - idle.since < IDLE)
    }

    fn keep(&self, connection: Box<Connection>) {
        let mut idle = self.0.lock();
        if idle.len() < IDLE_PER_ADDRESS {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Takes out what is too old or closed.
    fn sweep(&self, now: Instant, closed: &mut Vec<AfterUse>) {
        let mut waiting = self.0.lock();
        for Idle { connection, since } in std::mem::take(&mut *waiting) {
            match connection.after_use() {
                AfterUse::Idle(connection) if now - since < IDLE => waiting.push(Idle { connection, since }),
                other => closed.push(other),
            }
        }
    }
}

impl Pool {
    /// Where connections to an application wait.
    pub(super) fn waiting(self: &Arc<Self>, key: &Key) -> Arc<Waiting> {
        let mut connections = self.connections.lock();
        if let Some(waiting) = connections.http1.get(key) {
            return waiting.clone();
        }
        self.look_after(&mut connections);
        connections.http1.entry(key.clone()).or_default().clone()
    }

    /// Who sends on a connection that is there, and a stream of it.
    pub(super) fn share(&self, key: &Key) -> Option<(SendRequest<Bytes>, Stream)> {
        let mut connections = self.connections.lock();
        let shared = connections.http2.get_mut(key)?;
        shared.retain_mut(Shared::is_open);
        shared.iter().find_map(|s| Some((s.sender.clone(), s.stream()?)))
    }

    /// Keeps a new connection, and takes the first stream of it.
    pub(super) fn add(self: &Arc<Self>, key: Key, sender: SendRequest<Bytes>) -> (SendRequest<Bytes>, Stream) {
        let streams = Arc::new(AtomicUsize::new(1));
        let shared = Shared { sender: sender.clone(), streams: streams.clone(), unused: None };
        let mut connections = self.connections.lock();
        connections.http2.entry(key).or_default().push(shared);
        self.look_after(&mut connections);
        (sender, Stream(streams))
    }

    /// Nobody drives a connection that waits, so somebody must look whether its application has closed it.
    fn look_after(self: &Arc<Self>, connections: &mut Connections) {
        if connections.swept {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        connections.swept = true;
        runtime.spawn(sweep(Arc::downgrade(self)));
    }

    /// Closes what is too old or closed already; whether anything is left.
    fn sweep(&self) -> bool {
        let mut closed = Vec::new();
        let mut connections = self.connections.lock();
        let now = Instant::now();
        connections.http1.retain(|_, waiting| {
            waiting.sweep(now, &mut closed);
            // Somebody has a connection that will come back.
            Arc::strong_count(waiting) > 1 || !waiting.0.lock().is_empty()
        });
        connections.http2.retain(|_, shared| {
            // Its end is told to the application as soon as nobody can send on it any more.
            shared.retain_mut(|s| s.is_open() && s.unused_for(now) < IDLE);
            !shared.is_empty()
        });
        connections.swept = !connections.http1.is_empty() || !connections.http2.is_empty();
        let swept = connections.swept;
        // Closing sockets takes its time.
        drop(connections);
        drop(closed);
        swept
    }
}

/// Looks after a pool until it is empty or gone.
async fn sweep(pool: Weak<Pool>) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if !pool.upgrade().is_some_and(|pool| pool.sweep()) {
            return;
        }
    }
}

impl Shared {
    /// How long it has had no stream.
    fn unused_for(&mut self, now: Instant) -> Duration {
        if self.streams.load(Ordering::Relaxed) > 0 {
            self.unused = None;
            return Duration::ZERO;
        }
        now - *self.unused.get_or_insert(now)
    }

    /// Whether it takes streams: the application has neither ended it nor said that it will.
    fn is_open(&mut self) -> bool {
        // Ready at once for who has no stream waiting; an error is the end.
        !matches!(self.sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
    }

    /// One of the streams that the application allows. It allows one at least, else nobody would ever ask it again.
    fn stream(&self) -> Option<Stream> {
        let most = self.sender.current_max_send_streams().clamp(1, STREAMS as usize);
        let take = |used: usize| (used < most).then_some(used + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Stream(self.streams.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::AsyncReadExt,
        time::{sleep, timeout},
    };

    #[tokio::test(start_paused = true)]
    async fn a_shared_connection_lives_while_it_has_a_stream_and_ends_a_while_after() {
        let (near, mut application) = tokio::io::duplex(64 * 1024);
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        let (pool, key) = (Arc::new(Pool::default()), Key { address: ([127, 0, 0, 1], 80).into(), uid: None });
        let (_, stream) = pool.add(key.clone(), sender);
        sleep(10 * IDLE).await;
        assert!(pool.share(&key).is_some(), "it is in use");
        drop(stream);
        let ended = timeout(2 * IDLE, application.read_to_end(&mut Vec::new())).await;
        ended.expect("the application hears of the end").unwrap();
        assert!(pool.share(&key).is_none());
    }

    #[tokio::test]
    async fn no_more_streams_are_opened_than_the_application_allows() {
        let (near, far) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            let mut connection = builder.max_concurrent_streams(2).handshake::<_, Bytes>(far).await.unwrap();
            while connection.accept().await.is_some() {}
        });
        let (sender, connection) = h2::client::handshake(near).await.unwrap();
        tokio::spawn(connection);
        while sender.current_max_send_streams() != 2 {
            tokio::task::yield_now().await;
        }
        let (pool, key) = (Arc::new(Pool::default()), Key { address: ([127, 0, 0, 1], 80).into(), uid: None });
        let (_, _first) = pool.add(key.clone(), sender);
        let (_, second) = pool.share(&key).unwrap();
        assert!(pool.share(&key).is_none(), "whoever comes now dials another connection");
        drop(second);
        assert!(pool.share(&key).is_some());
    }
}
