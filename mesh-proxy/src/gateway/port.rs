//! Port: the connections of one Gateway port: told apart by protocol and server name, then served by the same engine as the mesh's own. It must not bind or route.

use super::{listeners::most_specific, tls::PortTls};
use crate::{
    ahead::Ahead,
    fault,
    http::{Door, Frontend, serve},
    local::Local,
    outbound::{self, Backend, carry},
    shared::Shared,
    tcp::{Side, Stream},
    telemetry::{Connection, Direction, HandshakeResult, HandshakeSide},
    tunnel::DialFault,
};
use bytes::Bytes;
use mesh_core::{
    fault::Fault,
    mesh::{BackendTarget, Gateway, Listener, ListenerProtocol, MeshSettings, Scheme},
    name::{GatewayId, Text},
    snapshot::Snapshot,
};
use mesh_tls::gateway::Offer;
use std::{net::SocketAddr, sync::Arc};
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::Instant};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// One port of a Gateway.
pub(super) struct Port {
    gateway: GatewayId,
    number: u16,
    local: Arc<Local>,
    shared: Arc<Shared>,
    stop: CancellationToken,
    https: PortTls,
    terminate: PortTls,
}

/// What a connection turned out to be.
enum Kind {
    Http,
    Tcp,
    Tls,
}

/// Where TLS ends.
enum End {
    /// At the application: its bytes are passed through.
    Application,
    /// Here, and bytes come out of it.
    Bytes,
    /// Here, and requests come out of it.
    Http,
}

impl End {
    /// None: the listener speaks no TLS.
    fn of(protocol: &ListenerProtocol) -> Option<Self> {
        match protocol {
            ListenerProtocol::TlsPassthrough => Some(Self::Application),
            ListenerProtocol::TlsTerminate(_) => Some(Self::Bytes),
            ListenerProtocol::Https(_) => Some(Self::Http),
            ListenerProtocol::Http | ListenerProtocol::Tcp => None,
        }
    }
}

impl Port {
    pub(super) fn new(
        gateway: GatewayId,
        number: u16,
        local: Arc<Local>,
        shared: Arc<Shared>,
        stop: CancellationToken,
    ) -> Self {
        let (https, terminate) = (PortTls::new(Offer::Http), PortTls::new(Offer::Bytes));
        Self { gateway, number, local, shared, stop, https, terminate }
    }

    /// Takes what a newer config says of the port's certificates. Routes and listeners are read from the snapshot by each connection.
    pub(super) fn follow(&self, snapshot: &Snapshot, gateway: &Gateway) {
        self.https.follow(snapshot, gateway, self.number);
        self.terminate.follow(snapshot, gateway, self.number);
    }

    /// A connection was refused because the gateway has too many.
    pub(super) fn full(&self, peer: SocketAddr, fault: Fault) {
        let Some(settings) = self.shared.settings() else { return };
        let mut connection = self.shared.telemetry.connection(Direction::Gateway, &settings);
        connection.record.source.address = Some(peer);
        connection.record.fail(fault, "connections_per_pod");
    }

