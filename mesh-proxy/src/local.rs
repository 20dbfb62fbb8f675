//! Local: the workload on whose behalf the proxy acts, and the only door to its network namespace. It must not reach another workload's.

use crate::{
    http::Upstreams,
    tunnel::{DialFault, Open},
};
use arc_swap::ArcSwap;
use mesh_core::{capture::PROXY_MARK, fault::Fault, identity::Identity, mesh::Workload};
use mesh_sys::{Netns, socket};
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    sync::Arc,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::OwnedSemaphorePermit,
    time::{Instant, timeout_at},
};

/// Ports that go with a peer's address when it is lent. Below those that kernels give to outgoing connections (`ip_local_port_range`: from 32768
/// on): a connection that the peer itself opens to the same application while the lent one lives must not have the same two ends, or its
/// packets would be taken for the other's and it would get no answer.
const LENT_PORTS: Range<u16> = 10_240..32_768;

/// Ports that are tried for one connection.
const LENT_TRIES: u32 = 8;

/// A workload that this proxy serves: a pod of the node, or the gateway that the proxy is.
#[derive(Debug)]
pub struct Local {
    workload: ArcSwap<Workload>,
    netns: Option<Arc<Netns>>,
    open: Arc<Open>,
    upstreams: Upstreams,
}

impl Local {
    /// A pod with its network namespace, or a gateway in the proxy's own (`None`). `connections`: most that may be open at once.
    pub fn new(workload: Arc<Workload>, netns: Option<Arc<Netns>>, connections: u32) -> Arc<Self> {
        Arc::new(Self {
            workload: ArcSwap::new(workload),
            netns,
            open: Open::new(connections),
            upstreams: Upstreams::default(),
        })
    }

    /// What the newest config says of the workload.
    pub fn workload(&self) -> Arc<Workload> {
        self.workload.load_full()
    }

    /// Takes what a newer config says of the same workload.
    pub fn update(&self, workload: Arc<Workload>) {
        self.workload.store(workload);
    }

    /// Who it is.
    pub fn identity(&self) -> Identity {
        self.workload.load().identity.clone()
    }

    /// Its plain HTTP connections to applications.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Its network namespace; none for a gateway.
    pub fn netns(&self) -> Option<&Arc<Netns>> {
        self.netns.as_ref()
    }

    /// Takes one of the workload's connections for as long as the permit lives, so that one pod cannot starve the others.
    pub fn connection(&self) -> Result<OwnedSemaphorePermit, Fault> {
        self.open.place()
    }

    /// What it has open.
    pub fn opened(&self) -> &Arc<Open> {
        &self.open
    }

    /// Connects from the workload's namespace. Cancelling it closes the socket.
    pub async fn connect(&self, to: SocketAddr, deadline: Instant) -> Result<TcpStream, DialFault> {
        dial(self.socket(to, None), to, deadline).await
    }

    /// Connects with the source address of a peer, so that the application sees who really calls; falls back to an own address where
    /// the kernel does not allow it.
    pub async fn connect_as(&self, source: IpAddr, to: SocketAddr, deadline: Instant) -> Result<TcpStream, DialFault> {
        // A pod that calls itself must use its own address in the ordinary way: a transparent one would meet its own half-open connection.
        let own = self.workload.load().addresses.contains(&source) || source == to.ip() || source.is_loopback();
        if !own && self.netns.is_some() && source.is_ipv4() == to.is_ipv4() {
            for _ in 0..LENT_TRIES {
                let lent = SocketAddr::new(source, rand::random_range(LENT_PORTS));
                match self.socket(to, Some(lent)) {
                    Ok(socket) => match dial(Ok(socket), to, deadline).await {
                        Err(fault) if is_taken(&fault) => {}
                        dialled => return dialled,
                    },
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                    Err(error) => {
                        tracing::debug!(%source, %to, %error, "the peer's address cannot be used towards the application");
                        break;
                    }
                }
            }
        }
        dial(self.socket(to, None), to, deadline).await
    }

    /// As [`Self::open`], on the current runtime.
    pub fn listen(&self, port: u16) -> io::Result<TcpListener> {
        TcpListener::from_std(self.open(port)?)
    }

    /// Opens a listener on every address of the workload's namespace (IPv6 and IPv4, or IPv4 alone where there is no IPv6).
    pub fn open(&self, port: u16) -> io::Result<std::net::TcpListener> {
        let mark = self.netns.as_ref().map(|_| PROXY_MARK);
        let open = || {
            socket::listening(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), mark).or_else(|error| {
                match error.kind() {
                    io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => Err(error),
                    _ => socket::listening(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), mark),
                }
            })
        };
        self.inside(open)?
    }

    /// A marked socket in the workload's namespace, bound to `source` if there is one.
    fn socket(&self, to: SocketAddr, source: Option<SocketAddr>) -> io::Result<TcpSocket> {
        let mark = self.netns.as_ref().map(|_| PROXY_MARK);
        let made = self.inside(|| {
            let socket = socket::dialing(to.ip(), mark)?;
            if let Some(source) = source {
                socket::bind_foreign_source(&socket, source)?;
            }
            Ok::<_, io::Error>(socket)
        })??;
        Ok(TcpSocket::from_std_stream(made.into()))
    }

    fn inside<T>(&self, f: impl FnOnce() -> T) -> io::Result<T> {
        match &self.netns {
            Some(netns) => netns.run(f).map_err(io::Error::other),
            None => Ok(f()),
        }
    }
}

/// Whether there is already a connection with these two ends.
fn is_taken(fault: &DialFault) -> bool {
    let source = fault.source.as_deref().and_then(|e| e.downcast_ref::<io::Error>());
    source.is_some_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable)
}

async fn dial(socket: io::Result<TcpSocket>, to: SocketAddr, deadline: Instant) -> Result<TcpStream, DialFault> {
    let socket = socket.map_err(|e| DialFault::new(Fault::Internal, e))?;
    match timeout_at(deadline, socket.connect(to)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(e)) if e.kind() == io::ErrorKind::TimedOut => Err(DialFault::new(Fault::ConnectTimeout, e)),
        Ok(Err(e)) => Err(DialFault::new(Fault::ConnectFailed, e)),
        Err(_) => Err(DialFault::new(
            Fault::ConnectTimeout,
            io::Error::new(io::ErrorKind::TimedOut, format!("no TCP connection to {to} in time")),
        )),
    }
}
