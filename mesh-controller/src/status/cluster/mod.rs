//! Statuses into a cluster: what the planner says is applied to the objects, by the leader, once for each real change. It must not decide what a status says.
//!
//! What this needs to be allowed, in all namespaces: `patch` of the `/status` of gatewayclasses, gateways, httproutes, grpcroutes, tlsroutes,
//! tcproutes, udproutes, backendtlspolicies (gateway.networking.k8s.io), xmeshes and xbackendtrafficpolicies (gateway.networking.x-k8s.io); and
//! `create` of xmeshes.

mod adopt;
mod patch;
mod programmed;
mod queue;
mod write;

pub use adopt::adopt;
pub use programmed::programmed;

use super::{Said, Sink};
use crate::{
    inventory::{Key, Kind},
    plan::status::{Body, Condition, State, Status},
    source::Problem,
};
use parking_lot::Mutex;
use patch::Patch;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use queue::Queue;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};
use tokio::{sync::Notify, time::Instant};

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    writes: Family<Write, Counter>,
    waiting: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Write {
    result: &'static str,
}

impl Metrics {
    /// Registers all.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("heddle_controller_status");
        let m = metrics.clone();
        registry.register("writes", "Requests that write a status, by result", m.writes);
        registry.register("waiting", "Objects whose status is to be looked at", m.waiting);
        metrics
    }

    fn count(&self, result: &'static str) {
        self.writes.get_or_create(&Write { result }).inc();
    }
}

/// What is to be written to a cluster. The planner changes it; [`ClusterStatuses::keep`] writes.
pub struct ClusterStatuses {
    state: Mutex<Content>,
    changed: Notify,
    metrics: Metrics,
    /// Name of the XMesh that this controller runs.
    mesh: String,
}

#[derive(Default)]
struct Content {
    /// What the planner says.
    wanted: HashMap<Key, Arc<Status>>,
    /// Objects that can bear a status of ours, as the API server showed them last.
    shown: HashMap<Key, Shown>,
    /// What we applied last.
    applied: HashMap<Key, Value>,
    queue: Queue,
    problems: Vec<Problem>,
    /// The first batch was planned.
    planned: bool,
    /// The XMesh of our name was there at some time.
    mesh_seen: bool,
    /// What is said of the XMesh beside what the planner says.
    programmed: Option<Condition>,
}

#[derive(Clone, Debug, Default)]
struct Shown {
    version: String,
    uid: String,
    status: Value,
}

impl Shown {
    fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        Self { version: text("resourceVersion"), uid: text("uid"), status: object["status"].clone() }
    }

    /// Whether this is the same object at a time before `other`. What we wrote is known before its watch says so; then the watch still tells of
    /// older states.
    fn is_older(&self, other: &Self) -> bool {
        let number = |shown: &Self| shown.version.parse::<u64>().ok();
        self.uid == other.uid && number(self).zip(number(other)).is_some_and(|(this, other)| this < other)
    }
}

/// Kinds whose objects bear a status of ours.
fn bears_status(kind: Kind) -> bool {
    use Kind::{
        BackendTlsPolicy, Gateway, GatewayClass, GrpcRoute, HttpRoute, TcpRoute, TlsRoute, UdpRoute,
        XBackendTrafficPolicy, XMesh,
    };
    matches!(
        kind,
        XMesh
            | GatewayClass
            | Gateway
            | HttpRoute
            | GrpcRoute
            | TlsRoute
            | TcpRoute
            | UdpRoute
            | XBackendTrafficPolicy
            | BackendTlsPolicy
    )
}

impl ClusterStatuses {
    /// Nothing is to be written yet.
    pub fn new(mesh: &str, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: Notify::new(), metrics, mesh: mesh.into() })
    }

    /// Whether all connected node proxies of all replicas run the XMesh's settings; goes into its status beside what the planner says.
    pub fn programmed(&self, condition: Condition) {
        let mut state = self.state.lock();
        if state.programmed.as_ref() != Some(&condition) {
            state.programmed = Some(condition);
            state.queue.add(&self.mesh_key(), Instant::now());
            drop(state);
            self.changed.notify_one();
        }
    }

    fn mesh_key(&self) -> Key {
        Key::cluster(Kind::XMesh, &self.mesh)
    }

    /// What is to be applied to an object now, at which version; none: nothing.
    fn patch(&self, key: &Key) -> Option<(Patch, Shown)> {
        let state = self.state.lock();
        let shown = state.shown.get(key)?;
        let wanted = state.wanted.get(key).map(|status| {
            let mut status = Status::clone(status);
            if *key == self.mesh_key()
                && let (Body::Mesh { conditions, .. }, Some(programmed)) = (&mut status.body, &state.programmed)
            {
                // Settings that are refused are run by nobody; what runs are the defaults.
                let refused = conditions.iter().find(|c| c.kind == "Accepted" && c.state == State::False);
                let refused =
                    refused.map(|accepted| Condition::no("Programmed", accepted.reason, accepted.message.clone()));
                conditions.push(refused.unwrap_or_else(|| programmed.clone()));
            }
            status.to_json()
        });
        let patch = patch::patch(wanted, &shown.status, state.applied.get(key), &super::now())?;
        Some((patch, shown.clone()))
    }

    /// The API server has this now.
    fn shows(&self, key: &Key, object: &Value) {
        let mut state = self.state.lock();
        // It may be gone since, and its watch has said so.
        if let Some(shown) = state.shown.get_mut(key) {
            *shown = Shown::of(object);
        }
    }

    /// Everything is looked at: what another replica wrote or did not write is unknown.
    fn look_at_all(&self) {
        let mut state = self.state.lock();
        let Content { wanted, shown, applied, queue, .. } = &mut *state;
        applied.clear();
        let now = Instant::now();
        let all: BTreeSet<&Key> = wanted.keys().chain(shown.keys()).collect();
        all.into_iter().for_each(|key| queue.add(key, now));
    }
}

impl Sink for ClusterStatuses {
    fn take(&self, shown: &[(Key, Option<Arc<Value>>)], said: &Said, problems: Vec<Problem>) {
        let now = Instant::now();
        let mesh = self.mesh_key();
        {
            let mut state = self.state.lock();
            let state = &mut *state;
            for (key, object) in shown.iter().filter(|(key, _)| bears_status(key.kind)) {
                match object {
                    Some(object) => {
                        let new = Shown::of(object);
                        if !state.shown.get(key).is_some_and(|have| new.is_older(have)) {
                            state.shown.insert(key.clone(), new);
                            state.queue.add(key, now);
                        }
                        state.mesh_seen |= *key == mesh;
                    }
                    None => {
                        state.shown.remove(key);
                        state.applied.remove(key);
                        state.queue.forget(key);
                    }
                }
            }
            for (key, status) in said {
                match status {
                    Some(status) => state.wanted.insert(key.clone(), status.clone()),
                    None => state.wanted.remove(key),
                };
                if state.shown.contains_key(key) {
                    state.queue.add(key, now);
                }
            }
            state.problems = problems;
            state.planned = true;
            self.metrics.waiting.set(state.queue.len() as i64);
        }
        self.changed.notify_one();
    }

    fn problems(&self) -> Vec<Problem> {
        self.state.lock().problems.clone()
    }
}

#[cfg(test)]
mod tests;
