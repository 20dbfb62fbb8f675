//! Statuses: what the planner says of each object, with the times that the API asks for and beside what others say. It must not decide what a status says.

mod cluster;
mod file;
mod merge;

pub use cluster::{ClusterStatuses, Metrics as ClusterMetrics, adopt, programmed};
pub use file::StatusFile;

use crate::{
    inventory::{Key, Kind},
    plan::status::Status,
    source::Problem,
};
use mesh_core::name::NsName;
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// What a plan says of objects, new and changed; none: the object is no longer there or no longer ours.
pub type Said = BTreeMap<Key, Option<Arc<Status>>>;

/// Where statuses go. It takes them at once and writes in its own time: the planner never waits for it.
pub trait Sink: Send + Sync {
    /// A batch was planned: the source shows these objects (none: gone), this is said of them, and all this is wrong at the source.
    fn take(&self, shown: &[(Key, Option<Arc<Value>>)], said: &Said, problems: Vec<Problem>);

    /// Problems as they are now.
    fn problems(&self) -> Vec<Problem>;
}

/// The statuses of all our objects as they are to be written.
#[derive(Debug, Default)]
pub struct Statuses {
    /// What we say, with times.
    ours: BTreeMap<Key, Entry>,
    /// What a former run of this controller said; for its times.
    former: BTreeMap<Key, Value>,
    /// `.status` as the source has it, with what other controllers say.
    observed: BTreeMap<Key, Value>,
}

/// Cheap to clone, so that the planner does not wait while a file is written.
#[derive(Clone, Debug)]
struct Entry {
    generation: i64,
    status: Arc<Value>,
}

impl Statuses {
    /// Goes on with the times of a former run, from what it wrote. What cannot be read is as if it had not been: times begin anew.
    pub fn resume(document: &str) -> Self {
        let document: Value = serde_json::from_str(document).unwrap_or_default();
        let objects = document["objects"].as_array().map_or(&[][..], Vec::as_slice);
        let read = |object: &Value| {
            let text = |field: &str| object[field].as_str().unwrap_or_default().to_owned();
            let kind = Kind::of(&text("apiVersion"), &text("kind"))?;
            Some((Key::new(kind, NsName::new(text("namespace"), text("name"))), object["status"].clone()))
        };
        Self { former: objects.iter().filter_map(read).collect(), ..Self::default() }
    }

    /// The source shows an object with this `.status`; none: it is gone.
    pub fn observe(&mut self, key: &Key, status: Option<&Value>) {
        match status.filter(|status| !status.is_null()) {
            Some(status) => self.observed.insert(key.clone(), status.clone()),
            None => self.observed.remove(key),
        };
    }

    /// The planner's new statuses, at `now` (RFC 3339).
    pub fn apply(&mut self, said: &Said, now: &str) {
        for (key, status) in said {
            let Some(status) = status else {
                self.ours.remove(key);
                continue;
            };
            let before = self.ours.get(key).map(|e| &*e.status).or(self.former.get(key)).unwrap_or(&Value::Null);
            let others = self.observed.get(key).unwrap_or(&Value::Null);
            let merged = merge::merge(status.to_json(), before, others, now);
            self.former.remove(key);
            self.ours.insert(key.clone(), Entry { generation: status.generation, status: Arc::new(merged) });
        }
    }

    /// The status of an object.
    pub fn status(&self, key: &Key) -> Option<&Value> {
        self.ours.get(key).map(|entry| &*entry.status)
    }

    /// What is to be written, apart from what changes it.
    fn snapshot(&self) -> Vec<(Key, Entry)> {
        self.ours.iter().map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }
}

/// Whole seconds, as `metav1.Time` writes them.
fn now() -> String {
    let now = jiff::Timestamp::now();
    // Cut off, not rounded: a time that is yet to come would be odd.
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// The document that `--status-file` holds.
fn document(objects: &[(Key, Entry)], problems: &[Problem]) -> Value {
    let object = |(key, entry): &(Key, Entry)| {
        json!({
            "apiVersion": key.kind.api_version(),
            "kind": key.kind.as_str(),
            "namespace": &*key.name.namespace,
            "name": &*key.name.name,
            "generation": entry.generation,
            "status": *entry.status,
        })
    };
    json!({ "objects": objects.iter().map(object).collect::<Value>(), "problems": problems })
}

#[cfg(test)]
mod tests;
