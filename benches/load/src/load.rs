//! The load generators for requests, wrk, h2load, ghz and vegeta: how they are called and what they say. It must not know proxies.

use crate::arena::Place;
use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// Messages of a streaming call: enough that its beginning and end do not count.
const STREAMED: u64 = 500;

/// The service of the backend that answers gRPC.
const ECHO: &str = include_str!("../../../meshctl/src/echo/echo.proto");

/// How requests are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// HTTP/1.1 over so many connections as fast as answers come; `fresh`: a new connection for each request; `body`: bytes that each request posts.
    One { connections: u32, fresh: bool, body: u32 },
    /// HTTP/2 over so many connections with so many streams each, likewise.
    Two { connections: u32, streams: u32, body: u32 },
    /// gRPC calls with a message of 100 bytes, over so many connections with so many at once on each.
    Grpc { connections: u32, streams: u32 },
    /// gRPC calls likewise, each a stream of [`STREAMED`] such messages both ways; a "request" is a message.
    GrpcStream { connections: u32, streams: u32 },
    /// So many requests a second, whatever happens to those before: what waits for a connection waits on the request's account, so that latency is not flattered by
    /// requests that a slow proxy kept from being made (coordinated omission).
    Steady { rate: u32, connections: u32, h2c: bool },
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Answered well.
    pub requests: u64,
    /// Not answered, or not well.
    pub failed: u64,
    /// Requests a second.
    pub rate: f64,
    /// Percentiles, microseconds, where the generator says them.
    pub p50: Option<f64>,
    /// See `p50`.
    pub p99: Option<f64>,
    /// See `p50`.
    pub p999: Option<f64>,
    /// Processor time of the generator, nanoseconds.
    pub generator: u64,
}

/// HTTP/1.1 requests that a script of wrk's makes up, over so many connections.
pub fn scripted(arena: &dyn Place, url: &str, connections: u32, script: &Path, time: Duration) -> Result<Outcome> {
    let mut wrk = arena.command("wrk");
    wrk.args(["-t", "1", "-c", &connections.to_string(), "--latency", "--timeout", "5s", "-s"]).arg(script);
    let out = wrk.args(["-d", &format!("{}s", time.as_secs()), url]).output().context("wrk (Debian: wrk)")?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "wrk {url}: {}{text}", String::from_utf8_lossy(&out.stderr));
    self::wrk(&text).filter(|o| o.requests > 0).with_context(|| format!("no request succeeded:\n{text}"))
}

