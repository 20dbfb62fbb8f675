//! The store of the inventory: one sorted map per kind, and the indexes that planning needs. It must not plan.

use super::{
    Change,
    facts::{Pod, Secret, Service, Slice},
    key::{Key, Kind},
    observed::Thing,
};
use crate::api::{
    BackendTlsPolicySpec, GatewayClassSpec, GatewaySpec, GrpcRouteSpec, HttpRouteSpec, ListenerSetSpec,
    MeshParametersSpec, Object, ReferenceGrantSpec, TcpRouteSpec, TlsRouteSpec, UdpRouteSpec,
    XBackendTrafficPolicySpec, XMeshSpec,
};
use mesh_core::{
    mesh::Probe,
    name::{GatewayId, NsName, ServiceId, Text},
    records::{Record, Records},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The label by which Kubernetes names each namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// Objects of one kind, in the order of their names.
pub type Store<S> = Records<Arc<Object<S>>>;

/// Something that planning may have read, and that a change of an object changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// An object, or its absence.
    Object(Key),
    /// All ReferenceGrants in a namespace.
    GrantsIn(Text),
    /// Which XBackendTrafficPolicies target a Service.
    TrafficPoliciesOf(ServiceId),
    /// Which BackendTLSPolicies target a Service.
    TlsPoliciesOf(ServiceId),
    /// Which ListenerSets name a Gateway as their parent.
    ListenerSetsOf(GatewayId),
}

/// All objects that the source has shown.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    pub(crate) namespaces: Store<()>,
    pub(crate) service_accounts: Store<()>,
    pub(crate) pods: Store<Pod>,
    pub(crate) services: Store<Service>,
    pub(crate) slices: Store<Slice>,
    pub(crate) secrets: Store<Secret>,
    pub(crate) config_maps: Store<()>,
    pub(crate) parameters: Store<MeshParametersSpec>,
    pub(crate) meshes: Store<XMeshSpec>,
    pub(crate) classes: Store<GatewayClassSpec>,
    pub(crate) gateways: Store<GatewaySpec>,
    pub(crate) listener_sets: Store<ListenerSetSpec>,
    pub(crate) grants: Store<ReferenceGrantSpec>,
    pub(crate) http_routes: Store<HttpRouteSpec>,
    pub(crate) grpc_routes: Store<GrpcRouteSpec>,
    pub(crate) tls_routes: Store<TlsRouteSpec>,
    pub(crate) tcp_routes: Store<TcpRouteSpec>,
    pub(crate) udp_routes: Store<UdpRouteSpec>,
    pub(crate) tls_policies: Store<BackendTlsPolicySpec>,
    pub(crate) traffic_policies: Store<XBackendTrafficPolicySpec>,
    pub(crate) traffic_policies_of: BTreeMap<ServiceId, BTreeSet<NsName>>,
    pub(crate) tls_policies_of: BTreeMap<ServiceId, BTreeSet<NsName>>,
    pub(crate) listener_sets_of: BTreeMap<GatewayId, BTreeSet<NsName>>,
    /// Owner of pods → what its pods were asked last.
    probes: BTreeMap<NsName, Arc<[Probe]>>,
}

/// Owners beyond twice the pods are owners that were.
const FORMER_OWNERS: usize = 1024;

impl Inventory {
    /// Nothing is known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a change in and says which facts are no longer what they were; none if the object is as it was.
    pub fn apply(&mut self, change: Change) -> Vec<Fact> {
        let key = change.key().clone();
        let before = self.indexed(&key);
        let changed = match change {
            Change::Set(observed) => {
                let mut thing = observed.thing;
                if let Thing::Pod(pod) = &mut thing {
                    self.share_probes(pod);
                }
                self.set(thing)
            }
            Change::Remove(_) => self.remove(&key),
        };
        if !changed {
            return Vec::new();
        }
        let after = self.indexed(&key);
        for fact in before.difference(&after) {
            self.index(fact, &key.name, false);
        }
        for fact in after.difference(&before) {
            self.index(fact, &key.name, true);
        }
        let mut facts: Vec<Fact> = before.union(&after).cloned().collect();
        facts.push(Fact::Object(key));
        facts
    }

    /// Every object, in the order of kinds and names.
    pub fn keys(&self) -> Vec<Key> {
        Kind::ALL.into_iter().flat_map(|kind| self.names(kind).into_iter().map(move |n| Key::new(kind, n))).collect()
    }

    /// Labels of a namespace. One that nobody declared exists with the label that names it.
    pub(crate) fn namespace_labels(&self, namespace: &str) -> BTreeMap<String, String> {
        let declared = self.namespaces.get(&NsName::new("", namespace));
        let mut labels = declared.map(|n| n.meta.labels.clone()).unwrap_or_default();
        labels.insert(NAMESPACE_NAME_LABEL.into(), namespace.into());
        labels
    }

    /// ReferenceGrants of a namespace.
    pub(crate) fn grants_in(&self, namespace: &str) -> impl Iterator<Item = &ReferenceGrantSpec> {
        within(&self.grants, namespace).map(|grant| &grant.spec)
    }

