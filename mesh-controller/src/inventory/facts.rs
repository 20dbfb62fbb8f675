//! Facts: what the mesh needs of Pods, Services, EndpointSlices and Secrets, read from their JSON. It must not relate one object to another.

use super::{at::At, probes};
use crate::api::{Meta, schema::Flaw};
use k8s_openapi::ByteString;
use mesh_core::{
    mesh::{AppProtocol, Certificate, Endpoint, EndpointHealth, PrivateKey, Probe},
    name::{NsName, Text, shared},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::Value;
use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// `spec.nodeName`, empty while unscheduled.
    pub node: Text,
    /// `status.podIPs`, primary first.
    pub addresses: Vec<IpAddr>,
    /// `spec.serviceAccountName`, else `default`.
    pub service_account: Text,
    /// It uses its node's network: nothing of its own to capture.
    pub host_network: bool,
    /// It has ended (phase Succeeded or Failed).
    pub ended: bool,
    /// Its kubelet said last that it is ready. `Ready` may say otherwise: when a kubelet is silent, the node's controller sets that one to false.
    pub kubelet_ready: bool,
    /// Its controller: a Deployment for the pods of its ReplicaSets; the pod itself if it has none.
    pub owner: Text,
    /// What its kubelet asks of it over the network.
    pub probes: Arc<[Probe]>,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// What stands before its endpoints.
    pub frontend: Frontend,
    /// All ports, in the order of the spec.
    pub ports: Vec<Port>,
}

/// What stands before the endpoints of a Service.
#[derive(Clone, Debug, PartialEq)]
pub enum Frontend {
    /// ClusterIPs, and what else leads there inside the cluster.
    Addresses(Vec<IpAddr>),
    /// `clusterIP: None`.
    Headless,
    /// A DNS alias; it has no endpoints.
    ExternalName,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// `name`, empty if there is none.
    pub name: Text,
    /// `port`.
    pub number: u16,
    /// `protocol` is TCP.
    pub tcp: bool,
    /// From `appProtocol`.
    pub app: AppProtocol,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// `kubernetes.io/service-name`; a slice without it belongs to nobody.
    pub service: Option<NsName>,
    /// TCP ports by name.
    pub ports: Vec<(Text, u16)>,
    /// Endpoints with an IP address.
    pub endpoints: Vec<Endpoint>,
}

/// A Secret as a certificate, or why it is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Secret {
    /// `tls.crt` and `tls.key`.
    pub certificate: Result<Arc<Certificate>, String>,
}

type Read<T> = Result<T, Flaw>;

/// The name of the Service that an EndpointSlice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
const TEMPLATE_HASH_LABEL: &str = "pod-template-hash";

impl Pod {
    pub(super) fn read(object: &Value, meta: &Meta) -> Read<Self> {
        let root = At::root(object);
        let (spec, status) = (root.field("spec"), root.field("status"));
        let mut addresses = Vec::new();
        for ip in status.field("podIPs").items()? {
            addresses.extend(ip.field("ip").parsed::<IpAddr>("an IP address")?);
        }
        if addresses.is_empty() {
            addresses.extend(status.field("podIP").parsed::<IpAddr>("an IP address")?);
        }
        // There are as many pods as there are; most have one address, and a list that grows begins with room for four.
        addresses.shrink_to_fit();
        let phase = status.field("phase").text()?.unwrap_or_default();
        Ok(Self {
            node: shared(spec.field("nodeName").text()?.unwrap_or_default()),
            addresses,
            service_account: shared(
                spec.field("serviceAccountName").text()?.filter(|name| !name.is_empty()).unwrap_or("default"),
            ),
            host_network: spec.field("hostNetwork").flag()?.unwrap_or(false),
            ended: matches!(phase, "Succeeded" | "Failed"),
            kubelet_ready: kubelet_ready(&spec, &status)?,
            owner: owner(&root, meta)?,
            probes: probes::of(&object["spec"]).into(),
        })
    }
}

