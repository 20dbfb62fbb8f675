//! Who may depend on whom: checked against what cargo itself says. It must not read source files.

use crate::{none, root};
use serde_json::Value;
use std::{collections::BTreeMap, process::Command};

/// Internal edges that exist; everything else is a wall (ARCHITECTURE.md, "Who may depend on whom").
const INTERNAL: &[(&str, &[&str])] = &[
    ("mesh-core", &[]),
    ("mesh-wire", &["mesh-core"]),
    ("mesh-tls", &["mesh-core"]),
    ("mesh-sys", &[]),
    ("mesh-run", &[]),
    ("mesh-proxy", &["mesh-core", "mesh-wire", "mesh-tls", "mesh-sys", "mesh-run"]),
    ("mesh-controller", &["mesh-core", "mesh-wire", "mesh-tls", "mesh-sys", "mesh-run"]),
    ("mesh-cni", &["mesh-core", "mesh-wire", "mesh-sys"]),
];

/// Crates that must not be reached from a member, not even through others.
const NEVER: &[(&str, &[&str])] = &[
    (
        "mesh-core",
        &["tokio", "hyper", "kube", "k8s-openapi", "rustls", "serde", "serde_json", "tonic", "nix", "tracing"],
    ),
    ("mesh-sys", &["tokio", "hyper", "kube", "rustls", "serde_json"]),
    ("mesh-tls", &["kube", "hyper"]),
    ("mesh-run", &["kube"]),
    ("mesh-proxy", &["kube", "k8s-openapi"]),
    ("mesh-cni", &["tokio", "kube", "k8s-openapi", "hyper", "rustls"]),
];

/// What cargo would build for a member: the names of all crates that it reaches by normal edges.
fn reached(member: &str) -> Vec<String> {
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--edges", "normal", "--prefix", "none", "--format", "{lib}", "--locked", "--package", member])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "cargo tree -p {member}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().map(|l| l.trim_end_matches(" (*)").replace('_', "-")).collect()
}

#[test]
fn members_depend_only_on_the_rooms_they_may_enter() {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--locked", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let metadata: Value = serde_json::from_slice(&out.stdout).expect("cargo metadata is JSON");
    let allowed: BTreeMap<_, _> = INTERNAL.iter().copied().collect();
    let packages = metadata["packages"].as_array().expect("packages");
    let members: Vec<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut offences = Vec::new();
    for name in allowed.keys().filter(|name| !members.contains(name)) {
        offences.push(format!("{name} is in the list of walls but is no member"));
    }
    for package in packages {
        let name = package["name"].as_str().expect("name");
        let Some(may) = allowed.get(name) else { continue };
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let to = dependency["name"].as_str().expect("name");
            // A test may stand on what its room must not.
            let normal = dependency["kind"].is_null();
            if normal && members.contains(&to) && !may.contains(&to) {
                offences.push(format!("{name} → {to}"));
            }
        }
    }
    none("edges that ARCHITECTURE.md does not have", offences);
}

#[test]
fn no_member_reaches_a_crate_that_its_room_forbids() {
    let mut offences = Vec::new();
    for (member, never) in NEVER {
        let reached = reached(member);
        assert!(reached.len() > 1, "cargo tree said nothing about {member}");
        for crate_name in *never {
            let lib = crate_name.replace('_', "-");
            if reached.contains(&lib) {
                offences.push(format!("{member} reaches {crate_name}"));
            }
        }
    }
    none("crates behind a wall", offences);
}