impl Load {
    /// Runs it for so long.
    pub fn run(self, place: &dyn Place, url: &str, time: Duration) -> Result<Outcome> {
        let scratch = tempfile::tempdir()?;
        let mut command = self.command(place, url, time, scratch.path())?;
        let before = children()?;
        let out = command.stdin(Stdio::null()).output().context("the load generator (Debian: wrk, nghttp2-client)")?;
        let generator = children()? - before;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "{self:?} {url}: {}{text}", String::from_utf8_lossy(&out.stderr));
        let outcome = match self {
            Self::One { .. } => wrk(&text),
            Self::Two { .. } | Self::Grpc { .. } => h2load(&text),
            Self::GrpcStream { .. } => ghz(&text),
            Self::Steady { .. } => {
                let report = |kind: &str| -> Result<String> {
                    let mut command = place.command("vegeta");
                    let out = command
                        .arg("report")
                        .arg(format!("-type={kind}"))
                        .arg(scratch.path().join("results"))
                        .output()?;
                    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
                };
                steady(&report("json")?, &report("hdrplot")?)
            }
        };
        let outcome = outcome.with_context(|| format!("not understood:\n{text}"))?;
        if outcome.requests == 0 {
            bail!("{self:?} {url}: no request succeeded:\n{text}");
        }
        Ok(Outcome { generator, ..outcome })
    }

    fn command(self, place: &dyn Place, url: &str, time: Duration, scratch: &Path) -> Result<Command> {
        let seconds = time.as_secs();
        Ok(match self {
            Self::One { connections, fresh, body } => {
                let mut wrk = place.command("wrk");
                wrk.args(["-t", "1", "-c", &connections.to_string(), "--latency", "--timeout", "5s"]);
                wrk.args(["-d", &format!("{seconds}s")]);
                if fresh {
                    wrk.args(["-H", "Connection: close"]);
                }
                if body > 0 {
                    let script = scratch.join("post.lua");
                    fs::write(&script, format!("wrk.method = \"POST\"\nwrk.body = string.rep(\"x\", {body})\n"))?;
                    wrk.arg("-s").arg(script);
                }
                wrk.arg(url);
                wrk
            }
            Self::Two { connections, streams, body } => {
                let mut h2load = h2load_command(place, connections, streams, seconds);
                if body > 0 {
                    let data = scratch.join("body");
                    fs::write(&data, "x".repeat(body as usize))?;
                    h2load.arg("-d").arg(data);
                }
                h2load.arg(url);
                h2load
            }
            Self::Grpc { connections, streams } => {
                let mut h2load = h2load_command(place, connections, streams, seconds);
                let data = scratch.join("message");
                fs::write(&data, grpc_message())?;
                h2load.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-d"]).arg(data).arg(url);
                h2load
            }
            Self::GrpcStream { connections, streams } => {
                let proto = scratch.join("echo.proto");
                fs::write(&proto, ECHO)?;
                let target = url.strip_prefix("http://").and_then(|u| u.split('/').next());
                let message = serde_json::json!({ "message": "x".repeat(100) });
                let mut ghz = place.command("ghz");
                ghz.arg("--proto").arg(proto).args(["--call", "heddle.echo.v1.Echo/Repeat", "--insecure"]);
                ghz.args(["--connections", &connections.to_string()]);
                ghz.args(["--concurrency", &(connections * streams).to_string()]);
                ghz.args(["--stream-call-count", &STREAMED.to_string(), "--data", &message.to_string()]);
                // What is under way when time is up is counted, and so it must end.
                ghz.args(["--duration", &format!("{seconds}s"), "--duration-stop", "wait", "--format", "json"]);
                ghz.arg(target.context("not a plaintext URL")?);
                ghz
            }
            Self::Steady { rate, connections, h2c } => {
                let targets = scratch.join("targets");
                fs::write(&targets, format!("GET {url}\n"))?;
                let mut attack = place.command("vegeta");
                attack.args(["attack", "-rate", &rate.to_string(), "-duration", &format!("{seconds}s")]);
                attack.args(["-max-connections", &connections.to_string(), "-connections", &connections.to_string()]);
                attack.args(["-timeout", "5s", "-max-body", "0", "-insecure"]);
                if h2c {
                    attack.arg("-h2c");
                }
                attack.arg("-targets").arg(targets).arg("-output").arg(scratch.join("results"));
                attack
            }
        })
    }
}

fn h2load_command(place: &dyn Place, connections: u32, streams: u32, seconds: u64) -> Command {
    let mut h2load = place.command("h2load");
    h2load.args(["-t", "1", "-c", &connections.to_string(), "-m", &streams.to_string(), "-D", &seconds.to_string()]);
    h2load
}

/// A message as it is on the wire: not compressed, length, and one field of 100 bytes.
fn grpc_message() -> Vec<u8> {
    const TEXT: [u8; 100] = [b'x'; 100];
    [&[0, 0, 0, 0, 102, 0x0a, 100], &TEXT[..]].concat()
}

/// Processor time of all processes that we started and that have ended.
pub fn children() -> Result<u64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let ns = |t: nix::sys::time::TimeVal| {
        u64::try_from(t.tv_sec() * 1_000_000_000 + t.tv_usec() * 1_000).unwrap_or_default()
    };
    Ok(ns(usage.user_time()) + ns(usage.system_time()))
}

fn wrk(text: &str) -> Option<Outcome> {
    let line = |has: &str| text.lines().map(str::trim).find(|l| l.contains(has));
    let number =
        |l: &str| l.split(|c: char| !c.is_ascii_digit() && c != '.').find(|w| !w.is_empty())?.parse::<f64>().ok();
    let total = number(line(" requests in ")?)? as u64;
    let bad = line("Non-2xx or 3xx responses:")
        .map_or(0, |l| l.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or_default());
    let socket = line("Socket errors")
        .map_or(0, |l| l.split(|c: char| !c.is_ascii_digit()).filter_map(|w| w.parse::<u64>().ok()).sum());
    let percentile = |p: &str| line(p).and_then(|l| micros(l.split_whitespace().nth(1)?));
    Some(Outcome {
        requests: total.saturating_sub(bad),
        failed: bad + socket,
        rate: number(line("Requests/sec:")?)?,
        p50: percentile("50%"),
        p99: percentile("99%"),
        ..Outcome::default()
    })
}

fn h2load(text: &str) -> Option<Outcome> {
    let line = |starts: &str| text.lines().find(|l| l.starts_with(starts));
    let before = |l: &str, word: &str| {
        let words: Vec<&str> = l.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        words.iter().position(|w| *w == word).and_then(|at| words.get(at.checked_sub(1)?)?.parse::<f64>().ok())
    };
    let requests = line("requests:")?;
    let good = before(line("status codes:")?, "2xx")?;
    Some(Outcome {
        requests: good as u64,
        failed: before(requests, "failed")? as u64,
        rate: before(line("finished in")?, "req/s")?,
        ..Outcome::default()
    })
}

