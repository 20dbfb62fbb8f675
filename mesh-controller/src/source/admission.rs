//! Admission: what an API server does with an object before it stores it. Names, defaults, and all that is wrong with it. It must not compare it with other objects.

mod core_kinds;
mod rules;

use super::ObjectKey;
use crate::{
    api::schema::{self, Flaw},
    inventory::{Kind, observe},
};
use regex::Regex;
use serde_json::Value;
use std::sync::LazyLock;

/// Where an object without a namespace goes, as with kubectl.
const DEFAULT_NAMESPACE: &str = "default";

/// An object that was not admitted.
#[derive(Debug, PartialEq)]
pub struct Denied {
    /// Which, if it says so much.
    pub key: Option<ObjectKey>,
    /// All that is wrong.
    pub flaws: Vec<Flaw>,
}

/// What became of an object.
#[derive(Debug, PartialEq)]
pub enum Admitted {
    /// It is one that the mesh reads; its defaults are filled in.
    Yes(ObjectKey),
    /// It is of a kind that the mesh does not read.
    Foreign(ObjectKey),
}

/// Fills in the defaults of an object, and names it or says all that is wrong with it.
pub fn admit(object: &mut Value) -> Result<Admitted, Denied> {
    let (key, kind) = name(object)?;
    let Some(kind) = kind else { return Ok(Admitted::Foreign(key)) };
    if kind.namespaced() && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = Value::String(key.namespace.to_string());
    }
    let mut flaws = metadata(object, &key, kind);
    let api_version = object["apiVersion"].as_str().unwrap_or_default().to_owned();
    if let Some(crd) = schema::kind_of(&api_version, kind.as_str()) {
        flaws.extend(crd.admit(object));
        // Rules across fields are only judged where the fields themselves hold.
        if flaws.is_empty() {
            flaws.extend(rules::check(kind, object));
        }
    } else {
        flaws.extend(core_kinds::admit(kind, object));
    }
    if flaws.is_empty()
        && let Err(unreadable) = observe(object)
    {
        flaws = unreadable.flaws;
    }
    if flaws.is_empty() { Ok(Admitted::Yes(key)) } else { Err(Denied { key: Some(key), flaws }) }
}

/// Which object this is, and its kind if the mesh reads it.
fn name(object: &Value) -> Result<(ObjectKey, Option<Kind>), Denied> {
    let denied = |field: &str, reason: &str| Denied {
        key: None,
        flaws: vec![Flaw { field: field.into(), reason: reason.into() }],
    };
    if !object.is_object() {
        return Err(denied("", "is not an object"));
    }
    let text = |field: &str, value: &Value| match value {
        Value::String(s) if !s.is_empty() => Ok(s.clone()),
        Value::Null | Value::String(_) => Err(denied(field, "is required")),
        _ => Err(denied(field, "must be a string")),
    };
    let api_version = text("apiVersion", &object["apiVersion"])?;
    let kind = text("kind", &object["kind"])?;
    let name = text("metadata.name", &object["metadata"]["name"])?;
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let known = Kind::of(&api_version, &kind);
    let ours = Kind::ALL.into_iter().find(|k| k.as_str() == kind && k.group() == group);
    let namespace = match (&object["metadata"]["namespace"], ours) {
        (_, Some(kind)) if !kind.namespaced() => "",
        (Value::String(s), _) if !s.is_empty() => s,
        (Value::Null | Value::String(_), Some(_)) => DEFAULT_NAMESPACE,
        (Value::Null | Value::String(_), None) => "",
        _ => return Err(denied("metadata.namespace", "must be a string")),
    };
    let key =
        ObjectKey { group: group.into(), kind: kind.as_str().into(), namespace: namespace.into(), name: name.into() };
    // A group of ours in a version that nobody serves is a mistake, not somebody else's object.
    if known.is_none() && ours.is_some() {
        let served = format!("{api_version} is not a version of {kind} that is served");
        return Err(Denied { key: Some(key), flaws: vec![Flaw { field: "apiVersion".into(), reason: served }] });
    }
    Ok((key, known))
}

static SUBDOMAIN: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"));
static LABEL: LazyLock<Regex> = LazyLock::new(|| regex(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"));
static SERVICE_LABEL: LazyLock<Regex> = LazyLock::new(|| regex(r"^[a-z]([-a-z0-9]*[a-z0-9])?$"));
static LABEL_KEY: LazyLock<Regex> =
    LazyLock::new(|| regex(r"^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"));
static LABEL_VALUE: LazyLock<Regex> = LazyLock::new(|| regex(r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"));

fn regex(source: &str) -> Regex {
    Regex::new(source).expect("a constant, compiled by a test")
}

/// Names and labels, by the rules of apimachinery (RFC 1123 and 1035 names).
fn metadata(object: &Value, key: &ObjectKey, kind: Kind) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    let mut flaw = |field: String, reason: String| flaws.push(Flaw { field, reason });
    let (rule, max, form) = match kind {
        Kind::Service => {
            (&SERVICE_LABEL, 63, "lower case letters, digits and '-', beginning with a letter, at most 63")
        }
        Kind::Namespace => (&LABEL, 63, "lower case letters, digits and '-', at most 63"),
        _ => (&SUBDOMAIN, 253, "lower case letters, digits, '-' and '.', at most 253"),
    };
    if key.name.len() > max || !rule.is_match(&key.name) {
        flaw("metadata.name".into(), format!("{:?} must consist of {form}", key.name));
    }
    if kind.namespaced() && (key.namespace.len() > 63 || !LABEL.is_match(&key.namespace)) {
        let reason = format!("{:?} must consist of lower case letters, digits and '-', at most 63", key.namespace);
        flaw("metadata.namespace".into(), reason);
    }
    let labels = object["metadata"]["labels"].as_object();
    for (name, value) in labels.into_iter().flatten() {
        if !LABEL_KEY.is_match(name) {
            flaw(format!("metadata.labels.{name}"), format!("{name:?} is not a label name"));
        }
        match value {
            Value::String(value) if LABEL_VALUE.is_match(value) => {}
            Value::String(value) => flaw(format!("metadata.labels.{name}"), format!("{value:?} is not a label value")),
            other => flaw(format!("metadata.labels.{name}"), format!("must be a string, not {other} (quote it)")),
        }
    }
    flaws
}

#[cfg(test)]
mod tests;
