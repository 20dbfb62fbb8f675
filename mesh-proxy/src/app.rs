//! App: wires the process together, runs it until a signal, drains. It must not know what the parts do.

use crate::{
    control::{Cache, ConfigClient, ConfigView, Link, SvidClient},
    gateway,
    local::Local,
    pods::{Adopt, Listeners, Phases, Registry, Roster, serve_cni},
    settings::{AccessLogTo, Role, Settings},
    shared::Shared,
    telemetry::{
        AccessLogSink, Telemetry,
        tracing::{self as spans, Sender},
    },
    tunnel::Pool,
};
use anyhow::Context;
use mesh_core::{
    identity::Identity,
    mesh::{Enrolment, Limits, MeshSettings, Mode, Workload},
    name::{GatewayId, ProxyName},
    snapshot::Snapshot,
};
use mesh_run::{Admin, Condition, Drain, LogLevel, Readiness, log, signals};
use mesh_sys::{Netns, limit};
use mesh_tls::{SvidStore, Svids, Trust};
use prometheus_client::registry::Registry as Metrics;
use std::{collections::BTreeMap, fs, net::IpAddr, os::unix::fs::DirBuilderExt, path::Path, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Handle, Runtime},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// CNI calls that may wait for the roster; it answers each in microseconds or keeps it aside.
const ASKS: usize = 128;

/// Wait for the last spans, and for the last access log lines, at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// Beyond `limits.drain`, for those who count it from a moment later.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// Wait for a gateway's first certificate before it listens; then it listens all the same, for routes to backends outside the mesh.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the proxy until SIGTERM or SIGINT.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let level = log::start(&settings.log)?;
    // The first look at the process's own namespace, before any thread can be elsewhere.
    Netns::current()?.run(|| ())?;
    let files = limit::raise_open_files().context("cannot raise the number of open files")?;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&settings.state_dir);
    made.with_context(|| format!("cannot make --state-dir {}", settings.state_dir.display()))?;
    let (control, data) = runtimes(&settings)?;
    tracing::info!(name = %settings.name, files, "starting");
    let done = control.block_on(serve(&settings, level, data.handle().clone()));
    // Connections that outlived the drain end here.
    data.shutdown_timeout(Duration::from_millis(100));
    control.shutdown_timeout(Duration::from_millis(100));
    done
}

/// Of how many steps of a data thread one is from the queue that all threads share. A thread's own queue holds 256 tasks; what is ready beyond goes to
/// the shared one, where by the runtime's own measure it would wait ten times as long as the others while a thread has always something to do.
const SHARED_EVERY: u32 = 2;

/// One runtime for the data path, one for everything that must not delay it; only `watch` receivers and channels go between.
fn runtimes(settings: &Settings) -> anyhow::Result<(Runtime, Runtime)> {
    let control = Builder::new_multi_thread().worker_threads(1).thread_name("control").enable_all().build()?;
    let mut data = Builder::new_multi_thread();
    data.global_queue_interval(SHARED_EVERY);
    if let Some(workers) = settings.workers {
        data.worker_threads(workers.get());
    }
    Ok((control, data.thread_name("data").enable_all().build()?))
}

