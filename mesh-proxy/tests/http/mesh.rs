//! Requests between two meshed pods: native HTTP/2 over mTLS, delivered to an application.

use crate::{
    app::{App, Reply},
    world::{World, identity, pod, read, rule},
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use mesh_core::{decide::HBONE_PORT, mesh::*, name::NsName, node::Resource};
use mesh_proxy::{inbound, local::Local, outbound};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A meshed pod `shop/NAME` at a loopback address with an application on port 8080, and its proxy on :15008.
async fn meshed(
    world: &World,
    name: &str,
    address: &str,
    answer: impl Fn(usize, &crate::app::Seen) -> Reply + Send + Sync + 'static,
) -> App {
    served(world, name, address, answer, CancellationToken::new).await
}

/// As [`meshed`]; `stop` tells of each connection to its proxy when it shall go away.
async fn served(
    world: &World,
    name: &str,
    address: &str,
    answer: impl Fn(usize, &crate::app::Seen) -> Reply + Send + Sync + 'static,
    stop: impl Fn() -> CancellationToken + Send + 'static,
) -> App {
    let address: IpAddr = address.parse().unwrap();
    let app = App::at(SocketAddr::new(address, 8080), answer).await;
    let workload = pod(name, address);
    world.apply([Resource::Workload(workload.clone())]);
    for who in ["client", name] {
        world.shared.trust.svids().ensure(&identity(who));
        world.shared.trust.svids().obtained(&identity(who)).await;
    }
    let local = Local::new(workload, None, 100);
    let listener = TcpListener::bind(SocketAddr::new(address, HBONE_PORT)).await.unwrap();
    let shared = world.shared.clone();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let permit = local.connection().unwrap();
            tokio::spawn(inbound::mesh(stream, peer, local.clone(), shared.clone(), stop(), permit));
        }
    });
    app
}

#[tokio::test]
async fn a_request_crosses_the_mesh_and_both_sides_tell_of_it() {
    let world = World::new();
    let app = meshed(&world, "cart", "127.0.7.1", |_, s| Reply::text(format!("{:?}", s.head.version))).await;
    world.service("cart", AppProtocol::Http, &[]);
    world.endpoint("cart", app.address, Some(NsName::new("shop", "cart")));
    let spoofed = Request::get("/a?b").header("heddle-destination", "127.0.0.1:1").body(Bytes::new()).unwrap();
    assert_eq!(read(world.send("cart", spoofed).await).await, (200, "HTTP/1.1".into()));
    app.saw(0, |s| {
        assert_eq!(s.head.uri, "/a?b");
        assert_eq!(s.head.headers["host"], "client.example");
        assert!(s.head.headers.keys().all(|k| !k.as_str().starts_with("heddle-")), "our headers are taken off");
    });
    let out = world.line(|l| l["direction"] == "outbound").await;
    let inward = world.line(|l| l["direction"] == "inbound" && l["kind"] == "request").await;
    for line in [&out, &inward] {
        assert_eq!(line["source"]["identity"], "spiffe://cluster.local/ns/shop/sa/client");
        assert_eq!(line["destination"]["identity"], "spiffe://cluster.local/ns/shop/sa/cart");
        assert_eq!(line["tls"], "TLSv1.3");
        assert_eq!(line["bytes_out"], 8);
    }
    assert_eq!((&out["trace_id"], &out["request_id"]), (&inward["trace_id"], &inward["request_id"]));
    assert_eq!(inward["destination"]["workload"], "shop/cart");
}

