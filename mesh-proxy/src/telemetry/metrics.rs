//! Metrics: the families of the proxy and their bounded labels. It must not take a label from a request: labels are names of config, codes and faults.

mod recent;

use super::{Direction, Kind, Record};
use mesh_core::{
    fault::Fault,
    name::{ServiceId, Text},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use std::{
    fmt::Write,
    hash::Hash,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Label sets of one family. Beyond it everything is counted under one set of empty labels, so that churn of names cannot eat the memory.
const SERIES_MAX: usize = 10_000;

/// Seconds: from a local call to the longest timeouts in use.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

/// Which side of a TLS handshake we were.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeSide {
    /// We dialled.
    Client,
    /// We accepted.
    Server,
}

/// How a TLS handshake ended; failures by the label of the rule that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeResult {
    /// Both sides are verified.
    Ok,
    /// It failed by this rule; a bounded set of labels.
    Failed(&'static str),
}

/// One try at an upstream, for [`super::Telemetry::attempt`].
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// Service that was tried.
    pub service: Option<&'a (ServiceId, u16)>,
    /// 0 for the first try.
    pub retry: u32,
    /// What went wrong; none if a response head came.
    pub fault: Option<Fault>,
    /// Whether the service has a retry budget, whose window this try went into.
    pub budgeted: bool,
}

