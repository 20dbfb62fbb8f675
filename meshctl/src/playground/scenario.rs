//! An example's requests and what it expects of them (`kind: PlaygroundScenario`), and the check of what came. Reading and checking are pure; `run` makes the requests.

use super::{
    access::{self, Seen},
    control::{Client, LogLine},
    folder::{SCENARIO, documents},
    report::{self, Report},
    request::{self, Outcome, Request},
};
use anyhow::{Context, Result, bail};
use base64_pem::first_certificate;
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

/// Access log lines are written a moment after the answer; so long they are waited for.
const LOG_WAIT: Duration = Duration::from_secs(2);

/// A list of steps.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    #[serde(rename = "apiVersion")]
    _api: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "metadata")]
    _metadata: Value,
    /// The steps.
    pub spec: Spec,
}

/// See [`Scenario`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// In this order.
    pub steps: Vec<Step>,
}

/// One sort of request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// What it shows.
    pub name: String,
    /// `namespace/name` of a pod or of its Deployment, or `host`.
    pub from: String,
    /// From the host: the Gateway, `namespace/name`.
    pub gateway: Option<String>,
    /// What to ask, see [`Request::get`].
    pub url: String,
    /// Method.
    pub method: Option<String>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Body.
    #[serde(default)]
    pub body: String,
    /// How often.
    #[serde(default = "one")]
    pub count: u32,
    /// For each, in milliseconds.
    pub timeout_millis: Option<u64>,
    /// The Secret whose certificate the server's must come from, `namespace/name`.
    pub trust: Option<String>,
    /// What must come.
    #[serde(default)]
    pub expect: Expect,
}

fn one() -> u32 {
    1
}

/// What a step must give. What is absent is not looked at.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expect {
    /// Status of every answer.
    pub status: Option<u16>,
    /// Or how many of each.
    pub statuses: Option<BTreeMap<u16, usize>>,
    /// gRPC status of every answer.
    pub grpc_status: Option<i32>,
    /// Nothing comes back, and the reason contains this.
    pub error: Option<String>,
    /// Exactly so many answers by each owner of pods, `namespace/name`.
    pub owners: Option<BTreeMap<String, usize>>,
    /// The route, `HTTPRoute/namespace/name`.
    pub route: Option<String>,
    /// The rule of it.
    pub rule: Option<String>,
    /// Tries of every request.
    pub attempts: Option<u64>,
    /// Tries of all requests together, at least.
    pub attempts_at_least: Option<u64>,
    /// As above, at most.
    pub attempts_at_most: Option<u64>,
    /// Identities; an empty text means none.
    pub client: Option<String>,
    /// As above.
    pub server: Option<String>,
    /// TLS version between the two ends, as the access log names it.
    pub tls: Option<String>,
    /// Response headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// What the answering pod saw, by JSON pointer (`/headers/x-user`).
    #[serde(default)]
    pub sees: BTreeMap<String, Value>,
    /// The body contains this.
    pub body: Option<String>,
}

/// One request and all that is known of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the client saw.
    pub outcome: Outcome,
    /// What the mesh says; none for traffic that it does not carry.
    pub seen: Option<Seen>,
    /// Owner of the pod that answered by its own report.
    pub owner: String,
    /// That pod, `namespace/name`.
    pub pod: String,
}

/// The scenarios of a folder.
pub fn read(dir: &Path) -> Result<Vec<Scenario>> {
    let mut scenarios = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for path in
        entries.iter().map(fs::DirEntry::path).filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml"))
    {
        for (line, text) in documents(&fs::read_to_string(&path)?) {
            if text.lines().any(|l| l.trim_end() == format!("kind: {SCENARIO}")) {
                let scenario = serde_saphyr::from_str(text).map_err(|e| {
                    anyhow::anyhow!("{}: in the document that starts at line {line}: {e}", path.display())
                })?;
                scenarios.push(scenario);
            }
        }
    }
    Ok(scenarios)
}

