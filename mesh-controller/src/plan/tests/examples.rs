//! Every example that the Gateway API publishes, read from its Go module: each object is read and planned, none makes the planner panic.

use super::{check_golden, documents, golden_folder, render, set};
use crate::{
    inventory::{Change, Inventory, Kind, admit},
    plan::plan,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::Command,
};

const MODULE: &str = "sigs.k8s.io/gateway-api@v1.7.0";

/// The folder of the module. An older Go refuses the module's go directive after having unpacked it, so the folder decides, not the exit code.
fn module() -> PathBuf {
    let go = |args: &[&str]| {
        Command::new("go").args(args).current_dir(std::env::temp_dir()).output().unwrap_or_else(|e| {
            panic!(
                "this test reads {MODULE} with the go tool, which cannot be run ({e}); install Go (https://go.dev/dl)"
            )
        })
    };
    let cache = String::from_utf8(go(&["env", "GOMODCACHE"]).stdout).expect("a path in UTF-8");
    let folder = Path::new(cache.trim()).join(MODULE);
    if !folder.is_dir() {
        let download = go(&["mod", "download", "-json", MODULE]);
        assert!(
            folder.is_dir(),
            "go mod download {MODULE} does not work: {}",
            String::from_utf8_lossy(&download.stdout)
        );
    }
    folder
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the module can be read").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "yaml") {
            found.push(path);
        }
    }
}

/// What the user of an example has besides: our class in the place of each class that it names, the Gateways that its routes name with a
/// listener for each name and port that they ask for, and the Services that they send to.
fn surroundings(objects: &[Value]) -> Vec<Value> {
    let mut gateways: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    let mut services: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
    let mut classes = BTreeSet::from(["heddle".to_owned()]);
    let text = |v: &Value, or: &str| v.as_str().unwrap_or(or).to_owned();
    for object in objects {
        let namespace = text(&object["metadata"]["namespace"], "default");
        if object["kind"] == "Gateway" {
            classes.insert(text(&object["spec"]["gatewayClassName"], ""));
        }
        for parent in object["spec"]["parentRefs"].as_array().into_iter().flatten() {
            let id = (text(&parent["namespace"], &namespace), text(&parent["name"], ""));
            if text(&parent["kind"], "Gateway") != "Gateway" {
                if parent["kind"] == "Service" {
                    services.entry(id).or_default().insert(parent["port"].as_u64().unwrap_or(80));
                }
                continue;
            }
            let there = |o: &Value| {
                o["kind"] == "Gateway"
                    && o["metadata"]["name"] == id.1
                    && text(&o["metadata"]["namespace"], "default") == id.0
            };
            if objects.iter().any(there) {
                continue;
            }
            let listeners = gateways.entry(id).or_default();
            let name = text(&parent["sectionName"], "any");
            if listeners.iter().any(|l| l["name"] == name) {
                continue;
            }
            let port = parent["port"].as_u64().unwrap_or(8000 + listeners.len() as u64);
            let mut listener = serde_json::json!({"name": name, "port": port, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}});
            match object["kind"].as_str() {
                Some("TCPRoute") => listener["protocol"] = "TCP".into(),
                Some("UDPRoute") => listener["protocol"] = "UDP".into(),
                Some("TLSRoute") => {
                    listener["protocol"] = "TLS".into();
                    listener["tls"] = serde_json::json!({"mode": "Passthrough"});
                }
                _ => {}
            }
            listeners.push(listener);
        }
        each_backend(&object["spec"]["rules"], &mut |backend| {
            if text(&backend["kind"], "Service") == "Service" {
                let id = (text(&backend["namespace"], &namespace), text(&backend["name"], ""));
                services.entry(id).or_default().extend(backend["port"].as_u64());
            }
        });
    }
    let mut extra: Vec<Value> = Vec::new();
    extra.extend(classes.iter().map(|name| {
        serde_json::json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name, "generation": 1},
            "spec": {"controllerName": "heddle.dev/controller"}})
    }));
    extra.extend(gateways.iter().map(|((namespace, name), listeners)| {
        serde_json::json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": name, "namespace": namespace, "generation": 1},
            "spec": {"gatewayClassName": "heddle", "listeners": listeners}})
    }));
    extra.extend(services.iter().map(|((namespace, name), ports)| {
        let ports: Vec<Value> = ports.iter().map(|p| serde_json::json!({"name": format!("p{p}"), "port": p})).collect();
        serde_json::json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace}, "spec": {"clusterIP": "10.96.0.1", "ports": ports}})
    }));
    extra
}

