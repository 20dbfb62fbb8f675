//! Services and EndpointSlices lowered: TCP ports, and where each lands on the endpoints of a slice. Endpoints must not touch a Service or a route.

use super::view::View;
use crate::inventory::facts::Frontend;
use mesh_core::{
    mesh::{Endpoint, EndpointHealth, EndpointSlice, PortMapping, Service, ServicePort},
    name::{NsName, ServiceId},
};

/// A Service; none if it is a DNS alias, which has neither frontend nor endpoints.
pub(super) fn service(view: &View<'_>, id: &ServiceId) -> Option<Service> {
    let object = view.service(id)?;
    let addresses = match &object.spec.frontend {
        Frontend::Addresses(addresses) => addresses.clone(),
        Frontend::Headless => Vec::new(),
        Frontend::ExternalName => return None,
    };
    let tcp = object.spec.ports.iter().filter(|p| p.tcp);
    let ports = tcp.map(|p| ServicePort { number: p.number, name: p.name.clone(), protocol: p.app }).collect();
    Some(Service { id: id.clone(), addresses, ports })
}

/// An EndpointSlice of a Service that exists.
pub(super) fn slice(view: &View<'_>, id: &NsName) -> Option<EndpointSlice> {
    let object = view.slice(id)?;
    let service_id = object.spec.service.as_ref()?;
    let service = view.service(service_id)?;
    if service.spec.frontend == Frontend::ExternalName {
        return None;
    }
    // "The name of this port … must match the name of the Service port" (EndpointPort); equal names are one port.
    let target = |name: &str| object.spec.ports.iter().find(|(n, _)| **n == *name).map(|(_, number)| *number);
    let ports = service.spec.ports.iter().filter(|p| p.tcp);
    let ports =
        ports.filter_map(|p| Some(PortMapping { service_port: p.number, target_port: target(&p.name)? })).collect();
    let all = &object.spec.endpoints;
    let any_ready = all.iter().any(|e| e.health == EndpointHealth::Ready);
    let endpoints = all.iter().map(|e| endpoint(view, e, any_ready)).collect();
    Some(EndpointSlice { id: id.clone(), service: service_id.clone(), ports, endpoints })
}

/// An endpoint with its pod, and what that pod's kubelet says of it.
///
/// A pod on its node's network is no workload, and its address is its node's, so its endpoint is like one outside the mesh and names nobody.
/// Any other pod stays named: without a workload of that name (it has ended, or is not known yet) the endpoint gets nothing, as its address may
/// be somebody else's by now.
///
/// All pods of a node whose kubelet is not heard of (the API server was away, a network is cut) are called not ready by the control plane, in the
/// worst case all pods of the cluster at once. Where their kubelets' last word was that they serve, and nobody else does, they are tried. Where
/// somebody is ready that word changes nothing, so it is not even sent to the proxies: the readiness of each pod would go there twice.
fn endpoint(view: &View<'_>, from: &Endpoint, any_ready: bool) -> Endpoint {
    let pod = from.workload.as_ref().and_then(|id| view.pod(id));
    let serves = pod.is_some_and(|pod| pod.spec.kubelet_ready && !pod.meta.deleting);
    let health = match from.health {
        EndpointHealth::NotReady if serves && !any_ready => EndpointHealth::Fallback,
        health => health,
    };
    let workload = from.workload.clone().filter(|_| !pod.is_some_and(|pod| pod.spec.host_network));
    Endpoint { workload, health, ..from.clone() }
}
