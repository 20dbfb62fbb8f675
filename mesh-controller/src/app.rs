//! The app: starts every part, wires source → plan → publish and status, and ends them in order. It must not decide.

mod cluster;
mod cycle;
mod debug;
mod folders;
mod parts;
mod trust;

pub use cycle::Cycle;

use crate::{
    authenticate::Callers,
    ca::{Grants, IdentityService, Metrics as CaMetrics},
    plan::Planner,
    publish::{ConfigService, Metrics, Publisher, SESSION_LIFE},
    settings::{Settings, World},
};
use anyhow::{Context, Result};
use mesh_run::{Admin, Drain, LogLevel, Readiness};
use parts::{Common, Parts};
use prometheus_client::registry::Registry;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::transport::Server;

/// A proxy that does not answer a ping for so long is gone; its session's memory is given back.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of one proxy: one Config stream and the signing of its pods' certificates, many at once after a restart.
const STREAMS: u32 = 256;

/// How long sessions may take to say goodbye.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs until a signal says stop.
pub fn run(settings: Settings, log: LogLevel) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(serve(settings, log))
}

async fn serve(settings: Settings, log: LogLevel) -> Result<()> {
    let mut registry = Registry::default();
    let publisher = Publisher::new(Metrics::register(&mut registry));
    let grants = Grants::default();
    let readiness = Readiness::default();
    let planned = readiness.condition("plan", "the first plan is not made yet");
    let drain = Drain::new();
    let sessions = TaskTracker::new();

    let mut common = Common {
        mesh: settings.mesh_name.clone(),
        publisher: publisher.clone(),
        grants: grants.clone(),
        registry: &mut registry,
    };
    let parts = match &settings.world {
        World::Folders(folders) => folders::parts(folders).await?,
        World::Kubernetes(cluster) => cluster::parts(cluster, &mut common).await?,
    };
    let Parts { authority, authenticate, sink, excluded, open, mut tasks, finish } = parts;

    let callers = Callers::new(authenticate, &mut registry);
    let config = ConfigService::new(publisher.clone(), callers.clone(), sessions.clone(), drain.token(), SESSION_LIFE);
    let identity =
        IdentityService::server(authority.clone(), callers, grants.clone(), CaMetrics::register(&mut registry));
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("--listen {}", settings.listen))?;
    let admin = TcpListener::bind(settings.admin).await.with_context(|| format!("--admin {}", settings.admin))?;
    let incoming =
        trust::accept(authority.clone(), settings.server_names(), settings.server_addresses(), listener, &mut tasks)?;
    tasks.spawn(trust::publish(authority.clone(), publisher.clone()));
    let grpc = Server::builder()
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS)
        .add_service(config)
        .add_service(identity)
        .serve_with_incoming_shutdown(incoming, drain.token().cancelled_owned());

    let (source, stop_source) = tokio::task::spawn_blocking(open).await.context("opening the source")??;
    let pace = publisher.clone().pace({
        let grants = grants.clone();
        move |shown| grants.apply(shown)
    });
    tasks.spawn(async move {
        pace.await;
        "pacing pods in and out of the mesh"
    });
    let cycle = Cycle::new(
        Planner::excluding(&settings.mesh_name, &excluded),
        publisher.clone(),
        grants,
        sink.clone(),
        excluded,
    );
    // Blocks on its source and plans where it reads: from a change to the mailboxes there is no hand-over.
    let mut cycle = tokio::task::spawn_blocking(move || cycle.run(source, || planned.met()));

    let admin_server = Admin {
        readiness,
        drain: drain.clone(),
        metrics: Arc::new(registry),
        log,
        config: {
            let publisher = publisher.clone();
            Arc::new(move || debug::config(&publisher, &*sink))
        },
    };
    let admin_task = tokio::spawn(admin_server.serve(admin, std::future::pending()));
    let mut grpc = tokio::spawn(grpc);
    tracing::info!("serving proxies at {}, admin at {}", settings.listen, settings.admin);

    let result = tokio::select! {
        signal = mesh_run::signals::stop() => signal.map(|name| tracing::info!("{name}: stopping")).context("signals"),
        ended = &mut grpc => ended.context("the gRPC server")?.context("the gRPC server").and(Err(anyhow::anyhow!("the gRPC server ended"))),
        ended = &mut cycle => Err(match ended {
            Ok(()) => anyhow::anyhow!("the source ended"),
            Err(e) => anyhow::Error::new(e).context("planning"),
        }),
        Some(ended) = tasks.join_next() => Err(match ended {
            Ok(what) => anyhow::anyhow!("{what} ended"),
            Err(e) => anyhow::Error::new(e).context("a background task"),
        }),
    };
    drain.start();
    stop_source();
    sessions.close();
    if tokio::time::timeout(DRAIN, sessions.wait()).await.is_err() {
        tracing::warn!("sessions did not end within {DRAIN:?}");
    }
    tasks.shutdown().await;
    admin_task.abort();
    grpc.abort();
    finish.await?;
    result
}
