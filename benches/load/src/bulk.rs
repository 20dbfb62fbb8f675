//! The load generator for bytes, iperf3: how it is called and what it says. It must not know proxies.

use crate::{arena::Place, load::children};
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::{
    process::Stdio,
    time::{Duration, Instant},
};

/// The server's end of a run is told over another connection, which may be slow.
const BUSY: Duration = Duration::from_secs(5);
/// Between two attempts.
const LOOK: Duration = Duration::from_millis(50);

/// How bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bulk {
    /// Connections at once.
    pub connections: u32,
    /// From the server to the client, instead of from the client to the server.
    pub down: bool,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moved {
    /// Received by the other end.
    pub bytes: u64,
    /// Rate of that.
    pub bits_per_second: f64,
    /// Processor time of the generator at this end, nanoseconds.
    pub generator: u64,
}

impl Bulk {
    /// Runs it for so long.
    pub fn run(self, place: &dyn Place, host: &str, port: u16, time: Duration) -> Result<Moved> {
        let end = Instant::now() + BUSY;
        // The server serves one run at a time, and turns the next one away until it has ended the one before.
        loop {
            match self.try_run(place, host, port, time) {
                Err(_) if Instant::now() < end => std::thread::sleep(LOOK),
                outcome => return outcome,
            }
        }
    }

    fn try_run(self, place: &dyn Place, host: &str, port: u16, time: Duration) -> Result<Moved> {
        let mut iperf = place.command("iperf3");
        iperf.args(["--client", host, "--port", &port.to_string(), "--time", &time.as_secs().to_string(), "--json"]);
        iperf.args(["--parallel", &self.connections.to_string()]);
        if self.down {
            iperf.arg("--reverse");
        }
        let before = children()?;
        let out = iperf.stdin(Stdio::null()).output().context("iperf3 (Debian: iperf3)")?;
        let generator = children()? - before;
        let text = String::from_utf8_lossy(&out.stdout);
        ensure!(out.status.success(), "{self:?} {host}:{port}: {text}{}", String::from_utf8_lossy(&out.stderr));
        let (bytes, bits_per_second) = read(&text).with_context(|| format!("not understood:\n{text}"))?;
        ensure!(bytes > 0, "{self:?} {host}:{port}: no byte came through");
        Ok(Moved { bytes, bits_per_second, generator })
    }
}

fn read(text: &str) -> Option<(u64, f64)> {
    let report: Value = serde_json::from_str(text).ok()?;
    let sum = &report["end"]["sum_received"];
    Some((sum["bytes"].as_u64()?, sum["bits_per_second"].as_f64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_iperf3_are_understood() {
        let text = r#"{"start": {}, "intervals": [], "end": {"sum_sent": {"bytes": 12}, "sum_received": {"bytes": 11, "bits_per_second": 44.5}}}"#;
        assert_eq!(read(text), Some((11, 44.5)));
        assert_eq!(read(r#"{"error": "unable to connect"}"#), None);
    }
}
