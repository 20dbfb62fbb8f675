//! Handle: one request from its head to its response: read, directed, forwarded or answered, recorded. It must not know connections.

use super::{
    answer,
    body::Body,
    direct::{self, Direction, direct},
    forward::forward,
    frontend::{Door, Frontend},
    head,
    mirror::{self, mirror},
    outgoing::Outgoing,
    response::{Deadline, ResponseBody},
    upgrade::{self, Upgrades},
    upload::Upload,
};
use crate::{telemetry::RequestGuard, tunnel::DialFault};
use http::{HeaderName, HeaderValue, Method, Request, Response, Version, request::Parts};
use http_body::Body as _;
use hyper::body::Incoming;
use mesh_core::{fault::Fault, snapshot::Snapshot};
use opentelemetry::trace::SpanKind;
use smallvec::SmallVec;
use std::{convert::Infallible, future::Future, sync::Arc};
use tokio::time::Instant;

/// Joins the lines of all hops of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// A request whose head was read.
struct Begun {
    front: Arc<Frontend>,
    snapshot: Arc<Snapshot>,
    guard: Box<RequestGuard>,
    /// What to forward, or what is wrong with it.
    outgoing: Result<Box<Outgoing>, Fault>,
    incoming: Incoming,
    /// Who can give the connection over, if that is what the request asks for.
    upgrades: Option<Arc<Upgrades>>,
    grpc: bool,
    is_head: bool,
    started: Instant,
}

/// Serves one request. Never fails: what goes wrong is a response. Dropping it ends the request, and its record says so.
/// `upgrades`: who may ask for another protocol on its connection.
///
/// What an async function is given has its room in it to the end, and is moved about with it; so a request is taken apart before.
pub fn handle(
    front: Arc<Frontend>,
    request: Request<Incoming>,
    upgrades: Option<Arc<Upgrades>>,
) -> impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send {
    let begun = begin(front, request, upgrades);
    async move {
        Ok(match begun {
            Some(begun) => begun.finish().await,
            None => ResponseBody::bare(answer::fault(Fault::UnknownWorkload, false)),
        })
    }
}

/// None: the proxy knows nothing yet.
fn begin(front: Arc<Frontend>, request: Request<Incoming>, upgrades: Option<Arc<Upgrades>>) -> Option<Begun> {
    let started = Instant::now();
    let snapshot = front.shared.snapshot()?;
    let mut guard =
        front.shared.telemetry.request(front.direction(), snapshot.settings().access_log, started.into_std());
    // A request with a body is served as if it had not asked: RFC 9110 §7.8 leaves the choice to us.
    let wants = head::wants_upgrade(request.version(), request.headers()) && request.body().is_end_stream();
    let upgrades = upgrades.filter(|_| wants);
    let (parts, incoming) = request.into_parts();
    let grpc = head::is_grpc(&parts.headers);
    let is_head = parts.method == Method::HEAD;
    front.describe(&mut guard.record);
    let outgoing = read(&front, parts, upgrades.is_some(), &mut guard).map(Box::new);
    Some(Begun { front, snapshot, guard, outgoing, incoming, upgrades, grpc, is_head, started })
}

impl Begun {
    async fn finish(self) -> Response<ResponseBody> {
        let Self { front, snapshot, mut guard, outgoing, incoming, upgrades, grpc, is_head, started } = self;
        let mut upload = None;
        let served = match (outgoing, upgrades) {
            (Err(fault), _) => Err(fault.into()),
            (Ok(outgoing), None) => serve(&front, snapshot, outgoing, incoming, &mut upload, &mut guard, started).await,
            (Ok(outgoing), Some(upgrades)) => {
                match Box::pin(upgrade::upgrade(&front, snapshot, outgoing, &upgrades, guard)).await {
                    Ok(response) => return response,
                    Err((fault, back)) => {
                        guard = back;
                        Err(fault)
                    }
                }
            }
        };
        let (response, deadline) = served.unwrap_or_else(|failed| {
            guard.record.fail(failed.fault, if failed.source.is_some() { failed.detail() } else { String::new() });
            (answer::fault(failed.fault, grpc), None)
        });
        ResponseBody::wrap(response, guard, upload, deadline, is_head)
    }
}

