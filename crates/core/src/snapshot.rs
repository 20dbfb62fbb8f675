//! Snapshot: a NodeConfig compiled for lookup; immutable, shared by Arc. It must not decide; `decide` does, over what this finds.

use crate::{
    balance::EndpointSet,
    mesh::{Certificate, Gateway, MeshSettings, Service, ServicePort, Workload},
    name::{NsName, ServiceId, Text},
    node::NodeDelta,
    retry::Budget,
    route::{RouteTable, StreamTable},
};
use std::{net::IpAddr, sync::Arc};

/// What one proxy knows at one moment. A connection keeps one; a request takes the newest for its routes.
///
/// State that must outlive a change of config (endpoint statistics, retry budget windows, weight counters) is carried over
/// by [`Snapshot::with`] as long as the thing that it belongs to stays the same.
pub struct Snapshot {
    settings: Arc<MeshSettings>,
}

/// A port of a Service, found by the address that a client dialled.
#[derive(Clone, Copy)]
pub struct Frontend<'a> {
    /// The Service.
    pub service: &'a Arc<Service>,
    /// The port.
    pub port: &'a ServicePort,
}

impl Snapshot {
    /// A snapshot that knows nothing but the settings.
    pub fn empty(settings: Arc<MeshSettings>) -> Self {
        Self { settings }
    }

    /// The snapshot after `delta`. Costs in proportion to the delta (plus what it touches), not to the snapshot.
    pub fn with(&self, delta: &NodeDelta) -> Self {
        let _ = delta;
        todo!("core")
    }

    /// Settings of the mesh.
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// A pod by name.
    pub fn workload(&self, _id: &NsName) -> Option<&Arc<Workload>> {
        todo!("core")
    }

    /// A pod by address. Of several that claim one address, the one with the newest message wins.
    pub fn workload_at(&self, _address: IpAddr) -> Option<&Arc<Workload>> {
        todo!("core")
    }

    /// All pods, in no order (the proxy looks for its local ones after each change; also see `NodeDelta`).
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        std::iter::empty()
    }

    /// The Service port behind an address that a client dialled.
    pub fn frontend(&self, _address: IpAddr, _port: u16) -> Option<Frontend<'_>> {
        todo!("core")
    }

    /// Whether the address is some Service's, whatever the port.
    pub fn is_service_address(&self, _address: IpAddr) -> bool {
        todo!("core")
    }

    /// A Service by name.
    pub fn service(&self, _id: &ServiceId) -> Option<&Arc<Service>> {
        todo!("core")
    }

    /// The endpoints of a Service port, merged from its slices; none if the Service is not known.
    pub fn endpoints(&self, _service: &ServiceId, _port: u16) -> Option<&Arc<EndpointSet>> {
        todo!("core")
    }

    /// The retry budget of a Service, shared by all routes on this proxy; the default budget never applies by itself.
    pub fn retry_budget(&self, _service: &ServiceId) -> Option<&Arc<Budget>> {
        todo!("core")
    }

    /// HTTP routes that govern a Service port for clients of a namespace: its consumer routes, else the producer routes; none if nobody attached one.
    pub fn service_routes(
        &self,
        _client_namespace: &str,
        _service: &ServiceId,
        _port: u16,
    ) -> Option<&Arc<RouteTable>> {
        todo!("core")
    }

    /// Stream routes (TLSRoute, TCPRoute) that govern a Service port, likewise.
    pub fn service_streams(
        &self,
        _client_namespace: &str,
        _service: &ServiceId,
        _port: u16,
    ) -> Option<&Arc<StreamTable>> {
        todo!("core")
    }

    /// HTTP routes of all HTTP (or all HTTPS) listeners of a Gateway on one port, with listener isolation: the most specific
    /// listener hostname for a request's host owns it.
    pub fn listener_routes(&self, _gateway: &NsName, _port: u16) -> Option<&Arc<RouteTable>> {
        todo!("core")
    }

    /// Stream routes of a Gateway's TLS or TCP listeners on one port.
    pub fn listener_streams(&self, _gateway: &NsName, _port: u16) -> Option<&Arc<StreamTable>> {
        todo!("core")
    }

    /// Gateways that this proxy serves.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        std::iter::empty()
    }

    /// A certificate of a Gateway.
    pub fn certificate(&self, _id: &NsName) -> Option<&Arc<Certificate>> {
        todo!("core")
    }
}

/// Name of a rule in logs, metrics and spans: its `name`, else its index.
pub type RuleName = Text;
