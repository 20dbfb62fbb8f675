//! What the files of the folders say together: the newest good state of each object, and all problems. Pure. It must not read files.

use super::yaml;
use crate::{
    api::schema::Flaw,
    source::{
        Batch, Change, ObjectKey, Problem,
        admission::{Admitted, admit},
    },
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// A file: which of the folders, and how it is shown to people. Sorted, so that the order of folders and paths decides.
pub(super) type Place = (usize, Arc<str>);

/// The sum of all files.
#[derive(Default)]
pub(super) struct State {
    files: BTreeMap<Place, File>,
    /// Who has a document of an object.
    sources: BTreeMap<ObjectKey, BTreeMap<Place, Found>>,
    /// Who has a broken document of an object.
    broken: BTreeMap<ObjectKey, BTreeSet<Place>>,
    current: BTreeMap<ObjectKey, Current>,
    dirty: BTreeSet<ObjectKey>,
    /// Files with problems, and objects with several documents: what all problems are made of.
    troubled: BTreeSet<Place>,
    several: BTreeSet<ObjectKey>,
}

#[derive(Default)]
struct File {
    objects: BTreeSet<ObjectKey>,
    broken: BTreeSet<ObjectKey>,
    problems: Vec<Problem>,
}

struct Found {
    line: u64,
    object: Arc<Value>,
}

/// What we said last of an object.
struct Current {
    /// As it was admitted.
    object: Arc<Value>,
    generation: i64,
}

impl State {
    /// A file says this now; or it cannot be read, and why.
    pub(super) fn set(&mut self, place: &Place, text: Result<&str, String>) {
        let mut reading = Reading {
            file: &place.1,
            objects: BTreeMap::new(),
            broken: BTreeSet::new(),
            opaque: false,
            problems: Vec::new(),
        };
        match text {
            Err(reason) => reading.unreadable(0, reason),
            // An editor or a script that empties a file is about to fill it again.
            Ok(text) if text.trim().is_empty() && self.files.get(place).is_some_and(|f| !f.objects.is_empty()) => {
                reading.unreadable(
                    0,
                    "is empty; its objects stay as they were until it says something or is deleted".into(),
                );
            }
            Ok(text) => reading.read(text),
        }
        let Reading { mut objects, broken, opaque, problems, .. } = reading;
        let before = self.files.remove(place).unwrap_or_default();
        for key in &before.objects {
            let Some(found) = self.take(key, place) else { continue };
            // A document that does not even name its object may be any of those that were here.
            if (opaque || broken.contains(key)) && !objects.contains_key(key) {
                objects.insert(key.clone(), found);
            }
        }
        for key in before.broken.difference(&broken) {
            self.unbreak(key, place);
        }
        for key in &broken {
            self.broken.entry(key.clone()).or_default().insert(place.clone());
            self.dirty.insert(key.clone());
        }
        if problems.is_empty() {
            self.troubled.remove(place);
        } else {
            self.troubled.insert(place.clone());
        }
        let file = File { objects: objects.keys().cloned().collect(), broken, problems };
        for (key, found) in objects {
            self.dirty.insert(key.clone());
            self.sources.entry(key).or_default().insert(place.clone(), found);
        }
        self.files.insert(place.clone(), file);
    }

    /// A file is gone, and what it said with it.
    pub(super) fn remove(&mut self, place: &Place) {
        let Some(file) = self.files.remove(place) else { return };
        self.troubled.remove(place);
        for key in &file.objects {
            self.take(key, place);
        }
        for key in &file.broken {
            self.unbreak(key, place);
        }
    }

    /// Whether a file is known.
    pub(super) fn contains(&self, place: &Place) -> bool {
        self.files.contains_key(place)
    }

    /// All files of a folder.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.files.keys()
    }

    /// What changed since the last call, and all problems there are.
    pub(super) fn settle(&mut self) -> Batch {
        let mut changes = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            if self.sources.get(&key).is_some_and(|found| found.len() > 1) {
                self.several.insert(key.clone());
            } else {
                self.several.remove(&key);
            }
            let best = self.sources.get(&key).and_then(best);
            let now = self.current.get(&key);
            match (best, now) {
                // What is broken somewhere stays as it is, wherever its last good state came from.
                (_, Some(_)) if self.broken.contains_key(&key) => {}
                (Some(object), Some(current)) if current.object == object => {}
                (Some(object), current) => {
                    let generation = match current {
                        Some(c) if same_meaning(&c.object, &object) => c.generation,
                        Some(c) => c.generation + 1,
                        None => 1,
                    };
                    changes.push(Change::Upsert(key.clone(), stamped(&object, generation)));
                    self.current.insert(key, Current { object, generation });
                }
                (None, Some(_)) => {
                    self.current.remove(&key);
                    changes.push(Change::Remove(key));
                }
                (None, None) => {}
            }
        }
        Batch { changes, problems: self.problems() }
    }

    fn problems(&self) -> Vec<Problem> {
        let files = self.troubled.iter().filter_map(|place| self.files.get(place));
        let mut problems: Vec<Problem> = files.flat_map(|f| f.problems.iter().cloned()).collect();
        // An object in a later folder replaces that of an earlier one; twice in one folder is a mistake.
        for (key, found) in self.several.iter().filter_map(|key| self.sources.get_key_value(key)) {
            let mut first: Option<(&Place, &Found)> = None;
            for (place, here) in found {
                match first {
                    Some((at, there)) if at.0 == place.0 => problems.push(Problem {
                        file: place.1.to_string(),
                        line: here.line,
                        object: key.to_string(),
                        field: String::new(),
                        reason: format!("is also defined at {}:{}, which counts", at.1, there.line),
                    }),
                    _ => first = Some((place, here)),
                }
            }
        }
        problems.sort();
        problems
    }

    fn take(&mut self, key: &ObjectKey, place: &Place) -> Option<Found> {
        self.dirty.insert(key.clone());
        let found = self.sources.get_mut(key)?;
        let taken = found.remove(place);
        if found.is_empty() {
            self.sources.remove(key);
        }
        taken
    }

    fn unbreak(&mut self, key: &ObjectKey, place: &Place) {
        self.dirty.insert(key.clone());
        if let Some(places) = self.broken.get_mut(key) {
            places.remove(place);
            if places.is_empty() {
                self.broken.remove(key);
            }
        }
    }
}

