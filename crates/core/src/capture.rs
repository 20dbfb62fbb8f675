//! Capture: the nftables ruleset and the policy routes of a meshed pod, as text. Pure; `mesh-sys` applies it. It must not run anything.

use crate::decide::{HBONE_PORT, INBOUND_PORT, OUTBOUND_PORT};

/// Mark on every socket of the proxy, exempt from capture.
pub const PROXY_MARK: u32 = 0x539;

/// Connection mark of the proxy's own connections in the pod, and packet mark of the application's answers to them.
pub const REPLY_MARK: u32 = 0x53a;

/// Packet mark of a connection that nobody in the pod listens for.
pub const UNSERVED_MARK: u32 = 0x53b;

/// Routing table that delivers the application's answers to the proxy although the proxy spoke with a peer's address.
pub const REPLY_TABLE: u32 = 1337;

/// Preference of the rule that leads there: after `local` (0), before `main` (32766).
pub const REPLY_PREFERENCE: u32 = 1337;

/// Name of our table in a pod's network namespace (family inet).
pub const TABLE: &str = "heddle";

/// The ruleset that captures a pod: replaces our table in one transaction, so that applying it twice is the same as once and no
/// packet meets half of it.
pub fn ruleset() -> String {
    // To be redirected is to be accepted by our listener. Who asks whether anybody listens (a kubelet's tcpSocket probe does nothing else)
    // must hear the pod's own answer.
    let unserved = format!(
        "
    chain unserved {{
        type filter hook prerouting priority -150; policy accept;
        iifname \"lo\" accept
        meta mark {PROXY_MARK:#x} accept
        meta l4proto != tcp accept
        socket transparent 0 accept comment \"somebody listens\"
        socket transparent 1 accept
        {FIRST} meta mark set {UNSERVED_MARK:#x}
    }}
"
    );
    table(&(redirects() + &unserved))
}

/// The same for a kernel without the `socket` expression (module nft_socket): whoever connects to a port that nobody listens on is
/// accepted, then reset.
pub fn ruleset_without_sockets() -> String {
    table(&redirects())
}

/// The first packet of a connection. The first one that the rules see of a connection from before the capture is another: such a
/// connection goes on as it was.
const FIRST: &str = "tcp flags & (fin|syn|rst|ack) == syn";

fn redirects() -> String {
    format!(
        "
    chain capture_outbound {{
        type nat hook output priority -100; policy accept;
        meta mark {PROXY_MARK:#x} accept comment \"what the proxy itself opens\"
        oifname \"lo\" accept comment \"the pod talks to itself\"
        ip daddr 127.0.0.0/8 accept
        ip6 daddr ::1 accept
        {FIRST} redirect to :{OUTBOUND_PORT}
    }}

    chain capture_inbound {{
        type nat hook prerouting priority -100; policy accept;
        meta mark {PROXY_MARK:#x} accept
        iifname \"lo\" accept
        tcp dport {HBONE_PORT} accept comment \"mTLS is served in the open\"
        {FIRST} redirect to :{INBOUND_PORT}
    }}

    chain refuse_inbound {{
        type filter hook input priority 0; policy accept;
        iifname \"lo\" accept
        meta mark {PROXY_MARK:#x} accept
        meta mark {UNSERVED_MARK:#x} meta l4proto tcp reject with tcp reset
        tcp dport {HBONE_PORT} accept
        {FIRST} ct status & dnat != dnat reject with tcp reset comment \"made to look older than the capture\"
    }}
"
    )
}

/// The ruleset of a pod that is being released: nothing new is captured, but what the proxy still carries goes on (its address
/// translation and its answers need the table's hooks).
pub fn draining() -> String {
    // Without any nat chain the kernel would stop translating the packets of connections that were redirected.
    table(
        "
    chain capture_outbound {
        type nat hook output priority -100; policy accept;
    }

    chain capture_inbound {
        type nat hook prerouting priority -100; policy accept;
    }
",
    )
}

/// The text that removes our table; applying it where there is none is no error.
pub fn release() -> String {
    // `table` creates it if it is missing, so that `delete` always finds one.
    format!("table inet {TABLE}\ndelete table inet {TABLE}\n")
}

/// `ip -batch` text that leads the application's answers to the proxy; the same for IPv4 (`-4`) and IPv6 (`-6`).
pub fn reply_routes() -> String {
    format!(
        "rule add fwmark {REPLY_MARK:#x} lookup {REPLY_TABLE} pref {REPLY_PREFERENCE}\n\
         route replace local default dev lo table {REPLY_TABLE}\n"
    )
}

/// `ip -batch` text that undoes [`reply_routes`].
pub fn release_routes() -> String {
    format!(
        "rule del fwmark {REPLY_MARK:#x} lookup {REPLY_TABLE} pref {REPLY_PREFERENCE}\n\
         route del local default dev lo table {REPLY_TABLE}\n"
    )
}

/// Our table with these nat chains, replacing whatever it was.
fn table(nat: &str) -> String {
    format!(
        "{release}
table inet {TABLE} {{{nat}
    chain proxy_connections {{
        type filter hook output priority -150; policy accept;
        meta mark {PROXY_MARK:#x} ct mark set {REPLY_MARK:#x} comment \"the proxy opened it or answers it\"
    }}

    chain replies_to_proxy {{
        type route hook output priority -150; policy accept;
        meta mark != {PROXY_MARK:#x} oifname != \"lo\" ct direction reply ct mark {REPLY_MARK:#x} meta mark set {REPLY_MARK:#x} comment \"to a peer's address that the proxy lent\"
    }}
}}
",
        release = release(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The whole text, so that a change of capture is a change that a reviewer sees.
    #[test]
    fn ruleset_is_the_golden_one() {
        assert_eq!(ruleset(), include_str!("../tests/golden/capture.nft"));
    }

    #[test]
    fn draining_keeps_every_hook_and_captures_nothing() {
        let text = draining();
        assert!(!text.contains("redirect"));
        for hook in ["nat hook output", "nat hook prerouting", "route hook output", "filter hook output"] {
            assert!(text.contains(hook), "{hook}");
        }
    }

    #[test]
    fn every_ruleset_replaces_the_table_in_its_own_transaction() {
        for text in [ruleset(), ruleset_without_sockets(), draining(), release()] {
            assert!(text.starts_with("table inet heddle\ndelete table inet heddle\n"), "{text}");
        }
    }

    #[test]
    fn ports_of_the_rules_are_those_of_the_listeners() {
        let text = ruleset();
        for port in [OUTBOUND_PORT, INBOUND_PORT] {
            assert!(text.contains(&format!("redirect to :{port}\n")));
        }
        assert!(text.contains(&format!("tcp dport {HBONE_PORT} accept")));
    }
}