#[derive(Debug)]
pub(super) struct Metrics {
    /// Tells these families from those of other tests in the process.
    family: usize,
    requests: Bounded<RequestLabels, Counter>,
    latency: Bounded<LatencyLabels, Histogram>,
    attempts: Bounded<AttemptLabels, Counter>,
    retries: Bounded<ServiceLabels, Counter>,
    budget_requests: Bounded<ServiceLabels, Counter>,
    budget_retries: Bounded<ServiceLabels, Counter>,
    budget_refusals: Bounded<ServiceLabels, Counter>,
    open: Family<DirectionLabels, Gauge>,
    connections: Bounded<ConnectionLabels, Counter>,
    bytes: Bounded<ByteLabels, Counter>,
    handshakes: Bounded<HandshakeLabels, Counter>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    direction: Side,
    namespace: Text0,
    owner: Text0,
    service: ServicePort,
    route: Route,
    rule: Text0,
    code: Code,
    fault: FaultLabel,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    direction: Side,
    namespace: Text0,
    owner: Text0,
    service: ServicePort,
    route: Route,
    class: Class,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AttemptLabels {
    service: ServicePort,
    fault: FaultLabel,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: ServicePort,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DirectionLabels {
    direction: Side,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectionLabels {
    direction: Side,
    namespace: Text0,
    owner: Text0,
    service: ServicePort,
    fault: FaultLabel,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByteLabels {
    direction: Side,
    namespace: Text0,
    owner: Text0,
    service: ServicePort,
    flow: &'static str,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    side: &'static str,
    result: &'static str,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry, log_dropped: Counter) -> Self {
        static FAMILIES: AtomicUsize = AtomicUsize::new(0);
        let m = Self {
            family: FAMILIES.fetch_add(1, Ordering::Relaxed),
            requests: Bounded::new(Counter::default),
            latency: Bounded::new(|| Histogram::new(LATENCY_BUCKETS)),
            attempts: Bounded::new(Counter::default),
            retries: Bounded::new(Counter::default),
            budget_requests: Bounded::new(Counter::default),
            budget_retries: Bounded::new(Counter::default),
            budget_refusals: Bounded::new(Counter::default),
            open: Family::default(),
            connections: Bounded::new(Counter::default),
            bytes: Bounded::new(Counter::default),
            handshakes: Bounded::new(Counter::default),
        };
        let r = registry.sub_registry_with_prefix("heddle");
        r.register("requests", "Requests that ended, by what they were and how they ended", m.requests.family.clone());
        r.register(
            "request_duration_seconds",
            "Time from the request head to the last byte of the response",
            m.latency.family.clone(),
        );
        r.register("attempts", "Tries at an upstream, by the fault that ended them", m.attempts.family.clone());
        r.register("retries", "Tries after the first", m.retries.family.clone());
        r.register(
            "retry_budget_requests",
            "First tries that went into the window of a retry budget",
            m.budget_requests.family.clone(),
        );
        r.register("retry_budget_retries", "Retries that a retry budget allowed", m.budget_retries.family.clone());
        r.register("retry_budget_refusals", "Retries that a retry budget refused", m.budget_refusals.family.clone());
        r.register("connections_open", "Open connections and tunnels", m.open.clone());
        r.register("connections", "Connections and tunnels that ended", m.connections.family.clone());
        r.register(
            "connection_bytes",
            "Bytes of ended connections, from the client (in) and to it (out)",
            m.bytes.family.clone(),
        );
        r.register(
            "handshakes",
            "TLS handshakes by result; failures by the rule that failed",
            m.handshakes.family.clone(),
        );
        r.register(
            "access_log_dropped",
            "Access log lines that were dropped because the writer was behind",
            log_dropped,
        );
        m
    }

    pub(super) fn opened(&self, direction: Direction) {
        self.open.get_or_create(&DirectionLabels { direction: Side(Some(direction)) }).inc();
    }

    pub(super) fn closed(&self, direction: Direction) {
        self.open.get_or_create(&DirectionLabels { direction: Side(Some(direction)) }).dec();
    }

    pub(super) fn handshake(&self, side: HandshakeSide, result: HandshakeResult) {
        let side = match side {
            HandshakeSide::Client => "client",
            HandshakeSide::Server => "server",
        };
        let result = match result {
            HandshakeResult::Ok => "ok",
            HandshakeResult::Failed(rule) => rule,
        };
        self.handshakes.with(HandshakeLabels { side, result }, |c| c.inc());
    }

    pub(super) fn attempt(&self, attempted: Attempted<'_>) {
        let service = || ServicePort(attempted.service.cloned());
        if attempted.fault == Some(Fault::RetryBudget) {
            self.budget_refusals.with(ServiceLabels { service: service() }, |c| c.inc());
            return;
        }
        let find = || {
            let labels = AttemptLabels { service: service(), fault: FaultLabel(attempted.fault) };
            self.attempts.with(labels, Counter::clone)
        };
        recent::attempts(self.family, attempted.service, attempted.fault, find).inc();
        let retried = attempted.retry > 0;
        if !attempted.budgeted && !retried {
            return;
        }
        let labels = ServiceLabels { service: service() };
        if attempted.budgeted {
            let window = if retried { &self.budget_retries } else { &self.budget_requests };
            window.with(labels.clone(), |c| c.inc());
        }
        if retried {
            self.retries.with(labels, |c| c.inc());
        }
    }

    pub(super) fn finish(&self, record: &Record) {
        match record.kind {
            Kind::Request => {
                let counted = recent::requests(self.family, record, || self.requests_of(record));
                counted.latency.observe(record.duration.as_secs_f64());
                counted.total.inc();
            }
            Kind::Connection => {
                let (direction, namespace, owner, service) = whose(record);
                for (flow, bytes) in [("in", record.bytes_in), ("out", record.bytes_out)] {
                    let labels = ByteLabels {
                        direction,
                        namespace: namespace.clone(),
                        owner: owner.clone(),
                        service: service.clone(),
                        flow,
                    };
                    self.bytes.with(labels, |c| c.inc_by(bytes));
                }
                let fault = FaultLabel(record.fault);
                self.connections.with(ConnectionLabels { direction, namespace, owner, service, fault }, |c| c.inc());
            }
        }
    }

    fn requests_of(&self, record: &Record) -> recent::Requests {
        let (direction, namespace, owner, service) = whose(record);
        let route = Route(record.route.clone());
        let latency = LatencyLabels {
            direction,
            namespace: namespace.clone(),
            owner: owner.clone(),
            service: service.clone(),
            route: route.clone(),
            class: Class(record.status.map(|s| s.as_u16() / 100)),
        };
        let (rule, code) = (Text0(record.rule.clone()), Code(record.status.map(|s| s.as_u16())));
        let fault = FaultLabel(record.fault);
        let requests = RequestLabels { direction, namespace, owner, service, route, rule, code, fault };
        recent::Requests {
            total: self.requests.with(requests, Counter::clone),
            latency: self.latency.with(latency, Histogram::clone),
        }
    }
}

/// The labels that requests and connections share.
fn whose(record: &Record) -> (Side, Text0, Text0, ServicePort) {
    let local = record.local();
    (
        Side(Some(record.direction)),
        Text0(local.map(|w| w.id.namespace.clone())),
        Text0(local.map(|w| w.owner.clone())),
        ServicePort(record.service.clone()),
    )
}

/// A family that stops growing.
#[derive(Debug)]
struct Bounded<S, M, C = fn() -> M> {
    family: Family<S, M, C>,
    series: AtomicUsize,
}

impl<S, M> Bounded<S, M>
where
    S: Clone + Default + Eq + Hash,
{
    fn new(make: fn() -> M) -> Self {
        Self { family: Family::new_with_constructor(make), series: AtomicUsize::new(0) }
    }

    /// Does `count` to the metric of `labels`, or to the one of no labels when the family is full.
    fn with<T>(&self, labels: S, count: impl FnOnce(&M) -> T) -> T {
        if let Some(metric) = self.family.get(&labels) {
            return count(&metric);
        }
        // Two who miss at once may count one set twice: the bound is a bound, not a census.
        let full = self.series.fetch_add(1, Ordering::Relaxed) >= SERIES_MAX;
        let labels = if full { S::default() } else { labels };
        count(&self.family.get_or_create(&labels))
    }
}

/// A direction, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Side(Option<Direction>);

/// A text, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Text0(Option<Text>);

/// `namespace/name:port`, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct ServicePort(Option<(ServiceId, u16)>);

/// `Kind/namespace/name`, or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Route(Option<mesh_core::mesh::RouteId>);

/// A status code of RFC 9110's classes, `other`, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Code(Option<u16>);

/// `2xx`, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Class(Option<u16>);

/// A fault, or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct FaultLabel(Option<Fault>);

impl EncodeLabelValue for Side {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        e.write_str(self.0.map_or("", Direction::label))
    }
}

impl EncodeLabelValue for Text0 {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        EncodeLabelValue::encode(&self.0.as_deref().unwrap_or(""), e)
    }
}

impl EncodeLabelValue for ServicePort {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |(id, port)| write!(e, "{id}:{port}"))
    }
}

