//! Parts of the mesh that die or go away, under load: which requests fail, and why. The goal is none.

use crate::{PAIR, RETRIES, none_failed};
use mesh_tests::{Mesh, eventually};
use std::{thread::sleep, time::Duration};

/// "Controller killed for a minute".
const CONTROLLER_GONE: Duration = Duration::from_secs(60);

#[test]
fn a_minute_without_controller_fails_no_request() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{RETRIES}")).unwrap();
    let load = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "100"]).unwrap();
    let fresh = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "20", "--fresh"]).unwrap();
    mesh.program("controller", "stop").unwrap();
    // Time is the point here: nothing that could be waited for happens while the controller is away.
    sleep(CONTROLLER_GONE);
    mesh.program("controller", "start").unwrap();
    eventually(Duration::from_secs(20), || {
        mesh.write("more.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: more, namespace: shop}\nspec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080, appProtocol: http}]}\n")?;
        let outcome = mesh.pod("shop/client").request("http://more/")?;
        anyhow::ensure!(outcome.status == Some(200), "the controller is back, but a new Service does not work: {outcome:?}");
        Ok(())
    })
    .unwrap();
    none_failed(&load.end().unwrap(), 3000);
    none_failed(&fresh.end().unwrap(), 600);
}

#[test]
fn a_proxy_starts_from_its_cache_while_the_controller_is_gone() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{RETRIES}")).unwrap();
    assert_eq!(mesh.pod("shop/client").request("http://server/").unwrap().status, Some(200));
    // A proxy writes its cache half a second after a change.
    sleep(Duration::from_secs(1));
    mesh.program("controller", "stop").unwrap();
    mesh.program("node/n1", "kill").unwrap();
    mesh.program("node/n2", "kill").unwrap();
    eventually(Duration::from_secs(20), || {
        let outcome = mesh.pod("shop/client").request("http://server/")?;
        anyhow::ensure!(outcome.status == Some(200), "{outcome:?}\n{}\n{}", mesh.log("node/n1")?, mesh.log("node/n2")?);
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_killed_proxy_of_the_other_node_fails_no_request_that_may_be_repeated() {
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{RETRIES}")).unwrap();
    let load = mesh.pod("shop/client").load(&["http", "http://server/", "--rate", "200"]).unwrap();
    for _ in 0..3 {
        sleep(Duration::from_secs(1));
        mesh.program("node/n2", "kill").unwrap();
        eventually(Duration::from_secs(20), || {
            let outcome = mesh.pod("shop/client").request("http://far/")?;
            anyhow::ensure!(outcome.status == Some(200), "{outcome:?}");
            Ok(())
        })
        .unwrap();
    }
    let report = load.end().unwrap();
    // What the client has begun to read cannot be taken back: of a response that the killed proxy was in the middle of, the rest is lost.
    let cut = |f: &&serde_json::Value| f["why"].as_str().is_some_and(|why| why.starts_with("body:"));
    let failures = report["failures"].as_array().unwrap();
    assert!(failures.iter().all(|f| cut(&f)) && failures.len() <= 3, "{report:#}");
    assert!(report["ok"].as_u64() > Some(500), "{report:#}");
}

#[test]
fn a_killed_proxy_comes_back_and_captures_everything_again() {
    let mesh = Mesh::up(PAIR).unwrap();
    let client = mesh.pod("shop/client");
    mesh.program("node/n1", "kill").unwrap();
    // Fail closed: while its proxy is away, a meshed pod reaches nobody in plaintext.
    let capture = mesh.pod("shop/far").capture().unwrap();
    eventually(Duration::from_secs(20), || {
        let outcome = client.request("http://far/unprotected")?;
        anyhow::ensure!(outcome.status == Some(200), "{outcome:?}");
        Ok(())
    })
    .unwrap();
    assert!(!capture.contains("/unprotected").unwrap(), "a request crossed the wire in plaintext");
}
