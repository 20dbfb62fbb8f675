//! Deliver: a native request of a verified peer, admitted and handed to the application inside the pod. It must not route.

use super::{
    answer,
    body::{Body, Native},
    head,
    outgoing::{DESTINATION, Keep, Outgoing, PROTOCOL, Protocol, Unsent},
    pump::{PumpError, pump},
    response::chain,
    upload::Upload,
};
use crate::{
    inbound::Arrival,
    local::Local,
    shared::Shared,
    telemetry::{
        Direction, RequestGuard,
        trace::{self, TRACEPARENT},
    },
    tunnel::DialFault,
};
use bytes::Bytes;
use h2::{RecvStream, SendStream, server::SendResponse};
use http::{Request, Response, Version};
use http_body::Body as _;
use mesh_core::{
    decide::{Permit, admit},
    fault::Fault,
};
use mesh_tls::VerifiedPeer;
use opentelemetry::trace::SpanKind;
use smallvec::SmallVec;
use std::{future::poll_fn, net::SocketAddr, pin::pin, sync::Arc, task::Poll, time::Instant};
use tokio::sync::OwnedSemaphorePermit;

/// Delivers a native request of a verified peer. Dropping it resets the stream.
pub async fn deliver(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    peer: VerifiedPeer,
    arrival: Arrival,
    local: Arc<Local>,
    shared: Arc<Shared>,
) {
    let started = Instant::now();
    let Some(settings) = shared.settings() else { return };
    let mut guard = shared.telemetry.request(Direction::Inbound, settings.access_log, started);
    let grpc = head::is_grpc(request.headers());
    let (parts, stream) = request.into_parts();
    let (mut upload, mut _turn) = (None, None);
    let answered = {
        let read = read(parts, arrival, &peer, &local, &shared, &mut guard);
        match read {
            Err(fault) => Err(fault),
            // Kept for as long as the request lives.
            Ok((permit, turn, protocol, outgoing)) => {
                _turn = Some(turn);
                let body = if stream.is_end_stream() {
                    Body::Empty
                } else {
                    let native = Body::Native(Native::new(stream, &outgoing.headers, None, None));
                    let counted = Upload::new(native, None, SmallVec::new());
                    let body = counted.reader().map_or(Body::Empty, Body::Upload);
                    upload = Some(counted);
                    body
                };
                guard.record.attempts = 1;
                let mut head = Some(Box::new(outgoing));
                let mut sent = pin!(local.upstreams().send(
                    &local,
                    permit.destination(),
                    None,
                    protocol,
                    &settings.limits,
                    Unsent::new(&mut head, body, Keep::Never)
                ));
                poll_fn(|cx| {
                    // A peer that gave up frees the application too.
                    if let Poll::Ready(reset) = respond.poll_reset(cx) {
                        let detail = reset.map_or_else(|e| e.to_string(), |r| format!("reset: {r}"));
                        return Poll::Ready(Err(DialFault::new(Fault::ClientGone, detail)));
                    }
                    sent.as_mut().poll(cx)
                })
                .await
            }
        }
    };
    let answered = answered.map(|mut response| {
        // Only the mesh says what the mesh found wrong.
        response.headers_mut().remove(answer::FAULT);
        response
    });
    let response = answered.unwrap_or_else(|failed| {
        guard.record.fail(failed.fault, if failed.source.is_some() { failed.detail() } else { String::new() });
        answer::fault(failed.fault, grpc)
    });
    reply(response, respond, &mut guard).await;
    guard.record.bytes_in = upload.map_or(0, |u| u.received());
}