#[tokio::test]
async fn streams_of_any_size_pass_with_flow_control_and_trailers() {
    let world = World::new();
    let app = meshed(&world, "grpc", "127.0.7.2", |_, _| Reply::default()).await;
    world.service("grpc", AppProtocol::Grpc, &[]);
    world.endpoint("grpc", app.address, Some(NsName::new("shop", "grpc")));
    let mut client = world.http2("grpc").await;
    let (send, frames) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, std::io::Error>>(1);
    let body = StreamBody::new(tokio_stream::wrappers::ReceiverStream::new(frames));
    let request = Request::post("http://grpc/echo").header("content-type", "application/grpc").body(body).unwrap();
    // The response head comes before the request has ended: both directions are open at once.
    send.send(Ok(Frame::data(Bytes::from_static(b"first")))).await.unwrap();
    let mut response = client.send_request(request).await.unwrap().into_body();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    const CHUNKS: usize = 200;
    let sending = async {
        for i in 0..CHUNKS {
            send.send(Ok(Frame::data(Bytes::from(vec![i as u8; 20_000])))).await.unwrap();
        }
        let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
        send.send(Ok(Frame::trailers(trailers))).await.unwrap();
        drop(send);
    };
    let (received, ()) = tokio::join!(response.collect(), sending);
    let received = received.unwrap();
    assert_eq!(received.trailers().unwrap()["grpc-status"], "0");
    let bytes = received.to_bytes();
    assert_eq!(bytes.len(), CHUNKS * 20_000);
    assert!((0..CHUNKS).all(|i| bytes[i * 20_000] == i as u8));
    for direction in ["outbound", "inbound"] {
        let line = world.line(|l| l["direction"] == direction && l["kind"] == "request").await;
        let whole = (CHUNKS * 20_000 + 5) as u64;
        assert_eq!((&line["bytes_in"], &line["bytes_out"]), (&whole.into(), &whole.into()), "{direction}");
        assert_eq!((&line["grpc_status"], &line["fault"]), (&0.into(), &serde_json::Value::Null), "{direction}");
    }
}

#[tokio::test]
async fn a_websocket_crosses_the_mesh_in_a_tunnel() {
    let world = World::new();
    let app = meshed(&world, "chat", "127.0.7.3", |_, _| Reply::default()).await;
    world.service("chat", AppProtocol::WebSocket, &[]);
    world.endpoint("chat", app.address, Some(NsName::new("shop", "chat")));
    let mut io = world.connect("chat");
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(io.read_u8().await.unwrap());
    }
    assert!(read.starts_with(b"HTTP/1.1 101"));
    io.write_all(b"ping").await.unwrap();
    let mut echoed = [0; 4];
    io.read_exact(&mut echoed).await.unwrap();
    assert_eq!(&echoed, b"ping");
    drop(io);
    let line = world.line(|l| l["status"] == 101).await;
    assert_eq!((&line["tls"], &line["bytes_out"]), (&"TLSv1.3".into(), &4.into()));
}

#[tokio::test]
async fn an_application_that_does_not_listen_is_a_fault_that_the_client_can_retry_elsewhere() {
    let world = World::new();
    let good = meshed(&world, "good", "127.0.7.4", |_, _| Reply::text("good")).await;
    // The pod is in the mesh, but nothing serves on port 8081.
    world.service("pay", AppProtocol::Http, &[]);
    world.endpoint("pay", SocketAddr::new(good.address.ip(), 8081), Some(NsName::new("shop", "good")));
    let (status, text) = world.get("pay", "/").await;
    assert_eq!((status, text.as_str()), (503, "connect_failed"));
    let line = world.line(|l| l["direction"] == "outbound").await;
    assert_eq!((&line["fault"], &line["detail"]), (&"connect_failed".into(), &"said the proxy of the endpoint".into()));
    world.endpoint("pay", good.address, Some(NsName::new("shop", "good")));
    for _ in 0..10 {
        assert_eq!(world.get("pay", "/").await, (200, "good".into()), "nobody asked for retries, but nothing was sent");
    }
    let retry = Some(Retry { attempts: 1, codes: vec![], backoff: Some(Duration::from_millis(1)) });
    world.route("pay", [HttpRule { retry, ..rule(&[("pay", 1)]) }]);
    for _ in 0..10 {
        assert_eq!(world.get("pay", "/").await, (200, "good".into()));
    }
}

#[tokio::test]
async fn without_a_certificate_nothing_is_sent_in_plaintext() {
    let world = World::new();
    let app = App::named("cart").await;
    world.apply([Resource::Workload(pod("cart", app.address.ip()))]);
    world.service("cart", AppProtocol::Http, &[]);
    world.endpoint("cart", app.address, Some(NsName::new("shop", "cart")));
    assert_eq!(world.get("cart", "/").await, (503, "no_identity".into()));
    assert_eq!(app.hits(), 0);
}

/// RFC 9113 §6.8: what lies above the last stream of a GOAWAY can be sent again by whoever sent it.
fn is_unprocessed(error: &hyper::Error) -> bool {
    let native = std::error::Error::source(error).and_then(|e| e.downcast_ref::<h2::Error>());
    native.is_some_and(|e| e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR))
}

