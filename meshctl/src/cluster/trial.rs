//! The trial: a meshed server, clients in and out of the mesh on several nodes, in a namespace that is made for it and removed. It must not touch any other namespace.

use super::{MESH_LABEL, access::Access, finding::Finding, manifests, rollout};
use crate::echo::client::Report;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};

/// Pods start in seconds; images may have to be fetched first.
const PATIENCE: Duration = Duration::from_secs(120);

/// More nodes show nothing new: one pair on a node, one between two.
const NODES: usize = 2;

/// Requests of each client to each address.
const TIMES: u32 = 10;

const PORT: u16 = 8080;

/// Runs it; the namespace goes whatever happens.
pub(super) async fn trial(access: &Access, strict: bool) -> Result<Vec<Finding>> {
    let running = access.get("Deployment", super::NAMESPACE, "mesh-controller").await?;
    let image = running.as_ref().map(|d| rollout::text_at(d, "/spec/template/spec/containers/0/image"));
    let Some((registry, tag)) = image.and_then(manifests::parts) else {
        bail!("mesh-controller runs no image that says where its registry is");
    };
    let image = format!("{registry}/meshctl:{tag}");
    let namespace = format!("heddle-check-{:08x}", RandomState::new().build_hasher().finish() & 0xffff_ffff);
    access
        .apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": {
            MESH_LABEL: "enabled", "pod-security.kubernetes.io/enforce": "restricted"}}}))
        .await?;
    let found = within(access, &namespace, &image, strict).await;
    access.delete("Namespace", "", &namespace).await?;
    found
}

async fn within(access: &Access, namespace: &str, image: &str, strict: bool) -> Result<Vec<Finding>> {
    let mut nodes: Vec<String> = Vec::new();
    for node in access.list("Node", "", "").await? {
        if rollout::ready(&node) && node.pointer("/spec/unschedulable") != Some(&json!(true)) {
            nodes.push(rollout::text_at(&node, "/metadata/name").to_owned());
        }
    }
    nodes.truncate(NODES);
    if nodes.is_empty() {
        bail!("no node is ready to run a pod");
    }
    access
        .apply(&json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "server", "namespace": namespace},
            "spec": {"ipFamilyPolicy": "PreferDualStack", "selector": {"app": "server"}, "ports": [{"name": "http", "port": PORT}]}}))
        .await?;
    let args = json!(["echo-server", "--http", PORT.to_string()]);
    let mut server = pod(namespace, "server", image, &nodes[0], true, args);
    server["spec"]["containers"][0]["readinessProbe"] =
        json!({"httpGet": {"path": "/", "port": PORT}, "periodSeconds": 1});
    access.apply(&server).await?;
    let server = until(access, namespace, "server", "ready", rollout::ready).await?;
    let mut urls = vec![format!("http://server.{namespace}.svc:{PORT}/")];
    for ip in server.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten() {
        let ip = rollout::text_at(ip, "/ip");
        urls.push(if ip.contains(':') { format!("http://[{ip}]:{PORT}/") } else { format!("http://{ip}:{PORT}/") });
    }

    let mut clients = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        for meshed in [true, false] {
            let name = format!("{}-{n}", if meshed { "inside" } else { "outside" });
            let mut args = vec!["echo-client".to_owned(), "--times".into(), TIMES.to_string()];
            // A client outside a strict mesh is refused from the first request on; one inside may come before the server's endpoint.
            args.extend(if meshed { vec!["--warm-up".to_owned(), "20".into()] } else { vec![] });
            args.extend(urls.clone());
            access.apply(&pod(namespace, &name, image, node, meshed, json!(args))).await?;
            clients.push((name, node.clone(), meshed));
        }
    }
    let mut findings = Vec::new();
    for (name, node, meshed) in clients {
        let over = |pod: &Value| matches!(rollout::text_at(pod, "/status/phase"), "Succeeded" | "Failed");
        until(access, namespace, &name, "over", over).await?;
        let log = access.log(namespace, &name, 50, false).await;
        let reports: Vec<Report> = log
            .lines()
            .filter(|line| line.starts_with('{'))
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        if reports.len() != urls.len() {
            bail!("client {name} on {node} said:\n{log}");
        }
        findings.extend(reports.iter().map(|report| judge(report, &node, &nodes[0], meshed, strict)));
    }
    Ok(findings)
}