async fn serve(settings: &Settings, level: LogLevel, data: Handle) -> anyhow::Result<()> {
    let (readiness, drain) = (Readiness::default(), Drain::new());
    let admin_on = TcpListener::bind(settings.admin).await.with_context(|| format!("--admin {}", settings.admin))?;
    let mut metrics = Metrics::default();
    let telemetry = Telemetry::new(access_log(&settings.access_log)?, &mut metrics);
    let link = Link::new(&settings.control.url, &settings.control.authority, &settings.control.token);
    let cache = Cache::new(&settings.state_dir, settings.name.clone());
    let configured = readiness.condition("config", "no config from the controller yet");
    let (config, snapshot) = ConfigClient::new(link.clone(), settings.name.clone(), cache, configured);
    let store = SvidStore::open(settings.state_dir.join("svids")).context("--state-dir: svids")?;
    let svids = Arc::new(Svids::new(Arc::new(SvidClient::new(link)), Some(store), Handle::current()));
    let trust = Arc::new(Trust::new(svids.clone()));
    let config = {
        let svids = svids.clone();
        config.telling(move |roots| svids.trust(roots))
    };
    let pool = Pool::new(trust.clone(), snapshot.clone());
    pool.counting(telemetry.clone());
    let listeners = match &settings.role {
        Role::Node { holder_socket: Some(path), .. } => {
            let path = path.clone();
            tokio::task::spawn_blocking(move || Listeners::held(path)).await?.context("--holder-socket")?
        }
        _ => Listeners::alone(),
    };
    let shared = Arc::new(Shared {
        snapshot,
        trust,
        pool: pool.clone(),
        telemetry: telemetry.clone(),
        host_addresses: listeners.host_addresses(),
        drain: drain.token(),
    });
    let (phases, shown) = watch::channel(Phases::default());
    let admin = Admin {
        readiness: readiness.clone(),
        drain: drain.clone(),
        metrics: Arc::new(metrics),
        log: level,
        config: Arc::new(debug_config(config.view(), svids.clone(), pool.clone(), shown, shared.clone())),
    };
    tokio::spawn(admin.serve(admin_on, std::future::pending()));
    tokio::spawn(config.run(move || svids.hurry()));
    data.spawn(async move { pool.follow().await });
    let ended = CancellationToken::new();
    let sender = Sender { service: "mesh-proxy".into(), attributes: vec![("heddle.proxy", settings.name.to_string())] };
    let spans = tokio::spawn(spans::follow(telemetry.clone(), shared.snapshot.clone(), sender, ended.clone()));
    let work = match (&settings.role, &settings.name) {
        (Role::Node { cni_socket, netns_dir, .. }, name) => {
            let adopt = match (netns_dir, name) {
                (Some(dir), ProxyName::Node(node)) => Some(Adopt::new(dir.clone(), node.clone())),
                _ => None,
            };
            let settled = readiness.condition("pods", "pods of the last run are not served yet");
            node(settings, cni_socket, (listeners, adopt, phases), &shared, &data, settled).await?
        }
        (Role::Gateway { address }, ProxyName::Gateway(id)) => {
            let listening = readiness.condition("gateway", "no certificate for the gateway yet");
            tokio::spawn(gateway_of(id.clone(), *address, shared.clone(), data.clone(), listening))
        }
        (Role::Gateway { .. }, ProxyName::Node(_)) => anyhow::bail!("a node's proxy has no Gateway"),
    };
    let signal = signals::stop().await?;
    tracing::info!(signal, "draining; a second signal ends at once");
    drain.start();
    let longest = shared.settings().map_or_else(|| Limits::default().drain, |s| s.limits.drain) + DRAIN_SLACK;
    tokio::select! {
        drained = tokio::time::timeout(longest, work) => match drained {
            Ok(_) => tracing::info!("drained"),
            Err(_) => tracing::warn!("connections outlived the drain time and are cut"),
        },
        again = signals::stop() => tracing::warn!(signal = again?, "ending at once"),
    }
    ended.cancel();
    let _ = tokio::time::timeout(FLUSH, spans).await;
    // Off the runtime: it blocks until the lines are written.
    let _ = tokio::task::spawn_blocking(move || telemetry.flush(FLUSH)).await;
    Ok(())
}

/// Node mode: listens to the CNI, then takes up the pods of the last run, so that no pod is announced to nobody in between.
async fn node(
    settings: &Settings,
    socket: &Path,
    (listeners, adopt, phases): (Arc<Listeners>, Option<Adopt>, watch::Sender<Phases>),
    shared: &Arc<Shared>,
    data: &Handle,
    settled: Condition,
) -> anyhow::Result<JoinHandle<()>> {
    let registry = Registry::open(settings.state_dir.join("pods"))?;
    let (asks, asked) = mpsc::channel(ASKS);
    let calls = serve_cni(socket, asks, listeners.others(), shared.drain.clone())
        .await
        .with_context(|| format!("--cni-socket {}", socket.display()))?;
    tokio::spawn(calls);
    let roster = Roster::restore(registry, shared.clone(), listeners, adopt, data.clone())?.shown_in(phases);
    Ok(tokio::spawn(roster.serve(asked, settled, shared.drain.clone())))
}

