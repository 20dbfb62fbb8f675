//! Which address everything in the playground has, and the stable choice of ClusterIPs. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// The supervisor on the bridge: DNS, and the controller.
pub const SUPERVISOR: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The same in IPv6.
pub const SUPERVISOR_V6: Ipv6Addr = Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 0, 1);

/// Services have addresses of 10.96.0.0/16: so many.
const SERVICES: u32 = 0xffff - 0x100;

/// A virtual node: its name and its addresses. `index` counts from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 1, 2, …
    pub index: u8,
    /// `n1`, `n2`, …
    pub name: String,
}

impl Node {
    /// The node of this number.
    pub fn new(index: u8) -> Self {
        Self { index, name: format!("n{index}") }
    }

    /// On the bridge.
    pub fn v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 10, 0, 10 + self.index)
    }

    /// On the bridge.
    pub fn v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 0, 0x10 + u16::from(self.index))
    }

    /// First three bytes of its pods' addresses.
    pub fn pods_v4(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 20, self.index, 0)
    }

    /// First 64 bits of its pods' addresses.
    pub fn pods_v6(&self) -> Ipv6Addr {
        Ipv6Addr::new(0xfd10, 0x20, u16::from(self.index), 0, 0, 0, 0, 0)
    }
}

/// Addresses of the n-th Gateway (from 1) on the bridge.
pub fn gateway(n: u8) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 10, 1, n), Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 1, u16::from(n)))
}

/// Who holds which ClusterIP. A Service keeps its address as long as it exists, and gets the same one in the next run unless another took it.
#[derive(Debug, Default)]
pub struct ClusterIps {
    taken: BTreeMap<String, u32>,
}

impl ClusterIps {
    /// Addresses of a Service, IPv4 and IPv6.
    pub fn of(&mut self, service: &str) -> (Ipv4Addr, Ipv6Addr) {
        if let Some(slot) = self.taken.get(service) {
            return at(*slot);
        }
        let used: HashSet<u32> = self.taken.values().copied().collect();
        let mut slot = stable_hash(service.as_bytes()) as u32 % SERVICES;
        while used.contains(&slot) {
            slot = (slot + 1) % SERVICES;
        }
        self.taken.insert(service.to_owned(), slot);
        at(slot)
    }

    /// Forgets Services that are no more, so that their addresses can be used again.
    pub fn keep(&mut self, services: &BTreeSet<String>) {
        self.taken.retain(|name, _| services.contains(name));
    }
}

fn at(slot: u32) -> (Ipv4Addr, Ipv6Addr) {
    let host = slot + 0x100;
    let [_, _, high, low] = host.to_be_bytes();
    (Ipv4Addr::new(10, 96, high, low), Ipv6Addr::new(0xfd10, 0x96, 0, 0, 0, 0, 0, host as u16))
}

/// FNV-1a: the same on every machine and in every run.
pub fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Whether an address is of the IPv4 family, as EndpointSlices tell them apart.
pub fn family(address: &IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_keeps_its_address_and_two_never_share_one() {
        let mut ips = ClusterIps::default();
        let first = ips.of("shop/cart");
        let mut seen = BTreeSet::from([first]);
        for n in 0..2000 {
            assert!(seen.insert(ips.of(&format!("shop/s{n}"))), "two Services share an address");
        }
        assert_eq!(ips.of("shop/cart"), first);
        assert_eq!(ClusterIps::default().of("shop/cart"), first, "the next run gives the same address");
    }
}
