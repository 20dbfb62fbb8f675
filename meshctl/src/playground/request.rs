//! A client for scenarios and tests: requests of every protocol from a pod's network namespace or from the host, each with a trace id of its own, and what came back.
//! It must not judge the answer.

use super::netns::Netns;
use anyhow::{Context, Result, bail};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{CertificateDer, ServerName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    net::{TcpSocket, TcpStream},
};

/// More of an answer is not kept.
const BODY_LIMIT: u64 = 1024 * 1024;

/// What is spoken. The scheme of a URL says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// `http`, `https`: HTTP/1.1.
    Http1,
    /// `h2c`, `h2`: HTTP/2, with prior knowledge or by ALPN.
    Http2,
    /// `grpc`, `grpcs`: a unary call.
    Grpc,
    /// `ws`, `wss`.
    WebSocket,
    /// `tcp`, `tls`.
    Tcp,
}

/// What to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether over TLS.
    pub tls: bool,
    /// DER of the certificate that the server's must come from; none: any is taken and the handshake alone is checked.
    pub trust: Option<Vec<u8>>,
    /// Host of the URL: resolved, and the Host header and server name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Method.
    pub method: String,
    /// Headers.
    pub headers: BTreeMap<String, String>,
    /// Body; over TCP and WebSocket what is sent.
    pub body: String,
    /// How often.
    pub count: u32,
    /// For each.
    pub timeout: Duration,
}

impl Request {
    /// GET of a URL, once: `http://cart/x`, `grpc://catalogue:9000/shop.Catalogue/List`, `tcp://ledger:5432`, ….
    pub fn get(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").with_context(|| format!("{url} has no scheme"))?;
        let (protocol, tls) = match scheme {
            "http" => (Protocol::Http1, false),
            "https" => (Protocol::Http1, true),
            "h2c" => (Protocol::Http2, false),
            "h2" => (Protocol::Http2, true),
            "grpc" => (Protocol::Grpc, false),
            "grpcs" => (Protocol::Grpc, true),
            "ws" => (Protocol::WebSocket, false),
            "wss" => (Protocol::WebSocket, true),
            "tcp" => (Protocol::Tcp, false),
            "tls" => (Protocol::Tcp, true),
            other => bail!("{url}: scheme {other} is not one of http, https, h2c, h2, grpc, grpcs, ws, wss, tcp, tls"),
        };
        let (authority, path) = rest.split_once('/').map_or((rest, String::new()), |(a, p)| (a, p.to_owned()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().with_context(|| format!("{url}: port"))?),
            _ => (authority, if tls { 443 } else { 80 }),
        };
        Ok(Self {
            protocol,
            tls,
            trust: None,
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            path: format!("/{path}"),
            method: if protocol == Protocol::Grpc { "POST" } else { "GET" }.into(),
            headers: BTreeMap::new(),
            body: String::new(),
            count: 1,
            timeout: Duration::from_secs(10),
        })
    }

    fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let default = if self.tls { 443 } else { 80 };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Outcome {
    /// The trace that it belongs to.
    pub trace_id: String,
    /// HTTP status; 101 for a WebSocket that opened.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<i32>,
    /// Headers and trailers.
    pub headers: BTreeMap<String, String>,
    /// Body, as text.
    pub body: String,
    /// What the echo server reported.
    pub report: Option<Value>,
    /// Why nothing came back.
    pub error: Option<String>,
    /// Our end of the connection.
    pub local: Option<SocketAddr>,
    /// `TLSv1_3`, if we spoke TLS ourselves.
    pub tls: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// Where requests come from.
#[derive(Clone, Debug)]
pub enum From {
    /// The namespace that we are in.
    Here,
    /// A pod's.
    Netns(PathBuf),
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

struct Connection {
    stream: Box<dyn Stream>,
    local: SocketAddr,
    tls: Option<String>,
}

type Body = Full<Bytes>;

enum Open {
    None,
    Http1(hyper::client::conn::http1::SendRequest<Body>, SocketAddr, Option<String>, Driver),
    Http2(hyper::client::conn::http2::SendRequest<Body>, SocketAddr, Option<String>, Driver),
}

/// The task that moves a connection's bytes.
type Driver = tokio::task::JoinHandle<hyper::Result<()>>;

/// Closing takes a moment; the access log tells of a connection only then.
const CLOSE: Duration = Duration::from_millis(500);

impl Open {
    async fn close(self) {
        let driver = match self {
            Self::None => return,
            // Without its sender a connection ends.
            Self::Http1(sender, .., driver) => {
                drop(sender);
                driver
            }
            Self::Http2(sender, .., driver) => {
                drop(sender);
                driver
            }
        };
        // Ended or not, there is nothing more to do.
        let _ = tokio::time::timeout(CLOSE, driver).await;
    }
}

/// Makes all requests of `request`, one after the other; HTTP keeps its connection.
pub async fn perform(request: &Request, from: &From, to: SocketAddr) -> Vec<Outcome> {
    let mut open = Open::None;
    let mut outcomes = Vec::new();
    for _ in 0..request.count {
        let trace_id = format!("{:016x}{:016x}", random(), random());
        let mut outcome = Outcome { trace_id, ..Default::default() };
        let started = Instant::now();
        let done = tokio::time::timeout(request.timeout, once(request, from, to, &mut open, &mut outcome)).await;
        let error = match done {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{error:#}")),
            Err(_) => Some(format!("no answer within {:?}", request.timeout)),
        };
        if error.is_some() {
            open = Open::None;
        }
        outcome.error = error;
        outcome.millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        outcomes.push(outcome);
    }
    open.close().await;
    outcomes
}

async fn once(request: &Request, from: &From, to: SocketAddr, open: &mut Open, outcome: &mut Outcome) -> Result<()> {
    match request.protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => http(request, from, to, open, outcome).await,
        Protocol::WebSocket => websocket(request, from, to, outcome).await,
        Protocol::Tcp => tcp(request, from, to, outcome).await,
    }
}

async fn http(request: &Request, from: &From, to: SocketAddr, open: &mut Open, outcome: &mut Outcome) -> Result<()> {
    let usable = match open {
        Open::None => false,
        Open::Http1(sender, ..) => sender.ready().await.is_ok(),
        Open::Http2(sender, ..) => sender.ready().await.is_ok(),
    };
    if !usable {
        let connection = connect(request, from, to).await?;
        let io = TokioIo::new(connection.stream);
        *open = if request.protocol == Protocol::Http1 {
            let (sender, driver) = hyper::client::conn::http1::handshake(io).await?;
            Open::Http1(sender, connection.local, connection.tls, tokio::spawn(driver))
        } else {
            let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            Open::Http2(sender, connection.local, connection.tls, tokio::spawn(driver))
        };
    }
    let message = message(request, outcome)?;
    let response = match open {
        Open::None => bail!("no connection"),
        Open::Http1(sender, local, tls, _) => {
            (outcome.local, outcome.tls) = (Some(*local), tls.clone());
            sender.send_request(message).await?
        }
        Open::Http2(sender, local, tls, _) => {
            (outcome.local, outcome.tls) = (Some(*local), tls.clone());
            sender.send_request(message).await?
        }
    };
    outcome.status = Some(response.status().as_u16());
    keep_headers(response.headers(), outcome);
    let collected = http_body_util::Limited::new(response.into_body(), usize::try_from(BODY_LIMIT)?)
        .collect()
        .await
        .map_err(|e| anyhow::anyhow!("the body: {e}"))?;
    if let Some(trailers) = collected.trailers() {
        keep_headers(trailers, outcome);
    }
    let body = collected.to_bytes();
    if request.protocol == Protocol::Grpc {
        outcome.grpc_status = outcome.headers.get("grpc-status").and_then(|s| s.parse().ok());
        // Compressed-flag and length, then the message: field 1 is the report.
        let reply: Option<crate::echo::grpc::EchoReply> = body.get(5..).and_then(|m| prost::Message::decode(m).ok());
        outcome.body = reply.map(|r| r.report).unwrap_or_default();
    } else {
        outcome.body = String::from_utf8_lossy(&body).into_owned();
    }
    outcome.report = serde_json::from_str(&outcome.body).ok();
    Ok(())
}

fn message(request: &Request, outcome: &Outcome) -> Result<hyper::Request<Body>> {
    let scheme = if request.tls { "https" } else { "http" };
    let uri = if request.protocol == Protocol::Http1 {
        request.path.clone()
    } else {
        format!("{scheme}://{}{}", request.authority(), request.path)
    };
    let mut message = hyper::Request::builder().method(request.method.as_str()).uri(uri);
    if request.protocol == Protocol::Http1 {
        message = message.header("host", request.authority());
    }
    message = message.header("traceparent", format!("00-{}-{:016x}-01", outcome.trace_id, random()));
    let mut body = Bytes::from(request.body.clone());
    if request.protocol == Protocol::Grpc {
        message = message.header("content-type", "application/grpc").header("te", "trailers");
        let encoded = prost::Message::encode_to_vec(&crate::echo::grpc::EchoRequest { message: request.body.clone() });
        let mut framed = BytesMut::new();
        framed.put_u8(0);
        framed.put_u32(u32::try_from(encoded.len())?);
        framed.put_slice(&encoded);
        body = framed.freeze();
    }
    for (name, value) in &request.headers {
        message = message.header(name, value);
    }
    Ok(message.body(Full::new(body))?)
}

fn keep_headers(headers: &http::HeaderMap, outcome: &mut Outcome) {
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        outcome
            .headers
            .entry(name.as_str().to_owned())
            .and_modify(|old| {
                old.push_str(", ");
                old.push_str(&value);
            })
            .or_insert(value);
    }
}

async fn websocket(request: &Request, from: &From, to: SocketAddr, outcome: &mut Outcome) -> Result<()> {
    use tokio_tungstenite::tungstenite::{Error, Message, client::IntoClientRequest};
    let connection = connect(request, from, to).await?;
    (outcome.local, outcome.tls) = (Some(connection.local), connection.tls);
    let scheme = if request.tls { "wss" } else { "ws" };
    let mut opening = format!("{scheme}://{}{}", request.authority(), request.path).into_client_request()?;
    let traceparent = format!("00-{}-{:016x}-01", outcome.trace_id, random());
    opening.headers_mut().insert("traceparent", traceparent.parse()?);
    for (name, value) in &request.headers {
        opening.headers_mut().insert(http::HeaderName::try_from(name.as_str())?, value.parse()?);
    }
    let (mut socket, response) = match tokio_tungstenite::client_async(opening, connection.stream).await {
        Ok(opened) => opened,
        Err(Error::Http(response)) => {
            outcome.status = Some(response.status().as_u16());
            keep_headers(response.headers(), outcome);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    outcome.status = Some(response.status().as_u16());
    keep_headers(response.headers(), outcome);
    // The echo server says first what it saw, then repeats what it gets.
    let greeting = socket.next().await.context("closed before the report")??.into_text()?;
    outcome.report = serde_json::from_str(&greeting).ok();
    socket.send(Message::text(request.body.clone())).await?;
    outcome.body = socket.next().await.context("closed before the echo")??.into_text()?.to_string();
    Ok(socket.close(None).await?)
}

async fn tcp(request: &Request, from: &From, to: SocketAddr, outcome: &mut Outcome) -> Result<()> {
    let connection = connect(request, from, to).await?;
    (outcome.local, outcome.tls) = (Some(connection.local), connection.tls);
    let mut stream = BufReader::new(connection.stream);
    if request.body.is_empty() {
        // The server speaks first; nothing of ours may be needed for it.
        stream.read_line(&mut outcome.body).await?;
        if outcome.body.is_empty() {
            bail!("closed without a greeting");
        }
    } else {
        stream.write_all(request.body.as_bytes()).await?;
        stream.shutdown().await?;
        let mut bytes = Vec::new();
        stream.take(BODY_LIMIT).read_to_end(&mut bytes).await?;
        outcome.body = String::from_utf8_lossy(&bytes).into_owned();
    }
    outcome.report = outcome.body.lines().next().and_then(|l| serde_json::from_str(l).ok());
    Ok(())
}

async fn connect(request: &Request, from: &From, to: SocketAddr) -> Result<Connection> {
    let made = move || if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = match from {
        From::Here => made()?,
        From::Netns(path) => {
            let netns = Netns::at(path);
            tokio::task::spawn_blocking(move || netns.run(made)).await???
        }
    };
    let stream: TcpStream = socket.connect(to).await.with_context(|| format!("cannot connect to {to}"))?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?;
    if !request.tls {
        return Ok(Connection { stream: Box::new(stream), local, tls: None });
    }
    let name = ServerName::try_from(request.host.clone()).with_context(|| format!("server name {}", request.host))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls_config(request)?));
    let stream = connector.connect(name, stream).await.context("TLS")?;
    let version = stream.get_ref().1.protocol_version().map(|v| format!("{v:?}"));
    Ok(Connection { stream: Box::new(stream), local, tls: version })
}

fn tls_config(request: &Request) -> Result<rustls::ClientConfig> {
    let mut config = match &request.trust {
        Some(der) => {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(CertificateDer::from(der.clone()))?;
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(roots)
                .with_no_client_auth()
        }
        // A server whose certificate the example makes up at start.
        None => mesh_tls::unverified::client().with_no_client_auth(),
    };
    config.alpn_protocols = match request.protocol {
        Protocol::Http2 | Protocol::Grpc => vec![b"h2".to_vec()],
        Protocol::Http1 | Protocol::WebSocket => vec![b"http/1.1".to_vec()],
        Protocol::Tcp => Vec::new(),
    };
    Ok(config)
}

/// Unpredictable enough to tell traces and pods apart.
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
