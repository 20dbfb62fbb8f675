//! Ahead: a connection some of whose bytes were read before it is read. It must not parse.

use crate::tcp::Side;
use bytes::{Buf, Bytes, BytesMut};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// See the module.
#[derive(Debug)]
pub struct Ahead<T> {
    io: T,
    read: Bytes,
}

impl<T> Ahead<T> {
    /// A connection and what was read from it.
    pub fn new(io: T, read: Bytes) -> Self {
        Self { io, read }
    }

    /// Whether the next bytes are such that were read before.
    pub fn is_ahead(&self) -> bool {
        !self.read.is_empty()
    }

    /// Puts back what was read from it.
    pub fn put_back(&mut self, read: Bytes) {
        self.read = match self.read.is_empty() {
            true => read,
            false => [read, std::mem::take(&mut self.read)].concat().into(),
        };
    }

    /// The connection, and what was read from it but not taken.
    pub fn into_parts(self) -> (T, Bytes) {
        (self.io, self.read)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Ahead<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let n = self.read.len().min(buf.remaining());
        buf.put_slice(&self.read[..n]);
        self.read.advance(n);
        if self.read.is_empty() {
            // An empty rest would hold on to the whole buffer.
            self.read = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Ahead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
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
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

impl<T: Side> Side for Ahead<T> {
    fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<Option<Bytes>>> {
        if !self.read.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.read))));
        }
        self.io.poll_take(cx, buffer, room)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        self.io.poll_put(cx, chunk)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Side::poll_flush(&mut self.io, cx)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_finish(cx)
    }

    fn reset(&mut self) {
        self.io.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_was_read_before_comes_first_and_what_is_put_back_before_that() {
        let (near, mut far) = tokio::io::duplex(64);
        far.write_all(b"last").await.unwrap();
        drop(far);
        let mut ahead = Ahead::new(near, Bytes::from_static(b"second "));
        ahead.put_back(Bytes::from_static(b"first "));
        let (mut all, mut small) = (Vec::new(), [0; 4]);
        while let n @ 1.. = ahead.read(&mut small).await.unwrap() {
            all.extend_from_slice(&small[..n]);
        }
        assert_eq!(all, b"first second last");
        assert!(!ahead.is_ahead());
    }
}