/// "A Pod is evaluated to be ready only when both … all containers in the Pod are ready" and "all conditions specified in readinessGates
/// are True" (Pod Lifecycle). Only the kubelet writes `ContainersReady`.
fn kubelet_ready(spec: &At<'_>, status: &At<'_>) -> Read<bool> {
    let mut held = BTreeSet::new();
    for condition in status.field("conditions").items()? {
        if condition.field("status").text()? == Some("True") {
            held.extend(condition.field("type").text()?.map(str::to_owned));
        }
    }
    for gate in spec.field("readinessGates").items()? {
        if !gate.field("conditionType").text()?.is_some_and(|kind| held.contains(kind)) {
            return Ok(false);
        }
    }
    Ok(held.contains("ContainersReady"))
}

/// The controlling owner. A ReplicaSet of a Deployment is named after it and the template's hash, which the pod bears as a label.
fn owner(root: &At<'_>, meta: &Meta) -> Read<Text> {
    let metadata = root.field("metadata");
    for reference in metadata.field("ownerReferences").items()? {
        if reference.field("controller").flag()? != Some(true) {
            continue;
        }
        let name = reference.field("name").text()?.unwrap_or_default();
        let kind = reference.field("kind").text()?.unwrap_or_default();
        let deployment = meta
            .labels
            .get(TEMPLATE_HASH_LABEL)
            .filter(|_| kind == "ReplicaSet")
            .and_then(|hash| name.strip_suffix(hash.as_str())?.strip_suffix('-'));
        return Ok(shared(deployment.unwrap_or(name)));
    }
    Ok(meta.name.clone())
}

