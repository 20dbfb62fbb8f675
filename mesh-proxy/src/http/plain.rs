//! Plain: pooled HTTP connections to applications, made inside the workload's network namespace. It must not encrypt or choose endpoints.

use super::{body::Body, outgoing::Protocol};
use crate::{local::Local, tunnel::DialFault};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh_core::{fault::Fault, mesh::Limits, name::Text};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Idle HTTP/1.1 connections kept for one address: enough for bursts, few enough for 10,000 addresses.
const IDLE_PER_ADDRESS: usize = 128;
/// An idle connection is closed after this; most servers keep them longer.
const IDLE: Duration = Duration::from_secs(60);
/// How often a busy pool looks for idle connections that are too old.
const SWEEP: Duration = Duration::from_secs(10);
/// Streams of one HTTP/2 connection that we use; what most servers allow at least (RFC 9113 §6.5.2: "no smaller than 100").
const STREAMS: usize = 100;
/// A connection that idled this long may be in the middle of being closed by its server.
const MAYBE_CLOSING: Duration = Duration::from_millis(500);
/// Mirrored requests of one workload at once; more are left out.
const MIRRORS: usize = 256;
/// HTTP/1.1 buffers cannot be smaller than this.
pub(super) const H1_BUFFER_MIN: usize = 8192;

/// The plain connections of one workload. They end with it.
#[derive(Debug)]
pub struct Upstreams {
    pool: Arc<Pool>,
    mirrors: Arc<Semaphore>,
}

impl Default for Upstreams {
    fn default() -> Self {
        Self { pool: Arc::default(), mirrors: Arc::new(Semaphore::new(MIRRORS)) }
    }
}

#[derive(Debug, Default)]
struct Pool {
    connections: Mutex<Connections>,
}

#[derive(Debug, Default)]
struct Connections {
    http1: HashMap<Key, Vec<Idle>>,
    http2: HashMap<Key, Vec<Shared>>,
    swept: Option<Instant>,
}

/// An application: its address, and the pod behind it, so that a reused address is another one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    address: SocketAddr,
    uid: Option<Text>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<Body>,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Shared {
    sender: http2::SendRequest<Body>,
    streams: Arc<AtomicUsize>,
}

/// Gives a connection back when its response is through.
#[derive(Debug)]
pub struct Release(Held);

