//! Peers that are there and say nothing: they must not block anyone else.

use crate::{PAIR, RETRIES, none_failed};
use mesh_tests::{Mesh, eventually};
use std::time::Duration;

#[test]
fn a_stalled_node_does_not_block_requests_to_others() {
    let route = RETRIES
        .replace("retry:", "timeouts: {backendRequest: 500ms}\n    retry:")
        .replace("[502, 503]", "[502, 503, 504]");
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{route}")).unwrap();
    assert_eq!(mesh.pod("shop/client").request("http://server/").unwrap().status, Some(200));
    // SIGSTOP: the kernel still accepts, nobody answers: neither TLS nor HTTP/2.
    mesh.program("node/n2", "pause").unwrap();
    let load = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "50", "--count", "400"]).unwrap();
    let report = load.end().unwrap();
    mesh.program("node/n2", "resume").unwrap();
    none_failed(&report, 400);
    eventually(Duration::from_secs(20), || {
        let outcome = mesh.pod("shop/client").request("http://far/")?;
        anyhow::ensure!(outcome.status == Some(200), "{outcome:?}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn an_application_that_accepts_and_is_silent_costs_only_its_own_clients() {
    let load = mesh_tests::program("mesh-load");
    let silent = format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: silent, namespace: shop, labels: {{app: silent}}}}
spec:
  containers: [{{name: main, image: local, command: ["{}", silent, --port, "8080"]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: silent, namespace: shop}}
spec: {{selector: {{app: silent}}, ports: [{{port: 80, targetPort: 8080, appProtocol: http}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: silent, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: silent}}]
  rules: [{{timeouts: {{request: 300ms}}, backendRefs: [{{name: silent, port: 80}}]}}]
"#,
        load.display()
    );
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{silent}")).unwrap();
    let stuck = mesh.pod("shop/client").load(&["http", "http://silent/", "--rate", "50", "--count", "200"]).unwrap();
    let fine = mesh.pod("shop/client").load(&["http", "http://far/", "--rate", "50", "--count", "200"]).unwrap();
    none_failed(&fine.end().unwrap(), 200);
    let stuck = stuck.end().unwrap();
    assert_eq!(stuck["statuses"]["504"], 200, "{stuck}");
}
