//! Outbound: what a workload opens; its destination decided, an endpoint dialled, bytes carried. It must not decide where to.

mod carry;
mod hello;

pub use carry::{Backend, carry};
pub(crate) use hello::server_name;

use crate::{
    ahead::Ahead,
    fault,
    local::Local,
    shared::Shared,
    telemetry::{Connection, Direction},
    tunnel::DialFault,
};
use carry::to_address;
use mesh_core::{
    decide::{self, OUTBOUND_PORT, Outbound},
    fault::Fault,
    mesh::{BackendTarget, Limits},
    route::StreamTable,
    snapshot::Snapshot,
};
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Serves one captured connection of the workload. `stop`: the workload leaves; HTTP clients are told to come again, bytes go on until the
/// proxy drains.
pub async fn captured(
    stream: TcpStream,
    peer: SocketAddr,
    local: Arc<Local>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    permit: OwnedSemaphorePermit,
) {
    let destination = fault::original(&stream, OUTBOUND_PORT);
    let client = local.workload();
    // The connection may live for days: it lets go of the config as soon as that has answered.
    let decided = |s: Arc<Snapshot>| (s.settings().clone(), decide::outbound(&s, &client, destination));
    let Some((settings, decision)) = shared.snapshot().map(decided) else { return fault::reset(&stream) };
    if let Outbound::Http(frontend) = decision {
        // Requests leave records of their own.
        crate::http::serve_frontend(stream, frontend, local, shared, (peer, destination), stop).await;
        return drop(permit);
    }
    let mut record = shared.telemetry.connection(Direction::Outbound, &settings);
    record.record.source.address = Some(peer);
    record.record.source.identity = Some(client.identity.clone());
    record.record.source.workload = Some(client);
    record.record.destination.address = Some(destination);
    // On the heap, so that requests' connections do not carry its room about.
    let bytes = Box::pin(opaque(stream, decision, &settings.limits, &local, &shared, record));
    // The record ends with the future, cut or not.
    fault::until_drained(bytes, &shared.drain, settings.limits.drain).await;
    drop(permit);
}

/// Carries bytes as decided.
async fn opaque(
    stream: TcpStream,
    decision: Outbound,
    limits: &Limits,
    local: &Arc<Local>,
    shared: &Arc<Shared>,
    mut record: Connection,
) {
    match decision {
        Outbound::Service { service, port, endpoints } => {
            let backend = Backend { service: service.id.clone(), port, endpoints };
            drop(service);
            carry(stream, backend, local, shared, record).await;
        }
        Outbound::Streams { service, port, table } => {
            record.record.service = Some((service.id.clone(), port));
            drop(service);
            streams(stream, table, limits, local, shared, record).await;
        }
        Outbound::Address { address, transport, workload } => {
            to_address(stream, address, transport, workload, local, shared, record).await;
        }
        Outbound::Refuse(fault) => {
            let fault = DialFault::from(fault);
            record.record.fail(fault.fault, "");
            fault::log(&record.record, &fault);
            fault::reset(&stream);
        }
        // Handled by the caller, which has no record of its own for it.
        Outbound::Http(_) => {}
    }
}

/// Carries bytes by stream routes.
async fn streams(
    mut stream: TcpStream,
    table: Arc<StreamTable>,
    limits: &Limits,
    local: &Arc<Local>,
    shared: &Arc<Shared>,
    mut record: Connection,
) {
    let (read, name) = if table.wants_server_name() {
        hello::server_name(&mut stream, patience(&table, limits)).await
    } else {
        Default::default()
    };
    let chosen = table.find(name.as_deref()).ok_or(Fault::NoRoute).and_then(|compiled| {
        record.record.route = Some(compiled.route.id.clone());
        let backend = compiled.split.next().and_then(|n| compiled.route.backends.get(n)).ok_or(Fault::BrokenBackend)?;
        match &backend.1 {
            BackendTarget::Broken => Err(Fault::BrokenBackend),
            BackendTarget::Service { service, port } => {
                shared.snapshot().and_then(|s| Backend::find(&s, service, *port)).ok_or(Fault::NoEndpoint)
            }
        }
    });
    drop(table);
    match chosen {
        Ok(backend) => carry(Ahead::new(stream, read), backend, local, shared, record).await,
        Err(refused) => {
            let fault = DialFault::from(refused);
            let name = name.map(|n| format!("server name {n}")).unwrap_or_default();
            record.record.fail(refused, name);
            fault::log(&record.record, &fault);
            fault::reset(&stream);
        }
    }
}

/// How long a client may take to say its server name. Where bytes without one have a route too, the client may be waiting for the server
/// to speak first, so it is not kept long.
fn patience(table: &StreamTable, limits: &Limits) -> std::time::Duration {
    match table.find(None) {
        Some(_) => hello::GREETING,
        None => limits.handshake,
    }
}
