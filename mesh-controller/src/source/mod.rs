//! Sources: where objects come from, and the one form in which all of them say what changed. It must not judge meaning across objects.

pub mod admission;
pub mod folder;
pub mod kubernetes;

use crate::inventory::Observed;
use mesh_core::name::Text;
use serde::Serialize;
use serde_json::Value;
use std::{fmt, sync::Arc};

/// Where objects come from.
pub trait Source: Send {
    /// Waits for changes and says what they mean; the first time, it is all that there is. Blocks the thread; none: it was stopped.
    fn wait(&mut self) -> Option<Batch>;
}

/// Names an object in any source. Versions are no part of it: an object read in two versions is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// API group, empty for the core group.
    pub group: Text,
    /// Kind.
    pub kind: Text,
    /// Namespace, empty for cluster-scoped kinds.
    pub namespace: Text,
    /// Name.
    pub name: Text,
}

/// `HTTPRoute shop/cart` or `GatewayClass heddle`.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

/// One object came, changed or went. What is upserted has been admitted: defaults are filled in and its own fields hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is now this.
    Upsert(ObjectKey, Arc<Value>),
    /// The object is now this, read already: of a kind that nobody looks at otherwise. There are many of these, and a document weighs ten times
    /// as much as what is read of it.
    Read(ObjectKey, Box<Observed>),
    /// The object is no more.
    Remove(ObjectKey),
}

/// What is wrong with a document; the object that it meant keeps its last good state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// File, as it was named to us; a Kubernetes source has none.
    pub file: String,
    /// Line, from 1; 0 if it concerns the whole file.
    pub line: u64,
    /// The object, as [`ObjectKey`] writes itself; empty if the document does not get so far as to name one.
    pub object: String,
    /// Path of the field; empty if it concerns the whole document.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

/// `FILE:LINE: OBJECT: FIELD: REASON`, without the parts that are unknown.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        let mut between = if self.file.is_empty() { "" } else { ": " };
        for part in [&self.object, &self.field, &self.reason].into_iter().filter(|part| !part.is_empty()) {
            write!(f, "{between}{part}")?;
            between = ": ";
        }
        Ok(())
    }
}

/// What a source says at once: belongs together, is planned together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// What changed, each object at most once.
    pub changes: Vec<Change>,
    /// All problems that there are now, sorted; not only new ones.
    pub problems: Vec<Problem>,
}
