//! Trimming: what no plan reads is dropped before an object is kept or sent on, so that a large cluster fits. Pure. It must not change what is read.

use crate::inventory::Kind;
use serde_json::{Map, Value};

/// Prefix of our own annotations; of all others none is read, and some hold whole objects.
const OURS: &str = "heddle.dev/";

/// Fields of a pod's metadata that are kept; labels, annotations and owners with them.
const POD_SPEC: [&str; 6] =
    ["nodeName", "serviceAccountName", "hostNetwork", "containers", "initContainers", "readinessGates"];
const POD_STATUS: [&str; 4] = ["phase", "podIP", "podIPs", "conditions"];
/// What says which probes the kubelet sends.
const CONTAINER: [&str; 7] =
    ["name", "ports", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "restartPolicy"];

/// Trims an object and names its kind, which items of lists do not say.
pub(super) fn trim(kind: Kind, object: &mut Value) {
    let Some(fields) = object.as_object_mut() else { return };
    fields.insert("apiVersion".into(), kind.api_version().into());
    fields.insert("kind".into(), kind.as_str().into());
    if let Some(metadata) = map(fields, "metadata") {
        metadata.remove("managedFields");
        if let Some(annotations) = map(metadata, "annotations") {
            annotations.retain(|name, _| name.starts_with(OURS));
        }
    }
    match kind {
        Kind::Pod => pod(fields),
        Kind::Secret => {
            if let Some(data) = map(fields, "data") {
                data.retain(|name, _| matches!(name.as_str(), "tls.crt" | "tls.key"));
            }
        }
        Kind::Namespace => {
            fields.remove("spec");
            fields.remove("status");
        }
        Kind::Service => {
            // Conditions and the like; the load balancer's addresses are read.
            if let Some(status) = map(fields, "status") {
                status.retain(|name, _| name == "loadBalancer");
            }
        }
        _ => {}
    }
}

fn pod(fields: &mut Map<String, Value>) {
    if let Some(spec) = map(fields, "spec") {
        spec.retain(|name, _| POD_SPEC.contains(&name.as_str()));
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten();
            for container in containers.filter_map(Value::as_object_mut) {
                container.retain(|name, _| CONTAINER.contains(&name.as_str()));
            }
        }
    }
    if let Some(status) = map(fields, "status") {
        status.retain(|name, _| POD_STATUS.contains(&name.as_str()));
        let conditions = status.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten();
        for condition in conditions.filter_map(Value::as_object_mut) {
            condition.retain(|name, _| matches!(name.as_str(), "type" | "status"));
        }
    }
}

fn map<'a>(fields: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Map<String, Value>> {
    fields.get_mut(name).and_then(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn of_a_pod_only_what_is_read_is_kept() {
        let mut object = json!({
            "metadata": {"name": "a", "managedFields": [{}], "annotations": {"heddle.dev/x": "1", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
            "spec": {"nodeName": "n1", "volumes": [{}], "containers": [{"name": "c", "image": "i", "env": [{}], "livenessProbe": {"httpGet": {"port": 80}}}]},
            "status": {"phase": "Running", "podIPs": [], "containerStatuses": [{}], "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null}]},
        });
        trim(Kind::Pod, &mut object);
        assert_eq!(
            object,
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a", "annotations": {"heddle.dev/x": "1"}},
                "spec": {"nodeName": "n1", "containers": [{"name": "c", "livenessProbe": {"httpGet": {"port": 80}}}]},
                "status": {"phase": "Running", "podIPs": [], "conditions": [{"type": "Ready", "status": "True"}]},
            })
        );
    }

    #[test]
    fn a_routes_spec_and_status_are_left_whole() {
        let mut object =
            json!({"metadata": {"name": "r"}, "spec": {"rules": [{"name": "x"}]}, "status": {"parents": []}});
        trim(Kind::HttpRoute, &mut object);
        assert_eq!(object["spec"], json!({"rules": [{"name": "x"}]}));
        assert_eq!((&object["status"], &object["kind"]), (&json!({"parents": []}), &json!("HTTPRoute")));
    }
}
