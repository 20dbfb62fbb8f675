//! The conflist: where our entry belongs in a runtime's network configuration; text in, text out. It must not touch files.
//!
//! containerd and CRI-O take the files that end in `.conf`, `.conflist` or `.json`, in lexical order, and use the first. A `.conflist` is a
//! chain; the others are a single plugin, which becomes a chain so that ours can follow.

mod array;

use crate::VERSIONS;
use array::Array;
use serde_json::{Map, Value};

/// `type` of our entry: the name of the binary.
pub const TYPE: &str = "mesh-cni";

/// What a single plugin's file is called while a chain stands in for it: no runtime takes a name that ends so.
const ASIDE: &str = ".heddle-aside";

/// A file of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
}

/// One thing to do in the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Write a file whole; its mode is that of `like`.
    Write {
        /// Which.
        name: String,
        /// The file that it comes from.
        like: String,
        /// What it must hold.
        text: String,
    },
    /// Rename a file.
    Rename {
        /// From this name.
        from: String,
        /// To this name.
        to: String,
    },
    /// Remove a file.
    Remove {
        /// Which.
        name: String,
    },
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// No network plugin has written its configuration yet.
    Wait,
    /// All is as it must be.
    Nothing,
    /// These, in order; at every moment in between a runtime finds a whole configuration.
    Change(Vec<Change>),
}

/// A file that our entry cannot be put into.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {field}: {reason}")]
pub struct ConfFault {
    /// Its name.
    pub file: String,
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Our entry at the last place of the first configuration, and in no other.
pub fn install(files: &[File], entry: &Map<String, Value>) -> Result<Decision, ConfFault> {
    let taken = taken(files);
    let Some((first, others)) = taken.split_first() else { return Ok(Decision::Wait) };
    let has = |name: &str| files.iter().any(|f| f.name == *name);
    // A single plugin that its writer has written again, though a chain stands in for it: what is newest counts.
    let again =
        others.iter().find(|f| !is_chain(f) && chain_name(f) == first.name && has(&format!("{}{ASIDE}", f.name)));
    let first = again.unwrap_or(first);
    let mut changes = Vec::new();
    if is_chain(first) {
        changes.extend(with_entry(first, entry)?.map(|text| write(first, text)));
    } else {
        let (name, aside) = (chain_name(first), format!("{}{ASIDE}", first.name));
        if has(&name) && !has(&aside) {
            let reason = format!("is in the way: {} must become a chain of this name", first.name);
            return Err(ConfFault { file: name, field: "(the file)".into(), reason });
        }
        let text = chain_of(first, entry)?;
        changes.push(Change::Write { name, like: first.name.clone(), text });
        changes.push(Change::Rename { from: first.name.clone(), to: aside });
    }
    let replaced = changes.iter().find_map(|c| match c {
        Change::Write { name, .. } => Some(name.clone()),
        _ => None,
    });
    for other in others.iter().filter(|f| is_chain(f) && replaced.as_deref() != Some(&*f.name)) {
        // What is wrong with a file that no runtime takes is not ours to judge.
        if let Ok(Some(text)) = without_entry(other) {
            changes.push(write(other, text));
        }
    }
    Ok(if changes.is_empty() { Decision::Nothing } else { Decision::Change(changes) })
}

/// Everything as it was before [`install`]. Files that cannot be read are none of ours.
pub fn uninstall(files: &[File]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut gone = Vec::new();
    for aside in files {
        let Some(name) = aside.name.strip_suffix(ASIDE) else { continue };
        let before = File { name: name.to_owned(), content: aside.content.clone() };
        let chain = files.iter().find(|f| f.name == chain_name(&before));
        if files.iter().any(|f| f.name == name) || chain.is_none_or(|c| !is_chain_of(c, &before)) {
            // Somebody else has taken the name, or made another chain of it; what was put aside is out of date.
            changes.push(Change::Remove { name: aside.name.clone() });
        } else {
            changes.push(Change::Rename { from: aside.name.clone(), to: name.to_owned() });
        }
        if let Some(chain) = chain.filter(|c| is_chain_of(c, &before)) {
            changes.push(Change::Remove { name: chain.name.clone() });
            gone.push(chain.name.clone());
        }
    }
    for file in taken(files).into_iter().filter(|f| is_chain(f) && !gone.contains(&f.name)) {
        if let Ok(Some(text)) = without_entry(file) {
            changes.push(write(file, text));
        }
    }
    changes
}

/// The files that runtimes take, in their order.
fn taken(files: &[File]) -> Vec<&File> {
    let ends = |name: &str| [".conf", ".conflist", ".json"].iter().any(|end| name.ends_with(end));
    let mut taken: Vec<&File> = files.iter().filter(|f| ends(&f.name)).collect();
    taken.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    taken
}

fn is_chain(file: &File) -> bool {
    file.name.ends_with(".conflist")
}

/// The name of the chain that a single plugin's file becomes.
fn chain_name(file: &File) -> String {
    let stem = file.name.rsplit_once('.').map_or(&*file.name, |(stem, _)| stem);
    format!("{stem}.conflist")
}

fn write(file: &File, text: String) -> Change {
    Change::Write { name: file.name.clone(), like: file.name.clone(), text }
}

/// The chain with our entry at its last place and nowhere else; none if it is so.
fn with_entry(file: &File, entry: &Map<String, Value>) -> Result<Option<String>, ConfFault> {
    let chain = Chain::read(file)?;
    let plugins = chain.plugins()?;
    let ours: Vec<bool> = plugins.iter().map(is_ours).collect();
    if ours.iter().all(|ours| *ours) {
        return Err(chain.fault("plugins", "nobody in it makes an interface"));
    }
    let alone = ours.iter().filter(|ours| **ours).count() == 1;
    if alone && plugins.last().and_then(Value::as_object) == Some(entry) {
        return Ok(None);
    }
    chain.rewrite(&ours, Some(&Value::from(entry.clone()).to_string())).map(Some)
}

/// The chain without our entry; none if it has none.
fn without_entry(file: &File) -> Result<Option<String>, ConfFault> {
    let chain = Chain::read(file)?;
    let ours: Vec<bool> = chain.plugins()?.iter().map(is_ours).collect();
    if ours.contains(&true) { chain.rewrite(&ours, None).map(Some) } else { Ok(None) }
}

/// A chain of a single plugin's configuration, which stays as it was written, and our entry.
fn chain_of(file: &File, entry: &Map<String, Value>) -> Result<String, ConfFault> {
    let single = Chain::read(file)?;
    if single.object.contains_key("plugins") {
        return Err(single.fault("plugins", "a chain must be in a file that ends in .conflist"));
    }
    if !single.object.get("type").is_some_and(|t| t.as_str().is_some_and(|t| !t.is_empty() && t != TYPE)) {
        return Err(single.fault("type", "must name the plugin that makes the interface"));
    }
    let field = |name: &str| single.object.get(name).cloned().unwrap_or_default();
    Ok(format!(
        "{{\n  \"cniVersion\": {},\n  \"name\": {},\n  \"plugins\": [\n    {},\n    {}\n  ]\n}}\n",
        field("cniVersion"),
        field("name"),
        single.text.trim(),
        Value::from(entry.clone())
    ))
}

/// Whether a chain is what [`chain_of`] made of a single plugin's configuration.
fn is_chain_of(file: &File, before: &File) -> bool {
    let (Ok(chain), Ok(before)) = (Chain::read(file), Chain::read(before)) else { return false };
    let Ok(plugins) = chain.plugins() else { return false };
    let others: Vec<&Value> = plugins.iter().filter(|p| !is_ours(p)).collect();
    matches!(&others[..], [one] if one.as_object() == Some(&before.object))
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == TYPE
}

/// A configuration as text and as what it says.
struct Chain<'a> {
    file: &'a str,
    text: &'a str,
    object: Map<String, Value>,
}

