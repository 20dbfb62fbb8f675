//! View: the only way for a unit to read, so that what it read is known. It must not compute.

use super::{
    attach::{Attach, Parent},
    engine::Memo,
    listener::Listeners,
    lower::Lowered,
    unit::{Dep, Unit},
};
use crate::{
    api::{
        BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, MeshParametersSpec, Object,
        ReferenceGrantSpec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec, XBackendTrafficPolicySpec, XMeshSpec,
    },
    inventory::{
        Fact, Inventory, Key, Kind,
        facts::{Pod, Secret, Service, Slice},
    },
};
use mesh_core::{
    mesh::MeshSettings,
    name::{GatewayId, NsName, ServiceId, Text},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a unit sees.
pub(super) struct View<'a> {
    inventory: &'a Inventory,
    memo: &'a Memo,
    reads: RefCell<Vec<Dep>>,
}

macro_rules! objects {
    ($($method:ident: $kind:ident, $store:ident, $spec:ty);* $(;)?) => {
        $(pub(super) fn $method(&self, name: &NsName) -> Option<&'a Object<$spec>> {
            self.note(Dep::Fact(Fact::Object(Key::new(Kind::$kind, name.clone()))));
            self.inventory.$store.get(name).map(|object| &**object)
        })*
    };
}

impl<'a> View<'a> {
    pub(super) fn new(inventory: &'a Inventory, memo: &'a Memo) -> Self {
        Self { inventory, memo, reads: RefCell::default() }
    }

    /// What was read, sorted, each once.
    pub(super) fn into_reads(self) -> Vec<Dep> {
        let mut reads = self.reads.into_inner();
        reads.sort_unstable();
        reads.dedup();
        reads
    }

    objects! {
        pod: Pod, pods, Pod;
        service: Service, services, Service;
        slice: EndpointSlice, slices, Slice;
        secret: Secret, secrets, Secret;
        parameters: MeshParameters, parameters, MeshParametersSpec;
        xmesh: XMesh, meshes, XMeshSpec;
        class: GatewayClass, classes, GatewayClassSpec;
        gateway: Gateway, gateways, GatewaySpec;
        http_route: HttpRoute, http_routes, HttpRouteSpec;
        grpc_route: GrpcRoute, grpc_routes, GrpcRouteSpec;
        tls_route: TlsRoute, tls_routes, TlsRouteSpec;
        tcp_route: TcpRoute, tcp_routes, TcpRouteSpec;
        udp_route: UdpRoute, udp_routes, UdpRouteSpec;
        tls_policy: BackendTlsPolicy, tls_policies, BackendTlsPolicySpec;
        traffic_policy: XBackendTrafficPolicy, traffic_policies, XBackendTrafficPolicySpec;
    }

    /// Whether pods of a namespace are never meshed. It does not change while the process lives.
    pub(super) fn is_excluded(&self, namespace: &str) -> bool {
        self.memo.excluded.contains(namespace)
    }

    /// Name of the XMesh that this controller runs.
    pub(super) fn mesh(&self) -> &'a Text {
        &self.memo.mesh
    }

    /// Labels of a namespace.
    pub(super) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        self.note(Dep::Fact(Fact::Object(Key::cluster(Kind::Namespace, namespace))));
        self.inventory.namespace_labels(namespace)
    }

    /// The value of one label of a namespace.
    pub(super) fn namespace_label(&self, namespace: &str, label: &str) -> Option<&'a str> {
        self.note(Dep::Fact(Fact::Object(Key::cluster(Kind::Namespace, namespace))));
        let declared = self.inventory.namespaces.get(&NsName::new("", namespace))?;
        declared.meta.labels.get(label).map(String::as_str)
    }

    /// ReferenceGrants of a namespace.
    pub(super) fn grants_in(&self, namespace: &str) -> Vec<&'a ReferenceGrantSpec> {
        self.note(Dep::Fact(Fact::GrantsIn(namespace.into())));
        self.inventory.grants_in(namespace).collect()
    }

    /// Names of the XBackendTrafficPolicies that target a Service.
    pub(super) fn traffic_policies_of(&self, service: &ServiceId) -> impl Iterator<Item = &'a NsName> + use<'a> {
        self.note(Dep::Fact(Fact::TrafficPoliciesOf(service.clone())));
        names(&self.inventory.traffic_policies_of, service)
    }

    /// Names of the BackendTLSPolicies that target a Service.
    pub(super) fn tls_policies_of(&self, service: &ServiceId) -> impl Iterator<Item = &'a NsName> + use<'a> {
        self.note(Dep::Fact(Fact::TlsPoliciesOf(service.clone())));
        names(&self.inventory.tls_policies_of, service)
    }

    /// Settings of the mesh.
    pub(super) fn settings(&self) -> &'a Arc<MeshSettings> {
        self.note(Dep::Unit(Unit::Settings));
        &self.memo.settings
    }

    /// Listeners of a Gateway; none if it is not ours.
    pub(super) fn listeners(&self, gateway: &GatewayId) -> Option<&'a Listeners> {
        self.note(Dep::Unit(Unit::Listeners(gateway.clone())));
        self.memo.listeners.get(gateway)
    }

    /// Where a route is attached.
    pub(super) fn attach(&self, route: &Key) -> Option<&'a Attach> {
        self.note(Dep::Unit(Unit::Attach(route.clone())));
        self.memo.attach.get(route)
    }

    /// What the rules of a route mean.
    pub(super) fn lowered(&self, route: &Key) -> Option<&'a Lowered> {
        self.note(Dep::Unit(Unit::Lower(route.clone())));
        self.memo.lowered.get(route)
    }

    /// Routes that are attached to a parent and of which something can be applied, in the order of their keys.
    pub(super) fn attached(&self, parent: &Parent) -> impl Iterator<Item = (&'a Key, &'a Attach)> + use<'a> {
        self.note(Dep::Attached(parent.clone()));
        let memo = self.memo;
        let routes = memo.attached.get(parent).into_iter().flatten();
        let applied = routes.filter(|key| !memo.rejected.contains(*key));
        applied.filter_map(|key| Some((key, memo.attach.get(key)?)))
    }

    /// Ports of a Service that a route has lost to a route of another kind.
    pub(super) fn lost(&self, service: &ServiceId, route: &Key) -> Option<&'a BTreeMap<u16, Key>> {
        self.note(Dep::Lost(Box::new((service.clone(), route.clone()))));
        self.memo.conflicts.get(service)?.get(route)
    }

    /// Whether a Gateway serves the certificate of a Secret.
    pub(super) fn is_served(&self, secret: &NsName) -> bool {
        self.note(Dep::Served(secret.clone()));
        self.memo.served.contains_key(secret)
    }

    fn note(&self, dep: Dep) {
        self.reads.borrow_mut().push(dep);
    }
}

fn names<'a>(index: &'a BTreeMap<NsName, BTreeSet<NsName>>, of: &NsName) -> impl Iterator<Item = &'a NsName> + use<'a> {
    index.get(of).into_iter().flatten()
}
