//! The mesh's root: what it is, how far its replacement is, and the request for a new one. It must not touch a key; the controller makes and keeps them.

use super::{Access, NAMESPACE};
use anyhow::{Context, Result, bail};
use clap::Subcommand;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use serde::Deserialize;
use serde_json::json;
use std::{
    fmt::Write,
    time::{Duration, Instant},
};
use time::OffsetDateTime;
use x509_parser::{parse_x509_certificate, pem::Pem};

/// Where the controller keeps its root, and the roots that everybody trusts.
const SECRET: &str = "heddle-ca";
const ROOTS: &str = "heddle-ca-roots";
/// The controller's leader makes a new root when it finds this annotation, and takes it away.
const REQUEST: &str = "heddle.dev/rotate";
/// Whoever makes the root by cert-manager renews it there.
const CERT_MANAGER: &str = "cert-manager.io/certificate-name";
/// The controller's leader looks every second.
const ANSWER: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(500);

/// What to do with the root.
#[derive(Subcommand, Clone, Debug)]
pub enum Ca {
    /// Shows what signs, what is trusted and until when, and how far a rotation is
    Status,
    /// Replaces the root with overlap: no connection fails. Returns when all proxies trust the new root and it signs
    Rotate {
        /// Only ask for it; `meshctl ca status` shows how far it is
        #[arg(long)]
        no_wait: bool,
        /// How long to wait for the new root to sign, in seconds; the rotation itself goes on in any case
        #[arg(long, value_name = "SECONDS", default_value = "600")]
        timeout: u64,
    },
}

/// What the leader says of a rotation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Progress {
    stage: Option<String>,
    problem: Option<String>,
    revision: u64,
    until: Option<i64>,
    waiting_for: Vec<String>,
    waiting: usize,
    confirmed: usize,
}

/// Runs a command.
pub async fn ca(access: &Access, what: &Ca) -> Result<()> {
    match what {
        Ca::Status => {
            let (secret, roots) = read(access).await?;
            print!("{}", describe(&secret, &roots));
            Ok(())
        }
        Ca::Rotate { no_wait, timeout } => rotate(access, !no_wait, Duration::from_secs(*timeout)).await,
    }
}

async fn read(access: &Access) -> Result<(Secret, ConfigMap)> {
    let secret = access.get("Secret", NAMESPACE, SECRET).await?;
    let Some(secret) = secret else {
        bail!("Secret {NAMESPACE}/{SECRET} is not there: is Heddle installed and running?")
    };
    let roots = access.get("ConfigMap", NAMESPACE, ROOTS).await?.unwrap_or_else(|| json!({}));
    let secret = serde_json::from_value(secret).with_context(|| format!("Secret {NAMESPACE}/{SECRET}"))?;
    Ok((secret, serde_json::from_value(roots).with_context(|| format!("ConfigMap {NAMESPACE}/{ROOTS}"))?))
}

async fn rotate(access: &Access, wait: bool, timeout: Duration) -> Result<()> {
    let (secret, roots) = read(access).await?;
    if secret.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CERT_MANAGER)) {
        bail!(
            "the root is made by cert-manager: renew its Certificate (`cmctl renew`); Heddle then replaces it with overlap"
        );
    }
    let before = progress(&roots);
    match before.stage.as_deref() {
        Some("steady") => {}
        Some(stage) => bail!("the root is being replaced already ({stage}); see `meshctl ca status`"),
        None => bail!(
            "{}",
            before.problem.unwrap_or_else(|| "the controller does not say how the root is; is it running?".into())
        ),
    }
    let patch = json!({"metadata": {"annotations": {REQUEST: OffsetDateTime::now_utc().unix_timestamp().to_string()}}});
    access.merge("Secret", NAMESPACE, SECRET, &patch).await?;
    println!("asked for a new root");
    if !wait {
        return Ok(());
    }
    let (start, mut shown) = (Instant::now(), String::new());
    loop {
        tokio::time::sleep(LOOK).await;
        let now = progress(&read(access).await?.1);
        let stage = now.stage.as_deref().unwrap_or("unusable");
        let begun = now.revision != before.revision;
        if begun && matches!(stage, "draining" | "steady") {
            println!(
                "the new root signs; the old one is trusted until {}",
                now.until.map_or_else(|| "now".into(), moment)
            );
            return Ok(());
        }
        let says = match begun {
            true => waits(&now),
            false => "waiting for the controller's leader".to_owned(),
        };
        if says != shown {
            println!("{says}");
            shown = says;
        }
        if !begun && start.elapsed() > ANSWER {
            bail!("the controller did not begin within {} s: see the log of its leader", ANSWER.as_secs());
        }
        if start.elapsed() > timeout {
            bail!("not done within {} s, and goes on by itself: {shown}", timeout.as_secs());
        }
    }
}

