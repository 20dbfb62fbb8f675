//! Routes of all five kinds in one form, and what becomes of one: its resource and its status. It must not lower rules; `lower` does.

use super::{
    attach::{Attach, Place, Refusal},
    hostname, lower,
    status::{Body, Condition, RouteParent, Status, reason},
    view::View,
};
use crate::{
    api::{GrpcRouteSpec, HttpRouteSpec, Meta, ParentRef, TcpRouteSpec, TlsRouteSpec},
    inventory::{Key, Kind},
};
use mesh_core::{
    mesh::{Attachment, HostPattern, HttpRoute, RouteId, RouteKind, StreamRoute},
    node::{Resource, ResourceId},
};
use std::sync::Arc;

/// A route of any kind.
pub(super) struct Route<'a> {
    pub(super) key: &'a Key,
    pub(super) meta: &'a Meta,
    pub(super) parents: &'a [ParentRef],
    pub(super) hostnames: Vec<HostPattern>,
    pub(super) spec: Spec<'a>,
}

pub(super) enum Spec<'a> {
    Http(&'a HttpRouteSpec),
    Grpc(&'a GrpcRouteSpec),
    Tls(&'a TlsRouteSpec),
    Tcp(&'a TcpRouteSpec),
    Udp,
}

/// What a route comes to.
#[derive(Default)]
pub(super) struct Planned {
    pub(super) resource: Option<Resource>,
    pub(super) status: Option<Status>,
    /// It is attached, but no rule of it can be applied; it does not count as attached.
    pub(super) rejected: bool,
}

pub(super) fn read<'a>(view: &View<'a>, key: &'a Key) -> Option<Route<'a>> {
    fn refs(parents: &Option<Vec<ParentRef>>) -> &[ParentRef] {
        parents.as_deref().unwrap_or_default()
    }
    let (meta, parents, hostnames, spec) = match key.kind {
        Kind::HttpRoute => {
            let o = view.http_route(&key.name)?;
            (&o.meta, refs(&o.spec.parent_refs), o.spec.hostnames.as_deref(), Spec::Http(&o.spec))
        }
        Kind::GrpcRoute => {
            let o = view.grpc_route(&key.name)?;
            (&o.meta, refs(&o.spec.parent_refs), o.spec.hostnames.as_deref(), Spec::Grpc(&o.spec))
        }
        Kind::TlsRoute => {
            let o = view.tls_route(&key.name)?;
            (&o.meta, refs(&o.spec.parent_refs), Some(&*o.spec.hostnames), Spec::Tls(&o.spec))
        }
        Kind::TcpRoute => {
            let o = view.tcp_route(&key.name)?;
            (&o.meta, refs(&o.spec.parent_refs), None, Spec::Tcp(&o.spec))
        }
        Kind::UdpRoute => {
            let o = view.udp_route(&key.name)?;
            (&o.meta, refs(&o.spec.parent_refs), None, Spec::Udp)
        }
        _ => return None,
    };
    let hostnames = hostnames.unwrap_or_default().iter().filter_map(|h| hostname::parse(h)).collect();
    Some(Route { key, meta, parents, hostnames, spec })
}

/// The id of a route's resource; none for UDPRoutes, which no proxy serves yet.
pub(super) fn resource_id(key: &Key) -> Option<ResourceId> {
    let id = |kind| RouteId { kind, name: key.name.clone() };
    match key.kind {
        Kind::HttpRoute => Some(ResourceId::HttpRoute(id(RouteKind::Http))),
        Kind::GrpcRoute => Some(ResourceId::HttpRoute(id(RouteKind::Grpc))),
        Kind::TlsRoute => Some(ResourceId::StreamRoute(id(RouteKind::Tls))),
        Kind::TcpRoute => Some(ResourceId::StreamRoute(id(RouteKind::Tcp))),
        _ => None,
    }
}

/// What becomes of a route, given where it is attached.
pub(super) fn plan(view: &View<'_>, key: &Key, attach: &Attach) -> Planned {
    let Some(route) = read(view, key) else { return Planned::default() };
    if attach.parents.is_empty() {
        return Planned::default();
    }
    let settled: Vec<Result<Place, Refusal>> =
        attach.parents.iter().map(|parent| super::conflict::settle(view, key, parent.place.clone())).collect();
    // Grants are asked for by Gateways, not by the mesh. A route has one set of rules, so one Gateway parent asks for all.
    let needs_grants = settled.iter().any(|p| matches!(p, Ok(Place::Gateway { .. })));
    let lowered = lower::lower(view, &route, needs_grants);
    let rejected = lowered.rejected();
    let parents = attach.parents.iter().zip(&settled).map(|(parent, place)| {
        let accepted = match (place, &rejected) {
            (Err(refusal), _) | (Ok(_), Some(refusal)) => {
                Condition::no("Accepted", refusal.reason, refusal.message.clone())
            }
            (Ok(place), None) => Condition::yes("Accepted", reason::ACCEPTED, place.describe()),
        };
        let mut conditions = vec![accepted, lowered.resolved_refs()];
        if place.is_ok() && rejected.is_none() {
            conditions.extend(lowered.partially_invalid());
        }
        RouteParent { parent: route.parents[parent.index].clone(), conditions }
    });
    let body = Body::Route(parents.collect());
    let status = Status { key: key.clone(), generation: route.meta.generation, body };
    let rejected = rejected.is_some();
    let places = settled.into_iter().flatten().filter(|_| !rejected);
    let attachments: Vec<Attachment> = places.flat_map(|place| place.attachments(view)).collect();
    let resource = if attachments.is_empty() { None } else { resource(key, &route, attachments, lowered) };
    Planned { resource, status: Some(status), rejected }
}

fn resource(key: &Key, route: &Route<'_>, attachments: Vec<Attachment>, lowered: lower::Lowered) -> Option<Resource> {
    let created = route.meta.created;
    Some(match (resource_id(key)?, lowered.rules) {
        (ResourceId::HttpRoute(id), lower::Rules::Http(rules)) => {
            Resource::HttpRoute(Arc::new(HttpRoute { id, created, attachments, rules }))
        }
        (ResourceId::StreamRoute(id), lower::Rules::Stream(backends)) => {
            Resource::StreamRoute(Arc::new(StreamRoute { id, created, attachments, backends }))
        }
        _ => return None,
    })
}