/// Performs all steps; prints a table and what is not as expected. Whether all is.
pub fn run(dir: &Path, client: &Client, report: &Report, runtime: &tokio::runtime::Runtime) -> Result<bool> {
    let scenarios = read(dir)?;
    if scenarios.is_empty() {
        bail!("{} has no {SCENARIO}: nothing to run", dir.display());
    }
    let steps: Vec<Step> = scenarios.into_iter().flat_map(|s| s.spec.steps).collect();
    let mut outcomes = Vec::new();
    for step in &steps {
        outcomes.push(perform(step, dir, client, report, runtime).with_context(|| format!("step {:?}", step.name))?);
    }
    let log = settled_log(client, &steps, &outcomes)?;
    // Pods may have come since.
    let report = client.status()?;
    let mut rows = Vec::new();
    let mut failures = Vec::new();
    for (step, outcomes) in steps.iter().zip(outcomes) {
        let answers: Vec<Answer> = outcomes.into_iter().map(|o| answer(o, &log, &report)).collect();
        let failed = check(&step.expect, &answers);
        rows.extend(table(step, &answers, failed.is_empty()));
        failures.extend(failed.into_iter().map(|f| format!("{}: {f}", step.name)));
    }
    let head = ["", "REQUEST", "N", "ROUTE, RULE", "ANSWERED", "STATUS", "CLIENT → SERVER", "TLS", "TRIES"];
    let mut out = String::new();
    report::table(&mut out, &head, rows);
    print!("{out}");
    for failure in &failures {
        println!("not as expected: {failure}");
    }
    println!("{} steps, {} not as expected", steps.len(), failures.len());
    Ok(failures.is_empty())
}

fn perform(
    step: &Step,
    dir: &Path,
    client: &Client,
    report: &Report,
    runtime: &tokio::runtime::Runtime,
) -> Result<Vec<Outcome>> {
    let mut request = Request::get(&step.url)?;
    if let Some(method) = &step.method {
        request.method.clone_from(method);
    }
    request.headers.clone_from(&step.headers);
    request.body.clone_from(&step.body);
    request.count = step.count;
    if let Some(millis) = step.timeout_millis {
        request.timeout = Duration::from_millis(millis);
    }
    if let Some(secret) = &step.trust {
        request.trust = Some(first_certificate(dir, secret)?);
    }
    if step.from != "host" {
        return client.request(&step.from, request);
    }
    let name = step.gateway.as_deref().context("a request from the host names its gateway")?;
    let gateway =
        report.gateways.iter().find(|g| g.name == name).with_context(|| format!("there is no Gateway {name}"))?;
    let port = gateway.ports.iter().find(|(p, _)| *p == request.port);
    let (_, address) = port.with_context(|| format!("Gateway {name} has no listener on {}", request.port))?;
    let to: SocketAddr = address.parse()?;
    Ok(runtime.block_on(request::perform(&request, &request::From::Here, to)))
}

