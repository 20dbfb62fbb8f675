//! App: an application that does what the test says and tells what it saw. It must not know the mesh.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, request::Parts};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// A request as the application saw it.
#[derive(Debug)]
pub struct Seen {
    pub head: Parts,
    pub body: Bytes,
}

/// What the application answers.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
    /// Before the head.
    pub delay: Duration,
    /// Break off after the body instead of ending it.
    pub abort: bool,
    /// Wait after the body before ending it.
    pub linger: Duration,
}

impl Reply {
    pub fn status(code: u16) -> Self {
        Self { status: StatusCode::from_u16(code).unwrap(), ..Self::default() }
    }

    pub fn text(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }
}

/// A running application.
pub struct App {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl App {
    /// Answers the nth request (from 0) by `answer`, on a free port of 127.0.0.1.
    pub async fn start(answer: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answer).await
    }

    /// Always answers 200 with a name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |_, _| Reply::text(name)).await
    }

    pub async fn at(address: SocketAddr, answer: impl Fn(usize, &Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let answer = Arc::new(answer);
        let kept = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // As servers do: else the end of a stream waits for an acknowledgement, which may take 40 ms.
                stream.set_nodelay(true).unwrap();
                let (seen, answer) = (kept.clone(), answer.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| respond(request, seen.clone(), answer.clone()));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen }
    }

    /// Requests seen so far.
    pub fn hits(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Looks at the nth request.
    pub fn saw<T>(&self, n: usize, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap()[n])
    }

    /// A header of the nth request; empty if absent.
    pub fn header(&self, n: usize, name: &str) -> String {
        self.saw(n, |s| s.head.headers.get(name).map_or(String::new(), |v| v.to_str().unwrap().to_owned()))
    }
}

type AppBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

async fn respond(
    mut request: Request<Incoming>,
    seen: Arc<Mutex<Vec<Seen>>>,
    answer: Arc<impl Fn(usize, &Seen) -> Reply>,
) -> Result<Response<AppBody>, Infallible> {
    if request.headers().contains_key("upgrade") {
        return Ok(upgrade(&mut request));
    }
    if request.uri().path() == "/echo" {
        // Streams the body back as it comes, with its trailers.
        let body = request.into_body().map_err(std::io::Error::other).boxed_unsync();
        return Ok(Response::new(body));
    }
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        // The proxy broke the body off; nobody waits for an answer.
        return Ok(Response::new(http_body_util::Empty::new().map_err(|e| match e {}).boxed_unsync()));
    };
    let one = Seen { head, body: body.to_bytes() };
    let reply = {
        let mut seen = seen.lock().unwrap();
        let reply = answer(seen.len(), &one);
        seen.push(one);
        reply
    };
    tokio::time::sleep(reply.delay).await;
    let mut frames: Vec<Result<Frame<Bytes>, std::io::Error>> = Vec::new();
    if !reply.body.is_empty() {
        frames.push(Ok(Frame::data(reply.body)));
    }
    if let Some(trailers) = reply.trailers {
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let (linger, abort) = (reply.linger, reply.abort);
    let frames = futures_util::stream::unfold((frames.into_iter(), false), move |(mut frames, ended)| async move {
        if let Some(frame) = frames.next() {
            return Some((frame, (frames, false)));
        }
        tokio::time::sleep(linger).await;
        (abort && !ended).then(|| (Err(std::io::Error::other("told to abort")), (frames, true)))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    Ok(response)
}

/// Switches protocols and echoes bytes.
fn upgrade(request: &mut Request<Incoming>) -> Response<AppBody> {
    let upgraded = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(io) = upgraded.await else { return };
        let mut io = TokioIo::new(io);
        let mut buffer = [0; 4096];
        while let Ok(n) = io.read(&mut buffer).await {
            if n == 0 || io.write_all(&buffer[..n]).await.is_err() {
                break;
            }
        }
        let _ = io.shutdown().await;
    });
    let mut response = Response::new(http_body_util::Empty::new().map_err(|e| match e {}).boxed_unsync());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    response
}
