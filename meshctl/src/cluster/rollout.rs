//! Waiting until workloads run what was asked for, with progress, and saying why one does not. It must not change anything.

use super::{NAMESPACE, access::Access};
use anyhow::{Result, bail};
use serde_json::Value;
use std::time::{Duration, Instant};

/// How often a workload is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How far a workload is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Progress {
    pub done: bool,
    pub text: String,
}

/// What the status of a Deployment or DaemonSet says of its newest template.
pub(super) fn judge(workload: &Value) -> Progress {
    let number = |at: &str| workload.pointer(at).and_then(Value::as_i64).unwrap_or(0);
    if number("/status/observedGeneration") < number("/metadata/generation") {
        return Progress { done: false, text: "not seen yet by its controller".into() };
    }
    let (wanted, updated, available, all) = if workload["kind"] == "DaemonSet" {
        let wanted = number("/status/desiredNumberScheduled");
        (wanted, number("/status/updatedNumberScheduled"), number("/status/numberAvailable"), wanted)
    } else {
        let wanted = workload.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        (wanted, number("/status/updatedReplicas"), number("/status/availableReplicas"), number("/status/replicas"))
    };
    let done = updated >= wanted && available >= wanted && all <= wanted.max(updated);
    Progress { done, text: format!("{updated} of {wanted} new, {available} ready") }
}

/// Waits until a workload is rolled out; a failure names its pods that are not ready and why.
pub(super) async fn wait(access: &Access, kind: &str, name: &str, within: Duration) -> Result<()> {
    let (deadline, mut told) = (Instant::now() + within, String::new());
    loop {
        let progress = match access.get(kind, NAMESPACE, name).await {
            Ok(Some(workload)) => judge(&workload),
            Ok(None) => bail!("{kind} {NAMESPACE}/{name} is gone"),
            // An API server that restarts is waited for like a pod.
            Err(error) if Instant::now() < deadline => Progress { done: false, text: format!("{error:#}") },
            Err(error) => return Err(error),
        };
        if progress.text != told {
            println!("  {name}: {}", progress.text);
            told = progress.text;
        }
        if progress.done {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = unready(access, name).await;
            bail!("{kind} {name} is not ready after {within:?} ({told})\n{}", why.join("\n"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Why pods of a workload are not ready: state, warnings, last log lines.
pub(super) async fn unready(access: &Access, workload: &str) -> Vec<String> {
    let pods = match access.list("Pod", NAMESPACE, &format!("app.kubernetes.io/name={workload}")).await {
        Ok(pods) => pods,
        Err(error) => return vec![format!("{error:#}")],
    };
    let events = access.list("Event", NAMESPACE, "").await.unwrap_or_default();
    let mut told = Vec::new();
    for pod in pods.iter().filter(|pod| !ready(pod)) {
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        let mut text = format!("{name} on {}: {}", text_at(pod, "/spec/nodeName"), text_at(pod, "/status/phase"));
        let mut restarted = false;
        for container in pod.pointer("/status/containerStatuses").and_then(Value::as_array).into_iter().flatten() {
            let restarts = container["restartCount"].as_i64().unwrap_or(0);
            restarted |= restarts > 0;
            text += &format!(
                ", {restarts} restarts {} {}",
                text_at(container, "/state/waiting/reason"),
                text_at(container, "/state/waiting/message")
            );
        }
        let warnings = events.iter().filter(|e| e["type"] == "Warning" && e["involvedObject"]["name"] == *name);
        for event in warnings.rev().take(3) {
            text += &format!("\n    {}: {}", text_at(event, "/reason"), text_at(event, "/message"));
        }
        let mut log = access.log(NAMESPACE, name, 8, false).await;
        if restarted && log.trim().is_empty() {
            log = access.log(NAMESPACE, name, 8, true).await;
        }
        for line in log.lines() {
            text += &format!("\n    {line}");
        }
        told.push(text);
    }
    told
}

/// The pod's Ready condition.
pub(super) fn ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|c| c["status"] == "True")
}

/// A condition of an object's status.
pub(super) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.pointer("/status/conditions")?.as_array()?.iter().find(|c| c["type"] == kind)
}

/// A text in an object, empty if it is not there.
pub(super) fn text_at<'a>(object: &'a Value, at: &str) -> &'a str {
    object.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_workload_is_done_when_all_its_pods_are_new_and_ready() {
        let daemon = |seen: i64, updated: i64, available: i64| {
            judge(&json!({"kind": "DaemonSet", "metadata": {"generation": 2}, "status": {
                "observedGeneration": seen, "desiredNumberScheduled": 2,
                "updatedNumberScheduled": updated, "numberAvailable": available}}))
            .done
        };
        assert!(!daemon(1, 2, 2), "its controller has not seen the newest template");
        assert!(!daemon(2, 1, 2) && !daemon(2, 2, 1) && daemon(2, 2, 2));
        let deployment = |all: i64| {
            judge(&json!({"kind": "Deployment", "metadata": {"generation": 1}, "spec": {"replicas": 2}, "status": {
                "observedGeneration": 1, "replicas": all, "updatedReplicas": 2, "availableReplicas": 2}}))
            .done
        };
        assert!(deployment(2));
        assert!(!deployment(3), "an old pod is still there");
    }
}