/// Takes a head as it came from the client and makes it one to forward.
fn read(front: &Frontend, mut parts: Parts, upgraded: bool, guard: &mut RequestGuard) -> Result<Outgoing, Fault> {
    let record = &mut guard.record;
    record.version = Some(parts.version);
    record.method = Some(parts.method.clone());
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    record.path = Some(path.clone());
    let authority = head::take_authority(&parts.uri, &mut parts.headers, parts.version)?;
    let authority = match authority {
        Some(authority) => authority,
        // HTTP/1.0 without Host: the address that was dialled is all that is known.
        None => front.destination.to_string().parse().map_err(|_| Fault::BadRequest)?,
    };
    record.host = Some(authority.clone());
    // Tunnels through us are not offered (RFC 9110 §9.3.6 is for proxies that clients chose).
    if parts.method == Method::CONNECT {
        return Err(Fault::BadRequest);
    }

    let parent = parts.headers.get(crate::telemetry::trace::TRACEPARENT);
    let parent = parent.and_then(|v| crate::telemetry::trace::parse(v.as_bytes()));
    let kind = match front.door {
        Door::Service { .. } => SpanKind::Client,
        Door::Listener { .. } => SpanKind::Server,
    };
    let (here, span) = front.shared.telemetry.spans().begin(kind, parent);
    if parent != Some(here) {
        parts.headers.insert(crate::telemetry::trace::TRACEPARENT, here.header());
    }
    record.trace = Some(here);
    guard.span = span.map(Box::new);
    let id = parts.headers.entry(REQUEST_ID).or_insert_with(new_id);
    record.request_id = Some(id.clone());

    if let Door::Listener { scheme, .. } = &front.door {
        forwarded(front, *scheme, &authority, &mut parts.headers);
    }
    if !upgraded {
        head::strip_hop_by_hop(&mut parts.headers);
    }
    Ok(Outgoing { method: parts.method, authority, path, headers: parts.headers, version: parts.version })
}

/// Routes a request, sends its mirrors, and forwards it.
async fn serve(
    front: &Arc<Frontend>,
    snapshot: Arc<Snapshot>,
    mut outgoing: Box<Outgoing>,
    incoming: Incoming,
    upload: &mut Option<Arc<Upload>>,
    guard: &mut RequestGuard,
    started: Instant,
) -> Result<(Response<Body>, Deadline), DialFault> {
    if front.is_misdirected(&snapshot, &outgoing.authority) {
        return Ok((direct::misdirected(), None));
    }
    let directed = match direct(front, &snapshot, &mut outgoing, &mut guard.record) {
        Direction::Forward(directed) => directed,
        Direction::Answer(response) => return Ok((response, None)),
        Direction::Refuse(fault) => return Err(fault.into()),
    };
    guard.record.service = Some((directed.service.clone(), directed.port));

    let has_body = !incoming.is_end_stream();
    let mut taps = SmallVec::new();
    for target in &directed.mirrors {
        let body = if has_body {
            let (tap, copy) = mirror::copy();
            taps.push(tap);
            Body::Mirror(copy)
        } else {
            Body::Empty
        };
        mirror(front, &snapshot, target, outgoing.clone(), body);
    }
    if has_body {
        let limit = snapshot.settings().limits.replay_bytes as usize;
        *upload = Some(Upload::new(Body::Incoming(incoming, None), Some(limit), taps));
    }
    let (mut response, deadline) =
        forward(front, snapshot, &directed, outgoing, upload.as_ref(), guard, started).await?;
    head::strip_hop_by_hop(response.headers_mut());
    // Only the mesh says what the mesh found wrong.
    response.headers_mut().remove(answer::FAULT);
    directed.edit_response(response.headers_mut());
    *response.version_mut() = Version::HTTP_11;
    Ok((response, deadline))
}

/// Says where a request came from. What a stranger claims about scheme and host is overwritten; the chain of addresses is kept.
fn forwarded(
    front: &Frontend,
    scheme: mesh_core::mesh::Scheme,
    authority: &http::uri::Authority,
    headers: &mut http::HeaderMap,
) {
    let mut chain = Vec::new();
    for before in headers.get_all(FORWARDED_FOR).iter().filter(|v| v.to_str().is_ok()) {
        chain.extend_from_slice(before.as_bytes());
        chain.extend_from_slice(b", ");
    }
    let chain = match chain.is_empty() {
        true => Some(front.forwarded_for.clone()),
        false => {
            chain.extend_from_slice(front.forwarded_for.as_bytes());
            HeaderValue::try_from(chain).ok()
        }
    };
    if let Some(chain) = chain {
        headers.insert(FORWARDED_FOR, chain);
    }
    let scheme = match scheme {
        mesh_core::mesh::Scheme::Http => HeaderValue::from_static("http"),
        mesh_core::mesh::Scheme::Https => HeaderValue::from_static("https"),
    };
    headers.insert(FORWARDED_PROTO, scheme);
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        headers.insert(FORWARDED_HOST, host);
    }
}

/// 128 random bits.
fn new_id() -> HeaderValue {
    let mut text = [0; 32];
    crate::telemetry::trace::digits(&rand::random::<[u8; 16]>(), &mut text);
    HeaderValue::from_bytes(&text).expect("hexadecimal digits are a header value")
}
