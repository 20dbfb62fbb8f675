//! A small world whose objects collide on purpose, for property tests: few names, so that references lead to something half of the time.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

/// One edit of the world.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Set(Value),
    Remove(Value),
}

const NAMESPACES: &[&str] = &["a", "b"];
const NAMES: &[&str] = &["x", "y", "z"];

pub(super) fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    proptest::collection::vec(
        (object(), 0..4_u8).prop_map(|(o, n)| if n == 0 { Edit::Remove(o) } else { Edit::Set(o) }),
        1..most,
    )
}

pub(super) fn object() -> impl Strategy<Value = Value> {
    let named = (select(NAMESPACES), select(NAMES), 0..4_u8);
    (named, choice()).prop_map(|((namespace, name, age), (api, kind, body))| {
        let mut object = body;
        object["apiVersion"] = api.into();
        object["kind"] = kind.into();
        object["metadata"]["name"] = name.into();
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:0{age}Z").into();
        if !matches!(kind, "Namespace" | "GatewayClass" | "XMesh" | "MeshParameters") {
            object["metadata"]["namespace"] = namespace.into();
        } else if kind == "Namespace" {
            object["metadata"]["name"] = namespace.into();
        } else if kind == "XMesh" {
            object["metadata"]["name"] = "heddle".into();
        }
        object
    })
}

type Choice = (&'static str, &'static str, Value);
const GW: &str = "gateway.networking.k8s.io/v1";
const X: &str = "gateway.networking.x-k8s.io/v1alpha1";

fn choice() -> impl Strategy<Value = Choice> {
    let name = || select(NAMES);
    let ns = || select(NAMESPACES);
    let label = select(&["enabled", "disabled", "other"][..]);
    prop_oneof![
        1 => label.clone().prop_map(|l| ("v1", "Namespace", json!({"metadata": {"labels": {"heddle.dev/mesh": l}}}))),
        2 => (label, select(&["Running", "Failed"][..]), any::<bool>(), select(&["True", "False"][..])).prop_map(|(l, phase, host, ready)| ("v1", "Pod",
            json!({"metadata": {"labels": {"heddle.dev/mesh": l}}, "spec": {"nodeName": "n1", "hostNetwork": host}, "status": {"phase": phase, "podIP": "10.0.0.1",
                "conditions": [{"type": "ContainersReady", "status": ready}]}}))),
        3 => service().prop_map(|s| ("v1", "Service", s)),
        2 => (name(), any::<bool>(), name(), ns()).prop_map(|(service, ready, pod, namespace)| ("discovery.k8s.io/v1", "EndpointSlice", json!({
            "metadata": {"labels": {"kubernetes.io/service-name": service}}, "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}], "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready},
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace}}]}))),
        1 => select(&["heddle.dev/controller", "other.example/controller"][..]).prop_map(|c| (GW, "GatewayClass", json!({"spec": {"controllerName": c}}))),
        3 => (name(), listener(), listener()).prop_map(|(class, one, two)| {
            let mut listeners = vec![one, two];
            listeners[1]["name"] = "second".into();
            (GW, "Gateway", json!({"metadata": {"annotations": {"heddle.dev/addresses": "10.0.0.9"}}, "spec": {"gatewayClassName": class, "listeners": listeners}}))
        }),
        6 => (parent(), parent(), backend(), rule(), host()).prop_map(|(one, two, backend, mut rule, host)| {
            rule["backendRefs"] = json!([backend]);
            (GW, "HTTPRoute", json!({"spec": {"parentRefs": [one, two], "hostnames": host, "rules": [{"backendRefs": [backend]}, rule]}}))
        }),
        3 => (parent(), backend(), host()).prop_map(|(parent, backend, host)|
            (GW, "GRPCRoute", json!({"spec": {"parentRefs": [parent], "hostnames": host, "rules": [{"backendRefs": [backend]}]}}))),
        2 => (parent(), backend()).prop_map(|(parent, backend)|
            (GW, "TCPRoute", json!({"spec": {"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]}}))),
        2 => (parent(), backend()).prop_map(|(parent, backend)|
            (GW, "TLSRoute", json!({"spec": {"parentRefs": [parent], "hostnames": ["a.example.com"], "rules": [{"backendRefs": [backend]}]}}))),
        2 => (ns(), select(&["HTTPRoute", "GRPCRoute", "Gateway"][..])).prop_map(|(from, kind)| ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant", json!({"spec": {
            "from": [{"group": "gateway.networking.k8s.io", "kind": kind, "namespace": from}], "to": [{"group": "", "kind": "Service"}, {"group": "", "kind": "Secret"}]}}))),
        2 => (name(), name(), any::<bool>()).prop_map(|(one, two, broken)| {
            let mut targets = vec![json!({"group": "", "kind": "Service", "name": one})];
            if one != two { targets.push(json!({"group": "", "kind": "Service", "name": two})); }
            let interval = if broken { "2h" } else { "5s" };
            (X, "XBackendTrafficPolicy", json!({"spec": {"targetRefs": targets, "retryConstraint": {"budget": {"percent": 10, "interval": interval}}}}))
        }),
        1 => name().prop_map(|target| (GW, "BackendTLSPolicy", json!({"spec": {"targetRefs": [{"group": "", "kind": "Service", "name": target}],
            "validation": {"hostname": "h.example.com", "wellKnownCACertificates": "System"}}}))),
        1 => name().prop_map(|p| (X, "XMesh", json!({"spec": {"controllerName": "heddle.dev/controller", "parametersRef": {"group": "heddle.dev", "kind": "MeshParameters", "name": p}}}))),
        1 => select(&["Strict", "Permissive"][..]).prop_map(|m| ("heddle.dev/v1alpha1", "MeshParameters", json!({"spec": {"mode": m}}))),
        1 => select(SECRETS).prop_map(|(crt, key)| ("v1", "Secret", json!({"stringData": {"tls.crt": crt, "tls.key": key}}))),
    ]
}

