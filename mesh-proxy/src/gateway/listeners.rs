//! Listeners: which listener of a port a name belongs to. Pure; it must not bind.

use mesh_core::mesh::{Gateway, HostPattern, Listener, ListenerProtocol};

/// Whether a host belongs to another HTTPS listener of the port than the TLS server name that the client connected with: its
/// certificate, and perhaps its client checks, were not meant for that host (RFC 9110 §15.5.20).
pub fn is_misdirected(gateway: &Gateway, port: u16, server_name: &str, host: &str) -> bool {
    let https = |l: &&Listener| l.port == port && matches!(l.protocol, ListenerProtocol::Https(_));
    let of = |name: &str| most_specific(gateway.listeners.iter().filter(https), Some(name)).map(|l| &l.name);
    of(server_name) != of(host)
}

/// The listener with the most specific hostname for a name: exact before the longest wildcard before none; of equals the first.
pub fn most_specific<'a>(listeners: impl Iterator<Item = &'a Listener>, name: Option<&str>) -> Option<&'a Listener> {
    let mut best: Option<(Specificity, &Listener)> = None;
    for listener in listeners {
        let Some(specificity) = specificity(listener.hostname.as_ref(), name) else { continue };
        if best.is_none_or(|(before, _)| specificity > before) {
            best = Some((specificity, listener));
        }
    }
    best.map(|(_, listener)| listener)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Specificity {
    Any,
    Wildcard(usize),
    Exact,
}

fn specificity(pattern: Option<&HostPattern>, name: Option<&str>) -> Option<Specificity> {
    match (pattern, name) {
        (None, _) => Some(Specificity::Any),
        (Some(_), None) => None,
        (Some(HostPattern::Exact(host)), Some(name)) => (**host == *name).then_some(Specificity::Exact),
        (Some(HostPattern::Wildcard(suffix)), Some(name)) => {
            let labels = name.strip_suffix(&**suffix)?.strip_suffix('.')?;
            (!labels.is_empty()).then_some(Specificity::Wildcard(suffix.len()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_core::name::NsName;

    fn gateway(hostnames: &[Option<HostPattern>]) -> Gateway {
        let listener = |(i, hostname): (usize, &Option<HostPattern>)| Listener {
            name: format!("l{i}").into(),
            port: 443,
            hostname: hostname.clone(),
            protocol: ListenerProtocol::Https(vec![]),
        };
        Gateway {
            id: NsName::new("infra", "front"),
            addresses: vec![],
            listeners: hostnames.iter().enumerate().map(listener).collect(),
        }
    }

    #[test]
    fn a_host_of_another_listener_than_the_server_name_is_misdirected() {
        let exact = |h: &str| Some(HostPattern::Exact(h.into()));
        let gateway = gateway(&[
            None,
            exact("second-example.org"),
            Some(HostPattern::Wildcard("wildcard.org".into())),
            exact("fourth-example.wildcard.org"),
        ]);
        // Gateway API conformance, GatewayHTTPSListenerDetectMisdirectedRequests: server name, host, whether 421.
        for (name, host, misdirected) in [
            ("example.org", "example.org", false),
            ("example.org", "second-example.org", true),
            ("example.org", "unknown-example.org", false),
            ("second-example.org", "second-example.org", false),
            ("second-example.org", "example.org", true),
            ("second-example.org", "unknown-example.org", true),
            ("third-example.wildcard.org", "third-example.wildcard.org", false),
            ("third-example.wildcard.org", "fifth-example.wildcard.org", false),
            ("third-example.wildcard.org", "fourth-example.wildcard.org", true),
            ("third-example.wildcard.org", "second-example.org", true),
            ("fourth-example.wildcard.org", "fourth-example.wildcard.org", false),
            ("fourth-example.wildcard.org", "fifth-example.wildcard.org", true),
            ("unknown-example.org", "example.org", false),
        ] {
            assert_eq!(is_misdirected(&gateway, 443, name, host), misdirected, "{name} -> {host}");
        }
    }

    #[test]
    fn a_wildcard_needs_a_label_and_the_longer_one_wins() {
        let wildcard = |s: &str| Some(HostPattern::Wildcard(s.into()));
        let gateway = gateway(&[wildcard("org"), wildcard("a.org")]);
        let of = |name| most_specific(gateway.listeners.iter(), name).map(|l| &*l.name);
        assert_eq!(of(Some("b.org")), Some("l0"));
        assert_eq!(of(Some("b.a.org")), Some("l1"));
        assert_eq!(of(Some("a.org")), Some("l0"));
        assert_eq!(of(Some("xorg")), None);
        assert_eq!(of(None), None);
    }
}
