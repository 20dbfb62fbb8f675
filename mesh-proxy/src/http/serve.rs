//! Serve: an HTTP/1.1 or HTTP/2 server connection for requests that are routed here, within the limits. It must not look into requests.

use super::{
    frontend::Frontend,
    gathered::Gathered,
    handle::handle,
    plain::H1_BUFFER_MIN,
    progress::Progress,
    watch::{Version, Watch, Word, linger},
};
use crate::{parting::Parting, turn::Turn};
use futures_util::stream::{FuturesUnordered, StreamExt};
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::mesh::Limits;
use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves requests until the client goes, nothing moves for `limits.idle`, or the proxy drains. Cancelling it ends all of them.
pub async fn serve<T>(mut io: T, front: Arc<Frontend>, limits: &Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let begun = tokio::select! {
        begun = detect(&mut io, limits) => begun,
        // A connection that was opened ahead and is still not used.
        () = async { front.ending().await; sleep(linger(limits)).await } => None,
    };
    let Some((version, read)) = begun else { return };
    let progress = Arc::new(Progress::default());
    let serves = Arc::new(AtomicBool::new(true));
    let io = TokioIo::new(Gathered(Parting::new(progress.watch(io, read), serves.clone())));
    let (used, first) = (AtomicBool::new(false), Notify::new());
    let service = service_fn(|request| {
        if !used.swap(true, Ordering::Relaxed) {
            first.notify_one();
        }
        let (front, request_in, serves) = (front.clone(), progress.request(), serves.clone());
        // On the heap once, instead of moved about: it holds all that a request may come to need.
        Box::pin(async move {
            let mut answered = handle(front.clone(), request).await;
            if version == Version::Http1
                && let Ok(response) = &mut answered
            {
                if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                    serves.store(false, Ordering::Relaxed);
                } else if front.is_ending() {
                    // The client hears it before it sends again; a connection that was just closed might be in use.
                    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                }
            }
            drop(request_in);
            answered
        })
    });
    let watch = Watch::new(version, &front, limits, &progress, (&used, &first));
    match version {
        Version::Http1 => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                // It would close kept-alive connections that wait for their next request; `Progress` bounds heads that have begun.
                .header_read_timeout(None)
                .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN));
            let connection = pin!(builder.serve_connection(io, service).with_upgrades());
            until_told(connection, None, http1::UpgradeableConnection::graceful_shutdown, watch, &front).await;
        }
        Version::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(limits.header_bytes)
                .max_concurrent_streams(limits.streams_per_connection)
                // A client may give up all its requests at once.
                .max_pending_accept_reset_streams(limits.streams_per_connection as usize)
                .keep_alive_interval(KEEP_ALIVE)
                .keep_alive_timeout(limits.handshake);
            let connection = pin!(builder.serve_connection(io, service));
            // Its requests are tasks of their own, whose answers go out together.
            let turn = Some(Turn::default());
            until_told(connection, turn, http2::Connection::graceful_shutdown, watch, &front).await;
        }
    }
}

/// Drives a connection to its end, or until `watch` has it closed; if it has a `turn`, then each time in its turn. `leave` tells its client
/// to come again on another one.
async fn until_told<C>(
    mut connection: Pin<&mut C>,
    mut turn: Option<Turn>,
    leave: impl Fn(Pin<&mut C>),
    watch: Watch<'_>,
    front: &Frontend,
) where
    C: Future<Output = hyper::Result<()>>,
{
    // What seldom happens is polled only when it has happened, not with each step of the connection.
    let mut watching: FuturesUnordered<_> = [watch.next()].into_iter().collect();
    poll_fn(|cx| {
        if let Some(turn) = &mut turn {
            ready!(turn.poll(cx));
            turn.over();
        }
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                if let Err(error) = ended {
                    tracing::debug!(peer = %front.peer, %error, "client connection ended");
                }
                return Poll::Ready(());
            }
            match watching.poll_next_unpin(cx) {
                Poll::Ready(Some((Word::Leave, watch))) => {
                    leave(connection.as_mut());
                    watching.push(watch.next());
                }
                Poll::Ready(Some((Word::Close, _)) | None) => {
                    tracing::debug!(peer = %front.peer, "client connection closed: idle, stalled, or drained");
                    return Poll::Ready(());
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// An HTTP/2 client that does not answer a PING for so long is gone, however many streams it left.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// Reads until it is clear which version the client speaks. A connection may be opened ahead and wait; once it has begun, it has
/// `limits.handshake` for the preface.
async fn detect<T: AsyncRead + Unpin>(io: &mut T, limits: &Limits) -> Option<(Version, bytes::Bytes)> {
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
            return Some((Version::Http1, bytes::Bytes::copy_from_slice(seen)));
        }
        if have == PREFACE.len() {
            return Some((Version::Http2, bytes::Bytes::from_static(PREFACE)));
        }
    }
}
