//! Who is refused, and that the log says why.

use crate::PAIR;
use mesh_tests::{Mesh, eventually};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::{fs, net::SocketAddr, time::Duration};
use time::OffsetDateTime;

/// A certificate that a peer shows, and the word that the log must have for refusing it; none: it is right.
pub struct Rogue {
    pub name: &'static str,
    pub uris: &'static [&'static str],
    pub is_ca: bool,
    pub expired: bool,
    pub foreign_root: bool,
    pub refused: Option<&'static str>,
}

pub const RIGHT: Rogue = Rogue {
    name: "right",
    uris: &["spiffe://cluster.local/ns/shop/sa/client"],
    is_ca: false,
    expired: false,
    foreign_root: false,
    refused: None,
};

const ROGUES: &[Rogue] = &[
    RIGHT,
    Rogue {
        name: "two URI SANs",
        uris: &["spiffe://cluster.local/ns/shop/sa/client", "spiffe://cluster.local/ns/shop/sa/server"],
        refused: Some("URI"),
        ..RIGHT
    },
    Rogue { name: "no URI SAN", uris: &[], refused: Some("URI"), ..RIGHT },
    Rogue {
        name: "foreign trust domain",
        uris: &["spiffe://elsewhere.example/ns/shop/sa/client"],
        refused: Some("trust domain"),
        ..RIGHT
    },
    Rogue { name: "CA leaf", is_ca: true, refused: Some("CA"), ..RIGHT },
    Rogue { name: "expired", expired: true, refused: Some("xpired"), ..RIGHT },
    Rogue { name: "foreign root", foreign_root: true, refused: Some("ssuer"), ..RIGHT },
];

