//! Folder: one saved edit of a route and of an endpoint, from a file of a large folder to a node's snapshot. It must not skip a step of the real way but the sockets.
//!
//! Promises: one changed endpoint planned, sliced and applied under 1 ms; one changed route of 5,000 under 10 ms.

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_controller::{
    inventory::Change,
    plan::Planner,
    publish::{Mesh, Slice},
    source::{Batch, folder::Folders},
};
use mesh_core::{
    name::ProxyName,
    node::{NodeDelta, Resource},
    snapshot::Snapshot,
};
use mesh_proxy::control::Held;
use mesh_wire::{proto::Delta, sender::OutgoingDelta};
use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const ROUTES: u32 = 5_000;
const SERVICES: u32 = 1_000;
const ENDPOINTS_OF_A_SERVICE: u32 = 10;

/// The object that changes.
const CHANGED: u32 = 17;

fn ip(net: u8, n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    format!("{net}.{b}.{c}.{d}")
}

/// A file with a Service and its pods.
fn service(n: u32) -> String {
    let address = ip(11, n);
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: service-{n}\n  namespace: bench\nspec:\n  clusterIP: {address}\n  ports:\n  - name: http\n    port: 80\n    targetPort: 8080\n"
    );
    for i in 0..ENDPOINTS_OF_A_SERVICE {
        let address = ip(10, n * ENDPOINTS_OF_A_SERVICE + i);
        write!(text, "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: pod-{n}-{i}\n  namespace: bench\n  uid: u-{n}-{i}\nspec:\n  nodeName: node\n  serviceAccountName: service-{n}\n  containers:\n  - name: app\n    image: heddle.dev/echo\nstatus:\n  phase: Running\n  podIP: {address}\n").expect("a String takes everything");
    }
    text
}

/// A file with the Service's ten endpoints, the last of which is ready or not.
fn slice(n: u32, last: bool) -> String {
    let mut text = format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: slice-{n}\n  namespace: bench\n  labels:\n    kubernetes.io/service-name: service-{n}\naddressType: IPv4\nports:\n- name: http\n  port: 8080\nendpoints:\n"
    );
    for i in 0..ENDPOINTS_OF_A_SERVICE {
        let (address, ready) = (ip(10, n * ENDPOINTS_OF_A_SERVICE + i), last || i + 1 < ENDPOINTS_OF_A_SERVICE);
        write!(text, "- addresses: [{address}]\n  conditions:\n    ready: {ready}\n  targetRef:\n    kind: Pod\n    name: pod-{n}-{i}\n    namespace: bench\n").expect("a String takes everything");
    }
    text
}

/// A file with one route; five routes share a Service.
fn route(n: u32, weight: u32) -> String {
    let (own, next) = (n % SERVICES, (n + 1) % SERVICES);
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: route-{n}\n  namespace: bench\nspec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n    name: service-{own}\n  rules:\n  - matches:\n    - path:\n        type: Exact\n        value: /exact-{n}\n    backendRefs:\n    - name: service-{own}\n      port: 80\n  - matches:\n    - path:\n        type: PathPrefix\n        value: /prefix-{n}\n      headers:\n      - name: x-version\n        value: \"2\"\n    backendRefs:\n    - name: service-{own}\n      port: 80\n      weight: {weight}\n    - name: service-{next}\n      port: 80\n      weight: 10\n"
    )
}

fn save(folder: &Path, file: &str, text: &str) {
    fs::write(folder.join(file), text).expect("a writable folder");
}

/// What controller and proxy hold, without the stream between them.
struct Chain {
    folders: Folders,
    planner: Planner,
    mesh: Mesh,
    slice: Slice,
    held: Held,
    folder: TempDir,
}

