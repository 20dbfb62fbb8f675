//! Certificates of Gateway listeners by server name, over real handshakes.

use mesh_core::mesh::{Certificate, HostPattern, PrivateKey};
use mesh_core::name::NsName;
use mesh_tls::gateway::{ListenerCertificates, Offer, check, server_config};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::ServerName;
use std::{net::Ipv4Addr, sync::Arc};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn certificate(name: &str, dns: &[&str]) -> Arc<Certificate> {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = dns.iter().map(|d| (*d).to_owned()).collect();
    let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let key = PrivateKey::new(key.serialize_der());
    Arc::new(Certificate { id: NsName::new("shop", name), chain: vec![cert.der().to_vec().into()], key })
}

/// Which certificate answers `sni`, and with which ALPN; none: the handshake fails.
async fn answers(
    config: &Arc<rustls::ServerConfig>,
    sni: Option<&str>,
    known: &[Arc<Certificate>],
) -> Option<(String, Option<Vec<u8>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    // The test compares the certificate itself.
    let mut client = mesh_tls::unverified::client().with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let name = match sni {
        Some(sni) => ServerName::try_from(sni.to_owned()).unwrap(),
        None => ServerName::IpAddress(address.ip().into()),
    };
    let (client, _server) = tokio::join!(
        async { TlsConnector::from(Arc::new(client)).connect(name, TcpStream::connect(address).await.unwrap()).await },
        async { TlsAcceptor::from(config.clone()).accept(listener.accept().await.unwrap().0).await },
    );
    let client = client.ok()?;
    let state = client.get_ref().1;
    let shown = &state.peer_certificates().unwrap()[0];
    let id = known.iter().find(|c| *c.chain[0] == **shown).map(|c| c.id.name.to_string()).unwrap();
    Some((id, state.alpn_protocol().map(<[u8]>::to_vec)))
}

#[tokio::test]
async fn the_most_specific_certificate_answers_and_the_first_is_default() {
    let all = [
        certificate("default", &["other.example"]),
        certificate("wild", &["*.shop.example"]),
        certificate("exact", &["cart.shop.example"]),
    ];
    let listeners = [ListenerCertificates { hostname: None, certificates: all.to_vec() }];
    let tls = server_config(&listeners, Offer::Http);
    assert!(tls.rejected.is_empty());
    for (sni, wanted) in [
        (Some("cart.shop.example"), "exact"),
        (Some("CART.Shop.Example"), "exact"),
        (Some("pay.shop.example"), "wild"),
        (Some("a.pay.shop.example"), "default"),
        (Some("nobody.example"), "default"),
        (None, "default"),
    ] {
        let (name, alpn) = answers(&tls.config, sni, &all).await.unwrap();
        assert_eq!((name.as_str(), alpn.as_deref()), (wanted, Some(&b"h2"[..])), "{sni:?}");
    }
}

#[tokio::test]
async fn listeners_of_one_port_are_told_apart_by_hostname() {
    let all = [
        certificate("exact", &["a.example"]),
        certificate("wild", &["*.example"]),
        certificate("deep", &["*.b.example"]),
    ];
    let one = |hostname, c: &Arc<Certificate>| ListenerCertificates { hostname, certificates: vec![c.clone()] };
    let wildcard = |s: &str| Some(HostPattern::Wildcard(s.into()));
    let listeners = [
        one(wildcard("example"), &all[1]),
        one(wildcard("b.example"), &all[2]),
        one(Some(HostPattern::Exact("a.example".into())), &all[0]),
    ];
    let tls = server_config(&listeners, Offer::Bytes);
    for (sni, wanted) in [
        (Some("a.example"), Some("exact")),
        (Some("c.example"), Some("wild")),
        (Some("x.b.example"), Some("deep")),
        (Some("x.y.example"), Some("wild")),
        (Some("example"), None),
        (Some("a.test"), None),
        (None, None),
    ] {
        let got = answers(&tls.config, sni, &all).await;
        assert_eq!(got.as_ref().map(|(n, _)| n.as_str()), wanted, "{sni:?}");
        assert!(got.is_none_or(|(_, alpn)| alpn.is_none()), "terminated bytes agree on no protocol");
    }
}

#[tokio::test]
async fn one_bad_certificate_takes_no_other_down() {
    let good = certificate("good", &["a.example"]);
    let other = certificate("other", &["b.example"]);
    let broken = |name: &str, chain: Vec<Arc<[u8]>>, key: PrivateKey| {
        Arc::new(Certificate { id: NsName::new("shop", name), chain, key })
    };
    let bad = [
        (broken("empty", vec![], good.key.clone()), "no certificate"),
        (broken("garbage", vec![vec![1, 2, 3].into()], good.key.clone()), "tls.crt"),
        (broken("keyless", good.chain.clone(), PrivateKey::new(vec![0; 20])), "tls.key"),
        (broken("mismatch", good.chain.clone(), other.key.clone()), "not the key of tls.crt"),
    ];
    let certificates = bad.iter().map(|(c, _)| c.clone()).chain([good.clone()]).collect();
    let tls = server_config(&[ListenerCertificates { hostname: None, certificates }], Offer::Http);
    assert_eq!(tls.rejected.len(), bad.len());
    for ((certificate, says), rejected) in bad.iter().zip(&tls.rejected) {
        assert_eq!(
            (rejected.secret.clone(), check(certificate).unwrap_err().reason.contains(says)),
            (certificate.id.clone(), true),
            "{rejected}"
        );
    }
    assert_eq!(answers(&tls.config, Some("z.example"), &[good]).await.unwrap().0, "good");
}
