//! The mesh as it is published: every resource once, encoded once for all sessions, and who points to whom. It must not know proxies.

use mesh_core::{
    mesh::{Attachment, Scope, Workload},
    name::{GatewayId, NsName, ServiceId, Text},
    node::{NodeDelta, Resource, ResourceId},
};
use mesh_wire::sender::Encoded;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A resource and what goes over the wire for it.
#[derive(Debug)]
pub struct Entry {
    /// The resource.
    pub resource: Resource,
    /// Its bytes.
    pub encoded: Encoded,
    /// What others than the node of a workload get in its place; none: the same.
    abroad: Option<Arc<Entry>>,
}

impl Entry {
    /// A resource with its bytes.
    pub fn new(resource: &Resource) -> Self {
        let abroad = match resource {
            Resource::Workload(w) if !w.probes.is_empty() => {
                let plain = Workload { probes: vec![], ..Workload::clone(w) };
                Some(Arc::new(Self::new(&Resource::Workload(Arc::new(plain)))))
            }
            _ => None,
        };
        Self { resource: resource.clone(), encoded: Encoded::new(resource), abroad }
    }

    /// The entry as the proxy of `node` gets it, or one that is no node's: what a kubelet asks of a pod is for the pod's own node.
    pub fn seen_from(self: &Arc<Self>, node: Option<&str>) -> Arc<Self> {
        let home = match &self.resource {
            Resource::Workload(w) => Some(&*w.node) == node,
            _ => true,
        };
        self.abroad.as_ref().filter(|_| !home).unwrap_or(self).clone()
    }
}

/// One resource before and after a change.
#[derive(Clone, Debug)]
pub struct Changed {
    /// Which.
    pub id: ResourceId,
    /// Before; none: it is new.
    pub old: Option<Arc<Entry>>,
    /// After; none: it is gone.
    pub new: Option<Arc<Entry>>,
}

/// All resources, with the indexes that slicing needs.
#[derive(Debug, Default)]
pub struct Mesh {
    entries: BTreeMap<ResourceId, Arc<Entry>>,
    consumers: Index<Text>,
    attached: Index<GatewayId>,
    slices: Index<ServiceId>,
    policies: Index<ServiceId>,
}

type Index<K> = BTreeMap<K, BTreeSet<ResourceId>>;

impl Mesh {
    /// Applies what the planner changed. What is published already, by content, is no change.
    pub fn apply(&mut self, delta: &NodeDelta) -> Vec<Changed> {
        let mut changes = Vec::with_capacity(delta.upserts.len() + delta.removes.len());
        for resource in &delta.upserts {
            let id = resource.id();
            let old = self.entries.get(&id).cloned();
            if old.as_ref().is_some_and(|old| old.resource.same(resource)) {
                continue;
            }
            let new = Arc::new(Entry::new(resource));
            if old.as_ref().is_some_and(|old| old.encoded.version == new.encoded.version) {
                continue;
            }
            self.entries.insert(id.clone(), new.clone());
            changes.push(Changed { id, old, new: Some(new) });
        }
        for id in &delta.removes {
            if let Some(old) = self.entries.remove(id) {
                changes.push(Changed { id: id.clone(), old: Some(old), new: None });
            }
        }
        for change in &changes {
            if let Some(old) = &change.old {
                self.index(&old.resource, &change.id, |set, id| {
                    set.remove(id);
                });
            }
            if let Some(new) = &change.new {
                self.index(&new.resource, &change.id, |set, id| {
                    set.insert(id.clone());
                });
            }
        }
        changes
    }

    /// A resource.
    pub fn entry(&self, id: &ResourceId) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// All resources, what others point to first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// How many resources there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Routes with a consumer attachment for clients of a namespace.
    pub fn consumer_routes(&self, namespace: &Text) -> impl Iterator<Item = &ResourceId> {
        self.consumers.get(namespace).into_iter().flatten()
    }

    /// Routes attached to a Gateway.
    pub fn gateway_routes(&self, gateway: &GatewayId) -> impl Iterator<Item = &ResourceId> {
        self.attached.get(gateway).into_iter().flatten()
    }

    /// EndpointSlices and policies of a Service.
    pub fn of_service(&self, service: &ServiceId) -> impl Iterator<Item = &ResourceId> {
        let slices = self.slices.get(service).into_iter().flatten();
        slices.chain(self.policies.get(service).into_iter().flatten())
    }

    fn index(&mut self, resource: &Resource, id: &ResourceId, edit: impl Fn(&mut BTreeSet<ResourceId>, &ResourceId)) {
        fn at<K: Ord + Clone>(
            index: &mut Index<K>,
            key: &K,
            id: &ResourceId,
            edit: &impl Fn(&mut BTreeSet<ResourceId>, &ResourceId),
        ) {
            let set = index.entry(key.clone()).or_default();
            edit(set, id);
            if set.is_empty() {
                index.remove(key);
            }
        }
        match resource {
            Resource::EndpointSlice(slice) => at(&mut self.slices, &slice.service, id, &edit),
            Resource::TrafficPolicy(policy) => {
                for target in &policy.targets {
                    at(&mut self.policies, target, id, &edit);
                }
            }
            route => {
                for attachment in attachments(route) {
                    match attachment {
                        Attachment::Service { scope: Scope::Consumer(namespace), .. } => {
                            at(&mut self.consumers, namespace, id, &edit);
                        }
                        Attachment::Service { scope: Scope::Producer, .. } => {}
                        Attachment::Listener { gateway, .. } => at(&mut self.attached, gateway, id, &edit),
                    }
                }
            }
        }
    }
}

/// Where a route is attached; nothing for what is no route.
pub(super) fn attachments(resource: &Resource) -> &[Attachment] {
    match resource {
        Resource::HttpRoute(route) => &route.attachments,
        Resource::StreamRoute(route) => &route.attachments,
        _ => &[],
    }
}

/// Pods that an EndpointSlice names.
pub(super) fn pods(resource: &Resource) -> impl Iterator<Item = &NsName> {
    let endpoints = match resource {
        Resource::EndpointSlice(slice) => &slice.endpoints[..],
        _ => &[],
    };
    endpoints.iter().filter_map(|e| e.workload.as_ref())
}