/// The access log when it has a line for every request that expects one, or after a while.
fn settled_log(client: &Client, steps: &[Step], outcomes: &[Vec<Outcome>]) -> Result<Vec<LogLine>> {
    let deadline = Instant::now() + LOG_WAIT;
    loop {
        let log = client.access_log()?;
        let expecting = |e: &Expect| {
            e.route.is_some() || e.server.as_deref().is_some_and(|s| !s.is_empty()) || e.attempts.is_some()
        };
        let whole = steps
            .iter()
            .zip(outcomes)
            .filter(|(s, _)| expecting(&s.expect))
            .all(|(_, o)| o.iter().all(|o| access::seen(o, &log).is_some_and(|s| !s.client.is_empty())));
        if whole || Instant::now() > deadline {
            return Ok(log);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn answer(outcome: Outcome, log: &[LogLine], report: &Report) -> Answer {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let pod =
        outcome.report.as_ref().map(|r| format!("{}/{}", text(&r["namespace"]), text(&r["pod"]))).unwrap_or_default();
    let found = report.pods.iter().find(|p| format!("{}/{}", p.namespace, p.name) == pod);
    let owner = found.map(|p| p.owner.clone()).unwrap_or_default();
    Answer { seen: access::seen(&outcome, log), owner, pod, outcome }
}

/// What is not as expected, each in a sentence.
pub fn check(expect: &Expect, answers: &[Answer]) -> Vec<String> {
    let mut failures = Vec::new();
    let mut must = |good: bool, text: String| {
        if !good && !failures.contains(&text) {
            failures.push(text);
        }
    };
    if let Some(statuses) = &expect.statuses {
        let got = count(answers.iter().filter_map(|a| a.outcome.status));
        must(&got == statuses, format!("statuses {got:?} instead of {statuses:?}"));
    }
    if let Some(owners) = &expect.owners {
        let got = count(answers.iter().filter(|a| !a.owner.is_empty()).map(|a| a.owner.clone()));
        must(&got == owners, format!("answered by {got:?} instead of {owners:?}"));
    }
    let tries: u64 = answers.iter().filter_map(|a| a.seen.as_ref()).map(|s| s.attempts).sum();
    if let Some(least) = expect.attempts_at_least {
        must(tries >= least, format!("{tries} tries in all instead of at least {least}"));
    }
    if let Some(most) = expect.attempts_at_most {
        must(tries <= most, format!("{tries} tries in all instead of at most {most}"));
    }
    for answer in answers {
        let outcome = &answer.outcome;
        match (&expect.error, &outcome.error) {
            (None, Some(error)) => must(false, format!("no answer: {error}")),
            (Some(wanted), Some(error)) => {
                must(error.contains(wanted), format!("failed with {error:?} instead of {wanted:?}"))
            }
            (Some(wanted), None) => must(false, format!("answered instead of failing with {wanted:?}")),
            (None, None) => {}
        }
        if let Some(status) = expect.status {
            must(
                outcome.status == Some(status),
                format!("status {:?} instead of {status}; {}", outcome.status, outcome.body.trim()),
            );
        }
        if let Some(status) = expect.grpc_status {
            let told = outcome.headers.get("grpc-message").cloned().unwrap_or_default();
            must(
                outcome.grpc_status == Some(status),
                format!("grpc-status {:?} instead of {status} {told}", outcome.grpc_status),
            );
        }
        for (name, value) in &expect.headers {
            let got = outcome.headers.get(&name.to_ascii_lowercase());
            must(got == Some(value), format!("header {name}: {got:?} instead of {value:?}"));
        }
        for (pointer, value) in &expect.sees {
            let got = outcome.report.as_ref().and_then(|r| r.pointer(pointer)).cloned().unwrap_or_default();
            must(got == *value, format!("the pod saw {pointer} = {got} instead of {value}"));
        }
        if let Some(part) = &expect.body {
            must(outcome.body.contains(part), format!("the body does not contain {part:?}: {}", short(&outcome.body)));
        }
        let seen = answer.seen.clone().unwrap_or_default();
        let texts = [
            ("route", &expect.route, &seen.route),
            ("rule", &expect.rule, &seen.rule),
            ("client identity", &expect.client, &seen.client),
            ("server identity", &expect.server, &seen.server),
            ("TLS", &expect.tls, &seen.tls),
        ];
        for (what, wanted, got) in texts {
            if let Some(wanted) = wanted {
                must(wanted == got, format!("{what} {got:?} instead of {wanted:?}"));
            }
        }
        if let Some(attempts) = expect.attempts {
            must(seen.attempts == attempts, format!("{} tries instead of {attempts}", seen.attempts));
        }
    }
    failures
}

/// The start of a body, for a message.
fn short(body: &str) -> String {
    body.trim().chars().take(120).collect()
}

fn count<T: Ord>(items: impl Iterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for item in items {
        *counts.entry(item).or_insert(0) += 1;
    }
    counts
}

/// Rows of the table: equal requests of a step are one row.
fn table(step: &Step, answers: &[Answer], good: bool) -> Vec<Vec<String>> {
    let rows = count(answers.iter().map(|a| {
        let seen = a.seen.clone().unwrap_or_default();
        let route = match (seen.route.as_str(), seen.rule.as_str()) {
            ("", _) => "-".to_owned(),
            (route, "") => route.to_owned(),
            (route, rule) => format!("{route}, {rule}"),
        };
        let outcome = &a.outcome;
        let status = match (&outcome.error, outcome.grpc_status, outcome.status) {
            (Some(_), ..) => format!("failed {}", seen.fault),
            (None, Some(grpc), _) => format!("grpc {grpc}"),
            (None, None, Some(status)) => format!("{status} {}", seen.fault),
            (None, None, None) => "ok".into(),
        };
        let short = |identity: &str| match identity.split_once("/ns/") {
            Some((_, rest)) => rest.replace("/sa/", "/"),
            None => "-".into(),
        };
        let who = if a.seen.is_none() {
            "not in the mesh's log".into()
        } else if seen.client.is_empty() && seen.server.is_empty() {
            "-".into()
        } else {
            format!("{} → {}", short(&seen.client), short(&seen.server))
        };
        let answered = if a.pod.is_empty() { "-".into() } else { a.pod.clone() };
        (
            route,
            answered,
            status.trim_end().to_owned(),
            who,
            if seen.tls.is_empty() { "-".into() } else { seen.tls },
            seen.attempts,
        )
    }));
    let mut first = true;
    let rows = rows.into_iter().map(|((route, answered, status, who, tls, attempts), n)| {
        let (mark, what) = if first {
            let method = step.method.as_deref().map(|m| format!("{m} ")).unwrap_or_default();
            (if good { "ok" } else { "FAILED" }, format!("{method}{}", step.url))
        } else {
            ("", String::new())
        };
        first = false;
        let tries = if attempts == 0 { "-".into() } else { attempts.to_string() };
        vec![mark.into(), what, n.to_string(), route, answered, status, who, tls, tries]
    });
    std::iter::once(vec![String::new(), format!("# {}", step.name)]).chain(rows.collect::<Vec<_>>()).collect()
}

/// The first certificate of a Secret in the folder.
mod base64_pem {
    use super::super::folder::{Folder, Key};
    use anyhow::{Context, Result};
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    use std::path::Path;

    pub(super) fn first_certificate(dir: &Path, secret: &str) -> Result<Vec<u8>> {
        let (namespace, name) = secret.split_once('/').context("trust: namespace/name of a Secret")?;
        let key = Key { group: String::new(), kind: "Secret".into(), namespace: namespace.into(), name: name.into() };
        let objects = Folder::read(dir, &Folder::default())?.objects();
        let object = objects.get(&key).with_context(|| format!("the folder has no Secret {secret}"))?;
        let pem = match object.value["stringData"]["tls.crt"].as_str() {
            Some(pem) => pem.to_owned(),
            None => {
                let bytes: k8s_openapi::ByteString = serde_json::from_value(object.value["data"]["tls.crt"].clone())
                    .with_context(|| format!("Secret {secret}: data.tls.crt"))?;
                String::from_utf8(bytes.0)?
            }
        };
        Ok(CertificateDer::from_pem_slice(pem.as_bytes())
            .with_context(|| format!("Secret {secret}: tls.crt"))?
            .to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(owners: &[(&str, usize)]) -> Vec<Answer> {
        let answer = |owner: &str| Answer {
            outcome: Outcome { status: Some(200), ..Default::default() },
            seen: None,
            owner: owner.into(),
            pod: String::new(),
        };
        owners.iter().flat_map(|(owner, n)| std::iter::repeat_n(answer(owner), *n)).collect()
    }

    #[test]
    fn a_split_has_no_tolerance() {
        let expect = Expect { owners: Some([("s/a".into(), 9), ("s/b".into(), 1)].into()), ..Default::default() };
        assert!(check(&expect, &answers(&[("s/a", 9), ("s/b", 1)])).is_empty());
        assert_eq!(check(&expect, &answers(&[("s/a", 8), ("s/b", 2)])).len(), 1);
    }

    #[test]
    fn what_is_expected_and_not_seen_is_a_failure() {
        let expect = Expect { server: Some("spiffe://x".into()), error: None, ..Default::default() };
        assert_eq!(check(&expect, &answers(&[("s/a", 1)])).len(), 1);
        let refused = Expect { error: Some("reset".into()), ..Default::default() };
        assert_eq!(check(&refused, &answers(&[("s/a", 1)])), ["answered instead of failing with \"reset\""]);
    }
}
