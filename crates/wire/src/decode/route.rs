//! Doubts routes: kinds, attachments, backends. It must not doubt rules; `rule` does.

use super::field::{At, Bad, choice, host, list, ns_name, number, port, required, text};
use super::rule::http_rule;
use super::service::{named, ports};
use crate::proto::{self, attachment::To};
use mesh_core::mesh::{Attachment, BackendTarget, HttpRoute, RouteId, RouteKind, Scope, StreamRoute};
use std::sync::Arc;

/// BackendRef.weight: "minimum 0, maximum 1000000".
const WEIGHT_MAX: u32 = 1_000_000;

pub(super) fn http_route(r: proto::HttpRoute) -> Result<HttpRoute, Bad> {
    Ok(HttpRoute {
        id: route_id(r.kind, r.id, &[RouteKind::Http, RouteKind::Grpc])?,
        created: r.created,
        attachments: list("attachments", r.attachments, attachment)?,
        rules: list("rules", r.rules, |rule| http_rule(rule).map(Arc::new))?,
    })
}

pub(super) fn stream_route(r: proto::StreamRoute) -> Result<StreamRoute, Bad> {
    let backend = |b: proto::StreamBackend| Ok((weight(b.weight).at("weight")?, target(b.service).at("service")?));
    Ok(StreamRoute {
        id: route_id(r.kind, r.id, &[RouteKind::Tls, RouteKind::Tcp])?,
        created: r.created,
        attachments: list("attachments", r.attachments, attachment)?,
        backends: list("backends", r.backends, backend)?,
    })
}

fn route_id(kind: i32, name: String, allowed: &[RouteKind]) -> Result<RouteId, Bad> {
    let kind = match choice("kind", kind)? {
        proto::RouteKind::Grpc => RouteKind::Grpc,
        proto::RouteKind::Http => RouteKind::Http,
        proto::RouteKind::Tls => RouteKind::Tls,
        proto::RouteKind::Tcp | proto::RouteKind::Unspecified => RouteKind::Tcp,
    };
    if !allowed.contains(&kind) {
        return Err(Bad::new(format!("{} does not belong into this message", kind.as_str()))).at("kind");
    }
    Ok(RouteId { kind, name: ns_name(name).at("id")? })
}

fn attachment(a: proto::Attachment) -> Result<Attachment, Bad> {
    Ok(match required("to", a.to)? {
        To::Service(s) => Attachment::Service {
            service: ns_name(s.service).at("service").at("service")?,
            ports: ports("ports", s.ports).at("service")?,
            scope: match text(s.consumer).at("consumer").at("service")? {
                none if none.is_empty() => Scope::Producer,
                namespace => Scope::Consumer(namespace),
            },
            hostnames: list("hostnames", s.hostnames, host).at("service")?,
        },
        To::Listener(l) => Attachment::Listener {
            gateway: ns_name(l.gateway).at("gateway").at("listener")?,
            listener: named("listener", l.listener).at("listener")?,
            hostnames: list("hostnames", l.hostnames, host).at("listener")?,
        },
    })
}

pub(super) fn weight(value: u32) -> Result<u32, Bad> {
    number(value, 0, WEIGHT_MAX)
}

pub(super) fn target(service: Option<proto::ServiceTarget>) -> Result<BackendTarget, Bad> {
    let Some(t) = service else { return Ok(BackendTarget::Broken) };
    Ok(BackendTarget::Service { service: ns_name(t.service).at("service")?, port: port(t.port).at("port")? })
}
