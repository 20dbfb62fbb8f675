//! Services and their endpoints: the frontends that routes attach to and the backends that they name. Endpoint churn never touches a Service.

use crate::name::{NsName, ServiceId, Text};
use std::net::IpAddr;

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// Namespace and name.
    pub id: ServiceId,
    /// ClusterIPs (and load balancer addresses reachable in the cluster); empty for a headless Service.
    pub addresses: Vec<IpAddr>,
    /// TCP ports, in the order of the Service.
    pub ports: Vec<ServicePort>,
}

/// One TCP port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Port of the frontend.
    pub number: u16,
    /// `name`, empty if the only port has none. A parentRef's `sectionName` means this.
    pub name: Text,
    /// What is spoken there.
    pub protocol: AppProtocol,
}

/// What a port speaks, from `appProtocol` (KEP-3726, RFC 6335 names), and from nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum AppProtocol {
    /// Nothing said: bytes, unless a route makes it HTTP; then HTTP/1.1 or HTTP/2 as the client speaks.
    #[default]
    Unspecified,
    /// `tcp`: bytes.
    Tcp,
    /// `http`: HTTP/1.1 (or what the client speaks, when it speaks HTTP/2 with prior knowledge).
    Http,
    /// `kubernetes.io/h2c`, `http2`: HTTP/2 with prior knowledge.
    H2c,
    /// `grpc`: HTTP/2 with prior knowledge; faults are gRPC statuses.
    Grpc,
    /// `kubernetes.io/ws`: HTTP/1.1 with WebSocket upgrade.
    WebSocket,
    /// `https`, `tls`, `kubernetes.io/wss`: TLS that the application itself speaks; bytes to us.
    Tls,
}

impl AppProtocol {
    /// Whether the port says that HTTP is spoken there.
    pub const fn is_http(self) -> bool {
        match self {
            Self::Http | Self::H2c | Self::Grpc | Self::WebSocket => true,
            Self::Unspecified | Self::Tcp | Self::Tls => false,
        }
    }
}

/// Endpoints of one EndpointSlice. A Service's endpoints are the union of its slices.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSlice {
    /// Namespace and name of the EndpointSlice.
    pub id: NsName,
    /// The Service it belongs to (`kubernetes.io/service-name`).
    pub service: ServiceId,
    /// Service port number → port on the endpoints. Named target ports may differ by slice.
    pub ports: Vec<PortMapping>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// Where a Service port lands on the endpoints of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// Port of the Service.
    pub service_port: u16,
    /// Port of the endpoint.
    pub target_port: u16,
}

/// One address that serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Address of the pod, or of something outside the mesh.
    pub address: IpAddr,
    /// The pod behind it, if the slice names one. Its [`super::Workload`] says identity and transport.
    pub workload: Option<NsName>,
    /// Whether it may get traffic.
    pub health: EndpointHealth,
    /// `topology.kubernetes.io/zone`, empty if unknown.
    pub zone: Text,
    /// Node, empty if unknown.
    pub node: Text,
}

/// What is known of an endpoint's readiness, as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointHealth {
    /// `ready`: takes new traffic.
    Ready,
    /// Takes new traffic only if nobody is ready: it is `serving` and `terminating`, or not `ready` in the eyes of all but its own kubelet.
    Fallback,
    /// Takes nothing.
    NotReady,
}
