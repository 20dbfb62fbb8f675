//! Metrics of planning and publishing. It must not have labels that grow with the mesh.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// What the controller counts.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Time of one plan.
    pub plan: Histogram,
    /// Time from the plan to all mailboxes.
    pub push: Histogram,
    /// Time from sending a delta to the proxy's answer.
    pub ack_lag: Histogram,
    /// Connected sessions.
    pub sessions: Gauge,
    /// Changes that wait for slow proxies, over all sessions.
    pub waiting: Gauge,
    /// Published resources.
    pub resources: Gauge,
    /// Resources that proxies refused.
    pub refusals: Counter,
    /// Broken documents at the source.
    pub problems: Gauge,
    /// Batches of changes from the source that were planned.
    pub batches: Counter,
}

impl Metrics {
    /// Registers all.
    pub fn register(registry: &mut Registry) -> Self {
        // 10 µs to 10 s.
        let seconds = || Histogram::new(exponential_buckets(1e-5, 4.0, 11));
        let metrics = Self {
            plan: seconds(),
            push: seconds(),
            ack_lag: seconds(),
            sessions: Gauge::default(),
            waiting: Gauge::default(),
            resources: Gauge::default(),
            refusals: Counter::default(),
            problems: Gauge::default(),
            batches: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("heddle_controller");
        let m = metrics.clone();
        registry.register_with_unit("plan", "Time of one plan", Unit::Seconds, m.plan);
        registry.register_with_unit(
            "push",
            "Time from the plan to the mailboxes of all proxies",
            Unit::Seconds,
            m.push,
        );
        registry.register_with_unit("ack_lag", "Time from sending a delta to the answer", Unit::Seconds, m.ack_lag);
        registry.register("sessions", "Connected proxies", m.sessions);
        registry.register("waiting_changes", "Changes that wait for slow proxies, over all sessions", m.waiting);
        registry.register("resources", "Published resources", m.resources);
        registry.register("refusals", "Resources that a proxy refused", m.refusals);
        registry.register("source_problems", "Broken documents at the source", m.problems);
        registry.register("batches", "Batches of changes that were planned", m.batches);
        metrics
    }
}
