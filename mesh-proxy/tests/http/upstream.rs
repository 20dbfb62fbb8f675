//! Kept connections to applications that do as they please: close, answer early, send in pieces.

use crate::{
    server::until,
    world::{World, rule},
};
use bytes::Bytes;
use mesh_core::mesh::AppProtocol;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An application of which each connection is served by hand, and a world whose Service `cart` it is.
async fn by_hand(protocol: AppProtocol) -> (TcpListener, World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new();
    world.service("cart", protocol, &[listener.local_addr().unwrap()]);
    world.route("cart", [rule(&[("cart", 1)])]);
    (listener, world)
}

/// Reads until the text is there.
async fn hears(io: &mut TcpStream, text: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(text) {
        assert_ne!(timeout(Duration::from_secs(10), io.read_buf(&mut all)).await.unwrap().unwrap(), 0, "closed");
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn an_application_that_answers_early_still_gets_the_rest_of_the_request() {
    let (listener, world) = by_hand(AppProtocol::Http).await;
    let mut client = world.connect("cart");
    client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\n\r\nhalf").await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    hears(&mut app, "half").await;
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly").await.unwrap();
    until(&mut client, "early").await;
    client.write_all(b"rest").await.unwrap();
    hears(&mut app, "rest").await;

    // Then the connection is good for the next request, on both sides.
    client.write_all(b"GET /next HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    hears(&mut app, "GET /next").await;
    app.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
    until(&mut client, "204").await;
}

#[tokio::test]
async fn a_connection_that_its_application_closed_while_it_waited_fails_no_request() {
    let (listener, world) = by_hand(AppProtocol::Http).await;
    let mut client = world.connect("cart");
    for _ in 0..3 {
        // POST: nothing here may be sent twice.
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
        let (mut app, _) = listener.accept().await.unwrap();
        hears(&mut app, "hi").await;
        app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        until(&mut client, "ok").await;
        drop(app);
        // The end of the connection is at the proxy when the kernel says so; a round trip on another one is later than that.
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        drop((other, listener.accept().await.unwrap()));
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_connection_that_its_application_closed_does_not_stay_half_open() {
    let (listener, world) = by_hand(AppProtocol::Http).await;
    let mut client = world.connect("cart");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    hears(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    until(&mut client, "ok").await;
    app.shutdown().await.unwrap();
    let end = timeout(Duration::from_secs(20), app.read(&mut [0])).await.expect("the proxy closes its half too");
    assert_eq!(end.unwrap(), 0);
}

#[tokio::test]
async fn a_body_that_comes_in_pieces_passes_in_pieces() {
    let (listener, world) = by_hand(AppProtocol::Http).await;
    let mut client = world.connect("cart");
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let (mut app, _) = listener.accept().await.unwrap();
    hears(&mut app, "\r\n\r\n").await;
    app.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    until(&mut client, "\r\n\r\n").await;
    for piece in ["one", "two", "three"] {
        app.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.unwrap();
        until(&mut client, piece).await;
    }
    app.write_all(b"0\r\n\r\n").await.unwrap();
    until(&mut client, "0\r\n\r\n").await;
}

/// Streams that nobody reads, in two of the tests below; and what is sent on each, in frames as small as messages are.
const STALLED: usize = 12;
const FRAME: Bytes = Bytes::from_static(&[b'x'; 100]);

/// A client whose connection has room for all its streams.
async fn http2_client(world: &World) -> h2::client::SendRequest<Bytes> {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(16 * 1024 * 1024);
    let (client, connection) = builder.handshake(world.connect("cart")).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn is_answered(client: h2::client::SendRequest<Bytes>) {
    let request = http::Request::get("http://cart/ok").body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    let response = timeout(Duration::from_secs(10), response).await.expect("the connection does not move").unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn empty_frames_of_an_application_are_not_passed_on() {
    let (listener, world) = by_hand(AppProtocol::H2c).await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            for data in ["", "one", "", "", "two", ""] {
                send.send_data(data.into(), false).unwrap();
            }
            send.send_trailers(http::HeaderMap::new()).unwrap();
        }
    });
    let client = http2_client(&world).await;
    let request = http::Request::get("http://cart/").body(()).unwrap();
    let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut frames = Vec::new();
    while let Some(data) = body.data().await {
        frames.push(data.unwrap());
    }
    assert!(frames.iter().all(|f| !f.is_empty()), "{frames:?}");
    assert_eq!(frames.concat(), b"onetwo");
}

#[tokio::test]
async fn uploads_that_an_application_does_not_read_do_not_stop_the_others_of_their_connection() {
    let (listener, world) = by_hand(AppProtocol::H2c).await;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut held = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match request.uri().path() {
                        "/hold" => held.push((request, respond)),
                        _ => drop(respond.send_response(http::Response::new(()), true)),
                    }
                }
            });
        }
    });
    let mut client = http2_client(&world).await;
    let mut held = Vec::new();
    for _ in 0..STALLED {
        client = client.ready().await.unwrap();
        let request = http::Request::post("http://cart/hold").body(()).unwrap();
        let (response, mut send) = client.send_request(request, false).unwrap();
        for _ in 0..2_000 {
            send.send_data(FRAME, false).unwrap();
        }
        held.push((response, send));
    }
    // Until all that has room is under way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_answered(client).await;
}

#[tokio::test]
async fn answers_that_clients_do_not_read_do_not_stop_the_others_of_their_applications_connection() {
    let (listener, world) = by_hand(AppProtocol::H2c).await;
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        // Another connection would be refused: all share this one.
        drop(listener);
        let mut connection = h2::server::handshake(stream).await.unwrap();
        let mut held = Vec::new();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            if request.uri().path() == "/ok" {
                respond.send_response(http::Response::new(()), true).unwrap();
                continue;
            }
            let mut send = respond.send_response(http::Response::new(()), false).unwrap();
            for _ in 0..6_000 {
                send.send_data(FRAME, false).unwrap();
            }
            held.push(send);
        }
    });
    let client = http2_client(&world).await;
    let mut held = Vec::new();
    for _ in 0..STALLED {
        let request = http::Request::get("http://cart/flood").body(()).unwrap();
        let (response, _) = client.clone().ready().await.unwrap().send_request(request, true).unwrap();
        held.push(timeout(Duration::from_secs(10), response).await.unwrap().unwrap());
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    is_answered(client).await;
}