impl<'a> Chain<'a> {
    /// Reads what every configuration must have for our entry to work in it.
    fn read(file: &'a File) -> Result<Self, ConfFault> {
        let fault = |field: &str, reason: &str| ConfFault {
            file: file.name.clone(),
            field: field.into(),
            reason: reason.into(),
        };
        let text = std::str::from_utf8(&file.content).map_err(|e| fault("(the file)", &format!("is not text: {e}")))?;
        let object = match serde_json::from_str(text) {
            Ok(Value::Object(object)) => object,
            Ok(_) => return Err(fault("(the file)", "is not a JSON object")),
            Err(error) => return Err(fault("(the file)", &format!("is not JSON: {error}"))),
        };
        let read = Self { file: &file.name, text, object };
        if read.object.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(read.fault("name", "is missing"));
        }
        // Without it a runtime assumes a version in which plugins do not see the result of those before them.
        match read.object.get("cniVersion").map(Value::as_str) {
            None if read.object.contains_key("cniVersions") => {}
            Some(Some(version)) if VERSIONS.contains(&version) => {}
            Some(Some(version)) => {
                let reason = format!("is {version}; {TYPE} speaks {}", VERSIONS.join(", "));
                return Err(read.fault("cniVersion", &reason));
            }
            _ => return Err(read.fault("cniVersion", "is missing")),
        }
        Ok(read)
    }

    fn plugins(&self) -> Result<&[Value], ConfFault> {
        match self.object.get("plugins") {
            Some(Value::Array(plugins)) if plugins.is_empty() => Err(self.fault("plugins", "is empty")),
            Some(Value::Array(plugins)) => match plugins.iter().position(|p| !p["type"].is_string()) {
                Some(n) => Err(self.fault(&format!("plugins[{n}].type"), "is missing")),
                None => Ok(plugins),
            },
            Some(_) => Err(self.fault("plugins", "is not a list")),
            None => Err(self.fault("plugins", "is missing")),
        }
    }

    /// The text with some entries gone and one more; the rest as it was, byte for byte.
    fn rewrite(&self, gone: &[bool], more: Option<&str>) -> Result<String, ConfFault> {
        let array = Array::find(self.text, "plugins").filter(|a| a.len() == gone.len());
        let array = array.ok_or_else(|| self.fault("plugins", "cannot be found in the text"))?;
        Ok(array.rewrite(gone, more))
    }

    fn fault(&self, field: &str, reason: &str) -> ConfFault {
        ConfFault { file: self.file.to_owned(), field: field.to_owned(), reason: reason.to_owned() }
    }
}

#[cfg(test)]
mod tests;
