//! The controller of the simulation, in a process of its own: source, plan, slices and streams are the product's; only who calls is taken at their word.
//! It must not measure memory; who started it does.

use anyhow::{Context, Result};
use mesh_controller::{
    app::Cycle,
    authenticate::{Authenticate, Callers, Unauthenticated},
    ca::Grants,
    plan::Planner,
    publish::{ConfigService, Metrics, Publisher, SESSION_LIFE},
    source::kubernetes::{self, Kubernetes},
    status::{ClusterMetrics, ClusterStatuses},
};
use mesh_core::name::ProxyName;
use prometheus_client::{encoding::text::encode, registry::Registry};
use std::{collections::BTreeSet, io::BufRead, net::SocketAddr, sync::Arc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::server::TcpIncoming;

/// Name of the mesh.
const MESH: &str = "heddle";

/// Takes a proxy's name as its token.
struct Trusting;

#[tonic::async_trait]
impl Authenticate for Trusting {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        token.parse().map_err(|_| Unauthenticated::UnknownToken)
    }
}

/// Plans what the API server of KUBECONFIG shows and serves proxies, until its standard input ends. Says a line when all is planned, and the sums of
/// its clocks for each line that it reads.
pub fn run() -> Result<()> {
    mesh_sys::memory::small_pages()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve())
}

async fn serve() -> Result<()> {
    let mut registry = Registry::default();
    let publisher = Publisher::new(Metrics::register(&mut registry));
    let grants = Grants::default();
    let callers = Callers::new(Arc::new(Trusting), &mut registry);
    let statuses = ClusterStatuses::new(MESH, ClusterMetrics::register(&mut registry));
    let watching = kubernetes::Metrics::register(&mut registry);
    let stop = CancellationToken::new();
    let config = ConfigService::new(publisher.clone(), callers, TaskTracker::new(), stop.clone(), SESSION_LIFE);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address: SocketAddr = listener.local_addr()?;
    // As the product's accept loop does: else the end of each delta waits for the acknowledgement of its beginning, up to 40 ms.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tokio::spawn(tonic::transport::Server::builder().add_service(config).serve_with_incoming(incoming));
    tokio::spawn(publisher.clone().pace({
        let grants = grants.clone();
        move |shown| grants.apply(shown)
    }));
    let began = Instant::now();
    let client = kubernetes::connect().await.context("the simulated API server")?;
    let source = Kubernetes::open(&client, watching, stop.clone());
    let none = BTreeSet::new();
    let cycle = Cycle::new(Planner::excluding(MESH, &none), publisher.clone(), grants, statuses, none);
    tokio::task::spawn_blocking(move || {
        let planned = move || {
            let seconds = began.elapsed().as_secs_f64();
            println!("{}", serde_json::json!({"address": address.to_string(), "seconds": seconds}));
        };
        cycle.run(Box::new(source), planned);
    });
    tokio::task::spawn_blocking(move || -> Result<()> {
        for line in std::io::stdin().lock().lines() {
            line?;
            let mut text = String::new();
            encode(&mut text, &registry)?;
            let sum = |name: &str| {
                let name = format!("heddle_controller_{name}_seconds_sum ");
                let line = text.lines().find_map(|line| line.strip_prefix(name.as_str()));
                line.and_then(|value| value.parse::<f64>().ok())
            };
            println!("{}", serde_json::json!({"plan": sum("plan"), "push": sum("push")}));
        }
        Ok(())
    })
    .await??;
    stop.cancel();
    // The planning thread may be in the middle of a batch; nobody waits for it.
    std::process::exit(0)
}
