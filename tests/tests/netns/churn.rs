//! Change under load: routes, labels, pods. No request fails by it.

use crate::{PAIR, RETRIES, none_failed};
use mesh_tests::{Mesh, eventually};
use std::time::Duration;

fn route(version: usize) -> String {
    format!(
        r#"
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: server, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: server, port: 80}}]
  rules:
  - backendRefs: [{{name: server, port: 80}}]
    filters:
    - type: ResponseHeaderModifier
      responseHeaderModifier: {{set: [{{name: x-version, value: "{version}"}}]}}
"#
    )
}

#[test]
fn a_hundred_route_changes_fail_no_request_and_each_is_soon_live() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{}", route(0))).unwrap();
    let load = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "200"]).unwrap();
    let other = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "50", "--h2"]).unwrap();
    for version in 1..=100 {
        mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", route(version))).unwrap();
        eventually(Duration::from_secs(5), || {
            let outcome = mesh.pod("shop/client").request("http://server/")?;
            anyhow::ensure!(
                outcome.headers.get("x-version") == Some(&version.to_string()),
                "version {version}: {outcome:?}"
            );
            Ok(())
        })
        .unwrap();
    }
    none_failed(&load.end().unwrap(), 100);
    none_failed(&other.end().unwrap(), 50);
}

#[test]
fn a_broken_edit_keeps_the_last_good_route_and_says_where() {
    let mesh = Mesh::up(PAIR).unwrap();
    mesh.write("route.yaml", &route(1)).unwrap();
    let version = || mesh.pod("shop/client").request("http://server/").unwrap().headers.get("x-version").cloned();
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(version().as_deref() == Some("1"));
        Ok(())
    })
    .unwrap();
    mesh.write("route.yaml", &route(2).replace("port: 80}]", "port: eighty}]")).unwrap();
    let problem = eventually(Duration::from_secs(5), || {
        mesh.report()?
            .problems
            .into_iter()
            .find(|p| p.file.ends_with("route.yaml"))
            .ok_or_else(|| anyhow::anyhow!("no problem is told"))
    })
    .unwrap();
    assert!(problem.line > 0 && problem.object.contains("server") && problem.field.contains("port"), "{problem:?}");
    assert_eq!(version().as_deref(), Some("1"));
    mesh.write("route.yaml", &route(3)).unwrap();
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(version().as_deref() == Some("3"));
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_running_pod_is_enrolled_and_released_by_its_label() {
    let labelled = |label: &str| {
        PAIR.replace(
            "metadata: {name: outside}",
            &format!("metadata: {{name: outside, labels: {{heddle.dev/mesh: {label}}}}}"),
        )
    };
    let mesh = Mesh::up(PAIR).unwrap();
    let reaches = || mesh.pod("outside/outsider").request("http://far.shop/").map(|o| o.status == Some(200));
    assert!(!reaches().unwrap(), "an unmeshed pod reaches a strict one");
    let before = mesh.report().unwrap().pods.iter().find(|p| p.name == "outsider").map(|p| p.restarts);
    for (label, reached) in [("enabled", true), ("disabled", false), ("enabled", true)] {
        mesh.write("mesh.yaml", &labelled(label)).unwrap();
        // A pod that leaves does so in steps that take five seconds.
        eventually(Duration::from_secs(20), || {
            anyhow::ensure!(reaches()? == reached, "label {label}: reached is not {reached}");
            Ok(())
        })
        .unwrap();
    }
    assert_eq!(mesh.report().unwrap().pods.iter().find(|p| p.name == "outsider").map(|p| p.restarts), before);
}

#[test]
fn a_pod_that_goes_and_comes_under_load_fails_no_request() {
    let deployment = |replicas: usize| {
        format!(
            r#"
apiVersion: apps/v1
kind: Deployment
metadata: {{name: crew, namespace: shop}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: crew}}}}
  template:
    metadata: {{labels: {{app: crew}}}}
    spec:
      serviceAccountName: server
      containers: [{{name: main, image: heddle.dev/echo}}]
---
apiVersion: v1
kind: Service
metadata: {{name: crew, namespace: shop}}
spec: {{selector: {{app: crew}}, ports: [{{port: 80, targetPort: 8080, appProtocol: http}}]}}
"#
        )
    };
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{}", deployment(2))).unwrap();
    let load = mesh.pod("shop/client").load(&["http", "http://crew/", "--rate", "100"]).unwrap();
    for replicas in [5, 1, 4, 2] {
        mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", deployment(replicas))).unwrap();
        eventually(Duration::from_secs(60), || {
            // The ones that end have to be gone, too: they finish what they serve.
            let crew: Vec<_> = mesh.report()?.pods.into_iter().filter(|p| p.owner.ends_with("crew")).collect();
            let ready = crew.iter().filter(|p| p.ready).count();
            anyhow::ensure!(ready == replicas && crew.len() == replicas, "{ready} of {replicas} are ready: {crew:?}");
            Ok(())
        })
        .unwrap();
    }
    none_failed(&load.end().unwrap(), 20);
}

#[test]
fn retries_hide_an_endpoint_that_resets() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{RETRIES}")).unwrap();
    // Both replicas fail every third request by a reset: a GET is repeated elsewhere.
    let outcomes = mesh.pod("shop/client").requests("http://server/?every=3&reset=1", 30).unwrap();
    let failed: Vec<_> = outcomes.iter().filter(|o| o.status != Some(200)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// A pod of a service account at an address that the playground gives to whoever asks for it.
fn tenant(name: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {name}, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, labels: {{app: tenant}}, annotations: {{heddle.dev/playground-ip: 10.20.2.200}}}}
spec:
  nodeName: n2
  serviceAccountName: {name}
  containers: [{{name: main, image: heddle.dev/echo}}]
---
apiVersion: v1
kind: Service
metadata: {{name: tenant, namespace: shop}}
spec: {{selector: {{app: tenant}}, ports: [{{port: 80, targetPort: 8080, appProtocol: http}}]}}
"#
    )
}

#[test]
fn an_address_that_goes_to_another_identity_is_that_identity_and_never_the_old_one() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{}", tenant("anna"))).unwrap();
    let client = mesh.pod("shop/client");
    let lives_at = |name: &str| {
        let outcome = client.request("http://tenant/")?;
        let pod = outcome.report.as_ref().map(|r| r["pod"].clone());
        anyhow::ensure!(pod == Some(name.into()), "{name} does not answer: {outcome:?}");
        anyhow::ensure!(mesh.address(&format!("shop/{name}"))? == "10.20.2.200", "{name} has another address");
        Ok(())
    };
    eventually(Duration::from_secs(10), || lives_at("anna")).unwrap();
    for name in ["bert", "anna", "bert"] {
        mesh.write("mesh.yaml", &format!("{PAIR}\n---\n{}", tenant(name))).unwrap();
        eventually(Duration::from_secs(60), || lives_at(name)).unwrap();
    }
    // A line is written a moment after its answer.
    let answered = eventually(Duration::from_secs(10), || {
        let mut lines = mesh.access_log()?;
        lines.retain(|l| l["service"] == "shop/tenant:80" && l["status"] == 200);
        anyhow::ensure!(lines.len() >= 4, "{lines:?}");
        Ok(lines)
    })
    .unwrap();
    for line in answered {
        let (workload, identity) = (line["destination"]["workload"].as_str(), line["destination"]["identity"].as_str());
        let name = workload.and_then(|w| w.strip_prefix("shop/")).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(identity, Some(format!("spiffe://cluster.local/ns/shop/sa/{name}").as_str()), "{line}");
    }
}