    /// Names of the pods of a namespace.
    pub(crate) fn pods_in(&self, namespace: &str) -> impl Iterator<Item = NsName> {
        within(&self.pods, namespace).map(|pod| pod.meta.id())
    }

    /// Pods of one owner are asked the same: they share one list.
    fn share_probes(&mut self, pod: &mut Arc<Object<Pod>>) {
        let probes = &pod.spec.probes;
        if probes.is_empty() {
            return;
        }
        if self.probes.len() > self.pods.len() * 2 + FORMER_OWNERS {
            self.probes.retain(|_, probes| Arc::strong_count(probes) > 1);
        }
        let owner = NsName::new(pod.meta.namespace.clone(), pod.spec.owner.clone());
        match self.probes.get(&owner) {
            Some(known) if *known == *probes => Arc::make_mut(pod).spec.probes = known.clone(),
            _ => drop(self.probes.insert(owner, probes.clone())),
        }
    }

    /// What an object says that an index holds.
    fn indexed(&self, key: &Key) -> BTreeSet<Fact> {
        let service = |name: &str| NsName::new(key.name.namespace.clone(), name);
        match key.kind {
            Kind::ReferenceGrant => BTreeSet::from([Fact::GrantsIn(key.name.namespace.clone())]),
            Kind::XBackendTrafficPolicy => {
                let policy = self.traffic_policies.get(&key.name);
                let targets = policy.iter().flat_map(|p| &p.spec.target_refs);
                targets
                    .filter(|t| t.group.is_empty() && t.kind == "Service")
                    .map(|t| Fact::TrafficPoliciesOf(service(&t.name)))
                    .collect()
            }
            Kind::BackendTlsPolicy => {
                let policy = self.tls_policies.get(&key.name);
                let targets = policy.iter().flat_map(|p| &p.spec.target_refs);
                targets
                    .filter(|t| t.group.is_empty() && t.kind == "Service")
                    .map(|t| Fact::TlsPoliciesOf(service(&t.name)))
                    .collect()
            }
            Kind::ListenerSet => {
                let set = self.listener_sets.get(&key.name);
                set.map(|set| {
                    let parent = &set.spec.parent_ref;
                    let namespace = parent.namespace.as_deref().unwrap_or(&key.name.namespace);
                    Fact::ListenerSetsOf(NsName::new(namespace, parent.name.as_str()))
                })
                .into_iter()
                .collect()
            }
            _ => BTreeSet::new(),
        }
    }

    fn index(&mut self, fact: &Fact, name: &NsName, present: bool) {
        let (index, of) = match fact {
            Fact::TrafficPoliciesOf(of) => (&mut self.traffic_policies_of, of),
            Fact::TlsPoliciesOf(of) => (&mut self.tls_policies_of, of),
            Fact::ListenerSetsOf(of) => (&mut self.listener_sets_of, of),
            Fact::Object(_) | Fact::GrantsIn(_) => return,
        };
        let names = index.entry(of.clone()).or_default();
        if present {
            names.insert(name.clone());
        } else {
            names.remove(name);
        }
        if names.is_empty() {
            index.remove(of);
        }
    }
}

/// Objects of a namespace; none has an empty name.
fn within<'a, S>(store: &'a Store<S>, namespace: &str) -> impl Iterator<Item = &'a Arc<Object<S>>> {
    let before = NsName::new(namespace, "");
    store.after(Some(&before)).take_while(move |object| object.meta.namespace == before.namespace)
}

fn put<S: PartialEq>(store: &mut Store<S>, object: Arc<Object<S>>) -> bool {
    if store.get(&object.meta.id()) == Some(&object) {
        return false;
    }
    store.insert(object);
    true
}

macro_rules! by_kind {
    ($($kind:ident => $store:ident),* $(,)?) => {
        impl Inventory {
            fn set(&mut self, thing: Thing) -> bool {
                match thing { $(Thing::$kind(object) => put(&mut self.$store, object)),* }
            }

            fn remove(&mut self, key: &Key) -> bool {
                match key.kind { $(Kind::$kind => self.$store.remove(&key.name).is_some()),* }
            }

            fn names(&self, kind: Kind) -> Vec<NsName> {
                match kind { $(Kind::$kind => self.$store.iter().map(Record::key).collect()),* }
            }
        }
    };
}
by_kind! {
    Namespace => namespaces,
    ServiceAccount => service_accounts,
    Pod => pods,
    Service => services,
    EndpointSlice => slices,
    Secret => secrets,
    ConfigMap => config_maps,
    MeshParameters => parameters,
    XMesh => meshes,
    GatewayClass => classes,
    Gateway => gateways,
    ListenerSet => listener_sets,
    ReferenceGrant => grants,
    HttpRoute => http_routes,
    GrpcRoute => grpc_routes,
    TlsRoute => tls_routes,
    TcpRoute => tcp_routes,
    UdpRoute => udp_routes,
    BackendTlsPolicy => tls_policies,
    XBackendTrafficPolicy => traffic_policies,
}
