//! Access logs of all proxies, and the join of their lines with what a client saw. Joining is pure.

use super::{addresses::SUPERVISOR, control::LogLine, request::Outcome};
use anyhow::Result;
use serde_json::Value;
use std::{fs, net::SocketAddr, path::Path};

/// All complete lines of all proxies.
pub fn read(dir: &Path) -> Result<Vec<LogLine>> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let proxy = entry.file_name().to_string_lossy().trim_end_matches(".log").to_owned();
        for line in fs::read_to_string(entry.path())?.lines() {
            // The last line may be in the making.
            if let Ok(line) = serde_json::from_str(line) {
                lines.push(LogLine { proxy: proxy.clone(), line });
            }
        }
    }
    Ok(lines)
}

/// What the mesh says of one request, from the sender's and the receiver's line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// `HTTPRoute/ns/name`.
    pub route: String,
    /// Rule of it.
    pub rule: String,
    /// Pod that it went to, `ns/name`.
    pub workload: String,
    /// Its owner.
    pub owner: String,
    /// Identity of the sender, as the receiver verified it; else as the sender says.
    pub client: String,
    /// Identity of the receiver, as the sender verified it.
    pub server: String,
    /// TLS version between the two.
    pub tls: String,
    /// Tries.
    pub attempts: u64,
    /// Why it was refused or failed.
    pub fault: String,
}

/// The lines of one request. By trace id; a connection without one by the client's address.
pub fn seen(outcome: &Outcome, log: &[LogLine]) -> Option<Seen> {
    let mine = |l: &&LogLine| {
        let by_trace = l.line["trace_id"].as_str() == Some(&outcome.trace_id);
        let by_address = outcome.local.is_some_and(|a| {
            // From the host the playground dials the Gateway in the client's stead, from the same port.
            let inside = if l.line["direction"] == "gateway" { SocketAddr::from((SUPERVISOR, a.port())) } else { a };
            l.line["source"]["address"].as_str() == Some(&inside.to_string())
        });
        by_trace || by_address
    };
    let lines: Vec<&LogLine> = log.iter().filter(mine).collect();
    // A connection that carries requests has a line of its own; the request's says more.
    let by_trace = |l: &&&LogLine| l.line["trace_id"].as_str() == Some(outcome.trace_id.as_str());
    let of = |direction: &str| {
        let all = || lines.iter().filter(|l| l.line["direction"] == direction);
        all().rfind(by_trace).or_else(|| all().next_back()).copied()
    };
    let gateway = of("gateway");
    let receiver = of("inbound").or_else(|| received(gateway?, log)).map(|l| &l.line);
    let sender = gateway.or_else(|| of("outbound")).map(|l| &l.line);
    let first = sender.or(receiver)?;
    let text =
        |v: &Value| v.as_str().map_or_else(|| if v.is_null() { String::new() } else { v.to_string() }, str::to_owned);
    Some(Seen {
        route: text(&first["route"]),
        rule: text(&first["rule"]),
        workload: text(&first["destination"]["workload"]),
        owner: text(&first["destination"]["owner"]),
        client: text(&receiver.unwrap_or(first)["source"]["identity"]),
        server: text(&first["destination"]["identity"]),
        tls: text(&first["tls"]),
        attempts: first["attempts"].as_u64().unwrap_or(0),
        fault: text(&first["fault"]),
    })
}

/// The receiver's line of a connection through a Gateway. It names the Gateway as its peer, not the client: the last one between the two is it.
fn received<'a>(gateway: &LogLine, log: &'a [LogLine]) -> Option<&'a LogLine> {
    if gateway.line["kind"] != "connection" {
        return None;
    }
    let identity = gateway.proxy.strip_prefix("gateway_")?.replacen('_', "/sa/", 1);
    let between = |l: &&LogLine| {
        l.line["direction"] == "inbound"
            && l.line["destination"]["workload"] == gateway.line["destination"]["workload"]
            && l.line["source"]["identity"].as_str().is_some_and(|i| i.ends_with(&format!("/ns/{identity}")))
    };
    log.iter().rfind(between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_route_is_the_senders_word_and_the_client_identity_the_receivers() {
        let log = [
            json!({"direction": "inbound", "trace_id": "t", "source": {"identity": "spiffe://verified"}}),
            json!({"direction": "outbound", "trace_id": "t", "route": "HTTPRoute/a/b", "attempts": 2, "tls": "TLSv1.3",
                "source": {"identity": "spiffe://said"}, "destination": {"identity": "spiffe://server"}}),
            json!({"direction": "outbound", "trace_id": "other", "route": "HTTPRoute/x/y"}),
        ]
        .map(|line| LogLine { proxy: "node_n1".into(), line });
        let seen = seen(&Outcome { trace_id: "t".into(), ..Default::default() }, &log).unwrap();
        assert_eq!((seen.route.as_str(), seen.attempts), ("HTTPRoute/a/b", 2));
        assert_eq!((seen.client.as_str(), seen.server.as_str()), ("spiffe://verified", "spiffe://server"));
    }
}
