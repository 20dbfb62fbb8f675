//! Whether an installation is well: workloads, the mesh's conditions, proxies per node, the root, routes that were refused. It must not send traffic.

use super::super::{
    CONTROLLER, MESH, MESH_LABEL, NAMESPACE, WORKLOADS,
    access::Access,
    finding::Finding,
    install::programmed,
    nodes,
    rollout::{self, condition, text_at},
};
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeSet;
use time::{Duration, OffsetDateTime};

/// A root that ends sooner should be replaced now.
const ROOT_LEFT: Duration = Duration::days(30);

/// A leader renews its lease every few seconds.
const LEASE_AGE: Duration = Duration::seconds(60);

/// Seconds that a proxy needs beyond its drain, to cut what is left and to write its last lines.
const GOODBYE: f64 = 5.0;

pub(super) async fn after(access: &Access) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for (kind, name) in WORKLOADS {
        found.push(workload(access, kind, name).await?);
    }
    found.push(mesh(access).await?);
    found.push(leader(access).await?);
    found.push(every_node(access).await?);
    found.extend(grace(access).await?);
    found.extend(roots(access).await?);
    found.extend(refused(access).await?);
    Ok(found)
}

/// Whether plaintext to a meshed pod must be refused.
pub(super) async fn strict(access: &Access) -> Result<bool> {
    let mesh = access.get("XMesh", "", MESH).await?.unwrap_or_default();
    let name = text_at(&mesh, "/spec/parametersRef/name");
    if name.is_empty() {
        return Ok(true);
    }
    let parameters = access.get("MeshParameters", "", name).await?.unwrap_or_default();
    Ok(matches!(text_at(&parameters, "/spec/mode"), "" | "Strict"))
}

async fn workload(access: &Access, kind: &str, name: &str) -> Result<Finding> {
    let Some(found) = access.get(kind, NAMESPACE, name).await? else {
        return Ok(Finding::wrong(format!("{kind} {name} is not there"), "meshctl install"));
    };
    let progress = rollout::judge(&found);
    if progress.done {
        return Ok(Finding::fine(format!("{kind} {name}: {}", progress.text)));
    }
    let why = rollout::unready(access, name).await.join("\n");
    let remedy = format!("kubectl -n {NAMESPACE} describe pods -l app.kubernetes.io/name={name}");
    Ok(Finding::wrong(format!("{kind} {name}: {}\n{why}", progress.text), remedy))
}

async fn mesh(access: &Access) -> Result<Finding> {
    let all = access.list("XMesh", "", "").await?;
    let ours: Vec<&Value> = all.iter().filter(|m| m["spec"]["controllerName"] == CONTROLLER).collect();
    let found = all.iter().find(|m| m["metadata"]["name"] == MESH);
    if found.is_some_and(|m| m["spec"]["controllerName"] != CONTROLLER) {
        let what = format!("XMesh {MESH} belongs to another controller");
        return Ok(Finding::wrong(what, "delete it, or start mesh-controller with --mesh-name"));
    }
    let (done, text) = programmed(found);
    Ok(match (done, ours.len()) {
        (true, 1) => Finding::fine(format!("XMesh {MESH}: {text}")),
        (true, _) => Finding::doubtful(
            format!("XMesh {MESH}: {text}; there are {} of ours", ours.len()),
            "only one is obeyed: delete the others",
        ),
        (false, _) => Finding::wrong(format!("XMesh {MESH}: {text}"), format!("kubectl describe xmesh {MESH}")),
    })
}

async fn leader(access: &Access) -> Result<Finding> {
    let lease = access.get("Lease", NAMESPACE, "mesh-controller").await?.unwrap_or_default();
    let holder = text_at(&lease, "/spec/holderIdentity");
    let renewed = text_at(&lease, "/spec/renewTime");
    let format = &time::format_description::well_known::Rfc3339;
    let age = OffsetDateTime::parse(renewed, format).map(|at| OffsetDateTime::now_utc() - at);
    Ok(match age {
        Ok(age) if !holder.is_empty() && age < LEASE_AGE => Finding::fine(format!("leader is {holder}")),
        _ => Finding::wrong(
            format!("no controller leads (last: {holder:?} at {renewed:?}): statuses stay as they are"),
            format!("kubectl -n {NAMESPACE} logs deployment/mesh-controller"),
        ),
    })
}

/// Every node that runs an agent must have a ready proxy, or its meshed pods are cut off.
async fn every_node(access: &Access) -> Result<Finding> {
    let agents = access.list("Pod", NAMESPACE, "app.kubernetes.io/name=mesh-agent").await?;
    let wanted: BTreeSet<String> = agents.iter().map(|pod| text_at(pod, "/spec/nodeName").to_owned()).collect();
    let proxies = nodes::proxies(access).await?;
    let ready: BTreeSet<String> = proxies.iter().filter(|p| p.ready).map(|p| p.node.clone()).collect();
    let without: Vec<&String> = wanted.difference(&ready).collect();
    Ok(if without.is_empty() {
        Finding::fine(format!("{} nodes have an agent and a ready proxy", ready.len()))
    } else {
        Finding::wrong(format!("no ready proxy on {without:?}"), format!("kubectl -n {NAMESPACE} get pods -o wide"))
    })
}

