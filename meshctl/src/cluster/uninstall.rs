//! Removal: pods leave the mesh without a failed request, then the nodes are cleaned, then all objects go. It must not touch the user's namespaces or routes.

use super::{
    MESH, NAMESPACE, WORKLOADS,
    access::{Access, Applied, name_of},
    install::accepted,
    manifests::{self, Changes},
    nodes, rollout,
};
use anyhow::{Result, bail};
use clap::Args;
use serde_json::{Value, json};
use std::{
    fmt,
    time::{Duration, Instant},
};

/// How often nodes are looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What is removed.
#[derive(Args, Clone, Debug, Default)]
pub struct Removal {
    /// Also the definition of MeshParameters, and with it all objects of that kind (the Gateway API's own are never removed)
    #[arg(long)]
    pub crds: bool,
    /// Go on although pods are still captured or a node could not be cleaned; such pods lose their network until they are replaced
    #[arg(long)]
    pub force: bool,
    /// How long the proxies stay for connections that were open when the mesh was turned off; those that have not ended by then are named and cut
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub drain: u64,
    /// How long each step may take
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub timeout: u64,
}

/// Removes Heddle; what is gone already is no error, so it can be run again.
pub async fn uninstall(access: &Access, removal: &Removal) -> Result<()> {
    let within = Duration::from_secs(removal.timeout);
    let step = |result: Result<()>| match result {
        Err(error) if removal.force => {
            println!("  going on: {error:#}");
            Ok(())
        }
        other => other,
    };
    if access.get("DaemonSet", NAMESPACE, "mesh-proxy").await?.is_some() {
        println!("mesh {MESH}: mode Off");
        turn_off(access).await?;
        step(accepted(access, within).await)?;
        println!("waiting until the proxies have released all pods");
        step(released(access, within, Duration::from_secs(removal.drain)).await)?;
    }
    if access.get("DaemonSet", NAMESPACE, "mesh-agent").await?.is_some() {
        println!("removing the CNI plugin from the nodes");
        step(cleaned(access, within).await)?;
    }
    let bundle = manifests::bundle(&Changes::default())?;
    for (kind, name) in WORKLOADS.iter().rev() {
        delete(access, kind, NAMESPACE, name).await?;
    }
    // Without its object a mesh has the default mode: a proxy that still ran would capture the pods again, and be gone before it served them.
    step(stopped(access, within).await)?;
    if let Some(mesh) = access.get("XMesh", "", MESH).await?
        && mesh["spec"]["controllerName"] == super::CONTROLLER
    {
        delete(access, "XMesh", "", MESH).await?;
    }
    if access.get("CustomResourceDefinition", "", "meshparameters.heddle.dev").await?.is_some() {
        delete(access, "MeshParameters", "", MESH).await?;
    }
    for object in bundle.objects.iter().rev() {
        let text = |at: &str| rollout::text_at(object, at).to_owned();
        delete(access, &text("/kind"), &text("/metadata/namespace"), &text("/metadata/name")).await?;
    }
    if removal.crds {
        for definition in &bundle.definitions {
            delete(access, "CustomResourceDefinition", "", rollout::text_at(definition, "/metadata/name")).await?;
        }
    }
    gone(access, within).await?;
    println!("Heddle is gone. Labels heddle.dev/mesh of namespaces stay as they are and mean nothing now.");
    Ok(())
}

/// Sets the mode, and nothing else, of the settings that the mesh refers to; makes them if it refers to none.
async fn turn_off(access: &Access) -> Result<()> {
    let mesh = access.get("XMesh", "", MESH).await?.unwrap_or_default();
    let named = rollout::text_at(&mesh, "/spec/parametersRef/name");
    if !named.is_empty() && access.get("MeshParameters", "", named).await?.is_some() {
        return access.merge("MeshParameters", "", named, &json!({"spec": {"mode": "Off"}})).await;
    }
    for object in manifests::mesh_with(json!({"mode": "Off"})) {
        if access.apply(&object).await? != Applied::Same {
            println!("changed {}", name_of(&object));
        }
    }
    Ok(())
}

