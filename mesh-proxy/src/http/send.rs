//! Send: one attempt at one endpoint: native over mTLS, or plain. It must not retry or choose; `forward` does.

use super::{
    answer::FAULT,
    body::{Body, Place},
    exchange::exchange,
    frontend::Frontend,
    outgoing::{Protocol, Unsent},
};
use crate::tunnel::{DialFault, Way};
use http::Response;
use mesh_core::{balance::Target, decide::transport, fault::Fault, identity::Identity, mesh::Limits};
use std::sync::Arc;

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
            let (sender, lease) = slot.into_parts();
            let response = exchange(sender, Place::Peer(lease), request, body).await?;
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
