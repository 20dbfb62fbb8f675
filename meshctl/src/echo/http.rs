//! The echo server's HTTP: one port speaks HTTP/1.1, HTTP/2 with prior knowledge, gRPC and WebSocket, with or without TLS.

use super::{
    Server,
    behaviour::{Behaviour, Fate},
    grpc,
};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Request, Response, StatusCode, Version,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde_json::{Map, Value, json};
use std::{
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{WebSocketStream, tungstenite};

/// More of a request's body is read but only counted.
const KEPT_BODY: usize = 4096;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Bytes that may be on their way on one HTTP/2 stream.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same on a connection.
const CONNECTION_WINDOW: u32 = 200 * STREAM_WINDOW;

/// Ends a connection without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the request asked for the connection to end")]
struct Asked;

/// A connection as its requests see it.
struct Connection {
    server: Arc<Server>,
    remote: SocketAddr,
    number: u64,
    tls: Option<Value>,
    /// The socket again, to reset it.
    socket: Option<OwnedFd>,
}

/// Serves a listener until the server ends.
pub async fn serve(server: Arc<Server>, listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = server.ending.cancelled() => return,
        };
        let Ok((stream, remote)) = accepted else { continue };
        let _ = stream.set_nodelay(true);
        let connection = Connection {
            number: server.connections.fetch_add(1, Ordering::Relaxed) + 1,
            server: Arc::clone(&server),
            remote,
            tls: None,
            socket: stream.as_fd().try_clone_to_owned().ok(),
        };
        let tls = tls.clone();
        server.streams.spawn(async move {
            match tls {
                None => converse(connection, stream).await,
                Some(acceptor) => {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let told = json!({
                        "version": session.protocol_version().map(|v| format!("{v:?}")),
                        "serverName": session.server_name(),
                        "alpn": session.alpn_protocol().map(String::from_utf8_lossy),
                    });
                    converse(Connection { tls: Some(told), ..connection }, stream).await;
                }
            }
        });
    }
}

/// A certificate made now, valid for these names, signed by itself.
pub fn acceptor(names: &[String]) -> Result<TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed(names.to_vec()).context("--tls-name")?;
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn converse(connection: Connection, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let ending = connection.server.ending.clone();
    let connection = Arc::new(connection);
    let service = service_fn(move |request| answer(Arc::clone(&connection), request));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    // A connection that many streams share has room for all of them.
    builder.http2().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serving);
    tokio::select! {
        // Either end may break off; whoever cares sees it there.
        _ = &mut serving => return,
        () = ending.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

async fn answer(connection: Arc<Connection>, mut request: Request<Incoming>) -> Result<Response<Body>, Asked> {
    let server = &connection.server;
    let n = server.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let behaviour = match asked(&server.default, &request) {
        Ok(behaviour) => behaviour,
        Err(reason) => return Ok(respond(StatusCode::BAD_REQUEST, reason)),
    };
    let is_grpc = request.headers().get("content-type").is_some_and(|t| t.as_bytes().starts_with(b"application/grpc"));
    let is_websocket =
        request.headers().get("upgrade").is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let mut report = describe(&connection, &request, n);
    tokio::time::sleep(behaviour.delay).await;
    let status = match behaviour.fate(n) {
        Fate::Answer(status) => StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        Fate::Close => return Err(Asked),
        Fate::Reset => {
            if let Some(socket) = &connection.socket {
                // Closing with unsent data allowed for no time is a reset.
                let _ = rustix::net::sockopt::set_socket_linger(socket, Some(std::time::Duration::ZERO));
            }
            return Err(Asked);
        }
    };
    if is_websocket && status == StatusCode::OK {
        return Ok(open_websocket(&mut request, report));
    }
    if is_grpc && request.uri().path() == grpc::REPEAT {
        return Ok(grpc_repeat(request.into_body()));
    }
    let (mut bytes, mut kept) = (0, Vec::new());
    let mut body = request.into_body();
    while let Some(frame) = body.frame().await {
        // A body that breaks off: the connection is gone or about to be.
        let Ok(frame) = frame else { return Err(Asked) };
        if let Some(data) = frame.data_ref() {
            bytes += data.len();
            kept.extend_from_slice(&data[..data.len().min(KEPT_BODY - kept.len())]);
        }
    }
    report.insert("bodyBytes".into(), json!(bytes));
    if is_grpc {
        let message: Option<grpc::EchoRequest> = kept.get(5..).and_then(|m| prost::Message::decode(m).ok());
        report.insert("message".into(), json!(message.map(|m| m.message)));
        return Ok(grpc_reply(status, &behaviour, report));
    }
    report.insert("body".into(), json!(String::from_utf8_lossy(&kept)));
    let text = match behaviour.size {
        Some(size) => "x".repeat(size),
        None => format!("{}\n", Value::Object(report)),
    };
    Ok(respond(status, text))
}

/// The request's own wishes over the server's.
fn asked(default: &Behaviour, request: &Request<Incoming>) -> Result<Behaviour, String> {
    let mut behaviour = default.clone();
    for pair in request.uri().query().unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, "1"));
        behaviour.set(name, value)?;
    }
    for (name, value) in request.headers() {
        if let Some(name) = name.as_str().strip_prefix("echo-") {
            behaviour.set(name, value.to_str().unwrap_or_default())?;
        }
    }
    Ok(behaviour)
}

