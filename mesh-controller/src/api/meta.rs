//! Meta: what we need of an object's metadata, and the envelope of a spec. It must not read a spec.

use mesh_core::{
    mesh::Uid,
    name::{NsName, Text, shared},
    records::Record,
};
use serde_json::Value;
use std::{cmp::Ordering, collections::BTreeMap};

/// An object: who it is and what it says.
#[derive(Clone, Debug, PartialEq)]
pub struct Object<S> {
    /// Its metadata.
    pub meta: Meta,
    /// Its spec (for kinds without a spec: what it holds).
    pub spec: S,
}

impl<S> Record for Object<S> {
    type Key = NsName;

    fn key(&self) -> NsName {
        self.meta.id()
    }

    fn compare(&self, key: &NsName) -> Ordering {
        (&self.meta.namespace, &self.meta.name).cmp(&(&key.namespace, &key.name))
    }
}

/// What we need of `metadata`.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Meta {
    /// `namespace`, empty for cluster-scoped kinds.
    pub namespace: Text,
    /// `name`.
    pub name: Text,
    /// `uid`.
    pub uid: Uid,
    /// `generation`; every condition carries it as observedGeneration.
    pub generation: i64,
    /// `creationTimestamp` in seconds since 1970; 0 if there is none.
    pub created: i64,
    /// `deletionTimestamp` is set.
    pub deleting: bool,
    /// `labels`.
    pub labels: BTreeMap<String, String>,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
}

impl Meta {
    /// Reads the `metadata` of an object; says the field that is wrong.
    pub fn read(object: &Value) -> Result<Self, (&'static str, String)> {
        let meta = &object["metadata"];
        let text = |field: &'static str, key: &str| match &meta[key] {
            Value::Null => Ok(String::new()),
            Value::String(s) => Ok(s.clone()),
            other => Err((field, format!("must be a string, not {other}"))),
        };
        let map = |field: &'static str, key: &str| match &meta[key] {
            Value::Null => Ok(BTreeMap::new()),
            Value::Object(map) => map
                .iter()
                .map(|(k, v)| match v {
                    Value::String(s) => Ok((k.clone(), s.clone())),
                    other => Err((field, format!("{k} must be a string, not {other}"))),
                })
                .collect(),
            other => Err((field, format!("must be an object, not {other}"))),
        };
        let name = text("metadata.name", "name")?;
        if name.is_empty() {
            return Err(("metadata.name", "is required".into()));
        }
        let created = match text("metadata.creationTimestamp", "creationTimestamp")? {
            t if t.is_empty() => 0,
            t => t
                .parse::<jiff::Timestamp>()
                .map_err(|e| ("metadata.creationTimestamp", format!("{t:?} is not a time: {e}")))?
                .as_second(),
        };
        Ok(Self {
            namespace: shared(&text("metadata.namespace", "namespace")?),
            name: shared(&name),
            uid: text("metadata.uid", "uid")?.into(),
            generation: meta["generation"].as_i64().unwrap_or(0),
            created,
            deleting: !meta["deletionTimestamp"].is_null(),
            labels: map("metadata.labels", "labels")?,
            annotations: map("metadata.annotations", "annotations")?,
        })
    }

    /// Namespace and name.
    pub fn id(&self) -> NsName {
        NsName::new(self.namespace.clone(), self.name.clone())
    }
}
