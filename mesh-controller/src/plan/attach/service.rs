//! Routes on Services (GAMMA): frontend ports, producer and consumer. It must not settle conflicts.

use super::{Place, Refusal};
use crate::{
    api::ParentRef,
    inventory::{Kind, facts::Frontend},
    plan::{route::Route, status::reason, view::View},
};
use mesh_core::{mesh::Scope, name::ServiceId};

/// Where a route sits on a Service. Every Service parent is ours: this is the mesh.
pub(super) fn place(
    view: &View<'_>,
    route: &Route<'_>,
    reference: &ParentRef,
    service: ServiceId,
) -> Result<Place, Refusal> {
    if route.key.kind == Kind::UdpRoute {
        return Err(Refusal::new(reason::UNSUPPORTED_VALUE, "UDPRoutes are not supported on Services"));
    }
    let Some(object) = view.service(&service) else {
        return Err(Refusal::new(reason::NO_MATCHING_PARENT, format!("Service {service} does not exist")));
    };
    // GEP-1294: "Headless and ExternalName SHOULD NOT be supported": they have no address of their own to match.
    if !matches!(object.spec.frontend, Frontend::Addresses(_)) {
        let message = format!("Service {service} has no cluster IP whose traffic a route could govern");
        return Err(Refusal::new(reason::UNSUPPORTED_VALUE, message));
    }
    let (section, port) = (reference.section_name.as_deref(), reference.port);
    let ports = object.spec.ports.iter().filter(|p| p.tcp);
    // "When both Port … and SectionName are specified, the name and port of the selected … must match both" (ParentReference).
    let ports = ports.filter(|p| port.is_none_or(|n| n == i32::from(p.number)));
    let ports = ports.filter(|p| section.is_none_or(|name| name == &*p.name));
    let ports: Vec<u16> = ports.map(|p| p.number).collect();
    if ports.is_empty() {
        let message = format!("Service {service} has no TCP port{}", super::wanted(section, port));
        return Err(Refusal::new(reason::NO_MATCHING_PARENT, message));
    }
    // GEP-1294: a route in the namespace of the Service is a producer route, any other a consumer route.
    let own = &route.key.name.namespace;
    let scope = if *own == service.namespace { Scope::Producer } else { Scope::Consumer(own.clone()) };
    // Requests are governed by the address that was dialled, not by host (GEP-1294); a TLSRoute is chosen by nothing but its server names.
    let hostnames = if route.key.kind == Kind::TlsRoute { route.hostnames.clone() } else { Vec::new() };
    Ok(Place::Service { service, ports, scope, hostnames })
}
