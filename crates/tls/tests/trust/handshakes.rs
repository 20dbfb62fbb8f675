//! Real handshakes over loopback: every way in which a peer's certificate can be wrong is refused, with its reason, by both sides.

use crate::forge::{Forge, Forged, Forging, Recipe, careless_client, careless_server, id};
use mesh_core::identity::Identity;
use mesh_tls::{Refusal, Svids, Trust, refusal_of, verified_peer};
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const FRONT: &str = "spiffe://cluster.local/ns/shop/sa/front";
const DEADLINE: Duration = Duration::from_secs(10);

type Ends = (io::Result<client::TlsStream<TcpStream>>, io::Result<server::TlsStream<TcpStream>>);

/// One handshake; each end also writes and reads a byte, because a TLS 1.3 client learns only then that it was refused.
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Ends {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let accept = async {
        let (tcp, _) = listener.accept().await?;
        let mut tls = TlsAcceptor::from(server).accept(tcp).await?;
        tls.write_all(b"s").await?;
        tls.read_exact(&mut [0]).await?;
        io::Result::Ok(tls)
    };
    let connect = async {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let mut tls = TlsConnector::from(client).connect(name, tcp).await?;
        tls.write_all(b"c").await?;
        tls.read_exact(&mut [0]).await?;
        io::Result::Ok(tls)
    };
    timeout(DEADLINE, async { tokio::join!(connect, accept) }).await.unwrap()
}

async fn trust(forge: &Arc<Forge>, identities: &[&str]) -> Trust {
    let forge = forge.clone();
    let source = Forging(move |identity: &Identity| forge.svid(&identity.to_string()));
    let svids = Arc::new(Svids::new(Arc::new(source), None, Handle::current()));
    for identity in identities {
        svids.ensure(&id(identity));
        timeout(DEADLINE, svids.obtained(&id(identity))).await.unwrap();
    }
    Trust::new(svids)
}

fn reason<T>(end: io::Result<T>) -> String {
    let error = end.err().expect("this end must refuse");
    refusal_of(&error).unwrap_or_else(|| panic!("no reason in {error:?}")).to_string()
}

#[tokio::test]
async fn two_workloads_of_the_mesh_know_each_other() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[FRONT, CART]).await;
    let (front, cart) = (id(FRONT), id(CART));
    let (c, s) = shake(trust.client_config(&front, &cart).unwrap(), trust.server_config(&cart).unwrap()).await;
    let (c, s) = (c.unwrap(), s.unwrap());
    assert_eq!(*verified_peer(c.get_ref().1).unwrap().identity(), cart);
    assert_eq!(*verified_peer(s.get_ref().1).unwrap().identity(), front);
    assert_eq!(c.get_ref().1.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
}

/// A forged leaf and the words with which a client and a server refuse it; none: that side may take it.
struct Case {
    name: &'static str,
    forged: Forged,
    client_says: &'static str,
    server_says: Option<&'static str>,
}

fn wrong_certificates(ours: &Forge) -> impl Iterator<Item = Case> {
    let base = Recipe::default;
    let uri = |u: &str| vec![u.to_owned()];
    let foreign = Forge::named("another mesh").leaf(&base());
    let namesake = Forge::new().leaf(&base());
    let cases: [(&str, Recipe, &str); 14] = [
        ("two URI SANs", Recipe { uris: vec![CART.into(), FRONT.into()], ..base() }, "2 URI names"),
        ("two equal URI SANs", Recipe { uris: vec![CART.into(), CART.into()], ..base() }, "2 URI names"),
        ("no SAN", Recipe { uris: vec![], ..base() }, "no subject alternative name"),
        ("DNS only", Recipe { uris: vec![], dns: uri("cart.shop"), ..base() }, "no URI among its 1"),
        ("CA leaf", Recipe { ca: true, ..base() }, "is a CA certificate"),
        (
            "signing leaf",
            Recipe { usages: vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign], ..base() },
            "may sign certificates",
        ),
        ("no key usage", Recipe { usages: vec![], ..base() }, "lacks digitalSignature"),
        (
            "foreign trust domain",
            Recipe { uris: uri("spiffe://evil/ns/shop/sa/cart"), ..base() },
            "not of our trust domain",
        ),
        ("http URI", Recipe { uris: uri("https://cluster.local/ns/shop/sa/cart"), ..base() }, "is not an identity"),
        (
            "SPIFFE ID of no workload",
            Recipe { uris: uri("spiffe://cluster.local/cart"), ..base() },
            "is not an identity",
        ),
        ("expired", Recipe { valid: (-100, -10), ..base() }, "expired"),
        ("not yet valid", Recipe { valid: (100, 3600), ..base() }, "becomes valid only in"),
        (
            "code signing",
            Recipe { purposes: vec![ExtendedKeyUsagePurpose::CodeSigning], ..base() },
            "extended key usage",
        ),
        ("trust domain as identity", Recipe { uris: uri("spiffe://cluster.local"), ..base() }, "is not an identity"),
    ];
    let both = cases.map(|(name, recipe, says)| Case {
        name,
        forged: ours.leaf(&recipe),
        client_says: says,
        server_says: Some(says),
    });
    let unknown = Case {
        name: "unknown root",
        forged: foreign,
        client_says: "issuer is unknown",
        server_says: Some("issuer is unknown"),
    };
    let namesake = Case {
        name: "root of the same name",
        forged: namesake,
        client_says: "signature",
        server_says: Some("signature"),
    };
    let wrong = Case {
        name: "wrong identity",
        forged: ours.leaf(&Recipe { uris: uri("spiffe://cluster.local/ns/shop/sa/payments"), ..base() }),
        client_says: "expected spiffe://cluster.local/ns/shop/sa/cart, but the peer is spiffe://cluster.local/ns/shop/sa/payments",
        // To a server any workload of the trust domain is somebody; what it may do is authorisation.
        server_says: None,
    };
    both.into_iter().chain([unknown, namesake, wrong])
}

