//! Snapshot: a NodeConfig compiled for lookup; immutable, shared by Arc. It must not decide; `decide` does, over what this finds.

mod apply;
mod claims;
mod endpoints;
mod gateway;
mod service;

use crate::{
    balance::EndpointSet,
    mesh::{
        Certificate, Endpoint, EndpointSlice, Gateway, MeshSettings, RouteId, Service, ServicePort, TrafficPolicy,
        Workload,
    },
    name::{GatewayId, NsName, ServiceId, Text},
    node::NodeDelta,
    records::{Record, Records},
    retry::Budget,
    route::{CompiledRoute, CompiledStream, RouteTable, StreamTable},
};
use claims::Claims;
use endpoints::{Behind, merge};
use foldhash::fast::RandomState;
use gateway::GatewayEntry;
use imbl::{GenericHashMap, OrdMap, shared_ptr::DefaultSharedPtr};
use service::{PortEntry, ServiceEntry};
use std::{cmp::Ordering, net::IpAddr, sync::Arc};

/// Keys come from config, so nobody chooses them to collide.
type HashMap<K, V> = GenericHashMap<K, V, RandomState, DefaultSharedPtr>;

/// What one proxy knows at one moment. A connection takes one until its way is chosen, a request the newest for its routes. Whoever holds one
/// longer holds all that has changed since.
///
/// State that must outlive a change of config (endpoint statistics, retry budget windows, weight counters) is carried over
/// by [`Snapshot::with`] as long as the thing that it belongs to stays the same.
#[derive(Clone)]
pub struct Snapshot {
    settings: Arc<MeshSettings>,
    workloads: Records<Arc<Workload>>,
    workloads_at: Claims,
    services: HashMap<ServiceId, Arc<ServiceEntry>>,
    services_at: Claims,
    slices: Records<Arc<EndpointSlice>>,
    /// Address → slices that list it: what a change of a workload touches.
    slices_at: Claims,
    policies: OrdMap<NsName, Arc<TrafficPolicy>>,
    certificates: HashMap<NsName, Arc<Certificate>>,
    gateways: HashMap<GatewayId, Arc<GatewayEntry>>,
    http_routes: HashMap<RouteId, Arc<CompiledRoute>>,
    stream_routes: HashMap<RouteId, Arc<CompiledStream>>,
}

/// A port of a Service, found by the address that a client dialled.
#[derive(Clone, Copy, Debug)]
pub struct Frontend<'a> {
    /// The Service.
    pub service: &'a Arc<Service>,
    /// The port.
    pub port: &'a ServicePort,
}

impl Snapshot {
    /// A snapshot that knows nothing but the settings.
    pub fn empty(settings: Arc<MeshSettings>) -> Self {
        Self {
            settings,
            workloads: Records::default(),
            workloads_at: Claims::default(),
            services: HashMap::new(),
            services_at: Claims::default(),
            slices: Records::default(),
            slices_at: Claims::default(),
            policies: OrdMap::new(),
            certificates: HashMap::new(),
            gateways: HashMap::new(),
            http_routes: HashMap::new(),
            stream_routes: HashMap::new(),
        }
    }

    /// The snapshot after `delta`. Costs in proportion to the delta (plus what it touches), not to the snapshot.
    ///
    /// Removes come before upserts, so that an address or a name that changes hands within one delta ends with its new owner.
    pub fn with(&self, delta: &NodeDelta) -> Self {
        let mut next = self.clone();
        next.apply(delta);
        next
    }

    /// Settings of the mesh.
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// A pod by name.
    pub fn workload(&self, id: &NsName) -> Option<&Arc<Workload>> {
        self.workloads.get(id)
    }

    /// A pod by address. Of several that claim one address, the newest claim wins.
    pub fn workload_at(&self, address: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads.get(self.workloads_at.newest(address)?)
    }

