//! Slicing: which resources a proxy needs. Pure. It must not send.

mod gateway;
mod node;

use super::mesh::{Changed, Entry, Mesh};
use gateway::GatewaySlice;
use mesh_core::{name::ProxyName, node::ResourceId};
use node::NodeSlice;
use std::{collections::BTreeMap, sync::Arc};

/// What one proxy needs, kept up with the mesh change by change.
#[derive(Debug)]
pub enum Slice {
    /// Of a node.
    Node(NodeSlice),
    /// Of a Gateway.
    Gateway(GatewaySlice),
}

/// What changes for a proxy: the new content, or none where it no longer needs the resource.
pub type Touched = BTreeMap<ResourceId, Option<Arc<Entry>>>;

impl Slice {
    /// The slice of a proxy of this mesh, and all that is in it.
    pub fn new(proxy: &ProxyName, mesh: &Mesh) -> (Self, Vec<Arc<Entry>>) {
        let mut slice = match proxy {
            ProxyName::Node(node) => Self::Node(NodeSlice::new(node.clone())),
            ProxyName::Gateway(gateway) => Self::Gateway(GatewaySlice::new(gateway.clone())),
        };
        // Everything is new to it.
        let all: Vec<Changed> = mesh
            .entries()
            .map(|entry| Changed { id: entry.encoded.id.clone(), old: None, new: Some(entry.clone()) })
            .collect();
        let touched = slice.change(mesh, &all);
        (slice, touched.into_values().flatten().collect())
    }

    /// What `changes`, which `mesh` holds already, mean for this proxy. Costs in proportion to them and to what they point to.
    pub fn change(&mut self, mesh: &Mesh, changes: &[Changed]) -> Touched {
        let (mut touched, node) = match self {
            Self::Node(slice) => (slice.change(mesh, changes), Some(slice.node())),
            Self::Gateway(slice) => (slice.change(mesh, changes), None),
        };
        for entry in touched.values_mut().flatten() {
            *entry = entry.seen_from(node);
        }
        touched
    }
}

/// All that a proxy needs, from scratch.
pub fn slice(mesh: &Mesh, proxy: &ProxyName) -> Vec<Arc<Entry>> {
    Slice::new(proxy, mesh).1
}

#[cfg(test)]
pub(super) mod tests;
