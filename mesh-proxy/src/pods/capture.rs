//! Capturing a pod and letting it go: rules, listeners, certificate, in the order that is safe at every moment. It must not decide who is captured.

use crate::{inbound, listen, local::Local, outbound, shared::Shared, telemetry::Direction};
use mesh_core::{
    capture,
    decide::{HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT},
    fault::Fault,
    mesh::Workload,
};
use mesh_sys::{Netns, tool, tool::ToolError};
use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, runtime::Handle, sync::OwnedSemaphorePermit, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Wait for a pod's first certificate before it may start: less than the CNI plugin waits, so that the answer names the reason.
const CERTIFICATE_PATIENCE: Duration = Duration::from_secs(8);

/// A released pod still answers mTLS for this long, because peers learn a moment later that they may speak plaintext.
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
    /// Stops taking captured connections; living ones get the drain time.
    leave: CancellationToken,
    /// Stops taking mTLS connections likewise; a little later.
    leave_mesh: CancellationToken,
    /// Ends everything at once.
    cut: CancellationToken,
    tasks: TaskTracker,
}

/// Applies the rules in a namespace. From here on the pod's traffic goes to the listeners or nowhere.
pub async fn close(netns: Arc<Netns>) -> Result<(), CaptureFault> {
    blocking(move || {
        tool::apply_nft(&netns, &capture::ruleset())?;
        families(&netns)?.iter().try_for_each(|family| tool::apply_ip(&netns, family, &capture::reply_routes()))
    })
    .await
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

/// Waits until the workload can prove who it is, so that its first connection works.
pub async fn certify(workload: &Workload, shared: &Shared) -> Result<(), CaptureFault> {
    let svids = shared.trust.svids();
    svids.ensure(&workload.identity);
    match timeout(CERTIFICATE_PATIENCE, svids.obtained(&workload.identity)).await {
        Ok(_) => Ok(()),
        Err(_) => Err(CaptureFault::Certificate { identity: workload.identity.clone() }),
    }
}

/// Opens the three listeners in the pod's namespace and serves them on the data runtime.
pub fn serve(
    workload: Arc<Workload>,
    netns: Arc<Netns>,
    shared: &Arc<Shared>,
    data: &Handle,
) -> Result<Serving, CaptureFault> {
    let connections = shared
        .settings()
        .map_or_else(|| mesh_core::mesh::Limits::default().connections_per_pod, |s| s.limits.connections_per_pod);
    let serving = Serving {
        local: Local::new(workload, Some(netns), connections),
        leave: CancellationToken::new(),
        leave_mesh: CancellationToken::new(),
        cut: CancellationToken::new(),
        tasks: TaskTracker::new(),
    };
    // All or none: what is opened here is dropped, and so closed, if a later one fails.
    let _data = data.enter();
    let mut listeners = Vec::new();
    for port in [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT] {
        listeners.push((port, serving.local.listen(port).map_err(|e| CaptureFault::Listen(port, e))?));
    }
    for (port, listener) in listeners {
        match port {
            OUTBOUND_PORT => serving.accept(listener, &serving.leave, Direction::Outbound, shared, outbound::captured),
            INBOUND_PORT => serving.accept(listener, &serving.leave, Direction::Inbound, shared, inbound::plaintext),
            _ => serving.accept(listener, &serving.leave_mesh, Direction::Inbound, shared, inbound::mesh),
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
        listener: tokio::net::TcpListener,
        leave: &CancellationToken,
        direction: Direction,
        shared: &Arc<Shared>,
        each: F,
    ) where
        F: Fn(TcpStream, SocketAddr, Arc<Local>, Arc<Shared>, CancellationToken, OwnedSemaphorePermit) -> Fut
            + Send
            + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        // The proxy's own drain is everybody's.
        let stop = leave.clone();
        let (local, shared, cut, tasks) = (self.local.clone(), shared.clone(), self.cut.clone(), self.tasks.clone());
        let full = {
            let (local, shared) = (local.clone(), shared.clone());
            move |peer, fault| refuse_full(&local, &shared, direction, peer, fault)
        };
        let serve = {
            let (local, stop) = (local.clone(), stop.clone());
            move |stream, peer, permit| {
                let work = each(stream, peer, local.clone(), shared.clone(), stop.clone(), permit);
                let cut = cut.clone();
                tasks.track_future(async move {
                    tokio::select! {
                        () = work => {}
                        () = cut.cancelled() => {}
                    }
                })
            }
        };
        self.tasks.spawn(listen::accept(listener, local, stop, full, serve));
    }

    /// Lets the pod go: nothing new is captured; what lives gets `drain`, then the rules are removed altogether. Cancelled by `again`, when
    /// the pod is captured anew.
    pub async fn release(self, netns: Arc<Netns>, longest: Duration, again: CancellationToken) {
        self.leave.cancel();
        let rest = async {
            tokio::time::sleep(RELEASE_GRACE).await;
            self.leave_mesh.cancel();
            self.tasks.close();
            // The tasks bound themselves by the drain time; this bound is for defects.
            let _ = timeout(longest + CUT_PATIENCE, self.tasks.wait()).await;
        };
        tokio::select! {
            () = rest => {}
            () = again.cancelled() => {
                // The new capture opens listeners of its own; what lives goes on until it ends.
                self.leave_mesh.cancel();
                tokio::time::sleep(PORTS_FREE).await;
                return;
            }
        }
        self.cut.cancel();
        // Not to be cancelled half way: whoever captures anew waits for the end of this.
        if let Err(fault) = open(netns).await {
            tracing::warn!(fault = crate::fault::chain(&fault), "rules of a released pod stay (they capture nothing)");
        }
    }

    /// Says to all living connections that the proxy goes away.
    pub fn leave(&self) {
        self.leave.cancel();
        self.leave_mesh.cancel();
        self.tasks.close();
    }

    /// Waits until all living connections have ended.
    pub async fn ended(&self) {
        self.tasks.wait().await;
    }

    /// Ends everything at once: the pod is gone. Returns when the sockets are closed, so that peers hear of it while the interface is there.
    pub async fn cut(&self) {
        self.leave();
        self.cut.cancel();
        let _ = timeout(CUT_PATIENCE, self.tasks.wait()).await;
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
