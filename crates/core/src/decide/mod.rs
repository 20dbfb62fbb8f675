//! Decide: what to do with a connection. Pure, total: refusing is a decision. It must not do it.

use crate::{
    balance::EndpointSet,
    fault::Fault,
    identity::Identity,
    mesh::{AppProtocol, Service, Workload},
    route::{RouteTable, StreamTable},
    snapshot::Snapshot,
};
use std::{net::SocketAddr, sync::Arc};

/// Port of outbound capture in every meshed pod.
pub const OUTBOUND_PORT: u16 = 15001;
/// Port of inbound capture (plaintext) in every meshed pod.
pub const INBOUND_PORT: u16 = 15006;
/// Port of HBONE and native mTLS in every meshed pod.
pub const HBONE_PORT: u16 = 15008;

/// What to do with a captured outbound connection.
#[derive(Debug)]
pub enum Outbound {
    /// Parse HTTP; requests follow the table, or go to the Service itself if there is none.
    Http(HttpFrontend),
    /// Carry bytes by stream routes; read the server name first if the table wants it.
    Streams { service: Arc<Service>, port: u16, table: Arc<StreamTable> },
    /// Carry bytes to one endpoint of a Service port.
    Service { service: Arc<Service>, port: u16, endpoints: Arc<EndpointSet> },
    /// Carry bytes to the very address that was dialled.
    Address { address: SocketAddr, transport: Transport, workload: Option<Arc<Workload>> },
    /// Close (reset) and say why.
    Refuse(Fault),
}

/// A Service port whose traffic is HTTP.
#[derive(Debug)]
pub struct HttpFrontend {
    /// The Service.
    pub service: Arc<Service>,
    /// Its port.
    pub port: u16,
    /// What the port says it speaks.
    pub protocol: AppProtocol,
    /// Routes that govern this client; none: straight to the Service.
    pub routes: Option<Arc<RouteTable>>,
}

/// How bytes travel to an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// As they are: the endpoint is not in the mesh.
    Plaintext,
    /// mTLS to the endpoint's :15008; the peer must be this identity.
    Mesh { peer: Identity },
}

/// How to reach a workload; none: something the mesh does not know. Fails closed: a meshed workload is never reached in plaintext.
pub fn transport(workload: Option<&Workload>) -> Transport {
    match workload {
        Some(w) if w.enrolment.is_meshed() => Transport::Mesh { peer: w.identity.clone() },
        _ => Transport::Plaintext,
    }
}

/// What to do with a connection that `client` opened to `destination`.
pub fn outbound(_snapshot: &Snapshot, _client: &Workload, _destination: SocketAddr) -> Outbound {
    todo!("core")
}

/// Proof that bytes may be delivered to a workload's application. Only [`admit`] and [`admit_plaintext`] make one.
#[derive(Clone, Debug)]
pub struct Permit {
    destination: SocketAddr,
    peer: Option<Identity>,
}

impl Permit {
    /// Where to deliver.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The verified peer; none: plaintext that the mode allows.
    pub fn peer(&self) -> Option<&Identity> {
        self.peer.as_ref()
    }
}

/// Admits a verified peer's tunnel or request to `wanted`, which arrived on `local` (the connection's own address) of `workload`.
/// The address must be the workload's own: "dst IP must equal the connection's own local IP". The mesh's own ports are refused.
pub fn admit(_workload: &Workload, _local: SocketAddr, _peer: &Identity, _wanted: SocketAddr) -> Result<Permit, Fault> {
    todo!("core")
}

/// Admits a plaintext connection that was captured on its way to `wanted`, by the workload's mode.
pub fn admit_plaintext(_workload: &Workload, _wanted: SocketAddr) -> Result<Permit, Fault> {
    todo!("core")
}
