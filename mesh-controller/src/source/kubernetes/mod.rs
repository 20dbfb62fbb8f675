//! Kubernetes: lists and watches the objects of a cluster and says what changed, as every source does. It must not judge objects; admission does.
//!
//! Each kind is followed on its own (`follow`); what they say meets in `state`, which makes batches of it. The first batch comes when each kind was
//! listed once or is known not to exist here. From then on nothing that the API server does ends a watch: it is resumed, or the kind is listed again.
//!
//! What this needs to be allowed, in all namespaces, `get`, `list`, `watch`:
//!
//! | group | resources |
//! |---|---|
//! | (core) | namespaces, pods, services, secrets |
//! | discovery.k8s.io | endpointslices |
//! | gateway.networking.k8s.io | gatewayclasses, gateways, listenersets, referencegrants, httproutes, grpcroutes, tlsroutes, tcproutes, udproutes, backendtlspolicies |
//! | gateway.networking.x-k8s.io | xmeshes, xbackendtrafficpolicies |
//! | heddle.dev | meshparameters |
//!
//! Of Secrets only those of type `kubernetes.io/tls` are asked for; without that right the mesh works, but Gateways have no certificates.

mod follow;
mod metrics;
mod request;
mod state;
mod trim;

pub use metrics::Metrics;
pub use request::{CannotConnect, connect};
pub(crate) use request::{object_path, path};

use super::{Batch, Source};
use crate::inventory::Kind;
use follow::Follow;
use kube::Client;
use state::{Event, State};
use std::time::Duration;
use tokio::{runtime::Handle, sync::mpsc, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

/// How long changes are gathered after the first: what one command changes comes in one batch. Small beside the time a watch takes.
const GATHER: Duration = Duration::from_millis(2);

/// Events after which a batch is planned though more are there.
const BATCH_MAX: usize = 4096;

/// Events that may wait to be gathered. When planning is slower than the cluster changes, watches are read more slowly.
const EVENTS: usize = 1024;

/// Kinds that are read; the others of the inventory are read by no plan.
pub const KINDS: [Kind; 18] = [
    Kind::Namespace,
    Kind::Pod,
    Kind::Service,
    Kind::EndpointSlice,
    Kind::Secret,
    Kind::MeshParameters,
    Kind::XMesh,
    Kind::GatewayClass,
    Kind::Gateway,
    Kind::ListenerSet,
    Kind::ReferenceGrant,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::BackendTlsPolicy,
    Kind::XBackendTrafficPolicy,
];

/// A cluster, as a source.
pub struct Kubernetes {
    events: mpsc::Receiver<Event>,
    state: State,
    metrics: Metrics,
    runtime: Handle,
    stop: CancellationToken,
    // They end when this is dropped.
    _followers: JoinSet<()>,
}

impl Kubernetes {
    /// Begins to follow all kinds. [`Source::wait`] ends when the token is cancelled. Must be called on a runtime.
    pub fn open(client: &Client, metrics: Metrics, stop: CancellationToken) -> Self {
        let runtime = Handle::current();
        let (sender, events) = mpsc::channel(EVENTS);
        let mut followers = JoinSet::new();
        for kind in KINDS {
            let follow = Follow::new(client.clone(), kind, sender.clone(), metrics.clone());
            followers.spawn_on(follow.run(), &runtime);
        }
        Self { events, state: State::new(KINDS), metrics, runtime, stop, _followers: followers }
    }

    async fn next(&mut self) -> Option<Batch> {
        let Self { events, state, metrics, stop, .. } = self;
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                event = events.recv() => event?,
            };
            state.take(event);
            let until = Instant::now() + GATHER;
            for _ in 1..BATCH_MAX {
                match tokio::time::timeout_at(until, events.recv()).await {
                    Ok(Some(event)) => state.take(event),
                    _ => break,
                }
            }
            metrics.waiting.set(events.len() as i64);
            if let Some(batch) = state.settle() {
                return Some(batch);
            }
        }
    }
}

impl Source for Kubernetes {
    fn wait(&mut self) -> Option<Batch> {
        let runtime = self.runtime.clone();
        runtime.block_on(self.next())
    }
}

#[cfg(test)]
mod tests;
