//! Peers that are there and say nothing: they must not block anyone else.

use crate::{
    PAIR, RETRIES, none_failed,
    refused::{RIGHT, Rogue, forge, nobody_on_n2},
};
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

#[test]
fn a_peer_that_stalls_in_tls_in_http2_or_with_its_answer_costs_only_its_own_clients_and_is_named() {
    // A short patience of the client's own route, for a peer that lives but does not answer.
    let route = r"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: far, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: far, port: 80}]
  rules: [{timeouts: {request: 12s, backendRequest: 11s}, backendRefs: [{name: far, port: 80}]}]
";
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{route}")).unwrap();
    let near = mesh.address("shop/near").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (root, root_key) = mesh.authority().unwrap();
    // Exactly whom the client expects there.
    let expected = Rogue { uris: &["spiffe://cluster.local/ns/shop/sa/server"], ..RIGHT };
    let (chain, private) = forge(&expected, &root, &root_key);
    std::fs::write(&cert, chain).unwrap();
    std::fs::write(&key, private).unwrap();
    nobody_on_n2(&mesh);

    let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    for (stall, fault, word) in [
        ("handshake", "connect_timeout", "TLS"),
        ("http2", "connect_timeout", "HTTP/2 answer"),
        ("answer", "backend_timeout", ""),
    ] {
        let argv = [&["impostor", "[::]:15008", "--stall", stall][..], &shown[..]].concat();
        let impostor = mesh.pod("shop/far").load(&argv).unwrap();
        eventually(Duration::from_secs(10), || {
            let (_, out, _) = mesh.pod("shop/far").run(&["ss", "-ltnH", "sport = :15008"])?;
            anyhow::ensure!(!out.is_empty(), "{stall}: nobody listens");
            Ok(())
        })
        .unwrap();
        let before = lines_of_far(&mesh).unwrap().len();
        let stuck =
            ["http", "http://far/", "--rate", "20", "--connections", "20", "--count", "20", "--timeout", "20000"];
        let stuck = mesh.pod("shop/client").load(&stuck).unwrap();
        let fine = format!("http://{near}:8080/");
        let fine = ["http", &fine, "--rate", "50", "--count", "500", "--timeout", "3000"];
        none_failed(&mesh.pod("shop/client").load(&fine).unwrap().end().unwrap(), 500);
        let stuck = stuck.end().unwrap();
        assert_eq!((&stuck["sent"], &stuck["failed"]), (&20.into(), &20.into()), "{stall}: {stuck}");
        let report = impostor.end().unwrap();
        assert!(report["dialled"].as_u64() > Some(0), "{stall}: {report}");
        // A line is written a moment after its answer.
        let named = eventually(Duration::from_secs(10), || {
            let named = lines_of_far(&mesh)?.split_off(before);
            anyhow::ensure!(named.len() >= 20, "{stall}: {} lines", named.len());
            Ok(named)
        })
        .unwrap();
        assert!(named.iter().all(|l| l["fault"] == fault), "{stall}: {named:?}");
        // Those that waited for another's dial say so; the one that dialled says where it was left alone.
        let told = named.iter().any(|l| l["detail"].as_str().unwrap_or_default().contains(word));
        assert!(told, "{stall}: no line says {word:?}: {named:?}");
    }
}

/// What the client's proxy has written about requests to the stalled peer, oldest first.
fn lines_of_far(mesh: &Mesh) -> anyhow::Result<Vec<serde_json::Value>> {
    let mut lines = mesh.access_log()?;
    lines.retain(|l| l["service"] == "shop/far:80" && l["direction"] == "outbound");
    Ok(lines)
}
