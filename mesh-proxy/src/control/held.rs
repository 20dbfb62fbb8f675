//! What this proxy holds of its config: takes a delta as a whole or refuses it, naming object and field. Pure. It must not send or store.

use imbl::OrdMap;
use mesh_core::{
    mesh::Roots,
    node::{NodeDelta, Resource, ResourceId},
    snapshot::Snapshot,
};
use mesh_wire::{Rejected, decode_delta, encode, proto};
use std::{collections::BTreeMap, sync::Arc};

/// Resources with their versions, and the snapshot compiled from them. Cheap to clone: everything is shared.
#[derive(Clone, Default)]
pub struct Held {
    resources: OrdMap<ResourceId, (u64, Resource)>,
    snapshot: Option<Arc<Snapshot>>,
}

impl Held {
    /// The snapshot, once the first synchronisation is complete.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The roots of the mesh, once the controller has told them.
    pub fn roots(&self) -> Option<&Arc<Roots>> {
        match self.resources.get(&ResourceId::Roots) {
            Some((_, Resource::Roots(roots))) => Some(roots),
            _ => None,
        }
    }

    /// Id and version of everything that is held, for `Hello`.
    pub fn known(&self) -> BTreeMap<String, u64> {
        self.resources.iter().map(|(id, (version, _))| (id.to_string(), *version)).collect()
    }

    /// Everything that is held.
    pub fn resources(&self) -> impl Iterator<Item = (&ResourceId, u64, &Resource)> {
        self.resources.iter().map(|(id, (version, resource))| (id, *version, resource))
    }

    /// Takes a delta whole, or refuses it and stays as it was. Until the first synchronisation is complete there is no snapshot: half of a config
    /// would say "no route" where there is one.
    pub fn take(&mut self, delta: proto::Delta) -> Result<(), Vec<Rejected>> {
        let versions: BTreeMap<String, u64> = delta.upserts.iter().map(|r| (r.id.clone(), r.version)).collect();
        let synced = delta.synced;
        let change = decode_delta(delta)?;
        if change.removes.contains(&ResourceId::Settings) {
            return Err(settings("removes", "a proxy cannot be without settings"));
        }
        let mut resources = self.resources.clone();
        for resource in &change.upserts {
            let id = resource.id();
            let version = versions.get(&id.to_string()).copied().unwrap_or_default();
            resources.insert(id, (version, resource.clone()));
        }
        for id in &change.removes {
            resources.remove(id);
        }
        self.snapshot = match &self.snapshot {
            Some(snapshot) if change.is_empty() => Some(snapshot.clone()),
            Some(snapshot) => Some(Arc::new(snapshot.with(&change))),
            None if synced => Some(Arc::new(compile(&resources)?)),
            None => None,
        };
        self.resources = resources;
        Ok(())
    }

    /// All of it as one delta: the content of the cache file.
    pub fn export(&self) -> proto::Delta {
        let upserts = self.resources.iter().map(|(_, (version, resource))| {
            // The version that the controller gave, not one of our own making: it is what the controller compares.
            proto::Resource { version: *version, ..encode(resource) }
        });
        proto::Delta { nonce: 0, upserts: upserts.collect(), removes: vec![], synced: self.snapshot.is_some() }
    }
}

fn compile(resources: &OrdMap<ResourceId, (u64, Resource)>) -> Result<Snapshot, Vec<Rejected>> {
    let Some((_, Resource::Settings(known))) = resources.get(&ResourceId::Settings) else {
        return Err(settings("", "is missing in a config that is said to be complete"));
    };
    let upserts = resources.iter().map(|(_, (_, resource))| resource.clone()).collect();
    Ok(Snapshot::empty(known.clone()).with(&NodeDelta { upserts, removes: vec![] }))
}

fn settings(field: &str, reason: &str) -> Vec<Rejected> {
    vec![Rejected { resource: ResourceId::Settings.to_string(), field: field.into(), reason: reason.into() }]
}