#[tokio::test]
async fn a_proxy_that_goes_away_says_so_and_fails_no_request() {
    let world = World::new();
    let slow = |_: usize, _: &crate::app::Seen| Reply { delay: Duration::from_millis(40), ..Reply::text("done") };
    let app = meshed(&world, "goes", "127.0.7.20", slow).await;
    world.service("goes", AppProtocol::Http, &[]);
    world.endpoint("goes", app.address, Some(NsName::new("shop", "goes")));
    // HTTP/2 clients that keep their connection, and one of HTTP/1.1 that does; each dials again when it is told to.
    let two = async {
        let mut client = world.http2("goes").await;
        let mut dials = 1;
        for _ in 0..25 {
            if client.is_closed() || client.ready().await.is_err() {
                client = world.http2("goes").await;
                dials += 1;
            }
            let answer = loop {
                let request = Request::get("http://goes/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
                match client.send_request(request).await {
                    Ok(answer) => break answer,
                    // It was told to go between two requests, and has sent nothing; or what it sent crossed with that word.
                    Err(error) if error.is_canceled() || is_unprocessed(&error) => client = world.http2("goes").await,
                    Err(error) => panic!("{error:?}"),
                }
            };
            assert_eq!(read(answer).await, (200, "done".into()));
        }
        dials
    };
    let one = async {
        let mut io = world.connect("goes");
        let mut dials = 1;
        for _ in 0..25 {
            io.write_all(b"GET / HTTP/1.1\r\nhost: goes\r\n\r\n").await.unwrap();
            let answer = crate::server::until(&mut io, "done").await;
            assert!(answer.contains("HTTP/1.1 200"), "{answer}");
            if answer.contains("connection: close") {
                io = world.connect("goes");
                dials += 1;
            }
        }
        dials
    };
    let leave = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        world.shared.drain.cancel();
    };
    let (two, more, one, ()) = tokio::join!(two, async { world.get("goes", "/").await }, one, leave);
    assert_eq!(more.0, 200);
    assert!(two > 1 && one > 1, "both were told: {two} and {one} dials");
}

#[tokio::test]
async fn an_idle_kept_connection_is_closed_a_while_after_its_workload_left() {
    let world = World::new();
    let app = App::named("cart").await;
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    io.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
    crate::server::until(&mut io, "cart").await;
    world.shared.drain.cancel();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(30), io.read_to_end(&mut rest)).await.expect("an end in time").unwrap();
    assert!(!rest.windows(8).any(|w| w == b"HTTP/1.1"), "it was not asked for more");
}

/// A Service of `shop` at an address of its own, with one endpoint.
fn frontend(
    name: &str,
    at: SocketAddr,
    protocol: AppProtocol,
    endpoint: SocketAddr,
    health: EndpointHealth,
) -> [Resource; 2] {
    let service = Service {
        id: NsName::new("shop", name),
        addresses: vec![at.ip()],
        ports: vec![ServicePort { number: at.port(), name: "".into(), protocol }],
    };
    let (address, zone, node) = (endpoint.ip(), "".into(), "".into());
    let slice = EndpointSlice {
        id: service.id.clone(),
        service: service.id.clone(),
        ports: vec![PortMapping { service_port: at.port(), target_port: endpoint.port() }],
        endpoints: vec![Endpoint { address, workload: None, health, zone, node }],
    };
    [Resource::Service(Arc::new(service)), Resource::EndpointSlice(Arc::new(slice))]
}

