//! Addresses of the interfaces of a network namespace. It must not choose among them beyond what can be meant.

use nix::ifaddrs::getifaddrs;
use std::{collections::BTreeSet, io, net::IpAddr};

/// The addresses of all interfaces of the calling thread's namespace, without loopback and IPv6 link-local ones, which say nothing of a host.
pub fn of_interfaces() -> io::Result<BTreeSet<IpAddr>> {
    let all = getifaddrs()?.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
    });
    Ok(all.filter(|a| !a.is_loopback() && !matches!(a, IpAddr::V6(a) if a.is_unicast_link_local())).collect())
}