#[tokio::test]
async fn every_wrong_certificate_is_refused_with_its_reason_by_both_sides() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[FRONT, CART]).await;
    let (front, cart) = (id(FRONT), id(CART));
    for case in wrong_certificates(&forge) {
        let server = careless_server(&case.forged, &[&TLS13]);
        let (c, s) = shake(trust.client_config(&front, &cart).unwrap(), server).await;
        let said = reason(c);
        assert!(said.contains(case.client_says), "client, {}: {said}", case.name);
        assert!(s.is_err(), "{}: a refused server serves nothing", case.name);

        let (c, s) = shake(careless_client(Some(&case.forged), &[&TLS13]), trust.server_config(&cart).unwrap()).await;
        match case.server_says {
            Some(words) => {
                let said = reason(s);
                assert!(said.contains(words), "server, {}: {said}", case.name);
                assert!(reason(c).contains("refused us"), "{}: the client is told by an alert", case.name);
            }
            None => {
                let peer = verified_peer(s.unwrap().get_ref().1).unwrap();
                assert_eq!(&*peer.identity().service_account, "payments");
            }
        }
    }
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[CART]).await;
    let (_, s) = shake(careless_client(None, &[&TLS13]), trust.server_config(&id(CART)).unwrap()).await;
    assert_eq!(reason(s), Refusal::NoCertificate.to_string());
}

#[tokio::test]
async fn tls_1_2_is_refused_by_both_sides() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[FRONT, CART]).await;
    let good = forge.leaf(&Recipe::default());
    let (c, s) = shake(careless_client(Some(&good), &[&TLS12]), trust.server_config(&id(CART)).unwrap()).await;
    assert!(reason(s).contains("not acceptable"), "the server says that it is the version");
    assert!(reason(c).contains("ProtocolVersion"));
    let ours = trust.client_config(&id(FRONT), &id(CART)).unwrap();
    let (c, s) = shake(ours, careless_server(&good, &[&TLS12])).await;
    assert!(reason(c).contains("ProtocolVersion") && s.is_err());
}

#[tokio::test]
async fn without_alpn_h2_there_is_no_verified_peer() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[CART]).await;
    let mut client = (*careless_client(Some(&forge.leaf(&Recipe::default())), &[&TLS13])).clone();
    client.alpn_protocols.clear();
    let (_, s) = shake(Arc::new(client.clone()), trust.server_config(&id(CART)).unwrap()).await;
    assert_eq!(verified_peer(s.unwrap().get_ref().1), Err(Refusal::Alpn));
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (_, s) = shake(Arc::new(client), trust.server_config(&id(CART)).unwrap()).await;
    assert!(reason(s).contains("ALPN"));
}

#[tokio::test]
async fn sessions_are_resumed_with_the_same_peer_and_never_with_another() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[FRONT, CART]).await;
    let (front, cart) = (id(FRONT), id(CART));
    let (client, server) = (trust.client_config(&front, &cart).unwrap(), trust.server_config(&cart).unwrap());
    let kind = |c: &io::Result<client::TlsStream<TcpStream>>| c.as_ref().unwrap().get_ref().1.handshake_kind().unwrap();
    let (c, _) = shake(client.clone(), server.clone()).await;
    assert_eq!(kind(&c), rustls::HandshakeKind::Full);
    let (c, s) = shake(client, server.clone()).await;
    assert_eq!(kind(&c), rustls::HandshakeKind::Resumed);
    assert_eq!(
        *verified_peer(s.unwrap().get_ref().1).unwrap().identity(),
        front,
        "a resumed session still names the peer"
    );
    let other = trust.client_config(&front, &id("spiffe://cluster.local/ns/shop/sa/payments")).unwrap();
    assert!(
        reason(shake(other, server).await.0).contains("but the peer is"),
        "same address, same session cache, other expectation"
    );
}

#[tokio::test]
async fn configs_are_made_once_for_each_generation_and_peer() {
    let forge = Arc::new(Forge::new());
    let trust = trust(&forge, &[FRONT]).await;
    let (front, cart) = (id(FRONT), id(CART));
    let (one, two) = (trust.client_config(&front, &cart).unwrap(), trust.client_config(&front, &cart).unwrap());
    assert!(Arc::ptr_eq(&one, &two));
    assert!(!Arc::ptr_eq(&one, &trust.client_config(&front, &front).unwrap()));
    assert!(Arc::ptr_eq(&trust.server_config(&front).unwrap(), &trust.server_config(&front).unwrap()));
    assert!(trust.client_config(&cart, &front).is_err(), "no identity, no config");
}
