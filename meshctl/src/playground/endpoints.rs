//! EndpointSlices from Services and pods, as the endpoint controller of a cluster derives them. Pure.

use super::{addresses, kubelet::PodState};
use k8s_openapi::{
    api::core::v1::{Pod, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr};

/// A pod and what the kubelet knows of it.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The object.
    pub pod: std::sync::Arc<Pod>,
    /// Node it is on.
    pub node: String,
    /// What it is doing.
    pub state: PodState,
}

/// The ports of a slice: name, number, protocol, appProtocol, service port. Pods that resolve a named port differently are in different slices.
type Ports = Vec<(String, u16, String, Option<String>, u16)>;

/// One destination of a Service's port, for kube-proxy's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Port of the Service.
    pub service_port: u16,
    /// Address of the pod.
    pub address: IpAddr,
    /// Port of the pod.
    pub port: u16,
}

/// The EndpointSlices of a Service, by their names. None for a Service without selector.
pub fn slices(service: &Service, pods: &[Placed]) -> BTreeMap<String, Value> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let namespace = service.metadata.namespace.clone().unwrap_or_else(|| "default".into());
    let mut groups: BTreeMap<(&'static str, Ports), Vec<Value>> = BTreeMap::new();
    for placed in selected(service, pods) {
        let ports = ports(service, &placed.pod);
        for family in ["IPv4", "IPv6"] {
            let Some(address) = placed.state.addresses.iter().find(|a| addresses::family(a) == family) else {
                continue;
            };
            let terminating = placed.state.terminating;
            let serving = placed.state.ready;
            let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses).unwrap_or(false);
            groups.entry((family, ports.clone())).or_default().push(json!({
                "addresses": [address],
                // "ready … should never be 'true' for terminating endpoints, except when the normal readiness behavior is being explicitly overridden"
                "conditions": {"ready": publish || (serving && !terminating), "serving": serving, "terminating": terminating},
                "nodeName": placed.node,
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": placed.pod.metadata.name, "uid": placed.pod.metadata.uid},
            }));
        }
    }
    let mut seen = BTreeMap::new();
    let mut all = BTreeMap::new();
    for ((family, ports), endpoints) in groups {
        let nth = seen.entry(family).and_modify(|n| *n += 1).or_insert(0);
        let slice = format!("{name}-{}-{nth}", family.to_lowercase());
        let ports: Vec<Value> = ports
            .into_iter()
            .map(|(name, port, protocol, app, _)| json!({"name": name, "port": port, "protocol": protocol, "appProtocol": app}))
            .collect();
        all.insert(
            slice.clone(),
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": slice, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
                "addressType": family, "ports": ports, "endpoints": endpoints,
            }),
        );
    }
    all
}

/// Where a Service's ports lead now: to ready pods, and if there are none to those that still serve while they end.
pub fn targets(service: &Service, pods: &[Placed], protocol: &str) -> Vec<Target> {
    let chosen: Vec<&Placed> = selected(service, pods).filter(|p| p.state.ready).collect();
    let live = chosen.iter().any(|p| !p.state.terminating);
    let mut all: Vec<Target> = chosen
        .into_iter()
        .filter(|p| !live || !p.state.terminating)
        .flat_map(|p| {
            ports(service, &p.pod).into_iter().filter(|(_, _, proto, ..)| proto == protocol).flat_map(
                |(_, port, .., service_port)| {
                    p.state.addresses.iter().map(move |address| Target { service_port, address: *address, port })
                },
            )
        })
        .collect();
    all.sort();
    all
}

/// Pods that a Service selects and that have addresses.
pub fn selected<'a>(service: &'a Service, pods: &'a [Placed]) -> impl Iterator<Item = &'a Placed> {
    let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
    let namespace = service.metadata.namespace.as_deref().unwrap_or("default");
    pods.iter().filter(move |placed| {
        let labels = placed.pod.metadata.labels.as_ref();
        placed.pod.metadata.namespace.as_deref() == Some(namespace)
            && !placed.state.addresses.is_empty()
            && selector.is_some_and(|s| s.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v)))
    })
}

fn ports(service: &Service, pod: &Pod) -> Ports {
    let ports = service.spec.as_ref().and_then(|s| s.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|p| {
            let number = target(p, pod)?;
            let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((
                p.name.clone().unwrap_or_default(),
                number,
                protocol,
                p.app_protocol.clone(),
                u16::try_from(p.port).ok()?,
            ))
        })
        .collect()
}

/// The pod's port behind a Service's port; none if the pod has no port of that name.
fn target(port: &ServicePort, pod: &Pod) -> Option<u16> {
    match &port.target_port {
        None => u16::try_from(port.port).ok(),
        Some(IntOrString::Int(n)) => u16::try_from(*n).ok(),
        Some(IntOrString::String(name)) => {
            let containers = &pod.spec.as_ref()?.containers;
            let mut all = containers.iter().flat_map(|c| c.ports.iter().flatten());
            all.find(|p| p.name.as_deref() == Some(name)).and_then(|p| u16::try_from(p.container_port).ok())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        serde_json::from_value(json!({
            "metadata": {"name": "cart", "namespace": "shop"},
            "spec": {"selector": {"app": "cart"}, "ports": [{"port": 80, "targetPort": "web", "appProtocol": "http"}]},
        }))
        .unwrap()
    }

    fn pod(name: &str, port: u16, ready: bool, terminating: bool) -> Placed {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": {"app": "cart"}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]},
        }))
        .unwrap();
        let host = name.bytes().last().unwrap();
        let addresses = vec![IpAddr::from([10, 20, 1, host]), "fd10:20:1::5".parse().unwrap()];
        Placed {
            pod: pod.into(),
            node: "n1".into(),
            state: PodState { addresses, ready, terminating, ..Default::default() },
        }
    }

    #[test]
    fn conditions_follow_readiness_and_termination() {
        let pods = [pod("a", 8080, true, false), pod("b", 8080, false, false), pod("c", 8080, true, true)];
        let slices = slices(&service(), &pods);
        let v4 = &slices["cart-ipv4-0"];
        assert_eq!(v4["ports"][0]["port"], 8080);
        assert_eq!(v4["ports"][0]["appProtocol"], "http");
        let told: Vec<&Value> = v4["endpoints"].as_array().unwrap().iter().map(|e| &e["conditions"]).collect();
        assert_eq!(told[0], &json!({"ready": true, "serving": true, "terminating": false}));
        assert_eq!(told[1], &json!({"ready": false, "serving": false, "terminating": false}));
        assert_eq!(told[2], &json!({"ready": false, "serving": true, "terminating": true}));
        assert_eq!(slices["cart-ipv6-0"]["addressType"], "IPv6");
    }

    #[test]
    fn pods_that_name_another_port_are_in_another_slice() {
        let slices = slices(&service(), &[pod("a", 8080, true, false), pod("b", 9090, true, false)]);
        let mut ports: Vec<u64> = slices
            .values()
            .filter(|s| s["addressType"] == "IPv4")
            .map(|s| s["ports"][0]["port"].as_u64().unwrap())
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, [8080, 9090]);
    }

    #[test]
    fn a_service_without_ready_pods_uses_those_that_still_serve() {
        let ending = [pod("a", 8080, true, true), pod("b", 8080, false, false)];
        assert_eq!(targets(&service(), &ending, "TCP").len(), 2, "both addresses of the pod that ends");
        let with_live = [pod("a", 8080, true, true), pod("b", 8080, true, false)];
        assert!(targets(&service(), &with_live, "TCP").iter().all(|t| t.address != IpAddr::from([10, 20, 1, b'a'])));
    }
}
