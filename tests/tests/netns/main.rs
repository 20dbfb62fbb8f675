//! Rung 4: the real programs in network namespaces, under faults. Each test is topology, action, assertion; a missing privilege or program fails it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod churn;
mod crowd;
mod encrypted;
mod enrol;
mod faults;
mod handover;
mod probes;
mod refused;
mod stalled;

/// Two meshed namespaces' worth of pods on two nodes: a client, a server with one replica on each node, and someone outside the mesh.
const PAIR: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {heddle.dev/mesh: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: outside}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: client, namespace: shop}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: server, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec:
  nodeName: n1
  serviceAccountName: client
  containers: [{name: main, image: local, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: near, namespace: shop, labels: {app: server}}
spec:
  nodeName: n1
  serviceAccountName: server
  containers: [{name: main, image: heddle.dev/echo, args: [--http, "8080", --tcp, "9000", --greet, "9100"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: shop, labels: {app: server, where: far}}
spec:
  nodeName: n2
  serviceAccountName: server
  containers: [{name: main, image: heddle.dev/echo, args: [--http, "8080", --tcp, "9000", --greet, "9100"]}]
---
apiVersion: v1
kind: Service
metadata: {name: server, namespace: shop}
spec:
  selector: {app: server}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
  - {name: tcp, port: 9000, appProtocol: tcp}
  - {name: greet, port: 9100}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: shop}
spec:
  selector: {where: far}
  ports:
  - {name: http, port: 80, targetPort: 8080, appProtocol: http}
  - {name: tcp, port: 9000, appProtocol: tcp}
  - {name: greet, port: 9100}
---
apiVersion: v1
kind: Pod
metadata: {name: outsider, namespace: outside}
spec:
  nodeName: n1
  containers: [{name: main, image: heddle.dev/echo}]
---
apiVersion: v1
kind: Service
metadata: {name: outsider, namespace: outside}
spec:
  selector: {}
  ports: [{port: 80, targetPort: 8080}]
"#;

/// A retry rule for every request to `server`: what an operator who wants no failed request writes.
const RETRIES: &str = r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: server, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: server, port: 80}]
  rules:
  - backendRefs: [{name: server, port: 80}]
    retry: {attempts: 3, backoff: 20ms, codes: [502, 503]}
";

/// Fails unless a load report counts no failure; says which failed and why.
#[track_caller]
fn none_failed(report: &serde_json::Value, at_least: u64) {
    let sent = report["sent"].as_u64().unwrap_or_default();
    assert!(sent >= at_least, "the load sent only {sent} requests: {report}");
    assert_eq!(report["failed"], 0, "{report:#}");
}
