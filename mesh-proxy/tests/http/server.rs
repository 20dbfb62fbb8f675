//! The server side towards clients: versions, connections, limits, upgrades.

use crate::{
    app::{App, Reply},
    world::{World, on_prefix, read, rule, settings},
};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use mesh_core::mesh::*;
use std::time::Duration;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::timeout,
};

const SOON: Duration = Duration::from_secs(20);

/// Reads until the text is there.
pub async fn until(io: &mut (impl AsyncRead + Unpin), text: &str) -> String {
    let mut read = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&read).contains(text) {
        let n = timeout(SOON, io.read(&mut buffer)).await.expect("in time").unwrap();
        assert!(n > 0, "ended after {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&buffer[..n]);
    }
    String::from_utf8(read).unwrap()
}

/// Whether the proxy closes the connection.
async fn closes(io: &mut DuplexStream) -> bool {
    let mut rest = Vec::new();
    timeout(SOON, io.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn a_connection_is_kept_and_pipelined_requests_are_answered_in_order() {
    let app = App::start(|_, s| Reply::text(s.head.uri.path().to_owned())).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    io.write_all(b"GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let both = until(&mut io, "/2").await;
    assert!(both.find("/1").unwrap() < both.find("/2").unwrap());
    io.write_all(b"GET /3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    until(&mut io, "/3").await;
    assert!(closes(&mut io).await);
}

#[tokio::test]
async fn heads_over_the_limit_are_431_and_bad_hosts_400() {
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "y".repeat(40_000));
    io.write_all(large.as_bytes()).await.unwrap();
    assert!(until(&mut io, "\r\n").await.starts_with("HTTP/1.1 431"));
    for hosts in ["", "host: a\r\nhost: a\r\n", "host: u@a\r\n"] {
        let mut io = world.connect("cart");
        io.write_all(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes()).await.unwrap();
        assert!(until(&mut io, "bad_request").await.starts_with("HTTP/1.1 400"), "{hosts:?}");
    }
    assert_eq!(app.hits(), 0);
}

#[tokio::test]
async fn a_head_that_drips_is_cut_and_a_quiet_connection_is_not() {
    let (app, mut settings) = (App::named("cart").await, settings());
    settings.limits.handshake = Duration::from_millis(300);
    let world = World::with(settings);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut quiet = world.connect("cart");
    quiet.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until(&mut quiet, "cart").await;
    let mut slow = world.connect("cart");
    slow.write_all(b"GET / HTTP/1.1\r\nhost").await.unwrap();
    assert!(closes(&mut slow).await);
    tokio::time::sleep(Duration::from_millis(600)).await;
    quiet.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until(&mut quiet, "cart").await;
}

#[tokio::test]
async fn a_connection_that_rests_between_requests_serves_the_next_as_if_it_were_the_first() {
    let mut settings = settings();
    // Looked at every 50 ms.
    settings.limits.handshake = Duration::from_millis(200);
    let world = World::with(settings);
    let app = App::start(|_, s| Reply::text(format!("{}.", s.head.uri.path()))).await;
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    let rest = async || tokio::time::sleep(Duration::from_millis(250)).await;
    for n in 0..3 {
        io.write_all(format!("GET /{n} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
        let answer = until(&mut io, &format!("/{n}.")).await;
        assert!(answer.contains("HTTP/1.1 200") && !answer.contains("connection: close"), "{answer}");
        rest().await;
    }
    // Two at once, the second of them in two pieces.
    io.write_all(b"GET /a HTTP/1.1\r\nhost: a\r\n\r\nGET /b HTTP/1.1\r\nho").await.unwrap();
    until(&mut io, "/a.").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    io.write_all(b"st: a\r\n\r\n").await.unwrap();
    until(&mut io, "/b.").await;
    rest().await;
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n").await.unwrap();
    let switched = until(&mut io, "HTTP/1.1 101").await;
    if !switched.rsplit("101").next().unwrap().contains("\r\n\r\n") {
        until(&mut io, "\r\n\r\n").await;
    }
    io.write_all(b"ping").await.unwrap();
    assert_eq!(until(&mut io, "ping").await, "ping");
}

#[tokio::test]
async fn a_connection_without_a_byte_is_closed_after_the_idle_time() {
    let (app, mut settings) = (App::named("cart").await, settings());
    settings.limits.idle = Duration::from_millis(300);
    let world = World::with(settings);
    world.service("cart", AppProtocol::Http, &[app.address]);
    assert!(closes(&mut world.connect("cart")).await, "before the first byte");
    let mut io = world.connect("cart");
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until(&mut io, "cart").await;
    assert!(closes(&mut io).await, "after a request");
}

#[tokio::test]
async fn head_requests_keep_the_length_and_have_no_body() {
    let app = App::start(|_, _| Reply::default().header("content-length", "1234")).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let response = world.send("cart", Request::head("/").body(Bytes::new()).unwrap()).await;
    assert_eq!(response.headers()["content-length"], "1234");
    assert_eq!(read(response).await, (200, String::new()));
    assert_eq!(world.line(|l| l["method"] == "HEAD").await["fault"], serde_json::Value::Null);
}

#[tokio::test]
async fn an_expectation_is_met_before_the_body_is_sent() {
    let app = App::start(|_, s| Reply::text(s.body.clone())).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    io.write_all(b"POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n").await.unwrap();
    assert!(until(&mut io, "\r\n\r\n").await.starts_with("HTTP/1.1 100"));
    io.write_all(b"body").await.unwrap();
    assert!(until(&mut io, "body").await.contains("200 OK"));
}

#[tokio::test]
async fn hop_by_hop_headers_end_here_and_an_application_cannot_fake_our_faults() {
    let app = App::start(|_, _| {
        Reply::text("x").header("heddle-fault", "fake").header("x-hop", "1").header("connection", "x-hop")
    })
    .await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let request = Request::get("/").header("connection", "x-mine").header("x-mine", "1").header("keep-alive", "9");
    let response = world.send("cart", request.body(Bytes::new()).unwrap()).await;
    for gone in ["heddle-fault", "x-hop"] {
        assert!(!response.headers().contains_key(gone), "{gone}");
    }
    app.saw(0, |s| {
        for gone in ["x-mine", "keep-alive", "connection"] {
            assert!(!s.head.headers.contains_key(gone), "{gone}");
        }
    });
}

#[tokio::test]
async fn a_websocket_is_upgraded_and_bytes_go_both_ways() {
    let (world, app) = (World::new(), App::named("chat").await);
    world.service("chat", AppProtocol::WebSocket, &[app.address]);
    world.route("chat", [on_prefix("/ws", rule(&[("chat", 1)]))]);
    let mut io = world.connect("chat");
    let ask = b"GET /ws HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
    io.write_all(ask).await.unwrap();
    let head = until(&mut io, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for word in ["hello", "again"] {
        io.write_all(word.as_bytes()).await.unwrap();
        assert_eq!(until(&mut io, word).await, word);
    }
    io.shutdown().await.unwrap();
    assert!(closes(&mut io).await);
    let line = world.line(|l| l["status"] == 101).await;
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"], &line["route"]),
        (&10.into(), &10.into(), &"HTTPRoute/shop/route".into())
    );
    // A route that does not match refuses before anything is upgraded.
    let mut io = world.connect("chat");
    io.write_all(&String::from_utf8(ask.to_vec()).unwrap().replace("/ws", "/no").into_bytes()).await.unwrap();
    assert!(until(&mut io, "no_route").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn http2_streams_are_served_at_once_and_trailers_pass_both_ways() {
    let (world, app) = (World::new(), App::named("grpc").await);
    world.service("grpc", AppProtocol::H2c, &[app.address]);
    let client = world.http2("grpc").await;
    let calls = (0..50).map(|i| {
        let mut client = client.clone();
        async move {
            let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), format!("{i}").parse().unwrap())]);
            let frames = [
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from(format!("call {i}")))),
                Ok(Frame::trailers(trailers)),
            ];
            let body = StreamBody::new(futures_util::stream::iter(frames));
            let request = Request::post("http://grpc/echo").header("te", "trailers").body(body).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.version(), http::Version::HTTP_2);
            let body = response.into_body().collect().await.unwrap();
            assert_eq!(body.trailers().unwrap()["x-sum"], format!("{i}"));
            assert_eq!(body.to_bytes(), format!("call {i}"));
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn grpc_faults_are_statuses_in_trailers_only_responses() {
    let world = World::new();
    world.service("grpc", AppProtocol::Grpc, &["127.0.0.1:1".parse().unwrap()]);
    let mut named = rule(&[("grpc", 1)]);
    named.matches[0].path = PathMatch::Grpc { service: Some(TextMatch::Exact("shop.Catalog".into())), method: None };
    world.route_of(RouteKind::Grpc, "grpc", [named]);
    let mut client = world.http2("grpc").await;
    for (path, status, fault) in [("/shop.Catalog/List", 14, "connect_failed"), ("/other.Service/List", 12, "no_route")]
    {
        let request = Request::post(format!("http://grpc{path}"))
            .header("content-type", "application/grpc")
            .body(Full::new(Bytes::from_static(&[0; 5])))
            .unwrap();
        let response = client.send_request(request).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["heddle-fault"].to_str().unwrap()), (200, &fault));
        assert_eq!(response.headers()["grpc-status"], status.to_string());
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
        assert_eq!(world.line(|l| l["fault"] == fault).await["grpc_status"], status);
    }
}

#[tokio::test]
async fn draining_ends_the_connection_after_its_request() {
    let app = App::start(|_, _| Reply { delay: Duration::from_millis(300), ..Reply::text("done") }).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut client = world.http2("cart").await;
    let request = Request::get("http://cart/").body(Empty::<Bytes>::new()).unwrap();
    let answer = client.send_request(request);
    let drain = async {
        while app.hits() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        world.shared.drain.cancel();
    };
    let (answer, ()) = tokio::join!(answer, drain);
    assert_eq!(read(answer.unwrap()).await, (200, "done".into()));
    for _ in 0..500 {
        if client.is_closed() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the connection is still open");
}

#[tokio::test]
async fn a_client_that_leaves_is_noted_and_the_upstream_is_freed() {
    let app = App::start(|_, _| Reply { linger: Duration::from_secs(60), ..Reply::text("begun") }).await;
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut io = world.connect("cart");
    io.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    until(&mut io, "begun").await;
    drop(io);
    let line = world.line(|l| l["kind"] == "request").await;
    assert_eq!((&line["fault"], &line["status"]), (&"client_gone".into(), &200.into()));
}