    /// Serves a connection to its end. `permit`: its share of the gateway's connections.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        let Some(settings) = self.shared.settings() else { return fault::reset(&stream) };
        let mut record = self.shared.telemetry.connection(Direction::Gateway, &settings);
        record.record.source.address = Some(peer);
        let destination = fault::local_address(&stream, self.number);
        record.record.destination.address = Some(destination);
        let drain = settings.limits.drain;
        let served = self.clone().connection(stream, peer, destination, settings, record);
        // HTTP drains by itself and sooner; bytes are cut at the end of the drain time.
        fault::until_drained(Box::pin(served), &self.stop, drain).await;
        drop(permit);
    }

    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        destination: SocketAddr,
        settings: Arc<MeshSettings>,
        mut record: Connection,
    ) {
        match self.kind() {
            None => refuse(stream, &mut record, &Fault::Draining.into()),
            Some(Kind::Http) => {
                record.carries_requests();
                let front = self.front(peer, destination, Scheme::Http, None, None);
                serve(stream, front, &settings.limits).await;
            }
            // What connections of one kind need is not carried about by those of another.
            Some(Kind::Tcp) => match self.backend(None, &mut record) {
                Ok(backend) => Box::pin(carry(stream, backend, &self.local, &self.shared, record)).await,
                Err(fault) => refuse(stream, &mut record, &fault),
            },
            Some(Kind::Tls) => Box::pin(self.tls(stream, peer, destination, settings, record)).await,
        }
    }

    /// TLS in any form: the server name chooses the listener, the listener says who terminates.
    async fn tls(
        self: Arc<Self>,
        mut stream: TcpStream,
        peer: SocketAddr,
        destination: SocketAddr,
        settings: Arc<MeshSettings>,
        mut record: Connection,
    ) {
        let patience = settings.limits.handshake;
        let deadline = Instant::now() + patience;
        let (read, name) = outbound::server_name(&mut stream, patience).await;
        match self.end(name.as_deref()) {
            None => {
                let detail = name.map_or_else(|| "no server name".to_owned(), |n| format!("server name {n}"));
                refuse(stream, &mut record, &DialFault::new(Fault::UnknownServerName, detail));
            }
            Some(End::Application) => match self.backend(name.as_deref(), &mut record) {
                Ok(backend) => {
                    let io = Ahead::new(stream, read);
                    Box::pin(carry(io, backend, &self.local, &self.shared, record)).await;
                }
                Err(fault) => refuse(stream, &mut record, &fault),
            },
            Some(End::Bytes) => {
                let Some((tls, version)) =
                    Box::pin(self.terminated(&self.terminate, stream, read, deadline, &mut record)).await
                else {
                    return;
                };
                record.record.tls = Some(version);
                match self.backend(name.as_deref(), &mut record) {
                    Ok(backend) => Box::pin(carry(Stream(tls), backend, &self.local, &self.shared, record)).await,
                    Err(fault) => {
                        record.record.fail(fault.fault, fault.detail());
                        fault::log(&record.record, &fault);
                    }
                }
            }
            Some(End::Http) => {
                let Some((tls, version)) =
                    Box::pin(self.terminated(&self.https, stream, read, deadline, &mut record)).await
                else {
                    return;
                };
                record.carries_requests();
                record.record.tls = Some(version);
                let front = self.front(peer, destination, Scheme::Https, name, Some(version));
                serve(tls, front, &settings.limits).await;
            }
        }
    }

    /// Terminates TLS, or notes why not.
    async fn terminated(
        &self,
        tls: &PortTls,
        stream: TcpStream,
        read: Bytes,
        deadline: Instant,
        record: &mut Connection,
    ) -> Option<(Box<TlsStream<Ahead<TcpStream>>>, &'static str)> {
        let accepted = tls.accept(Ahead::new(stream, read), deadline).await;
        self.shared.telemetry.handshake(
            HandshakeSide::Server,
            match &accepted {
                Ok(_) => HandshakeResult::Ok,
                Err(fault) => HandshakeResult::Failed(fault.fault.label()),
            },
        );
        accepted
            .map_err(|fault| {
                record.record.fail(fault.fault, fault.detail());
                fault::log(&record.record, &fault);
            })
            .ok()
    }

    // Each of these reads the newest config and lets go of it: a connection holds none.

    /// What the port's listeners speak; listeners of one port agree on it, because the planner settles conflicts.
    fn kind(&self) -> Option<Kind> {
        let snapshot = self.shared.snapshot()?;
        let mut listeners = snapshot.gateway(&self.gateway)?.listeners.iter().filter(|l| l.port == self.number);
        listeners.next().map(|l| match l.protocol {
            ListenerProtocol::Http => Kind::Http,
            ListenerProtocol::Tcp => Kind::Tcp,
            ListenerProtocol::Https(_) | ListenerProtocol::TlsPassthrough | ListenerProtocol::TlsTerminate(_) => {
                Kind::Tls
            }
        })
    }

    /// Where TLS with a server name ends; none: no listener is for that name.
    fn end(&self, name: Option<&str>) -> Option<End> {
        let snapshot = self.shared.snapshot()?;
        let ends = |l: &&Listener| l.port == self.number && End::of(&l.protocol).is_some();
        let listeners = snapshot.gateway(&self.gateway)?.listeners.iter().filter(ends);
        End::of(&most_specific(listeners, name)?.protocol)
    }

    /// Where a stream goes.
    fn backend(&self, name: Option<&str>, record: &mut Connection) -> Result<Backend, DialFault> {
        let snapshot = self.shared.snapshot().ok_or(Fault::NoRoute)?;
        let table = snapshot.listener_streams(&self.gateway, self.number).ok_or(Fault::NoRoute)?;
        let compiled = table.find(name).ok_or(Fault::NoRoute)?;
        record.record.route = Some(compiled.route.id.clone());
        let chosen = compiled.split.next().and_then(|n| compiled.route.backends.get(n));
        let Some((_, BackendTarget::Service { service, port })) = chosen else {
            return Err(Fault::BrokenBackend.into());
        };
        record.record.service = Some((service.clone(), *port));
        Ok(Backend::find(&snapshot, service, *port).ok_or(Fault::NoEndpoint)?)
    }

    fn front(
        &self,
        peer: SocketAddr,
        destination: SocketAddr,
        scheme: Scheme,
        server_name: Option<Text>,
        tls: Option<&'static str>,
    ) -> Arc<Frontend> {
        let (gateway, port) = (self.gateway.clone(), self.number);
        let door = Door::Listener { gateway, port, scheme, server_name, tls };
        let (local, shared) = (self.local.clone(), self.shared.clone());
        Arc::new(Frontend::new(door, local, shared, (peer, destination), (self.stop.clone(), self.stop.clone())))
    }
}

/// Ends a connection with a reset, and says why.
fn refuse(mut stream: TcpStream, record: &mut Connection, fault: &DialFault) {
    record.record.fail(fault.fault, if fault.source.is_some() { fault.detail() } else { String::new() });
    fault::log(&record.record, fault);
    Side::reset(&mut stream);
}
