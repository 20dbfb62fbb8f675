//! The workload's :15006: plaintext that was captured on its way in; taken, held to a kubelet's probe, or refused. It must not decide which.

use super::probe;
use crate::{fault, local::Local, shared::Shared, tcp, telemetry::Direction, tunnel::DialFault};
use mesh_core::{
    decide::{self, INBOUND_PORT, Plaintext},
    fault::Fault,
    mesh::Limits,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

/// Serves one captured connection. It outlives the pod's release, and ends with the proxy's drain.
pub async fn plaintext(
    mut stream: TcpStream,
    peer: SocketAddr,
    local: Arc<Local>,
    shared: Arc<Shared>,
    _stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) {
    let Some(settings) = shared.settings() else { return fault::reset(&stream) };
    let wanted = fault::original(&stream, INBOUND_PORT);
    let workload = local.workload();
    let mut record = shared.telemetry.connection(Direction::Inbound, &settings);
    record.record.source.address = Some(peer);
    record.record.source.workload = shared.snapshot().and_then(|s| s.workload_at(peer.ip()).cloned());
    record.record.destination.address = Some(wanted);
    record.record.destination.identity = Some(workload.identity.clone());
    record.record.destination.workload = Some(workload.clone());
    let hosts = shared.host_addresses.borrow().clone();
    let opened = match decide::admit_plaintext(&workload, peer.ip(), &hosts, wanted) {
        Ok(Plaintext::Probe(allowed)) => {
            let probed = probe(stream, peer, allowed, &local, &settings.limits);
            record.record.attempts = 1;
            match fault::until_drained(Box::pin(probed), &shared.drain, settings.limits.drain).await {
                Some(Ok(())) => {}
                Some(Err(fault)) => {
                    record.record.fail(
                        fault.fault,
                        format_args!("not a probe of the kubelet's, or not answered: {}", fault.detail()),
                    );
                    fault::log(&record.record, &fault);
                }
                None => record.record.fail(Fault::Draining, "still open at the end of the drain time"),
            }
            return drop(permit);
        }
        Ok(Plaintext::Carry(allowed)) => open(&local, peer, allowed.destination(), &settings.limits).await,
        Err(refused) => Err(refused.into()),
    };
    let mut application = match opened {
        Ok(application) => application,
        Err(fault) => {
            record.record.fail(fault.fault, fault.detail());
            fault::log(&record.record, &fault);
            return fault::reset(&stream);
        }
    };
    record.record.attempts = 1;
    let carried = fault::until_drained(
        tcp::carry(&mut stream, &mut application, settings.limits.idle),
        &shared.drain,
        settings.limits.drain,
    );
    fault::finish_or_cut(&mut record.record, carried.await);
    drop(permit);
}

async fn open(local: &Local, peer: SocketAddr, to: SocketAddr, limits: &Limits) -> Result<TcpStream, DialFault> {
    local.connect_as(peer.ip(), to, Instant::now() + limits.handshake).await
}
