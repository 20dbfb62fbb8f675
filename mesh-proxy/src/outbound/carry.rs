//! Carrying a stream to an endpoint: dial one, another if it cannot be reached, then copy. It must not choose the Service.

use crate::{
    fault,
    local::Local,
    shared::Shared,
    tcp::{self, Carried, Side},
    telemetry::{Attempted, Connection},
    tunnel::{DialFault, Reached, TunnelStream},
};
use mesh_core::{
    balance::{EndpointSet, Target},
    decide::{self, Transport},
    fault::Fault,
    identity::Identity,
    mesh::{Limits, Workload},
    name::ServiceId,
    retry::{self, Anew, Outcome, REACHES},
    snapshot::Snapshot,
};
use smallvec::SmallVec;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpStream, time::Instant};

/// A port of a Service that a stream goes to.
pub struct Backend {
    /// The Service.
    pub service: ServiceId,
    /// Its port.
    pub port: u16,
    /// Its endpoints, one of which is dialled.
    pub endpoints: Arc<EndpointSet>,
}

impl Backend {
    /// By the config; none: it knows no such port.
    pub fn find(snapshot: &Snapshot, service: &ServiceId, port: u16) -> Option<Self> {
        let endpoints = snapshot.endpoints(service, port)?.clone();
        Some(Self { service: service.clone(), port, endpoints })
    }
}

/// Carries a stream to one endpoint of a Service port, another one if the first cannot be reached, until both sides are done;
/// then tells `record`. Cancelling it resets both sides.
pub async fn carry(
    mut io: impl Side + Send,
    Backend { service, port, endpoints }: Backend,
    local: &Arc<Local>,
    shared: &Arc<Shared>,
    mut record: Connection,
) {
    let Some(settings) = shared.settings() else { return io.reset() };
    let named = (service, port);
    let mut tried: SmallVec<[SocketAddr; 4]> = SmallVec::new();
    let mut last = DialFault::from(Fault::NoEndpoint);
    while record.record.attempts < REACHES {
        let now = std::time::Instant::now();
        let Some(target) = endpoints.pick(rand::random(), now, &tried) else { break };
        if tried.contains(&target.address) {
            // Nobody else is left.
            break;
        }
        tried.push(target.address);
        record.record.attempts += 1;
        let transport = decide::transport(target.workload.as_deref());
        note(&mut record, target.address, target.workload.as_ref());
        let load = target.load.start(now);
        let dialled = dial(local, target, transport, shared, &settings.limits).await;
        load.done(std::time::Instant::now(), dialled.is_err());
        shared.telemetry.attempt(Attempted {
            service: Some(&named),
            retry: record.record.attempts - 1,
            fault: dialled.as_ref().err().map(|f| f.fault),
            budgeted: false,
        });
        match dialled {
            Ok((mut upstream, peer)) => {
                record.record.service = Some(named);
                met(&mut record, peer);
                // The stream may live for days, and its Service have other endpoints by then.
                drop(endpoints);
                return finish(&mut io, &mut upstream, settings.limits.idle, &mut record).await;
            }
            Err(fault) => {
                tracing::debug!(endpoint = %target.address, fault = fault.fault.label(), detail = fault.detail(), "endpoint not reached");
                last = fault;
                if retry::may_begin_anew(None, Outcome::Failed(last.fault)) == Some(Anew::OtherWorkload) {
                    tried.extend(target.everywhere());
                }
            }
        }
        // Without a certificate of our own no other endpoint is any better.
        if last.fault == Fault::NoIdentity {
            break;
        }
    }
    record.record.service = Some(named);
    refuse(&mut io, &mut record, &last);
}

/// Carries a stream to one address.
pub(super) async fn to_address(
    mut io: impl Side + Send,
    address: SocketAddr,
    transport: Transport,
    workload: Option<Arc<Workload>>,
    local: &Arc<Local>,
    shared: &Arc<Shared>,
    mut record: Connection,
) {
    let Some(settings) = shared.settings() else { return io.reset() };
    note(&mut record, address, workload.as_ref());
    record.record.attempts = 1;
    let target = Target { address, workload, zone: "".into(), load: Arc::default() };
    match dial(local, &target, transport, shared, &settings.limits).await {
        Ok((mut upstream, peer)) => {
            met(&mut record, peer);
            finish(&mut io, &mut upstream, settings.limits.idle, &mut record).await;
        }
        Err(fault) => refuse(&mut io, &mut record, &fault),
    }
}

/// The way to an endpoint.
enum Upstream {
    Tunnel(TunnelStream),
    Plain(TcpStream),
}

async fn dial(
    local: &Arc<Local>,
    target: &Target,
    transport: Transport,
    shared: &Shared,
    limits: &Limits,
) -> Result<(Upstream, Option<Identity>), DialFault> {
    match shared.pool.tunnel(local, target, transport).await? {
        Reached::Plain => {
            let stream = local.connect(target.address, Instant::now() + limits.handshake).await?;
            Ok((Upstream::Plain(stream), None))
        }
        Reached::Tunnel(tunnel, peer) => Ok((Upstream::Tunnel(tunnel), Some(peer))),
    }
}

async fn finish(io: &mut impl Side, upstream: &mut Upstream, idle: Duration, record: &mut Connection) {
    let carried: Carried = match upstream {
        Upstream::Tunnel(tunnel) => tcp::carry(io, tunnel, idle).await,
        Upstream::Plain(stream) => tcp::carry(io, stream, idle).await,
    };
    fault::finish(&mut record.record, carried);
}

fn refuse(io: &mut impl Side, record: &mut Connection, fault: &DialFault) {
    record.record.fail(fault.fault, fault.detail());
    fault::log(&record.record, fault);
    io.reset();
}

/// Who is being reached.
fn note(record: &mut Connection, address: SocketAddr, workload: Option<&Arc<Workload>>) {
    record.record.destination.address = Some(address);
    record.record.destination.workload = workload.cloned();
}

/// Who was; none: nobody has proven anything.
fn met(record: &mut Connection, peer: Option<Identity>) {
    record.record.tls = peer.as_ref().map(|_| "TLSv1.3");
    record.record.destination.identity = peer;
}
