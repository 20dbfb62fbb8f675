//! What each node's proxy says of itself, asked through the API server. It must not change anything.

use super::{NAMESPACE, access::Access, rollout};
use anyhow::{Context, Result};
use serde_json::Value;

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
    /// Captured, or on the way there, or stuck half way.
    pub captured: Vec<String>,
    /// Let go, but for what was open and has not ended.
    pub leaving: Vec<String>,
}

pub(super) async fn held(access: &Access, proxy: &NodeProxy) -> Result<Held> {
    let text = access.ask_pod(NAMESPACE, &proxy.pod, ADMIN, "/debug/config").await?;
    let shown: Value = serde_json::from_str(&text).with_context(|| format!("/debug/config of {}", proxy.pod))?;
    held_in(&shown).with_context(|| format!("/debug/config of {} does not tell of pods", proxy.pod))
}

fn held_in(shown: &Value) -> Option<Held> {
    let mut held = Held::default();
    for (pod, phase) in shown["pods"].as_object()? {
        match phase.as_str()? {
            "Plain" | "Waiting" => {}
            "Releasing" => held.leaving.push(pod.clone()),
            _ => held.captured.push(pod.clone()),
        }
    }
    Some(held)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_whose_phase_is_not_known_to_be_harmless_counts_as_captured() {
        let shown = json!({"pods": {"a/plain": "Plain", "a/on": "Captured", "a/off": "Releasing", "a/odd": "Broken", "a/new": "Waiting"}});
        let held = held_in(&shown).unwrap();
        assert_eq!((held.captured, held.leaving), (vec!["a/odd".to_owned(), "a/on".into()], vec!["a/off".to_owned()]));
        assert_eq!(held_in(&json!({})), None);
    }
}