/// Whether the kubelet lets a proxy drain as long as the mesh says. All proxies have the same settings, so one is asked.
async fn grace(access: &Access) -> Result<Option<Finding>> {
    let Some(proxy) = nodes::proxies(access).await?.into_iter().find(|p| p.ready) else { return Ok(None) };
    let set = access.get("DaemonSet", NAMESPACE, "mesh-proxy").await?.unwrap_or_default();
    let given = set.pointer("/spec/template/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    let drain = match nodes::held(access, &proxy).await {
        Ok(held) => held.drain,
        Err(error) => {
            let what = format!("the proxy of node {} cannot be asked: {error:#}", proxy.node);
            return Ok(Some(Finding::doubtful(what, "use an account that may get pods/proxy")));
        }
    };
    Ok(drain.map(|drain| judge_grace(drain.as_secs_f64(), given)))
}

fn judge_grace(drain: f64, given: u64) -> Finding {
    if drain + GOODBYE <= given as f64 {
        return Finding::fine(format!(
            "proxies that are replaced drain for {drain} s, within their grace of {given} s"
        ));
    }
    Finding::doubtful(
        format!("proxies that are replaced drain for {drain} s and are killed after {given} s"),
        format!(
            "MeshParameters limits.drain must be {GOODBYE} s shorter than the chart's proxy.terminationGracePeriodSeconds"
        ),
    )
}

/// The root of the mesh, and whether proxies trust it.
async fn roots(access: &Access) -> Result<Vec<Finding>> {
    let secret = match access.get("Secret", NAMESPACE, "heddle-ca").await {
        Ok(Some(secret)) => secret,
        Ok(None) => {
            return Ok(vec![Finding::wrong("Secret heddle-ca is not there", "the leader makes it: see its log")]);
        }
        Err(error) => return Ok(vec![Finding::doubtful(format!("{error:#}"), "use an account that may read it")]),
    };
    let encoded: k8s_openapi::ByteString =
        serde_json::from_value(secret["data"]["tls.crt"].clone()).unwrap_or_default();
    let (issuer, until) = match first_certificate(&encoded.0) {
        Ok(found) => found,
        Err(error) => {
            let what = format!("Secret heddle-ca: tls.crt: {error:#}");
            return Ok(vec![Finding::wrong(what, "it must be a PEM certificate of an authority")]);
        }
    };
    let left = until - OffsetDateTime::now_utc();
    let mut found = vec![if left > ROOT_LEFT {
        Finding::fine(format!("the mesh's root {issuer} is valid for {} days", left.whole_days()))
    } else if left.is_positive() {
        Finding::doubtful(
            format!("the mesh's root {issuer} ends in {} days", left.whole_days()),
            "rotate it: see docs/operations.md",
        )
    } else {
        Finding::wrong(format!("the mesh's root {issuer} has ended"), "rotate it: see docs/operations.md")
    }];
    let bundle = access.get("ConfigMap", NAMESPACE, "heddle-ca-roots").await?.unwrap_or_default();
    let roots = bundle["data"]["ca.crt"].as_str().unwrap_or_default();
    found.push(match pem::parse_many(roots) {
        Ok(all) if !all.is_empty() => Finding::fine(format!("proxies trust {} root(s)", all.len())),
        _ => Finding::wrong("ConfigMap heddle-ca-roots holds no root", "the leader writes it: see its log"),
    });
    Ok(found)
}

/// Whose the first certificate is, and until when it is valid.
fn first_certificate(pem_text: &[u8]) -> Result<(String, OffsetDateTime)> {
    let first = pem::parse_many(pem_text)?.into_iter().next().context("there is no certificate in it")?;
    let (_, certificate) = x509_parser::parse_x509_certificate(first.contents())?;
    Ok((certificate.subject().to_string(), certificate.validity().not_after.to_datetime()))
}

/// Routes that our controller did not take as they are.
async fn refused(access: &Access) -> Result<Vec<Finding>> {
    let (mut taken, mut found) = (0, Vec::new());
    for kind in ["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute"] {
        for route in access.list(kind, "", "").await? {
            let ours = route.pointer("/status/parents").and_then(Value::as_array).into_iter().flatten();
            for parent in ours.filter(|p| p["controllerName"] == CONTROLLER) {
                let holder = serde_json::json!({"status": parent});
                let bad: Vec<&Value> = ["Accepted", "ResolvedRefs"]
                    .iter()
                    .filter_map(|kind| condition(&holder, kind))
                    .filter(|c| c["status"] != "True")
                    .collect();
                if bad.is_empty() {
                    taken += 1;
                }
                for condition in bad {
                    let name = format!(
                        "{kind} {}/{}",
                        text_at(&route, "/metadata/namespace"),
                        text_at(&route, "/metadata/name")
                    );
                    let (what, why) = (text_at(condition, "/type"), text_at(condition, "/message"));
                    found.push(Finding::doubtful(format!("{name} is not {what}: {why}"), "mend the route"));
                }
            }
        }
    }
    let meshed = access.list("Namespace", "", &format!("{MESH_LABEL}=enabled")).await?.len();
    found
        .insert(0, Finding::fine(format!("{meshed} namespaces are in the mesh; {taken} parents of routes are served")));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::finding::Level;

    #[test]
    fn a_drain_that_the_kubelet_cuts_short_is_told() {
        for (drain, given, level) in [
            (30.0, 60, Level::Fine),
            (55.0, 60, Level::Fine),
            (55.5, 60, Level::Doubtful),
            (3600.0, 60, Level::Doubtful),
        ] {
            assert_eq!(judge_grace(drain, given).level, level, "{drain} of {given}");
        }
    }
}
