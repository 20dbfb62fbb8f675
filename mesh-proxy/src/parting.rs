//! Parting: the end of a connection that we serve, such that its peer can read all that we sent. It must not know what was sent.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// How long a peer may take to close its side after we have closed ours.
const PATIENCE: Duration = Duration::from_secs(5);

/// A stream whose shutdown ends when the peer has closed its side too. A socket that is closed while bytes of the peer are unread, or still to
/// come, answers them with a reset (RFC 9112 §9.6 tells of it), and that makes the peer's kernel throw away what the peer has not read yet:
/// the answers of the last requests.
#[derive(Debug)]
pub struct Parting<T> {
    io: T,
    /// The peer has closed its side.
    closed: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

impl<T> Parting<T> {
    /// Wraps a connection that we serve.
    pub fn new(io: T) -> Self {
        Self { io, closed: false, patience: None }
    }

    /// Takes the wrapping off: each of its ends is closed for itself from now on.
    pub fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Parting<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (room, before) = (buf.remaining(), buf.filled().len());
        let read = ready!(Pin::new(&mut self.io).poll_read(cx, buf));
        self.closed |= read.is_err() || (room > 0 && buf.filled().len() == before);
        Poll::Ready(read)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Parting<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.patience.is_none() {
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.patience = Some(Box::pin(sleep(PATIENCE)));
        }
        let mut thrown = [0; 4096];
        while !self.closed {
            // However much comes: the time bounds it, and is looked at between two reads.
            if self.patience.as_mut().is_some_and(|p| p.as_mut().poll(cx).is_ready()) {
                break;
            }
            // An error is an end as well.
            let _ = ready!(self.as_mut().poll_read(cx, &mut ReadBuf::new(&mut thrown)));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    async fn pair() -> (TcpStream, Parting<TcpStream>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (client, Parting::new(server))
    }

    #[tokio::test]
    async fn a_peer_that_still_sends_reads_all_that_was_sent_to_it() {
        let (mut client, mut server) = pair().await;
        client.write_all(&[b'?'; 100_000]).await.unwrap();
        let served = tokio::spawn(async move {
            server.write_all(b"answer").await.unwrap();
            server.shutdown().await.unwrap();
        });
        // It comes to read only after it has sent more.
        client.write_all(&[b'?'; 100_000]).await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"answer");
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_close_is_not_waited_for_for_ever() {
        let (peer, server) = tokio::io::duplex(64);
        let begun = Instant::now();
        Parting::new(server).shutdown().await.unwrap();
        assert!(begun.elapsed() >= PATIENCE);
        drop(peer);
    }
}
