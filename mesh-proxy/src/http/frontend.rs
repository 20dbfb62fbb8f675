//! Frontend: where a connection's requests came in and what that means for each. It must not forward.

use super::{
    head::{is_grpc, match_host},
    outgoing::{Outgoing, Protocol},
};
use crate::{
    local::Local,
    shared::Shared,
    telemetry::{Direction, Record},
};
use http::{HeaderValue, Version, uri::Authority};
use mesh_core::{
    filter::Arrival,
    mesh::{AppProtocol, Scheme, Service},
    name::{GatewayId, ServiceId, Text},
    route::RouteTable,
    snapshot::Snapshot,
};
use std::{net::SocketAddr, sync::Arc};
use tokio_util::sync::CancellationToken;

/// A connection that carries requests.
pub struct Frontend {
    /// Where it came in.
    pub door: Door,
    /// On whose behalf we act.
    pub local: Arc<Local>,
    /// What everybody may read.
    pub shared: Arc<Shared>,
    /// The client's address.
    pub peer: SocketAddr,
    /// The same, as `x-forwarded-for` has it.
    pub forwarded_for: HeaderValue,
    /// The address that it dialled.
    pub destination: SocketAddr,
    /// Cancelled when the client is to come again: the workload or the listener leaves, or the proxy.
    pub stop: CancellationToken,
    /// Cancelled when there is an end to it: requests that live get `limits.drain`.
    pub drain: CancellationToken,
}

/// Where requests come in.
pub enum Door {
    /// A captured connection to a Service port.
    Service {
        /// The Service.
        service: Arc<Service>,
        /// Its port.
        port: u16,
    },
    /// A Gateway's listeners on one port.
    Listener {
        /// The Gateway.
        gateway: GatewayId,
        /// The port.
        port: u16,
        /// `https` if TLS ended here.
        scheme: Scheme,
        /// TLS server name, lower case.
        server_name: Option<Text>,
        /// TLS version.
        tls: Option<&'static str>,
    },
}

impl Frontend {
    /// A connection from `peer` to `destination`. `stop`: the client is to come again; `drain`: there is an end to it.
    pub fn new(
        door: Door,
        local: Arc<Local>,
        shared: Arc<Shared>,
        (peer, destination): (SocketAddr, SocketAddr),
        (stop, drain): (CancellationToken, CancellationToken),
    ) -> Self {
        let client = peer.ip().to_canonical().to_string();
        let forwarded_for = HeaderValue::try_from(client).expect("the text of an address is a header value");
        Self { door, local, shared, peer, forwarded_for, destination, stop, drain }
    }

    /// Whose requests these are.
    pub fn direction(&self) -> Direction {
        match self.door {
            Door::Service { .. } => Direction::Outbound,
            Door::Listener { .. } => Direction::Gateway,
        }
    }

    /// Routes by the newest config; none: nobody attached one.
    pub fn routes(&self, snapshot: &Snapshot) -> Option<Arc<RouteTable>> {
        match &self.door {
            Door::Service { service, port } => {
                let workload = self.local.workload();
                snapshot.service_routes(&workload.id.namespace, &service.id, *port).cloned()
            }
            Door::Listener { gateway, port, .. } => snapshot.listener_routes(gateway, *port).cloned(),
        }
    }

    /// Where requests go if nobody attached a route: to the Service itself.
    pub fn without_routes(&self) -> Option<(&ServiceId, u16)> {
        match &self.door {
            Door::Service { service, port } => Some((&service.id, *port)),
            Door::Listener { .. } => None,
        }
    }

    /// For redirects.
    pub fn arrival<'a>(&self, authority: &'a Authority) -> Arrival<'a> {
        let (scheme, port) = match self.door {
            Door::Service { port, .. } => (Scheme::Http, port),
            Door::Listener { port, scheme, .. } => (scheme, port),
        };
        Arrival { scheme, host: authority.host(), port }
    }

    /// How the application behind a Service port is spoken to.
    pub fn protocol_of(&self, snapshot: &Snapshot, service: &ServiceId, port: u16, outgoing: &Outgoing) -> Protocol {
        let said = snapshot
            .service(service)
            .and_then(|s| s.ports.iter().find(|p| p.number == port))
            .map_or(AppProtocol::Unspecified, |p| p.protocol);
        match (said, &self.door) {
            (AppProtocol::H2c | AppProtocol::Grpc, _) => Protocol::Http2,
            (AppProtocol::WebSocket, _) => Protocol::Http1,
            // "HTTP/1.1 or HTTP/2 as the client speaks": clients in the mesh know their Service.
            (_, Door::Service { .. }) if outgoing.version == Version::HTTP_2 => Protocol::Http2,
            // Clients of a Gateway negotiated with the Gateway, not with the application; only gRPC implies HTTP/2.
            (_, Door::Listener { .. }) if is_grpc(&outgoing.headers) => Protocol::Http2,
            _ => Protocol::Http1,
        }
    }

    /// Whether the client is to come again on another connection.
    pub fn is_ending(&self) -> bool {
        self.stop.is_cancelled() || self.drain.is_cancelled()
    }

    /// Waits until it is so.
    pub async fn ending(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.drain.cancelled() => {}
        }
    }

    /// What is known of every request on this connection.
    pub fn describe(&self, record: &mut Record) {
        record.source.address = Some(self.peer);
        match &self.door {
            Door::Service { service, port } => {
                let workload = self.local.workload();
                record.source.identity = Some(workload.identity.clone());
                record.source.workload = Some(workload);
                record.service = Some((service.id.clone(), *port));
            }
            Door::Listener { tls, .. } => {
                record.destination.address = Some(self.destination);
                record.tls = *tls;
            }
        }
    }

    /// RFC 9110 §15.5.20: the connection's certificate was chosen for another listener than the one that owns this host.
    pub fn is_misdirected(&self, snapshot: &Snapshot, authority: &Authority) -> bool {
        let Door::Listener { gateway, port, scheme: Scheme::Https, server_name: Some(name), .. } = &self.door else {
            return false;
        };
        snapshot.gateway(gateway).is_some_and(|gateway| {
            crate::gateway::listeners::is_misdirected(gateway, *port, name, &match_host(authority))
        })
    }
}
