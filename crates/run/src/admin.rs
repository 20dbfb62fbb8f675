//! The admin server: `/ready`, `/live`, `/metrics`, `/debug/config`, `/debug/log`. It must not show keys, nor take more of the process than it needs.

use crate::{Drain, LogLevel, Readiness};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

/// Scrapers, probes and a few humans; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// A client that does not finish its request head within this time goes.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// No admin connection lives longer, busy or idle.
const CONNECTION_LONGEST: Duration = Duration::from_secs(300);
/// Header bytes that are buffered.
const HEAD_LONGEST: usize = 16 * 1024;
/// After a failed accept (no descriptors left), so that the loop does not burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin server shows.
#[derive(Clone)]
pub struct Admin {
    /// `/ready`: 200 when ready, else 503 with what is waited for. Draining is not ready.
    pub readiness: Readiness,
    /// `/ready` says so when the process goes away.
    pub drain: Drain,
    /// `/metrics`.
    pub metrics: Arc<Registry>,
    /// `/debug/log`.
    pub log: LogLevel,
    /// `/debug/config`: makes the JSON, without keys.
    pub config: Arc<dyn Fn() -> String + Send + Sync>,
}

impl Admin {
    /// Serves until `stop` ends; keeps serving while the process drains, so that the drain can be watched. Dropping it closes everything.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let admin = Arc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = tokio::task::JoinSet::new();
        tokio::pin!(stop);
        loop {
            let accept = async {
                let permit = room.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            tokio::select! {
                () = &mut stop => return,
                Some(_ended) = connections.join_next(), if !connections.is_empty() => {}
                (permit, accepted) = accept => match accepted {
                    Ok((tcp, _)) => {
                        let admin = admin.clone();
                        connections.spawn(async move {
                            let _held = permit;
                            let _ = timeout(CONNECTION_LONGEST, admin.connection(tcp)).await;
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "admin server cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
    }

    async fn connection(self: Arc<Self>, tcp: TcpStream) {
        let service = service_fn(move |request| {
            let response = self.answer(&request);
            async move { Ok::<_, Infallible>(response) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(HEAD_LONGEST);
        if let Err(error) = http.serve_connection(TokioIo::new(tcp), service).await {
            tracing::debug!(%error, "admin connection");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/live") => text(StatusCode::OK, "live\n"),
            (&Method::GET | &Method::HEAD, "/ready") => self.ready(),
            (&Method::GET, "/metrics") => self.metrics(),
            (&Method::GET, "/debug/config") => typed(StatusCode::OK, "application/json", (self.config)()),
            (&Method::GET, "/debug/log") => match self.log.current() {
                Ok(directives) => text(StatusCode::OK, directives + "\n"),
                Err(fault) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{fault}\n")),
            },
            (&Method::PUT, "/debug/log") => self.set_log(request.uri().query().unwrap_or_default()),
            (_, "/live" | "/ready" | "/metrics" | "/debug/config") => not_allowed("GET"),
            (_, "/debug/log") => not_allowed("GET, PUT"),
            _ => text(StatusCode::NOT_FOUND, "here are /ready /live /metrics /debug/config /debug/log\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        if self.drain.is_started() {
            return text(StatusCode::SERVICE_UNAVAILABLE, format!("draining, {} busy\n", self.drain.busy_count()));
        }
        let status = if self.readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        text(status, self.readiness.to_string())
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match prometheus_client::encoding::text::encode(&mut body, &self.metrics) {
            Ok(()) => typed(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", body),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n")),
        }
    }

    fn set_log(&self, query: &str) -> Response<Full<Bytes>> {
        let filter = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "filter");
        let Some((_, directives)) = filter else {
            return text(StatusCode::BAD_REQUEST, "say /debug/log?filter=DIRECTIVES\n");
        };
        match self.log.set(&directives) {
            Ok(()) => {
                tracing::info!(%directives, "log filter changed");
                text(StatusCode::OK, format!("{directives}\n"))
            }
            Err(fault) => text(StatusCode::BAD_REQUEST, format!("{fault}\n")),
        }
    }
}

fn not_allowed(allowed: &'static str) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, format!("only {allowed}\n"));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
