//! Batch: what an HTTP/2 connection writes frame by frame goes out together at the end of its turn: one TLS record, one system call and one
//! segment instead of one for each. It must not delay anything beyond that turn.

use bytes::{Buf, BytesMut};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The largest frame that waits for others, about: a TLS record's. Copying more costs more than the system call that it saves.
const SMALL: usize = 16 * 1024 + 9;
/// Frames that wait together, in bytes.
const MOST: usize = 64 * 1024;

/// A stream below an HTTP/2 connection of the `h2` crate, which writes and flushes each DATA frame for itself, and flushes once more when it
/// has no frame left. So of a frame whose bytes come as pieces, head and data, the first flush means nothing, and only that one is left out.
#[derive(Debug)]
pub struct Batch<T> {
    io: T,
    held: BytesMut,
    /// The next flush is that of a single frame.
    more: bool,
}

impl<T> Batch<T> {
    /// Below an HTTP/2 connection.
    pub fn new(io: T) -> Self {
        Self { io, held: BytesMut::new(), more: false }
    }
}

impl<T: AsyncWrite + Unpin> Batch<T> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let gone = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            self.gone(gone)?;
        }
        // A connection that rests holds nothing.
        self.held = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    fn gone(&mut self, bytes: usize) -> io::Result<()> {
        if bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.held.advance(bytes);
        Ok(())
    }

    /// What is held and these pieces, without copying; how much of the pieces went.
    fn poll_write_through(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        /// More than the pieces of a frame.
        const TOGETHER: usize = 8;
        while !self.held.is_empty() {
            let mut all = [IoSlice::new(&[]); TOGETHER];
            all[0] = IoSlice::new(&self.held);
            for (place, piece) in all[1..].iter_mut().zip(pieces) {
                *place = IoSlice::new(piece);
            }
            let count = TOGETHER.min(1 + pieces.len());
            let gone = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &all[..count]))?;
            let of_held = gone.min(self.held.len());
            self.gone(of_held)?;
            if gone > of_held {
                return Poll::Ready(Ok(gone - of_held));
            }
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, pieces)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Batch<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Batch<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(data)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let size: usize = pieces.iter().map(|p| p.len()).sum();
        if size > SMALL || self.held.len() + size > MOST {
            let gone = ready!(self.poll_write_through(cx, pieces));
            self.more = false;
            return Poll::Ready(gone);
        }
        for piece in pieces {
            self.held.extend_from_slice(piece);
        }
        self.more = pieces.iter().filter(|p| !p.is_empty()).count() > 1;
        Poll::Ready(Ok(size))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.more) {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bytes::Bytes;
    use http::{Request, Response};
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex},
    };
    use tokio::io::DuplexStream;

    /// Notes the size of each write.
    pub(crate) struct Noted(pub(crate) DuplexStream, pub(crate) Arc<Mutex<Vec<usize>>>);

    impl AsyncRead for Noted {
        fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Noted {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            let gone = ready!(Pin::new(&mut self.0).poll_write(cx, data))?;
            self.1.lock().unwrap().push(gone);
            Poll::Ready(Ok(gone))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    /// A server that answers each request with a body of the given size; sizes of what it wrote.
    async fn answers(requests: usize, body: usize) -> Vec<usize> {
        let (client, server) = tokio::io::duplex(1 << 20);
        let noted = Arc::new(Mutex::new(Vec::new()));
        let io = Batch::new(Noted(server, noted.clone()));
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(io).await.unwrap();
            let mut waiting = Vec::new();
            while let Some(Ok((_, respond))) = connection.accept().await {
                waiting.push(respond);
                if waiting.len() == requests {
                    for mut respond in waiting.drain(..) {
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        send.send_data(Bytes::from(vec![7; body]), true).unwrap();
                    }
                }
            }
        });
        let (client, connection) = h2::client::handshake(client).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        poll_fn(|cx| client.poll_ready(cx)).await.unwrap();
        let sent: Vec<_> = (0..requests).map(|_| client.send_request(Request::new(()), true).unwrap().0).collect();
        // Whatever was left unwritten would never come: nothing but the server's own turn writes it.
        for response in sent {
            let mut body = response.await.unwrap().into_body();
            while let Some(chunk) = body.data().await {
                body.flow_control().release_capacity(chunk.unwrap().len()).unwrap();
            }
        }
        noted.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn frames_of_one_turn_are_one_write() {
        let wrote = answers(10, 1000).await;
        assert!(wrote.iter().any(|w| *w > 10_000), "{wrote:?}");
    }

    #[tokio::test]
    async fn a_single_frame_of_any_size_waits_for_nothing() {
        for body in [1, 255, 256, 1000, SMALL - 9, SMALL - 8, 60_000] {
            let wrote = answers(1, body).await;
            assert!(wrote.iter().sum::<usize>() > body, "{body}: {wrote:?}");
        }
    }

    #[tokio::test]
    async fn more_than_may_wait_comes_whole() {
        // 60 KB is what the client's first window takes.
        let wrote = answers(60, 1000).await;
        assert!(wrote.iter().sum::<usize>() > 60_000, "{wrote:?}");
        let wrote = answers(4, 15_000).await;
        assert!(wrote.iter().sum::<usize>() > 60_000, "{wrote:?}");
    }
}
