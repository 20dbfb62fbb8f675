//! Reports: what each replica knows alone and the leader must know of all, as annotations of the Lease. Each replica writes its own only. It must not
//! decide what follows from them.
//!
//! A node proxy is connected to one replica; so only all replicas together know whether every proxy runs the newest settings.

use super::LEASE;
use crate::publish::{Publisher, Taken};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};

/// Prefix of the annotations; a replica's name follows.
const PREFIX: &str = "replica.heddle.dev/";

/// How often a replica looks whether its report changed.
const LOOK: Duration = Duration::from_secs(1);

/// How often it reports though nothing changed, so that one that is gone is noticed.
const REFRESH: Duration = Duration::from_secs(20);

/// A report that did not change for so long is of a replica that is gone.
const STALE: Duration = Duration::from_secs(60);

/// Longest answer to one request.
const REQUEST: Duration = Duration::from_secs(4);

/// Reports to the leader for ever.
pub async fn report(client: Client, namespace: String, replica: String, publisher: Arc<Publisher>) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    // Each replica owns its own annotation; when another applies its own, ours stays.
    let params = PatchParams::apply(&format!("heddle.dev/{replica}")).force();
    let mut told: Option<(Taken, Instant)> = None;
    let mut count = 0_u64;
    loop {
        let taken = publisher.settings_taken();
        if told.is_none_or(|(before, at)| before != taken || at.elapsed() >= REFRESH) {
            count += 1;
            let text = write(taken, count);
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": LEASE, "annotations": {format!("{PREFIX}{replica}"): text}},
            });
            match timeout(REQUEST, leases.patch(LEASE, &params, &Patch::Apply(&lease))).await {
                Ok(Ok(_)) => told = Some((taken, Instant::now())),
                Ok(Err(e)) => tracing::debug!("report to the leader: {e}"),
                Err(_) => tracing::debug!("report to the leader: no answer within {REQUEST:?}"),
            }
        }
        sleep(LOOK).await;
    }
}

/// `VERSION CONNECTED BY COUNT`; the count changes with each report.
fn write(taken: Taken, count: u64) -> String {
    format!("{:016x} {} {} {count}", taken.version, taken.connected, taken.by)
}

fn read(text: &str) -> Option<Taken> {
    let mut words = text.split(' ');
    let version = u64::from_str_radix(words.next()?, 16).ok()?;
    Some(Taken { version, connected: words.next()?.parse().ok()?, by: words.next()?.parse().ok()? })
}

/// The reports of all replicas, as the leader reads them.
pub struct Reports {
    leases: Api<Lease>,
    /// Last text of each replica, and when it was new.
    seen: BTreeMap<String, (String, Instant)>,
}

impl Reports {
    /// Nothing was read yet.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { leases: Api::namespaced(client, namespace), seen: BTreeMap::new() }
    }

    /// All reports of replicas that live; none: they cannot be read now. To be called by the leader, for it clears away what the dead left.
    pub async fn read(&mut self) -> Option<Vec<Taken>> {
        let lease = timeout(REQUEST, self.leases.get_opt(LEASE)).await.ok()?.ok()?;
        let annotations = lease.and_then(|lease| lease.metadata.annotations).unwrap_or_default();
        let (live, dead) = self.sort(&annotations, Instant::now());
        if !dead.is_empty() {
            let gone: BTreeMap<&String, Value> = dead.iter().map(|name| (name, Value::Null)).collect();
            let patch = json!({"metadata": {"annotations": gone}});
            // What fails is done the next time.
            let _ = timeout(REQUEST, self.leases.patch(LEASE, &PatchParams::default(), &Patch::Merge(&patch))).await;
        }
        Some(live)
    }

    /// The reports of the living, and the annotations of the dead.
    fn sort(&mut self, annotations: &BTreeMap<String, String>, now: Instant) -> (Vec<Taken>, Vec<String>) {
        let reports: BTreeMap<&String, &String> = annotations.iter().filter(|(k, _)| k.starts_with(PREFIX)).collect();
        self.seen.retain(|name, _| reports.contains_key(name));
        let (mut live, mut dead) = (Vec::new(), Vec::new());
        for (name, text) in reports {
            let (seen, since) = self.seen.entry(name.clone()).or_insert_with(|| (text.clone(), now));
            if seen != text {
                (*seen, *since) = (text.clone(), now);
            }
            match read(text) {
                Some(taken) if now.saturating_duration_since(*since) < STALE => live.push(taken),
                _ => dead.push(name.clone()),
            }
        }
        (live, dead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api_server::{Answer, client};

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let taken = Taken { version: 0xfedc_ba98_0000_0001, connected: 12, by: 11 };
        assert_eq!(read(&write(taken, 7)), Some(taken));
        for bad in ["", "xyz 1 1 1", "00 1", "00 -1 1 1"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_replica_that_is_silent_for_long_is_gone() {
        let mut reports = Reports::new(client(|_| Answer::Broken), "heddle-system");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let one = Taken { version: 1, connected: 1, by: 1 };
        let annotations = |a: u64, b: u64| {
            let report = |name: &str, count| (format!("{PREFIX}{name}"), write(one, count));
            BTreeMap::from([report("a", a), report("b", b), ("other/x".to_owned(), "y".to_owned())])
        };
        assert_eq!(reports.sort(&annotations(1, 1), at(0)).0.len(), 2);
        assert_eq!(reports.sort(&annotations(2, 1), at(50)).0.len(), 2);
        assert_eq!(reports.sort(&annotations(3, 1), at(60)), (vec![one], vec![format!("{PREFIX}b")]));
        assert_eq!(reports.sort(&annotations(3, 2), at(61)).0.len(), 2, "it came back");
        let bad = BTreeMap::from([(format!("{PREFIX}c"), "?".to_owned())]);
        assert_eq!(reports.sort(&bad, at(62)), (vec![], vec![format!("{PREFIX}c")]));
    }
}
