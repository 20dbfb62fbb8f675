//! Conflict: which kind of route has a port of a Service, when several kinds want it. It must not merge routes of one kind; the proxy does.

use super::{
    attach::{Parent, Place, Refusal},
    status::reason,
    view::View,
};
use crate::inventory::{Key, Kind};
use mesh_core::{mesh::Scope, name::ServiceId};
use std::collections::BTreeMap;

/// Ports that routes of a Service have lost, and to whom.
pub(super) type Conflicts = BTreeMap<Key, BTreeMap<u16, Key>>;

/// GEP-1294: "the following precedence … GRPCRoute, HTTPRoute, TLSRoute, TCPRoute".
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::GrpcRoute => 0,
        Kind::HttpRoute => 1,
        Kind::TlsRoute => 2,
        _ => 3,
    }
}

/// Finds the conflicts on a Service. Producer routes and the consumer routes of each namespace are groups of their own, as they are never merged.
pub(super) fn conflicts(view: &View<'_>, service: &ServiceId) -> Conflicts {
    let mut winners: BTreeMap<(Option<&str>, u16), &Key> = BTreeMap::new();
    let mut claims = Vec::new();
    for (key, attach) in view.attached(&Parent::Service(service.clone())) {
        for place in attach.parents.iter().filter_map(|p| p.place.as_ref().ok()) {
            let Place::Service { service: on, ports, scope, .. } = place else { continue };
            if on != service {
                continue;
            }
            let group = match scope {
                Scope::Producer => None,
                Scope::Consumer(namespace) => Some(&**namespace),
            };
            for port in ports {
                let winner = winners.entry((group, *port)).or_insert(key);
                if rank(key.kind) < rank(winner.kind) {
                    *winner = key;
                }
                claims.push((key, group, *port));
            }
        }
    }
    let mut lost = Conflicts::new();
    for (key, group, port) in claims {
        let winner = winners[&(group, port)];
        if rank(winner.kind) < rank(key.kind) {
            lost.entry(key.clone()).or_default().insert(port, winner.clone());
        }
    }
    lost
}

/// What is left of a place after conflicts.
pub(super) fn settle(view: &View<'_>, key: &Key, place: Result<Place, Refusal>) -> Result<Place, Refusal> {
    let Ok(Place::Service { service, ports, scope, hostnames }) = place else { return place };
    let lost = view.lost(&service, key);
    let left: Vec<u16> = ports.iter().copied().filter(|p| lost.is_none_or(|lost| !lost.contains_key(p))).collect();
    match (left.is_empty(), lost) {
        (true, Some(lost)) => {
            let why =
                lost.iter().map(|(port, winner)| format!("port {port} of Service {service} is governed by {winner}"));
            Err(Refusal::new(reason::CONFLICTED, why.collect::<Vec<_>>().join(", ")))
        }
        _ => Ok(Place::Service { service, ports: left, scope, hostnames }),
    }
}
