//! Send: one attempt at one endpoint: native over mTLS, or plain. It must not retry or choose; `forward` does.

use super::{
    answer::FAULT,
    body::{Body, Native},
    frontend::Frontend,
    outgoing::{Protocol, Unsent},
    plain::fault_of_native,
    pump::{PumpError, pump},
};
use crate::tunnel::{DialFault, Slot, Way};
use http::{Request, Response};
use http_body::Body as _;
use mesh_core::{balance::Target, decide::transport, fault::Fault, identity::Identity, mesh::Limits};
use std::{future::poll_fn, pin::Pin, sync::Arc, task::Poll};
use tokio_util::task::AbortOnDropHandle;

/// A response head with the way it came.
#[derive(Debug)]
pub struct Sent {
    /// The response.
    pub response: Response<Body>,
    /// The peer that was verified; none: plaintext.
    pub peer: Option<Identity>,
}

/// Sends a request to an endpoint and waits for the response head. Cancelling it resets the stream.
pub async fn send(
    front: &Frontend,
    limits: &Limits,
    target: &Arc<Target>,
    protocol: Protocol,
    mut unsent: Unsent<'_>,
) -> Result<Sent, DialFault> {
    match front.shared.pool.reach(&front.local, target, transport(target.workload.as_deref())).await? {
        Way::Mesh(slot, peer) => {
            let (request, body) = unsent.native(target.address, protocol)?;
            let response = native(slot, request, body).await?;
            match peer_fault(&response) {
                Some(fault) => Err(DialFault::new(fault, "said the proxy of the endpoint")),
                None => Ok(Sent { response, peer: Some(peer) }),
            }
        }
        Way::Plain => {
            let uid = target.workload.as_ref().map(|w| w.uid.clone());
            let upstreams = front.local.upstreams();
            let response = upstreams.send(&front.local, target.address, uid, protocol, limits, unsent).await?;
            Ok(Sent { response, peer: None })
        }
    }
}

/// What the peer's proxy found wrong; applications cannot say this, because their proxy takes the header off.
fn peer_fault(response: &Response<Body>) -> Option<Fault> {
    response.headers().get(FAULT).and_then(|label| Fault::from_label(label.to_str().ok()?))
}

/// A native request on a stream of its own.
async fn native(slot: Slot, request: Request<()>, body: Body) -> Result<Response<Body>, DialFault> {
    if !body.is_end_stream() {
        return Box::pin(native_with_body(slot, request, body)).await;
    }
    let (response, _, lease) = slot.send_request(request, true).map_err(not_sent)?;
    let (head, stream) = response.await.map_err(failed)?.into_parts();
    let native = Native::new(stream, &head.headers, Some(lease), None);
    Ok(Response::from_parts(head, Body::Native(native)))
}

/// The body is sent from here until the response head comes; only what is left then needs a task.
async fn native_with_body(slot: Slot, request: Request<()>, body: Body) -> Result<Response<Body>, DialFault> {
    let (mut response, stream, lease) = slot.send_request(request, false).map_err(not_sent)?;
    let mut upload = Some(Box::pin(pump(body, stream, |_| ())));
    let head = poll_fn(|cx| {
        // The response first: a server may answer without reading the body.
        if let Poll::Ready(head) = Pin::new(&mut response).poll(cx) {
            return Poll::Ready(head.map_err(failed));
        }
        if let Some(pumping) = &mut upload
            && let Poll::Ready(done) = pumping.as_mut().poll(cx)
        {
            upload = None;
            if let Err(PumpError::Source(error)) = done {
                return Poll::Ready(Err(DialFault::new(Fault::ClientGone, error)));
            }
            // Any other failure is the peer's, and its response or reset says what it means.
        }
        Poll::Pending
    })
    .await?;
    let upload = upload.map(|pumping| {
        AbortOnDropHandle::new(tokio::spawn(async move {
            if let Err(error) = pumping.await {
                tracing::debug!(%error, "the rest of a request body was not sent");
            }
        }))
    });
    let (head, stream) = head.into_parts();
    let native = Native::new(stream, &head.headers, Some(lease), upload);
    Ok(Response::from_parts(head, Body::Native(native)))
}

/// The connection ended between our getting the slot and our use of it.
fn not_sent(error: h2::Error) -> DialFault {
    DialFault::new(Fault::StreamRefused, error)
}

fn failed(error: h2::Error) -> DialFault {
    DialFault::new(fault_of_native(&error), error)
}
