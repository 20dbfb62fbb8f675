//! TCP sockets as the proxy needs them: marked, with the source of a peer, with the destination before capture. It must not connect; the runtime does.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

/// Connections that may wait to be accepted: a burst of dials must not see resets (the kernel caps it by `net.core.somaxconn`).
pub const BACKLOG: i32 = 4096;

/// Silence after which the kernel asks a TCP peer whether it is there. Finds peers that vanished without FIN, such as pods whose node died.
pub const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Pause between the kernel's questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered questions before the connection is dead.
pub const KEEPALIVE_PROBES: u32 = 4;
/// Time that sent bytes may stay unacknowledged before the connection is dead; without it the kernel retries for about 15 minutes.
pub const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A non-blocking TCP socket for a connection of the proxy: marked, so that capture leaves it alone. Call inside the pod's namespace.
pub fn dialing(to: IpAddr, mark: Option<u32>) -> io::Result<Socket> {
    let socket = Socket::new(domain(to), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    tune(&socket)?;
    Ok(socket)
}

/// Binds a dialling socket to an address that need not be of this host (`IP_TRANSPARENT`; needs CAP_NET_ADMIN). Connections to different
/// destinations may have the same source; `AddrInUse`: somebody listens on the port.
pub fn bind_foreign_source(socket: &Socket, source: SocketAddr) -> io::Result<()> {
    match source {
        SocketAddr::V4(_) => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
        }
        SocketAddr::V6(_) => {
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.set_reuse_address(true)?;
    socket.bind(&source.into())
}

/// A listening, non-blocking socket. An unspecified IPv6 address also takes IPv4 peers. Its connections inherit the mark.
pub fn listening(address: SocketAddr, mark: Option<u32>) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(domain(address.ip()), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        socket.set_only_v6(false)?;
    }
    // A restarted proxy must not wait for the TIME_WAIT of its predecessor's connections.
    socket.set_reuse_address(true)?;
    if let Some(mark) = mark {
        socket.set_mark(mark)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Takes a descriptor that someone handed over for a TCP socket that listens on this port.
pub fn listening_on(descriptor: OwnedFd, port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::from(descriptor);
    let local = socket.local_addr()?.as_socket();
    let fits = socket.r#type()? == Type::STREAM && socket.is_listener()? && local.is_some_and(|a| a.port() == port);
    if !fits {
        let what = format!("the descriptor is no TCP socket that listens on port {port}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Settings of every connection: no Nagle delay, keepalive, bounded retransmission. Connections inherit those of the socket that listens.
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let probes =
        TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&probes)?;
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
}

/// Where a captured connection wanted to go before nftables redirected it. `local`: the address that it was accepted on.
pub fn original_destination(socket: &impl AsFd, local: SocketAddr) -> io::Result<SocketAddr> {
    let socket = SockRef::from(socket);
    // IPv4 connections accepted by a dual-stack socket have IPv4-mapped addresses but are known to IPv4's connection tracking.
    let found = match local.ip().to_canonical() {
        IpAddr::V4(_) => socket.original_dst_v4()?,
        IpAddr::V6(_) => socket.original_dst_v6()?,
    };
    found
        .as_socket()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the original destination is not an IP address"))
}

/// Makes closing the socket send RST instead of FIN: how the mesh passes on that the other side broke.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

fn domain(address: IpAddr) -> Domain {
    if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 }
}