fn ghz(json: &str) -> Option<Outcome> {
    let report: Value = serde_json::from_str(json).ok()?;
    let calls = report["count"].as_u64()?;
    let good = report["statusCodeDistribution"]["OK"].as_u64().unwrap_or_default();
    if good < calls {
        eprintln!("ghz: {}", report["errorDistribution"]);
    }
    let seconds = report["total"].as_f64()? / 1e9;
    Some(Outcome {
        requests: good * STREAMED,
        failed: (calls - good) * STREAMED,
        rate: (good * STREAMED) as f64 / seconds,
        ..Outcome::default()
    })
}

/// vegeta's report as JSON, and as a plot for what lies beyond the 99th percentile.
fn steady(json: &str, plot: &str) -> Option<Outcome> {
    let report: Value = serde_json::from_str(json).ok()?;
    let requests = report["requests"].as_u64()?;
    let good = (report["success"].as_f64()? * requests as f64).round() as u64;
    let percentile = |name: &str| report["latencies"][name].as_f64().map(|ns| ns / 1e3);
    let row = |line: &str| {
        let mut words = line.split_whitespace().map(str::parse::<f64>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    };
    let beyond = plot.lines().filter_map(row).find(|(_, percentile)| *percentile >= 0.999);
    Some(Outcome {
        requests: good,
        failed: requests - good,
        rate: report["throughput"].as_f64()?,
        p50: percentile("50th"),
        p99: percentile("99th"),
        p999: beyond.map(|(ms, _)| ms * 1e3),
        generator: 0,
    })
}

fn micros(text: &str) -> Option<f64> {
    let at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let number: f64 = text[..at].parse().ok()?;
    Some(match &text[at..] {
        "us" => number,
        "ms" => number * 1e3,
        "s" => number * 1e6,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_wrk_are_understood() {
        let text = "Running 2s test @ http://x\n  1 threads and 32 connections\n  Thread Stats   Avg      Stdev     Max   +/- Stdev\n    Latency   671.12us  101.10us   3.31ms   90.81%\n  Latency Distribution\n     50%  650.00us\n     75%  701.00us\n     90%  752.00us\n     99%    1.05ms\n  95012 requests in 2.10s, 20.1MB read\n  Socket errors: connect 0, read 3, write 0, timeout 1\n  Non-2xx or 3xx responses: 12\nRequests/sec:  45243.81\n";
        let outcome = wrk(text).unwrap();
        assert_eq!((outcome.requests, outcome.failed), (95_000, 16));
        assert_eq!((outcome.p50, outcome.p99, outcome.rate), (Some(650.0), Some(1050.0), 45243.81));
    }

    #[test]
    fn the_words_of_h2load_are_understood() {
        let text = "starting benchmark...\nfinished in 2.00s, 61234.50 req/s, 12.1MB/s\nrequests: 122469 total, 122725 started, 122469 done, 122469 succeeded, 2 failed, 0 errored, 0 timeout\nstatus codes: 122467 2xx, 0 3xx, 0 4xx, 2 5xx\n";
        let outcome = h2load(text).unwrap();
        assert_eq!((outcome.requests, outcome.failed, outcome.rate), (122_467, 2, 61234.5));
    }

    #[test]
    fn the_words_of_ghz_are_understood() {
        let json = r#"{"endReason":"timeout","count":40,"total":2000000000,"rps":20.0,"errorDistribution":{"rpc error: code = Unavailable":2},"statusCodeDistribution":{"OK":38,"Unavailable":2}}"#;
        let outcome = ghz(json).unwrap();
        assert_eq!((outcome.requests, outcome.failed, outcome.rate), (19_000, 1_000, 9_500.0));
    }

    #[test]
    fn the_words_of_vegeta_are_understood() {
        let json = r#"{"latencies":{"mean":1586612,"50th":1418701,"99th":5851825},"requests":400,"throughput":200.25,"success":0.995}"#;
        let plot = "Value(ms)  Percentile  TotalCount  1/(1-Percentile)\n1.418701   0.500000    200         2.000000\n9.780605   0.998633    399         731.5\n9.947671   0.999023    400         1023.5\n12.0   0.999121    400         1137.6\n";
        let outcome = steady(json, plot).unwrap();
        assert_eq!((outcome.requests, outcome.failed, outcome.rate), (398, 2, 200.25));
        assert_eq!((outcome.p50, outcome.p99, outcome.p999), (Some(1418.701), Some(5851.825), Some(9947.671)));
    }
}