/// PEM chain and key of a rogue, signed by the mesh's own root unless it is of a foreign one.
pub fn forge(rogue: &Rogue, root: &str, root_key: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = rogue.uris.iter().map(|u| SanType::URI((*u).try_into().unwrap())).collect();
    params.is_ca = if rogue.is_ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::ExplicitNoCa };
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - Duration::from_secs(7200);
    params.not_after = if rogue.expired { now - Duration::from_secs(3600) } else { now + Duration::from_secs(3600) };
    let issuer = if rogue.foreign_root {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Issuer::new(params, KeyPair::generate().unwrap())
    } else {
        Issuer::from_ca_cert_pem(root, KeyPair::from_pem(root_key).unwrap()).unwrap()
    };
    (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

#[test]
fn every_wrong_certificate_is_refused_and_the_log_says_why() {
    let mesh = Mesh::up(PAIR).unwrap();
    let (root, root_key) = mesh.authority().unwrap();
    let (far, near) = (mesh.address("shop/far").unwrap(), mesh.address("shop/near").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let knock = |args: &[&str]| {
        let target = format!("{far}:15008");
        let argv = [&["rogue", &target][..], args].concat();
        mesh.pod("outside/outsider").load(&argv).unwrap().end().unwrap()
    };
    let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    for rogue in ROGUES {
        let (chain, private) = forge(rogue, &root, &root_key);
        fs::write(&cert, chain).unwrap();
        fs::write(&key, private).unwrap();
        let outcome = knock(&[&shown[..], &["--connect", &format!("{far}:9000")]].concat());
        let Some(reason) = rogue.refused else {
            assert_eq!(outcome["status"], 200, "{}: {outcome}", rogue.name);
            // The tunnel's address must be the pod's own.
            let elsewhere = knock(&[&shown[..], &["--connect", &format!("{near}:9000")]].concat());
            assert_eq!(elsewhere["status"], 400, "a tunnel to another pod's address: {elsewhere}");
            continue;
        };
        assert!(outcome["refused"].is_string(), "{}: {outcome}", rogue.name);
        eventually(Duration::from_secs(5), || {
            let log = mesh.log("node/n2")?;
            anyhow::ensure!(log.contains(reason), "{}: no {reason:?} in the log:\n{log}", rogue.name);
            Ok(())
        })
        .unwrap();
    }
    let naked = knock(&["--connect", &format!("{far}:9000")]);
    assert!(naked["refused"].is_string(), "no client certificate: {naked}");
}

#[test]
fn plaintext_to_a_strict_pod_is_refused_by_address_and_by_service() {
    let mesh = Mesh::up(PAIR).unwrap();
    let far = mesh.address("shop/far").unwrap();
    for url in [format!("http://{far}:8080/"), "http://far.shop/".to_owned(), format!("tcp://{far}:9000")] {
        let outcome = mesh.pod("outside/outsider").request(&url).unwrap();
        assert!(outcome.error.is_some() && outcome.status.is_none(), "{url}: {outcome:?}");
    }
    eventually(Duration::from_secs(5), || {
        let lines = mesh.access_log()?;
        let refused = lines.iter().filter(|l| l["fault"] == "plaintext_refused").count();
        anyhow::ensure!(refused >= 3, "{refused} lines say plaintext_refused");
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_permissive_mesh_takes_plaintext() {
    let permissive = r"
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XMesh
metadata: {name: heddle}
spec:
  controllerName: heddle.dev/controller
  parametersRef: {group: heddle.dev, kind: MeshParameters, name: heddle}
---
apiVersion: heddle.dev/v1alpha1
kind: MeshParameters
metadata: {name: heddle}
spec: {mode: Permissive}
";
    let mesh = Mesh::up(&format!("{PAIR}\n---\n{permissive}")).unwrap();
    let far = mesh.address("shop/far").unwrap();
    let outsider = mesh.address("outside/outsider").unwrap();
    for _ in 0..20 {
        let outcome = mesh.pod("outside/outsider").request(&format!("http://{far}:8080/")).unwrap();
        assert_eq!(outcome.status, Some(200), "{outcome:?}");
        let seen: SocketAddr = outcome.report.unwrap()["remote"].as_str().unwrap().parse().unwrap();
        // The application sees the client's address, but never a port that the client's own next connection may have.
        assert!(seen.ip().to_canonical().to_string() == outsider && seen.port() < 32_768, "{seen}");
    }
}

/// Ends the proxy of n2, and its agent, which would keep the ports of the pods.
pub fn nobody_on_n2(mesh: &Mesh) {
    for program in ["node/n2", "agent/n2"] {
        mesh.program(program, "stop").unwrap();
        eventually(Duration::from_secs(30), || {
            anyhow::ensure!(!mesh.runs(program)?, "{program} still runs");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn while_its_proxy_is_away_nobody_can_take_a_pods_ports() {
    let mesh = Mesh::up(PAIR).unwrap();
    mesh.program("node/n2", "stop").unwrap();
    eventually(Duration::from_secs(30), || {
        anyhow::ensure!(!mesh.runs("node/n2")?, "the proxy of n2 still runs");
        Ok(())
    })
    .unwrap();
    for port in ["15001", "15006", "15008"] {
        let taken = mesh.pod("shop/far").load(&["silent", "--port", port]).unwrap().end().unwrap_err().to_string();
        assert!(taken.contains("in use"), "{port}: {taken}");
    }
}

#[test]
fn a_stranger_at_the_tunnel_port_of_a_pod_is_not_believed() {
    let mesh = Mesh::up(PAIR).unwrap();
    let (client, far) = (mesh.pod("shop/client"), mesh.address("shop/far").unwrap());
    assert_eq!(client.request("http://far/").unwrap().status, Some(200));
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let (root, root_key) = mesh.authority().unwrap();
    // A certificate of this very mesh, but of another workload than the one that is expected there.
    let (chain, private) = forge(&RIGHT, &root, &root_key);
    fs::write(&cert, chain).unwrap();
    fs::write(&key, private).unwrap();

    // While its node's proxy and agent are away, someone in the pod takes the port.
    nobody_on_n2(&mesh);
    let listen = format!("{far}:15008");
    let shown = ["--cert", cert.to_str().unwrap(), "--key", key.to_str().unwrap()];
    let impostor = mesh.pod("shop/far").load(&[&["impostor", &listen][..], &shown[..]].concat()).unwrap();
    eventually(Duration::from_secs(30), || {
        let outcome = client.request("http://far/")?;
        let lines = mesh.access_log()?;
        let line = lines.iter().find(|l| l["trace_id"] == *outcome.trace_id);
        let line = line.ok_or_else(|| anyhow::anyhow!("no line of {outcome:?}"))?;
        let named = line["detail"].as_str().is_some_and(|d| d.contains("ns/shop/sa/client"));
        anyhow::ensure!(line["fault"] == "peer_identity" && named && outcome.status != Some(200), "{line}");
        Ok(())
    })
    .unwrap();
    let report = impostor.end().unwrap();
    assert!(report["dialled"].as_u64() > Some(0), "{report}");
    assert_eq!(report["believed"], 0, "{report}");
}
