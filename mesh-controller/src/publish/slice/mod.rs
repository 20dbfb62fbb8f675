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
    /// The slice of a proxy of this mesh.
    pub fn new(proxy: &ProxyName, mesh: &Mesh) -> Self {
        match proxy {
            ProxyName::Node(node) => Self::Node(NodeSlice::new(node.clone(), mesh)),
            ProxyName::Gateway(gateway) => {
                let mut slice = GatewaySlice::new(gateway.clone());
                // Everything is new to it.
                let all: Vec<Changed> = mesh
                    .entries()
                    .map(|entry| Changed { id: entry.id(), old: None, new: Some(entry.clone()) })
                    .collect();
                slice.change(mesh, &all);
                Self::Gateway(slice)
            }
        }
    }

    /// What is in it after this id, in the order of ids.
    pub fn after<'a>(
        &'a self,
        mesh: &'a Mesh,
        last: Option<&'a ResourceId>,
    ) -> Box<dyn Iterator<Item = (ResourceId, Arc<Entry>)> + 'a> {
        match self {
            Self::Node(slice) => {
                let needed = mesh.after(last).filter(|entry| slice.needs(&entry.resource));
                Box::new(needed.map(|entry| (entry.id(), entry.seen_from(Some(slice.node())))))
            }
            Self::Gateway(slice) => {
                let held = slice.after(last).filter_map(|id| Some((id.clone(), mesh.entry(id)?.seen_from(None))));
                Box::new(held)
            }
        }
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
    Slice::new(proxy, mesh).after(mesh, None).map(|(_, entry)| entry).collect()
}

#[cfg(test)]
pub(super) mod tests;
