//! The simulated cluster: its objects, each made from its number alone when it is asked for, as an API server would say them. It must not hold them.

use serde_json::{Value, json};

/// Nodes, each with a stream.
pub const NODES: u32 = 500;
/// Services, if there are workloads enough.
const SERVICES: u32 = 20_000;
/// Endpoints that a Service has at least.
const ENDPOINTS: u32 = 5;
/// Namespaces, all in the mesh.
const NAMESPACES: u32 = 100;
/// Endpoints of one EndpointSlice (the endpoint controller's default).
const SLICE: u32 = 100;

/// How large it is.
#[derive(Clone, Copy, Debug)]
pub struct World {
    /// Pods.
    pub workloads: u32,
}

/// A page of the objects of one resource: so many there are, and this is each.
pub type Object = fn(&World, u32) -> Value;

impl World {
    /// How many Services there are.
    pub fn services(&self) -> u32 {
        (self.workloads / ENDPOINTS).clamp(1, SERVICES)
    }

    /// The objects of a resource, by its name in URLs.
    pub fn objects(&self, plural: &str) -> (u32, Object) {
        match plural {
            "namespaces" => (NAMESPACES, Self::namespace),
            "pods" => (self.workloads, Self::pod),
            "services" => (self.services(), Self::service),
            "endpointslices" => (self.slices(), |world, n| world.slice(n, true)),
            _ => (0, |_, _| Value::Null),
        }
    }

    /// EndpointSlices: one for every hundred endpoints of a Service.
    pub fn slices(&self) -> u32 {
        self.services() * self.slices_of_a_service()
    }

    fn slices_of_a_service(&self) -> u32 {
        self.workloads.div_ceil(self.services()).div_ceil(SLICE)
    }

    fn namespace(&self, n: u32) -> Value {
        json!({"metadata": {"name": format!("team-{n}"), "uid": uid(1, n), "resourceVersion": "1",
            "labels": {"heddle.dev/mesh": "enabled", "kubernetes.io/metadata.name": format!("team-{n}")}}})
    }

    /// Pod `n` is of Service `n` modulo their number, so that neighbours are not of one Service.
    fn pod(&self, n: u32) -> Value {
        let service = n % self.services();
        let name = service_name(service);
        let hash = format!("{:09x}", u64::from(service).wrapping_mul(0x9e37_79b9) & 0xf_ffff_ffff);
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "http", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10});
        json!({
            "metadata": {
                "name": pod_name(service, n), "namespace": namespace(service), "uid": uid(2, n), "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z", "generateName": format!("{name}-{hash}-"),
                "labels": {"app.kubernetes.io/name": name, "app.kubernetes.io/version": "1.2.3", "pod-template-hash": hash},
                "annotations": {"prometheus.io/scrape": "true", "checksum/config": uid(3, service)},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{name}-{hash}"),
                    "uid": uid(4, service), "controller": true, "blockOwnerDeletion": true}],
                "managedFields": [{"manager": "kubelet", "operation": "Update", "apiVersion": "v1", "fieldsV1": {"f:status": {}}}],
            },
            "spec": {
                "nodeName": node_name(n % NODES), "serviceAccountName": name, "restartPolicy": "Always",
                "volumes": [{"name": "kube-api-access", "projected": {"defaultMode": 420, "sources": []}}],
                "containers": [{"name": "app", "image": format!("registry.example/{name}:1.2.3"),
                    "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                    "env": [{"name": "LOG", "value": "info"}, {"name": "REGION", "value": "eu-central-1"}],
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                    "readinessProbe": probe("/ready"), "livenessProbe": probe("/live")}],
            },
            "status": {"phase": "Running", "podIP": address(10, n), "podIPs": [{"ip": address(10, n)}],
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:10Z"}]},
        })
    }

    fn service(&self, n: u32) -> Value {
        json!({"metadata": {"name": service_name(n), "namespace": namespace(n), "uid": uid(5, n), "resourceVersion": "1"},
            "spec": {"type": "ClusterIP", "clusterIP": address(172, n), "clusterIPs": [address(172, n)], "selector": {"app.kubernetes.io/name": service_name(n)},
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]}})
    }

    /// EndpointSlice `n`, whose first endpoint is ready or not.
    pub fn slice(&self, n: u32, ready: bool) -> Value {
        let (service, part) = (n % self.services(), n / self.services());
        let pods = (service..self.workloads).step_by(self.services() as usize);
        let pods = pods.skip((part * SLICE) as usize).take(SLICE as usize);
        let endpoint = |(at, pod): (usize, u32)| {
            let ready = ready || at > 0;
            json!({"addresses": [address(10, pod)], "conditions": {"ready": ready, "serving": ready, "terminating": false},
                "nodeName": node_name(pod % NODES), "zone": format!("eu-central-1{}", ["a", "b", "c"][(pod % NODES % 3) as usize]),
                "targetRef": {"kind": "Pod", "name": pod_name(service, pod), "namespace": namespace(service), "uid": uid(2, pod)}})
        };
        json!({"addressType": "IPv4", "metadata": {"name": format!("{}-{part:05}", service_name(service)), "namespace": namespace(service),
                "uid": uid(6, n), "resourceVersion": "1", "labels": {"kubernetes.io/service-name": service_name(service)}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": pods.enumerate().map(endpoint).collect::<Value>()})
    }
}

/// Name of a node, as long as a cloud's.
pub fn node_name(n: u32) -> String {
    format!("ip-10-{}-{}.eu-central-1.compute.internal", n / 250, n % 250)
}

fn namespace(service: u32) -> String {
    format!("team-{}", service % NAMESPACES)
}

fn service_name(n: u32) -> String {
    format!("service-{n}")
}

fn pod_name(service: u32, pod: u32) -> String {
    let hash = u64::from(service).wrapping_mul(0x9e37_79b9) & 0xf_ffff_ffff;
    format!("{}-{hash:09x}-{:05x}", service_name(service), pod)
}

fn address(first: u8, n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    format!("{first}.{b}.{c}.{d}")
}

/// As long and as hard to compress as a UUID.
fn uid(kind: u32, n: u32) -> String {
    let x = (u64::from(kind) << 32 | u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let y = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    format!(
        "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
        x >> 32,
        x & 0xffff,
        y >> 52,
        y & 0xfff,
        (x ^ y) & 0xffff_ffff_ffff
    )
}