/// Gateway mode: waits for who it is, then serves its listeners on the data runtime.
async fn gateway_of(id: GatewayId, address: Option<IpAddr>, shared: Arc<Shared>, data: Handle, listening: Condition) {
    let mut snapshots = shared.snapshot.clone();
    let first = tokio::select! {
        first = first_settings(&mut snapshots) => first,
        () = shared.drain.cancelled() => return,
    };
    let Some(settings) = first else { return };
    let identity = match Identity::new(settings.trust_domain.clone(), &id.namespace, &id.name) {
        Ok(identity) => identity,
        Err(error) => return tracing::error!(gateway = %id, %error, "the Gateway's name makes no identity"),
    };
    let svids = shared.trust.svids();
    svids.ensure(&identity);
    tokio::select! {
        got = tokio::time::timeout(CERTIFICATE_PATIENCE, svids.obtained(&identity)) => if got.is_err() {
            tracing::warn!(%identity, "no certificate yet; backends in the mesh cannot be reached until there is one");
        },
        () = shared.drain.cancelled() => return,
    }
    let workload = Workload {
        owner: id.name.clone(),
        probes: [].into(),
        // No pod is behind it that another could take the place of; the proxy's process is the workload.
        uid: format!("gateway/{id}").into(),
        node: "".into(),
        addresses: address.into_iter().collect(),
        identity,
        enrolment: Enrolment::Meshed(Mode::Strict),
        id: id.clone(),
    };
    let local = Local::new(Arc::new(workload), None, settings.limits.connections_per_pod);
    let running = data.spawn(gateway::run(id, local, shared));
    listening.met();
    if running.await.is_err() {
        tracing::error!("the gateway's task failed");
    }
}

/// The settings of the first config, and nothing else of it: who asks goes on as long as the proxy, and would hold all that has changed since.
async fn first_settings(snapshots: &mut watch::Receiver<Option<Arc<Snapshot>>>) -> Option<Arc<MeshSettings>> {
    snapshots.wait_for(Option::is_some).await.ok().and_then(|first| first.as_ref().map(|s| s.settings().clone()))
}

fn access_log(to: &AccessLogTo) -> anyhow::Result<AccessLogSink> {
    let out: Box<dyn std::io::Write + Send> = match to {
        AccessLogTo::Stdout => Box::new(std::io::stdout()),
        AccessLogTo::File(path) => {
            let file = fs::OpenOptions::new().create(true).append(true).open(path);
            Box::new(file.with_context(|| format!("--access-log {}", path.display()))?)
        }
    };
    Ok(AccessLogSink::start(out)?)
}

/// What `/debug/config` shows; keys never.
fn debug_config(
    view: ConfigView,
    svids: Arc<Svids>,
    pool: Pool,
    phases: watch::Receiver<Phases>,
    shared: Arc<Shared>,
) -> impl Fn() -> String + Send + Sync {
    move || {
        let phases = phases.borrow().clone();
        let pods: BTreeMap<_, _> = phases.iter().map(|(pod, shown)| (pod, format!("{:?}", shown.phase))).collect();
        let connections: BTreeMap<_, _> =
            phases.iter().filter(|(_, s)| s.connections > 0).map(|(pod, s)| (pod, s.connections)).collect();
        let identities: Vec<_> = svids
            .held()
            .into_iter()
            .map(|(identity, end)| {
                let end = end.and_then(|e| e.duration_since(std::time::UNIX_EPOCH).ok()).map(|d| d.as_secs());
                serde_json::json!({ "identity": identity.to_string(), "notAfter": end })
            })
            .collect();
        let drain = shared.settings().map(|s| u64::try_from(s.limits.drain.as_millis()).unwrap_or(u64::MAX));
        let shown = serde_json::json!({
            "config": view.to_json(),
            "pods": pods,
            "connections": connections,
            "identities": identities,
            "peerConnections": pool.connections(),
            "drainMillis": drain,
        });
        format!("{shown:#}\n")
    }
}
