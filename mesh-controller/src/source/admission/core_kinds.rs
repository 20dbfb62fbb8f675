//! Defaults and checks of the kinds that Kubernetes itself defines, as far as the mesh reads them. It must not repeat what CRD schemas say.

use crate::{api::schema::Flaw, inventory::Kind};
use serde_json::{Value, json};
use std::{collections::BTreeSet, net::IpAddr};

/// Fills in defaults and says what an API server would refuse.
pub(super) fn admit(kind: Kind, object: &mut Value) -> Vec<Flaw> {
    let mut flaws = Flaws(Vec::new());
    for (holder, must) in [("spec", Value::is_object as fn(&Value) -> bool), ("metadata", Value::is_object)] {
        if !object[holder].is_null() && !must(&object[holder]) {
            flaws.add(holder, "must be an object");
            return flaws.0;
        }
    }
    match kind {
        Kind::Service => service(object, &mut flaws),
        Kind::EndpointSlice => endpoint_slice(object, &mut flaws),
        Kind::Pod => pod(object, &mut flaws),
        Kind::Secret => secret(object, &mut flaws),
        _ => {}
    }
    flaws.0
}

struct Flaws(Vec<Flaw>);

impl Flaws {
    fn add(&mut self, field: impl Into<String>, reason: impl Into<String>) {
        self.0.push(Flaw { field: field.into(), reason: reason.into() });
    }

    fn one_of(&mut self, field: &str, value: &Value, allowed: &[&str]) {
        if !value.as_str().is_some_and(|v| allowed.contains(&v)) {
            self.add(field, format!("{value} is not one of {}", allowed.join(", ")));
        }
    }

    fn port(&mut self, field: &str, value: &Value) {
        if !value.as_u64().is_some_and(|p| (1..=65535).contains(&p)) {
            self.add(field, format!("{value} is not a port, 1 to 65535"));
        }
    }

    fn address(&mut self, field: &str, value: &Value) {
        if value.as_str().and_then(|v| v.parse::<IpAddr>().ok()).is_none() {
            self.add(field, format!("{value} is not an IP address"));
        }
    }
}

fn default(holder: &mut Value, field: &str, value: Value) {
    if let Some(map) = holder.as_object_mut() {
        let place = map.entry(field).or_insert(Value::Null);
        if place.is_null() {
            *place = value;
        }
    }
}

/// The items of a list; a flaw if it is something else.
fn list<'a>(object: &'a mut Value, field: &str, flaws: &mut Flaws) -> &'a mut [Value] {
    match object {
        Value::Array(items) => items,
        Value::Null => &mut [],
        _ => {
            flaws.add(field, "must be a list");
            &mut []
        }
    }
}

/// The items of a list of objects; a flaw for each that is something else.
fn objects<'a>(object: &'a mut Value, field: &str, flaws: &mut Flaws) -> &'a mut [Value] {
    let items = list(object, field, flaws);
    let before = flaws.0.len();
    for (i, _) in items.iter().enumerate().filter(|(_, item)| !item.is_object()) {
        flaws.add(format!("{field}[{i}]"), "must be an object");
    }
    if flaws.0.len() > before { &mut [] } else { items }
}