/// Waits until no proxy captures any pod, and then for what the proxies still carry: it lives in their processes and ends with them.
async fn released(access: &Access, within: Duration, drain: Duration) -> Result<()> {
    let (deadline, mut free, mut told) = (Instant::now() + within, None, String::new());
    loop {
        let left = left(access).await?;
        let text = left.to_string();
        if text != told {
            println!("  {text}");
            told = text;
        }
        let now = Instant::now();
        // What nobody captures any more only ends; how long that may take counts from here.
        let cut = if left.captured.is_empty() { *free.get_or_insert(now + drain) } else { now + drain };
        match left.step(now >= deadline, now >= cut) {
            Step::Go => return Ok(()),
            Step::Wait => tokio::time::sleep(LOOK).await,
            Step::Cut => {
                println!("  after {drain:?} these are still open, and are cut with the proxies: {}", left.open());
                return Ok(());
            }
            Step::GiveUp => bail!("after {within:?} pods are still captured: {}", left.captured.join(", ")),
        }
    }
}

/// What the proxies of all nodes still hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    captured: Vec<String>,
    /// `POD on NODE`, and how many.
    connections: Vec<(String, u64)>,
}

/// What to do about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Go,
    Wait,
    /// Go on, and say what that costs.
    Cut,
    GiveUp,
}

/// A proxy that does not answer may still capture some.
async fn left(access: &Access) -> Result<Left> {
    let mut left = Left::default();
    for proxy in nodes::proxies(access).await? {
        match nodes::held(access, &proxy).await {
            Ok(held) => {
                left.captured.extend(held.captured);
                let open = held.connections.into_iter();
                left.connections.extend(open.map(|(pod, n)| (format!("{pod} on {}", proxy.node), n)));
            }
            Err(error) => left.captured.push(format!("those of node {}: {error:#}", proxy.node)),
        }
    }
    Ok(left)
}

impl Left {
    /// `late`: releasing has taken as long as it may; `drained`: so have the connections, since nothing was captured.
    fn step(&self, late: bool, drained: bool) -> Step {
        match (self.captured.is_empty(), self.connections.is_empty()) {
            (true, true) => Step::Go,
            (true, false) if drained => Step::Cut,
            (false, _) if late => Step::GiveUp,
            _ => Step::Wait,
        }
    }

    fn open(&self) -> String {
        let total: u64 = self.connections.iter().map(|(_, n)| n).sum();
        let by_pod: Vec<String> = self.connections.iter().map(|(pod, n)| format!("{n} of {pod}")).collect();
        format!("{total} connections ({})", list(&by_pod))
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "captured: {}", list(&self.captured))?;
        if self.captured.is_empty() {
            // Before that, what ends and what begins anew cannot be told apart.
            match self.connections.as_slice() {
                [] => f.write_str("; no connection is open from before")?,
                _ => write!(f, "; open from before: {}", self.open())?,
            }
        }
        Ok(())
    }
}

/// The first of many names.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 5;
    match names {
        [] => "none".into(),
        few if few.len() <= SHOWN => few.join(", "),
        many => format!("{} and {} more", many[..SHOWN].join(", "), many.len() - SHOWN),
    }
}

