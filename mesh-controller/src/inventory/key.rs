//! Keys: which kinds the controller reads, and how one object is named among all. It must not hold objects.

use mesh_core::name::NsName;
use std::fmt;

/// Kinds that the controller reads; any other is named and left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// v1 Namespace.
    Namespace,
    /// v1 ServiceAccount.
    ServiceAccount,
    /// v1 Pod.
    Pod,
    /// v1 Service.
    Service,
    /// discovery.k8s.io EndpointSlice.
    EndpointSlice,
    /// v1 Secret.
    Secret,
    /// v1 ConfigMap.
    ConfigMap,
    /// heddle.dev MeshParameters.
    MeshParameters,
    /// gateway.networking.x-k8s.io XMesh.
    XMesh,
    /// GatewayClass.
    GatewayClass,
    /// Gateway.
    Gateway,
    /// ListenerSet.
    ListenerSet,
    /// ReferenceGrant.
    ReferenceGrant,
    /// HTTPRoute.
    HttpRoute,
    /// GRPCRoute.
    GrpcRoute,
    /// TLSRoute.
    TlsRoute,
    /// TCPRoute.
    TcpRoute,
    /// UDPRoute.
    UdpRoute,
    /// BackendTLSPolicy.
    BackendTlsPolicy,
    /// gateway.networking.x-k8s.io XBackendTrafficPolicy.
    XBackendTrafficPolicy,
}

/// Group of the Gateway API.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
/// Group of its experimental kinds.
pub const GATEWAY_X_GROUP: &str = "gateway.networking.x-k8s.io";
/// Our own group.
pub const HEDDLE_GROUP: &str = "heddle.dev";

impl Kind {
    /// All of them.
    pub const ALL: [Self; 20] = [
        Self::Namespace,
        Self::ServiceAccount,
        Self::Pod,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::MeshParameters,
        Self::XMesh,
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::ReferenceGrant,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::BackendTlsPolicy,
        Self::XBackendTrafficPolicy,
    ];

    /// The Kubernetes kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::ServiceAccount => "ServiceAccount",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
            Self::MeshParameters => "MeshParameters",
            Self::XMesh => "XMesh",
            Self::GatewayClass => "GatewayClass",
            Self::Gateway => "Gateway",
            Self::ListenerSet => "ListenerSet",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::UdpRoute => "UDPRoute",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::XBackendTrafficPolicy => "XBackendTrafficPolicy",
        }
    }

    /// Its API group, empty for the core group.
    pub const fn group(self) -> &'static str {
        match self {
            Self::Namespace | Self::ServiceAccount | Self::Pod | Self::Service | Self::Secret | Self::ConfigMap => "",
            Self::EndpointSlice => "discovery.k8s.io",
            Self::MeshParameters => HEDDLE_GROUP,
            Self::XMesh | Self::XBackendTrafficPolicy => GATEWAY_X_GROUP,
            _ => GATEWAY_GROUP,
        }
    }

    /// The `apiVersion` that statuses are written in.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::ServiceAccount | Self::Pod | Self::Service | Self::Secret | Self::ConfigMap => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::MeshParameters => "heddle.dev/v1alpha1",
            Self::XMesh | Self::XBackendTrafficPolicy => "gateway.networking.x-k8s.io/v1alpha1",
            _ => "gateway.networking.k8s.io/v1",
        }
    }

    /// Whether objects live in a namespace.
    pub const fn namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::MeshParameters | Self::XMesh | Self::GatewayClass)
    }

    /// The kind that a document names, in any version that is served.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|k| k.as_str() == kind)?;
        let served = api_version == found.api_version() || crate::api::schema::kind_of(api_version, kind).is_some();
        served.then_some(found)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One object among all.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace (empty for cluster-scoped kinds) and name.
    pub name: NsName,
}

impl Key {
    /// Names an object.
    pub fn new(kind: Kind, name: NsName) -> Self {
        Self { kind, name }
    }

    /// Names an object of a cluster-scoped kind.
    pub fn cluster(kind: Kind, name: &str) -> Self {
        Self { kind, name: NsName::new("", name) }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name.name)
        } else {
            write!(f, "{}/{}", self.kind, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
