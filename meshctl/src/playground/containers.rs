//! From a container of a pod to a command line and environment of this machine. Pure but for looking up ConfigMaps and Secrets in the objects given.

use super::folder::{Key, Object};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// The built-in image.
pub const ECHO_IMAGE: &str = "heddle.dev/echo";

/// A process to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment, besides that of the supervisor.
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub workdir: Option<PathBuf>,
}

/// Whether a container is the built-in echo server.
pub fn is_echo(container: &Container) -> bool {
    let image = container.image.as_deref().unwrap_or_default();
    let name = image.split(['@']).next().unwrap_or_default();
    let name = name.rsplit_once(':').map_or(name, |(n, tag)| if tag.contains('/') { name } else { n });
    name == ECHO_IMAGE && container.command.is_none()
}

/// The process of a container, or why there is none.
pub fn process(
    pod: &Pod,
    container: &Container,
    node: &str,
    address: &str,
    objects: &BTreeMap<Key, Object>,
    meshctl: &Path,
) -> Result<Process, String> {
    let facts = Facts { pod, node, address, objects };
    let mut env =
        BTreeMap::from([("HOSTNAME".to_owned(), facts.name()), ("KUBERNETES_NODE".to_owned(), node.to_owned())]);
    for variable in container.env.iter().flatten() {
        let value = facts.value(variable, &env)?;
        env.insert(variable.name.clone(), value);
    }
    let args: Vec<String> = container.args.iter().flatten().map(|a| expand(a, &env)).collect();
    let argv: Vec<String> = if is_echo(container) {
        env.insert("ECHO_POD".into(), facts.name());
        env.insert("ECHO_NAMESPACE".into(), facts.namespace());
        env.insert("ECHO_NODE".into(), node.to_owned());
        [meshctl.display().to_string(), "echo-server".into()].into_iter().chain(args).collect()
    } else {
        let command = container.command.iter().flatten().map(|a| expand(a, &env));
        command.chain(args).collect()
    };
    if argv.is_empty() || (container.command.is_none() && !is_echo(container)) {
        let image = container.image.as_deref().unwrap_or_default();
        return Err(format!(
            "container {}: image {image:?} is not here; give a command (it runs on this machine) or use {ECHO_IMAGE}",
            container.name
        ));
    }
    Ok(Process { argv, env, workdir: container.working_dir.clone().map(PathBuf::from) })
}

struct Facts<'a> {
    pod: &'a Pod,
    node: &'a str,
    address: &'a str,
    objects: &'a BTreeMap<Key, Object>,
}

impl Facts<'_> {
    fn name(&self) -> String {
        self.pod.metadata.name.clone().unwrap_or_default()
    }

    fn namespace(&self) -> String {
        self.pod.metadata.namespace.clone().unwrap_or_default()
    }

    fn value(&self, variable: &EnvVar, env: &BTreeMap<String, String>) -> Result<String, String> {
        let Some(from) = &variable.value_from else {
            return Ok(expand(variable.value.as_deref().unwrap_or_default(), env));
        };
        if let Some(field) = &from.field_ref {
            return self
                .field(&field.field_path)
                .ok_or_else(|| format!("env {}: unknown field {}", variable.name, field.field_path));
        }
        let found = match (&from.config_map_key_ref, &from.secret_key_ref) {
            (Some(r), _) => self.entry("ConfigMap", &r.name, &r.key).or_else(|| r.optional?.then(String::new)),
            (_, Some(r)) => self.entry("Secret", &r.name, &r.key).or_else(|| r.optional?.then(String::new)),
            _ => None,
        };
        found.ok_or_else(|| format!("env {}: what valueFrom names is not there", variable.name))
    }

    fn field(&self, path: &str) -> Option<String> {
        let metadata = &self.pod.metadata;
        let keyed = |map: &Option<BTreeMap<String, String>>, prefix: &str| {
            let key = path.strip_prefix(prefix)?.strip_suffix("']")?;
            Some(map.as_ref()?.get(key)?.clone())
        };
        match path {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            "metadata.uid" => metadata.uid.clone(),
            "spec.nodeName" => Some(self.node.to_owned()),
            "spec.serviceAccountName" => {
                Some(self.pod.spec.as_ref()?.service_account_name.clone().unwrap_or_else(|| "default".into()))
            }
            "status.podIP" | "status.podIPs" => Some(self.address.to_owned()),
            _ => keyed(&metadata.labels, "metadata.labels['")
                .or_else(|| keyed(&metadata.annotations, "metadata.annotations['")),
        }
    }

    fn entry(&self, kind: &str, name: &str, key: &str) -> Option<String> {
        let at = Key { group: String::new(), kind: kind.into(), namespace: self.namespace(), name: name.into() };
        let object: &Value = &self.objects.get(&at)?.value;
        let plain = if kind == "Secret" { "stringData" } else { "data" };
        object[plain][key].as_str().map(str::to_owned)
    }
}

/// `$(NAME)` becomes the variable's value; an unknown one stays as it is, and `$$(` is `$(`.
fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("$(") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        let value = after.find(')').and_then(|end| Some((env.get(&after[..end])?, end)));
        match value {
            _ if before.ends_with('$') => {
                out.push_str(&before[..at - 1]);
                out.push_str("$(");
                rest = after;
            }
            Some((value, end)) => {
                out.push_str(before);
                out.push_str(value);
                rest = &after[end + 1..];
            }
            None => {
                out.push_str(before);
                out.push_str("$(");
                rest = after;
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let env = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        assert_eq!(expand("x$(A)y$(B)z$$(A)", &env), "x1y$(B)z$(A)");
    }

    #[test]
    fn an_image_without_command_is_refused_and_echo_is_known_with_a_tag() {
        let container = |image: &str| Container { name: "c".into(), image: Some(image.into()), ..Default::default() };
        assert!(is_echo(&container("heddle.dev/echo:v1")) && is_echo(&container("heddle.dev/echo")));
        assert!(!is_echo(&container("localhost:5000/heddle.dev/echo")));
        let pod = Pod::default();
        let error = process(&pod, &container("nginx"), "n1", "", &BTreeMap::new(), Path::new("meshctl")).unwrap_err();
        assert!(error.contains("\"nginx\" is not here"), "{error}");
    }
}