/// Lets each node's agent, instead of watching over the plugin, take it away; all nodes at once.
async fn cleaned(access: &Access, within: Duration) -> Result<()> {
    // Its environment names the folders. A pod that comes to its end is never ready: so all at once.
    let patch = json!({"spec": {
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
        "template": {
            "metadata": {"labels": {"heddle.dev/uninstall": "true"}},
            "spec": {"containers": [{"name": "mesh-agent", "args": ["uninstall"]}]},
        },
    }});
    access.merge_named("DaemonSet", NAMESPACE, "mesh-agent", &patch).await?;
    let deadline = Instant::now() + within;
    loop {
        let set = access.get("DaemonSet", NAMESPACE, "mesh-agent").await?.unwrap_or_default();
        let pods = access.list("Pod", NAMESPACE, "app.kubernetes.io/name=mesh-agent").await?;
        let wanted = set.pointer("/status/desiredNumberScheduled").and_then(Value::as_u64).unwrap_or(0);
        let seen = set.pointer("/status/observedGeneration") == set.pointer("/metadata/generation");
        let done: u64 = pods.iter().map(|pod| u64::from(has_uninstalled(pod))).sum();
        if seen && done >= wanted {
            println!("  {done} of {wanted} nodes are clean");
            return Ok(());
        }
        if Instant::now() >= deadline {
            let why = rollout::unready(access, "mesh-agent").await;
            bail!("{done} of {wanted} nodes are clean after {within:?}\n{}", why.join("\n"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// A pod of the changed template that has come to a good end at least once.
fn has_uninstalled(pod: &Value) -> bool {
    pod["metadata"]["labels"]["heddle.dev/uninstall"] == "true"
        && ["/status/containerStatuses/0/state", "/status/containerStatuses/0/lastState"]
            .iter()
            .any(|at| pod.pointer(at).is_some_and(|state| state["terminated"]["exitCode"] == 0))
}

async fn delete(access: &Access, kind: &str, namespace: &str, name: &str) -> Result<()> {
    if access.delete(kind, namespace, name).await? {
        println!("deleted {kind} {name}");
    }
    Ok(())
}

/// Waits until no proxy runs any more.
async fn stopped(access: &Access, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        let pods = access.list("Pod", NAMESPACE, "app.kubernetes.io/name=mesh-proxy").await?;
        if pods.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            bail!("{} proxies still run after {within:?}: kubectl get pods -n {NAMESPACE} says why", pods.len());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the namespace is gone: an installation right after would meet its remains.
async fn gone(access: &Access, within: Duration) -> Result<()> {
    let deadline = Instant::now() + within;
    while access.get("Namespace", "", NAMESPACE).await?.is_some() {
        if Instant::now() >= deadline {
            bail!(
                "namespace {NAMESPACE} is still there after {within:?}: kubectl get namespace {NAMESPACE} -o yaml says why"
            );
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_clean_when_the_changed_agent_has_come_to_a_good_end() {
        let pod = |label: &str, state: Value, last: Value| json!({"metadata": {"labels": {"heddle.dev/uninstall": label}}, "status": {"containerStatuses": [{"state": state, "lastState": last}]}});
        let ended = |code: i64| json!({"terminated": {"exitCode": code}});
        assert!(has_uninstalled(&pod("true", ended(0), json!({}))));
        assert!(has_uninstalled(&pod("true", json!({"waiting": {}}), ended(0))));
        assert!(!has_uninstalled(&pod("true", ended(1), json!({}))));
        assert!(!has_uninstalled(&pod("", ended(0), json!({}))), "an agent of the old template that was stopped");
    }

    #[test]
    fn connections_are_waited_for_once_nothing_is_captured_and_named_before_they_are_cut() {
        let left = |captured: &[&str], connections: &[(&str, u64)]| Left {
            captured: captured.iter().map(|&pod| pod.into()).collect(),
            connections: connections.iter().map(|&(pod, n)| (pod.into(), n)).collect(),
        };
        let open = [("shop/cart on n1", 2), ("shop/pay on n2", 1)];
        assert_eq!(left(&[], &[]).step(true, true), Step::Go);
        assert_eq!(left(&[], &open).step(true, false), Step::Wait);
        assert_eq!(left(&[], &open).step(true, true), Step::Cut);
        assert_eq!(left(&["shop/a"], &open).step(false, false), Step::Wait);
        assert_eq!(left(&["shop/a"], &[]).step(true, false), Step::GiveUp);
        let text = left(&[], &open).to_string();
        assert_eq!(text, "captured: none; open from before: 3 connections (2 of shop/cart on n1, 1 of shop/pay on n2)");
        assert_eq!(left(&["shop/a"], &open).to_string(), "captured: shop/a");
    }
}
