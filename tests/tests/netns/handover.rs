//! One node proxy ends and another begins: killed and started again, or replaced by one beside it. Who connects meanwhile waits; nobody is refused.

use crate::{PAIR, none_failed};
use mesh_tests::{Load, Mesh, eventually};
use serde_json::Value;
use std::{thread::sleep, time::Duration};

/// Every kind of traffic that a pod may have: new connections, kept ones, HTTP/2, long TCP.
struct Traffic {
    fresh: Load,
    kept: Load,
    h2: Load,
    tcp: Load,
}

impl Traffic {
    fn start(mesh: &Mesh) -> Self {
        let client = mesh.pod("shop/client");
        let http = |more: &[&str]| client.load(&[&["http", "http://far/", "--rate", "50"], more].concat()).unwrap();
        let traffic = Self {
            fresh: http(&["--fresh"]),
            kept: http(&[]),
            h2: http(&["--h2"]),
            tcp: client.load(&["steady", "far:9000"]).unwrap(),
        };
        sleep(Duration::from_secs(1));
        traffic
    }

    /// What the HTTP loads saw, then the TCP connections.
    fn end(self) -> ([(&'static str, Value); 3], Value) {
        let http = [("fresh", self.fresh), ("kept", self.kept), ("h2", self.h2)];
        (http.map(|(name, load)| (name, load.end().unwrap())), self.tcp.end().unwrap())
    }
}

fn answers(mesh: &Mesh) {
    eventually(Duration::from_secs(30), || {
        let outcome = mesh.pod("shop/client").request("http://far/")?;
        anyhow::ensure!(outcome.status == Some(200), "{outcome:?}");
        Ok(())
    })
    .unwrap();
}

/// What a connection that the killed process itself held may see: the kernel ends it.
const CUT: &[&str] =
    &["closed", "reset", "broken pipe", "canceled", "GoAway", "end of file", "unexpected", "incomplete", "dispatch"];

#[test]
fn while_a_killed_proxy_comes_back_nobody_is_refused_and_only_what_it_carried_is_lost() {
    let mesh = Mesh::up(PAIR).unwrap();
    answers(&mesh);
    let traffic = Traffic::start(&mesh);
    mesh.program("node/n1", "kill").unwrap();
    answers(&mesh);
    sleep(Duration::from_secs(1));
    let (http, tcp) = traffic.end();
    println!("TCP: {tcp}");
    for (kind, report) in http {
        println!("{kind}: failed {} of {}: {}", report["failed"], report["sent"], report["failures"]);
        // Four connections, at most some requests of each under way.
        assert!(report["failed"].as_u64() <= Some(8), "{kind}: {report}");
        for failure in report["failures"].as_array().unwrap() {
            let why = failure["why"].as_str().unwrap();
            let cut = CUT.iter().any(|c| why.to_lowercase().contains(&c.to_lowercase()));
            assert!(cut && !why.contains("refused"), "{kind}: {failure}");
        }
        assert!(report["ok"].as_u64() > Some(50), "{kind}: {report}");
    }
}

#[test]
fn a_proxy_that_is_replaced_by_one_beside_it_fails_nothing() {
    let mesh = Mesh::up(PAIR).unwrap();
    answers(&mesh);
    // The client's own node, then the server's.
    for node in ["node/n1", "node/n2"] {
        let traffic = Traffic::start(&mesh);
        mesh.program(node, "replace").unwrap();
        sleep(Duration::from_secs(3));
        let (http, tcp) = traffic.end();
        for (kind, report) in http {
            println!("{node} {kind}: {} sent, slowest {} ms", report["sent"], report["slowest_ms"]);
            assert!(report["failed"] == 0, "{node} {kind}: {report:#}");
            none_failed(&report, 100);
        }
        assert!(tcp["cut"].as_array().is_some_and(Vec::is_empty) && tcp["lines"].as_u64() > Some(100), "{node}: {tcp}");
    }
    // The old ones end by themselves, long before the drain time is over: nobody has anything with them any more.
    for before in ["node/n1-before", "node/n2-before"] {
        eventually(Duration::from_secs(30), || {
            anyhow::ensure!(!mesh.runs(before)?, "{before} still runs");
            Ok(())
        })
        .unwrap();
    }
    // And they leave the socket of their successors alone: pods start.
    let late = "\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: late, namespace: shop}\nspec: {nodeName: n1, serviceAccountName: client, containers: [{name: main, image: local, command: [sleep, infinity]}]}\n";
    mesh.write("late.yaml", late).unwrap();
    eventually(Duration::from_secs(30), || {
        let outcome = mesh.pod("shop/late").request("http://far/")?;
        anyhow::ensure!(outcome.status == Some(200), "{outcome:?}");
        Ok(())
    })
    .unwrap();
    answers(&mesh);
}

#[test]
fn an_agent_that_is_killed_gets_the_listeners_again_and_nobody_notices() {
    let mesh = Mesh::up(PAIR).unwrap();
    answers(&mesh);
    let traffic = Traffic::start(&mesh);
    mesh.program("agent/n1", "kill").unwrap();
    eventually(Duration::from_secs(20), || {
        let held = mesh.log("node/n1")?.matches("the agent holds the pods' listeners").count();
        anyhow::ensure!(held >= 2, "the proxy has not put its listeners again: {held}");
        Ok(())
    })
    .unwrap();
    let (http, tcp) = traffic.end();
    http.iter().for_each(|(_, report)| none_failed(report, 50));
    assert!(tcp["cut"].as_array().is_some_and(Vec::is_empty), "{tcp}");
    // The new agent is as good as the old one.
    let traffic = Traffic::start(&mesh);
    mesh.program("node/n1", "kill").unwrap();
    answers(&mesh);
    for (kind, report) in traffic.end().0 {
        let refused = report["failures"].as_array().unwrap().iter().any(|f| f["why"].to_string().contains("refused"));
        assert!(!refused, "{kind}: {report}");
    }
}

#[test]
fn a_pod_that_nobody_announced_is_found_by_its_address_and_enrolled() {
    let labelled = |label: &str| {
        PAIR.replace(
            "metadata: {name: outside}",
            &format!("metadata: {{name: outside, labels: {{heddle.dev/mesh: {label}}}}}"),
        )
    };
    let mesh = Mesh::up(&labelled("disabled")).unwrap();
    // As on a node to which the mesh comes later: the proxy knows of no pod at all.
    mesh.program("node/n1", "stop").unwrap();
    eventually(Duration::from_secs(30), || {
        anyhow::ensure!(!mesh.runs("node/n1")?, "the proxy of n1 still runs");
        Ok(())
    })
    .unwrap();
    mesh.forget_pods("n1").unwrap();
    mesh.program("node/n1", "start").unwrap();
    // Those that were captured are served again, by the listeners that the agent kept.
    answers(&mesh);
    let reaches = || mesh.pod("outside/outsider").request("http://far.shop/").map(|o| o.status == Some(200));
    assert!(!reaches().unwrap(), "an unmeshed pod reaches a strict one");
    mesh.write("mesh.yaml", &labelled("enabled")).unwrap();
    eventually(Duration::from_secs(20), || {
        anyhow::ensure!(reaches()?, "the pod is not enrolled");
        Ok(())
    })
    .unwrap();
    assert!(mesh.log("node/n1").unwrap().contains("found a pod that ran before"));
    // Its end is noticed.
    mesh.write("mesh.yaml", &labelled("enabled").replace("name: outsider", "name: other")).unwrap();
    eventually(Duration::from_secs(30), || {
        anyhow::ensure!(mesh.log("node/n1")?.contains("adopted-"), "{}", mesh.log("node/n1")?);
        let log = mesh.log("node/n1")?;
        let gone = log.lines().any(|l| l.contains("sandbox gone") && l.contains("outside/outsider"));
        anyhow::ensure!(gone, "the end of an adopted pod is not noticed");
        Ok(())
    })
    .unwrap();
}
