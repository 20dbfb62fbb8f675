//! Serve: an HTTP/1.1 or HTTP/2 server connection for requests that are routed here, within the limits. It must not look into requests.

use super::{frontend::Frontend, handle::handle, plain::H1_BUFFER_MIN, progress::Progress};
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use mesh_core::mesh::Limits;
use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, MissedTickBehavior, interval_at, timeout_at},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves requests until the client goes, nothing moves for `limits.idle`, or the proxy drains. Cancelling it ends all of them.
pub async fn serve<T>(mut io: T, front: Arc<Frontend>, limits: &Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some((version, read)) = detect(&mut io, limits).await else { return };
    let progress = Arc::new(Progress::default());
    let io = progress.watch(io, read);
    let mut builder = Builder::new(TokioExecutor::new());
    builder = match version {
        Version::Http1 => builder.http1_only(),
        Version::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would close kept-alive connections that wait for their next request; `Progress` bounds heads that have begun.
        .header_read_timeout(None)
        .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(limits.handshake);
    let service = service_fn(|request| {
        let (front, request_in, leaving) = (front.clone(), progress.request(), front.stop.clone());
        async move {
            let Ok(mut answered) = handle(front, request).await;
            drop(request_in);
            // RFC 9112 §9.6: the way to end a connection of which the client may just now send the next request.
            if version == Version::Http1
                && leaving.is_cancelled()
                && answered.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answered.headers_mut().insert(CONNECTION, CLOSE);
            }
            Ok::<_, Infallible>(answered)
        }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));

    let tick = (limits.handshake.min(limits.idle) / 4).clamp(TICK_MIN, TICK_MAX);
    let mut ticks = interval_at(Instant::now() + tick, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bounds = super::progress::Bounds::new(version == Version::Http1, limits, tick);
    // Once the proxy leaves: when a connection without a request is closed, and when any is.
    let mut quiet: Option<Instant> = None;
    let mut cut: Option<Instant> = None;
    let drained = front.stop.cancelled();
    let mut drained = pin!(drained);
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %front.peer, %error, "client connection ended");
                }
                return;
            }
            () = &mut drained, if cut.is_none() => {
                let now = Instant::now();
                cut = Some(now + limits.drain);
                match version {
                    // GOAWAY names the last stream that is served, so that no request is lost.
                    Version::Http2 => connection.as_mut().graceful_shutdown(),
                    Version::Http1 => quiet = Some(now + limits.drain / QUIET),
                }
            }
            now = ticks.tick() => {
                if quiet.take_if(|quiet| now >= *quiet).is_some() {
                    connection.as_mut().graceful_shutdown();
                }
                if cut.is_some_and(|cut| now >= cut) || bounds.exceeded(&progress) {
                    tracing::debug!(peer = %front.peer, "client connection closed: idle, stalled, or drained");
                    return;
                }
            }
        }
    }
}

/// Part of the drain time in which an HTTP/1.1 connection is left open for its next request, the answer to which ends it: a client that sends
/// one while we close would see it fail.
const QUIET: u32 = 3;
/// How often connections are looked at: fine enough for the limits, coarse enough for 10,000 idle ones.
const TICK_MIN: Duration = Duration::from_millis(50);
const TICK_MAX: Duration = Duration::from_secs(15);
/// An HTTP/2 client that does not answer a PING for so long is gone, however many streams it left.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

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