impl Chain {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a directory");
        save(
            folder.path(),
            "bench.yaml",
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: bench\n  labels:\n    heddle.dev/mesh: enabled\n",
        );
        for n in 0..SERVICES {
            save(folder.path(), &format!("service-{n}.yaml"), &service(n));
            save(folder.path(), &format!("slice-{n}.yaml"), &slice(n, true));
        }
        for n in 0..ROUTES {
            save(folder.path(), &format!("route-{n}.yaml"), &route(n, 90));
        }
        let (folders, batch) = Folders::open(&[folder.path().into()]).expect("a readable folder");
        assert_eq!(batch.problems, [], "the folder is good");
        let mut planner = Planner::new("heddle");
        planner.apply(batch.changes.into_iter().map(|c| Change::read(c).expect("it was admitted")));
        let upserts: Vec<Resource> = planner.plan().mesh.iter().cloned().collect();
        let mut mesh = Mesh::default();
        mesh.apply(&NodeDelta { upserts, removes: vec![] });
        let slice = Slice::new(&ProxyName::Node("node".into()), &mesh);
        let entries: Vec<_> = slice.after(&mesh, None).map(|(_, entry)| entry).collect();
        assert!(entries.len() > (SERVICES * ENDPOINTS_OF_A_SERVICE + ROUTES) as usize, "the node gets everything");
        let upserts = entries.iter().map(|e| e.encoded.bytes.clone()).collect();
        let mut held = Held::default();
        take(&mut held, OutgoingDelta { nonce: 1, upserts, removes: vec![], synced: true });
        Self { folders, planner, mesh, slice, held, folder }
    }

    /// What the folder says once it has seen the edit.
    fn observe(&mut self) -> Batch {
        loop {
            let batch = self.folders.wait().expect("nobody stops it");
            assert_eq!(batch.problems, [], "the edit is good");
            if !batch.changes.is_empty() {
                return batch;
            }
        }
    }

    /// From what the folder says to the snapshot of the next request.
    fn apply(&mut self, batch: Batch) -> Arc<Snapshot> {
        let planned = self.planner.apply(batch.changes.into_iter().map(|c| Change::read(c).expect("it was admitted")));
        let upserts: Vec<Resource> = planned.resources.into_values().map(|r| r.expect("nothing was removed")).collect();
        let changed = self.mesh.apply(&NodeDelta { upserts, removes: vec![] });
        let touched = self.slice.change(&self.mesh, &changed);
        let upserts: Vec<_> =
            touched.into_values().map(|e| e.expect("nothing was removed").encoded.bytes.clone()).collect();
        assert_eq!(upserts.len(), 1, "one object is one resource");
        take(&mut self.held, OutgoingDelta { nonce: 2, upserts, removes: vec![], synced: true });
        self.held.snapshot().expect("it is synchronised").clone()
    }
}

/// To bytes, from bytes, doubted, compiled: as a proxy takes a delta.
fn take(held: &mut Held, delta: OutgoingDelta) {
    let delta = Delta::try_from(&delta).expect("our own encoding");
    held.take(delta).expect("the controller sends what a proxy takes");
}

fn edits(c: &mut Criterion) {
    let mut chain = Chain::new();
    let mut edit = 0;
    type Text = fn(u32) -> String;
    let endpoint: Text = |edit| slice(CHANGED, edit.is_multiple_of(2));
    // Never the weight of the beginning: an edit that changes nothing is none.
    let weight: Text = |edit| route(CHANGED, 1000 + edit % 1000);
    for (what, file, text) in [
        ("one endpoint of 10,000", format!("slice-{CHANGED}.yaml"), endpoint),
        ("one route of 5,000", format!("route-{CHANGED}.yaml"), weight),
    ] {
        // With the time in which the source gathers what an editor's save is made of.
        for (part, from_save) in
            [("planned, sliced, encoded, decoded, applied", false), ("saved file to snapshot", true)]
        {
            c.bench_function(&format!("folder/{what}: {part}"), |b| {
                b.iter_custom(|n| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..n {
                        edit += 1;
                        let before = chain.held.snapshot().expect("it is synchronised").clone();
                        let saved = Instant::now();
                        save(chain.folder.path(), &file, &text(edit));
                        let batch = chain.observe();
                        let observed = Instant::now();
                        let after = chain.apply(batch);
                        spent += if from_save { saved.elapsed() } else { observed.elapsed() };
                        assert!(!Arc::ptr_eq(&before, &after), "the edit is live");
                    }
                    spent
                });
            });
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3)).sample_size(20);
    targets = edits
}
criterion_main!(benches);
