//! Serve: an HTTP/1.1 or HTTP/2 server connection for requests that are routed here, within the limits. It must not look into requests.

use super::{frontend::Frontend, handle::handle, plain::H1_BUFFER_MIN, progress::Progress};
use http::{HeaderValue, StatusCode, header::CONNECTION};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use mesh_core::mesh::Limits;
use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout_at},
};

/// What an HTTP/2 client says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves requests until the client goes, nothing moves for `limits.idle`, or the proxy drains. Cancelling it ends all of them.
pub async fn serve<T>(mut io: T, front: Arc<Frontend>, limits: &Limits)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let linger = limits.drain / QUIET;
    let begun = tokio::select! {
        begun = detect(&mut io, limits) => begun,
        // A connection that was opened ahead and is still not used.
        () = async { front.ending().await; sleep(linger).await } => None,
    };
    let Some((version, read)) = begun else { return };
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
    let (used, first) = (AtomicBool::new(false), Notify::new());
    let service = service_fn(|request| {
        if !used.swap(true, Ordering::Relaxed) {
            first.notify_one();
        }
        let (front, request_in) = (front.clone(), progress.request());
        async move {
            let mut answered = handle(front.clone(), request).await;
            if version == Version::Http1
                && front.is_ending()
                && let Ok(response) = &mut answered
                && response.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                // The client hears it before it sends again; a connection that was just closed might be in use.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(request_in);
            answered
        }
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));

    let tick = (limits.handshake.min(limits.idle) / 4).clamp(TICK_MIN, TICK_MAX);
    let mut ticks = interval_at(Instant::now() + tick, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bounds = super::progress::Bounds::new(version == Version::Http1, limits, tick);
    let (mut quiet, mut cut): (Option<Instant>, Option<Instant>) = (None, None);
    let mut stopped = pin!(front.ending());
    let mut drained = pin!(front.drain.cancelled());
    let mut told = false;
    loop {
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %front.peer, %error, "client connection ended");
                }
                return;
            }
            () = &mut stopped, if quiet.is_none() => {
                quiet = Some(Instant::now() + linger);
                // GOAWAY leaves nothing in doubt; a client of HTTP/1.1 hears it with its next response. Who has just come gets the stream
                // that it came for: told at once, it would come again and again.
                if version == Version::Http2 && used.load(Ordering::Relaxed) {
                    told = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
            () = first.notified(), if version == Version::Http2 && quiet.is_some() && !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut drained, if cut.is_none() => cut = Some(Instant::now() + limits.drain),
            () = sleep_until(quiet.unwrap_or_else(Instant::now)), if quiet.is_some() && !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            now = ticks.tick() => {
                if cut.is_some_and(|cut| now >= cut) || bounds.exceeded(&progress) {
                    tracing::debug!(peer = %front.peer, "client connection closed: idle, stalled, or drained");
                    return;
                }
            }
        }
    }
}

/// How often connections are looked at: fine enough for the limits, coarse enough for 10,000 idle ones.
const TICK_MIN: Duration = Duration::from_millis(50);
const TICK_MAX: Duration = Duration::from_secs(15);
/// Part of the drain time in which an HTTP/1.1 connection is left open for its next request, the answer to which ends it: a client that sends
/// one while we close would see it fail.
const QUIET: u32 = 3;
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
