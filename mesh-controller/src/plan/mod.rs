//! Plan: from what the user says to what is meant, and what to say of it. Pure, total, deterministic; it must not read a `.status` of our own kinds, a clock, or anything but the inventory.
//!
//! Planning is cut into units (`Unit`): attach → conflict → backend → lower → policy → identity → status. Each unit is a pure function of
//! what it reads through a `View`, which notes what was read; a change replans the units that read it, and those that read their results.

mod attach;
mod backend;
mod conflict;
mod engine;
mod gateway;
mod grant;
mod hostname;
mod identity;
mod listener;
mod lower;
mod policy;
mod route;
mod selector;
mod service;
mod settings;
pub mod status;
mod unit;
mod view;

pub use identity::MESH_LABEL;

use crate::inventory::{Change, Inventory, Key};
use mesh_core::{
    name::Text,
    node::{Resource, ResourceId},
    records::Records,
};
use status::Status;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Name of this controller in GatewayClass and XMesh, and in all statuses.
pub const CONTROLLER_NAME: &str = "heddle.dev/controller";

/// What is meant, and what to say of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The mesh: nothing dangles in it.
    pub mesh: Records<Resource>,
    /// One status for each object of ours.
    pub statuses: BTreeMap<Key, Arc<Status>>,
}

/// How a plan differs from the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PlanDelta {
    /// New and changed resources; none: gone.
    pub resources: BTreeMap<ResourceId, Option<Resource>>,
    /// New and changed statuses; none: the object is no longer there or no longer ours.
    pub statuses: BTreeMap<Key, Option<Arc<Status>>>,
}

impl PlanDelta {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.statuses.is_empty()
    }
}

/// Plans everything. `mesh` is the name of the XMesh that this controller runs.
pub fn plan(inventory: &Inventory, mesh: &str) -> Plan {
    let mut engine = engine::Engine::new(mesh, &BTreeSet::new());
    engine.replan(inventory, inventory.keys().into_iter().map(crate::inventory::Fact::Object).collect());
    engine.into_plan()
}

/// Keeps a plan up to date: replans only what a change touches.
pub struct Planner {
    inventory: Inventory,
    engine: engine::Engine,
}

impl Planner {
    /// A planner for the mesh of this name, which knows of no object yet. Its plan holds the default settings.
    pub fn new(mesh: &str) -> Self {
        Self::excluding(mesh, &BTreeSet::new())
    }

    /// The same; pods of these namespaces are never meshed, whatever labels say.
    pub fn excluding(mesh: &str, excluded: &BTreeSet<String>) -> Self {
        let mut engine = engine::Engine::new(mesh, excluded);
        engine.replan(&Inventory::new(), Vec::new());
        Self { inventory: Inventory::new(), engine }
    }

    /// Takes changes in, all together, and says what is different afterwards.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> PlanDelta {
        let facts = changes.into_iter().flat_map(|change| self.inventory.apply(change)).collect();
        self.engine.replan(&self.inventory, facts)
    }

    /// What the source has shown.
    pub fn inventory(&self) -> &Inventory {
        &self.inventory
    }

    /// The plan as it is now.
    pub fn plan(&self) -> &Plan {
        self.engine.plan()
    }

    /// Name of the mesh.
    pub fn mesh(&self) -> &Text {
        self.engine.mesh()
    }
}

#[cfg(test)]
mod tests;
