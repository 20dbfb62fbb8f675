//! Routes of all five kinds in one form, and what becomes of one: its resource and its status. It must not lower rules; `lower` does.

use super::{
    attach::{Place, Refusal},
    hostname,
    lower::{self, Lowered, Rules},
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

/// What the rules of a route mean; none if it has no parent of ours.
pub(super) fn lower(view: &View<'_>, key: &Key) -> Option<Lowered> {
    let attach = view.attach(key)?;
    if attach.parents.is_empty() {
        return None;
    }
    // Grants are asked for by Gateways, not by the mesh. A route has one set of rules, so one Gateway parent asks for all.
    let needs_grants = attach.parents.iter().any(|p| matches!(p.place, Ok(Place::Gateway { .. })));
    Some(lower::lower(view, &read(view, key)?, needs_grants))
}

/// What becomes of a route.
pub(super) fn plan(view: &View<'_>, key: &Key) -> Planned {
    let (Some(attach), Some(route)) = (view.attach(key), read(view, key)) else { return Planned::default() };
    if attach.parents.is_empty() {
        return Planned::default();
    }
    let settled: Vec<Result<Place, Refusal>> =
        attach.parents.iter().map(|parent| super::conflict::settle(view, key, parent.place.clone())).collect();
    let lowered = view.lowered(key);
    let rejected = lowered.and_then(Lowered::rejected);
    let parents = attach.parents.iter().zip(&settled).map(|(parent, place)| {
        let accepted = match (place, &rejected) {
            (Err(refusal), _) | (Ok(_), Some(refusal)) => {
                Condition::no("Accepted", refusal.reason, refusal.message.clone())
            }
            (Ok(place), None) => Condition::yes("Accepted", reason::ACCEPTED, place.describe()),
        };
        let mut conditions = vec![accepted];
        conditions.extend(lowered.map(Lowered::resolved_refs));
        if place.is_ok() && rejected.is_none() {
            conditions.extend(lowered.and_then(Lowered::partially_invalid));
        }
        RouteParent { parent: route.parents[parent.index].clone(), conditions }
    });
    let body = Body::Route(parents.collect());
    let status = Status { key: key.clone(), generation: route.meta.generation, body };
    let applied = lowered.filter(|_| rejected.is_none());
    let places = settled.into_iter().flatten();
    let attachments: Vec<Attachment> = places.flat_map(|place| place.attachments(view)).collect();
    let resource = applied.filter(|_| !attachments.is_empty());
    let resource = resource.and_then(|lowered| self::resource(key, &route, attachments, lowered.rules.clone()));
    Planned { resource, status: Some(status) }
}

fn resource(key: &Key, route: &Route<'_>, attachments: Vec<Attachment>, rules: Rules) -> Option<Resource> {
    let created = route.meta.created;
    Some(match (resource_id(key)?, rules) {
        (ResourceId::HttpRoute(id), Rules::Http(rules)) => {
            Resource::HttpRoute(Arc::new(HttpRoute { id, created, attachments, rules }))
        }
        (ResourceId::StreamRoute(id), Rules::Stream(backends)) => {
            Resource::StreamRoute(Arc::new(StreamRoute { id, created, attachments, backends }))
        }
        _ => return None,
    })
}
