//! Plan: 5,000 routes, 1,000 services, 10,000 endpoints; all of it, one changed route, one changed endpoint, from object to snapshot. It must not measure files or sockets.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mesh_controller::{
    inventory::{Change, admit},
    plan::{PlanDelta, Planner, plan},
    publish::{Mesh, Slice},
};
use mesh_core::{
    name::ProxyName,
    node::{NodeDelta, ResourceId},
    snapshot::Snapshot,
};
use serde_json::{Value, json};
use std::{hint::black_box, time::Duration};

const ROUTES: u32 = 5_000;
const SERVICES: u32 = 1_000;
const ENDPOINTS_OF_A_SERVICE: u32 = 10;

fn ip(net: u8, n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    format!("{net}.{b}.{c}.{d}")
}

fn service(n: u32) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("service-{n}"), "namespace": "bench"},
        "spec": {"clusterIP": ip(11, n), "ports": [{"name": "http", "port": 80}]}})
}

/// A slice whose last endpoint is ready or not.
fn slice(n: u32, last: bool) -> Value {
    let endpoint = |i: u32| {
        json!({"addresses": [ip(10, n * ENDPOINTS_OF_A_SERVICE + i)], "conditions": {"ready": last || i + 1 < ENDPOINTS_OF_A_SERVICE},
            "targetRef": {"kind": "Pod", "name": format!("pod-{n}-{i}"), "namespace": "bench"}})
    };
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("slice-{n}"), "namespace": "bench", "labels": {"kubernetes.io/service-name": format!("service-{n}")}},
        "ports": [{"name": "http", "port": 8080}], "endpoints": (0..ENDPOINTS_OF_A_SERVICE).map(endpoint).collect::<Vec<_>>()})
}

fn pod(n: u32, i: u32) -> Value {
    let address = ip(10, n * ENDPOINTS_OF_A_SERVICE + i);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("pod-{n}-{i}"), "namespace": "bench", "uid": format!("{n}-{i}")},
        "spec": {"nodeName": "node", "serviceAccountName": format!("service-{n}")}, "status": {"phase": "Running", "podIP": address}})
}

/// Route `n` has two rules, and splits its second by weight; five routes share a Service.
fn route(n: u32, weight: u32) -> Value {
    let backend =
        |n: u32, weight: u32| json!({"name": format!("service-{}", n % SERVICES), "port": 80, "weight": weight});
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": format!("route-{n}"), "namespace": "bench", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": format!("service-{}", n % SERVICES)}], "rules": [
            {"matches": [{"path": {"type": "Exact", "value": format!("/exact-{n}")}}], "backendRefs": [backend(n, 1)]},
            {"matches": [{"path": {"type": "PathPrefix", "value": format!("/prefix-{n}")}, "headers": [{"name": "x-version", "value": "2"}]}],
             "backendRefs": [backend(n, weight), backend(n + 1, 10)]}]}})
}

fn set(mut object: Value) -> Change {
    Change::Set(Box::new(admit(&mut object).expect("the bench's objects can be read")))
}

fn world() -> Vec<Change> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench", "labels": {"heddle.dev/mesh": "enabled"}}});
    let mut changes = vec![set(namespace)];
    changes.extend((0..SERVICES).map(|n| set(service(n))));
    changes.extend((0..SERVICES).map(|n| set(slice(n, true))));
    changes.extend((0..SERVICES).flat_map(|n| (0..ENDPOINTS_OF_A_SERVICE).map(move |i| set(pod(n, i)))));
    changes.extend((0..ROUTES).map(|n| set(route(n, 90))));
    changes
}

fn delta(planned: PlanDelta) -> NodeDelta {
    let mut delta = NodeDelta::default();
    for (id, resource) in planned.resources {
        match resource {
            Some(resource) => delta.upserts.push(resource),
            None => delta.removes.push(id),
        }
    }
    delta
}

/// From an object to a node's snapshot, without the wire between.
struct Chain {
    planner: Planner,
    mesh: Mesh,
    slice: Slice,
    snapshot: Snapshot,
}

impl Chain {
    fn new() -> Self {
        let mut planner = Planner::new("heddle");
        planner.apply(world());
        let upserts: Vec<_> = planner.plan().mesh.iter().cloned().collect();
        let settings = planner.plan().mesh.get(&ResourceId::Settings).expect("a plan has settings").clone();
        let mesh_core::node::Resource::Settings(settings) = settings else { unreachable!("filed under settings") };
        let mut mesh = Mesh::default();
        mesh.apply(&NodeDelta { upserts, removes: Vec::new() });
        let slice = Slice::new(&ProxyName::Node("node".into()), &mesh);
        let entries: Vec<_> = slice.after(&mesh, None).map(|(_, entry)| entry).collect();
        assert!(entries.len() > (SERVICES * ENDPOINTS_OF_A_SERVICE + ROUTES) as usize, "the node gets everything");
        let upserts = entries.iter().map(|e| e.resource.clone()).collect();
        let snapshot = Snapshot::empty(settings).with(&NodeDelta { upserts, removes: Vec::new() });
        Self { planner, mesh, slice, snapshot }
    }

    fn apply(&mut self, change: Change) {
        let delta = delta(self.planner.apply([change]));
        let changed = self.mesh.apply(&delta);
        let touched = self.slice.change(&self.mesh, &changed);
        let mut delta = NodeDelta::default();
        for (id, entry) in touched {
            match entry {
                Some(entry) => delta.upserts.push(entry.resource.clone()),
                None => delta.removes.push(id),
            }
        }
        assert_eq!(delta.upserts.len(), 1, "one object is one resource");
        self.snapshot = self.snapshot.with(&delta);
    }
}

fn whole(c: &mut Criterion) {
    let mut planner = Planner::new("heddle");
    planner.apply(world());
    c.bench_function("plan/whole: 5,000 routes, 1,000 services, 10,000 endpoints", |b| {
        b.iter(|| black_box(plan(planner.inventory(), "heddle")));
    });
}

fn one_route(c: &mut Criterion) {
    let mut planner = Planner::new("heddle");
    planner.apply(world());
    let mut weight = 0;
    c.bench_function("plan/one changed route of 5,000: read and plan", |b| {
        b.iter_batched(
            || {
                weight = (weight + 1) % 1000;
                route(17, weight)
            },
            |object| black_box(planner.apply([set(object)])),
            BatchSize::SmallInput,
        );
    });
    let mut chain = Chain::new();
    c.bench_function("plan/one changed route of 5,000: read, plan, encode, slice, apply", |b| {
        b.iter_batched(
            || {
                weight = (weight + 1) % 1000;
                route(17, weight)
            },
            |object| chain.apply(set(object)),
            BatchSize::SmallInput,
        );
    });
}

fn one_endpoint(c: &mut Criterion) {
    let mut planner = Planner::new("heddle");
    planner.apply(world());
    let mut ready = true;
    c.bench_function("plan/one changed endpoint of 10,000: read and plan", |b| {
        b.iter_batched(
            || {
                ready = !ready;
                slice(17, ready)
            },
            |object| black_box(planner.apply([set(object)])),
            BatchSize::SmallInput,
        );
    });
    let mut chain = Chain::new();
    // The new chain's endpoints are all ready.
    ready = true;
    c.bench_function("plan/one changed endpoint of 10,000: read, plan, encode, slice, apply", |b| {
        b.iter_batched(
            || {
                ready = !ready;
                slice(17, ready)
            },
            |object| chain.apply(set(object)),
            BatchSize::SmallInput,
        );
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = whole, one_route, one_endpoint
}
criterion_main!(benches);
