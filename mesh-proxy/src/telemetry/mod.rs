//! Telemetry: what happened, as access log lines, metrics and spans. It must not decide anything about traffic, and must never make traffic wait.

mod access_log;
mod connection;
mod line;
mod metrics;
mod record;
mod request;
mod spans;
pub mod trace;
pub mod tracing;

pub use access_log::AccessLogSink;
pub use connection::Connection;
pub use metrics::{Attempted, HandshakeResult, HandshakeSide};
pub use record::{Direction, Kind, Party, Record};
pub use request::RequestGuard;
pub use spans::{RequestSpan, Spans};

use metrics::Metrics;
use prometheus_client::registry::Registry;
use std::{sync::Arc, time::Duration};

/// The one handle to everything that a connection or request leaves behind. Cloning it is a reference count.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    log: AccessLogSink,
    metrics: Metrics,
    spans: Spans,
}

impl Telemetry {
    /// Registers the metric families in `registry` and sends access log lines to `log`.
    pub fn new(log: AccessLogSink, registry: &mut Registry) -> Self {
        let metrics = Metrics::register(registry, log.dropped());
        Self(Arc::new(Inner { log, metrics, spans: Spans::default() }))
    }

    /// Families without a scraper and lines without a reader, for tests and benches.
    pub fn discard() -> Self {
        Self::new(AccessLogSink::discard(), &mut Registry::default())
    }

    /// Spans: where they go and how many.
    pub fn spans(&self) -> &Spans {
        &self.0.spans
    }

    /// Counts a TLS handshake. Failures bear the label of the rule that failed.
    pub fn handshake(&self, side: HandshakeSide, result: HandshakeResult) {
        self.0.metrics.handshake(side, result);
    }

    /// Counts an attempt at an upstream.
    pub fn attempt(&self, attempted: Attempted<'_>) {
        self.0.metrics.attempt(attempted);
    }

    /// Waits until the lines that were queued before are written, at most `patience`. Call it off the data path, at the end of the process.
    pub fn flush(&self, patience: Duration) {
        self.0.log.flush(patience);
    }

    /// Counts a record that ended. If its line is wanted it is taken, and an empty one left behind.
    fn finish(&self, record: &mut Record, wanted: bool) {
        self.0.metrics.finish(record);
        if wanted {
            self.0.log.push(std::mem::replace(record, Record::at(record.kind, record.direction, record.started)));
        }
    }
}

impl std::fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Telemetry")
    }
}
