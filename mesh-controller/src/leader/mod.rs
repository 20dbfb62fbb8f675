//! Leader: of all replicas one, by a Lease, writes what is written once: statuses, the XMesh, the bundle of roots. It must not write any of it.
//!
//! What this needs to be allowed: in the controller's namespace `create` of leases (coordination.k8s.io), and `get`, `update` and `patch` of the one
//! named `mesh-controller`.

mod decide;
mod reports;

pub use reports::{Reports, report};

use decide::{Seen, Step, View};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use std::time::Duration;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

/// Name of the Lease.
pub const LEASE: &str = "mesh-controller";

/// A holder that did not renew for so long has lost it; by the clock of who watches, so that clocks need not agree.
pub const DURATION: Duration = Duration::from_secs(15);

/// A holder stops writing so long after its last renewal began: well before another may begin.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// How often the holder renews and the others look.
pub const RENEW: Duration = Duration::from_secs(3);

/// Longest answer to one request; several fit before [`DEADLINE`].
const REQUEST: Duration = Duration::from_secs(4);

/// What is counted.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    leading: Gauge,
    terms: Counter,
    failures: Counter,
}

impl Metrics {
    /// Registers all.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("heddle_controller_leader");
        let m = metrics.clone();
        registry.register("leading", "1 while this replica holds the Lease", m.leading);
        registry.register("terms", "How often this replica got the Lease", m.terms);
        registry.register("failures", "Requests about the Lease that failed", m.failures);
        metrics
    }
}

/// Whether this replica leads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether it leads at this moment. Ask right before each write.
    pub fn is_held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until it leads. Dropping it is harmless.
    pub async fn gained(&mut self) {
        while !self.is_held() {
            if self.0.changed().await.is_err() {
                // Nobody renews any more, so this will never be.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until it does not lead (any more): what is being written is to be dropped. Dropping it is harmless.
    pub async fn lost(&mut self) {
        loop {
            let Some(until) = *self.0.borrow_and_update() else { return };
            tokio::select! {
                changed = self.0.changed() => if changed.is_err() { return },
                () = sleep_until(until) => return,
            }
        }
    }

    /// One that is held for ever or never, for those who need none.
    #[cfg(test)]
    pub(crate) fn fixed(held: bool) -> (watch::Sender<Option<Instant>>, Self) {
        let until = held.then(|| Instant::now() + Duration::from_secs(3600));
        let (sender, receiver) = watch::channel(until);
        (sender, Self(receiver))
    }
}

/// Holds the Lease, or waits for it.
pub struct Candidate {
    leases: Api<Lease>,
    replica: String,
    held: watch::Sender<Option<Instant>>,
    seen: Option<Seen>,
    metrics: Metrics,
}

impl Candidate {
    /// A candidate of this name, unique among all replicas.
    pub fn new(client: &Client, namespace: &str, replica: &str, metrics: Metrics) -> (Self, Leadership) {
        let (held, leadership) = watch::channel(None);
        let leases = Api::namespaced(client.clone(), namespace);
        (Self { leases, replica: replica.into(), held, seen: None, metrics }, Leadership(leadership))
    }

    /// Renews or waits, for ever.
    pub async fn run(mut self) {
        loop {
            self.turn().await;
            sleep(RENEW.mul_f64(rand::random_range(0.8..1.2))).await;
        }
    }

    /// One look at the Lease.
    async fn turn(&mut self) {
        let began = Instant::now();
        let mut result = timeout(REQUEST, self.look(began)).await.unwrap_or_else(|_| Err(Fault::Late));
        // Somebody wrote it since it was read: perhaps only a report.
        if matches!(&result, Err(fault) if fault.is_conflict()) {
            result = timeout(REQUEST, self.look(began)).await.unwrap_or_else(|_| Err(Fault::Late));
        }
        let before = *self.held.borrow();
        let now = match result {
            Ok(true) => Some(began + DEADLINE),
            Ok(false) => None,
            Err(fault) if fault.is_conflict() => None,
            Err(fault) => {
                self.metrics.failures.inc();
                tracing::debug!("Lease {LEASE}: {fault}");
                // What was held is held until its time is over.
                before.filter(|until| Instant::now() < *until)
            }
        };
        match (before.is_some(), now.is_some()) {
            (false, true) => {
                self.metrics.terms.inc();
                tracing::info!(replica = self.replica, "this replica leads");
            }
            (true, false) => tracing::warn!(replica = self.replica, "this replica does not lead any more"),
            _ => {}
        }
        self.metrics.leading.set(now.is_some().into());
        self.held.send_replace(now);
    }

    /// Whether it is ours after this.
    async fn look(&mut self, now: Instant) -> Result<bool, Fault> {
        let found = self.leases.get_opt(LEASE).await?;
        let view = found.as_ref().map(view);
        let step = decide::decide(view.as_ref(), &self.replica, &mut self.seen, now);
        let mut lease = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (_, None) => Lease { metadata: ObjectMeta { name: Some(LEASE.into()), ..Default::default() }, spec: None },
            (_, Some(lease)) => lease,
        };
        let time = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if step == Step::Take {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(1));
            spec.acquire_time = Some(time.clone());
        }
        spec.holder_identity = Some(self.replica.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(time);
        // Both fail if somebody was faster: creating because it exists, replacing because it bears the version that was read.
        if lease.metadata.resource_version.is_none() {
            self.leases.create(&PostParams::default(), &lease).await?;
        } else {
            self.leases.replace(LEASE, &PostParams::default(), &lease).await?;
        }
        Ok(true)
    }
}

/// Gives the Lease up, if this replica holds it, so that another need not wait. To be called when nothing is written any more.
pub async fn release(client: Client, namespace: &str, replica: &str) {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let released = async {
        let Some(mut lease) = leases.get_opt(LEASE).await? else { return Ok(()) };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_deref() == Some(replica) => spec.holder_identity = None,
            _ => return Ok(()),
        }
        leases.replace(LEASE, &PostParams::default(), &lease).await.map(drop)
    };
    match timeout(REQUEST, released).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => tracing::debug!("Lease {LEASE}: cannot be released: {e}"),
        Err(_) => tracing::debug!("Lease {LEASE}: cannot be released in time"),
    }
}

fn view(lease: &Lease) -> View {
    let empty = LeaseSpec::default();
    let spec = lease.spec.as_ref().unwrap_or(&empty);
    View {
        holder: spec.holder_identity.clone().unwrap_or_default(),
        // Not the version of the object: reports change that too.
        renewed: spec.renew_time.as_ref().map(|time| time.0.to_string()).unwrap_or_default(),
        duration: Duration::from_secs(spec.lease_duration_seconds.unwrap_or(0).max(0) as u64),
    }
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("no answer within {REQUEST:?}")]
    Late,
}

impl Fault {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }
}

#[cfg(test)]
mod tests;