fn progress(roots: &ConfigMap) -> Progress {
    let text = roots.data.as_ref().and_then(|data| data.get("rotation.json"));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

fn waits(progress: &Progress) -> String {
    let until = progress.until.map_or_else(String::new, |until| format!("; goes on at {} in any case", moment(until)));
    let names = progress.waiting_for.join(", ");
    let more = if progress.waiting > progress.waiting_for.len() { ", …" } else { "" };
    match progress.waiting {
        0 => format!("{} proxies trust the new root", progress.confirmed),
        n => format!("{} proxies trust the new root, {n} do not yet: {names}{more}{until}", progress.confirmed),
    }
}

/// All there is to know, for people. Pure.
fn describe(secret: &Secret, roots: &ConfigMap) -> String {
    let field = |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|bytes| certificates(&bytes.0));
    let progress = progress(roots);
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<10} {value}");
    };
    match progress.stage.as_deref() {
        Some("introducing") => line("stage", &format!("a new root is introduced: {}", waits(&progress))),
        Some("draining") => {
            let until = progress.until.map_or_else(String::new, moment);
            line(
                "stage",
                &format!("the new root signs; the old one is trusted until {until}, when what it signed has ended"),
            );
        }
        Some(stage) => line("stage", stage),
        None => line("stage", "unknown"),
    }
    if let Some(problem) = &progress.problem {
        line("problem", problem);
    }
    let wanted = field("tls.crt").unwrap_or_default();
    let active = field("active.crt").unwrap_or_else(|| wanted.clone());
    line("signs", active.first().map_or("nothing", String::as_str));
    if active.first() != wanted.first() {
        line("next", wanted.first().map_or("cannot be read", String::as_str));
    }
    for root in field("trusted.crt").or_else(|| field("ca.crt")).unwrap_or(wanted) {
        line("trusted", &root);
    }
    for (name, report) in roots.data.iter().flatten().filter_map(|(k, v)| Some((k.strip_prefix("seen-by.")?, v))) {
        let report: serde_json::Value = serde_json::from_str(report).unwrap_or_default();
        let list = |key: &str| {
            let names: Vec<&str> = report[key].as_array().into_iter().flatten().filter_map(|n| n.as_str()).collect();
            if names.is_empty() { "none".to_owned() } else { names.join(" ") }
        };
        line("acked", &format!("by {name}: {}; behind: {}", list("held"), list("behind")));
    }
    text
}

/// Each certificate of a PEM text in one line.
fn certificates(pem: &[u8]) -> Vec<String> {
    let described = |pem: Pem| {
        let (_, cert) = parse_x509_certificate(&pem.contents).ok()?;
        let end = moment(cert.validity().not_after.timestamp());
        let serial: String = cert.raw_serial().iter().take(6).map(|b| format!("{b:02x}")).collect();
        Some(format!("{} (serial {serial}…), until {end}", cert.subject()))
    };
    Pem::iter_from_buffer(pem).flatten().filter_map(described).collect()
}

fn moment(seconds: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(seconds) else { return seconds.to_string() };
    let (date, hour, minute, second) = (at.date(), at.hour(), at.minute(), at.second());
    format!("{date} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DnType, KeyPair};

    fn root(name: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = Default::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(2036, 1, 2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn secret(fields: &[(&str, &str)]) -> Secret {
        let bytes = |text: &&str| ByteString(text.as_bytes().to_vec());
        let data = fields.iter().map(|(name, text)| ((*name).to_owned(), bytes(text))).collect();
        Secret { data: Some(data), ..Secret::default() }
    }

    fn roots(progress: serde_json::Value) -> ConfigMap {
        let report = json!({"revision": 7, "held": ["node/n1"], "behind": ["node/n2"]}).to_string();
        let data = [("rotation.json".to_owned(), progress.to_string()), ("seen-by.a".to_owned(), report)];
        ConfigMap { data: Some(data.into()), ..ConfigMap::default() }
    }

    #[test]
    fn a_rotation_is_told_with_what_it_waits_for() {
        let (old, new) = (root("old"), root("new"));
        let both = format!("{old}{new}");
        let secret = secret(&[("tls.crt", &new), ("active.crt", &old), ("trusted.crt", &both)]);
        let told = describe(
            &secret,
            &roots(json!({"stage": "introducing", "revision": 7, "since": 1, "until": 1767225600,
                "waitingFor": ["node/n2"], "waiting": 1, "confirmed": 1})),
        );
        let starts: Vec<&str> =
            told.lines().map(|line| line.split_once(" (serial").map_or(line, |(start, _)| start)).collect();
        assert_eq!(
            starts,
            [
                "stage      a new root is introduced: 1 proxies trust the new root, 1 do not yet: node/n2; goes on at 2026-01-01 00:00:00 UTC in any case",
                "signs      CN=old",
                "next       CN=new",
                "trusted    CN=old",
                "trusted    CN=new",
                "acked      by a: node/n1; behind: node/n2",
            ]
        );
        assert!(told.contains("until 2036-01-02 00:00:00 UTC"), "{told}");
    }

    #[test]
    fn a_secret_that_cannot_be_used_is_told_with_the_controllers_reason() {
        let told = describe(
            &secret(&[("tls.crt", "x")]),
            &roots(json!({"stage": null, "problem": "Secret heddle-system/heddle-ca: tls.key: is missing"})),
        );
        assert!(
            told.contains("stage      unknown")
                && told.contains("tls.key: is missing")
                && told.contains("signs      nothing"),
            "{told}"
        );
    }
}