/// Takes our headers off and admits the request.
fn read(
    mut parts: http::request::Parts,
    arrival: Arrival,
    peer: &VerifiedPeer,
    local: &Local,
    shared: &Shared,
    guard: &mut RequestGuard,
) -> Result<(Permit, OwnedSemaphorePermit, Protocol, Outgoing), DialFault> {
    let record = &mut guard.record;
    let workload = local.workload();
    record.source.identity = Some(peer.identity().clone());
    record.destination.identity = Some(workload.identity.clone());
    record.destination.workload = Some(workload.clone());
    record.tls = Some("TLSv1.3");
    record.version = Some(Version::HTTP_2);
    record.method = Some(parts.method.clone());
    record.request_id = parts.headers.get("x-request-id").cloned();
    let path = parts.uri.path_and_query().cloned().unwrap_or_else(|| http::uri::PathAndQuery::from_static("/"));
    record.path = Some(path.clone());
    record.source.address = Some(arrival.peer);
    record.source.workload = shared.snapshot().and_then(|s| s.workload_at(arrival.peer.ip()).cloned());
    let bad = |what: &str| DialFault::new(Fault::BadRequest, what.to_owned());
    let authority = parts.uri.authority().cloned().ok_or_else(|| bad("a native request without :authority"))?;
    record.host = Some(authority.clone());

    let destination = parts.headers.remove(DESTINATION).ok_or_else(|| bad("no heddle-destination"))?;
    let protocol = parts.headers.remove(PROTOCOL).ok_or_else(|| bad("no heddle-protocol"))?;
    let protocol = Protocol::parse(protocol.as_bytes()).ok_or_else(|| bad("heddle-protocol is not http1 or http2"))?;
    let destination: SocketAddr = destination
        .to_str()
        .ok()
        .and_then(|d| d.parse().ok())
        .ok_or_else(|| bad("heddle-destination is not an address with a port"))?;
    record.destination.address = Some(destination);
    let permit = admit(&workload, arrival.local, peer.identity(), destination)?;
    // A request holds what a connection holds, and peers may have many on each.
    let turn = local.connection()?;

    let parent = parts.headers.get(TRACEPARENT).and_then(|v| trace::parse(v.as_bytes()));
    let (here, span) = shared.telemetry.spans().begin(SpanKind::Server, parent);
    if parent != Some(here) {
        parts.headers.insert(TRACEPARENT, here.header());
    }
    record.trace = Some(here);
    guard.span = span.map(Box::new);
    head::strip_hop_by_hop(&mut parts.headers);
    let outgoing = Outgoing { method: parts.method, authority, path, headers: parts.headers, version: Version::HTTP_2 };
    Ok((permit, turn, protocol, outgoing))
}

/// Sends the response back, as fast as the peer takes it.
async fn reply(response: Response<Body>, mut respond: SendResponse<Bytes>, guard: &mut RequestGuard) {
    let (mut parts, body) = response.into_parts();
    head::strip_hop_by_hop(&mut parts.headers);
    parts.version = Version::HTTP_2;
    guard.record.status = Some(parts.status);
    guard.record.grpc_status = grpc_status(&parts.headers);
    let empty = body.is_end_stream();
    let stream: SendStream<Bytes> = match respond.send_response(Response::from_parts(parts, ()), empty) {
        Ok(stream) => stream,
        Err(error) => return guard.record.fail(Fault::ClientGone, error),
    };
    if empty {
        return;
    }
    let record = &mut guard.record;
    let sent = pump(body, stream, 0, |frame| {
        if let Some(data) = frame.data_ref() {
            record.bytes_out += data.len() as u64;
        } else if let Some(trailers) = frame.trailers_ref() {
            record.grpc_status = grpc_status(trailers).or(record.grpc_status);
        }
    })
    .await;
    match sent {
        Ok(()) => {}
        Err(PumpError::Source(error)) => {
            guard.record.fail(Fault::UpstreamReset, format_args!("in the middle of the response: {}", chain(&error)));
        }
        Err(error) => guard.record.fail(Fault::ClientGone, chain(&error)),
    }
}

fn grpc_status(headers: &http::HeaderMap) -> Option<u16> {
    headers.get(answer::GRPC_STATUS).and_then(|s| s.to_str().ok()).and_then(|s| s.parse().ok())
}