/// A good one and a broken one.
const SECRETS: &[(&str, &str)] = &[
    (
        include_str!("../../../../tests/golden/plan/certificate.pem"),
        include_str!("../../../../tests/golden/plan/key.pem"),
    ),
    ("none", "none"),
];

fn service() -> impl Strategy<Value = Value> {
    (select(&["10.96.0.1", "None"][..]), select(&["http", "tls", "tcp"][..]), any::<bool>()).prop_map(
        |(ip, app, second)| {
            let mut ports = vec![json!({"name": "http", "port": 80, "appProtocol": app})];
            if second {
                ports.push(json!({"name": "other", "port": 81}));
            }
            json!({"spec": {"clusterIP": ip, "ports": ports}})
        },
    )
}

fn listener() -> impl Strategy<Value = Value> {
    let protocol = select(&["HTTP", "HTTPS", "TLS", "TCP", "UDP"][..]);
    (protocol, select(&[80, 443][..]), select(&["All", "Same", "Selector"][..]), select(NAMES), select(&[None, Some("*.example.com")][..])).prop_map(
        |(protocol, port, from, secret, host)| {
            let mut listener = json!({"name": "first", "port": port, "protocol": protocol,
                "allowedRoutes": {"namespaces": {"from": from, "selector": {"matchLabels": {"heddle.dev/mesh": "enabled"}}}}});
            if matches!(protocol, "HTTPS" | "TLS") {
                listener["tls"] = json!({"mode": "Terminate", "certificateRefs": [{"name": secret, "namespace": "a"}]});
            }
            if let (Some(host), true) = (host, protocol != "TCP" && protocol != "UDP") {
                listener["hostname"] = host.into();
            }
            listener
        },
    )
}

fn parent() -> impl Strategy<Value = Value> {
    let port = proptest::option::of(select(&[80, 81, 443][..]));
    (any::<bool>(), select(NAMES), select(NAMESPACES), port).prop_map(|(service, name, namespace, port)| {
        let (group, kind) = if service { ("", "Service") } else { ("gateway.networking.k8s.io", "Gateway") };
        let mut parent = json!({"group": group, "kind": kind, "name": name, "namespace": namespace});
        if let Some(port) = port {
            parent["port"] = port.into();
        }
        parent
    })
}

fn backend() -> impl Strategy<Value = Value> {
    (select(NAMES), select(NAMESPACES), select(&[80, 81, 82][..]), select(&["Service", "Thing"][..])).prop_map(|(name, namespace, port, kind)| {
        json!({"kind": kind, "name": name, "namespace": namespace, "port": port, "weight": 1})
    })
}

fn host() -> impl Strategy<Value = Value> {
    select(&["a.example.com", "b.example.org"][..]).prop_map(|h| json!([h]))
}

/// Rules, some of which cannot be applied.
fn rule() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"matches": [{"path": {"type": "RegularExpression", "value": "/a("}}]})),
        Just(json!({"matches": [{"path": {"type": "Exact", "value": "/ok"}}]})),
        Just(json!({"filters": [{"type": "ExtensionRef", "extensionRef": {"group": "g.example", "kind": "K", "name": "n"}}]})),
        select(NAMES).prop_map(|n| json!({"filters": [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": n, "port": 80}}}]})),
    ]
}
