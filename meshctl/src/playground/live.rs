//! The `live` folder: what a cluster would add to the user's objects, one JSON file each, replaced atomically and only when it changed. It must not decide what is in it.

use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeMap, fs, path::PathBuf};

/// The folder and what is in it.
#[derive(Debug)]
pub struct Live {
    dir: PathBuf,
    written: BTreeMap<String, Value>,
}

impl Live {
    /// An empty folder.
    pub fn create(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        Ok(Self { dir, written: BTreeMap::new() })
    }

    /// Makes the folder hold exactly these objects. `metadata.generation` counts changes of `spec`, as an API server does.
    pub fn publish(&mut self, mut wanted: BTreeMap<String, Value>) -> Result<()> {
        for (name, object) in &mut wanted {
            let before = self.written.get(name);
            let generation = match before {
                Some(old) if old["spec"] == object["spec"] => old["metadata"]["generation"].clone(),
                Some(old) => (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into(),
                None => 1.into(),
            };
            object["metadata"]["generation"] = generation;
            if before != Some(object) {
                // The dot keeps the unfinished file out of the reader's sight.
                let unfinished = self.dir.join(format!(".{name}"));
                let path = self.dir.join(name);
                fs::write(&unfinished, object.to_string())
                    .and_then(|()| fs::rename(&unfinished, &path))
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
        for name in self.written.keys().filter(|n| !wanted.contains_key(*n)) {
            fs::remove_file(self.dir.join(name)).with_context(|| format!("cannot remove {name}"))?;
        }
        self.written = wanted;
        Ok(())
    }
}
