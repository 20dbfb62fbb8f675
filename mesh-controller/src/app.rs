//! The app: starts every part, wires source → plan → publish and status, and ends them in order. It must not decide.

mod cycle;
mod debug;

use crate::{
    authenticate::{self, Callers, TokenFile},
    ca::{Grants, IdentityService, Metrics as CaMetrics},
    publish::{ConfigService, Metrics, Publisher},
    settings::Settings,
    source::folder::Folders,
    status::StatusFile,
};
use anyhow::{Context, Result};
use cycle::Cycle;
use mesh_run::{Admin, Drain, LogLevel, Readiness};
use mesh_tls::Authority;
use prometheus_client::registry::Registry;
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;
use tonic::transport::{Identity, Server, ServerTlsConfig, server::TcpIncoming};

/// The name that proxies may check the controller by, beside its address.
const SERVER_NAME: &str = "mesh-controller";

/// A proxy that does not answer a ping for so long is gone; its session's memory is given back.
const PING_EVERY: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A peer that connects and does not finish its TLS handshake in this time goes.
const HANDSHAKE: Duration = Duration::from_secs(10);

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
    let authority = Arc::new(Authority::load_or_create(&settings.state).context("the authority")?);
    let tokens = Arc::new(TokenFile::new(&settings.tokens));
    report_tokens(&settings).await;

    let mut registry = Registry::default();
    let callers = Callers::new(tokens, &mut registry);
    let publisher = Publisher::new(Metrics::register(&mut registry));
    let grants = Grants::default();
    let status = Arc::new(StatusFile::open(&settings.status_file));
    let readiness = Readiness::default();
    let planned = readiness.condition("plan", "the first plan is not made yet");
    let drain = Drain::new();
    let sessions = TaskTracker::new();

    let config = ConfigService::new(publisher.clone(), callers.clone(), sessions.clone(), drain.token());
    let identity =
        IdentityService::server(authority.clone(), callers, grants.clone(), CaMetrics::register(&mut registry));
    let certificate =
        authority.server_certificate(&[SERVER_NAME], &settings.server_addresses()).context("the authority")?;
    let tls = ServerTlsConfig::new()
        .timeout(HANDSHAKE)
        .identity(Identity::from_pem(&certificate.chain_pem, certificate.key_pem.as_bytes()));
    let listener = TcpListener::bind(settings.listen).await.with_context(|| format!("--listen {}", settings.listen))?;
    let admin = TcpListener::bind(settings.admin).await.with_context(|| format!("--admin {}", settings.admin))?;
    let grpc = Server::builder()
        .tls_config(tls)
        .context("the controller's own certificate")?
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .max_concurrent_streams(STREAMS)
        .add_service(config)
        .add_service(identity)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            drain.token().cancelled_owned(),
        );

    let (folders, first) = {
        let paths = settings.folders.clone();
        tokio::task::spawn_blocking(move || Folders::open(&paths)).await.context("reading the folders")??
    };
    let stop_source = folders.stopper();
    let cycle = Cycle::new(&settings.mesh_name, publisher.clone(), grants, status.clone());
    // Blocks on inotify and plans where it reads: from a saved file to the mailboxes there is no hand-over.
    let mut source = tokio::task::spawn_blocking(move || cycle.run(folders, first, || planned.met()));

    let admin_server = Admin {
        readiness,
        drain: drain.clone(),
        metrics: Arc::new(registry),
        log,
        config: {
            let (publisher, status) = (publisher.clone(), status.clone());
            Arc::new(move || debug::config(&publisher, &status))
        },
    };
    let admin_task = tokio::spawn(admin_server.serve(admin, std::future::pending()));
    let status_task = tokio::spawn(status.clone().keep());
    let mut grpc = tokio::spawn(grpc);
    tracing::info!("serving proxies at {}, admin at {}", settings.listen, settings.admin);

    let result = tokio::select! {
        signal = mesh_run::signals::stop() => signal.map(|name| tracing::info!("{name}: stopping")).context("signals"),
        ended = &mut grpc => ended.context("the gRPC server")?.context("the gRPC server").and(Err(anyhow::anyhow!("the gRPC server ended"))),
        ended = &mut source => Err(match ended {
            Ok(()) => anyhow::anyhow!("the source ended"),
            Err(e) => anyhow::Error::new(e).context("planning"),
        }),
    };
    drain.start();
    stop_source.stop();
    sessions.close();
    if tokio::time::timeout(DRAIN, sessions.wait()).await.is_err() {
        tracing::warn!("sessions did not end within {DRAIN:?}");
    }
    status_task.abort();
    admin_task.abort();
    grpc.abort();
    status.write().with_context(|| format!("status file {}", settings.status_file.display()))?;
    result
}

async fn report_tokens(settings: &Settings) {
    match tokio::fs::read_to_string(&settings.tokens).await {
        Ok(text) => {
            for (line, wrong) in authenticate::check(&text) {
                tracing::warn!("{}:{line}: {wrong}", settings.tokens.display());
            }
        }
        Err(e) => tracing::warn!("{}: cannot be read yet: {e}; nobody is authenticated", settings.tokens.display()),
    }
}
