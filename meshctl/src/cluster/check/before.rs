//! What an installation needs of a cluster: versions, definitions, rights, nodes, and nothing in the way. It must not assume that Heddle is there.

use super::super::{MESH_LABEL, access::Access, finding::Finding, rollout::text_at};
use anyhow::Result;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use serde_json::Value;

/// The oldest Kubernetes minor version: NetworkPolicy-free features it needs (CEL rules in definitions) are stable from here on.
const OLDEST_MINOR: u32 = 29;

/// nft's `redirect` in an `inet` table came with 5.2; the oldest kernel that is still maintained is newer.
const OLDEST_KERNEL: (u32, u32) = (5, 10);

/// Port of the tunnels between pods.
const TUNNEL: i64 = 15008;

/// Gateway API release whose kinds Heddle speaks.
const GATEWAY_API: &str = "v1.7.0";

pub(in crate::cluster) async fn before(access: &Access) -> Result<Vec<Finding>> {
    let mut found = vec![version(access).await?];
    found.extend(definitions(access).await?);
    found.extend(rights(access).await?);
    found.extend(nodes(&access.list("Node", "", "").await?));
    found.extend(neighbours(access).await?);
    found.extend(policies(access).await?);
    Ok(found)
}

async fn version(access: &Access) -> Result<Finding> {
    let info = access.client.apiserver_version().await?;
    let minor: u32 = info.minor.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0);
    Ok(if info.major == "1" && minor >= OLDEST_MINOR {
        Finding::fine(format!("Kubernetes {}", info.git_version))
    } else {
        Finding::wrong(format!("Kubernetes {}", info.git_version), format!("1.{OLDEST_MINOR} or newer is needed"))
    })
}

async fn definitions(access: &Access) -> Result<Vec<Finding>> {
    let url = format!(
        "https://github.com/kubernetes-sigs/gateway-api/releases/download/{GATEWAY_API}/experimental-install.yaml"
    );
    let remedy = format!("kubectl apply --server-side -f {url}");
    let wanted = [
        "httproutes.gateway.networking.k8s.io",
        "grpcroutes.gateway.networking.k8s.io",
        "tlsroutes.gateway.networking.k8s.io",
        "tcproutes.gateway.networking.k8s.io",
        "referencegrants.gateway.networking.k8s.io",
        "xmeshes.gateway.networking.x-k8s.io",
        "xbackendtrafficpolicies.gateway.networking.x-k8s.io",
    ];
    let (mut missing, mut release, mut channel) = (Vec::new(), String::new(), String::new());
    for name in wanted {
        match access.get("CustomResourceDefinition", "", name).await? {
            None => missing.push(name),
            Some(found) => {
                let note = |key: &str| found["metadata"]["annotations"][key].as_str().unwrap_or_default().to_owned();
                release = note("gateway.networking.k8s.io/bundle-version");
                channel = note("gateway.networking.k8s.io/channel");
            }
        }
    }
    Ok(vec![match missing.as_slice() {
        [] => Finding::fine(format!("Gateway API {release}, {channel} channel")),
        [one] if one.starts_with("xbackend") => {
            Finding::doubtful(format!("{one} is not defined: no retry budgets"), remedy)
        }
        // Without XMesh nothing can say what the mesh does; all else is optional for a mesh that only encrypts.
        _ if missing.contains(&"xmeshes.gateway.networking.x-k8s.io") => {
            Finding::wrong(format!("not defined: {} (the experimental channel has them)", missing.join(", ")), remedy)
        }
        _ => Finding::doubtful(format!("not defined: {}", missing.join(", ")), remedy),
    }])
}

/// What an administrator who installs must be allowed to.
async fn rights(access: &Access) -> Result<Vec<Finding>> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(access.client.clone());
    let mut denied = Vec::new();
    for (group, resource) in [
        ("", "namespaces"),
        ("", "serviceaccounts"),
        ("", "services"),
        ("apps", "deployments"),
        ("apps", "daemonsets"),
        ("policy", "poddisruptionbudgets"),
        ("networking.k8s.io", "networkpolicies"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("apiextensions.k8s.io", "customresourcedefinitions"),
    ] {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(group.into()),
                    resource: Some(resource.into()),
                    verb: Some("patch".into()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = reviews.create(&PostParams::default(), &review).await?;
        if !answer.status.is_some_and(|s| s.allowed) {
            denied.push(resource);
        }
    }
    Ok(vec![if denied.is_empty() {
        Finding::fine("you may make everything that an installation consists of")
    } else {
        Finding::wrong(format!("you may not change {}", denied.join(", ")), "use an account that is cluster-admin")
    }])
}

fn nodes(nodes: &[Value]) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut fine = 0;
    for node in nodes {
        let name = text_at(node, "/metadata/name");
        let info = |field: &str| text_at(node, &format!("/status/nodeInfo/{field}")).to_owned();
        let (system, machine, kernel) = (info("operatingSystem"), info("architecture"), info("kernelVersion"));
        if system != "linux" {
            found.push(Finding::doubtful(format!("node {name} runs {system}"), "its pods cannot be meshed"));
        } else if machine != "amd64" {
            let remedy = "build images for it: make images on a machine of its kind";
            found.push(Finding::doubtful(format!("node {name} is {machine}; published images are amd64"), remedy));
        } else if !new_enough(&kernel) {
            let (major, minor) = OLDEST_KERNEL;
            found.push(Finding::wrong(
                format!("node {name} has kernel {kernel}"),
                format!("{major}.{minor} or newer is needed"),
            ));
        } else {
            fine += 1;
        }
    }
    if fine > 0 {
        let runtime =
            nodes.iter().map(|n| text_at(n, "/status/nodeInfo/containerRuntimeVersion")).next().unwrap_or_default();
        found.insert(0, Finding::fine(format!("{fine} of {} nodes can be meshed ({runtime})", nodes.len())));
    }
    found
}

