//! A kubelet's probes of strict pods, made from their node as a kubelet makes them; and that the node gets nothing else.

use crate::PAIR;
use mesh_tests::{Mesh, eventually};
use std::time::Duration;

const PROBED: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: http, namespace: shop}
spec:
  nodeName: n2
  containers:
  - name: main
    image: heddle.dev/echo
    ports: [{name: web, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /ready?x=1, port: web}, periodSeconds: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: tcp, namespace: shop}
spec:
  nodeName: n2
  containers: [{name: main, image: heddle.dev/echo, readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Pod
metadata: {name: deaf, namespace: shop}
spec:
  nodeName: n2
  containers: [{name: main, image: heddle.dev/echo, readinessProbe: {tcpSocket: {port: 9999}, periodSeconds: 1}}]
---
apiVersion: v1
kind: Pod
metadata: {name: failing, namespace: shop}
spec:
  nodeName: n2
  containers: [{name: main, image: heddle.dev/echo, readinessProbe: {httpGet: {path: '/?status=503', port: 8080}, periodSeconds: 1}}]
";

#[test]
fn a_kubelet_probes_strict_pods_and_hears_the_truth() {
    let mesh = Mesh::start(&format!("{PAIR}\n---\n{PROBED}")).unwrap();
    let ready = |name: &str| {
        let report = mesh.report()?;
        let pod = report.pods.iter().find(|p| p.name == name);
        pod.map(|p| p.ready && p.phase == "Running").ok_or_else(|| anyhow::anyhow!("no pod {name}"))
    };
    eventually(Duration::from_secs(60), || {
        for name in ["http", "tcp", "far"] {
            anyhow::ensure!(ready(name)?, "{name} is not ready: {:?}", mesh.report()?.waiting_for);
        }
        Ok(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert!(!ready("deaf").unwrap(), "nobody listens there");
    assert!(!ready("failing").unwrap(), "it answers 503");
    // Strict all the same, for everybody else.
    let http = mesh.address("shop/http").unwrap();
    for url in [format!("http://{http}:8080/ready?x=1"), format!("http://{http}:8080/")] {
        let outcome = mesh.pod("outside/outsider").request(&url).unwrap();
        assert!(outcome.error.is_some() && outcome.status.is_none(), "{url}: {outcome:?}");
    }
}
