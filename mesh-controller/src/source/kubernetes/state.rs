//! What the kinds say together: which objects there are, and all problems. Pure. It must not speak to an API server.

use crate::{
    inventory::{Kind, observe},
    source::{
        Batch, Change, ObjectKey, Problem,
        admission::{Admitted, admit},
    },
};
use mesh_core::{
    name::{NsName, shared},
    records::Records,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What a follower says of its kind.
#[derive(Debug)]
pub(super) enum Event {
    /// These are all objects there are.
    Listed(Kind, Vec<Read>),
    /// The kind does not exist here; so none of its objects does.
    Absent(Kind),
    /// An object is now this.
    Set(Kind, Read),
    /// An object is no more.
    Gone(Kind, ObjectKey),
    /// The kind cannot be read now, and why; what was known of it stays.
    Trouble(Kind, String),
    /// It can be read (again).
    Well(Kind),
}

/// An object as it was read.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) key: ObjectKey,
    /// Admitted, as a change; or all that is wrong with it.
    pub(super) object: Result<Change, Vec<Problem>>,
}

/// Kinds whose documents nobody looks at but to read them: no status of ours goes there.
const READ_ONLY: [Kind; 4] = [Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Secret];

impl Read {
    /// Reads an object that was trimmed.
    pub(super) fn new(kind: Kind, mut object: Value) -> Self {
        // An API server gives every object a name; what is told of one without is still told.
        let key = named(kind, &object);
        let problem = |field, reason| Problem { file: String::new(), line: 0, object: key.to_string(), field, reason };
        let object = match admit(&mut object) {
            Ok(Admitted::Yes(admitted)) if admitted == key => match READ_ONLY.contains(&kind).then(|| observe(&object))
            {
                Some(Ok(observed)) => Ok(Change::Read(key.clone(), Box::new(observed))),
                _ => Ok(Change::Upsert(key.clone(), Arc::new(object))),
            },
            Ok(_) => Err(vec![problem("metadata".into(), format!("is not of a {kind}"))]),
            Err(denied) => Err(denied.flaws.into_iter().map(|f| problem(f.field, f.reason)).collect()),
        };
        Self { key, object }
    }
}

/// The name of an object of a kind.
pub(super) fn named(kind: Kind, object: &Value) -> ObjectKey {
    let text = |field: &str| shared(object["metadata"][field].as_str().unwrap_or_default());
    key(kind, NsName::new(if kind.namespaced() { text("namespace") } else { "".into() }, text("name")))
}

fn key(kind: Kind, NsName { namespace, name }: NsName) -> ObjectKey {
    ObjectKey { group: shared(kind.group()), kind: shared(kind.as_str()), namespace, name }
}

/// Among those of its kind.
fn name(key: &ObjectKey) -> NsName {
    NsName::new(key.namespace.clone(), key.name.clone())
}

/// The sum of all kinds.
pub(super) struct State {
    /// Kinds that have not been listed yet.
    waiting: BTreeSet<Kind>,
    /// Objects that we said are there.
    known: BTreeMap<Kind, Records<NsName>>,
    broken: BTreeMap<ObjectKey, Vec<Problem>>,
    troubles: BTreeMap<Kind, String>,
    /// Since the last batch; each object once, the newest counts.
    changes: BTreeMap<ObjectKey, Change>,
    /// Problems as they were said last; none: nothing was said yet.
    said: Option<Vec<Problem>>,
}

impl State {
    /// Nothing was said yet.
    pub(super) fn new(kinds: impl IntoIterator<Item = Kind>) -> Self {
        Self {
            waiting: kinds.into_iter().collect(),
            known: BTreeMap::new(),
            broken: BTreeMap::new(),
            troubles: BTreeMap::new(),
            changes: BTreeMap::new(),
            said: None,
        }
    }

    /// Takes in what a follower says.
    pub(super) fn take(&mut self, event: Event) {
        match event {
            Event::Listed(kind, objects) => {
                self.waiting.remove(&kind);
                let listed: BTreeSet<ObjectKey> = objects.iter().map(|read| read.key.clone()).collect();
                self.only(kind, &listed);
                for read in objects {
                    self.set(kind, read);
                }
                self.well(kind);
            }
            Event::Absent(kind) => {
                self.waiting.remove(&kind);
                self.only(kind, &BTreeSet::new());
                self.well(kind);
            }
            Event::Set(kind, read) => self.set(kind, read),
            Event::Gone(kind, key) => self.gone(kind, key),
            Event::Trouble(kind, reason) => {
                self.troubles.insert(kind, reason);
            }
            Event::Well(kind) => self.well(kind),
        }
    }

    /// What is different since the last call; none: nothing is, or some kind was not listed yet. That a cluster is empty is worth a first batch.
    pub(super) fn settle(&mut self) -> Option<Batch> {
        if !self.waiting.is_empty() {
            return None;
        }
        let troubles = self.troubles.iter().map(|(kind, reason)| Problem {
            file: String::new(),
            line: 0,
            object: kind.to_string(),
            field: String::new(),
            reason: reason.clone(),
        });
        let mut problems: Vec<Problem> = self.broken.values().flatten().cloned().chain(troubles).collect();
        problems.sort();
        if self.changes.is_empty() && self.said.as_ref() == Some(&problems) {
            return None;
        }
        self.said = Some(problems.clone());
        Some(Batch { changes: std::mem::take(&mut self.changes).into_values().collect(), problems })
    }

    fn set(&mut self, kind: Kind, Read { key, object }: Read) {
        match object {
            Ok(change) => {
                self.broken.remove(&key);
                self.known.entry(kind).or_default().insert(name(&key));
                self.changes.insert(key, change);
            }
            // It keeps its last good state.
            Err(problems) => {
                self.broken.insert(key, problems);
            }
        }
    }

    fn gone(&mut self, kind: Kind, key: ObjectKey) {
        self.broken.remove(&key);
        if self.known.entry(kind).or_default().remove(&name(&key)).is_some() {
            self.changes.insert(key.clone(), Change::Remove(key));
        }
    }

    /// All others of a kind are gone.
    fn only(&mut self, kind: Kind, there: &BTreeSet<ObjectKey>) {
        let known = self.known.get(&kind).into_iter().flat_map(Records::iter).map(|name| key(kind, name.clone()));
        let broken = self.broken.keys().filter(|key| &*key.kind == kind.as_str()).cloned();
        let gone: BTreeSet<ObjectKey> = known.chain(broken).filter(|key| !there.contains(key)).collect();
        for key in gone {
            self.gone(kind, key);
        }
    }

    fn well(&mut self, kind: Kind) {
        self.troubles.remove(&kind);
    }
}
