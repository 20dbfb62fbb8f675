//! Start of span export: OTLP over gRPC, in batches, bounded. It must not make spans.

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider},
};
use std::time::Duration;

/// Spans that wait for a slow collector; more are dropped and counted by the SDK, because telemetry must not hold traffic or memory.
const QUEUE: usize = 8192;
/// Spans in one export.
const BATCH: usize = 512;
/// Longest wait of a finished span for its batch.
const DELAY: Duration = Duration::from_millis(500);
/// One export; a collector that does not answer counts as gone.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where spans go and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    /// `http://HOST:PORT` of a collector.
    pub endpoint: String,
    /// Share of new traces that are sampled, in 1/1,000,000. A parent's decision is always followed.
    pub sampling_ppm: u32,
    /// `service.name`.
    pub service: String,
    /// More facts about this process (`k8s.node.name`).
    pub attributes: Vec<(&'static str, String)>,
}

/// Spans cannot be exported so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("spans cannot be exported to {endpoint:?}: {reason}")]
pub struct NoExport {
    /// Where to.
    pub endpoint: String,
    /// Why not.
    pub reason: String,
}

/// Starts an exporter; connects when the first spans are sent. Needs a running tokio runtime, which then carries the connection. The caller keeps
/// the provider and calls `shutdown` at the end, on a thread that may block.
pub fn export(to: &Export) -> Result<SdkTracerProvider, NoExport> {
    let bad = |reason: String| NoExport { endpoint: to.endpoint.clone(), reason };
    if !(to.endpoint.starts_with("http://") || to.endpoint.starts_with("https://")) {
        return Err(bad("is not an http:// or https:// URL".into()));
    }
    if tokio::runtime::Handle::try_current().is_err() {
        return Err(bad("no runtime to carry the connection".into()));
    }
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(&to.endpoint).with_timeout(EXPORT_TIMEOUT);
    let exporter = exporter.build().map_err(|e| bad(e.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(DELAY)
        .build();
    let attributes = to.attributes.iter().map(|(k, v)| KeyValue::new(*k, v.clone()));
    let resource = Resource::builder().with_service_name(to.service.clone()).with_attributes(attributes).build();
    let share = f64::from(to.sampling_ppm.min(1_000_000)) / 1_000_000.0;
    Ok(SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(share))))
        .with_resource(resource)
        .build())
}
