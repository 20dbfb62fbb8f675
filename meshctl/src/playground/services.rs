//! The nftables text by which a node translates ClusterIPs for pods that are not in the mesh: kube-proxy's part. Pure.

use super::endpoints::Target;
use std::{
    collections::BTreeSet,
    fmt::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A Service with addresses, as a node needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// ClusterIPs.
    pub addresses: (Ipv4Addr, Ipv6Addr),
    /// Ports that it has.
    pub ports: Vec<(u16, Protocol)>,
    /// Where TCP and UDP lead.
    pub tcp: Vec<Target>,
    /// As above.
    pub udp: Vec<Target>,
}

/// Transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `TCP`.
    Tcp,
    /// `UDP`.
    Udp,
}

/// A port that a Service does not have is refused like one without endpoints.
const NO_PORT: &str = "    ip daddr 10.96.0.0/16 meta l4proto tcp reject with tcp reset\n    ip6 daddr fd10:96::/112 meta l4proto tcp reject with tcp reset\n    ip daddr 10.96.0.0/16 reject\n    ip6 daddr fd10:96::/112 reject\n";

/// Replaces the whole table in one transaction. A connection is spread at random over the endpoints; without one it is refused at once.
pub fn ruleset(frontends: &[Frontend]) -> String {
    let mut translate = String::new();
    let mut refuse = String::new();
    let mut hairpin = (BTreeSet::new(), BTreeSet::new());
    for frontend in frontends {
        for (port, protocol) in &frontend.ports {
            let (name, targets) = match protocol {
                Protocol::Tcp => ("tcp", &frontend.tcp),
                Protocol::Udp => ("udp", &frontend.udp),
            };
            for (family, address) in
                [("ip", IpAddr::V4(frontend.addresses.0)), ("ip6", IpAddr::V6(frontend.addresses.1))]
            {
                let to: Vec<&Target> = targets
                    .iter()
                    .filter(|t| t.service_port == *port && t.address.is_ipv4() == address.is_ipv4())
                    .collect();
                let matched = format!("{family} daddr {address} {name} dport {port}");
                if to.is_empty() {
                    let how = if *protocol == Protocol::Tcp { "reject with tcp reset" } else { "reject" };
                    let _ = writeln!(refuse, "    {matched} {how}");
                    continue;
                }
                let map: Vec<String> =
                    to.iter().enumerate().map(|(i, t)| format!("{i} : {} . {}", t.address, t.port)).collect();
                let _ = writeln!(
                    translate,
                    "    {matched} dnat {family} to numgen random mod {} map {{ {} }}",
                    to.len(),
                    map.join(", ")
                );
                for target in to {
                    match target.address {
                        IpAddr::V4(a) => hairpin.0.insert(format!("{a} . {a}")),
                        IpAddr::V6(a) => hairpin.1.insert(format!("{a} . {a}")),
                    };
                }
            }
        }
    }
    let back = |family: &str, pairs: BTreeSet<String>| {
        // A pod that reaches itself through its Service must see the answer come from the Service.
        let pairs: Vec<String> = pairs.into_iter().collect();
        if pairs.is_empty() {
            String::new()
        } else {
            format!("    {family} saddr . {family} daddr {{ {} }} masquerade\n", pairs.join(", "))
        }
    };
    let masquerade = back("ip", hairpin.0) + &back("ip6", hairpin.1);
    format!(
        "table inet playground\ndelete table inet playground\ntable inet playground {{\n\
         \x20 chain translate {{\n{translate}  }}\n  chain refuse {{\n{refuse}{NO_PORT}  }}\n\
         \x20 chain prerouting {{\n    type nat hook prerouting priority dstnat\n    jump translate\n  }}\n\
         \x20 chain output {{\n    type nat hook output priority -100\n    jump translate\n  }}\n\
         \x20 chain postrouting {{\n    type nat hook postrouting priority srcnat\n{masquerade}  }}\n\
         \x20 chain forward {{\n    type filter hook forward priority filter\n    jump refuse\n  }}\n\
         \x20 chain out {{\n    type filter hook output priority filter\n    jump refuse\n  }}\n}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_leads_to_its_endpoints_and_to_a_refusal_without_any() {
        let target =
            |service_port, address: &str, port| Target { service_port, address: address.parse().unwrap(), port };
        let frontend = Frontend {
            addresses: (Ipv4Addr::new(10, 96, 1, 1), "fd10:96::1".parse().unwrap()),
            ports: vec![(80, Protocol::Tcp), (53, Protocol::Udp)],
            tcp: vec![target(80, "10.20.1.2", 8080), target(80, "10.20.2.2", 8080)],
            udp: vec![],
        };
        let text = ruleset(&[frontend]);
        assert!(text.contains(
            "ip daddr 10.96.1.1 tcp dport 80 dnat ip to numgen random mod 2 map { 0 : 10.20.1.2 . 8080, 1 : 10.20.2.2 . 8080 }"
        ));
        assert!(text.contains("ip6 daddr fd10:96::1 tcp dport 80 reject with tcp reset"), "{text}");
        assert!(text.contains("ip daddr 10.96.1.1 udp dport 53 reject"));
        assert!(text.contains("ip saddr . ip daddr { 10.20.1.2 . 10.20.1.2, 10.20.2.2 . 10.20.2.2 } masquerade"));
    }
}
