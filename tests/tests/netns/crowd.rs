//! Crowds and bursts over opaque connections.

use crate::PAIR;
use mesh_tests::{Mesh, eventually};
use std::time::Duration;

#[test]
fn ten_thousand_idle_connections_live_beside_each_other_and_new_ones_are_served() {
    let mesh = Mesh::up(PAIR).unwrap();
    let idle = mesh.pod("shop/client").load(&["idle", "far:9000", "--connections", "10000"]).unwrap();
    eventually(Duration::from_secs(120), || {
        let (_, out, _) = mesh.pod("shop/far").run(&["sh", "-c", "ss -tnH state established sport = :9000 | wc -l"])?;
        anyhow::ensure!(out.trim().parse::<usize>()? >= 10_000, "{} are established", out.trim());
        Ok(())
    })
    .unwrap();
    let outcome = mesh.pod("shop/client").request("http://far/").unwrap();
    assert_eq!(outcome.status, Some(200), "{outcome:?}");
    let report = idle.end().unwrap();
    assert_eq!(report["alive"], 10_000, "{report}");
}

#[test]
fn a_burst_of_megabytes_both_ways_comes_back_whole_after_half_close() {
    let mesh = Mesh::up(PAIR).unwrap();
    for bytes in ["65537", "1048576", "33554432"] {
        let report = mesh.pod("shop/client").load(&["burst", "far:9000", "--bytes", bytes]).unwrap().end().unwrap();
        assert_eq!(report["intact"], true, "{report}");
        assert!(report["received"].as_u64() >= report["sent"].as_u64(), "{report}");
    }
}

#[test]
fn a_server_that_speaks_first_is_not_delayed() {
    let mesh = Mesh::up(PAIR).unwrap();
    // Warm: the tunnel to the pod exists.
    mesh.pod("shop/client").request("tcp://far:9100").unwrap();
    let outcome = mesh.pod("shop/client").request("tcp://far:9100").unwrap();
    assert!(outcome.error.is_none(), "{outcome:?}");
    // A proxy that waits for the client to speak waits for its whole detection time.
    assert!(outcome.millis < 1000, "the greeting took {} ms", outcome.millis);
}