fn new_enough(kernel: &str) -> bool {
    let mut numbers = kernel.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= OLDEST_KERNEL
}

/// Others who set up pods' networks: some need to be told that a plugin comes after them.
async fn neighbours(access: &Access) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    if let Some(cilium) = access.get("ConfigMap", "kube-system", "cilium-config").await? {
        if cilium["data"]["cni-exclusive"] == "false" {
            found.push(Finding::fine("Cilium leaves other CNI plugins in place"));
        } else {
            found.push(Finding::wrong(
                "Cilium removes other CNI plugins from its folder (cni-exclusive)",
                "helm upgrade cilium … --set cni.exclusive=false",
            ));
        }
    }
    for namespace in access.list("Namespace", "", "").await? {
        let labels = &namespace["metadata"]["labels"];
        let others = ["istio-injection", "istio.io/dataplane-mode", "linkerd.io/inject", "istio.io/rev"];
        if labels[MESH_LABEL] == "enabled"
            && let Some(other) = others.iter().find(|label| !labels[**label].is_null())
        {
            let name = text_at(&namespace, "/metadata/name");
            let what = format!("namespace {name} is in another mesh too ({other})");
            found.push(Finding::wrong(what, format!("kubectl label namespace {name} {other}-")));
        }
    }
    Ok(found)
}

/// Policies of meshed namespaces that let only applications' ports in would stop the tunnels.
async fn policies(access: &Access) -> Result<Vec<Finding>> {
    let mut found = Vec::new();
    for namespace in access.list("Namespace", "", &format!("{MESH_LABEL}=enabled")).await? {
        let namespace = text_at(&namespace, "/metadata/name").to_owned();
        for policy in access.list("NetworkPolicy", &namespace, "").await? {
            if stops_tunnels(&policy) {
                let name = text_at(&policy, "/metadata/name");
                found.push(Finding::doubtful(
                    format!("NetworkPolicy {namespace}/{name} lets in chosen ports, but not {TUNNEL}"),
                    format!("add TCP {TUNNEL} beside them: meshed peers arrive there, whatever port they want"),
                ));
            }
        }
    }
    Ok(found)
}

/// Whether some rule for incoming traffic names ports, and none of all rules lets the tunnel port in.
fn stops_tunnels(policy: &Value) -> bool {
    let rules: Vec<&Value> = policy.pointer("/spec/ingress").and_then(Value::as_array).into_iter().flatten().collect();
    let lets = |rule: &&&Value| match rule["ports"].as_array() {
        None => true,
        Some(ports) => ports.iter().any(|p| match p["port"].as_i64() {
            None => p["port"].is_null(),
            Some(port) => port <= TUNNEL && TUNNEL <= p["endPort"].as_i64().unwrap_or(port),
        }),
    };
    !rules.is_empty() && !rules.iter().any(|rule| lets(&rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::finding::Level;
    use serde_json::json;

    #[test]
    fn a_policy_that_names_ports_must_name_the_tunnels_too() {
        let policy = |ingress: Value| json!({"spec": {"ingress": ingress}});
        assert!(stops_tunnels(&policy(json!([{"ports": [{"port": 8080}]}]))));
        assert!(!stops_tunnels(&policy(json!([{"ports": [{"port": 8080}, {"port": 15008}]}]))));
        assert!(!stops_tunnels(&policy(json!([{"ports": [{"port": 15000, "endPort": 15100}]}]))));
        assert!(!stops_tunnels(&policy(json!([{"ports": [{"port": 8080}]}, {"from": []}]))), "a rule without ports");
        assert!(!stops_tunnels(&policy(json!([]))), "nobody is to come in at all");
    }

    #[test]
    fn nodes_that_cannot_be_meshed_are_named_with_the_reason() {
        let node = |name: &str, system: &str, kernel: &str| {
            json!({"metadata": {"name": name}, "status": {"nodeInfo": {
                "operatingSystem": system, "architecture": "amd64", "kernelVersion": kernel, "containerRuntimeVersion": "containerd://2"}}})
        };
        let found =
            nodes(&[node("a", "linux", "6.1.0-13-amd64"), node("b", "windows", ""), node("c", "linux", "4.19.0")]);
        let levels: Vec<Level> = found.iter().map(|f| f.level).collect();
        assert_eq!(levels, [Level::Fine, Level::Doubtful, Level::Wrong]);
        assert!(found[2].what.contains("node c has kernel 4.19.0"));
    }
}