/// The last folder counts, and in it the first file.
fn best(found: &BTreeMap<Place, Found>) -> Option<Arc<Value>> {
    let (last, _) = found.last_key_value()?;
    found.iter().find(|(place, _)| place.0 == last.0).map(|(_, found)| found.object.clone())
}

/// Whether nothing but metadata and status differs: then the generation stays, as with an API server.
fn same_meaning(a: &Value, b: &Value) -> bool {
    let says = |v: &Value| -> BTreeMap<String, Value> {
        let fields = v.as_object().into_iter().flatten();
        fields.filter(|(k, _)| *k != "metadata" && *k != "status").map(|(k, v)| (k.clone(), v.clone())).collect()
    };
    says(a) == says(b)
}

/// The object with a generation, unless its author keeps one.
fn stamped(object: &Arc<Value>, generation: i64) -> Arc<Value> {
    if !object["metadata"]["generation"].is_null() {
        return object.clone();
    }
    let mut stamped = Value::clone(object);
    stamped["metadata"]["generation"] = generation.into();
    Arc::new(stamped)
}

/// One file being read.
struct Reading<'a> {
    file: &'a str,
    objects: BTreeMap<ObjectKey, Found>,
    broken: BTreeSet<ObjectKey>,
    /// Some document did not get as far as to name its object.
    opaque: bool,
    problems: Vec<Problem>,
}

impl Reading<'_> {
    fn read(&mut self, text: &str) {
        for document in yaml::documents(text) {
            match yaml::parse(document.text) {
                Ok(Value::Null) => {}
                Ok(list) if list["kind"] == "List" && list["apiVersion"] == "v1" => self.list(&document, list),
                Ok(object) => self.object(&document, "", object),
                Err(syntax) => {
                    let key = yaml::guess(document.text);
                    let line = document.line + syntax.line - 1;
                    self.problem(line, key.as_ref(), String::new(), syntax.reason);
                    self.opaque |= key.is_none();
                    self.broken.extend(key);
                }
            }
        }
    }

    /// What `kubectl get -o yaml` prints.
    fn list(&mut self, document: &yaml::Document<'_>, mut list: Value) {
        let Value::Array(items) = list["items"].take() else {
            return self.unreadable(document.line, "a List must have items".into());
        };
        for (i, item) in items.into_iter().enumerate() {
            self.object(document, &format!("items[{i}]."), item);
        }
    }

    fn object(&mut self, document: &yaml::Document<'_>, prefix: &str, mut object: Value) {
        let line_of = |field: &str| document.line + yaml::line_of(document.text, field).max(1) - 1;
        match admit(&mut object) {
            Ok(Admitted::Yes(key)) => {
                let line = document.line;
                if let Some(there) = self.objects.get(&key) {
                    let reason = format!("is also defined at {}:{}, which counts", self.file, there.line);
                    let line = line_of(&format!("{prefix}metadata.name"));
                    self.problem(line, Some(&key), String::new(), reason);
                } else {
                    let line = if prefix.is_empty() { line } else { line_of(prefix.trim_end_matches('.')) };
                    self.objects.insert(key, Found { line, object: Arc::new(object) });
                }
            }
            Ok(Admitted::Foreign(key)) => {
                // The playground runs Deployments; the mesh reads their pods.
                if !(&*key.group == "apps" && matches!(&*key.kind, "Deployment" | "ReplicaSet")) {
                    let line = line_of(&format!("{prefix}kind"));
                    let reason = "is of a kind that the mesh does not read; it is left alone".into();
                    self.problem(line, Some(&key), String::new(), reason);
                }
            }
            Err(denied) => {
                for Flaw { field, reason } in denied.flaws {
                    let line = line_of(&format!("{prefix}{field}"));
                    self.problem(line, denied.key.as_ref(), field, reason);
                }
                self.opaque |= denied.key.is_none();
                self.broken.extend(denied.key);
            }
        }
    }

    fn unreadable(&mut self, line: u64, reason: String) {
        self.problem(line, None, String::new(), reason);
        self.opaque = true;
    }

    fn problem(&mut self, line: u64, key: Option<&ObjectKey>, field: String, reason: String) {
        let object = key.map(ObjectKey::to_string).unwrap_or_default();
        self.problems.push(Problem { file: self.file.into(), line, object, field, reason });
    }
}

#[cfg(test)]
mod tests;
