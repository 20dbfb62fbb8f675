//! Gathered: a stream whose small vectored writes go out as one plain write, which the kernel does sooner. It must not buffer.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is copied rather than described to the kernel piece by piece: a head with a small body.
const SMALL: usize = 1024;

/// See the module.
#[derive(Debug)]
pub struct Gathered<T>(pub T);

impl<T: AsyncRead + Unpin> AsyncRead for Gathered<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Gathered<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = Pin::new(&mut self.0);
        if let [only] = pieces {
            return io.poll_write(cx, only);
        }
        let mut small = [0; SMALL];
        let mut filled = 0;
        for piece in pieces {
            match small.get_mut(filled..filled + piece.len()) {
                Some(room) => room.copy_from_slice(piece),
                None => return io.poll_write_vectored(cx, pieces),
            }
            filled += piece.len();
        }
        io.poll_write(cx, &small[..filled])
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Notes what was called, and takes everything.
    #[derive(Default)]
    struct Calls(Vec<String>);

    impl AsyncWrite for Calls {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(format!("write {}", String::from_utf8_lossy(data)));
            Poll::Ready(Ok(data.len()))
        }
        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.0.push(format!("vectored {}", pieces.len()));
            Poll::Ready(Ok(pieces.iter().map(|p| p.len()).sum()))
        }
        fn is_write_vectored(&self) -> bool {
            true
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_pieces_are_one_write_and_large_ones_are_not_copied() {
        let mut io = Gathered(Calls::default());
        let large = [b'x'; SMALL];
        for (pieces, taken) in [(&[&b"head "[..], b"body"][..], 9), (&[b"alone"], 5), (&[b"head", &large], SMALL + 4)] {
            let pieces: Vec<IoSlice<'_>> = pieces.iter().map(|p| IoSlice::new(p)).collect();
            let wrote = poll_fn(|cx| Pin::new(&mut io).poll_write_vectored(cx, &pieces)).await.unwrap();
            assert_eq!(wrote, taken);
        }
        assert_eq!(io.0.0, ["write head body", "write alone", "vectored 2"]);
    }
}