fn describe(connection: &Connection, request: &Request<Incoming>, n: u64) -> Map<String, Value> {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in request.headers() {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        match headers.get_mut(name.as_str()) {
            Some(Value::String(all)) => *all = format!("{all}, {value}"),
            _ => drop(headers.insert(name.as_str().to_owned(), value.into())),
        }
    }
    let host = request.uri().authority().map(ToString::to_string);
    let host = host.or_else(|| Some(request.headers().get("host")?.to_str().ok()?.to_owned()));
    let version = match request.version() {
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    };
    let mut report = connection.server.report();
    report.insert("method".into(), json!(request.method().as_str()));
    report.insert("path".into(), json!(request.uri().path()));
    report.insert("query".into(), json!(request.uri().query()));
    report.insert("host".into(), json!(host));
    report.insert("headers".into(), Value::Object(headers));
    report.insert("protocol".into(), json!(version));
    report.insert("remote".into(), json!(connection.remote));
    report.insert("connection".into(), json!(connection.number));
    report.insert("request".into(), json!(n));
    if let Some(tls) = &connection.tls {
        report.insert("tls".into(), tls.clone());
    }
    report
}

fn respond(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert("content-type", kind);
    response
}

/// A failing HTTP status is what a server in trouble gives; a gRPC status is what the service gives.
fn grpc_reply(status: StatusCode, behaviour: &Behaviour, report: Map<String, Value>) -> Response<Body> {
    if status != StatusCode::OK && behaviour.grpc_status.is_none() {
        return respond(status, String::new());
    }
    let code = behaviour.grpc_status.unwrap_or(0);
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", code.into());
    let reply = grpc::frame(&grpc::EchoReply { report: Value::Object(report).to_string() });
    let data = (code == 0).then(|| Frame::data(reply));
    let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let mut response = Response::new(BodyExt::boxed_unsync(body));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

/// What comes goes back as it is, so messages do as well. A body that breaks off breaks the answer off.
fn grpc_repeat(body: Incoming) -> Response<Body> {
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", 0.into());
    let end = futures_util::stream::iter([Ok(Frame::trailers(trailers))]);
    // The end of a stream may come as an empty frame; in the middle of another one it would say nothing.
    let messages = body.into_data_stream().try_filter(|data| std::future::ready(!data.is_empty()));
    let frames = messages.map_ok(Frame::data).chain(end);
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    response
}

/// Says first what it saw, then repeats messages.
fn open_websocket(request: &mut Request<Incoming>, report: Map<String, Value>) -> Response<Body> {
    let key = request.headers().get("sec-websocket-key").map(|k| k.as_bytes().to_vec()).unwrap_or_default();
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let role = tungstenite::protocol::Role::Server;
        let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), role, None).await;
        let text = Value::Object(report).to_string();
        if socket.send(tungstenite::Message::text(text)).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    let mut response = respond(StatusCode::SWITCHING_PROTOCOLS, String::new());
    let accept = tungstenite::handshake::derive_accept_key(&key);
    let headers = response.headers_mut();
    headers.clear();
    headers.insert("connection", http::HeaderValue::from_static("Upgrade"));
    headers.insert("upgrade", http::HeaderValue::from_static("websocket"));
    if let Ok(accept) = accept.parse() {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    #[tokio::test]
    async fn each_message_of_a_repeated_stream_comes_back_before_the_next_is_sent() {
        let server = Arc::new(Server {
            who: Map::new(),
            requests: 0.into(),
            connections: 0.into(),
            default: Behaviour::parse("").unwrap(),
            streams: TaskTracker::new(),
            ending: CancellationToken::new(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tcp = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        tokio::spawn(serve(server, listener, None));
        let (client, connection) = h2::client::handshake(tcp).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://echo{}", grpc::REPEAT)).header("content-type", "application/grpc");
        let (response, mut send) =
            client.ready().await.unwrap().send_request(request.body(()).unwrap(), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        for message in ["one", "two"] {
            let message = grpc::frame(&grpc::EchoRequest { message: message.into() });
            send.send_data(message.clone(), false).unwrap();
            assert_eq!(body.data().await.unwrap().unwrap(), message);
        }
        send.send_data(Bytes::new(), true).unwrap();
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    }
}
