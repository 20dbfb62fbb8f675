//! Tests of the door and of the store.

use super::*;
use serde_json::json;

fn set(mut object: serde_json::Value) -> Change {
    Change::Set(Box::new(admit(&mut object).unwrap()))
}

#[test]
fn a_kind_that_the_mesh_does_not_read_is_named() {
    let refused =
        observe(&json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"}})).unwrap_err();
    assert_eq!(refused.to_string(), "object: kind apps/v1 DaemonSet is not a kind that the mesh reads");
}

#[test]
fn an_unreadable_object_says_which_and_why() {
    for (mut object, message) in [
        (json!({"apiVersion": "v1", "kind": "Pod", "metadata": {}}), "object: metadata.name is required"),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}),
            "Pod//a: metadata.namespace is required",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}, "status": {"podIPs": [{"ip": "1.2.3"}]}}),
            "Pod/n/a: status.podIPs[0].ip \"1.2.3\" is not an IP address",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "n"}, "spec": {"ports": [{"port": 80}, {"port": 0}]}}),
            "Service/n/a: spec.ports[1].port must be a port, 1 to 65535",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a", "namespace": "n"}, "data": {"tls.crt": "%"}}),
            "Secret/n/a: data.tls.crt is not base64",
        ),
        (
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "a"}, "spec": {}}),
            "GatewayClass/a: spec.controllerName is required",
        ),
    ] {
        let refused = admit(&mut object).unwrap_err().to_string();
        assert!(refused.starts_with(message.replace("Pod//a", "Pod/a").as_str()), "{refused}");
    }
}

#[test]
fn the_same_object_again_changes_nothing() {
    let mut inventory = Inventory::new();
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "n"}});
    assert_eq!(inventory.apply(set(pod.clone())).len(), 1);
    assert_eq!(inventory.apply(set(pod)), []);
    let key = Key::new(Kind::Pod, "n/a".parse().unwrap());
    assert_eq!(inventory.apply(Change::Remove(key.clone())).len(), 1);
    assert_eq!(inventory.apply(Change::Remove(key)), []);
}

#[test]
fn an_object_of_the_whole_cluster_has_no_namespace_whatever_is_written() {
    let mut inventory = Inventory::new();
    let class = |namespace: &str| {
        set(
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "heddle", "namespace": namespace},
            "spec": {"controllerName": "heddle.dev/controller"}}),
        )
    };
    assert_eq!(inventory.apply(class("shop")).len(), 1);
    assert_eq!(inventory.apply(class("")), [], "it is the same");
    assert_eq!(inventory.apply(Change::Remove(Key::cluster(Kind::GatewayClass, "heddle"))).len(), 1);
    assert!(inventory.classes.is_empty());
}

#[test]
fn a_moved_policy_touches_its_old_and_its_new_target() {
    let mut inventory = Inventory::new();
    let policy = |target: &str| {
        set(
            json!({"apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XBackendTrafficPolicy", "metadata": {"name": "p", "namespace": "n"},
            "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": target}]}}),
        )
    };
    inventory.apply(policy("a"));
    let facts = inventory.apply(policy("b"));
    let of = |name: &str| Fact::TrafficPoliciesOf(format!("n/{name}").parse().unwrap());
    assert!(facts.contains(&of("a")) && facts.contains(&of("b")), "{facts:?}");
    assert_eq!(inventory.traffic_policies_of.len(), 1);
}

#[test]
fn a_pod_of_a_deployment_is_owned_by_the_deployment() {
    let mut inventory = Inventory::new();
    inventory.apply(set(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "cart-7d4-x", "namespace": "n", "labels": {"pod-template-hash": "7d4"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "cart-7d4", "controller": true}]}})));
    inventory.apply(set(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare", "namespace": "n"}})));
    let owners: Vec<_> = inventory.pods.iter().map(|p| p.spec.owner.to_string()).collect();
    assert_eq!(owners, ["bare", "cart"]);
}
