//! Gateway: what a Gateway of ours is lowered to, and its status. It must not judge listeners; `listener` did.

use super::{
    attach::{Parent, Place},
    status::{Body, Condition, ListenerStatus, State, Status, reason},
    view::View,
};
use crate::inventory::{Key, Kind};
use mesh_core::{
    mesh::{Certificate, Gateway},
    name::{GatewayId, NsName, Text},
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Addresses that were assigned to a Gateway, separated by commas; who provisions it writes them.
pub const ADDRESSES_ANNOTATION: &str = "heddle.dev/addresses";

/// A Gateway of ours and its status.
pub(super) fn plan(view: &View<'_>, id: &GatewayId) -> (Option<Gateway>, Option<Status>) {
    let (Some(listeners), Some(object)) = (view.listeners(id), view.gateway(id)) else { return (None, None) };
    let assigned = object.meta.annotations.get(ADDRESSES_ANNOTATION).map(String::as_str).unwrap_or_default();
    let addresses: Vec<IpAddr> = assigned.split(',').filter_map(|a| a.trim().parse().ok()).collect();
    let served: Vec<_> = listeners.listeners.iter().filter_map(|l| l.served.clone()).collect();

    let invalid: Vec<&str> = listeners
        .listeners
        .iter()
        .filter(|l| l.conditions.iter().any(|c| c.kind == "Accepted" && c.state != State::True))
        .map(|l| &*l.name)
        .collect();
    let unresolved: Vec<&str> = listeners
        .listeners
        .iter()
        .filter(|l| l.conditions.iter().any(|c| c.kind == "ResolvedRefs" && c.state != State::True))
        .map(|l| &*l.name)
        .collect();
    let accepted = match &listeners.refused {
        Some(refusal) => Condition::no("Accepted", refusal.reason, refusal.message.clone()),
        None if invalid.is_empty() => Condition::yes("Accepted", reason::ACCEPTED, "all listeners are valid".into()),
        // "[status True if ≥1 valid, False if none]"
        None => {
            let message = format!("not valid: listeners {}", invalid.join(", "));
            let some = invalid.len() < listeners.listeners.len();
            let condition = if some { Condition::yes } else { Condition::no };
            condition("Accepted", reason::LISTENERS_NOT_VALID, message)
        }
    };
    let missing = object.spec.addresses.iter().flatten().filter_map(|a| a.value.as_deref()).filter(|v| !v.is_empty());
    let missing: Vec<&str> =
        missing.filter(|v| v.parse().map_or(true, |ip: IpAddr| !addresses.contains(&ip))).collect();
    let programmed = if accepted.state != State::True || served.is_empty() {
        Condition::no("Programmed", reason::INVALID, "no listener is served".into())
    } else if addresses.is_empty() {
        Condition::no("Programmed", reason::ADDRESS_NOT_ASSIGNED, "no address was assigned yet".into())
    } else if !missing.is_empty() {
        Condition::no("Programmed", reason::ADDRESS_NOT_USABLE, format!("not assigned: {}", missing.join(", ")))
    } else {
        Condition::yes("Programmed", reason::PROGRAMMED, "sent to the proxies of the Gateway".into())
    };
    let resolved = if unresolved.is_empty() {
        Condition::yes("ResolvedRefs", reason::RESOLVED_REFS, "all references lead somewhere".into())
    } else {
        let message = format!("references of listeners {} do not lead anywhere", unresolved.join(", "));
        Condition::no("ResolvedRefs", reason::LISTENERS_NOT_RESOLVED, message)
    };

    let counts = attached(view, id);
    let statuses = listeners.listeners.iter().map(|l| ListenerStatus {
        name: l.name.clone(),
        supported_kinds: l.kinds.clone(),
        attached_routes: counts.get(&l.name).copied().unwrap_or(0),
        conditions: l.conditions.clone(),
    });
    let status = Status {
        key: Key::new(Kind::Gateway, id.clone()),
        generation: object.meta.generation,
        body: Body::Gateway {
            addresses: addresses.clone(),
            conditions: vec![accepted, programmed, resolved],
            listeners: statuses.collect(),
        },
    };
    let gateway = (!served.is_empty()).then(|| Gateway { id: id.clone(), addresses, listeners: served });
    (gateway, Some(status))
}

/// attachedRoutes: routes that are accepted, "also on invalid listeners".
fn attached(view: &View<'_>, id: &GatewayId) -> BTreeMap<Text, u32> {
    let mut counts: BTreeMap<Text, u32> = BTreeMap::new();
    for (_, attach) in view.attached(&Parent::Gateway(id.clone())) {
        let mut names: Vec<&Text> = attach
            .parents
            .iter()
            .filter_map(|p| match &p.place {
                Ok(Place::Gateway { gateway, listeners }) if gateway == id => Some(listeners),
                _ => None,
            })
            .flatten()
            .map(|(name, _)| name)
            .collect();
        // A route that names a listener twice is attached to it once.
        names.sort();
        names.dedup();
        for name in names {
            *counts.entry(name.clone()).or_default() += 1;
        }
    }
    counts
}

/// The certificate of a Secret, if some Gateway serves it.
pub(super) fn certificate(view: &View<'_>, id: &NsName) -> Option<Arc<Certificate>> {
    if !view.is_served(id) {
        return None;
    }
    view.secret(id)?.spec.certificate.as_ref().ok().cloned()
}
