//! Reads the user's folder: which objects there are, in which file and line, and what is broken. A broken object keeps its last good state.
//! It must not judge what only the controller judges (routes, gateways, policies).

use super::report::Problem;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Service},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// API group, empty for core.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for what has none.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => write!(f, "{}/{}", self.kind, self.name),
            ns => write!(f, "{}/{ns}/{}", self.kind, self.name),
        }
    }
}

/// An object and where it is written.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its name.
    pub key: Key,
    /// All of it.
    pub value: Arc<Value>,
    /// Line of its document in its file, from 1.
    pub line: usize,
}

/// What a folder says, as of one reading.
#[derive(Clone, Debug, Default)]
pub struct Folder {
    files: BTreeMap<PathBuf, Reading>,
}

#[derive(Clone, Debug)]
struct Reading {
    text: String,
    objects: Vec<Object>,
    problems: Vec<Problem>,
}

/// Kinds without a namespace, of those that we read.
const CLUSTER_SCOPED: [&str; 5] = ["Namespace", "GatewayClass", "XMesh", "MeshParameters", "Node"];

/// The kind that holds an example's requests; it is no object of the cluster.
pub const SCENARIO: &str = "PlaygroundScenario";

impl Folder {
    /// Reads a folder, all of it or what changed since `before`.
    pub fn read(dir: &Path, before: &Self) -> std::io::Result<Self> {
        let mut paths = Vec::new();
        find(dir, &mut paths)?;
        paths.sort();
        let mut files = BTreeMap::new();
        for path in paths {
            let old = before.files.get(&path);
            let reading = match fs::read_to_string(&path) {
                Ok(text) if old.is_some_and(|o| o.text == text) => old.cloned(),
                Ok(text) => Some(read_file(&path, text, old)),
                // It went away between the listing and now: the next event says so.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
                Err(e) => return Err(e),
            };
            files.extend(reading.map(|r| (path, r)));
        }
        Ok(Self { files })
    }

    /// All objects; of two with the same name the first one read counts, and the other is a problem.
    pub fn objects(&self) -> BTreeMap<Key, Object> {
        let mut all = BTreeMap::new();
        for object in self.files.values().flat_map(|r| &r.objects) {
            all.entry(object.key.clone()).or_insert_with(|| object.clone());
        }
        all
    }

    /// What could not be read.
    pub fn problems(&self) -> Vec<Problem> {
        self.files.values().flat_map(|r| r.problems.iter().cloned()).collect()
    }
}

fn find(dir: &Path, into: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            find(&path, into)?;
        } else if [".yaml", ".yml", ".json"].iter().any(|e| name.ends_with(e)) {
            into.push(path);
        }
    }
    Ok(())
}

fn read_file(path: &Path, text: String, old: Option<&Reading>) -> Reading {
    let mut reading = Reading { text: String::new(), objects: Vec::new(), problems: Vec::new() };
    let mut nameless_break = false;
    for (line, document) in documents(&text) {
        match read_document(document, line) {
            Ok(Some(object)) => reading.objects.push(object),
            Ok(None) => {}
            Err(broken) => {
                let kept = old.and_then(|o| o.objects.iter().find(|o| Some(&o.key) == broken.key.as_ref()));
                reading.objects.extend(kept.cloned());
                nameless_break |= broken.key.is_none();
                reading.problems.push(Problem {
                    file: path.display().to_string(),
                    line: broken.line,
                    object: broken.key.map(|k| k.to_string()).unwrap_or_default(),
                    field: broken.field,
                    reason: broken.reason,
                });
            }
        }
    }
    if nameless_break {
        // A document of this file cannot even be named: what was here and is not here now is that document, or was removed; it is kept.
        let kept: Vec<Object> = old
            .into_iter()
            .flat_map(|o| &o.objects)
            .filter(|o| !reading.objects.iter().any(|n| n.key == o.key))
            .cloned()
            .collect();
        reading.objects.extend(kept);
    }
    reading.text = text;
    reading
}

struct Broken {
    key: Option<Key>,
    line: usize,
    field: String,
    reason: String,
}

fn read_document(text: &str, line: usize) -> Result<Option<Object>, Box<Broken>> {
    if text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#')) {
        return Ok(None);
    }
    let value: Value = serde_saphyr::from_str(text).map_err(|e| broken(text, line, guess(text), &e))?;
    let Some(key) = key(&value) else {
        return Err(Box::new(Broken {
            key: None,
            line,
            field: String::new(),
            reason: "the document has no apiVersion, kind or metadata.name".into(),
        }));
    };
    let typed = |e| broken(text, line, Some(key.clone()), &e);
    match (key.group.as_str(), key.kind.as_str()) {
        ("", "Pod") => parse::<Pod>(text).map_err(typed)?,
        ("", "Service") => parse::<Service>(text).map_err(typed)?,
        ("apps", "Deployment") => parse::<Deployment>(text).map_err(typed)?,
        _ => {}
    }
    Ok((key.kind != SCENARIO).then(|| Object { key, value: Arc::new(value), line }))
}

/// Whether the text is what Kubernetes' own type says. Read from the text and not from the value, so that the error knows its line.
fn parse<T: DeserializeOwned>(text: &str) -> Result<(), serde_saphyr::Error> {
    serde_saphyr::from_str::<T>(text).map(drop)
}

