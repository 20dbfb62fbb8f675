//! Tracing: starts and stops the span exporter as the mesh settings say. It must not make spans.

use super::Telemetry;
use mesh_core::{mesh::Tracing, snapshot::Snapshot};
use mesh_run::spans::{Export, export};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::sync::Arc;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Who sends the spans: `service.name` and more facts about this process.
#[derive(Clone, Debug)]
pub struct Sender {
    /// `service.name`.
    pub service: String,
    /// For example `k8s.node.name`.
    pub attributes: Vec<(&'static str, String)>,
}

/// Keeps the exporter as the newest config says, until `stop`; then sends what waits. Runs on the control runtime, which carries the
/// exporter's connection. Cancelling it loses the spans that wait.
pub async fn follow(
    telemetry: Telemetry,
    mut snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    sender: Sender,
    stop: CancellationToken,
) {
    let mut current: Option<(Tracing, SdkTracerProvider)> = None;
    loop {
        let wanted = snapshots.borrow_and_update().as_ref().and_then(|s| s.settings().tracing.clone());
        if current.as_ref().map(|(tracing, _)| tracing) != wanted.as_ref() {
            let next = wanted.and_then(|tracing| start(&tracing, &sender).map(|provider| (tracing, provider)));
            telemetry.spans().install(next.as_ref().map(|(_, provider)| provider.tracer("heddle")));
            if let Some((_, old)) = std::mem::replace(&mut current, next) {
                end(old).await;
            }
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
        }
    }
    telemetry.spans().install(None);
    if let Some((_, provider)) = current {
        end(provider).await;
    }
}

fn start(tracing: &Tracing, sender: &Sender) -> Option<SdkTracerProvider> {
    let to = Export {
        endpoint: tracing.endpoint.to_string(),
        sampling_ppm: tracing.sampling_ppm,
        service: sender.service.clone(),
        attributes: sender.attributes.clone(),
    };
    export(&to).map_err(|error| ::tracing::warn!(%error, "no spans are exported")).ok()
}

/// Ends an exporter off the runtime: it blocks until its last batch is sent or has failed.
async fn end(provider: SdkTracerProvider) {
    let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
    if let Ok(Err(error)) = ended {
        ::tracing::debug!(%error, "the last spans were not sent");
    }
}
