//! What this proxy holds of its config: takes a delta as a whole or refuses it, naming object and field. Pure. It must not send or store.

use imbl::OrdSet;
use mesh_core::{
    mesh::Roots,
    node::{NodeDelta, Resource, ResourceId},
    records::{Record, Records},
    snapshot::Snapshot,
};
use mesh_wire::{MESSAGE_MAX, Rejected, decode_delta, encode, parse_resource_id, proto};
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of ids and versions that a Hello may hold, with room for the rest of the message.
const KNOWN_MAX: usize = MESSAGE_MAX / 2;

/// Bytes of an entry of a Hello beside its id, at most: tags and lengths, and a version of ten bytes.
const ENTRY: usize = 20;

/// Resources with their versions, and the snapshot compiled from them. Cheap to clone: everything is shared.
#[derive(Clone, Default)]
pub struct Held {
    resources: Records<Kept>,
    snapshot: Option<Arc<Snapshot>>,
    /// What a controller that says everything anew has not said yet.
    unsaid: Option<OrdSet<ResourceId>>,
}

/// A resource and the version that the controller gave it, not one of our own making: it is what the controller compares.
#[derive(Clone)]
struct Kept {
    version: u64,
    resource: Resource,
}

impl Record for Kept {
    type Key = ResourceId;

    fn key(&self) -> ResourceId {
        self.resource.id()
    }
}

