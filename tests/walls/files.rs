//! What source files look like: first lines, sizes, names, where `unsafe`, kube and the clock may stand. It must not parse Rust; lines suffice.

use crate::{none, root};
use std::{fs, path::Path};

/// Files that a tool wrote; they say so in their first lines.
const GENERATED: &str = "/generated/";

/// A file longer than this hides a wall.
const LINES_MAX: usize = 600;

/// Folders that hold Rust of ours.
const ROOMS: &[&str] = &["crates", "mesh-proxy", "mesh-controller", "cni", "meshctl", "tests", "benches"];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines of code, without comments, up to the in-file tests.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let production = self.text.lines().position(|l| l.starts_with("#[cfg(test)]")).unwrap_or(usize::MAX);
        self.text.lines().enumerate().take(production).filter(|(_, l)| !l.trim_start().starts_with("//"))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/")
            || self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.path.ends_with("_tests.rs")
    }
}

fn sources() -> Vec<Source> {
    fn walk(folder: &Path, found: &mut Vec<Source>) {
        let mut entries: Vec<_> =
            fs::read_dir(folder).expect("a folder of the repository").flatten().map(|e| e.path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                walk(&path, found);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
                found.push(Source { path, text });
            }
        }
    }
    let mut found = Vec::new();
    for room in ROOMS {
        walk(&root().join(room), &mut found);
    }
    found.retain(|s| !s.path.contains(GENERATED));
    assert!(found.len() > 30, "the walk found only {} files", found.len());
    found
}

fn offences(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    sources().iter().flat_map(check).collect()
}

fn lines_with(source: &Source, is_offence: impl Fn(&str) -> bool) -> Vec<String> {
    source
        .code()
        .filter(|(_, l)| is_offence(l))
        .map(|(n, l)| format!("{}:{}: {}", source.path, n + 1, l.trim()))
        .collect()
}

#[test]
fn every_file_says_first_what_it_is_for() {
    let missing = |s: &Source| match s.text.lines().next() {
        Some(line) if line.starts_with("//! ") => vec![],
        _ => vec![s.path.clone()],
    };
    none("files without a first line `//! …`", offences(missing));
}

#[test]
fn no_file_hides_a_wall() {
    let long = |s: &Source| match s.text.lines().count() {
        n if n > LINES_MAX => vec![format!("{} has {n} lines", s.path)],
        _ => vec![],
    };
    none("files over 600 lines", offences(long));
}

#[test]
fn unsafe_stands_only_in_sys() {
    let found = |s: &Source| {
        if s.path.starts_with("crates/sys/") || s.path.starts_with("tests/walls/") {
            return vec![];
        }
        lines_with(s, |l| l.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == "unsafe"))
    };
    none("`unsafe` outside crates/sys", offences(found));
}

#[test]
fn kubernetes_types_stay_where_objects_are_read_and_statuses_written() {
    let found = |s: &Source| {
        let may = [
            "mesh-controller/src/api",
            "mesh-controller/src/source",
            "mesh-controller/src/inventory",
            "mesh-controller/src/status",
            "mesh-controller/src/plan",
            // The controller's own objects: the Lease, TokenReviews, the authority's Secret.
            "mesh-controller/src/leader",
            "mesh-controller/src/authenticate/review",
            "mesh-controller/src/ca/cluster",
        ];
        if !s.path.starts_with("mesh-controller/src") || may.iter().any(|m| s.path.starts_with(m)) {
            return vec![];
        }
        lines_with(s, |l| l.contains("kube::") || l.contains("k8s_openapi::"))
    };
    none(
        "kube or k8s_openapi outside api, source, inventory, plan, status, leader, authenticate/review, ca/cluster",
        offences(found),
    );
}

#[test]
fn core_has_no_clock_environment_file_socket_or_thread() {
    const NEVER: &[&str] = &[
        "Instant::now",
        "SystemTime",
        "std::env",
        "std::fs",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "std::thread",
        "std::process",
        "println!",
    ];
    let found = |s: &Source| {
        if !s.path.starts_with("crates/core/src") || s.is_test() {
            return vec![];
        }
        lines_with(s, |l| NEVER.iter().any(|n| l.contains(n)))
    };
    none("effects in core", offences(found));
}

#[test]
fn lints_are_expected_with_a_reason_never_allowed() {
    let found = |s: &Source| {
        if s.path.starts_with("tests/walls/") {
            vec![]
        } else {
            lines_with(s, |l| l.contains("#[allow(") || l.contains("#![allow("))
        }
    };
    none("`allow` where `expect(…, reason = …)` belongs", offences(found));
}

#[test]
fn names_are_of_our_trade() {
    const EMPTY: &[&str] =
        &["manager", "helper", "helpers", "util", "utils", "common", "misc", "data", "info", "types"];
    let found = |s: &Source| {
        let stem = Path::new(&s.path).file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        if EMPTY.contains(&stem) { vec![s.path.clone()] } else { vec![] }
    };
    none("files whose name says nothing", offences(found));
}

#[test]
fn nothing_is_left_undone() {
    const STUBS: &[&str] = &["todo!(", "unimplemented!(", "FIXME", "XXX"];
    let found = |s: &Source| {
        if s.path.starts_with("tests/walls/") {
            return vec![];
        }
        let mut lines: Vec<String> = lines_with(s, |l| STUBS.iter().any(|stub| l.contains(stub)));
        lines.extend(
            s.text
                .lines()
                .enumerate()
                .filter(|(_, l)| l.trim_start().starts_with("#[ignore"))
                .map(|(n, _)| format!("{}:{}: an ignored test", s.path, n + 1)),
        );
        lines
    };
    none("stubs", offences(found));
}

#[test]
fn production_code_does_not_unwrap() {
    let found = |s: &Source| {
        if s.is_test() || s.path.starts_with("benches/") || s.path.ends_with("build.rs") {
            return vec![];
        }
        lines_with(s, |l| l.contains(".unwrap()"))
    };
    none("`unwrap()` outside tests", offences(found));
}
