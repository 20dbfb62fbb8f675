//! Walls: the layout rules of ARCHITECTURE.md as tests. It must not judge behaviour.
//!
//! Each test lists every offence, so that one run shows all that is to mend.

mod edges;
mod files;

use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// Fails with all offences, one a line.
fn none(rule: &str, offences: Vec<String>) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}
