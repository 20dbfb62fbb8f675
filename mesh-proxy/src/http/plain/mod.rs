//! Plain: pooled HTTP connections to applications, made inside the workload's network namespace. It must not encrypt or choose endpoints.

mod fault;
mod http1;
mod http2;
mod pool;

pub(super) use fault::fault_of;
pub use pool::{Pooled, Stream};

use super::{
    body::{Body, Place},
    exchange::exchange,
    gathered::Gathered,
    outgoing::{Protocol, Unsent},
};
use crate::{local::Local, tunnel::DialFault};
use futures_util::future::Either;
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::client::conn::http1 as hyper_http1;
use hyper_util::rt::TokioIo;
use mesh_core::mesh::{Limits, Uid};
use pool::{Key, Pool};
use std::{
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

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

impl Upstreams {
    /// The right to send one mirrored request.
    pub fn mirror(&self) -> Result<OwnedSemaphorePermit, tokio::sync::TryAcquireError> {
        self.mirrors.clone().try_acquire_owned()
    }

    /// Sends a request to an application and waits for the response head. A connection that turns out to be closed before anything
    /// was sent on it is replaced silently. Cancelling it closes an HTTP/1.1 connection and resets an HTTP/2 stream.
    ///
    /// # Errors
    ///
    /// Of what nothing was sent the head is back, or still there, if another attempt may follow.
    pub fn send<'a>(
        &'a self,
        local: &'a Local,
        address: SocketAddr,
        uid: Option<Uid>,
        protocol: Protocol,
        limits: &'a Limits,
        unsent: Unsent<'a>,
    ) -> impl Future<Output = Result<Response<Body>, DialFault>> + 'a {
        let key = Key { address, uid };
        // Not an async function, which would keep room for all that it was given beside that of what it calls.
        match protocol {
            Protocol::Http1 => Either::Left(self.send_http1(local, key, limits, unsent)),
            Protocol::Http2 => Either::Right(self.send_http2(local, key, limits, unsent)),
        }
    }

    async fn send_http1(
        &self,
        local: &Local,
        key: Key,
        limits: &Limits,
        mut unsent: Unsent<'_>,
    ) -> Result<Response<Body>, DialFault> {
        let waiting = self.pool.waiting(&key);
        loop {
            let now = Instant::now();
            let (mut connection, idle) = match waiting.take(now) {
                Some(idle) => (idle.connection, Some(now - idle.since)),
                None => (Box::pin(dial_http1(local, key.address, limits)).await?, None),
            };
            let request = unsent.http1()?;
            // On the heap, as few requests find a connection that idled for long.
            let spare =
                idle.filter(|idle| *idle > MAYBE_CLOSING && is_repeatable(&request)).map(|_| Box::new(copy(&request)));
            let answered = {
                let mut answer = pin!(connection.send(request));
                poll_fn(|cx| connection.poll_answer(answer.as_mut(), cx)).await
            };
            match answered {
                Ok(response) => {
                    let pooled = Pooled::new(waiting, connection);
                    return Ok(response.map(|body| received(body, pooled)));
                }
                Err(mut error) => {
                    let is_back = unsent.take_back(error.take_message().or(spare.map(|spare| *spare)));
                    if idle.is_none() || !is_back {
                        return Err(fault_of(error.into_error()));
                    }
                }
            }
        }
    }

    async fn send_http2(
        &self,
        local: &Local,
        key: Key,
        limits: &Limits,
        mut unsent: Unsent<'_>,
    ) -> Result<Response<Body>, DialFault> {
        let (sender, stream) = match self.pool.share(&key) {
            Some(found) => found,
            None => {
                let sender = Box::pin(http2::dial(local, key.address, limits)).await?;
                self.pool.add(key, sender)
            }
        };
        let (request, body) = unsent.http2()?;
        exchange(sender, Place::Application(stream), request, body).await
    }
}

/// A response body that gives its connection back. An empty one does so at once.
fn received(body: hyper::body::Incoming, pooled: Pooled) -> Body {
    if body.is_end_stream() {
        pooled.reusable();
        return Body::Empty;
    }
    Body::Incoming(body, Some(pooled))
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

async fn dial_http1(local: &Local, address: SocketAddr, limits: &Limits) -> Result<Box<http1::Connection>, DialFault> {
    let stream = local.connect(address, Instant::now() + limits.handshake).await?;
    let (sender, driver) = hyper_http1::Builder::new()
        .max_buf_size((limits.header_bytes as usize).max(H1_BUFFER_MIN))
        .handshake(TokioIo::new(Gathered(stream)))
        .await
        .map_err(fault_of)?;
    Ok(http1::Connection::new(address, sender, driver))
}
