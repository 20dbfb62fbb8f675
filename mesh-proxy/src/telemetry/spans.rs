//! Spans: one of the request and one of each attempt, for sampled traces only. It must not export; the tracer that it is given does.

use super::{Record, trace::TraceParent};
use arc_swap::ArcSwapOption;
use mesh_core::fault::Fault;
use opentelemetry::{
    Context, KeyValue,
    trace::{
        Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use std::{net::SocketAddr, sync::Arc};

/// Where spans go. The tracer's sampler says which new traces are recorded.
#[derive(Default)]
pub struct Spans {
    tracer: ArcSwapOption<SdkTracer>,
}

/// The span of a sampled request.
pub struct RequestSpan {
    span: Span,
    tracer: Arc<SdkTracer>,
}

/// The span of one attempt of a sampled request; ends when dropped.
pub struct AttemptSpan(Span);

impl Spans {
    /// Spans go to this tracer from now on; none: nowhere.
    pub fn install(&self, tracer: Option<SdkTracer>) {
        self.tracer.store(tracer.map(Arc::new));
    }

    /// Continues the caller's trace or begins one. Sampling is parent-based: the caller's decision stands, and only new traces are
    /// sampled by the tracer. The second value is there if the request is recorded here.
    pub fn begin(&self, kind: SpanKind, parent: Option<TraceParent>) -> (TraceParent, Option<RequestSpan>) {
        let untraced = |parent: Option<TraceParent>| {
            (parent.unwrap_or_else(|| TraceParent::begin(rand::random(), rand::random(), false)), None)
        };
        if parent.is_some_and(|p| !p.sampled) {
            return untraced(parent);
        }
        let Some(tracer) = self.tracer.load_full() else { return untraced(parent) };
        let context = parent.map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(SpanContext::new(
                parent.trace_id,
                parent.span_id,
                TraceFlags::SAMPLED,
                true,
                TraceState::default(),
            ))
        });
        let span = tracer.span_builder("request").with_kind(kind).start_with_context(&*tracer, &context);
        if !span.span_context().is_sampled() {
            return untraced(parent);
        }
        (here(&span), Some(RequestSpan { span, tracer }))
    }
}

impl RequestSpan {
    /// Begins an attempt under this request.
    pub fn attempt(&self, number: u32, address: SocketAddr) -> AttemptSpan {
        let context = Context::new().with_remote_span_context(self.span.span_context().clone());
        let span = self
            .tracer
            .span_builder("attempt")
            .with_kind(SpanKind::Client)
            .with_attributes([
                KeyValue::new("heddle.attempt", i64::from(number)),
                KeyValue::new("server.address", address.ip().to_string()),
                KeyValue::new("server.port", i64::from(address.port())),
            ])
            .start_with_context(&*self.tracer, &context);
        AttemptSpan(span)
    }

    /// Notes that the retry budget refused another attempt.
    pub fn budget_refused(&mut self) {
        self.span.add_event("retry budget refused", vec![]);
    }

