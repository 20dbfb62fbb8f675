//! Attach: which of a route's parents are ours, and what it is attached to there. It must not look at rules.

mod gateway;
mod service;

use super::{route, view::View};
use crate::inventory::{GATEWAY_GROUP, Key};
use mesh_core::{
    mesh::{Attachment, HostPattern, Scope},
    name::{GatewayId, NsName, ServiceId, Text},
};

/// The parents of a route that are ours.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attach {
    pub(super) parents: Vec<ParentAttach>,
}

/// One parentRef of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ParentAttach {
    /// Index in `spec.parentRefs`.
    pub(super) index: usize,
    /// Where the route is attached, or why not.
    pub(super) place: Result<Place, Refusal>,
}

/// A reason with its message.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Where a route is attached.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Place {
    /// Ports of a Service's frontend, with the server names of a TLSRoute.
    Service { service: ServiceId, ports: Vec<u16>, scope: Scope, hostnames: Vec<HostPattern> },
    /// Listeners of a Gateway, each with the route's hostnames that it can get.
    Gateway { gateway: GatewayId, listeners: Vec<(Text, Vec<HostPattern>)> },
}

/// Something that routes attach to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Parent {
    Service(ServiceId),
    Gateway(GatewayId),
}

/// Finds the places of a route; none if there is no such route.
pub(super) fn attach(view: &View<'_>, key: &Key) -> Option<Attach> {
    let route = route::read(view, key)?;
    let parents = route.parents.iter().enumerate().filter_map(|(index, reference)| {
        let group = reference.group.as_deref().unwrap_or(GATEWAY_GROUP);
        let kind = reference.kind.as_deref().unwrap_or("Gateway");
        let namespace = reference.namespace.as_deref().unwrap_or(&key.name.namespace);
        let id = NsName::new(namespace, reference.name.as_str());
        let place = match (group, kind) {
            ("", "Service") => Some(service::place(view, &route, reference, id)),
            (GATEWAY_GROUP, "Gateway") => gateway::place(view, &route, reference, id),
            _ => None,
        };
        Some(ParentAttach { index, place: place? })
    });
    Some(Attach { parents: parents.collect() })
}

impl Attach {
    /// What the route is attached to.
    pub(super) fn attached_to(&self) -> impl Iterator<Item = Parent> {
        self.parents.iter().filter_map(|p| p.place.as_ref().ok()).map(|place| match place {
            Place::Service { service, .. } => Parent::Service(service.clone()),
            Place::Gateway { gateway, .. } => Parent::Gateway(gateway.clone()),
        })
    }
}

impl Place {
    pub(super) fn describe(&self) -> String {
        let list = |items: Vec<String>| items.join(", ");
        match self {
            Self::Service { ports, scope: Scope::Producer, .. } => {
                format!("governs ports {} for all clients", list(ports.iter().map(u16::to_string).collect()))
            }
            Self::Service { ports, scope: Scope::Consumer(namespace), .. } => {
                let ports = list(ports.iter().map(u16::to_string).collect());
                format!("governs ports {ports} for clients of namespace {namespace}")
            }
            Self::Gateway { listeners, .. } => {
                format!("attached to listeners {}", list(listeners.iter().map(|(name, _)| name.to_string()).collect()))
            }
        }
    }

    /// The place as routes on the wire say it. Listeners that are not served are left out.
    pub(super) fn attachments(self, view: &View<'_>) -> Vec<Attachment> {
        match self {
            Self::Service { service, ports, scope, hostnames } => {
                vec![Attachment::Service { service, ports, scope, hostnames }]
            }
            Self::Gateway { gateway, listeners } => {
                let served = view.listeners(&gateway);
                let is_served = |name: &Text| served.is_some_and(|g| g.serves(name));
                let attachment =
                    |(listener, hostnames)| Attachment::Listener { gateway: gateway.clone(), listener, hostnames };
                listeners.into_iter().filter(|(name, _)| is_served(name)).map(attachment).collect()
            }
        }
    }
}

impl Refusal {
    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

/// What a parentRef asks for, as the end of a message.
fn wanted(section: Option<&str>, port: Option<i32>) -> String {
    let name = section.map(|s| format!(" named {s}")).unwrap_or_default();
    let number = port.map(|p| format!(" with port {p}")).unwrap_or_default();
    name + &number
}