fn service(object: &mut Value, flaws: &mut Flaws) {
    if object["spec"].is_null() {
        return flaws.add("spec", "is required");
    }
    let spec = &mut object["spec"];
    default(spec, "type", json!("ClusterIP"));
    flaws.one_of("spec.type", &spec["type"], &["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]);
    let external = spec["type"] == "ExternalName";
    if external && !spec["externalName"].is_string() {
        flaws.add("spec.externalName", "is required for type ExternalName");
    }
    match &spec["clusterIP"] {
        Value::Null => {}
        ip if ip == "None" || ip == "" => {}
        ip => flaws.address("spec.clusterIP", ip),
    }
    let headless = spec["clusterIP"] == "None";
    let ports = objects(&mut spec["ports"], "spec.ports", flaws);
    if ports.is_empty() && !external && !headless {
        flaws.add("spec.ports", "is required");
    }
    let several = ports.len() > 1;
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (i, port) in ports.iter_mut().enumerate() {
        let field = |name: &str| format!("spec.ports[{i}].{name}");
        default(port, "protocol", json!("TCP"));
        let number = port["port"].clone();
        default(port, "targetPort", number);
        flaws.one_of(&field("protocol"), &port["protocol"], &["TCP", "UDP", "SCTP"]);
        if port["port"].is_null() {
            flaws.add(field("port"), "is required");
            continue;
        }
        flaws.port(&field("port"), &port["port"]);
        match &port["targetPort"] {
            Value::String(name) if !name.is_empty() && name.len() <= 15 => {}
            Value::String(name) => {
                flaws.add(field("targetPort"), format!("{name:?} is not a port name of 1 to 15 characters"))
            }
            number => flaws.port(&field("targetPort"), number),
        }
        let name = port["name"].as_str().unwrap_or_default().to_owned();
        if several && name.is_empty() {
            flaws.add(field("name"), "is required when there are several ports");
        } else if !names.insert(name.clone()) {
            flaws.add(field("name"), format!("{name:?} is the name of another port"));
        }
        if !numbers.insert((port["port"].to_string(), port["protocol"].to_string())) {
            flaws.add(field("port"), format!("{} is there twice for this protocol", port["port"]));
        }
    }
}

fn endpoint_slice(object: &mut Value, flaws: &mut Flaws) {
    let kind = object["addressType"].clone();
    if kind.is_null() {
        flaws.add("addressType", "is required");
    } else {
        flaws.one_of("addressType", &kind, &["IPv4", "IPv6", "FQDN"]);
    }
    for (i, port) in objects(&mut object["ports"], "ports", flaws).iter_mut().enumerate() {
        default(port, "protocol", json!("TCP"));
        default(port, "name", json!(""));
        flaws.one_of(&format!("ports[{i}].protocol"), &port["protocol"], &["TCP", "UDP", "SCTP"]);
        if !port["port"].is_null() {
            flaws.port(&format!("ports[{i}].port"), &port["port"]);
        }
    }
    for (i, endpoint) in objects(&mut object["endpoints"], "endpoints", flaws).iter_mut().enumerate() {
        let field = format!("endpoints[{i}].addresses");
        let addresses = list(&mut endpoint["addresses"], &field, flaws);
        if addresses.is_empty() {
            flaws.add(&*field, "must have at least 1 address");
        }
        for (j, address) in addresses.iter().enumerate() {
            let parsed = address.as_str().and_then(|a| a.parse::<IpAddr>().ok());
            let fits = match kind.as_str() {
                Some("IPv4") => parsed.is_some_and(|a| a.is_ipv4()),
                Some("IPv6") => parsed.is_some_and(|a| a.is_ipv6()),
                _ => true,
            };
            if !fits {
                flaws.add(
                    format!("{field}[{j}]"),
                    format!("{address} is not an {} address", kind.as_str().unwrap_or("IP")),
                );
            }
        }
    }
}

fn pod(object: &mut Value, flaws: &mut Flaws) {
    let spec = &mut object["spec"];
    if spec.is_null() {
        return flaws.add("spec", "is required");
    }
    default(spec, "serviceAccountName", json!("default"));
    if !spec["serviceAccountName"].is_string() {
        flaws.add("spec.serviceAccountName", format!("must be a string, not {}", spec["serviceAccountName"]));
    }
    let containers = objects(&mut spec["containers"], "spec.containers", flaws);
    if containers.is_empty() {
        flaws.add("spec.containers", "is required");
    }
    let mut names = BTreeSet::new();
    for (i, container) in containers.iter_mut().enumerate() {
        let name = container["name"].as_str().unwrap_or_default().to_owned();
        if name.is_empty() {
            flaws.add(format!("spec.containers[{i}].name"), "is required");
        } else if !names.insert(name.clone()) {
            flaws.add(format!("spec.containers[{i}].name"), format!("{name:?} is the name of another container"));
        }
        let field = format!("spec.containers[{i}].ports");
        for (j, port) in objects(&mut container["ports"], &field, flaws).iter_mut().enumerate() {
            default(port, "protocol", json!("TCP"));
            flaws.port(&format!("{field}[{j}].containerPort"), &port["containerPort"]);
        }
    }
}

fn secret(object: &mut Value, flaws: &mut Flaws) {
    default(object, "type", json!("Opaque"));
    for (field, values) in [("data", &object["data"]), ("stringData", &object["stringData"])] {
        match values {
            Value::Null => {}
            Value::Object(map) => {
                for name in map.iter().filter(|(_, v)| !v.is_string()).map(|(name, _)| name) {
                    flaws.add(format!("{field}.{name}"), "must be a string");
                }
            }
            _ => flaws.add(field, "must be an object"),
        }
    }
    if object["type"] == "kubernetes.io/tls" {
        for name in ["tls.crt", "tls.key"] {
            if object["data"][name].is_null() && object["stringData"][name].is_null() {
                flaws.add(format!("data.{name}"), "is required for type kubernetes.io/tls");
            }
        }
    }
}
