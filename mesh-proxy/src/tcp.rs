//! The one copy loop: bytes between two connections, half close and reset passed on. It must not know what the bytes mean.

use crate::tunnel::limits::FRAME;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::{
    future::poll_fn,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, sleep_until},
};

/// Bytes asked of a side at first, and at least: most connections carry little, and many wait at once.
const ROOM_LEAST: usize = 8 * 1024;
/// Bytes asked at most, of a side that fills what it is asked for: two full frames of a tunnel, which is what may wait in us to be sent
/// ([`SEND_BUFFER`](crate::tunnel::limits::SEND_BUFFER)).
const ROOM_MOST: usize = 2 * FRAME as usize;
/// Chunks that one direction may move before other connections of the worker get their turn.
const TURN: u32 = 32;

/// One end of what is carried. All waits register the task's waker; none blocks.
pub trait Side {
    /// Takes up to about `room` bytes that this side received; none at its end. `buffer` may be used as scratch.
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<Option<Bytes>>>;
    /// Sends a non-empty prefix of `chunk` and advances it.
    fn poll_put(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>>;
    /// Pushes out what was put.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Says that no more will be put: half close.
    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ready when this side broke although nobody reads it any more.
    fn poll_broken(&mut self, _cx: &mut Context<'_>) -> Poll<io::Error> {
        Poll::Pending
    }
    /// Taken bytes have gone on; the peer may send as many more.
    fn settle(&mut self, _bytes: usize) {}
    /// Ends this side such that its peer sees an abnormal end.
    fn reset(&mut self);
}

/// What was carried and why it ended.
#[derive(Debug)]
pub struct Carried {
    /// Bytes from the first side to the second.
    pub forth: u64,
    /// Bytes from the second side to the first.
    pub back: u64,
    /// Why it ended.
    pub end: End,
}

/// Why carrying ended.
#[derive(Debug)]
pub enum End {
    /// Both sides finished.
    Finished,
    /// The first side broke; the second was reset.
    First(io::Error),
    /// The second side broke; the first was reset.
    Second(io::Error),
    /// Nothing moved for the idle time; both were reset.
    Idle,
}

/// Carries bytes both ways until both sides have finished, one broke, or nothing moved for `idle`. Dropping it drops nothing but the
/// bytes in flight; the caller drops the sides.
pub async fn carry(first: &mut impl Side, second: &mut impl Side, idle: Duration) -> Carried {
    let (mut forth, mut back) = (Way::new(), Way::new());
    // The timer is moved only when it fires, not for each byte.
    let mut last = Instant::now();
    let mut timer = pin!(sleep_until(after(last, idle)));
    let end = poll_fn(|cx| {
        let before = forth.carried + back.carried;
        let went = forth.poll(cx, first, second).map_err(|e| e.by(End::First, End::Second));
        let came = back.poll(cx, second, first).map_err(|e| e.by(End::Second, End::First));
        if forth.carried + back.carried != before {
            last = Instant::now();
        }
        match (went, came) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => return Poll::Ready(end),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(End::Finished),
            _ => {}
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            let due = after(last, idle);
            if due <= Instant::now() {
                return Poll::Ready(End::Idle);
            }
            timer.as_mut().reset(due);
        }
    })
    .await;
    match &end {
        End::Finished => {}
        End::First(_) => second.reset(),
        End::Second(_) => first.reset(),
        End::Idle => {
            first.reset();
            second.reset();
        }
    }
    Carried { forth: forth.carried, back: back.carried, end }
}

/// One direction.
#[derive(Default)]
struct Way {
    chunk: Bytes,
    buffer: BytesMut,
    /// Bytes that are asked for next.
    room: usize,
    carried: u64,
    unflushed: bool,
    stage: Stage,
}

#[derive(Default, PartialEq)]
enum Stage {
    #[default]
    Flowing,
    Finishing,
    Finished,
}

/// Which side of a direction broke.
enum Broke {
    From(io::Error),
    To(io::Error),
}

impl Broke {
    fn by(self, from: impl FnOnce(io::Error) -> End, to: impl FnOnce(io::Error) -> End) -> End {
        match self {
            Self::From(e) => from(e),
            Self::To(e) => to(e),
        }
    }
}

impl Way {
    fn new() -> Self {
        Self { room: ROOM_LEAST, ..Self::default() }
    }

