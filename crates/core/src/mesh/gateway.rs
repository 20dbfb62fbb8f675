//! Gateways: listeners, their certificates and addresses. It must not know routes; routes point to listeners.

use crate::name::{GatewayId, NsName, Text};
use std::{fmt, net::IpAddr, sync::Arc};

/// A Gateway that this implementation serves.
#[derive(Clone, Debug, PartialEq)]
pub struct Gateway {
    /// Namespace and name.
    pub id: GatewayId,
    /// Addresses its listeners bind; empty: any address of the gateway proxy.
    pub addresses: Vec<IpAddr>,
    /// Valid listeners, in the order of the spec. Invalid ones exist only in the status.
    pub listeners: Vec<Listener>,
}

/// A listener of a Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Listener {
    /// `name`, unique in the Gateway.
    pub name: Text,
    /// Port that it binds.
    pub port: u16,
    /// Hostname that it serves; none: all.
    pub hostname: Option<HostPattern>,
    /// What it speaks.
    pub protocol: ListenerProtocol,
}

/// Protocol and TLS mode of a listener as one value.
#[derive(Clone, Debug, PartialEq)]
pub enum ListenerProtocol {
    /// HTTP/1.1 and HTTP/2 with prior knowledge.
    Http,
    /// TLS terminated here, ALPN h2 and http/1.1; certificates by id, first is the default.
    Https(Vec<NsName>),
    /// TLS passed through by server name (TLSRoute).
    TlsPassthrough,
    /// TLS terminated here, bytes to the backend (TLSRoute).
    TlsTerminate(Vec<NsName>),
    /// Bytes (TCPRoute).
    Tcp,
}

/// A host name or a wildcard `*.suffix`, lower case, without port or trailing dot.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    /// This name only.
    Exact(Text),
    /// `*.suffix`: one or more labels before `.suffix` (stored without `*.`).
    Wildcard(Text),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(h) => f.write_str(h),
            Self::Wildcard(s) => write!(f, "*.{s}"),
        }
    }
}

impl fmt::Debug for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A certificate chain and key from a Secret; sent only to the proxies whose Gateway names it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Namespace and name of the Secret.
    pub id: NsName,
    /// DER certificates, leaf first.
    pub chain: Vec<Arc<[u8]>>,
    /// DER private key (PKCS#8, PKCS#1 or SEC1).
    pub key: PrivateKey,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({}, {} certificates)", self.id, self.chain.len())
    }
}

/// A private key that no `Debug` shows.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Arc<[u8]>);

impl PrivateKey {
    /// Takes DER bytes.
    pub fn new(der: impl Into<Arc<[u8]>>) -> Self {
        Self(der.into())
    }

    /// The DER bytes, for the TLS stack and the wire only.
    pub fn secret_der(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}
