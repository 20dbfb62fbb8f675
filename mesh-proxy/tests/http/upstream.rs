//! Kept connections to applications that do as they please: close, answer early, send in pieces.

use crate::{
    server::until,
    world::{World, rule},
};
use mesh_core::mesh::AppProtocol;
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

/// An application of which each connection is served by hand, and a world whose Service `cart` it is.
async fn by_hand() -> (TcpListener, World) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[listener.local_addr().unwrap()]);
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
    let (listener, world) = by_hand().await;
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
    let (listener, world) = by_hand().await;
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
    let (listener, world) = by_hand().await;
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
    let (listener, world) = by_hand().await;
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