#[derive(Debug)]
enum Held {
    Http1 { pool: Arc<Pool>, key: Key, sender: http1::SendRequest<Body> },
    Http2(#[expect(dead_code, reason = "held for its drop")] Stream),
}

/// A stream in use of a shared connection.
#[derive(Debug)]
struct Stream(Arc<AtomicUsize>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Release {
    /// The response was read to its end. Dropping it otherwise closes an HTTP/1.1 connection.
    pub fn reusable(self) {
        if let Held::Http1 { pool, key, sender } = self.0
            && !sender.is_closed()
        {
            pool.keep(key, sender);
        }
    }
}

impl Upstreams {
    /// The right to send one mirrored request.
    pub fn mirror(&self) -> Result<OwnedSemaphorePermit, tokio::sync::TryAcquireError> {
        self.mirrors.clone().try_acquire_owned()
    }

    /// Sends a request to an application and waits for the response head. A connection that turns out to be closed before anything
    /// was sent on it is replaced silently. Cancelling it closes an HTTP/1.1 connection and resets an HTTP/2 stream.
    pub async fn send(
        &self,
        local: &Local,
        address: SocketAddr,
        uid: Option<Text>,
        protocol: Protocol,
        limits: &Limits,
        request: Request<Body>,
    ) -> Result<Response<Body>, DialFault> {
        let key = Key { address, uid };
        match protocol {
            Protocol::Http1 => self.send_http1(local, key, limits, request).await,
            Protocol::Http2 => self.send_http2(local, key, limits, request).await,
        }
    }

    async fn send_http1(
        &self,
        local: &Local,
        key: Key,
        limits: &Limits,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, DialFault> {
        loop {
            let idle = self.pool.take(&key);
            let mut spare = None;
            let (mut sender, reused) = match idle {
                Some(idle) => {
                    if idle.since.elapsed() > MAYBE_CLOSING && is_repeatable(&request) {
                        spare = Some(copy(&request));
                    }
                    (idle.sender, true)
                }
                None => (dial_http1(local, key.address, limits).await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let release = Release(Held::Http1 { pool: self.pool.clone(), key, sender });
                    return Ok(response.map(|body| received(body, release)));
                }
                Err(mut error) => match error.take_message().or(spare) {
                    Some(again) if reused => request = again,
                    _ => return Err(fault_of(error.into_error())),
                },
            }
        }
    }

    async fn send_http2(
        &self,
        local: &Local,
        key: Key,
        limits: &Limits,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, DialFault> {
        loop {
            let pooled = self.pool.share(&key);
            let reused = pooled.is_some();
            let (mut shared, stream) = match pooled {
                Some(found) => found,
                None => {
                    let sender = dial_http2(local, key.address, limits).await?;
                    self.pool.add(key.clone(), sender)
                }
            };
            match shared.sender.try_send_request(request).await {
                Ok(response) => {
                    let release = Release(Held::Http2(stream));
                    return Ok(response.map(|body| received(body, release)));
                }
                Err(mut error) => match error.take_message() {
                    Some(again) if reused => request = again,
                    _ => return Err(fault_of(error.into_error())),
                },
            }
        }
    }
}

/// A response body that gives its connection back. An empty one does so at once.
fn received(body: hyper::body::Incoming, release: Release) -> Body {
    if body.is_end_stream() {
        release.reusable();
        return Body::Empty;
    }
    Body::Incoming(body, Some(release))
}

/// RFC 9110 §9.2.2: a proxy may repeat an idempotent request by itself when the connection was closed under it.
fn is_repeatable(request: &Request<Body>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
        && matches!(request.body(), Body::Empty)
}

fn copy(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

impl Pool {
    fn take(&self, key: &Key) -> Option<Idle> {
        let mut connections = self.connections.lock();
        let idle = connections.http1.get_mut(key)?;
        // The newest is the warmest. One that is not ready yet still sends its last request: it is of no use.
        loop {
            let at = idle.iter().rposition(|i| i.sender.is_ready() || i.sender.is_closed())?;
            let found = idle.remove(at);
            if found.sender.is_ready() && found.since.elapsed() < IDLE {
                return Some(found);
            }
        }
    }

    fn keep(&self, key: Key, sender: http1::SendRequest<Body>) {
        let now = Instant::now();
        let mut connections = self.connections.lock();
        let idle = connections.http1.entry(key).or_default();
        if idle.len() < IDLE_PER_ADDRESS {
            idle.push(Idle { sender, since: now });
        }
        if connections.swept.is_none_or(|at| now - at > SWEEP) {
            connections.swept = Some(now);
            connections.http1.retain(|_, idle| {
                idle.retain(|i| !i.sender.is_closed() && now - i.since < IDLE);
                !idle.is_empty()
            });
            connections.http2.retain(|_, shared| {
                shared.retain(|s| !s.sender.is_closed());
                !shared.is_empty()
            });
        }
    }

    fn share(&self, key: &Key) -> Option<(Shared, Stream)> {
        let mut connections = self.connections.lock();
        let shared = connections.http2.get_mut(key)?;
        shared.retain(|s| !s.sender.is_closed());
        shared.iter().find_map(|s| Some((s.clone(), s.stream()?)))
    }

    fn add(&self, key: Key, sender: http2::SendRequest<Body>) -> (Shared, Stream) {
        let streams = Arc::new(AtomicUsize::new(1));
        let shared = Shared { sender, streams: streams.clone() };
        self.connections.lock().http2.entry(key).or_default().push(shared.clone());
        (shared, Stream(streams))
    }
}

impl Shared {
    fn stream(&self) -> Option<Stream> {
        let take = |used: usize| (used < STREAMS).then_some(used + 1);
        self.streams.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(Stream(self.streams.clone()))
    }
}

async fn dial_http1(
    local: &Local,
    address: SocketAddr,
    limits: &Limits,
) -> Result<http1::SendRequest<Body>, DialFault> {
    let stream = local.connect(address, Instant::now() + limits.handshake).await?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN))
        .handshake(TokioIo::new(stream))
        .await
        .map_err(fault_of)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to an application ended");
        }
    });
    Ok(sender)
}

async fn dial_http2(
    local: &Local,
    address: SocketAddr,
    limits: &Limits,
) -> Result<http2::SendRequest<Body>, DialFault> {
    let deadline = Instant::now() + limits.handshake;
    let stream = local.connect(address, deadline).await?;
    let handshake = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = tokio::time::timeout_at(deadline, handshake)
        .await
        .map_err(|_| DialFault::from(Fault::ConnectTimeout))?
        .map_err(fault_of)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%address, %error, "connection to an application ended");
        }
    });
    Ok(sender)
}

/// What a failed exchange with an application means.
pub(super) fn fault_of(error: hyper::Error) -> DialFault {
    let native = std::iter::successors(std::error::Error::source(&error), |e| e.source())
        .find_map(|e| e.downcast_ref::<h2::Error>());
    let fault = match native {
        Some(native) => fault_of_native(native),
        None if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() => Fault::UpstreamProtocol,
        // The connection ended before the request was written to it.
        None if error.is_canceled() => Fault::ConnectFailed,
        // Our side of the request body broke off: the client did.
        None if error.is_user() => Fault::ClientGone,
        None => Fault::UpstreamReset,
    };
    DialFault::new(fault, error)
}

/// What a failed stream means.
pub(super) fn fault_of_native(error: &h2::Error) -> Fault {
    match error.reason() {
        // RFC 9113 §8.7: REFUSED_STREAM and streams above a GOAWAY's last "have not been processed".
        Some(h2::Reason::REFUSED_STREAM) => Fault::ConnectFailed,
        Some(h2::Reason::NO_ERROR) if error.is_go_away() && error.is_remote() => Fault::ConnectFailed,
        _ if error.is_remote() || error.is_io() => Fault::UpstreamReset,
        _ => Fault::UpstreamProtocol,
    }
}