fn broken(text: &str, first: usize, key: Option<Key>, error: &serde_saphyr::Error) -> Box<Broken> {
    let at = error.location().map_or(1, |l| usize::try_from(l.line()).unwrap_or(1)).max(1);
    let reason = error.to_string();
    // The place is told apart from the reason.
    let reason = reason.strip_prefix("error: ").unwrap_or(&reason);
    let reason = match reason.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => reason,
    };
    Box::new(Broken {
        key,
        line: first + at - 1,
        field: field_at(text, at),
        reason: reason.lines().next().unwrap_or_default().trim().to_owned(),
    })
}

fn key(value: &Value) -> Option<Key> {
    let kind = value["kind"].as_str()?;
    let namespace = match value["metadata"]["namespace"].as_str() {
        _ if CLUSTER_SCOPED.contains(&kind) => "",
        Some(ns) => ns,
        None => "default",
    };
    Some(Key {
        group: value["apiVersion"].as_str()?.split_once('/').map_or("", |(g, _)| g).to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: value["metadata"]["name"].as_str()?.to_owned(),
    })
}

/// The key of a document that is no YAML, from the lines that almost always are there.
fn guess(text: &str) -> Option<Key> {
    let find = |prefix: &str| {
        let line = text.lines().find(|l| l.starts_with(prefix))?;
        Some(line[prefix.len()..].trim().trim_matches('"').to_owned())
    };
    let kind = find("kind:")?;
    let namespace = find("  namespace:").unwrap_or_else(|| "default".into());
    Some(Key {
        group: find("apiVersion:")?.split_once('/').map_or(String::new(), |(g, _)| g.to_owned()),
        namespace: if CLUSTER_SCOPED.contains(&kind.as_str()) { String::new() } else { namespace },
        kind,
        name: find("  name:")?,
    })
}

/// The path of the field on a line, from the indentation of the lines above it.
fn field_at(text: &str, line: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let Some(start) = lines.get(line.saturating_sub(1)) else { return String::new() };
    let mut indent = usize::MAX;
    let mut path = Vec::new();
    for candidate in std::iter::once(start).chain(lines[..line.saturating_sub(1)].iter().rev()) {
        let body = candidate.trim_start_matches([' ', '-']);
        let depth = candidate.len() - body.len();
        if let Some((name, _)) = body.split_once(':')
            && depth < indent
            && !body.starts_with('#')
        {
            path.push(name.trim().trim_matches('"'));
            indent = depth;
        }
        if indent == 0 {
            break;
        }
    }
    path.reverse();
    path.join(".")
}

/// The documents of a file with their first lines. A line that starts with `---` separates; inside a document such a line would be indented.
pub fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let (mut start, mut first, mut offset) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" || line.starts_with("--- ") {
            found.push((first, &text[start..offset]));
            start = offset + line.len();
            first = number + 2;
        }
        offset += line.len();
    }
    found.push((first, &text[start..]));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str =
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n  - name: c\n    image: x\n";
    const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: b\nspec:\n  ports:\n  - port: 80\n";

    fn folder(files: &[(&str, &str)], before: &Folder) -> Folder {
        let dir = std::env::temp_dir().join(format!(
            "heddle-folder-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        let read = Folder::read(&dir, before).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        read
    }

    #[test]
    fn a_broken_object_keeps_its_last_good_state_and_says_where_and_why() {
        let good = folder(&[("a.yaml", &format!("{POD}---\n{SERVICE}"))], &Folder::default());
        assert_eq!(good.objects().len(), 2);
        assert!(good.problems().is_empty());

        let broken_service = SERVICE.replace("port: 80", "port: eighty");
        let after = folder(&[("a.yaml", &format!("{POD}---\n{broken_service}"))], &good);
        let kept = after.objects().into_values().find(|o| o.key.kind == "Service").unwrap();
        assert_eq!(kept.value["spec"]["ports"][0]["port"], 80);
        let problem = &after.problems()[0];
        assert_eq!((problem.line, problem.object.as_str()), (16, "Service/default/b"));
        assert_eq!(problem.field, "spec.ports.port");
        assert!(problem.file.ends_with("a.yaml") && !problem.reason.is_empty(), "{problem:?}");
    }

    #[test]
    fn a_document_that_is_no_yaml_keeps_its_object_and_lets_the_others_change() {
        let good = folder(&[("a.yaml", &format!("{POD}---\n{SERVICE}"))], &Folder::default());
        let text = format!("{}---\n{}", POD.replace("name: c", "name: [c"), SERVICE.replace("80", "81"));
        let after = folder(&[("a.yaml", &text)], &good);
        let objects = after.objects();
        assert_eq!(objects.len(), 2);
        assert!(objects.values().any(|o| o.value["spec"]["ports"][0]["port"] == 81));
        assert_eq!(after.problems()[0].object, "Pod/default/a");
    }

    #[test]
    fn documents_know_their_first_line() {
        let found: Vec<usize> = documents("a: 1\n---\nb: 2\n---\nc: 3\n").into_iter().map(|(l, _)| l).collect();
        assert_eq!(found, [1, 3, 5]);
    }
}
