//! Engine: runs the units that a change touches, in order, and keeps their results. It must not know what they compute.

use super::{
    Plan, PlanDelta, identity, policy, service, settings,
    status::Status,
    unit::{Dep, Unit},
    view::View,
};
use crate::inventory::{Fact, Inventory, Key, Kind};
use mesh_core::{
    mesh::MeshSettings,
    name::Text,
    node::{Resource, ResourceId},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Results that other units read.
pub(super) struct Memo {
    pub(super) mesh: Text,
    pub(super) settings: Arc<MeshSettings>,
}

pub(super) struct Engine {
    memo: Memo,
    plan: Plan,
    delta: PlanDelta,
    reads: HashMap<Unit, Vec<Dep>>,
    readers: HashMap<Dep, BTreeSet<Unit>>,
    dirty: BTreeSet<Unit>,
}

impl Engine {
    pub(super) fn new(mesh: &str) -> Self {
        Self {
            memo: Memo { mesh: mesh.into(), settings: Arc::new(settings::defaults(mesh)) },
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
                if settings != *self.memo.settings || !self.plan.mesh.contains_key(&ResourceId::Settings) {
                    self.memo.settings = Arc::new(settings);
                    self.put(ResourceId::Settings, Some(Resource::Settings(self.memo.settings.clone())));
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
        }
    }

    /// Notes what a unit read this time.
    fn read(&mut self, unit: &Unit, reads: Vec<Dep>) {
        let before = self.reads.get(unit).map_or(&[][..], Vec::as_slice);
        if before == reads {
            return;
        }
        for dep in before.iter().filter(|dep| reads.binary_search(dep).is_err()) {
            if let Some(units) = self.readers.get_mut(dep) {
                units.remove(unit);
                if units.is_empty() {
                    self.readers.remove(dep);
                }
            }
        }
        for dep in reads.iter().filter(|dep| before.binary_search(dep).is_err()) {
            self.readers.entry(dep.clone()).or_default().insert(unit.clone());
        }
        self.reads.insert(unit.clone(), reads);
    }

    /// Marks all that read this.
    fn touch(&mut self, dep: Dep) {
        if let Some(units) = self.readers.get(&dep) {
            self.dirty.extend(units.iter().cloned());
        }
    }

    fn put(&mut self, id: ResourceId, resource: Option<Resource>) {
        if self.plan.mesh.get(&id) == resource.as_ref() {
            return;
        }
        match &resource {
            Some(resource) => self.plan.mesh.insert(id.clone(), resource.clone()),
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
