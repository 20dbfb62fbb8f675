//! The mesh as it is published: every resource once, encoded once for all sessions, and who points to whom. It must not know proxies.

use crate::few::Few;
use mesh_core::{
    mesh::{Attachment, Scope, Workload},
    name::{GatewayId, NsName, ServiceId, Text},
    node::{NodeDelta, Resource, ResourceId},
    records::{Record, Records},
};
use mesh_wire::sender::Encoded;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A resource and what goes over the wire for it.
#[derive(Debug)]
pub struct Entry {
    /// The resource.
    pub resource: Resource,
    /// Its bytes, as all proxies get them but perhaps one: see [`Entry::seen_from`].
    pub encoded: Encoded,
}

impl Entry {
    /// A resource with its bytes.
    pub fn new(resource: &Resource) -> Self {
        let abroad = match resource {
            Resource::Workload(w) if !w.probes.is_empty() => {
                Resource::Workload(Arc::new(Workload { probes: Arc::default(), ..Workload::clone(w) }))
            }
            _ => resource.clone(),
        };
        Self { resource: resource.clone(), encoded: Encoded::new(&abroad) }
    }

    /// Its id.
    pub fn id(&self) -> ResourceId {
        self.resource.id()
    }

    /// The entry as the proxy of `node` gets it, or one that is no node's: what a kubelet asks of a pod is for the pod's own node, and is encoded
    /// when that asks for it.
    pub fn seen_from(self: &Arc<Self>, node: Option<&str>) -> Arc<Self> {
        match &self.resource {
            Resource::Workload(w) if !w.probes.is_empty() && Some(&*w.node) == node => {
                Arc::new(Self { resource: self.resource.clone(), encoded: Encoded::new(&self.resource) })
            }
            _ => self.clone(),
        }
    }
}

impl Record for Entry {
    type Key = ResourceId;

    fn key(&self) -> ResourceId {
        self.id()
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
    entries: Records<Arc<Entry>>,
    consumers: Index<Text>,
    attached: Index<GatewayId>,
    slices: Index<ServiceId>,
    policies: Index<ServiceId>,
    locals: HashMap<Text, Locals>,
}

/// Meshed pods of a node by namespace.
pub(super) type Locals = BTreeMap<Text, usize>;

type Index<K> = BTreeMap<K, Few<ResourceId>>;

fn index<K: Ord + Clone>(index: &mut Index<K>, key: &K, id: &ResourceId, present: bool) {
    match (index.get_mut(key), present) {
        (None, true) => drop(index.insert(key.clone(), Few::One(id.clone()))),
        (Some(ids), true) => ids.insert(id),
        (None, false) => {}
        (Some(ids), false) => {
            if ids.remove(id) {
                index.remove(key);
            }
        }
    }
}

impl Mesh {
    /// Applies what the planner changed. What is published already, by content, is no change.
    pub fn apply(&mut self, delta: &NodeDelta) -> Vec<Changed> {
        let mut changes = Vec::with_capacity(delta.upserts.len() + delta.removes.len());
        for resource in &delta.upserts {
            let id = resource.id();
            let old = self.entries.get(&id).cloned();
            if old.as_ref().is_some_and(|old| old.resource.same(resource) || old.resource == *resource) {
                continue;
            }
            let new = Arc::new(Entry::new(resource));
            self.entries.insert(new.clone());
            changes.push(Changed { id, old, new: Some(new) });
        }
        for id in &delta.removes {
            if let Some(old) = self.entries.remove(id) {
                changes.push(Changed { id: id.clone(), old: Some(old), new: None });
            }
        }
        for change in &changes {
            if let Some(old) = &change.old {
                self.index(&old.resource, &change.id, false);
                if let Some((node, namespace)) = local(&old.resource)
                    && let Some(locals) = self.locals.get_mut(node)
                {
                    less(locals, namespace);
                    if locals.is_empty() {
                        self.locals.remove(node);
                    }
                }
            }
            if let Some(new) = &change.new {
                self.index(&new.resource, &change.id, true);
                if let Some((node, namespace)) = local(&new.resource) {
                    *self.locals.entry(node.clone()).or_default().entry(namespace.clone()).or_default() += 1;
                }
            }
        }
        changes
    }

    /// A resource.
    pub fn entry(&self, id: &ResourceId) -> Option<&Arc<Entry>> {
        self.entries.get(id)
    }

    /// Namespaces that have meshed pods on a node, and how many.
    pub(super) fn locals(&self, node: &Text) -> Locals {
        self.locals.get(node).cloned().unwrap_or_default()
    }

    /// Resources whose ids come after this one, in order.
    pub(super) fn after(&self, last: Option<&ResourceId>) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.after(last)
    }

    /// All resources, what others point to first.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
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
        self.consumers.get(namespace).into_iter().flat_map(Few::iter)
    }

    /// Routes attached to a Gateway.
    pub fn gateway_routes(&self, gateway: &GatewayId) -> impl Iterator<Item = &ResourceId> {
        self.attached.get(gateway).into_iter().flat_map(Few::iter)
    }

    /// EndpointSlices and policies of a Service.
    pub fn of_service<'a>(&'a self, service: &ServiceId) -> impl Iterator<Item = &'a ResourceId> {
        let of = |index: &'a Index<ServiceId>| index.get(service).into_iter().flat_map(Few::iter);
        of(&self.slices).chain(of(&self.policies))
    }

    fn index(&mut self, resource: &Resource, id: &ResourceId, present: bool) {
        match resource {
            Resource::EndpointSlice(slice) => index(&mut self.slices, &slice.service, id, present),
            Resource::TrafficPolicy(policy) => {
                for target in &policy.targets {
                    index(&mut self.policies, target, id, present);
                }
            }
            route => {
                for attachment in attachments(route) {
                    match attachment {
                        Attachment::Service { scope: Scope::Consumer(namespace), .. } => {
                            index(&mut self.consumers, namespace, id, present);
                        }
                        Attachment::Service { scope: Scope::Producer, .. } => {}
                        Attachment::Listener { gateway, .. } => index(&mut self.attached, gateway, id, present),
                    }
                }
            }
        }
    }
}

/// Node and namespace of a meshed pod.
pub(super) fn local(resource: &Resource) -> Option<(&Text, &Text)> {
    match resource {
        Resource::Workload(w) if w.enrolment.is_meshed() => Some((&w.node, &w.id.namespace)),
        _ => None,
    }
}

/// One pod fewer.
pub(super) fn less(locals: &mut Locals, namespace: &Text) {
    if let Some(count) = locals.get_mut(namespace) {
        *count -= 1;
        if *count == 0 {
            locals.remove(namespace);
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