impl EncodeLabelValue for Route {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.as_ref().map_or(Ok(()), |id| write!(e, "{id}"))
    }
}

impl EncodeLabelValue for Code {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        match self.0 {
            // An application may answer any number; only those with a class are told apart.
            Some(code @ 100..600) => write!(e, "{code}"),
            Some(_) => e.write_str("other"),
            None => Ok(()),
        }
    }
}

impl EncodeLabelValue for Class {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |class| write!(e, "{class}xx"))
    }
}

impl EncodeLabelValue for FaultLabel {
    fn encode(&self, e: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        e.write_str(self.0.map_or("", Fault::label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use mesh_core::{
        mesh::{AccessLog, RouteId, RouteKind},
        name::NsName,
    };
    use prometheus_client::encoding::text::encode;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_request_is_counted_under_its_names_code_and_fault() {
        let mut registry = Registry::default();
        let telemetry = crate::telemetry::Telemetry::new(crate::telemetry::AccessLogSink::discard(), &mut registry);
        {
            let mut request = telemetry.request(Direction::Outbound, AccessLog::All, std::time::Instant::now());
            request.record.service = Some((NsName::new("shop", "cart"), 80));
            request.record.route = Some(RouteId { kind: RouteKind::Http, name: NsName::new("shop", "split") });
            request.record.rule = Some("canary".into());
            request.record.status = Some(StatusCode::SERVICE_UNAVAILABLE);
            request.record.fail(Fault::NoEndpoint, "");
        }
        let text = scrape(&registry);
        assert!(
            text.contains(
                "heddle_requests_total{direction=\"outbound\",namespace=\"\",owner=\"\",service=\"shop/cart:80\",route=\"HTTPRoute/shop/split\",rule=\"canary\",code=\"503\",fault=\"no_endpoint\"} 1"
            ),
            "{text}"
        );
        assert!(text.contains("heddle_request_duration_seconds_count{"), "{text}");
        assert!(text.contains("class=\"5xx\""), "{text}");
    }

    #[test]
    fn requests_with_other_names_are_counted_apart_also_when_a_thread_remembers_some() {
        let mut registry = Registry::default();
        let telemetry = crate::telemetry::Telemetry::new(crate::telemetry::AccessLogSink::discard(), &mut registry);
        let (cart, pay) = (NsName::new("shop", "cart"), NsName::new("shop", "pay"));
        for n in 0..1000_u16 {
            let mut request = telemetry.request(Direction::Outbound, AccessLog::Off, std::time::Instant::now());
            let service = if n % 2 == 0 { &cart } else { &pay };
            request.record.service = Some((service.clone(), 80 + n % 5));
            request.record.status = StatusCode::from_u16(200 + n % 100).ok();
        }
        let text = scrape(&registry);
        let totals: Vec<&str> = text.lines().filter(|l| l.starts_with("heddle_requests_total{")).collect();
        assert_eq!(totals.len(), 100, "2 services, 5 ports and 100 codes go together in 100 ways");
        assert!(totals.iter().all(|l| l.ends_with(" 10")), "{totals:#?}");
    }

    #[test]
    fn an_open_connection_is_seen_while_it_lives_and_its_bytes_when_it_ends() {
        let mut registry = Registry::default();
        let telemetry = crate::telemetry::Telemetry::new(crate::telemetry::AccessLogSink::discard(), &mut registry);
        let settings = mesh_core::mesh::MeshSettings {
            name: "heddle".into(),
            trust_domain: mesh_core::identity::TrustDomain::new("cluster.local").unwrap(),
            mode: Some(mesh_core::mesh::Mode::Strict),
            svid_lifetime: std::time::Duration::from_secs(3600),
            tracing: None,
            access_log: AccessLog::All,
            limits: mesh_core::mesh::Limits::default(),
        };
        let mut connection = telemetry.connection(Direction::Inbound, &settings);
        assert!(scrape(&registry).contains("heddle_connections_open{direction=\"inbound\"} 1"));
        connection.record.bytes_in = 7;
        drop(connection);
        let text = scrape(&registry);
        assert!(text.contains("heddle_connections_open{direction=\"inbound\"} 0"), "{text}");
        assert!(text.contains("flow=\"in\"} 7"), "{text}");
    }

    #[test]
    fn retries_and_refusals_of_a_budget_are_told_apart() {
        let mut registry = Registry::default();
        let telemetry = crate::telemetry::Telemetry::new(crate::telemetry::AccessLogSink::discard(), &mut registry);
        let service = (NsName::new("shop", "pay"), 80);
        let attempt = |retry, fault| {
            telemetry.attempt(Attempted { service: Some(&service), retry, fault, budgeted: true });
        };
        attempt(0, Some(Fault::UpstreamReset));
        attempt(1, None);
        attempt(2, Some(Fault::RetryBudget));
        let text = scrape(&registry);
        for line in [
            "heddle_attempts_total{service=\"shop/pay:80\",fault=\"upstream_reset\"} 1",
            "heddle_attempts_total{service=\"shop/pay:80\",fault=\"\"} 1",
            "heddle_retries_total{service=\"shop/pay:80\"} 1",
            "heddle_retry_budget_requests_total{service=\"shop/pay:80\"} 1",
            "heddle_retry_budget_retries_total{service=\"shop/pay:80\"} 1",
            "heddle_retry_budget_refusals_total{service=\"shop/pay:80\"} 1",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }

    #[test]
    fn a_full_family_counts_the_rest_together() {
        let bounded = Bounded::<ServiceLabels, Counter>::new(Counter::default);
        for port in 0..=u16::try_from(SERIES_MAX + 10).unwrap() {
            let service = ServicePort(Some((NsName::new("a", "b"), port)));
            bounded.with(ServiceLabels { service }, |c| c.inc());
        }
        assert_eq!(bounded.family.get(&ServiceLabels::default()).unwrap().get(), 11);
    }
}
