//! Every example that the Gateway API publishes, read from its Go module: each object is read and planned, none makes the planner panic.

use super::{check_golden, documents, golden_folder, render, set};
use crate::{
    inventory::{Change, Inventory, Kind, admit},
    plan::plan,
};
use serde_json::Value;
use std::{
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

/// What a folder's user has besides: our class in the place of each class that an example names, and the Services that routes name.
fn surroundings(objects: &[Value]) -> Vec<Value> {
    let mut extra = Vec::new();
    for object in objects {
        if object["kind"] == "Gateway" {
            let name = &object["spec"]["gatewayClassName"];
            extra.push(serde_json::json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": name, "generation": 1},
                "spec": {"controllerName": "heddle.dev/controller"}}));
        }
    }
    extra
}

#[test]
fn every_published_example_is_planned() {
    let examples = module().join("examples");
    let mut found = Vec::new();
    files(&examples, &mut found);
    assert!(found.len() >= 80, "only {} examples in {}", found.len(), examples.display());
    let mut summary = String::new();
    for file in found {
        let name = file.strip_prefix(&examples).expect("below the folder").display().to_string();
        let text = std::fs::read_to_string(&file).expect("an example can be read");
        let mut objects = documents(&text);
        for object in &mut objects {
            let namespaced = object["kind"].as_str().and_then(|k| Kind::ALL.into_iter().find(|x| x.as_str() == k));
            if object["metadata"]["namespace"].is_null() && namespaced.is_some_and(Kind::namespaced) {
                object["metadata"]["namespace"] = "default".into();
            }
        }
        summary.push_str(&format!("# {name}\n"));
        let mut inventory = Inventory::new();
        surroundings(&objects).iter().for_each(|o| drop(inventory.apply(set(o))));
        for mut object in objects {
            match admit(&mut object) {
                // The example's own GatewayClass belongs to somebody else; ours has taken its place.
                Ok(observed) if observed.key.kind == Kind::GatewayClass && inventory.keys().contains(&observed.key) => {
                }
                Ok(observed) => drop(inventory.apply(Change::Set(Box::new(observed)))),
                Err(refused) => summary.push_str(&format!("refused: {refused}\n")),
            }
        }
        let planned = plan(&inventory, "heddle");
        for key in inventory.keys() {
            let is_ours = matches!(
                key.kind,
                Kind::Gateway | Kind::GatewayClass | Kind::BackendTlsPolicy | Kind::XBackendTrafficPolicy
            );
            let reports = planned.statuses.contains_key(&key);
            assert!(reports || !is_ours || key.kind == Kind::GatewayClass, "{name}: {key} has no status");
        }
        render::statuses(&mut summary, &planned);
        summary.push('\n');
    }
    check_golden(&golden_folder().join("published-examples.txt"), &summary);
}
