//! The slice of a node: what its pods may talk to, and the routes that govern them. It must not look at Gateways.

use super::{Changed, Entry, Mesh, Touched};
use crate::publish::mesh::{Locals, attachments, less, local};
use mesh_core::{
    mesh::{Attachment, Scope},
    name::Text,
    node::{Resource, ResourceId},
};
use std::{collections::BTreeSet, sync::Arc};

/// Any pod may call any Service, so a node needs all workloads, Services, endpoints and policies, and all producer routes; of the
/// consumer routes only those of namespaces that have a meshed pod here.
#[derive(Debug)]
pub struct NodeSlice {
    node: Text,
    /// Meshed pods of this node by namespace.
    locals: Locals,
}

impl NodeSlice {
    pub(super) fn new(node: Text, mesh: &Mesh) -> Self {
        Self { locals: mesh.locals(&node), node }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn needs(&self, resource: &Resource) -> bool {
        needs(&self.locals, resource)
    }

    pub(super) fn change(&mut self, mesh: &Mesh, changes: &[Changed]) -> Touched {
        let Self { node, locals } = self;
        let here = |entry: &Option<Arc<Entry>>| {
            let (on, namespace) = local(&entry.as_ref()?.resource)?;
            (on == node).then(|| namespace.clone())
        };
        // Hundreds of nodes hear of every pod; it is one node's.
        let moved = changes.iter().any(|change| here(&change.old).is_some() || here(&change.new).is_some());
        let before = moved.then(|| locals.clone());
        if moved {
            for change in changes {
                here(&change.old).iter().for_each(|namespace| less(locals, namespace));
                if let Some(namespace) = here(&change.new) {
                    *locals.entry(namespace).or_default() += 1;
                }
            }
        }
        let before = before.as_ref().unwrap_or(&self.locals);
        let mut touched = Touched::new();
        for change in changes {
            let old = change.old.as_ref().is_some_and(|entry| needs(before, &entry.resource));
            match &change.new {
                Some(new) if needs(&self.locals, &new.resource) => {
                    touched.insert(change.id.clone(), Some(new.clone()));
                }
                _ if old => {
                    touched.insert(change.id.clone(), None);
                }
                _ => {}
            }
        }
        // Namespaces that got their first or lost their last pod here: their consumer routes come or go.
        let changed: BTreeSet<&ResourceId> = match self.locals.keys().eq(before.keys()) {
            true => return touched,
            false => changes.iter().map(|c| &c.id).collect(),
        };
        let came = self.locals.keys().filter(|namespace| !before.contains_key(*namespace));
        let went = before.keys().filter(|namespace| !self.locals.contains_key(*namespace));
        for id in came.chain(went).flat_map(|namespace| mesh.consumer_routes(namespace)) {
            let Some(entry) = mesh.entry(id) else { continue };
            // What changed itself was judged above, by what it was before.
            if changed.contains(id) {
                continue;
            }
            match (needs(before, &entry.resource), needs(&self.locals, &entry.resource)) {
                (false, true) => touched.insert(id.clone(), Some(entry.clone())),
                (true, false) => touched.insert(id.clone(), None),
                _ => None,
            };
        }
        touched
    }
}

fn needs(locals: &Locals, resource: &Resource) -> bool {
    match resource {
        Resource::Certificate(_) | Resource::Gateway(_) => false,
        Resource::HttpRoute(_) | Resource::StreamRoute(_) => attachments(resource).iter().any(|a| match a {
            Attachment::Service { scope: Scope::Producer, .. } => true,
            Attachment::Service { scope: Scope::Consumer(namespace), .. } => locals.contains_key(namespace),
            Attachment::Listener { .. } => false,
        }),
        _ => true,
    }
}
