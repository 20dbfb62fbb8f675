//! Progress: whether a client connection still moves, told by counters that cost no clock. It must not close anything.

use crate::ahead::Ahead;
use bytes::Bytes;
use mesh_core::mesh::Limits;
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

/// What a connection has done so far.
#[derive(Debug, Default)]
pub struct Progress {
    moves: AtomicU64,
    requests: AtomicU32,
    /// Requests so far, whether they are still served or not.
    begun: AtomicU32,
    /// Who waits for the first of them.
    first: Notify,
    /// Bytes came while no request was being served: the head of the next one has begun.
    head_begun: AtomicBool,
}

/// A request that is being served.
#[derive(Debug)]
pub struct Serving(Arc<Progress>);

impl Progress {
    /// Counts what passes through `io`; `read` was read from it before.
    pub fn watch<T>(self: &Arc<Self>, io: T, read: Bytes) -> Watched<T> {
        self.head_begun.store(true, Ordering::Relaxed);
        Watched { io: Ahead::new(io, read), progress: self.clone() }
    }

    /// A request head is complete.
    pub fn request(self: &Arc<Self>) -> Serving {
        self.requests.fetch_add(1, Ordering::Relaxed);
        if self.begun.fetch_add(1, Ordering::Relaxed) == 0 {
            self.first.notify_one();
        }
        self.head_begun.store(false, Ordering::Relaxed);
        Serving(self.clone())
    }

    /// How many requests there were so far.
    pub fn begun(&self) -> u32 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits for the first request; to be called by one alone.
    pub async fn first(&self) {
        self.first.notified().await;
    }

    /// Whether there was a request, none is being served, and none has begun.
    fn is_between_requests(&self) -> bool {
        self.begun() > 0 && self.requests.load(Ordering::Relaxed) == 0 && !self.head_begun.load(Ordering::Relaxed)
    }

    fn read(&self) {
        self.moves.fetch_add(1, Ordering::Relaxed);
        if self.requests.load(Ordering::Relaxed) == 0 {
            self.head_begun.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts ticks until a bound is exceeded.
#[derive(Debug)]
pub struct Bounds {
    heads: bool,
    idle: u32,
    head: u32,
    seen: u64,
    still: u32,
    waiting: u32,
}

impl Bounds {
    /// `heads`: whether a head that has begun must be complete within `limits.handshake` (HTTP/1.1; the frames of HTTP/2 are bounded
    /// by its own rules).
    pub fn new(heads: bool, limits: &Limits, tick: Duration) -> Self {
        let ticks = |d: Duration| u32::try_from(d.as_millis().div_ceil(tick.as_millis().max(1))).unwrap_or(u32::MAX);
        Self { heads, idle: ticks(limits.idle), head: ticks(limits.handshake), seen: 0, still: 0, waiting: 0 }
    }

    /// Looks once per tick.
    pub fn exceeded(&mut self, progress: &Progress) -> bool {
        let moves = progress.moves.load(Ordering::Relaxed);
        self.still = if moves == self.seen { self.still + 1 } else { 0 };
        self.seen = moves;
        let head = self.heads && progress.head_begun.load(Ordering::Relaxed);
        self.waiting = if head { self.waiting + 1 } else { 0 };
        self.still > self.idle || self.waiting > self.head
    }

    /// Whether it waits for its next request, and nothing has moved between the last two looks.
    pub fn rests(&self, progress: &Progress) -> bool {
        self.still > 0 && progress.is_between_requests()
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub struct Watched<T> {
    io: Ahead<T>,
    progress: Arc<Progress>,
}

impl<T> Watched<T> {
    /// The connection, with `read` put back, which was read from it but not taken.
    pub fn into_ahead(mut self, read: Bytes) -> Ahead<T> {
        self.io.put_back(read);
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // What was read before has moved before.
        let moves = !this.io.is_ahead();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if moves && buf.filled().len() > before {
            this.progress.read();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, data);
        if written.is_ready() {
            self.progress.moves.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, data);
        if written.is_ready() {
            self.progress.moves.fetch_add(1, Ordering::Relaxed);
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        Limits { idle: Duration::from_secs(10), handshake: Duration::from_secs(2), ..Limits::default() }
    }

    #[test]
    fn a_connection_without_a_byte_exceeds_the_idle_time_and_one_byte_starts_it_again() {
        let progress = Arc::new(Progress::default());
        let mut bounds = Bounds::new(false, &limits(), Duration::from_secs(1));
        for _ in 0..10 {
            assert!(!bounds.exceeded(&progress));
        }
        progress.read();
        for _ in 0..11 {
            assert!(!bounds.exceeded(&progress));
        }
        assert!(bounds.exceeded(&progress));
    }

    #[test]
    fn a_head_that_drips_is_bounded_and_waiting_between_requests_is_not() {
        let progress = Arc::new(Progress::default());
        let mut bounds = Bounds::new(true, &limits(), Duration::from_secs(1));
        progress.read();
        let served = progress.request();
        progress.read();
        drop(served);
        for _ in 0..5 {
            assert!(!bounds.exceeded(&progress), "idle between requests");
        }
        let verdicts: Vec<bool> = (0..4)
            .map(|_| {
                progress.read();
                bounds.exceeded(&progress)
            })
            .collect();
        assert_eq!(verdicts, [false, false, true, true], "a byte a tick does not help");
    }
}
