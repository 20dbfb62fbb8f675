//! Admission: what an API server fills in for core kinds, and names it would refuse.

use super::*;
use serde_json::json;

fn admitted(mut object: Value) -> Value {
    assert!(matches!(admit(&mut object), Ok(Admitted::Yes(_))), "{object}: {:?}", admit(&mut object.clone()));
    object
}

fn flaws(mut object: Value) -> Vec<String> {
    match admit(&mut object) {
        Err(denied) => denied.flaws.into_iter().map(|f| format!("{} {}", f.field, f.reason)).collect(),
        Ok(other) => panic!("{other:?}"),
    }
}

#[test]
fn core_kinds_get_the_defaults_of_an_api_server() {
    let service = admitted(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(service["metadata"]["namespace"], "default");
    assert_eq!(
        service["spec"],
        json!({"type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    let pod = admitted(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 1}]}]}}));
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    let slice =
        admitted(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a"},
        "addressType": "IPv6", "ports": [{"port": 1}], "endpoints": [{"addresses": ["fd00::1"]}]}));
    assert_eq!(slice["ports"], json!([{"port": 1, "protocol": "TCP", "name": ""}]));
}

#[test]
fn names_and_labels_follow_the_rules_of_the_api() {
    let namespace = |metadata: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
    assert_eq!(flaws(namespace(json!({}))), ["metadata.name is required"]);
    assert_eq!(flaws(namespace(json!({"name": 7}))), ["metadata.name must be a string"]);
    assert_eq!(
        flaws(namespace(json!({"name": "a.b", "labels": {"heddle.dev/mesh": true, "-x": "ok", "y": "no no"}}))),
        [
            "metadata.name \"a.b\" must consist of lower case letters, digits and '-', at most 63",
            "metadata.labels.-x \"-x\" is not a label name",
            "metadata.labels.heddle.dev/mesh must be a string, not true (quote it)",
            "metadata.labels.y \"no no\" is not a label value",
        ]
    );
    assert_eq!(
        flaws(json!({"apiVersion": "gateway.networking.k8s.io/v9", "kind": "HTTPRoute", "metadata": {"name": "a"}})),
        ["apiVersion gateway.networking.k8s.io/v9 is not a version of HTTPRoute that is served"]
    );
    assert_eq!(flaws(json!([1])), [" is not an object"]);
}

#[test]
fn lists_of_something_else_are_named() {
    let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "a"},
        "addressType": "IPv4", "endpoints": [false, {"addresses": "10.0.0.1"}], "ports": {}});
    assert_eq!(flaws(slice), ["ports must be a list", "endpoints[0] must be an object"]);
}

#[test]
fn a_tls_route_of_v1alpha2_needs_no_hostnames() {
    let route = |version: &str| {
        json!({"apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": "TLSRoute", "metadata": {"name": "a"},
            "spec": {"rules": [{"backendRefs": [{"name": "b", "port": 1}]}]}})
    };
    assert_eq!(flaws(route("v1")), ["spec.hostnames is required"]);
    admitted(route("v1alpha2"));
}

/// Gateway API publishes examples that an API server must refuse.
#[test]
fn every_published_invalid_example_is_refused() {
    let cache = std::process::Command::new("go").args(["env", "GOMODCACHE"]).output().expect("go is installed");
    let cache = std::path::PathBuf::from(String::from_utf8(cache.stdout).unwrap().trim());
    let folder = cache.join("sigs.k8s.io/gateway-api@v1.7.0/hack/invalid-examples");
    let mut folders = vec![folder.clone()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| {
            panic!("{}: {e}; run: go mod download sigs.k8s.io/gateway-api@v1.7.0", folder.display())
        });
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let object: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert!(!flaws(object).is_empty(), "{}", path.display());
        }
    }
    assert!(files >= 36, "only {files} in {}", folder.display());
}

#[test]
fn arbitrary_objects_never_panic() {
    use proptest::prelude::*;
    // Any JSON below the fields that admission walks through.
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-zA-Z0-9/%.*-]{0,8}".prop_map(Value::from)
    ];
    let any = leaf.prop_recursive(4, 32, 4, |inner| {
        let field = prop::sample::select(vec![
            "spec",
            "rules",
            "matches",
            "path",
            "ports",
            "listeners",
            "tls",
            "filters",
            "type",
            "backendRefs",
            "requestMirror",
            "data",
            "containers",
            "endpoints",
            "addresses",
            "parentRefs",
            "labels",
            "name",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(field.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    });
    let kind = prop::sample::select(Kind::ALL.to_vec());
    proptest!(|(kind in kind, body in any, metadata in prop::option::of(Just(json!({"name": "a"}))))| {
        let mut object = if body.is_object() { body } else { json!({ "spec": body }) };
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.as_str().into();
        if let Some(metadata) = metadata {
            object["metadata"] = metadata;
        }
        let _ = admit(&mut object);
    });
}