impl Held {
    /// The snapshot, once the first synchronisation is complete.
    pub fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.snapshot.as_ref()
    }

    /// The roots of the mesh, once the controller has told them.
    pub fn roots(&self) -> Option<&Arc<Roots>> {
        match &self.resources.get(&ResourceId::Roots)?.resource {
            Resource::Roots(roots) => Some(roots),
            _ => None,
        }
    }

    /// What a `Hello` says that is known. Of more than fits into a message, it says nothing: everything comes anew then, and what has not come by
    /// the end of the synchronisation is no more.
    pub fn hello(&mut self) -> BTreeMap<String, u64> {
        self.hello_within(KNOWN_MAX)
    }

    fn hello_within(&mut self, most: usize) -> BTreeMap<String, u64> {
        let known = self.known();
        let fits = known.keys().map(|id| id.len() + ENTRY).sum::<usize>() <= most;
        self.unsaid = (!fits).then(|| self.resources.iter().map(Record::key).collect());
        if fits { known } else { BTreeMap::new() }
    }

    /// Id and version of everything that is held.
    pub fn known(&self) -> BTreeMap<String, u64> {
        self.resources.iter().map(|kept| (kept.key().to_string(), kept.version)).collect()
    }

    /// Everything that is held.
    pub fn resources(&self) -> impl Iterator<Item = (ResourceId, u64, &Resource)> {
        self.resources.iter().map(|kept| (kept.key(), kept.version, &kept.resource))
    }

    /// Takes a delta whole, or refuses it and stays as it was. Until the first synchronisation is complete there is no snapshot: half of a config
    /// would say "no route" where there is one.
    pub fn take(&mut self, delta: proto::Delta) -> Result<(), Vec<Rejected>> {
        // Decoding keeps the order.
        let versions: Vec<u64> = delta.upserts.iter().map(|r| r.version).collect();
        let synced = delta.synced;
        let mut change = decode_delta(delta).inspect_err(|rejected| {
            // It was said, and its last good state is kept.
            if let Some(unsaid) = &mut self.unsaid {
                rejected
                    .iter()
                    .filter_map(|r| parse_resource_id(&r.resource).ok())
                    .for_each(|id| drop(unsaid.remove(&id)));
            }
        })?;
        if let Some(unsaid) = &mut self.unsaid {
            change.upserts.iter().for_each(|resource| drop(unsaid.remove(&resource.id())));
            change.removes.iter().for_each(|id| drop(unsaid.remove(id)));
            if synced {
                change.removes.extend(std::mem::take(unsaid));
                self.unsaid = None;
            }
        }
        if change.removes.contains(&ResourceId::Settings) {
            return Err(settings("removes", "a proxy cannot be without settings"));
        }
        let mut resources = self.resources.clone();
        for (resource, version) in change.upserts.iter().zip(versions) {
            resources.insert(Kept { version, resource: resource.clone() });
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

    /// All of it as deltas of one resource each, to be taken one after another: the content of the cache file. Made one by one, as all together
    /// take several times the room of what they describe.
    pub fn export(&self) -> impl Iterator<Item = proto::Delta> {
        let upserts = self.resources.iter().map(|kept| {
            let resource = proto::Resource { version: kept.version, ..encode(&kept.resource) };
            proto::Delta { upserts: vec![resource], ..proto::Delta::default() }
        });
        upserts.chain([proto::Delta { synced: self.snapshot.is_some(), ..proto::Delta::default() }])
    }
}

fn compile(resources: &Records<Kept>) -> Result<Snapshot, Vec<Rejected>> {
    let settings_of = |kept: &Kept| match &kept.resource {
        Resource::Settings(settings) => Some(settings.clone()),
        _ => None,
    };
    let Some(known) = resources.get(&ResourceId::Settings).and_then(settings_of) else {
        return Err(settings("", "is missing in a config that is said to be complete"));
    };
    let upserts = resources.iter().map(|kept| kept.resource.clone()).collect();
    Ok(Snapshot::empty(known).with(&NodeDelta { upserts, removes: vec![] }))
}

fn settings(field: &str, reason: &str) -> Vec<Rejected> {
    vec![Rejected { resource: ResourceId::Settings.to_string(), field: field.into(), reason: reason.into() }]
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::{mesh::Service, name::NsName};

    fn service(name: &str) -> proto::Resource {
        let id = NsName::new("shop", name);
        encode(&Resource::Service(Arc::new(Service { id, addresses: vec![], ports: vec![] })))
    }

    fn settings() -> proto::Resource {
        let body = proto::MeshSettings {
            name: "heddle".into(),
            trust_domain: "cluster.local".into(),
            svid_lifetime_ns: 3_600_000_000_000,
            mode: proto::Mode::Strict.into(),
            access_log: proto::AccessLog::All.into(),
            limits: Some(proto::Limits {
                header_bytes: 65_536,
                streams_per_connection: 200,
                connections_per_pod: 20_000,
                replay_bytes: 65_536,
                handshake_ns: 10_000_000_000,
                idle_ns: 3_600_000_000_000,
                drain_ns: 30_000_000_000,
            }),
            tracing: None,
        };
        proto::Resource { id: "settings".into(), version: 1, body: Some(proto::resource::Body::Settings(body)) }
    }

    fn delta(upserts: Vec<proto::Resource>, synced: bool) -> proto::Delta {
        proto::Delta { nonce: 1, upserts, removes: vec![], synced }
    }

    fn names(held: &Held) -> Vec<String> {
        held.resources().map(|(id, ..)| id.to_string()).collect()
    }

    #[test]
    fn what_does_not_fit_into_a_hello_is_said_anew_and_what_is_not_said_is_gone() {
        let mut held = Held::default();
        let all = ["a", "b", "c"].map(service);
        held.take(delta([settings()].into_iter().chain(all).collect(), true)).unwrap();
        assert_eq!(held.hello().len(), 4, "all of it fits");
        assert!(held.hello_within(100).is_empty());
        // A controller that only now sees a fault in b: the proxy keeps what it had of it.
        let broken = proto::Resource { body: None, ..service("b") };
        held.take(delta(vec![service("a"), broken], false)).unwrap_err();
        held.take(delta(vec![settings(), service("a")], false)).unwrap();
        assert_eq!(names(&held), ["settings", "Service/shop/a", "Service/shop/b", "Service/shop/c"], "until the end");
        held.take(delta(vec![], true)).unwrap();
        assert_eq!(names(&held), ["settings", "Service/shop/a", "Service/shop/b"]);
        let snapshot = held.snapshot().unwrap();
        assert!(snapshot.service(&NsName::new("shop", "c")).is_none());
    }
}
