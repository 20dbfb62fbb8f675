//! Doubts Gateways, certificates and roots. It must not parse X.509; the TLS stack does, and says so.

use super::field::{At, Bad, address, choice, host, list, ns_name, port, some};
use super::service::named;
use crate::proto;
use mesh_core::mesh::{Certificate, Gateway, Listener, ListenerProtocol, PrivateKey, Roots};
use std::{collections::HashSet, sync::Arc};

/// Longest DER of a certificate or key: RSA 16384 with many names stays far below.
const DER_MAX: usize = 64 * 1024;

/// Longest chain: a Secret ends at 1 MiB.
const CHAIN_MAX: usize = 32;

pub(super) fn certificate(c: proto::Certificate) -> Result<Certificate, Bad> {
    let chain = some("chain", c.chain)?;
    if chain.len() > CHAIN_MAX {
        return Err(Bad::new(format!("has {} certificates, more than {CHAIN_MAX}", chain.len()))).at("chain");
    }
    Ok(Certificate {
        id: ns_name(c.id).at("id")?,
        chain: list("chain", chain, der)?,
        key: PrivateKey::new(der(c.key).at("key")?),
    })
}

/// No roots at all would mean that nobody is trusted: never meant, and not to be undone by a proxy that then reaches nobody.
pub(super) fn roots(r: proto::Roots) -> Result<Roots, Bad> {
    let certificates = some("certificates", r.certificates)?;
    if certificates.len() > CHAIN_MAX {
        let found = certificates.len();
        return Err(Bad::new(format!("has {found} certificates, more than {CHAIN_MAX}"))).at("certificates");
    }
    Ok(Roots { revision: r.revision, certificates: list("certificates", certificates, der)? })
}

fn der(bytes: Vec<u8>) -> Result<Arc<[u8]>, Bad> {
    match bytes.len() {
        0 => Err(Bad::new("is empty")),
        n if n > DER_MAX => Err(Bad::new(format!("is {n} bytes long, more than {DER_MAX}"))),
        _ => Ok(bytes.into()),
    }
}

pub(super) fn gateway(g: proto::Gateway) -> Result<Gateway, Bad> {
    let listeners = list("listeners", g.listeners, listener)?;
    let mut names = HashSet::new();
    for (i, l) in listeners.iter().enumerate() {
        if !names.insert(&l.name) {
            return Err(Bad::new(format!("{:?} is the name of another listener", l.name)))
                .at("name")
                .item("listeners", i);
        }
    }
    Ok(Gateway { id: ns_name(g.id).at("id")?, addresses: list("addresses", g.addresses, address)?, listeners })
}

fn listener(l: proto::Listener) -> Result<Listener, Bad> {
    let certificates = list("certificates", l.certificates, ns_name)?;
    let terminates = |certificates| some("certificates", certificates);
    Ok(Listener {
        name: named("name", l.name)?,
        port: port(l.port).at("port")?,
        hostname: match l.hostname {
            all if all.is_empty() => None,
            name => Some(host(name).at("hostname")?),
        },
        protocol: match choice("protocol", l.protocol)? {
            proto::ListenerProtocol::Https => ListenerProtocol::Https(terminates(certificates)?),
            proto::ListenerProtocol::TlsTerminate => ListenerProtocol::TlsTerminate(terminates(certificates)?),
            _ if !certificates.is_empty() => {
                return Err(Bad::new("a listener that does not terminate TLS has none")).at("certificates");
            }
            proto::ListenerProtocol::Http => ListenerProtocol::Http,
            proto::ListenerProtocol::TlsPassthrough => ListenerProtocol::TlsPassthrough,
            proto::ListenerProtocol::Tcp | proto::ListenerProtocol::Unspecified => ListenerProtocol::Tcp,
        },
    })
}
