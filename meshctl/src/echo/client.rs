//! The echo server's small counterpart: asks URLs a number of times, each by a connection of its own, and says how often an answer came. It must not judge.

use anyhow::{Context, Result};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// A request that takes longer has failed: what is asked is near and does nothing.
const EACH: Duration = Duration::from_secs(3);

/// Between tries while nothing answers yet.
const PAUSE: Duration = Duration::from_millis(250);

/// What is asked.
#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Requests to each URL.
    #[arg(long, default_value_t = 1)]
    pub times: u32,
    /// Seconds to wait for the first answer; failures before it do not count.
    #[arg(long, default_value_t = 0)]
    pub warm_up: u64,
    /// http://HOST:PORT/PATH
    #[arg(required = true)]
    pub urls: Vec<http::Uri>,
}

/// How it went with one URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub url: String,
    /// Requests that were answered with success.
    pub answers: u32,
    /// Requests that were not.
    pub failures: u32,
    /// Why the last one was not.
    pub last: Option<String>,
}

/// Asks them all, one after the other, and prints a line of JSON for each.
pub async fn run(settings: Settings) -> Result<()> {
    for url in &settings.urls {
        let report = ask(url, settings.times, Duration::from_secs(settings.warm_up)).await;
        println!("{}", serde_json::to_string(&report)?);
    }
    Ok(())
}

async fn ask(url: &http::Uri, times: u32, warm_up: Duration) -> Report {
    let mut report = Report { url: url.to_string(), answers: 0, failures: 0, last: None };
    let started = Instant::now();
    while started.elapsed() < warm_up && once(url).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    for _ in 0..times {
        match once(url).await {
            Ok(()) => report.answers += 1,
            Err(error) => {
                report.failures += 1;
                report.last = Some(format!("{error:#}"));
            }
        }
    }
    report
}

async fn once(url: &http::Uri) -> Result<()> {
    tokio::time::timeout(EACH, request(url)).await.with_context(|| format!("no answer within {EACH:?}"))?
}

async fn request(url: &http::Uri) -> Result<()> {
    let host = url.host().context("the URL has no host")?;
    let port = url.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await.context("connect")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let authority = url.authority().map_or(host, http::uri::Authority::as_str);
    let path = url.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = http::Request::get(path).header(http::header::HOST, authority).body(Empty::<Bytes>::new())?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body[..body.len().min(200)]));
        Ok(())
    }
    .await;
    driver.abort();
    answered
}
