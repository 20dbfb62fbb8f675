//! An HBONE stream as bytes. It must not know what they mean.

use super::{DialFault, Lease, Slot};
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A tunnel to an application: ends of stream are half closes, resets are resets.
#[derive(Debug)]
pub struct TunnelStream {
    _send: SendStream<Bytes>,
    _recv: RecvStream,
    _lease: Option<Lease>,
}

/// Asks the peer for a tunnel to `address` (`CONNECT`), and waits for its 200.
pub async fn connect(_slot: Slot, _address: SocketAddr) -> Result<TunnelStream, DialFault> {
    todo!("l4")
}

impl AsyncRead for TunnelStream {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        todo!("l4")
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _buf: &[u8]) -> Poll<io::Result<usize>> {
        todo!("l4")
    }
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!("l4")
    }
    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        todo!("l4")
    }
}
