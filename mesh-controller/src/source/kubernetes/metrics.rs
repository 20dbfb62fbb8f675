//! Metrics of watching. It must not have labels that grow with the cluster.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// What the source counts.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Events that waited to be planned when the last batch was made.
    pub waiting: Gauge,
    /// Lists and watches that were begun again, by kind and reason.
    pub(super) restarts: Family<Restart, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Restart {
    pub(super) kind: &'static str,
    pub(super) reason: &'static str,
}

impl Metrics {
    /// Registers all.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("heddle_controller_source");
        registry.register(
            "events_waiting",
            "Events of the API server that wait to be planned",
            metrics.waiting.clone(),
        );
        registry.register(
            "restarts",
            "Lists and watches that were begun again, by kind and reason",
            metrics.restarts.clone(),
        );
        metrics
    }
}