/// What one client's report means.
fn judge(report: &Report, client: &str, server: &str, meshed: bool, strict: bool) -> Finding {
    let way = format!("{} to {} ({})", client, server, report.url);
    let (good, all) = (report.answers, report.answers + report.failures);
    let last = report.last.as_deref().unwrap_or("no answer");
    if meshed {
        return if report.failures == 0 && good > 0 {
            Finding::fine(format!("inside the mesh, {way}: {good} of {all} answered"))
        } else {
            let log = format!("kubectl -n {} logs daemonset/mesh-proxy", super::NAMESPACE);
            Finding::wrong(format!("inside the mesh, {way}: {good} of {all} answered; last: {last}"), log)
        };
    }
    match (strict, good) {
        (true, 0) => Finding::fine(format!("from outside, {way}: refused {all} times, as it must be: {last}")),
        (true, _) => Finding::wrong(
            format!("from outside, {way}: {good} of {all} got in without identity"),
            "is the server's node proxy ready, and does no other program rewrite nftables in pods? See docs/troubleshooting.md",
        ),
        (false, 0) => {
            Finding::doubtful(format!("from outside, {way}: {last}"), "the mesh is permissive; plaintext should get in")
        }
        (false, _) => {
            Finding::fine(format!("from outside, {way}: {good} of {all} answered, as the mesh is permissive"))
        }
    }
}

/// A pod that any security level admits.
fn pod(namespace: &str, name: &str, image: &str, node: &str, meshed: bool, args: Value) -> Value {
    let mut labels = json!({"app": name});
    if !meshed {
        labels[MESH_LABEL] = json!("disabled");
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace, "labels": labels}, "spec": {
        "nodeSelector": {"kubernetes.io/hostname": node},
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": name, "image": image, "imagePullPolicy": "IfNotPresent", "args": args,
            "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}}}]}})
}

async fn until(
    access: &Access,
    namespace: &str,
    name: &str,
    what: &str,
    done: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pod = access.get("Pod", namespace, name).await?.context("the check's own pod is gone")?;
        if done(&pod) {
            return Ok(pod);
        }
        if Instant::now() >= deadline {
            let events = access.list("Event", namespace, "").await.unwrap_or_default();
            let why: Vec<&str> = events
                .iter()
                .filter(|e| e["involvedObject"]["name"] == name && e["type"] == "Warning")
                .map(|e| rollout::text_at(e, "/message"))
                .collect();
            bail!("the check's pod {name} is not {what} after {PATIENCE:?}: {}", why.join("; "));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::finding::Level;

    fn report(answers: u32, failures: u32) -> Report {
        Report { url: "http://a/".into(), answers, failures, last: None }
    }

    #[test]
    fn one_request_that_gets_round_a_strict_mesh_is_wrong() {
        let level =
            |answers, failures, meshed, strict| judge(&report(answers, failures), "n1", "n2", meshed, strict).level;
        assert_eq!(level(10, 0, true, true), Level::Fine);
        assert_eq!(level(9, 1, true, true), Level::Wrong);
        assert_eq!(level(0, 0, true, true), Level::Wrong);
        assert_eq!(level(0, 10, false, true), Level::Fine);
        assert_eq!(level(1, 9, false, true), Level::Wrong);
        assert_eq!(level(10, 0, false, false), Level::Fine);
        assert_eq!(level(0, 10, false, false), Level::Doubtful);
    }
}
