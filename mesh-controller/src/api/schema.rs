//! What an API server does with an object of a CRD before it stores it: fills in defaults and checks the structural schema. It must not judge meaning across objects.

use regex::Regex;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Write, sync::LazyLock};

/// A kind that is defined by a CRD.
#[derive(Debug, Deserialize)]
pub struct CrdKind {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Plural, as in URLs.
    pub plural: String,
    /// Versions that are served.
    pub versions: Vec<String>,
    /// The version whose schema this is, and which statuses are written in.
    pub preferred: String,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    schema: Schema,
    /// Schemas of versions that differ from the preferred one.
    others: BTreeMap<String, Schema>,
}

/// A field that an API server would refuse, by its path, such as `spec.rules[0].matches[1].path.value`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// Path of the field.
    pub field: String,
    /// Why it is refused.
    pub reason: String,
}

/// All kinds of CRDs that we read.
pub fn kinds() -> &'static [CrdKind] {
    static KINDS: LazyLock<Vec<CrdKind>> = LazyLock::new(|| {
        serde_json::from_str(include_str!("generated/schemas.json"))
            .expect("generated together with this reader, and a test reads it")
    });
    &KINDS
}

/// The kind of an `apiVersion` and `kind`, if it is one of ours in a version that is served.
pub fn kind_of(api_version: &str, kind: &str) -> Option<&'static CrdKind> {
    let (group, version) = api_version.split_once('/')?;
    kinds().iter().find(|k| k.kind == kind && k.group == group && k.versions.iter().any(|v| v == version))
}

