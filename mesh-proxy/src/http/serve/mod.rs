//! Serve: an HTTP/1.1 or HTTP/2 server connection for requests that are routed here, within the limits. It must not look into requests.

mod http1;
mod http2;

use super::{
    frontend::Frontend,
    watch::{Version, linger},
};
use crate::parting::Parting;
use bytes::Bytes;
use mesh_core::mesh::Limits;
use std::sync::Arc;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{Instant, sleep, timeout_at},
};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves requests until the client goes, nothing moves for `limits.idle`, or the proxy drains. Cancelling it ends all of them.
pub async fn serve<T>(mut io: T, front: Arc<Frontend>, limits: &Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut read = Bytes::new();
    loop {
        let begun = tokio::select! {
            begun = detect(&mut io, read, limits) => begun,
            // A connection that was opened ahead and is still not used, or that rests.
            () = async { front.ending().await; sleep(linger(limits)).await } => {
                // Its next request may be on its way, and must not be answered by a reset.
                let _ = Parting::new(io).shutdown().await;
                return;
            }
        };
        // On the heap, so that what serves is there only while there is something to serve.
        let rests = match begun {
            Some((Version::Http1, read)) => Box::pin(http1::serve(io, read, &front, limits)).await,
            Some((Version::Http2, read)) => {
                Box::pin(http2::serve(io, read, &front, limits)).await;
                None
            }
            None => None,
        };
        let Some(rests) = rests else { return };
        (io, read) = rests;
    }
}

/// Reads until it is clear which version the client speaks; `read` was read before. A connection may be opened ahead and wait; once it has
/// begun, it has `limits.handshake` for the preface.
async fn detect<T: AsyncRead + Unpin>(io: &mut T, read: Bytes, limits: &Limits) -> Option<(Version, Bytes)> {
    if !read.is_empty() {
        return Some((Version::Http1, read));
    }
    let mut read = [0; PREFACE.len()];
    let mut have = 0;
    let mut deadline = Instant::now() + limits.idle;
    loop {
        let n = timeout_at(deadline, io.read(&mut read[have..])).await.ok()?.ok()?;
        if n == 0 {
            return None;
        }
        if have == 0 {
            deadline = Instant::now() + limits.handshake;
        }
        have += n;
        let seen = &read[..have];
        if !PREFACE.starts_with(seen) {
            return Some((Version::Http1, Bytes::copy_from_slice(seen)));
        }
        if have == PREFACE.len() {
            return Some((Version::Http2, Bytes::from_static(PREFACE)));
        }
    }
}
