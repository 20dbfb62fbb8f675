//! Units: the pieces that planning is made of, and what they may read. It must not compute them; `engine` calls who does.

use super::attach::Parent;
use crate::inventory::{Fact, Key, Kind};
use mesh_core::name::{GatewayId, NsName, ServiceId};

/// A piece of the plan. A unit reads only results of units whose variant is above its own; so, taken in order, each runs once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Unit {
    /// Settings of the mesh.
    Settings,
    /// Status of an XMesh.
    Mesh(NsName),
    /// Status of a GatewayClass.
    Class(NsName),
    /// A pod.
    Workload(NsName),
    /// A Service.
    Service(ServiceId),
    /// An EndpointSlice.
    Slice(NsName),
    /// An XBackendTrafficPolicy.
    TrafficPolicy(NsName),
    /// A BackendTLSPolicy.
    TlsPolicy(NsName),
    /// Listeners of a Gateway.
    Listeners(GatewayId),
    /// The certificate of a Secret.
    Certificate(NsName),
    /// Where a route is attached.
    Attach(Key),
    /// What the rules of a route mean.
    Lower(Key),
    /// Conflicts on a Service.
    Conflicts(ServiceId),
    /// A route.
    Route(Key),
    /// A Gateway.
    Gateway(GatewayId),
}

/// What a unit read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Dep {
    /// A fact of the inventory.
    Fact(Fact),
    /// The result of a unit.
    Unit(Unit),
    /// Which routes are attached to a parent, and where.
    Attached(Parent),
    /// What a route has lost on a Service. Boxed: hundreds of thousands of others are not to be as large as this one.
    Lost(Box<(ServiceId, Key)>),
    /// Whether a Gateway serves the certificate of a Secret.
    Served(NsName),
}

impl Unit {
    /// Whether the engine runs this unit for every change of `dep`, without having noted for each that it read it: its own object, and what
    /// every pod reads. There are hundreds of thousands of pods.
    pub(super) fn always_reads(&self, dep: &Dep) -> bool {
        match (self, dep) {
            (Self::Workload(_), Dep::Unit(Self::Settings)) => true,
            (Self::Workload(pod), Dep::Fact(Fact::Object(key))) if key.kind == Kind::Namespace => {
                key.name.name == pod.namespace
            }
            (_, Dep::Fact(Fact::Object(key))) => Self::of(key).contains(self),
            _ => false,
        }
    }

    /// The units that an object is the source of.
    pub(super) fn of(key: &Key) -> Vec<Self> {
        let name = key.name.clone();
        match key.kind {
            Kind::XMesh => vec![Self::Settings, Self::Mesh(name)],
            Kind::GatewayClass => vec![Self::Class(name)],
            Kind::Pod => vec![Self::Workload(name)],
            Kind::Service => vec![Self::Service(name)],
            Kind::EndpointSlice => vec![Self::Slice(name)],
            Kind::XBackendTrafficPolicy => vec![Self::TrafficPolicy(name)],
            Kind::BackendTlsPolicy => vec![Self::TlsPolicy(name)],
            Kind::Gateway => vec![Self::Listeners(name.clone()), Self::Gateway(name)],
            Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute | Kind::UdpRoute => {
                vec![Self::Attach(key.clone()), Self::Lower(key.clone()), Self::Route(key.clone())]
            }
            // Read by others only.
            Kind::Namespace
            | Kind::ServiceAccount
            | Kind::Secret
            | Kind::ConfigMap
            | Kind::MeshParameters
            | Kind::ListenerSet
            | Kind::ReferenceGrant => vec![],
        }
    }
}
