//! The objects of an installation: the rendered manifests that this program carries, changed as the user chose. Pure; it must not read or write a cluster.

use super::{CONTROLLER, MESH, access::rank};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// What `make manifests` renders from the chart.
const HEDDLE: &str = include_str!("../../../deploy/manifests/heddle.yaml");
/// Our own resource definitions.
const DEFINITIONS: &str = include_str!("../../../deploy/crds/heddle.dev_meshparameters.yaml");

/// Whether meshed pods refuse plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// They do.
    Strict,
    /// They take it as from an unknown peer, for migration.
    Permissive,
}

/// What of the manifests is a choice.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// In place of `heddle.dev` in images' names.
    pub registry: Option<String>,
    /// In place of the images' tag.
    pub version: Option<String>,
    /// Of the controller.
    pub replicas: Option<u32>,
    pub mode: Option<Mode>,
    pub trust_domain: Option<String>,
}

/// Everything that is applied, in order.
#[derive(Clone, Debug)]
pub(super) struct Bundle {
    pub definitions: Vec<Value>,
    pub objects: Vec<Value>,
}

pub(super) fn bundle(changes: &Changes) -> Result<Bundle> {
    let mut objects = parse(HEDDLE).context("deploy/manifests/heddle.yaml")?;
    for object in &mut objects {
        if let Some(containers) = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
            for container in containers {
                let written = container["image"].as_str().unwrap_or_default();
                container["image"] = json!(image(written, changes)?);
            }
        }
        if let (Some(replicas), true) = (changes.replicas, object["kind"] == "Deployment") {
            object["spec"]["replicas"] = json!(replicas);
        }
    }
    if changes.mode.is_some() || changes.trust_domain.is_some() {
        let mut spec = json!({});
        if let Some(mode) = changes.mode {
            spec["mode"] = json!(format!("{mode:?}"));
        }
        if let Some(domain) = &changes.trust_domain {
            spec["trustDomain"] = json!(domain);
        }
        objects.extend(mesh_with(spec));
    }
    objects.sort_by_key(|object| rank(object["kind"].as_str().unwrap_or_default()));
    Ok(Bundle { definitions: parse(DEFINITIONS).context("deploy/crds")?, objects })
}

/// A mesh whose settings have this spec, and which refers to them.
pub(super) fn mesh_with(spec: Value) -> [Value; 2] {
    let metadata = json!({"name": MESH, "labels": {"app.kubernetes.io/part-of": "heddle"}});
    [
        json!({"apiVersion": "heddle.dev/v1alpha1", "kind": "MeshParameters", "metadata": metadata, "spec": spec}),
        json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XMesh", "metadata": metadata, "spec": {
            "controllerName": CONTROLLER,
            "parametersRef": {"group": "heddle.dev", "kind": "MeshParameters", "name": MESH},
        }}),
    ]
}

/// `REGISTRY/PROGRAM:TAG` with other parts.
fn image(written: &str, changes: &Changes) -> Result<String> {
    let Some((registry, (program, tag))) =
        written.rsplit_once('/').and_then(|(r, rest)| Some((r, rest.rsplit_once(':')?)))
    else {
        bail!("image {written:?} is not REGISTRY/PROGRAM:TAG");
    };
    let registry = changes.registry.as_deref().unwrap_or(registry).trim_end_matches('/');
    Ok(format!("{registry}/{program}:{}", changes.version.as_deref().unwrap_or(tag)))
}

/// The registry and the tag of an image's name.
pub(super) fn parts(image: &str) -> Option<(&str, &str)> {
    let (registry, rest) = image.rsplit_once('/')?;
    Some((registry, rest.rsplit_once(':')?.1))
}

fn parse(text: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    Ok(documents.into_iter().filter(Value::is_object).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(bundle: &Bundle) -> Vec<&str> {
        let at = "/spec/template/spec/containers/0/image";
        bundle.objects.iter().filter_map(|o| o.pointer(at)).filter_map(Value::as_str).collect()
    }

    #[test]
    fn every_object_is_of_a_known_kind_and_has_a_name() {
        let bundle = bundle(&Changes::default()).unwrap();
        assert_eq!(bundle.objects[0]["kind"], "Namespace");
        for object in bundle.definitions.iter().chain(&bundle.objects) {
            assert!(rank(object["kind"].as_str().unwrap()) < rank(""), "{object}");
            assert!(object["metadata"]["name"].is_string(), "{object}");
        }
    }

    /// YAML takes an unquoted Off for false.
    #[test]
    fn every_value_of_an_enumeration_is_a_text() {
        fn enums<'a>(value: &'a Value, found: &mut Vec<&'a Value>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, inner)| {
                    if key == "enum" {
                        found.extend(inner.as_array().into_iter().flatten());
                    }
                    enums(inner, found);
                }),
                Value::Array(list) => list.iter().for_each(|inner| enums(inner, found)),
                _ => {}
            }
        }
        let definitions = parse(DEFINITIONS).unwrap();
        let mut found = Vec::new();
        definitions.iter().for_each(|definition| enums(definition, &mut found));
        assert!(found.len() >= 6 && found.iter().all(|value| value.is_string()), "{found:?}");
    }

    #[test]
    fn registry_version_and_replicas_are_the_users_choice() {
        let version = concat!("v", env!("CARGO_PKG_VERSION"));
        let plain = bundle(&Changes::default()).unwrap();
        assert_eq!(images(&plain).len(), 3);
        assert!(images(&plain).iter().all(|i| i.starts_with("heddle.dev/mesh-") && i.ends_with(version)));
        let changes = Changes {
            registry: Some("mirror.example:5000/heddle/".into()),
            version: Some("v9".into()),
            replicas: Some(3),
            ..Changes::default()
        };
        let chosen = bundle(&changes).unwrap();
        assert!(images(&chosen).contains(&"mirror.example:5000/heddle/mesh-proxy:v9"), "{:?}", images(&chosen));
        let deployment = chosen.objects.iter().find(|o| o["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["spec"]["replicas"], 3);
    }

    #[test]
    fn settings_of_the_mesh_are_made_only_when_chosen() {
        let kinds = |changes: &Changes| -> Vec<String> {
            bundle(changes).unwrap().objects.iter().map(|o| o["kind"].as_str().unwrap().to_owned()).collect()
        };
        assert!(!kinds(&Changes::default()).contains(&"XMesh".to_owned()));
        let chosen = kinds(&Changes { mode: Some(Mode::Permissive), ..Changes::default() });
        assert!(chosen.contains(&"XMesh".to_owned()) && chosen.contains(&"MeshParameters".to_owned()), "{chosen:?}");
    }
}