impl CrdKind {
    /// Fills in the defaults of the CRD, then checks what the structural schema asks for; all flaws at once, in the order of the object.
    pub fn admit(&self, object: &mut Value) -> Vec<Flaw> {
        let version = object["apiVersion"].as_str().and_then(|v| v.rsplit('/').next());
        let schema = version.and_then(|v| self.others.get(v)).unwrap_or(&self.schema);
        schema.fill(object);
        let mut flaws = Vec::new();
        let mut path = String::new();
        if let Some(spec) = object.get("spec") {
            path.push_str("spec");
            schema.properties["spec"].check(spec, &mut path, &mut flaws);
        } else if !schema.required.is_empty() {
            flaws.push(Flaw { field: "spec".into(), reason: "is required".into() });
        }
        flaws
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schema {
    #[serde(rename = "type")]
    kind: Type,
    default: Option<Value>,
    #[serde(default)]
    required: Vec<String>,
    #[serde(default, rename = "enum")]
    allowed: Vec<Value>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    max_properties: Option<usize>,
    #[serde(default, deserialize_with = "pattern")]
    pattern: Option<Regex>,
    #[serde(default)]
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
    additional_properties: Option<Box<Schema>>,
    #[serde(rename = "x-kubernetes-list-type")]
    list: Option<ListType>,
    #[serde(default, rename = "x-kubernetes-list-map-keys")]
    keys: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Type {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ListType {
    Map,
    Set,
}

fn pattern<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Regex>, D::Error> {
    let source = Option::<String>::deserialize(input)?;
    source.map(|s| Regex::new(&s).map_err(serde::de::Error::custom)).transpose()
}

impl Schema {
    /// Defaults are filled in where a field is absent, outside in, as the API server does.
    fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (name, schema) in &self.properties {
                    // "null values for fields that … have a default … are pruned before defaulting" (structural schemas).
                    if schema.default.is_some() && map.get(name).is_some_and(Value::is_null) {
                        map.remove(name);
                    }
                    match map.get_mut(name) {
                        Some(field) => schema.fill(field),
                        None => {
                            if let Some(default) = &schema.default {
                                let mut default = default.clone();
                                schema.fill(&mut default);
                                map.insert(name.clone(), default);
                            }
                        }
                    }
                }
                if let Some(schema) = &self.additional_properties {
                    map.values_mut().for_each(|field| schema.fill(field));
                }
            }
            Value::Array(list) => {
                if let Some(schema) = &self.items {
                    list.iter_mut().for_each(|item| schema.fill(item));
                }
            }
            _ => {}
        }
    }

    fn check(&self, value: &Value, path: &mut String, flaws: &mut Vec<Flaw>) {
        let mut flaw = |reason: String| flaws.push(Flaw { field: path.clone(), reason });
        match (self.kind, value) {
            (Type::Object, Value::Object(map)) => return self.check_object(map, path, flaws),
            (Type::Array, Value::Array(list)) => return self.check_list(list, path, flaws),
            (Type::String, Value::String(s)) => {
                let length = s.chars().count();
                if self.min_length.is_some_and(|min| length < min) {
                    flaw(format!("must have at least {} characters", self.min_length.unwrap_or(0)));
                }
                if self.max_length.is_some_and(|max| length > max) {
                    flaw(format!("must have at most {} characters", self.max_length.unwrap_or(0)));
                }
                if let Some(pattern) = &self.pattern
                    && !pattern.is_match(s)
                {
                    flaw(format!("{s:?} does not match {pattern}"));
                }
            }
            (Type::Integer, Value::Number(n)) if n.is_i64() || n.is_u64() => self.check_number(n, &mut flaw),
            (Type::Number, Value::Number(n)) => self.check_number(n, &mut flaw),
            (Type::Boolean, Value::Bool(_)) => {}
            (wanted, other) => return flaw(format!("must be {}, not {}", wanted.article(), shown(other))),
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let all: Vec<String> = self.allowed.iter().map(plain).collect();
            flaw(format!("{} is not one of {}", shown(value), all.join(", ")));
        }
    }

    fn check_number(&self, n: &serde_json::Number, flaw: &mut impl FnMut(String)) {
        let n = n.as_f64().unwrap_or(f64::NAN);
        if let Some(min) = self.minimum
            && n < min
        {
            flaw(format!("must be at least {min}, not {n}"));
        }
        if let Some(max) = self.maximum
            && n > max
        {
            flaw(format!("must be at most {max}, not {n}"));
        }
    }

    fn check_object(&self, map: &Map<String, Value>, path: &mut String, flaws: &mut Vec<Flaw>) {
        for name in self.required.iter().filter(|name| !map.contains_key(*name)) {
            flaws.push(Flaw { field: format!("{path}.{name}"), reason: "is required".into() });
        }
        if self.max_properties.is_some_and(|max| map.len() > max) {
            let reason = format!("must have at most {} entries", self.max_properties.unwrap_or(0));
            flaws.push(Flaw { field: path.clone(), reason });
        }
        for (name, field) in map {
            let length = path.len();
            let _ = write!(path, ".{name}");
            match self.properties.get(name).or(self.additional_properties.as_deref()) {
                // A null is an absent field.
                Some(_) if field.is_null() => {}
                Some(schema) => schema.check(field, path, flaws),
                None => flaws.push(Flaw { field: path.clone(), reason: "is not a field of this kind".into() }),
            }
            path.truncate(length);
        }
    }

    fn check_list(&self, list: &[Value], path: &mut String, flaws: &mut Vec<Flaw>) {
        if self.min_items.is_some_and(|min| list.len() < min) {
            let reason = format!("must have at least {} items", self.min_items.unwrap_or(0));
            flaws.push(Flaw { field: path.clone(), reason });
        }
        if self.max_items.is_some_and(|max| list.len() > max) {
            let reason = format!("must have at most {} items", self.max_items.unwrap_or(0));
            flaws.push(Flaw { field: path.clone(), reason });
            return;
        }
        for (index, item) in list.iter().enumerate() {
            let length = path.len();
            let _ = write!(path, "[{index}]");
            let same = |other: &Value| match self.list {
                Some(ListType::Set) => other == item,
                Some(ListType::Map) => self.keys.iter().all(|key| other.get(key) == item.get(key)),
                None => false,
            };
            if list[..index].iter().any(same) {
                flaws.push(Flaw { field: path.clone(), reason: "is there twice".into() });
            }
            if let Some(schema) = &self.items {
                schema.check(item, path, flaws);
            }
            path.truncate(length);
        }
    }
}

impl Type {
    const fn article(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "a list",
            Self::String => "a string",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::Boolean => "true or false",
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A value in a message, cut so that a message stays a line.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "an object".into(),
        Value::Array(_) => "a list".into(),
        other => {
            let text = other.to_string();
            if text.chars().count() > 80 { text.chars().take(80).chain("…".chars()).collect() } else { text }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_kind_of_the_crds_is_known_in_all_its_versions() {
        let names: Vec<&str> = kinds().iter().map(|k| &*k.kind).collect();
        assert_eq!(
            names,
            [
                "GatewayClass",
                "Gateway",
                "ListenerSet",
                "HTTPRoute",
                "GRPCRoute",
                "TLSRoute",
                "TCPRoute",
                "UDPRoute",
                "ReferenceGrant",
                "BackendTLSPolicy",
                "XMesh",
                "XBackendTrafficPolicy",
                "MeshParameters"
            ]
        );
        for (version, kind) in [
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
            ("gateway.networking.k8s.io/v1alpha2", "TLSRoute"),
            ("gateway.networking.x-k8s.io/v1alpha1", "XMesh"),
            ("heddle.dev/v1alpha1", "MeshParameters"),
        ] {
            assert!(kind_of(version, kind).is_some(), "{version} {kind}");
        }
        assert!(kind_of("gateway.networking.k8s.io/v9", "HTTPRoute").is_none());
        assert!(kind_of("v1", "Service").is_none());
    }

    #[test]
    fn what_an_api_server_defaults_is_defaulted() {
        let mut route =
            json!({"spec": {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "a", "port": 80}]}]}});
        assert_eq!(kind_of("gateway.networking.k8s.io/v1", "HTTPRoute").unwrap().admit(&mut route), []);
        assert_eq!(
            route["spec"],
            json!({
                "parentRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gw"}],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
                    "backendRefs": [{"group": "", "kind": "Service", "name": "a", "port": 80, "weight": 1}],
                }]
            })
        );
        let mut gateway =
            json!({"spec": {"gatewayClassName": "c", "listeners": [{"name": "h", "port": 80, "protocol": "HTTP"}]}});
        assert_eq!(kind_of("gateway.networking.k8s.io/v1", "Gateway").unwrap().admit(&mut gateway), []);
        assert_eq!(gateway["spec"]["listeners"][0]["allowedRoutes"], json!({"namespaces": {"from": "Same"}}));
        let mut mesh = json!({"spec": {}});
        assert_eq!(kind_of("heddle.dev/v1alpha1", "MeshParameters").unwrap().admit(&mut mesh), []);
        assert_eq!((&mesh["spec"]["mode"], &mesh["spec"]["limits"]["handshake"]), (&json!("Strict"), &json!("10s")));
    }

    #[test]
    fn a_flaw_names_the_field_and_the_reason() {
        let mut route = json!({"spec": {
            "parentRefs": [{"name": "gw", "port": 70000}],
            "ruls": [],
            "rules": [{"matches": [{"path": {"type": "Glob", "value": "/"}}, {"headers": [{"name": "a", "value": "1"}, {"name": "a", "value": "2"}]}],
                "timeouts": {"request": "5"}, "backendRefs": [{"port": "80"}]}],
        }});
        let flaws = kind_of("gateway.networking.k8s.io/v1", "HTTPRoute").unwrap().admit(&mut route);
        let flaws: Vec<String> = flaws.iter().map(|f| format!("{} {}", f.field, f.reason)).collect();
        assert_eq!(
            flaws,
            [
                "spec.parentRefs[0].port must be at most 65535, not 70000",
                "spec.rules[0].backendRefs[0].name is required",
                "spec.rules[0].backendRefs[0].port must be an integer, not \"80\"",
                "spec.rules[0].matches[0].path.type \"Glob\" is not one of Exact, PathPrefix, RegularExpression",
                "spec.rules[0].matches[1].headers[1] is there twice",
                "spec.rules[0].timeouts.request \"5\" does not match ^([0-9]{1,5}(h|m|s|ms)){1,4}$",
                "spec.ruls is not a field of this kind",
            ]
        );
        let mut old = json!({"apiVersion": "gateway.networking.k8s.io/v1alpha2", "spec": {"rules": [{"backendRefs": [{"name": "a"}]}]}});
        let tls = kind_of("gateway.networking.k8s.io/v1", "TLSRoute").unwrap();
        assert_eq!(tls.admit(&mut old), []);
        old["apiVersion"] = "gateway.networking.k8s.io/v1".into();
        assert_eq!(tls.admit(&mut old), [Flaw { field: "spec.hostnames".into(), reason: "is required".into() }]);
        let mut class = json!({"metadata": {"name": "x"}});
        let flaws = kind_of("gateway.networking.k8s.io/v1", "GatewayClass").unwrap().admit(&mut class);
        assert_eq!(flaws, [Flaw { field: "spec".into(), reason: "is required".into() }]);
    }
}
