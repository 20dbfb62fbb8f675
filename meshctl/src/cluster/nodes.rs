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

/// Pods that a proxy captures at this moment.
pub(super) async fn captured(access: &Access, proxy: &NodeProxy) -> Result<Vec<String>> {
    let text = access.ask_pod(NAMESPACE, &proxy.pod, ADMIN, "/debug/config").await?;
    let shown: Value = serde_json::from_str(&text).with_context(|| format!("/debug/config of {}", proxy.pod))?;
    Ok(captured_in(&shown))
}

fn captured_in(shown: &Value) -> Vec<String> {
    let pods = shown["pods"].as_array().into_iter().flatten();
    let captured = pods.filter(|p| p["state"] == "captured" || p["state"] == "draining");
    captured.filter_map(|p| p["name"].as_str().map(str::to_owned)).collect()
}