fn each_backend(value: &Value, found: &mut impl FnMut(&Value)) {
    match value {
        Value::Object(map) => {
            for (name, field) in map {
                match name.as_str() {
                    "backendRef" => found(field),
                    "backendRefs" => field.as_array().into_iter().flatten().for_each(&mut *found),
                    _ => {}
                }
                each_backend(field, found);
            }
        }
        Value::Array(list) => list.iter().for_each(|item| each_backend(item, found)),
        _ => {}
    }
}

/// Whether a route names a parent that is ours; other kinds need none. Some examples leave the parents to the reader.
fn is_attached(object: &Value) -> bool {
    let parents = object["spec"]["parentRefs"].as_array();
    let ours = |p: &Value| matches!(p["kind"].as_str().unwrap_or("Gateway"), "Gateway" | "Service");
    !object["kind"].as_str().is_some_and(|k| k.ends_with("Route")) || parents.is_some_and(|p| p.iter().any(ours))
}

/// Files that belong together: those of one folder, except in the folders that just collect examples.
fn together(examples: &Path, files: Vec<PathBuf>) -> BTreeMap<String, Vec<PathBuf>> {
    let mut sets: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        let name = file.strip_prefix(examples).expect("below the folder");
        let folder = name.parent().expect("a file is in a folder");
        let set = if folder.components().count() > 1 { folder } else { name };
        sets.entry(set.display().to_string()).or_default().push(file);
    }
    sets
}

#[test]
fn every_published_example_is_planned() {
    let examples = module().join("examples");
    let mut found = Vec::new();
    files(&examples, &mut found);
    assert!(found.len() >= 80, "only {} examples in {}", found.len(), examples.display());
    let mut summary = String::new();
    for (name, files) in together(&examples, found) {
        let text = |file: &PathBuf| std::fs::read_to_string(file).expect("an example can be read");
        let mut objects: Vec<Value> = files.iter().flat_map(|file| documents(&text(file))).collect();
        for object in &mut objects {
            let namespaced = object["kind"].as_str().and_then(|k| Kind::ALL.into_iter().find(|x| x.as_str() == k));
            if object["metadata"]["namespace"].is_null() && namespaced.is_some_and(Kind::namespaced) {
                object["metadata"]["namespace"] = "default".into();
            }
        }
        summary.push_str(&format!("# {name}\n"));
        let mut inventory = Inventory::new();
        surroundings(&objects).iter().for_each(|o| drop(inventory.apply(set(o))));
        let mut without_parent = BTreeSet::new();
        for mut object in objects {
            if !is_attached(&object) {
                without_parent.insert(object["metadata"]["name"].as_str().unwrap_or_default().to_owned());
            }
            match admit(&mut object) {
                // The example's own GatewayClass belongs to somebody else; ours has taken its place.
                Ok(observed) if observed.key.kind == Kind::GatewayClass && inventory.keys().contains(&observed.key) => {
                }
                Ok(observed) => drop(inventory.apply(Change::Set(Box::new(observed)))),
                Err(refused) => panic!("{name}: {refused}"),
            }
        }
        let planned = plan(&inventory, "heddle");
        for key in inventory.keys() {
            let has_status = matches!(
                key.kind,
                Kind::Gateway
                    | Kind::GatewayClass
                    | Kind::HttpRoute
                    | Kind::GrpcRoute
                    | Kind::TlsRoute
                    | Kind::TcpRoute
                    | Kind::UdpRoute
                    | Kind::BackendTlsPolicy
            );
            let has_status = has_status && !without_parent.contains(&*key.name.name);
            assert!(!has_status || planned.statuses.contains_key(&key), "{name}: {key} has no status");
        }
        render::statuses(&mut summary, &planned);
        summary.push('\n');
    }
    check_golden(&golden_folder().join("published-examples.txt"), &summary);
}
