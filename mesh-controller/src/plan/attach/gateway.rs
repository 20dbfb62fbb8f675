//! Routes on Gateways: which listeners admit a route, by name, port, kind, namespace and hostname. It must not judge listeners; `listener` does.

use super::{Place, Refusal};
use crate::{
    api::ParentRef,
    inventory::Kind,
    plan::{hostname, route::Route, status::reason, view::View},
};
use mesh_core::name::GatewayId;

/// Where a route sits on a Gateway; none if the Gateway is not ours.
pub(super) fn place(
    view: &View<'_>,
    route: &Route<'_>,
    reference: &ParentRef,
    gateway: GatewayId,
) -> Option<Result<Place, Refusal>> {
    let listeners = view.listeners(&gateway)?;
    let (section, port) = (reference.section_name.as_deref(), reference.port);
    let mut found: Vec<_> = listeners
        .listeners
        .iter()
        .filter(|l| section.is_none_or(|name| name == &*l.name))
        .filter(|l| port.is_none_or(|n| n == i32::from(l.port)))
        .collect();
    if found.is_empty() {
        let message = format!("Gateway {gateway} has no listener{}", super::wanted(section, port));
        return Some(Err(Refusal::new(reason::NO_MATCHING_PARENT, message)));
    }
    found.retain(|l| l.kinds.contains(&route.key.kind) && l.admits(view, &gateway, &route.key.name.namespace));
    if found.is_empty() {
        let message = format!(
            "no listener{} of Gateway {gateway} admits {}s of namespace {}",
            section.map(|s| format!(" {s}")).unwrap_or_default(),
            route.key.kind,
            route.key.name.namespace
        );
        return Some(Err(Refusal::new(reason::NOT_ALLOWED_BY_LISTENERS, message)));
    }
    let by_host = matches!(route.key.kind, Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute);
    let matching = found.into_iter().filter_map(|l| {
        let hosts = if by_host { hostname::intersect(l.hostname.as_ref(), &route.hostnames)? } else { Vec::new() };
        Some((l.name.clone(), hosts))
    });
    let matching: Vec<_> = matching.collect();
    if matching.is_empty() {
        let message = format!("no listener of Gateway {gateway} has a hostname in common with the route");
        return Some(Err(Refusal::new(reason::NO_MATCHING_LISTENER_HOSTNAME, message)));
    }
    Some(Ok(Place::Gateway { gateway, listeners: matching }))
}