#[tokio::test]
async fn a_captured_connection_lets_go_of_the_config_when_its_way_is_chosen() {
    let world = World::new();
    let app = App::named("cart").await;
    let mut living = Vec::new();
    for (name, address, protocol) in [("web", "127.0.9.1", AppProtocol::Http), ("db", "127.0.9.2", AppProtocol::Tcp)] {
        // What the application dials is here the listener itself: nothing was redirected, so that is where it wanted to go.
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        world.apply(frontend(name, at, protocol, app.address, EndpointHealth::Ready));
        let (local, shared) = (world.local.clone(), world.shared.clone());
        tokio::spawn(async move {
            let (stream, peer) = listener.accept().await.unwrap();
            let permit = local.connection().unwrap();
            outbound::captured(stream, peer, local, shared, CancellationToken::new(), permit).await;
        });
        let mut io = TcpStream::connect(at).await.unwrap();
        io.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n").await.unwrap();
        crate::server::until(&mut io, "cart").await;
        living.push((io, at));
    }
    world.config_before_is_let_go().await;

    // Nor do bytes that go to one endpoint hold what is said of all.
    let (name, at) = (NsName::new("shop", "db"), living[1].1);
    let endpoints = Arc::downgrade(world.shared.snapshot().unwrap().endpoints(&name, at.port()).unwrap());
    // A config knows the endpoints that were before its own.
    for health in [EndpointHealth::NotReady, EndpointHealth::Ready] {
        world.apply(frontend("db", at, AppProtocol::Tcp, app.address, health));
        assert!(world.shared.snapshot().unwrap().endpoints(&name, at.port()).is_some());
    }
    world.config_before_is_let_go().await;
    assert!(endpoints.upgrade().is_none(), "{} still hold the endpoints before", endpoints.strong_count());
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_holds_no_config() {
    let world = World::new();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.service("cart", AppProtocol::Http, &[silent.local_addr().unwrap()]);
    let mut waiting = Vec::new();
    for asks in ["", "connection: upgrade\r\nupgrade: websocket\r\n"] {
        let mut client = world.connect("cart");
        client.write_all(format!("GET / HTTP/1.1\r\nhost: cart\r\n{asks}\r\n").as_bytes()).await.unwrap();
        let (mut application, _) = silent.accept().await.unwrap();
        crate::server::until(&mut application, "\r\n\r\n").await;
        waiting.push((client, application));
    }
    world.config_before_is_let_go().await;
}

#[tokio::test]
async fn requests_of_one_pod_beyond_its_bound_are_refused_and_those_of_others_are_not() {
    let world = World::new();
    let slow = |_: usize, _: &crate::app::Seen| Reply { delay: Duration::from_secs(2), ..Reply::text("late") };
    // Its bound is 100, and one is the peer's connection.
    let busy = meshed(&world, "busy", "127.0.7.21", slow).await;
    let calm = meshed(&world, "calm", "127.0.7.22", |_, _| Reply::text("calm")).await;
    for (name, app) in [("busy", &busy), ("calm", &calm)] {
        world.service(name, AppProtocol::Http, &[]);
        world.endpoint(name, app.address, Some(NsName::new("shop", name)));
    }
    let flood = futures_util::future::join_all((0..150).map(|_| world.get("busy", "/")));
    let others = async {
        tokio::time::sleep(Duration::from_millis(700)).await;
        world.get("calm", "/").await
    };
    let (flood, others) = tokio::join!(flood, others);
    assert_eq!(others, (200, "calm".into()));
    let served = flood.iter().filter(|(status, _)| *status == 200).count();
    let refused = flood.iter().filter(|(status, _)| *status == 503).count();
    assert!(served > 0 && served < 100 && served + refused == 150, "{served} served, {refused} refused");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_goes_away_again_and_again_fails_no_request() {
    const CLIENTS: usize = 64;
    const REQUESTS: usize = 100;
    let world = World::new();
    let leaving = Arc::new(Mutex::new(CancellationToken::new()));
    let stop = {
        let leaving = leaving.clone();
        move || leaving.lock().unwrap().clone()
    };
    let app = served(&world, "cart", "127.0.7.8", |_, seen| Reply::text(seen.body.len().to_string()), stop).await;
    world.service("cart", AppProtocol::Http, &[]);
    world.endpoint("cart", app.address, Some(NsName::new("shop", "cart")));
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let mut sender = world.http2::<Full<Bytes>>("cart").await;
        clients.spawn(async move {
            for n in 0..REQUESTS {
                // With bodies and without: what was read of a body must be there for the next attempt too.
                let length = if (client + n) % 2 == 0 { 0 } else { 3_000 };
                let body = Full::new(Bytes::from(vec![b'a'; length]));
                let request = Request::post("http://cart/").body(body).unwrap();
                let answered = read(sender.send_request(request).await.unwrap()).await;
                assert_eq!(answered, (200, length.to_string()));
            }
        });
    }
    let replaced = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::mem::take(&mut *leaving.lock().unwrap()).cancel();
        }
    };
    tokio::select! {
        () = replaced => {}
        all = clients.join_all() => assert_eq!(all.len(), CLIENTS),
    }
    assert_eq!(app.hits(), CLIENTS * REQUESTS, "each exactly once");
}
