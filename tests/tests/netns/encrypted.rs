//! What crosses the wire: nothing of a meshed request can be read there, everything of an unmeshed one can.

use crate::PAIR;
use mesh_tests::{Mesh, eventually};
use meshctl::playground::request::Request;
use std::time::Duration;

const SECRET: &str = "the-password-is-warp-and-weft";

#[test]
fn no_plaintext_of_a_meshed_request_is_on_the_wire_between_nodes() {
    let mesh = Mesh::up(PAIR).unwrap();
    let (client, server) = (mesh.pod("shop/client").capture().unwrap(), mesh.pod("shop/far").capture().unwrap());
    for url in [format!("http://far/{SECRET}"), format!("h2c://far/{SECRET}"), format!("ws://far/{SECRET}")] {
        let answer = mesh.pod("shop/client").request(&url).unwrap();
        assert!(matches!(answer.status, Some(200 | 101)), "{url}: {answer:?}");
    }
    let mut opaque = Request::get("tcp://far:9000").unwrap();
    opaque.body = SECRET.into();
    let opaque = mesh.pod("shop/client").send(opaque).unwrap();
    assert!(opaque.error.is_none() && opaque.body.contains(SECRET), "{opaque:?}");
    for capture in [&client, &server] {
        assert!(capture.is_running());
        eventually(Duration::from_secs(5), || {
            anyhow::ensure!(capture.count("tcp port 15008")? > 20, "no tunnel in {}", capture.path().display());
            Ok(())
        })
        .unwrap();
        assert!(!capture.contains(SECRET).unwrap(), "the secret is in {}", capture.path().display());
    }
}

#[test]
fn a_capture_would_show_plaintext_if_there_were_any() {
    let mesh = Mesh::up(PAIR).unwrap();
    let capture = mesh.pod("outside/outsider").capture().unwrap();
    let address = mesh.address("outside/outsider").unwrap();
    let answer = mesh.pod("shop/client").request(&format!("http://{address}:8080/{SECRET}")).unwrap();
    assert_eq!(answer.status, Some(200), "{answer:?}");
    eventually(Duration::from_secs(5), || {
        anyhow::ensure!(capture.contains(SECRET)?, "the secret is not in the capture");
        Ok(())
    })
    .unwrap();
}

#[test]
fn both_ends_are_named_in_the_access_log() {
    let mesh = Mesh::up(PAIR).unwrap();
    let answer = mesh.pod("shop/client").request("http://far/who").unwrap();
    assert_eq!(answer.status, Some(200), "{answer:?}");
    let lines = eventually(Duration::from_secs(5), || {
        let lines: Vec<_> = mesh.access_log()?.into_iter().filter(|l| l["trace_id"] == *answer.trace_id).collect();
        anyhow::ensure!(lines.len() >= 2, "{lines:?}");
        Ok(lines)
    })
    .unwrap();
    for line in lines {
        assert_eq!(line["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/client", "{line}");
        assert_eq!(line["destination"]["identity"], "spiffe://cluster.local/ns/shop/sa/server", "{line}");
        assert_eq!(line["tls"], "TLSv1.3", "{line}");
    }
}
