//! Fixture: the vocabulary of this crate's tests: small meshes in few words. It must not be used outside tests.

use crate::{
    identity::Identity,
    mesh::*,
    name::{NsName, Text},
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use std::{net::IpAddr, sync::Arc, time::Duration};

pub(crate) fn settings() -> Arc<MeshSettings> {
    Arc::new(MeshSettings {
        name: "heddle".into(),
        trust_domain: crate::identity::TrustDomain::new("cluster.local").unwrap(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    })
}

/// `namespace/name`.
pub(crate) fn name(text: &str) -> NsName {
    text.parse().unwrap()
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn identity(text: &str) -> Identity {
    let id = name(text);
    format!("spiffe://cluster.local/ns/{}/sa/{}", id.namespace, id.name).parse().unwrap()
}

/// A meshed pod in strict mode, with a service account of its own name.
pub(crate) fn pod(id: &str, addresses: &[&str]) -> Workload {
    Workload {
        id: name(id),
        uid: format!("uid-{id}").into(),
        node: "n1".into(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        identity: identity(id),
        enrolment: Enrolment::Meshed(Mode::Strict),
        owner: name(id).name,
        probes: [].into(),
    }
}

pub(crate) fn port(number: u16, protocol: AppProtocol) -> ServicePort {
    ServicePort { number, name: "".into(), protocol }
}

pub(crate) fn service(id: &str, addresses: &[&str], ports: &[ServicePort]) -> Service {
    Service { id: name(id), addresses: addresses.iter().map(|a| ip(a)).collect(), ports: ports.to_vec() }
}

/// A slice that maps each port of the service to itself plus 8000; endpoints are address, pod (or empty), health.
pub(crate) fn slice(id: &str, of: &str, ports: &[u16], endpoints: &[(&str, &str, EndpointHealth)]) -> EndpointSlice {
    let endpoint = |(address, pod, health): &(&str, &str, EndpointHealth)| Endpoint {
        address: ip(address),
        workload: (!pod.is_empty()).then(|| name(pod)),
        health: *health,
        zone: "".into(),
        node: "".into(),
    };
    EndpointSlice {
        id: name(id),
        service: name(of),
        ports: ports.iter().map(|p| PortMapping { service_port: *p, target_port: p + 8000 }).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

pub(crate) fn host(text: &str) -> HostPattern {
    match text.strip_prefix("*.") {
        Some(suffix) => HostPattern::Wildcard(suffix.into()),
        None => HostPattern::Exact(text.into()),
    }
}

pub(crate) fn gateway(id: &str, listeners: &[(&str, u16, &str, ListenerProtocol)]) -> Gateway {
    let listener = |(name, port, hostname, protocol): &(&str, u16, &str, ListenerProtocol)| Listener {
        name: Text::from(*name),
        port: *port,
        hostname: (!hostname.is_empty()).then(|| host(hostname)),
        protocol: protocol.clone(),
    };
    Gateway { id: name(id), addresses: vec![], listeners: listeners.iter().map(listener).collect() }
}

pub(crate) fn to_service(service: &str, ports: &[u16], consumer: &str) -> Attachment {
    to_server_names(service, ports, consumer, &[])
}

pub(crate) fn to_server_names(service: &str, ports: &[u16], consumer: &str, hostnames: &[&str]) -> Attachment {
    let scope = if consumer.is_empty() { Scope::Producer } else { Scope::Consumer(consumer.into()) };
    let hostnames = hostnames.iter().map(|h| host(h)).collect();
    Attachment::Service { service: name(service), ports: ports.to_vec(), scope, hostnames }
}

pub(crate) fn to_listener(gateway: &str, listener: &str, hostnames: &[&str]) -> Attachment {
    let hostnames = hostnames.iter().map(|h| host(h)).collect();
    Attachment::Listener { gateway: name(gateway), listener: listener.into(), hostnames }
}

pub(crate) fn http_id(id: &str) -> RouteId {
    RouteId { kind: RouteKind::Http, name: name(id) }
}

pub(crate) fn condition(path: PathMatch) -> HttpMatch {
    HttpMatch { path, method: None, headers: vec![], query: vec![] }
}

pub(crate) fn prefix(path: &str) -> HttpMatch {
    condition(PathMatch::Prefix(path.into()))
}

pub(crate) fn backend(weight: u32, to: &str, port: u16) -> HttpBackend {
    HttpBackend { weight, target: BackendTarget::Service { service: name(to), port }, filters: vec![] }
}

pub(crate) fn rule(matches: Vec<HttpMatch>, backends: Vec<HttpBackend>) -> Arc<HttpRule> {
    Arc::new(HttpRule {
        name: None,
        matches,
        filters: vec![],
        backends,
        request_timeout: None,
        backend_timeout: None,
        retry: None,
    })
}

pub(crate) fn route(id: &str, created: i64, attachments: Vec<Attachment>, rules: Vec<Arc<HttpRule>>) -> HttpRoute {
    HttpRoute { id: http_id(id), created, attachments, rules }
}

pub(crate) fn stream(kind: RouteKind, id: &str, created: i64, attachments: Vec<Attachment>) -> StreamRoute {
    let backends = vec![(1, BackendTarget::Service { service: name("x/db"), port: 5432 })];
    StreamRoute { id: RouteId { kind, name: name(id) }, created, attachments, backends }
}

pub(crate) fn budget(id: &str, targets: &[&str], percent: u8) -> TrafficPolicy {
    let retry_budget = Some(RetryBudget { percent, ..RetryBudget::default() });
    TrafficPolicy { id: name(id), targets: targets.iter().map(|t| name(t)).collect(), retry_budget }
}

macro_rules! into_resource {
    ($($kind:ident)*) => { $(impl From<$kind> for Resource {
        fn from(r: $kind) -> Self {
            Self::$kind(Arc::new(r))
        }
    })* };
}
into_resource!(Workload Service EndpointSlice Gateway HttpRoute StreamRoute TrafficPolicy);

/// A snapshot after one delta on the empty one.
pub(crate) fn snapshot(resources: impl IntoIterator<Item = Resource>) -> Snapshot {
    Snapshot::empty(settings()).with(&upserts(resources))
}

pub(crate) fn upserts(resources: impl IntoIterator<Item = Resource>) -> NodeDelta {
    NodeDelta { upserts: resources.into_iter().collect(), removes: vec![] }
}
