//! The objects of the Kubernetes API as we read them: generated specs, their schema, and one envelope. It must not hold meaning; `plan` does.

#[expect(missing_docs, reason = "generated: the CRDs document these fields")]
#[rustfmt::skip]
pub mod generated;
pub mod duration;
mod meta;
pub mod schema;

pub use generated::{
    backendtlspolicy::BackendTlsPolicySpec,
    gateway::{
        GatewayAllowedListenersNamespacesFrom as ListenersFrom, GatewayAllowedListenersNamespacesSelector as Selector,
        GatewayListeners as Listener, GatewayListenersAllowedRoutesNamespacesFrom as RoutesFrom,
        GatewayListenersFiltersRequestsExternalAuthBackendRef as BackendObjectRef,
        GatewayListenersTlsCertificateRefs as SecretObjectRef, GatewayListenersTlsMode as TlsMode, GatewaySpec,
    },
    gatewayclass::GatewayClassSpec,
    grpcroute::{
        GrpcRouteRules as GrpcRule, GrpcRouteRulesBackendRefs as GrpcBackendRef,
        GrpcRouteRulesBackendRefsFilters as GrpcFilter, GrpcRouteRulesBackendRefsFiltersType as GrpcFilterType,
        GrpcRouteRulesMatches as GrpcMatch, GrpcRouteSpec,
    },
    httproute::{
        HttpRouteParentRefs as ParentRef, HttpRouteRules as HttpRule, HttpRouteRulesBackendRefs as HttpBackendRef,
        HttpRouteRulesBackendRefsFilters as HttpFilter, HttpRouteRulesBackendRefsFiltersCors as CorsFilter,
        HttpRouteRulesBackendRefsFiltersRequestHeaderModifier as HeaderModifier,
        HttpRouteRulesBackendRefsFiltersRequestMirror as MirrorFilter,
        HttpRouteRulesBackendRefsFiltersRequestRedirect as RedirectFilter,
        HttpRouteRulesBackendRefsFiltersRequestRedirectPath as PathModifier,
        HttpRouteRulesBackendRefsFiltersRequestRedirectPathType as PathModifierType,
        HttpRouteRulesBackendRefsFiltersRequestRedirectScheme as RedirectScheme,
        HttpRouteRulesBackendRefsFiltersType as HttpFilterType, HttpRouteRulesMatches as HttpMatch,
        HttpRouteRulesMatchesHeaders as ValueMatch, HttpRouteRulesMatchesHeadersType as ValueMatchType,
        HttpRouteRulesMatchesMethod as HttpMethod, HttpRouteRulesMatchesPath as PathMatch,
        HttpRouteRulesMatchesPathType as PathMatchType, HttpRouteRulesRetry as RetrySpec,
        HttpRouteRulesTimeouts as Timeouts, HttpRouteSpec,
    },
    listenerset::ListenerSetSpec,
    meshparameters::{
        MeshParametersAccessLog, MeshParametersLimits, MeshParametersMode, MeshParametersSpec, MeshParametersTracing,
    },
    referencegrant::ReferenceGrantSpec,
    tcproute::TcpRouteSpec,
    tlsroute::{TlsRouteRulesBackendRefs as StreamBackendRef, TlsRouteSpec},
    udproute::UdpRouteSpec,
    xbackendtrafficpolicy::XBackendTrafficPolicySpec,
    xmesh::XMeshSpec,
};
pub use meta::{Meta, Object};
