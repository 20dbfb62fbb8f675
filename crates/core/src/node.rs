//! NodeConfig: what one proxy needs, as a map of resources; and the deltas between two. One user object is one resource. It must not compile for lookup; `snapshot` does.

use crate::{
    mesh::{
        Certificate, EndpointSlice, Gateway, HttpRoute, MeshSettings, Roots, RouteId, Service, StreamRoute,
        TrafficPolicy, Workload,
    },
    name::{GatewayId, NsName, ServiceId},
    records::Record,
};
use std::{collections::BTreeMap, fmt, sync::Arc};

/// Names a resource on the wire and in errors. Ordered so that what others point to comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceId {
    /// The one [`MeshSettings`].
    Settings,
    /// The one [`Roots`].
    Roots,
    /// A pod.
    Workload(NsName),
    /// A Service.
    Service(ServiceId),
    /// An EndpointSlice.
    EndpointSlice(NsName),
    /// A TLS Secret.
    Certificate(NsName),
    /// A Gateway.
    Gateway(GatewayId),
    /// An HTTPRoute or GRPCRoute.
    HttpRoute(RouteId),
    /// A TCPRoute or TLSRoute.
    StreamRoute(RouteId),
    /// An XBackendTrafficPolicy.
    TrafficPolicy(NsName),
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settings => f.write_str("settings"),
            Self::Roots => f.write_str("roots"),
            Self::Workload(n) => write!(f, "Pod/{n}"),
            Self::Service(n) => write!(f, "Service/{n}"),
            Self::EndpointSlice(n) => write!(f, "EndpointSlice/{n}"),
            Self::Certificate(n) => write!(f, "Secret/{n}"),
            Self::Gateway(n) => write!(f, "Gateway/{n}"),
            Self::HttpRoute(r) | Self::StreamRoute(r) => write!(f, "{r}"),
            Self::TrafficPolicy(n) => write!(f, "XBackendTrafficPolicy/{n}"),
        }
    }
}

/// One resource. Cheap to clone: controller and all slices share it.
#[derive(Clone, Debug, PartialEq)]
pub enum Resource {
    /// See [`MeshSettings`].
    Settings(Arc<MeshSettings>),
    /// See [`Roots`].
    Roots(Arc<Roots>),
    /// See [`Workload`].
    Workload(Arc<Workload>),
    /// See [`Service`].
    Service(Arc<Service>),
    /// See [`EndpointSlice`].
    EndpointSlice(Arc<EndpointSlice>),
    /// See [`Certificate`].
    Certificate(Arc<Certificate>),
    /// See [`Gateway`].
    Gateway(Arc<Gateway>),
    /// See [`HttpRoute`].
    HttpRoute(Arc<HttpRoute>),
    /// See [`StreamRoute`].
    StreamRoute(Arc<StreamRoute>),
    /// See [`TrafficPolicy`].
    TrafficPolicy(Arc<TrafficPolicy>),
}

impl Resource {
    /// The id that the resource itself bears.
    pub fn id(&self) -> ResourceId {
        match self {
            Self::Settings(_) => ResourceId::Settings,
            Self::Roots(_) => ResourceId::Roots,
            Self::Workload(r) => ResourceId::Workload(r.id.clone()),
            Self::Service(r) => ResourceId::Service(r.id.clone()),
            Self::EndpointSlice(r) => ResourceId::EndpointSlice(r.id.clone()),
            Self::Certificate(r) => ResourceId::Certificate(r.id.clone()),
            Self::Gateway(r) => ResourceId::Gateway(r.id.clone()),
            Self::HttpRoute(r) => ResourceId::HttpRoute(r.id.clone()),
            Self::StreamRoute(r) => ResourceId::StreamRoute(r.id.clone()),
            Self::TrafficPolicy(r) => ResourceId::TrafficPolicy(r.id.clone()),
        }
    }

    /// Whether both are the very same allocation: the cheap "nothing changed".
    pub fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Settings(a), Self::Settings(b)) => Arc::ptr_eq(a, b),
            (Self::Roots(a), Self::Roots(b)) => Arc::ptr_eq(a, b),
            (Self::Workload(a), Self::Workload(b)) => Arc::ptr_eq(a, b),
            (Self::Service(a), Self::Service(b)) => Arc::ptr_eq(a, b),
            (Self::EndpointSlice(a), Self::EndpointSlice(b)) => Arc::ptr_eq(a, b),
            (Self::Certificate(a), Self::Certificate(b)) => Arc::ptr_eq(a, b),
            (Self::Gateway(a), Self::Gateway(b)) => Arc::ptr_eq(a, b),
            (Self::HttpRoute(a), Self::HttpRoute(b)) => Arc::ptr_eq(a, b),
            (Self::StreamRoute(a), Self::StreamRoute(b)) => Arc::ptr_eq(a, b),
            (Self::TrafficPolicy(a), Self::TrafficPolicy(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Record for Resource {
    type Key = ResourceId;

    fn key(&self) -> ResourceId {
        self.id()
    }
}

/// What one proxy needs.
pub type NodeConfig = BTreeMap<ResourceId, Resource>;

/// A change of a [`NodeConfig`]. Applied as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeDelta {
    /// New and changed resources.
    pub upserts: Vec<Resource>,
    /// Resources that are no more. Removing what is not there is no error.
    pub removes: Vec<ResourceId>,
}

impl NodeDelta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.upserts.is_empty() && self.removes.is_empty()
    }
}
