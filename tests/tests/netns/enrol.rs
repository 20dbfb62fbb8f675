//! Running pods come into the mesh and leave it under load: by label, by `mode: Off`, from permissive to strict. No request fails by it.

use crate::{PAIR, none_failed};
use mesh_tests::{Load, Mesh, eventually};
use std::time::Duration;

/// Steps that wait for all nodes take seconds (20 to become strict); a busy machine some more.
const SETTLED: Duration = Duration::from_secs(60);

fn plain() -> String {
    let text = PAIR.replace("metadata: {name: shop, labels: {heddle.dev/mesh: enabled}}", "metadata: {name: shop}");
    assert_ne!(text, PAIR);
    text
}

fn mode(mode: &str) -> String {
    format!(
        r"
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {{name: heddle}}
spec:
  controllerName: heddle.dev/controller
  parametersRef: {{group: heddle.dev, kind: MeshParameters, name: heddle}}
---
apiVersion: heddle.dev/v1alpha1
kind: MeshParameters
metadata: {{name: heddle}}
spec: {{mode: {mode}}}
"
    )
}

/// Requests on kept connections, on new ones, and on HTTP/2, and long TCP connections.
struct Loads(Vec<(&'static str, Load)>);

impl Loads {
    fn start(mesh: &Mesh) -> Self {
        let start = |name, args: &[&str]| (name, mesh.pod("shop/client").load(args).unwrap());
        Self(vec![
            start("kept", &["http", "http://server/", "--rate", "50"]),
            start("new", &["http", "http://server/", "--rate", "20", "--fresh"]),
            start("h2", &["http", "http://server/", "--rate", "50", "--h2"]),
            start("bytes", &["steady", "server:9000"]),
        ])
    }

    #[track_caller]
    fn end(self) {
        let ended: Vec<_> = self.0.into_iter().map(|(name, load)| (name, load.end().unwrap())).collect();
        for (name, report) in ended {
            if name == "bytes" {
                assert_eq!(report["cut"].as_array().map(Vec::len), Some(0), "long connections: {report:#}");
            } else {
                eprintln!("{name}: {} requests", report["sent"]);
                none_failed(&report, 50);
            }
        }
    }
}

/// Waits until a stranger's plaintext is taken or refused.
fn strict(mesh: &Mesh, is: bool) {
    let far = mesh.address("shop/far").unwrap();
    eventually(SETTLED, || {
        let outcome = mesh.pod("outside/outsider").request(&format!("http://{far}:8080/"))?;
        anyhow::ensure!((outcome.status == Some(200)) != is, "strict is not {is}: {outcome:?}");
        Ok(())
    })
    .unwrap();
}

/// Whether a request of a client in the namespace is seen in plaintext where it arrives.
fn is_plaintext(mesh: &Mesh, word: &str) -> bool {
    let capture = mesh.pod("shop/far").capture().unwrap();
    for _ in 0..5 {
        assert_eq!(mesh.pod("shop/client").request(&format!("http://far/{word}")).unwrap().status, Some(200));
    }
    eventually(Duration::from_secs(10), || {
        anyhow::ensure!(capture.count("tcp")? > 5, "nothing is captured");
        Ok(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(300));
    capture.contains(word).unwrap()
}

#[test]
fn a_live_namespace_is_labelled_and_unlabelled_without_a_failed_request() {
    let mesh = Mesh::up(&plain()).unwrap();
    assert!(is_plaintext(&mesh, "before-the-label"));
    let before = Loads::start(&mesh);
    std::thread::sleep(Duration::from_secs(2));
    mesh.write("mesh.yaml", PAIR).unwrap();
    // mTLS as soon as both ends are captured, long before plaintext is refused.
    eventually(Duration::from_secs(15), || {
        anyhow::ensure!(!is_plaintext(&mesh, "on-the-way-in"), "still plaintext");
        Ok(())
    })
    .unwrap();
    strict(&mesh, true);
    assert!(!is_plaintext(&mesh, "in-the-mesh"));
    // These begin inside the mesh and outlive it.
    let within = Loads::start(&mesh);
    std::thread::sleep(Duration::from_secs(2));
    mesh.write("mesh.yaml", &plain()).unwrap();
    strict(&mesh, false);
    eventually(Duration::from_secs(30), || {
        anyhow::ensure!(is_plaintext(&mesh, "out-again"), "still mTLS");
        Ok(())
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(12));
    mesh.write("mesh.yaml", PAIR).unwrap();
    strict(&mesh, true);
    before.end();
    within.end();
}

#[test]
fn the_mesh_is_switched_off_and_on_under_load_without_a_failed_request() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{}", mode("Strict"))).unwrap();
    strict(&mesh, true);
    let loads = Loads::start(&mesh);
    std::thread::sleep(Duration::from_secs(2));
    mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", mode("Off"))).unwrap();
    strict(&mesh, false);
    eventually(Duration::from_secs(30), || {
        anyhow::ensure!(is_plaintext(&mesh, "switched-off"), "still mTLS");
        Ok(())
    })
    .unwrap();
    mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", mode("Strict"))).unwrap();
    strict(&mesh, true);
    assert!(!is_plaintext(&mesh, "switched-on"));
    loads.end();
}

#[test]
fn permissive_becomes_strict_and_back_under_load_without_a_failed_request() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{}", mode("Permissive"))).unwrap();
    strict(&mesh, false);
    let loads = Loads::start(&mesh);
    // Each turn takes half a second or less; the load is to meet many of them.
    for turn in 0..25 {
        let is = turn % 2 == 0;
        let word = if is { "Strict" } else { "Permissive" };
        mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", mode(word))).unwrap();
        strict(&mesh, is);
        assert!(!is_plaintext(&mesh, "whatever-the-mode"));
    }
    loads.end();
}
