//! Span export towards collectors that are there, and that are not.

use mesh_run::spans::{Export, export};
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use std::{net::Ipv4Addr, time::Duration};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::TcpListenerStream;

struct Collector(mpsc::Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).await.map_err(|e| tonic::Status::internal(e.to_string()))?;
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

fn to(endpoint: String, sampling_ppm: u32) -> Export {
    Export { endpoint, sampling_ppm, service: "mesh-proxy".into(), attributes: vec![("k8s.node.name", "n1".into())] }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_with_the_names_of_the_process() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut seen) = mpsc::channel(16);
    let server = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(sender)));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let provider = export(&to(endpoint.clone(), 1_000_000)).unwrap();
    provider.tracer("t").start("GET /cart").end();
    let batch = timeout(Duration::from_secs(10), seen.recv()).await.unwrap().unwrap();
    let spans = &batch.resource_spans[0];
    assert_eq!(spans.scope_spans[0].spans[0].name, "GET /cart");
    let attributes = &spans.resource.as_ref().unwrap().attributes;
    assert!(attributes.iter().any(|a| a.key == "k8s.node.name") && attributes.iter().any(|a| a.key == "service.name"));

    let none = export(&to(endpoint, 0)).unwrap();
    assert!(!none.tracer("t").start("unsampled").span_context().is_sampled());
    tokio::task::spawn_blocking(move || (provider.shutdown(), none.shutdown())).await.unwrap().0.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_collector_blocks_nobody() {
    let provider = export(&to("http://127.0.0.1:9".into(), 1_000_000)).unwrap();
    let tracer = provider.tracer("t");
    let start = std::time::Instant::now();
    for _ in 0..20_000 {
        tracer.start("lost").end();
    }
    assert!(start.elapsed() < Duration::from_secs(5), "ending a span never waits for the collector");
}

#[test]
fn bad_endpoints_are_named() {
    for (endpoint, says) in [("collector:4317", "not an http"), ("http://127.0.0.1:4317", "no runtime")] {
        let fault = export(&to(endpoint.into(), 0)).unwrap_err().to_string();
        assert!(fault.contains(says) && fault.contains(endpoint), "{fault}");
    }
}
