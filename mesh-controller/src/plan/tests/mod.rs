//! Tests of the plan: YAML in, meaning and statuses out, as reviewable text under tests/golden/plan.

mod examples;
mod golden;
mod incremental;
mod isolation;
mod render;
mod world;

use crate::inventory::{Change, admit};
use serde_json::Value;
use std::path::PathBuf;

/// Folder of golden files. `UPDATE_GOLDEN=1` writes them anew.
fn golden_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/plan")
}

/// Documents of a YAML text. Creation times follow the order of the documents and generations are 1, unless they are given.
fn documents(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("test data is YAML");
    let mut documents: Vec<Value> = documents.into_iter().filter(|d| !d.is_null()).collect();
    for (i, document) in documents.iter_mut().enumerate() {
        let meta = &mut document["metadata"];
        if meta["generation"].is_null() {
            meta["generation"] = 1.into();
        }
        if meta["creationTimestamp"].is_null() {
            meta["creationTimestamp"] = format!("2026-01-01T{:02}:{:02}:{:02}Z", i / 3600, i / 60 % 60, i % 60).into();
        }
    }
    documents
}

fn set(object: &Value) -> Change {
    Change::Set(Box::new(admit(&mut object.clone()).unwrap_or_else(|e| panic!("{e}"))))
}

/// Compares with a golden file, or writes it.
fn check_golden(file: &std::path::Path, actual: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, actual).expect("the golden file can be written");
        return;
    }
    let expected = std::fs::read_to_string(file).unwrap_or_default();
    if expected != actual {
        let differs = expected.lines().zip(actual.lines()).position(|(e, a)| e != a);
        let line = differs.unwrap_or_else(|| expected.lines().count().min(actual.lines().count()));
        panic!(
            "{}:{} differs; if the new plan is right, run with UPDATE_GOLDEN=1\n  expected: {}\n  actual:   {}",
            file.display(),
            line + 1,
            expected.lines().nth(line).unwrap_or("(end)"),
            actual.lines().nth(line).unwrap_or("(end)")
        );
    }
}