    /// Ends the span with what the record says.
    pub fn finish(mut self, record: &Record) {
        let span = &mut self.span;
        let mut set = |key: &'static str, value: opentelemetry::Value| span.set_attribute(KeyValue::new(key, value));
        set("heddle.direction", record.direction.label().into());
        if let Some(method) = &record.method {
            set("http.request.method", method.to_string().into());
        }
        if let Some(path) = &record.path {
            set("url.path", path.path().to_owned().into());
        }
        if let Some(host) = &record.host {
            set("server.address", host.to_string().into());
        }
        if let Some(status) = record.status {
            set("http.response.status_code", i64::from(status.as_u16()).into());
        }
        if let Some(status) = record.grpc_status {
            set("rpc.grpc.status_code", i64::from(status).into());
        }
        if let Some((service, port)) = &record.service {
            set("heddle.service", format!("{service}:{port}").into());
        }
        if let Some(route) = &record.route {
            set("heddle.route", route.to_string().into());
        }
        if let Some(rule) = &record.rule {
            set("heddle.rule", rule.to_string().into());
        }
        for (key, party) in [("heddle.source", &record.source), ("heddle.destination", &record.destination)] {
            if let Some(workload) = &party.workload {
                set(key, workload.id.to_string().into());
            }
        }
        set("heddle.attempts", i64::from(record.attempts).into());
        if let Some(fault) = record.fault {
            set("heddle.fault", fault.label().into());
            span.set_status(Status::error(fault.label()));
        } else if record.status.is_some_and(|s| s.is_server_error()) {
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl AttemptSpan {
    /// What the upstream is told.
    pub fn parent(&self) -> TraceParent {
        here(&self.0)
    }

    /// How it ended: with a response status or a fault.
    pub fn finish(mut self, outcome: Result<http::StatusCode, Fault>) {
        match outcome {
            Ok(status) => {
                self.0.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
            }
            Err(fault) => {
                self.0.set_attribute(KeyValue::new("heddle.fault", fault.label()));
                self.0.set_status(Status::error(fault.label()));
            }
        }
        self.0.end();
    }
}

fn here(span: &Span) -> TraceParent {
    let context = span.span_context();
    let (trace_id, span_id): (TraceId, SpanId) = (context.trace_id(), context.span_id());
    TraceParent { trace_id, span_id, sampled: context.is_sampled() }
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spans")
    }
}

impl std::fmt::Debug for RequestSpan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RequestSpan")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{Direction, Kind};
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::{
        error::OTelSdkResult,
        trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter},
    };
    use std::sync::Mutex;

    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    fn recording(share: f64) -> (Spans, Kept, SdkTracerProvider) {
        let exporter = Kept::default();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
            .with_simple_exporter(exporter.clone())
            .build();
        let spans = Spans::default();
        spans.install(Some(provider.tracer("heddle")));
        (spans, exporter, provider)
    }

    #[test]
    fn a_sampled_parent_is_followed_and_attempts_hang_under_the_request() {
        let (spans, exporter, _provider) = recording(0.0);
        let parent = TraceParent::begin(7, 9, true);
        let (here, span) = spans.begin(SpanKind::Server, Some(parent));
        let span = span.expect("a sampled parent is recorded");
        assert_eq!(here.trace_id, parent.trace_id);
        assert_ne!(here.span_id, parent.span_id);
        let attempt = span.attempt(1, "127.0.0.1:80".parse().unwrap());
        assert_eq!(attempt.parent().trace_id, parent.trace_id);
        attempt.finish(Err(Fault::ConnectFailed));
        let mut record = Record::new(Kind::Request, Direction::Outbound);
        record.fail(Fault::ConnectFailed, "");
        span.finish(&record);
        let done = exporter.0.lock().unwrap();
        assert_eq!(done.len(), 2);
        let (attempt, request) = (&done[0], &done[1]);
        assert_eq!(attempt.parent_span_id, request.span_context.span_id());
        assert_eq!(request.parent_span_id, parent.span_id);
    }

    #[test]
    fn an_unsampled_parent_is_passed_on_untouched() {
        let (spans, exporter, _provider) = recording(1.0);
        let parent = TraceParent::begin(7, 9, false);
        let (here, span) = spans.begin(SpanKind::Server, Some(parent));
        assert_eq!(here, parent);
        assert!(span.is_none());
        assert!(exporter.0.lock().unwrap().is_empty());
    }

    #[test]
    fn new_traces_are_sampled_by_the_setting() {
        let sampled = |share| {
            let (spans, _exporter, _provider) = recording(share);
            (0..10_000).filter(|_| spans.begin(SpanKind::Server, None).1.is_some()).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 10_000));
        let half = sampled(0.5);
        assert!((4_500..5_500).contains(&half), "{half} of 10,000 at one half");
        assert!(Spans::default().begin(SpanKind::Server, None).1.is_none(), "no tracer, no span");
    }
}
