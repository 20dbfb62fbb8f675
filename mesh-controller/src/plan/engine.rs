//! Engine: runs the units that a change touches, in order, and keeps their results. It must not know what they compute.

use super::{
    Plan, PlanDelta,
    attach::{self, Attach, Parent},
    conflict::{self, Conflicts},
    gateway, identity,
    listener::{self, Listeners},
    lower::Lowered,
    policy, route, service, settings,
    status::Status,
    unit::{Dep, Unit},
    view::View,
};
use crate::{
    few::Few,
    inventory::{Fact, Inventory, Key, Kind},
};
use mesh_core::{
    mesh::MeshSettings,
    name::{GatewayId, NsName, ServiceId, Text},
    node::{Resource, ResourceId},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// Results that other units read.
pub(super) struct Memo {
    pub(super) mesh: Text,
    /// Namespaces whose pods are never meshed.
    pub(super) excluded: BTreeSet<String>,
    pub(super) settings: Arc<MeshSettings>,
    pub(super) listeners: BTreeMap<GatewayId, Listeners>,
    pub(super) attach: BTreeMap<Key, Attach>,
    pub(super) lowered: BTreeMap<Key, Lowered>,
    pub(super) conflicts: BTreeMap<ServiceId, Conflicts>,
    /// Routes that are attached, but of which nothing can be applied.
    pub(super) rejected: BTreeSet<Key>,
    /// Index: parent → routes that are attached to it.
    pub(super) attached: BTreeMap<Parent, BTreeSet<Key>>,
    /// Index: Secret → Gateways that serve its certificate.
    pub(super) served: BTreeMap<NsName, BTreeSet<GatewayId>>,
}

pub(super) struct Engine {
    memo: Memo,
    plan: Plan,
    delta: PlanDelta,
    reads: HashMap<Unit, Box<[Dep]>>,
    /// Units that read something.
    readers: HashMap<Dep, Few<Unit>>,
    dirty: BTreeSet<Unit>,
}

impl Engine {
    pub(super) fn new(mesh: &str, excluded: &BTreeSet<String>) -> Self {
        Self {
            memo: Memo {
                mesh: mesh.into(),
                excluded: excluded.clone(),
                settings: Arc::new(settings::defaults(mesh)),
                listeners: BTreeMap::new(),
                attach: BTreeMap::new(),
                lowered: BTreeMap::new(),
                conflicts: BTreeMap::new(),
                rejected: BTreeSet::new(),
                attached: BTreeMap::new(),
                served: BTreeMap::new(),
            },
            plan: Plan::default(),
            delta: PlanDelta::default(),
            reads: HashMap::new(),
            readers: HashMap::new(),
            dirty: BTreeSet::from([Unit::Settings]),
        }
    }

    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(super) fn into_plan(self) -> Plan {
        self.plan
    }

    pub(super) fn mesh(&self) -> &Text {
        &self.memo.mesh
    }

    /// Runs all that depends on the facts.
    pub(super) fn replan(&mut self, inventory: &Inventory, facts: Vec<Fact>) -> PlanDelta {
        for fact in facts {
            if let Fact::Object(key) = &fact {
                self.dirty.extend(Unit::of(key));
                if key.kind == Kind::Namespace {
                    self.dirty.extend(inventory.pods_in(&key.name.name).map(Unit::Workload));
                }
            }
            self.touch(Dep::Fact(fact));
        }
        while let Some(unit) = self.dirty.pop_first() {
            self.run(inventory, &unit);
            debug_assert!(self.dirty.first().is_none_or(|next| *next > unit), "{unit:?} dirties a unit before itself");
        }
        std::mem::take(&mut self.delta)
    }

    fn run(&mut self, inventory: &Inventory, unit: &Unit) {
        let view = View::new(inventory, &self.memo);
        match unit {
            Unit::Settings => {
                let settings = settings::plan(&view);
                self.read(unit, view.into_reads());
                if settings != *self.memo.settings || !self.plan.mesh.contains(&ResourceId::Settings) {
                    self.memo.settings = Arc::new(settings);
                    self.put(ResourceId::Settings, Some(Resource::Settings(self.memo.settings.clone())));
                    self.dirty.extend(inventory.pods.iter().map(|pod| Unit::Workload(pod.meta.id())));
                    self.touch(Dep::Unit(unit.clone()));
                }
            }
            Unit::Mesh(name) => {
                let status = settings::status(&view, name);
                self.read(unit, view.into_reads());
                self.put_status(Key::new(Kind::XMesh, name.clone()), status);
            }
            Unit::Class(name) => {
                let status = settings::class_status(&view, name);
                self.read(unit, view.into_reads());
                self.put_status(Key::new(Kind::GatewayClass, name.clone()), status);
            }
            Unit::Workload(id) => {
                let workload = identity::workload(&view, id).map(|w| Resource::Workload(Arc::new(w)));
                self.read(unit, view.into_reads());
                self.put(ResourceId::Workload(id.clone()), workload);
            }
            Unit::Service(id) => {
                let service = service::service(&view, id).map(|s| Resource::Service(Arc::new(s)));
                self.read(unit, view.into_reads());
                self.put(ResourceId::Service(id.clone()), service);
            }
            Unit::Slice(id) => {
                let slice = service::slice(&view, id).map(|s| Resource::EndpointSlice(Arc::new(s)));
                self.read(unit, view.into_reads());
                self.put(ResourceId::EndpointSlice(id.clone()), slice);
            }
            Unit::TrafficPolicy(id) => {
                let (policy, status) = policy::traffic(&view, id);
                self.read(unit, view.into_reads());
                let policy = policy.map(|p| Resource::TrafficPolicy(Arc::new(p)));
                self.put(ResourceId::TrafficPolicy(id.clone()), policy);
                self.put_status(Key::new(Kind::XBackendTrafficPolicy, id.clone()), status);
            }
            Unit::TlsPolicy(id) => {
                let status = policy::tls(&view, id);
                self.read(unit, view.into_reads());
                self.put_status(Key::new(Kind::BackendTlsPolicy, id.clone()), status);
            }
            Unit::Listeners(id) => {
                let listeners = listener::plan(&view, id);
                self.read(unit, view.into_reads());
                self.keep_listeners(id, listeners);
            }
            Unit::Certificate(id) => {
                let certificate = gateway::certificate(&view, id).map(Resource::Certificate);
                self.read(unit, view.into_reads());
                self.put(ResourceId::Certificate(id.clone()), certificate);
            }
            Unit::Attach(key) => {
                let attach = attach::attach(&view, key);
                self.read(unit, view.into_reads());
                self.keep_attach(key, attach);
            }
            Unit::Lower(key) => {
                let lowered = route::lower(&view, key);
                self.read(unit, view.into_reads());
                self.keep_lowered(key, lowered);
            }
            Unit::Conflicts(service) => {
                let conflicts = conflict::conflicts(&view, service);
                self.read(unit, view.into_reads());
                self.keep_conflicts(service, conflicts);
            }
            Unit::Route(key) => {
                let route::Planned { resource, status } = route::plan(&view, key);
                self.read(unit, view.into_reads());
                if let Some(id) = route::resource_id(key) {
                    self.put(id, resource);
                }
                self.put_status(key.clone(), status);
            }
            Unit::Gateway(id) => {
                let (gateway, status) = gateway::plan(&view, id);
                self.read(unit, view.into_reads());
                self.put(ResourceId::Gateway(id.clone()), gateway.map(|g| Resource::Gateway(Arc::new(g))));
                self.put_status(Key::new(Kind::Gateway, id.clone()), status);
            }
        }
    }

    fn keep_listeners(&mut self, id: &GatewayId, listeners: Option<Listeners>) {
        let before = self.memo.listeners.get(id);
        if before == listeners.as_ref() {
            return;
        }
        let secrets =
            |l: Option<&Listeners>| -> BTreeSet<NsName> { l.iter().flat_map(|l| l.certificates()).cloned().collect() };
        let (old, new) = (secrets(before), secrets(listeners.as_ref()));
        for secret in old.symmetric_difference(&new) {
            let gateways = self.memo.served.entry(secret.clone()).or_default();
            if new.contains(secret) {
                gateways.insert(id.clone());
            } else {
                gateways.remove(id);
            }
            if gateways.is_empty() {
                self.memo.served.remove(secret);
            }
            self.dirty.insert(Unit::Certificate(secret.clone()));
        }
        match listeners {
            Some(listeners) => self.memo.listeners.insert(id.clone(), listeners),
            None => self.memo.listeners.remove(id),
        };
        self.touch(Dep::Unit(Unit::Listeners(id.clone())));
    }

    fn keep_attach(&mut self, key: &Key, attach: Option<Attach>) {
        let before = self.memo.attach.get(key);
        if before == attach.as_ref() {
            return;
        }
        let parents = |a: Option<&Attach>| -> BTreeSet<Parent> { a.iter().flat_map(|a| a.attached_to()).collect() };
        let (old, new) = (parents(before), parents(attach.as_ref()));
        for parent in old.union(&new) {
            if !new.contains(parent) {
                if let Some(routes) = self.memo.attached.get_mut(parent) {
                    routes.remove(key);
                    if routes.is_empty() {
                        self.memo.attached.remove(parent);
                    }
                }
            } else if !old.contains(parent) {
                self.memo.attached.entry(parent.clone()).or_default().insert(key.clone());
            }
            if let Parent::Service(service) = parent {
                self.dirty.insert(Unit::Conflicts(service.clone()));
            }
            self.touch(Dep::Attached(parent.clone()));
        }
        match attach {
            Some(attach) => self.memo.attach.insert(key.clone(), attach),
            None => self.memo.attach.remove(key),
        };
        self.touch(Dep::Unit(Unit::Attach(key.clone())));
    }

    fn keep_conflicts(&mut self, service: &ServiceId, conflicts: Conflicts) {
        let before = self.memo.conflicts.remove(service).unwrap_or_default();
        for route in before.keys().chain(conflicts.keys()) {
            if before.get(route) != conflicts.get(route) {
                self.touch(Dep::Lost(Box::new((service.clone(), route.clone()))));
            }
        }
        if !conflicts.is_empty() {
            self.memo.conflicts.insert(service.clone(), conflicts);
        }
    }

    fn keep_lowered(&mut self, key: &Key, lowered: Option<Lowered>) {
        if self.memo.lowered.get(key) == lowered.as_ref() {
            return;
        }
        let rejected = lowered.as_ref().is_some_and(|l| l.rejected().is_some());
        let changed = if rejected { self.memo.rejected.insert(key.clone()) } else { self.memo.rejected.remove(key) };
        if changed {
            let parents: BTreeSet<Parent> = self.memo.attach.get(key).iter().flat_map(|a| a.attached_to()).collect();
            for parent in parents {
                self.touch(Dep::Attached(parent));
            }
        }
        match lowered {
            Some(lowered) => self.memo.lowered.insert(key.clone(), lowered),
            None => self.memo.lowered.remove(key),
        };
        self.touch(Dep::Unit(Unit::Lower(key.clone())));
    }

    /// Notes what a unit read this time, beside what all units of its kind read.
    fn read(&mut self, unit: &Unit, mut reads: Vec<Dep>) {
        reads.retain(|dep| !unit.always_reads(dep));
        let before = self.reads.get(unit).map_or(&[][..], |reads| reads);
        if before == reads {
            return;
        }
        for dep in before.iter().filter(|dep| reads.binary_search(dep).is_err()) {
            if let Some(units) = self.readers.get_mut(dep)
                && units.remove(unit)
            {
                self.readers.remove(dep);
            }
        }
        for dep in reads.iter().filter(|dep| before.binary_search(dep).is_err()) {
            match self.readers.get_mut(dep) {
                Some(units) => units.insert(unit),
                None => drop(self.readers.insert(dep.clone(), Few::One(unit.clone()))),
            }
        }
        if reads.is_empty() {
            self.reads.remove(unit);
        } else {
            self.reads.insert(unit.clone(), reads.into());
        }
    }

    /// Marks all that read this.
    fn touch(&mut self, dep: Dep) {
        self.dirty.extend(self.readers.get(&dep).into_iter().flat_map(Few::iter).cloned());
    }

    fn put(&mut self, id: ResourceId, resource: Option<Resource>) {
        if self.plan.mesh.get(&id) == resource.as_ref() {
            return;
        }
        match &resource {
            Some(resource) => self.plan.mesh.insert(resource.clone()),
            None => self.plan.mesh.remove(&id),
        };
        self.delta.resources.insert(id, resource);
    }

    fn put_status(&mut self, key: Key, status: Option<Status>) {
        if self.plan.statuses.get(&key).map(|s| &**s) == status.as_ref() {
            return;
        }
        let status = status.map(Arc::new);
        match &status {
            Some(status) => self.plan.statuses.insert(key.clone(), status.clone()),
            None => self.plan.statuses.remove(&key),
        };
        self.delta.statuses.insert(key, status);
    }
}