    /// All pods, in no order (the proxy looks for its local ones after each change; also see `NodeDelta`).
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter()
    }

    /// The Service port behind an address that a client dialled.
    pub fn frontend(&self, address: IpAddr, port: u16) -> Option<Frontend<'_>> {
        let service = self.service(self.services_at.newest(address)?)?;
        let port = service.ports.iter().find(|p| p.number == port)?;
        Some(Frontend { service, port })
    }

    /// Whether the address is some Service's, whatever the port.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        self.services_at.newest(address).is_some()
    }

    /// A Service by name.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.get(id)?.service.as_ref()
    }

    /// All Services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values().filter_map(|entry| entry.service.as_ref())
    }

    /// The endpoints of a Service port, merged from its slices; none if the Service is not known or has no such port.
    pub fn endpoints(&self, service: &ServiceId, port: u16) -> Option<&Arc<EndpointSet>> {
        let entry = self.services.get(service)?;
        let endpoints = entry.port(port)?.endpoints.as_ref()?;
        let slices = entry.slices.iter().filter_map(|s| self.slices.get(s));
        Some(endpoints.get(|before| merge(slices, port, |e| self.behind(e), before)))
    }

    fn behind(&self, endpoint: &Endpoint) -> Behind {
        let claimants = self.workloads_at.of(endpoint.address);
        let claimant = match &endpoint.workload {
            Some(named) => claimants.iter().find(|c| *c == named),
            None => claimants.last(),
        };
        match (claimant.and_then(|c| self.workloads.get(c)), &endpoint.workload) {
            (Some(workload), _) => Behind::Workload(workload.clone()),
            (None, Some(_)) => Behind::Unknown,
            (None, None) => Behind::Outside,
        }
    }

    /// The retry budget of a Service, shared by all routes on this proxy; the default budget never applies by itself.
    pub fn retry_budget(&self, service: &ServiceId) -> Option<&Arc<Budget>> {
        self.services.get(service)?.budget.as_ref()
    }

    /// HTTP routes that govern a Service port for clients of a namespace: its consumer routes, else the producer routes; none if nobody attached one.
    pub fn service_routes(&self, client_namespace: &str, service: &ServiceId, port: u16) -> Option<&Arc<RouteTable>> {
        let governing = self.port(service, port)?.governing(client_namespace)?;
        governing.http.as_ref().map(|(_, table)| table)
    }

    /// Stream routes (TLSRoute, TCPRoute) that govern a Service port, likewise.
    pub fn service_streams(&self, client_namespace: &str, service: &ServiceId, port: u16) -> Option<&Arc<StreamTable>> {
        let governing = self.port(service, port)?.governing(client_namespace)?;
        governing.streams.as_ref().map(|(_, table)| table)
    }

    /// HTTP routes of all HTTP (or all HTTPS) listeners of a Gateway on one port, with listener isolation: the most specific
    /// listener hostname for a request's host owns it. None: no such listener; a listener without routes has an empty table.
    pub fn listener_routes(&self, gateway: &NsName, port: u16) -> Option<&Arc<RouteTable>> {
        self.gateways.get(gateway)?.http_port(port)
    }

    /// Stream routes of a Gateway's TLS or TCP listeners on one port.
    pub fn listener_streams(&self, gateway: &NsName, port: u16) -> Option<&Arc<StreamTable>> {
        self.gateways.get(gateway)?.stream_port(port)
    }

    /// A Gateway by name.
    pub fn gateway(&self, id: &GatewayId) -> Option<&Arc<Gateway>> {
        self.gateways.get(id)?.gateway.as_ref()
    }

    /// Gateways that this proxy serves.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values().filter_map(|entry| entry.gateway.as_ref())
    }

    /// A certificate of a Gateway.
    pub fn certificate(&self, id: &NsName) -> Option<&Arc<Certificate>> {
        self.certificates.get(id)
    }

    fn port(&self, service: &ServiceId, port: u16) -> Option<&PortEntry> {
        self.services.get(service)?.port(port)
    }
}

impl Record for Workload {
    type Key = NsName;

    fn key(&self) -> NsName {
        self.id.clone()
    }

    fn compare(&self, key: &NsName) -> Ordering {
        self.id.cmp(key)
    }
}

impl Record for EndpointSlice {
    type Key = NsName;

    fn key(&self) -> NsName {
        self.id.clone()
    }

    fn compare(&self, key: &NsName) -> Ordering {
        self.id.cmp(key)
    }
}

/// Name of a rule in logs, metrics and spans: its `name`, else its index.
pub type RuleName = Text;

#[cfg(test)]
mod tests;
