//! An HBONE stream as bytes. It must not know what they mean.

use super::{DialFault, Lease, Slot, is_refused};
use crate::tcp::Side;
use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, StatusCode, Uri};
use mesh_core::fault::Fault;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, timeout_at},
};

/// A tunnel to an application: ends of stream are half closes, resets are resets. Dropping it before both ends resets it.
#[derive(Debug)]
pub struct TunnelStream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received but not yet read by `AsyncRead`.
    rest: Bytes,
    finished: bool,
    _lease: Option<Lease>,
}

/// Asks the peer for a tunnel to `address` (`CONNECT`), and waits until `deadline` for its 200. Cancelling it resets the stream.
pub async fn connect(slot: Slot, address: SocketAddr, deadline: Instant) -> Result<TunnelStream, DialFault> {
    // RFC 9113 §8.5: "The ":scheme" and ":path" pseudo-header fields MUST be omitted. The ":authority" pseudo-header field contains the
    // host and port to connect to".
    let authority = Uri::try_from(address.to_string()).map_err(|e| DialFault::new(Fault::Internal, e))?;
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority;
    let (mut sender, lease) = slot.into_parts();
    let (response, send) = sender.send_request(request, false).map_err(|e| DialFault::new(Fault::StreamRefused, e))?;
    drop(sender);
    let response = match timeout_at(deadline, response).await {
        Err(_) => return Err(DialFault::new(Fault::ConnectTimeout, format!("no answer to CONNECT {address} in time"))),
        // Not answered: whatever happened, nothing was delivered.
        Ok(Err(e)) if is_refused(&e) => return Err(DialFault::new(Fault::StreamRefused, e)),
        Ok(Err(e)) => return Err(DialFault::new(Fault::ConnectFailed, e)),
        Ok(Ok(response)) => response,
    };
    let fault = match response.status() {
        StatusCode::OK => return Ok(TunnelStream::new(send, response.into_body(), Some(lease))),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Fault::PeerIdentity,
        StatusCode::BAD_REQUEST => Fault::WrongDestination,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Fault::ConnectFailed,
        _ => Fault::UpstreamProtocol,
    };
    Err(DialFault::new(fault, format!("the peer answered CONNECT {address} with {}", response.status())))
}

impl TunnelStream {
    /// A stream whose heads were exchanged.
    pub(crate) fn new(send: SendStream<Bytes>, recv: RecvStream, lease: Option<Lease>) -> Self {
        Self { send, recv, rest: Bytes::new(), finished: false, _lease: lease }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            return Poll::Ready(match ready!(self.recv.poll_data(cx)) {
                None => Ok(None),
                Some(Ok(chunk)) if chunk.is_empty() => continue,
                Some(Ok(chunk)) => Ok(Some(chunk)),
                // The peer is done with a stream that it does not call broken.
                Some(Err(e)) if e.reason() == Some(Reason::NO_ERROR) => Ok(None),
                Some(Err(e)) => Err(broken(e)),
            });
        }
    }

    /// Waits until some of `want` bytes may be sent.
    fn poll_capacity(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<usize>> {
        self.send.reserve_capacity(want);
        loop {
            let now = self.send.capacity();
            if now > 0 {
                return Poll::Ready(Ok(now.min(want)));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(e)) => return Poll::Ready(Err(broken(e))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    fn finish(&mut self) -> io::Result<()> {
        if self.finished {
            return Ok(());
        }
        self.finished = true;
        self.send.send_data(Bytes::new(), true).map_err(broken)
    }

    fn release(&mut self, bytes: usize) {
        // Fails only when more is released than was received, and we release what we took.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }
}

/// What an HTTP/2 error means to a reader of bytes.
fn broken(error: h2::Error) -> io::Error {
    let kind = match error.reason() {
        _ if error.is_io() => io::ErrorKind::ConnectionAborted,
        Some(_) => io::ErrorKind::ConnectionReset,
        None => io::ErrorKind::BrokenPipe,
    };
    io::Error::new(kind, error)
}

impl Side for TunnelStream {
    fn poll_take(&mut self, cx: &mut Context<'_>, _: &mut BytesMut, _: usize) -> Poll<io::Result<Option<Bytes>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        self.poll_chunk(cx)
    }

    fn poll_put(&mut self, cx: &mut Context<'_>, chunk: &mut Bytes) -> Poll<io::Result<()>> {
        let room = ready!(self.poll_capacity(cx, chunk.len()))?;
        Poll::Ready(self.send.send_data(chunk.split_to(room), false).map_err(broken))
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.finished {
            return Poll::Pending;
        }
        match ready!(self.send.poll_reset(cx)) {
            Ok(Reason::NO_ERROR) => Poll::Pending,
            Ok(reason) => Poll::Ready(broken(reason.into())),
            Err(e) => Poll::Ready(broken(e)),
        }
    }

    fn settle(&mut self, bytes: usize) {
        self.release(bytes);
    }

    fn reset(&mut self) {
        // RFC 9113 §8.5: "A proxy treats any error in the TCP connection … as a stream error of type CONNECT_ERROR".
        self.send.send_reset(Reason::CONNECT_ERROR);
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.rest.is_empty() {
            match ready!(self.poll_chunk(cx))? {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = buf.remaining().min(self.rest.len());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        self.release(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_capacity(cx, buf.len()))?;
        self.send.send_data(Bytes::copy_from_slice(&buf[..room]), false).map_err(broken)?;
        Poll::Ready(Ok(room))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.finish())
    }
}
