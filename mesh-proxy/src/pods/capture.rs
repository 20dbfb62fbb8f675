//! Capturing a pod and letting it go: rules, listeners, certificate, in the order that is safe at every moment. It must not decide who is captured.

use super::listeners::Listeners;
use crate::{inbound, listen, local::Local, outbound, shared::Shared, telemetry::Direction};
use mesh_core::{
    capture,
    decide::{HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT},
    fault::Fault,
    mesh::Workload,
};
use mesh_sys::{Netns, NetnsId, tool, tool::ToolError};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Handle,
    sync::OwnedSemaphorePermit,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The listeners of a pod.
pub const PORTS: [u16; 3] = [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT];

/// Wait for a pod's first certificate before it may start: less than the CNI plugin waits, so that the answer names the reason.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(8);

/// A released pod still takes what was captured and answers mTLS for this long: for what is under way, and for peers who have not heard yet.
const RELEASE_GRACE: Duration = Duration::from_secs(3);

/// Time in which a cancelled accept loop has closed its listener.
const PORTS_FREE: Duration = Duration::from_millis(20);

/// How long the tasks of a pod that is gone may take to notice.
const CUT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a pod could not be captured or let go.
#[derive(Debug, thiserror::Error)]
pub enum CaptureFault {
    /// The rules could not be set or removed.
    #[error("rules")]
    Rules(#[source] ToolError),
    /// A listener could not be opened.
    #[error("listener on port {0}")]
    Listen(u16, #[source] io::Error),
    /// No certificate came in time.
    #[error("no certificate for {identity} within {} s", CERTIFICATE_PATIENCE.as_secs())]
    Certificate {
        /// Whose.
        identity: mesh_core::identity::Identity,
    },
    /// The config does not name the pod, so nobody knows who it is.
    #[error("the config does not name the pod (yet)")]
    Unknown,
    /// A task ended in a panic, which is logged where it happened.
    #[error("a task of the proxy failed")]
    Task,
}

/// A pod whose traffic is being served. Dropping it changes nothing; see [`Serving::release`] and [`Serving::cut`].
pub struct Serving {
    local: Arc<Local>,
    /// Says to captured connections that the pod or the proxy leaves: HTTP clients are told to come again.
    leave: CancellationToken,
    /// Says so to mTLS connections.
    leave_mesh: CancellationToken,
    /// Stops taking captured connections.
    deaf: CancellationToken,
    /// Stops taking mTLS connections.
    deaf_mesh: CancellationToken,
    /// Who keeps the sockets open, and for which namespace.
    listeners: Arc<Listeners>,
    netns: NetnsId,
    /// The accept loops.
    loops: TaskTracker,
    living: Living,
}

/// The connections of one sandbox, whichever of its servings took them: those of before a release may outlive the next capture.
#[derive(Clone, Debug, Default)]
pub struct Living {
    carried: TaskTracker,
    /// Ends everything at once.
    cut: CancellationToken,
}

impl Living {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.carried.len()
    }
}

/// Applies the rules in a namespace. From here on the pod's traffic goes to the listeners or nowhere.
pub async fn close(netns: Arc<Netns>) -> Result<(), CaptureFault> {
    blocking(move || {
        // Each starts a process of its own; a pod waits for all of them, so they run at once.
        std::thread::scope(|scope| {
            let families = families(&netns)?;
            let netns = &netns;
            let routes: Vec<_> = families
                .iter()
                .map(|family| scope.spawn(move || tool::apply_ip(netns, family, &capture::reply_routes())))
                .collect();
            apply_rules(netns)?;
            // A panic of such a thread is one of ours: it goes on here.
            routes.into_iter().try_for_each(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    })
    .await
}

/// A kernel may lack the expression that tells whether anybody listens; all that matters for safety is in both rulesets.
fn apply_rules(netns: &Netns) -> Result<(), ToolError> {
    static LACKS_SOCKET: AtomicBool = AtomicBool::new(false);
    if LACKS_SOCKET.load(Ordering::Relaxed) {
        return tool::apply_nft(netns, &capture::ruleset_without_sockets());
    }
    let refused = match tool::apply_nft(netns, &capture::ruleset()) {
        Err(refused @ ToolError::Refused { .. }) => refused,
        done => return done,
    };
    tool::apply_nft(netns, &capture::ruleset_without_sockets())?;
    if !LACKS_SOCKET.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            fault = crate::fault::chain(&refused),
            "this kernel cannot tell whether a port is served (module nft_socket): tcpSocket probes of meshed pods always succeed"
        );
    }
    Ok(())
}

/// Removes every trace of capture from a namespace.
pub async fn open(netns: Arc<Netns>) -> Result<(), CaptureFault> {
    blocking(move || {
        tool::apply_nft(&netns, &capture::release())?;
        families(&netns)?.iter().try_for_each(|family| tool::remove_ip(&netns, family, &capture::release_routes()))
    })
    .await
}

/// Captures nothing new, but lets what is carried go on.
pub async fn drain(netns: Arc<Netns>) -> Result<(), CaptureFault> {
    blocking(move || tool::apply_nft(&netns, &capture::draining())).await
}

/// Asks for the workload's certificate, which comes while other things are done.
pub fn want_certificate(workload: &Workload, shared: &Shared) {
    shared.trust.svids().ensure(&workload.identity);
}

/// Waits until the workload can prove who it is, so that its first connection works.
pub async fn certify(workload: &Workload, shared: &Shared) -> Result<(), CaptureFault> {
    let svids = shared.trust.svids();
    svids.ensure(&workload.identity);
    match timeout(CERTIFICATE_PATIENCE, svids.obtained(&workload.identity)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(CaptureFault::Certificate { identity: workload.identity.clone() }),
    }
}

/// Takes or opens the three listeners in the pod's namespace and serves them on the data runtime.
pub fn serve(
    workload: Arc<Workload>,
    netns: Arc<Netns>,
    shared: &Arc<Shared>,
    listeners: &Arc<Listeners>,
    data: &Handle,
    living: Living,
) -> Result<Serving, CaptureFault> {
    living.carried.reopen();
    let connections = shared
        .settings()
        .map_or_else(|| mesh_core::mesh::Limits::default().connections_per_pod, |s| s.limits.connections_per_pod);
    let serving = Serving {
        listeners: listeners.clone(),
        netns: netns.id(),
        local: Local::new(workload, Some(netns), connections),
        leave: CancellationToken::new(),
        leave_mesh: CancellationToken::new(),
        deaf: CancellationToken::new(),
        deaf_mesh: CancellationToken::new(),
        loops: TaskTracker::new(),
        living,
    };
    // All or none: those before one that fails are closed again.
    let _data = data.enter();
    let mut open = Vec::new();
    for port in PORTS {
        let opened = listeners.open(&serving.local, serving.netns, port).and_then(TcpListener::from_std);
        open.push((port, opened.map_err(|e| CaptureFault::Listen(port, e)).inspect_err(|_| serving.close(&PORTS))?));
    }
    let (captured, mesh) = ((&serving.deaf, &serving.leave), (&serving.deaf_mesh, &serving.leave_mesh));
    for (port, listener) in open {
        match port {
            OUTBOUND_PORT => serving.accept(listener, captured, Direction::Outbound, shared, outbound::captured),
            INBOUND_PORT => serving.accept(listener, captured, Direction::Inbound, shared, inbound::plaintext),
            _ => serving.accept(listener, mesh, Direction::Inbound, shared, inbound::mesh),
        }
    }
    Ok(serving)
}

impl Serving {
    /// The workload that is served.
    pub fn local(&self) -> &Arc<Local> {
        &self.local
    }

    fn accept<F, Fut>(
        &self,
        listener: TcpListener,
        (deaf, leave): (&CancellationToken, &CancellationToken),
        direction: Direction,
        shared: &Arc<Shared>,
        each: F,
    ) where
        F: Fn(TcpStream, SocketAddr, Arc<Local>, Arc<Shared>, CancellationToken, OwnedSemaphorePermit) -> Fut
            + Send
            + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let stop = leave.clone();
        let (local, shared, living) = (self.local.clone(), shared.clone(), self.living.clone());
        let full = {
            let (local, shared) = (local.clone(), shared.clone());
            move |peer, fault| refuse_full(&local, &shared, direction, peer, fault)
        };
        let serve = {
            let (local, stop) = (local.clone(), stop.clone());
            move |stream, peer, permit| {
                let work = each(stream, peer, local.clone(), shared.clone(), stop.clone(), permit);
                let cut = living.cut.clone();
                living.carried.track_future(async move {
                    tokio::select! {
                        () = work => {}
                        () = cut.cancelled() => {}
                    }
                })
            }
        };
        self.loops.spawn(listen::accept(listener, local, deaf.clone(), full, serve));
    }

    /// Lets the pod go: nothing new is captured; what lives goes on until it ends (or the proxy does), then the rules are removed
    /// altogether. Cancelled by `again`, when the pod is captured anew; cut by `gone`, when there is no pod any more.
    pub async fn release(self, netns: Arc<Netns>, again: CancellationToken, gone: CancellationToken) {
        let leave = || {
            let all = [&self.deaf, &self.deaf_mesh, &self.leave, &self.leave_mesh];
            all.into_iter().for_each(CancellationToken::cancel);
        };
        let rest = async {
            // What was captured just before the rules changed may still wait to be accepted.
            tokio::time::sleep(RELEASE_GRACE).await;
            self.close(&PORTS);
            leave();
            self.ended().await;
        };
        tokio::select! {
            () = rest => {}
            () = again.cancelled() => {
                // The new capture accepts by itself; what lives goes on until it ends.
                leave();
                tokio::time::sleep(PORTS_FREE).await;
                return;
            }
            () = gone.cancelled() => return self.cut().await,
        }
        // Not to be cancelled half way: whoever captures anew waits for the end of this.
        if let Err(fault) = open(netns).await {
            tracing::warn!(fault = crate::fault::chain(&fault), "rules of a released pod stay (they capture nothing)");
        }
    }

    /// The sockets of these ports are nobody's any more.
    fn close(&self, ports: &[u16]) {
        self.listeners.close(self.netns, ports);
    }

    /// Says to all living connections that the proxy goes away; one that comes now is served, and told so as soon as its protocol allows.
    pub fn leave(&self) {
        self.leave.cancel();
        self.leave_mesh.cancel();
    }

    /// Takes no more connections. The sockets stay with their keeper, for the next proxy.
    pub fn deafen(&self) {
        self.deaf.cancel();
        self.deaf_mesh.cancel();
    }

    /// Whether no connection lives.
    pub fn is_idle(&self) -> bool {
        self.living.carried.is_empty()
    }

    /// Waits until no more connections are taken and all living ones have ended.
    pub async fn ended(&self) {
        self.loops.close();
        self.loops.wait().await;
        self.living.carried.close();
        self.living.carried.wait().await;
    }

    /// Ends everything at once: the pod is gone. Returns when the sockets are closed, so that peers hear of it while the interface is there.
    pub async fn cut(&self) {
        self.close(&PORTS);
        self.end().await;
    }

    /// Ends everything that is carried at once: the proxy ends.
    pub async fn end(&self) {
        self.leave();
        self.deafen();
        self.living.cut.cancel();
        let _ = timeout(CUT_PATIENCE, self.ended()).await;
    }
}

/// A connection over the pod's bound leaves its line like any other that is refused.
fn refuse_full(local: &Local, shared: &Shared, direction: Direction, peer: SocketAddr, fault: Fault) {
    let Some(settings) = shared.settings() else { return };
    let mut record = shared.telemetry.connection(direction, &settings);
    let workload = Some(local.workload());
    match direction {
        Direction::Inbound => record.record.destination.workload = workload,
        _ => record.record.source.workload = workload,
    }
    record.record.source.address = Some(peer);
    record.record.fail(fault, "the pod has limits.connectionsPerPod open connections");
}

/// Address families that need policy routes.
fn families(netns: &Netns) -> Result<&'static [&'static str], ToolError> {
    Ok(if tool::has_ipv6(netns)? { &["-4", "-6"] } else { &["-4"] })
}

async fn blocking(work: impl FnOnce() -> Result<(), ToolError> + Send + 'static) -> Result<(), CaptureFault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(CaptureFault::Rules),
        Err(_) => Err(CaptureFault::Task),
    }
}
