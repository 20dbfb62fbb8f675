//! Protobuf to core nouns: every field is doubted here, once, and a bad one is named. It must not apply anything.

mod field;
mod gateway;
mod probe;
mod route;
mod rule;
mod service;
mod settings;

pub use field::{LIST_MAX, TEXT_MAX};

use crate::{
    id::parse_resource_id,
    proto::{self, resource::Body},
};
use field::{At, Bad};
use mesh_core::node::{NodeDelta, Resource, ResourceId};
use std::{collections::HashSet, sync::Arc};

/// Longest part of a peer's text that an error repeats.
const QUOTE_MAX: usize = 300;

/// Longest id that an error repeats: whole for every id that is one, so that the sender finds it again.
const ID_MAX: usize = 600;

/// A resource that was not taken, and which field is why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{resource}: {field}: {reason}")]
pub struct Rejected {
    /// Id as the sender wrote it.
    pub resource: String,
    /// Path of the field within the message, e.g. `rules[2].matches[0].path.regex`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

impl From<&Rejected> for proto::Rejection {
    fn from(r: &Rejected) -> Self {
        Self { resource: r.resource.clone(), field: r.field.clone(), reason: r.reason.clone() }
    }
}

/// The resource in a message. Arbitrary messages are fine: they are refused, naming the field.
pub fn decode(message: proto::Resource) -> Result<Resource, Rejected> {
    let id = message.id;
    resource(&id, message.body).map_err(|bad| Rejected {
        resource: id.chars().take(ID_MAX).collect(),
        field: bad.field,
        reason: bad.reason,
    })
}

/// The delta in a message, whole or not at all: all that is wrong with it is said.
pub fn decode_delta(delta: proto::Delta) -> Result<NodeDelta, Vec<Rejected>> {
    let mut rejected = Vec::new();
    let mut seen: HashSet<ResourceId> = HashSet::with_capacity(delta.upserts.len() + delta.removes.len());
    let mut out = NodeDelta {
        upserts: Vec::with_capacity(delta.upserts.len()),
        removes: Vec::with_capacity(delta.removes.len()),
    };
    let twice = |id: &ResourceId| Rejected {
        resource: id.to_string(),
        field: "id".into(),
        reason: "occurs twice in one delta".into(),
    };
    for upsert in delta.upserts {
        match decode(upsert) {
            Ok(resource) if seen.insert(resource.id()) => out.upserts.push(resource),
            Ok(resource) => rejected.push(twice(&resource.id())),
            Err(e) => rejected.push(e),
        }
    }
    for remove in delta.removes {
        match parse_resource_id(&remove) {
            Ok(id) if seen.insert(id.clone()) => out.removes.push(id),
            Ok(id) => rejected.push(twice(&id)),
            Err(e) => rejected.push(Rejected {
                resource: remove.chars().take(ID_MAX).collect(),
                field: "removes".into(),
                reason: e.to_string(),
            }),
        }
    }
    if rejected.is_empty() { Ok(out) } else { Err(rejected) }
}

fn resource(id: &str, body: Option<Body>) -> Result<Resource, Bad> {
    let id = parse_resource_id(id).map_err(Bad::from).at("id")?;
    let resource =
        match body.ok_or_else(|| Bad::new("is missing or of a kind that this proxy does not know")).at("body")? {
            Body::Settings(b) => Resource::Settings(Arc::new(settings::settings(b)?)),
            Body::Roots(b) => Resource::Roots(Arc::new(gateway::roots(b)?)),
            Body::Workload(b) => Resource::Workload(Arc::new(service::workload(b)?)),
            Body::Service(b) => Resource::Service(Arc::new(service::service(b)?)),
            Body::EndpointSlice(b) => Resource::EndpointSlice(Arc::new(service::endpoint_slice(b)?)),
            Body::Certificate(b) => Resource::Certificate(Arc::new(gateway::certificate(b)?)),
            Body::Gateway(b) => Resource::Gateway(Arc::new(gateway::gateway(b)?)),
            Body::HttpRoute(b) => Resource::HttpRoute(Arc::new(route::http_route(b)?)),
            Body::StreamRoute(b) => Resource::StreamRoute(Arc::new(route::stream_route(b)?)),
            Body::TrafficPolicy(b) => Resource::TrafficPolicy(Arc::new(service::traffic_policy(b)?)),
        };
    if resource.id() != id {
        return Err(Bad::new(format!("does not name its body, which is {}", resource.id()))).at("id");
    }
    Ok(resource)
}
