//! What each node's proxy says of itself, asked through the API server. It must not change anything.

use super::{NAMESPACE, access::Access, rollout};
use anyhow::{Context, Result};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Port of a proxy's admin server.
const ADMIN: u16 = 15021;

/// A node's proxy.
#[derive(Clone, Debug)]
pub(super) struct NodeProxy {
    pub node: String,
    pub pod: String,
    pub ready: bool,
}

/// All proxies that are there, sorted by node.
pub(super) async fn proxies(access: &Access) -> Result<Vec<NodeProxy>> {
    let pods = access.list("Pod", NAMESPACE, "app.kubernetes.io/name=mesh-proxy").await?;
    let mut all: Vec<NodeProxy> = pods
        .iter()
        .map(|pod| NodeProxy {
            node: rollout::text_at(pod, "/spec/nodeName").to_owned(),
            pod: rollout::text_at(pod, "/metadata/name").to_owned(),
            ready: rollout::ready(pod),
        })
        .collect();
    all.sort_by(|a, b| (&a.node, &a.pod).cmp(&(&b.node, &b.pod)));
    Ok(all)
}

/// How a proxy holds the pods of its node at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// Captured, or on the way there or back, or stuck half way.
    pub captured: Vec<String>,
    /// Connections that the proxy carries, by pod; also of pods that it has let go.
    pub connections: BTreeMap<String, u64>,
    /// What the connections that live get when the proxy is told to end; none: it has no config, or is of a version that does not tell.
    pub drain: Option<Duration>,
}

pub(super) async fn held(access: &Access, proxy: &NodeProxy) -> Result<Held> {
    let text = access.ask_pod(NAMESPACE, &proxy.pod, ADMIN, "/debug/config").await?;
    let shown: Value = serde_json::from_str(&text).with_context(|| format!("/debug/config of {}", proxy.pod))?;
    held_in(&shown).with_context(|| format!("/debug/config of {} does not tell of pods", proxy.pod))
}

fn held_in(shown: &Value) -> Option<Held> {
    let harmless = |phase: &str| matches!(phase, "Plain" | "Waiting");
    let mut captured = Vec::new();
    for (pod, phase) in shown["pods"].as_object()? {
        if !harmless(phase.as_str()?) {
            captured.push(pod.clone());
        }
    }
    // A proxy of a version that does not tell has none to wait for.
    let told = shown["connections"].as_object().into_iter().flatten();
    let connections = told.filter_map(|(pod, n)| Some((pod.clone(), n.as_u64()?))).collect();
    Some(Held { captured, connections, drain: shown["drainMillis"].as_u64().map(Duration::from_millis) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_whose_phase_is_not_known_to_be_harmless_counts_as_captured() {
        let shown = json!({"pods": {"a/plain": "Plain", "a/on": "Captured", "a/off": "Releasing", "a/odd": "Broken", "a/new": "Waiting"}, "connections": {"a/plain": 2}, "drainMillis": 30000});
        let held = held_in(&shown).unwrap();
        assert_eq!(held.captured, ["a/odd", "a/off", "a/on"].map(str::to_owned));
        assert_eq!(held.connections, BTreeMap::from([("a/plain".to_owned(), 2)]));
        assert_eq!(held.drain, Some(Duration::from_secs(30)));
        assert_eq!(held_in(&json!({"pods": {}})), Some(Held::default()));
        assert_eq!(held_in(&json!({})), None);
    }
}