    fn poll(&mut self, cx: &mut Context<'_>, from: &mut impl Side, to: &mut impl Side) -> Poll<Result<(), Broke>> {
        for _ in 0..TURN {
            if !self.chunk.is_empty() {
                let before = self.chunk.len();
                ready!(to.poll_put(cx, &mut self.chunk)).map_err(Broke::To)?;
                let gone = before - self.chunk.len();
                from.settle(gone);
                self.carried += gone as u64;
                self.unflushed = true;
                continue;
            }
            match self.stage {
                Stage::Flowing => match from.poll_take(cx, &mut self.buffer, self.room) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        self.room = next_room(self.room, chunk.len());
                        self.chunk = chunk;
                    }
                    Poll::Ready(Ok(None)) => self.stage = Stage::Finishing,
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(Broke::From(e))),
                    Poll::Pending => {
                        // A waiting connection holds no buffer: ten thousand idle ones must cost nothing.
                        self.buffer = BytesMut::new();
                        if self.unflushed {
                            ready!(to.poll_flush(cx)).map_err(Broke::To)?;
                            self.unflushed = false;
                        }
                        return Poll::Pending;
                    }
                },
                Stage::Finishing => {
                    ready!(to.poll_finish(cx)).map_err(Broke::To)?;
                    self.buffer = BytesMut::new();
                    self.stage = Stage::Finished;
                }
                Stage::Finished => {
                    // Nobody reads `from` any more; it may still break while the other direction flows.
                    return match from.poll_broken(cx) {
                        Poll::Ready(e) => Poll::Ready(Err(Broke::From(e))),
                        Poll::Pending => Poll::Ready(Ok(())),
                    };
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// What is asked for after `got` bytes came where there was `room`. Requests and answers in turn never ask for much.
fn next_room(room: usize, got: usize) -> usize {
    let next = if got >= room {
        room * 2
    } else if got < room / 4 {
        room / 2
    } else {
        room
    };
    next.clamp(ROOM_LEAST, ROOM_MOST)
}

/// A limit too long for the clock is a day; then it is looked at again.
fn after(from: Instant, idle: Duration) -> Instant {
    from + idle.min(Duration::from_secs(24 * 3600))
}

impl Side for TcpStream {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            // Memory is taken only when there is something to read.
            ready!(self.poll_read_ready(cx))?;
            buffer.reserve(room);
            match self.try_read_buf(&mut (&mut *buffer).limit(room)) {
                Ok(0) => return Poll::Ready(Ok(None)),
                Ok(_) => return Poll::Ready(Ok(Some(buffer.split().freeze()))),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Poll::Ready(Err(e)),
            }
        }
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        put(Pin::new(self), cx, chunk)
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        finish(Pin::new(self), cx)
    }

    fn reset(&mut self) {
        // Refused only for a socket that is dead already.
        let _ = mesh_sys::socket::reset_on_close(self);
    }
}

/// Any stream of bytes as a side: TLS, or bytes with something read ahead. It cannot be reset, only closed.
#[derive(Debug)]
pub struct Stream<T>(pub T);

impl<T: AsyncRead + AsyncWrite + Unpin> Side for Stream<T> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        buffer.resize(room, 0);
        let mut into = ReadBuf::new(buffer);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut into))?;
        let got = into.filled().len();
        if got == 0 {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(buffer.split_to(got).freeze())))
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        put(Pin::new(&mut self.0), cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        finish(Pin::new(&mut self.0), cx)
    }

    fn reset(&mut self) {}
}

fn put(to: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
    match ready!(to.poll_write(cx, chunk))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => {
            chunk.advance(n);
            Poll::Ready(Ok(()))
        }
    }
}

fn finish(to: Pin<&mut impl AsyncWrite>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    match ready!(to.poll_shutdown(cx)) {
        // The peer has closed both ways already; that it will get no more is no news to it.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
        other => Poll::Ready(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_asked_only_of_a_side_that_fills_it() {
        let after = |reads: &[usize]| reads.iter().fold(ROOM_LEAST, |room, got| next_room(room, *got));
        assert_eq!(after(&[1024; 10_000]), ROOM_LEAST, "requests and answers of a kibibyte");
        assert_eq!(after(&[usize::MAX; 10]), ROOM_MOST);
        let bulk = [usize::MAX; 10];
        assert_eq!(after(&[&bulk[..], &[128 * 1024; 10]].concat()), ROOM_MOST, "a side that writes 128 KiB at a time");
        assert_eq!(after(&[&bulk[..], &[1; 10]].concat()), ROOM_LEAST);
    }
}
