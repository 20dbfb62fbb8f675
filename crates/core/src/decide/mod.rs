//! Decide: what to do with a connection. Pure, total: refusing is a decision. It must not do it.

mod probe;

pub use probe::{HEALTH_CHECK, ProbePermit, health_check_max};

use crate::{
    balance::EndpointSet,
    fault::Fault,
    identity::Identity,
    mesh::{AppProtocol, Enrolment, Mode, Service, Workload},
    route::{RouteTable, StreamTable},
    snapshot::Snapshot,
};
use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

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
    Streams {
        /// The Service that was dialled.
        service: Arc<Service>,
        /// Its port.
        port: u16,
        /// Routes that govern this client.
        table: Arc<StreamTable>,
    },
    /// Carry bytes to one endpoint of a Service port.
    Service {
        /// The Service that was dialled.
        service: Arc<Service>,
        /// Its port.
        port: u16,
        /// Where to.
        endpoints: Arc<EndpointSet>,
    },
    /// Carry bytes to the very address that was dialled.
    Address {
        /// What was dialled.
        address: SocketAddr,
        /// How bytes travel there.
        transport: Transport,
        /// The pod there, if the mesh knows it.
        workload: Option<Arc<Workload>>,
    },
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
    Mesh {
        /// Who must answer.
        peer: Identity,
    },
    /// mTLS, or as they are where nobody answers at :15008: the endpoint is on its way into the mesh, and took plaintext a moment ago.
    Joining {
        /// Who must answer, if anybody does.
        peer: Identity,
    },
}

/// How to reach a workload; none: something the mesh does not know. Fails closed: a workload that may refuse plaintext never gets any.
pub fn transport(workload: Option<&Workload>) -> Transport {
    let Some(w) = workload else { return Transport::Plaintext };
    match w.enrolment {
        Enrolment::Meshed(_) => Transport::Mesh { peer: w.identity.clone() },
        Enrolment::Joining => Transport::Joining { peer: w.identity.clone() },
        Enrolment::Leaving | Enrolment::None => Transport::Plaintext,
    }
}

/// Whether a failed dial of a workload that is on its way into the mesh means that it is not there yet. Somebody else's certificate does not.
pub const fn is_not_there_yet(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::ConnectFailed
            | Fault::ConnectTimeout
            | Fault::UpstreamReset
            | Fault::UpstreamProtocol
            // Ours: we are on the way in, too.
            | Fault::NoIdentity
    )
}

/// Whether a port of a meshed pod is the mesh's own.
pub const fn is_mesh_port(port: u16) -> bool {
    matches!(port, OUTBOUND_PORT | INBOUND_PORT | HBONE_PORT)
}

/// What to do with a connection that `client` opened to `destination`.
///
/// Routes apply to Service frontends only (GEP-1294: traffic to a pod address "MUST NOT be affected").
pub fn outbound(snapshot: &Snapshot, client: &Workload, destination: SocketAddr) -> Outbound {
    let destination = SocketAddr::new(destination.ip().to_canonical(), destination.port());
    let (address, port) = (destination.ip(), destination.port());
    if snapshot.is_service_address(address) {
        return to_service_address(snapshot, client, destination);
    }
    let workload = snapshot.workload_at(address);
    let meshed = workload.is_some_and(|w| w.enrolment.is_meshed());
    if is_mesh_port(port) && (meshed || address.is_loopback() || client.addresses.contains(&address)) {
        return Outbound::Refuse(Fault::SelfCall);
    }
    Outbound::Address {
        address: destination,
        transport: transport(workload.map(|w| &**w)),
        workload: workload.cloned(),
    }
}

fn to_service_address(snapshot: &Snapshot, client: &Workload, destination: SocketAddr) -> Outbound {
    // A Service address with a port that the Service does not have leads nowhere, as without a mesh.
    let Some(frontend) = snapshot.frontend(destination.ip(), destination.port()) else {
        return Outbound::Refuse(Fault::NoEndpoint);
    };
    let (service, port, protocol) = (frontend.service.clone(), frontend.port.number, frontend.port.protocol);
    let namespace = &*client.id.namespace;
    let routes = snapshot.service_routes(namespace, &service.id, port).cloned();
    if routes.is_some() {
        return Outbound::Http(HttpFrontend { service, port, protocol, routes });
    }
    // Stream routes that govern the client make the port one of bytes, whatever its appProtocol says.
    if let Some(table) = snapshot.service_streams(namespace, &service.id, port).cloned() {
        return Outbound::Streams { service, port, table };
    }
    if protocol.is_http() {
        return Outbound::Http(HttpFrontend { service, port, protocol, routes: None });
    }
    match snapshot.endpoints(&service.id, port).cloned() {
        Some(endpoints) => Outbound::Service { service, port, endpoints },
        None => Outbound::Refuse(Fault::NoEndpoint),
    }
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
pub fn admit(workload: &Workload, local: SocketAddr, peer: &Identity, wanted: SocketAddr) -> Result<Permit, Fault> {
    let destination = own(workload, wanted)?;
    if destination.ip() != local.ip().to_canonical() {
        return Err(Fault::WrongDestination);
    }
    // The TLS stack has checked it already; a permit does not rest on that.
    if peer.trust_domain != workload.identity.trust_domain {
        return Err(Fault::PeerIdentity);
    }
    Ok(Permit { destination, peer: Some(peer.clone()) })
}

/// What a plaintext connection may do.
#[derive(Clone, Debug)]
pub enum Plaintext {
    /// All: it is carried to the application.
    Carry(Permit),
    /// Ask what a kubelet asks.
    Probe(ProbePermit),
}

/// Admits a plaintext connection from `peer` that was captured on its way to `wanted`, by the workload's mode. `hosts`: addresses of the
/// node itself, from where its kubelet asks; they may probe a strict workload, no more.
pub fn admit_plaintext(
    workload: &Workload,
    peer: IpAddr,
    hosts: &HashSet<IpAddr>,
    wanted: SocketAddr,
) -> Result<Plaintext, Fault> {
    let destination = own(workload, wanted)?;
    match workload.enrolment {
        Enrolment::Meshed(Mode::Strict) => {
            let peer = peer.to_canonical();
            let permit = if hosts.contains(&peer) { ProbePermit::of(workload, destination) } else { None };
            permit.map(Plaintext::Probe).ok_or(Fault::PlaintextRefused)
        }
        // A pod that leaves the mesh may get its last connections before its capture is undone.
        Enrolment::Meshed(Mode::Permissive) | Enrolment::Joining | Enrolment::Leaving | Enrolment::None => {
            Ok(Plaintext::Carry(Permit { destination, peer: None }))
        }
    }
}

/// The address, if it is one of the workload's application.
fn own(workload: &Workload, wanted: SocketAddr) -> Result<SocketAddr, Fault> {
    let address = wanted.ip().to_canonical();
    if !workload.addresses.iter().any(|a| a.to_canonical() == address) || wanted.port() == 0 {
        return Err(Fault::WrongDestination);
    }
    if is_mesh_port(wanted.port()) {
        return Err(Fault::SelfCall);
    }
    Ok(SocketAddr::new(address, wanted.port()))
}

#[cfg(test)]
mod tests;
