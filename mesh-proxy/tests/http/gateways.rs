//! Gateways: listeners, TLS, streams and live changes.

use crate::{
    app::{App, Reply},
    world::{World, on_prefix, pod, read, rule},
};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh_core::{
    mesh::*,
    name::{GatewayId, NsName},
    node::{Resource, ResourceId},
};
use mesh_proxy::{gateway, local::Local};
use rustls::pki_types::{CertificateDer, ServerName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

fn id() -> GatewayId {
    NsName::new("shop", "front")
}

/// A running Gateway at a loopback address.
struct Front {
    address: IpAddr,
    _running: JoinHandle<()>,
}

impl Front {
    fn run(world: &World, address: &str) -> Self {
        let address: IpAddr = address.parse().unwrap();
        let local = Local::new(pod("front", address), None, 1000);
        Self { address, _running: tokio::spawn(gateway::run(id(), local, world.shared.clone())) }
    }

    fn listen(&self, world: &World, listeners: &[(u16, Option<HostPattern>, ListenerProtocol)]) {
        let listeners = listeners.iter().enumerate().map(|(i, (port, hostname, protocol))| Listener {
            name: format!("l{i}").into(),
            port: *port,
            hostname: hostname.clone(),
            protocol: protocol.clone(),
        });
        let gateway = Gateway { id: id(), addresses: vec![self.address], listeners: listeners.collect() };
        world.apply([Resource::Gateway(Arc::new(gateway))]);
    }

    /// A connection, as soon as the port is open.
    async fn connect(&self, port: u16) -> TcpStream {
        for _ in 0..500 {
            if let Ok(stream) = TcpStream::connect(SocketAddr::new(self.address, port)).await {
                return stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nobody listens on {}:{port}", self.address);
    }

    async fn is_closed(&self, port: u16) -> bool {
        for _ in 0..500 {
            if TcpStream::connect(SocketAddr::new(self.address, port)).await.is_err() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// One GET for a host over HTTP.
    async fn get(&self, port: u16, host: &str, path: &str) -> (u16, String) {
        get_over(self.connect(port).await, host, path).await
    }
}

async fn get_over<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static>(
    io: T,
    host: &str,
    path: &str,
) -> (u16, String) {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    read(sender.send_request(request).await.unwrap()).await
}

/// A route `shop/NAME` on a listener of the Gateway.
fn route(world: &World, name: &str, listener: &str, hostnames: &[&str], rule: HttpRule) {
    world.apply([Resource::HttpRoute(Arc::new(HttpRoute {
        id: RouteId { kind: RouteKind::Http, name: NsName::new("shop", name) },
        created: 0,
        attachments: vec![Attachment::Listener {
            gateway: id(),
            listener: listener.into(),
            hostnames: hostnames.iter().map(|h| HostPattern::Exact((*h).into())).collect(),
        }],
        rules: vec![Arc::new(rule)],
    }))]);
}

fn stream_route(world: &World, kind: RouteKind, name: &str, listener: &str, hostnames: &[&str], backend: &str) {
    world.apply([Resource::StreamRoute(Arc::new(StreamRoute {
        id: RouteId { kind, name: NsName::new("shop", name) },
        created: 0,
        attachments: vec![Attachment::Listener {
            gateway: id(),
            listener: listener.into(),
            hostnames: hostnames.iter().map(|h| HostPattern::Exact((*h).into())).collect(),
        }],
        backends: vec![(1, crate::world::target(backend))],
    }))]);
}

/// A self-signed certificate in a Secret `shop/SECRET`.
fn certificate(world: &World, secret: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let der = made.cert.der().clone();
    world.apply([Resource::Certificate(Arc::new(Certificate {
        id: NsName::new("shop", secret),
        chain: vec![der.to_vec().into()],
        key: PrivateKey::new(made.signing_key.serialize_der()),
    }))]);
    der
}

/// A TLS connection that trusts `root` and asks for `name`.
async fn tls(
    io: TcpStream,
    root: &CertificateDer<'static>,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|a| a.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, io).await
}

fn exact(host: &str) -> Option<HostPattern> {
    Some(HostPattern::Exact(host.into()))
}

#[tokio::test]
async fn an_http_listener_routes_by_host_and_says_where_requests_came_from() {
    let (world, app) = (World::new(), App::named("shop").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let front = Front::run(&world, "127.0.8.1");
    front.listen(&world, &[(8080, None, ListenerProtocol::Http)]);
    route(&world, "shop", "l0", &["shop.example"], on_prefix("/in", rule(&[("cart", 1)])));
    assert_eq!(front.get(8080, "shop.example:8080", "/in").await, (200, "shop".into()));
    assert_eq!(app.header(0, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(
        (app.header(0, "x-forwarded-proto"), app.header(0, "x-forwarded-host")),
        ("http".into(), "shop.example:8080".into())
    );
    assert_eq!(front.get(8080, "other.example", "/in").await.0, 404);
    assert_eq!(front.get(8080, "shop.example", "/out").await.0, 404);
    let line = world.line(|l| l["kind"] == "request" && l["status"] == 200).await;
    assert_eq!((&line["direction"], &line["route"]), (&"gateway".into(), &"HTTPRoute/shop/shop".into()));
}

#[tokio::test]
async fn https_serves_several_names_speaks_h2_and_calls_a_misdirected_request_by_its_name() {
    let (world, app) = (World::new(), App::start(|_, s| Reply::text(s.head.headers["host"].as_bytes().to_vec())).await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let one = certificate(&world, "one", "one.example");
    let two = certificate(&world, "two", "two.example");
    let front = Front::run(&world, "127.0.8.2");
    let https = |secret: &str| ListenerProtocol::Https(vec![NsName::new("shop", secret)]);
    front.listen(&world, &[(8443, exact("one.example"), https("one")), (8443, exact("two.example"), https("two"))]);
    route(&world, "one", "l0", &[], rule(&[("cart", 1)]));
    route(&world, "two", "l1", &[], rule(&[("cart", 1)]));

    for (root, name) in [(&one, "one.example"), (&two, "two.example")] {
        let io = tls(front.connect(8443).await, root, name, &[b"http/1.1"]).await.unwrap();
        assert_eq!(get_over(io, name, "/").await, (200, name.into()));
    }
    let io = tls(front.connect(8443).await, &one, "one.example", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(io.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    for (host, status) in [("one.example", 200), ("two.example", 421), ("unknown.example", 421)] {
        let request = Request::get(format!("https://{host}/")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{host}");
    }
    assert_eq!(app.header(2, "x-forwarded-proto"), "https");
    assert_eq!(world.line(|l| l["kind"] == "request" && l["protocol"] == "HTTP/2").await["tls"], "TLSv1.3");
    assert!(tls(front.connect(8443).await, &one, "unknown.example", &[]).await.is_err());
    assert_eq!(world.line(|l| l["kind"] == "connection").await["fault"], "unknown_server_name");
}

/// Greets, then echoes.
async fn greeter(mut io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, name: &str) {
    let _ = io.write_all(name.as_bytes()).await;
    let mut buffer = [0; 1024];
    while let Ok(n) = io.read(&mut buffer).await {
        if n == 0 || io.write_all(&buffer[..n]).await.is_err() {
            break;
        }
    }
    let _ = io.shutdown().await;
}

async fn greeted(io: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), name: &str) {
    let mut read = vec![0; name.len()];
    io.read_exact(&mut read).await.unwrap();
    assert_eq!(read, name.as_bytes());
    io.write_all(b"echo").await.unwrap();
    let mut read = [0; 4];
    io.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"echo");
}

#[tokio::test]
async fn tcp_goes_to_a_backend_that_speaks_first() {
    let world = World::new();
    let database = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("db", AppProtocol::Tcp, &[database.local_addr().unwrap()]);
    tokio::spawn(async move {
        while let Ok((io, _)) = database.accept().await {
            tokio::spawn(greeter(io, "db"));
        }
    });
    let front = Front::run(&world, "127.0.8.3");
    front.listen(&world, &[(9000, None, ListenerProtocol::Tcp)]);
    stream_route(&world, RouteKind::Tcp, "db", "l0", &[], "db");
    let mut io = front.connect(9000).await;
    greeted(&mut io, "db").await;
    world.config_before_is_let_go().await;
    drop(io);
    let line = world.line(|l| l["kind"] == "connection" && l["bytes_out"] == 6).await;
    assert_eq!(
        (&line["direction"], &line["route"], &line["service"]),
        (&"gateway".into(), &"TCPRoute/shop/db".into(), &"shop/db:80".into())
    );
}

#[tokio::test]
async fn tls_is_passed_through_or_terminated_by_server_name_on_one_port() {
    let world = World::new();
    let made = rcgen::generate_simple_self_signed(["pass.example".to_owned()]).unwrap();
    let inner = made.cert.der().clone();
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let config =
        rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![inner.clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let (secure, plain) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    world.service("secure", AppProtocol::Tls, &[secure.local_addr().unwrap()]);
    world.service("plain", AppProtocol::Tcp, &[plain.local_addr().unwrap()]);
    tokio::spawn(async move {
        while let Ok((io, _)) = secure.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(io) = acceptor.accept(io).await {
                    greeter(io, "secure").await;
                }
            });
        }
    });
    tokio::spawn(async move {
        while let Ok((io, _)) = plain.accept().await {
            tokio::spawn(greeter(io, "plain"));
        }
    });
    let outer = certificate(&world, "end", "end.example");
    let front = Front::run(&world, "127.0.8.4");
    front.listen(
        &world,
        &[
            (8883, exact("pass.example"), ListenerProtocol::TlsPassthrough),
            (8883, exact("end.example"), ListenerProtocol::TlsTerminate(vec![NsName::new("shop", "end")])),
        ],
    );
    stream_route(&world, RouteKind::Tls, "pass", "l0", &["pass.example"], "secure");
    stream_route(&world, RouteKind::Tls, "end", "l1", &["end.example"], "plain");

    let mut io = tls(front.connect(8883).await, &inner, "pass.example", &[]).await.unwrap();
    greeted(&mut io, "secure").await;
    let mut terminated = tls(front.connect(8883).await, &outer, "end.example", &[]).await.unwrap();
    greeted(&mut terminated, "plain").await;
    world.config_before_is_let_go().await;
    assert!(tls(front.connect(8883).await, &outer, "other.example", &[]).await.is_err());

    // A hello in many small pieces is still a hello.
    let (mut near, far) = tokio::io::duplex(64 * 1024);
    let (mut down, mut up) = front.connect(8883).await.into_split();
    let (mut from, mut to) = tokio::io::split(far);
    tokio::spawn(async move {
        let mut byte = [0; 64];
        while let Ok(n) = from.read(&mut byte).await {
            if n == 0 || up.write_all(&byte[..n]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    tokio::spawn(async move { tokio::io::copy(&mut down, &mut to).await });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(inner).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("pass.example").unwrap();
    let mut io = TlsConnector::from(Arc::new(config)).connect(name, &mut near).await.unwrap();
    greeted(&mut io, "secure").await;
}

#[tokio::test]
async fn listeners_and_certificates_change_without_dropping_what_lives() {
    let app = App::start(|_, _| Reply { delay: Duration::from_millis(300), ..Reply::text("done") }).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let first = certificate(&world, "cert", "shop.example");
    let front = Front::run(&world, "127.0.8.5");
    let https = (8443, None, ListenerProtocol::Https(vec![NsName::new("shop", "cert")]));
    front.listen(&world, &[https.clone(), (8080, None, ListenerProtocol::Http)]);
    route(&world, "a", "l0", &[], rule(&[("cart", 1)]));
    route(&world, "b", "l1", &[], rule(&[("cart", 1)]));
    let kept = tls(front.connect(8443).await, &first, "shop.example", &[b"http/1.1"]).await.unwrap();

    // A request is on its way on a listener that goes away: it is answered, and the port is closed.
    let living = front.connect(8080).await;
    let answer = tokio::spawn(get_over(living, "shop.example", "/"));
    while app.hits() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.config_before_is_let_go().await;
    front.listen(&world, &[https.clone(), (8081, None, ListenerProtocol::Http)]);
    assert!(front.is_closed(8080).await);
    assert_eq!(answer.await.unwrap(), (200, "done".into()));
    assert_eq!(front.get(8081, "shop.example", "/").await.0, 200);

    // A new certificate serves new connections; the old connection goes on.
    let second = certificate(&world, "cert", "shop.example");
    let mut renewed = None;
    for _ in 0..500 {
        renewed = tls(front.connect(8443).await, &second, "shop.example", &[b"http/1.1"]).await.ok();
        if renewed.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(get_over(renewed.expect("the new certificate is served"), "shop.example", "/").await.0, 200);
    assert_eq!(get_over(kept, "shop.example", "/").await.0, 200);

    world.remove(ResourceId::Gateway(id()));
    assert!(front.is_closed(8081).await && front.is_closed(8443).await);
}