impl Service {
    pub(super) fn read(object: &Value) -> Read<Self> {
        let root = At::root(object);
        let spec = root.field("spec");
        let mut ports = Vec::new();
        for port in spec.field("ports").items()? {
            ports.push(Port {
                name: shared(port.field("name").text()?.unwrap_or_default()),
                number: port.field("port").port()?.ok_or_else(|| port.field("port").flaw("is required"))?,
                tcp: port.field("protocol").text()?.unwrap_or("TCP") == "TCP",
                app: app_protocol(port.field("appProtocol").text()?),
            });
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        let cluster_ip = spec.field("clusterIP");
        if spec.field("type").text()? == Some("ExternalName") {
            return Ok(Self { frontend: Frontend::ExternalName, ports });
        }
        if cluster_ip.text()? == Some("None") {
            return Ok(Self { frontend: Frontend::Headless, ports });
        }
        for ip in spec.field("clusterIPs").items()? {
            addresses.extend(ip.parsed::<IpAddr>("an IP address")?);
        }
        if addresses.is_empty() {
            addresses.extend(cluster_ip.parsed::<IpAddr>("an IP address")?);
        }
        for ip in spec.field("externalIPs").items()? {
            addresses.extend(ip.parsed::<IpAddr>("an IP address")?);
        }
        for ingress in root.field("status").field("loadBalancer").field("ingress").items()? {
            // `Proxy` addresses lead to a load balancer that opens connections of its own; only `VIP` ones are the Service's.
            if ingress.field("ipMode").text()? != Some("Proxy") {
                addresses.extend(ingress.field("ip").parsed::<IpAddr>("an IP address")?);
            }
        }
        Ok(Self { frontend: Frontend::Addresses(addresses), ports })
    }
}

/// KEP-3726: names of `kubernetes.io/…` and of the IANA registry. What we do not know is said by nobody else either.
fn app_protocol(name: Option<&str>) -> AppProtocol {
    match name {
        Some("tcp") => AppProtocol::Tcp,
        Some("http") => AppProtocol::Http,
        Some("kubernetes.io/h2c" | "http2" | "h2c") => AppProtocol::H2c,
        Some("grpc") => AppProtocol::Grpc,
        Some("kubernetes.io/ws" | "ws") => AppProtocol::WebSocket,
        Some("https" | "tls" | "kubernetes.io/wss" | "wss") => AppProtocol::Tls,
        _ => AppProtocol::Unspecified,
    }
}

impl Slice {
    pub(super) fn read(object: &Value, meta: &Meta) -> Read<Self> {
        let root = At::root(object);
        let service = meta.labels.get(SERVICE_NAME_LABEL).filter(|name| !name.is_empty());
        let mut ports = Vec::new();
        for port in root.field("ports").items()? {
            if port.field("protocol").text()?.unwrap_or("TCP") == "TCP"
                && let Some(number) = port.field("port").port()?
            {
                ports.push((shared(port.field("name").text()?.unwrap_or_default()), number));
            }
        }
        let mut endpoints = Vec::new();
        if root.field("addressType").text()? != Some("FQDN") {
            for endpoint in root.field("endpoints").items()? {
                endpoints.extend(read_endpoint(&endpoint, &meta.namespace)?);
            }
        }
        ports.shrink_to_fit();
        endpoints.shrink_to_fit();
        Ok(Self { service: service.map(|name| NsName::new(meta.namespace.clone(), shared(name))), ports, endpoints })
    }
}

fn read_endpoint(endpoint: &At<'_>, namespace: &str) -> Read<Option<Endpoint>> {
    let addresses = endpoint.field("addresses");
    // "consumers should only use the first" of the addresses, which "are all of the same type" (EndpointSlice).
    let Some(first) = addresses.items()?.next() else { return Ok(None) };
    let Some(address) = first.parsed::<IpAddr>("an IP address")? else { return Ok(None) };
    let conditions = endpoint.field("conditions");
    // "A nil value should be interpreted as "true"" (ready); serving: "defer to the ready condition"; terminating: "false".
    let ready = conditions.field("ready").flag()?.unwrap_or(true);
    let serving = conditions.field("serving").flag()?.unwrap_or(ready);
    let terminating = conditions.field("terminating").flag()?.unwrap_or(false);
    let target = endpoint.field("targetRef");
    let workload = match (target.field("kind").text()?, target.field("name").text()?) {
        (Some("Pod"), Some(name)) => {
            Some(NsName::new(shared(target.field("namespace").text()?.unwrap_or(namespace)), shared(name)))
        }
        _ => None,
    };
    Ok(Some(Endpoint {
        address,
        workload,
        health: match (ready, serving && terminating) {
            (true, _) => EndpointHealth::Ready,
            // Not in anybody's eyes but the kubelet's: the plan, which knows its pod, may say so.
            (false, false) => EndpointHealth::NotReady,
            (false, true) => EndpointHealth::Fallback,
        },
        zone: shared(endpoint.field("zone").text()?.unwrap_or_default()),
        node: shared(endpoint.field("nodeName").text()?.unwrap_or_default()),
    }))
}

impl Secret {
    pub(super) fn read(object: &Value, meta: &Meta) -> Read<Self> {
        let root = At::root(object);
        let part = |name: &str| -> Read<Option<Vec<u8>>> {
            let (plain, coded) = (root.field("stringData"), root.field("data"));
            // The API server puts stringData over data.
            if let Some(text) = plain.field(name).text()? {
                return Ok(Some(text.as_bytes().to_vec()));
            }
            let coded = coded.field(name);
            if coded.value().is_null() {
                return Ok(None);
            }
            let bytes: ByteString =
                serde_json::from_value(coded.value().clone()).map_err(|_| coded.flaw("is not base64"))?;
            Ok(Some(bytes.0))
        };
        Ok(Self { certificate: certificate(meta.id(), part("tls.crt")?, part("tls.key")?).map(Arc::new) })
    }
}

fn certificate(id: NsName, chain: Option<Vec<u8>>, key: Option<Vec<u8>>) -> Result<Certificate, String> {
    let chain = chain.ok_or("has no tls.crt")?;
    let key = key.ok_or("has no tls.key")?;
    let chain: Vec<Arc<[u8]>> = CertificateDer::pem_slice_iter(&chain)
        .map(|der| der.map(|der| Arc::from(der.as_ref())))
        .collect::<Result<_, _>>()
        .map_err(|e| format!("tls.crt is not PEM: {e}"))?;
    if chain.is_empty() {
        return Err("tls.crt holds no certificate".into());
    }
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("tls.key is not a PEM private key: {e}"))?;
    let certificate = Certificate { id, chain, key: PrivateKey::new(key.secret_der()) };
    mesh_tls::gateway::check(&certificate).map_err(|bad| bad.reason)?;
    Ok(certificate)
}
