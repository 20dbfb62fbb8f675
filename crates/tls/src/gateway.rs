//! TLS of Gateway listeners towards the outside: which certificate answers which server name. It must not decide which listener serves a host's requests.

use mesh_core::mesh::{Certificate, HostPattern};
use mesh_core::name::NsName;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use std::sync::Arc;
use webpki::EndEntityCert;

/// Certificates of one listener of a port. Listeners of one port share one TLS config, because only the ClientHello tells them apart.
#[derive(Clone, Debug)]
pub struct ListenerCertificates {
    /// `hostname` of the listener; none: every name, and clients without SNI.
    pub hostname: Option<HostPattern>,
    /// In the order of `certificateRefs`; the first is the default.
    pub certificates: Vec<Arc<Certificate>>,
}

/// What is offered after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// HTTPS: `h2` and `http/1.1`.
    Http,
    /// Terminated TLS: bytes, no ALPN.
    Bytes,
}

/// A certificate that cannot serve. It takes no other down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Secret {secret}: {reason}")]
pub struct BadCertificate {
    /// Which.
    pub secret: NsName,
    /// What is wrong.
    pub reason: String,
}

/// A TLS config and what had to be left out of it.
#[derive(Debug)]
pub struct GatewayTls {
    /// Serves what is usable. A name for which nothing is left gets a handshake failure.
    pub config: Arc<ServerConfig>,
    /// The rest.
    pub rejected: Vec<BadCertificate>,
}

/// The TLS config of a port with these listeners: TLS 1.2 and 1.3, no client certificates.
pub fn server_config(listeners: &[ListenerCertificates], offer: Offer) -> GatewayTls {
    let mut rejected = vec![];
    let listeners = listeners
        .iter()
        .map(|l| Names {
            hostname: l.hostname.clone(),
            keys: l.certificates.iter().filter_map(|c| key(c).map_err(|bad| rejected.push(bad)).ok()).collect(),
        })
        .collect();
    let mut config = ServerConfig::builder_with_provider(crate::provider().clone())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .expect("the aws-lc provider has suites of both versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(BySni { listeners }));
    config.alpn_protocols = match offer {
        Offer::Http => vec![crate::ALPN_H2.to_vec(), b"http/1.1".to_vec()],
        Offer::Bytes => vec![],
    };
    GatewayTls { config: Arc::new(config), rejected }
}

/// Checks a certificate as [`server_config`] will: readable, and key and certificate belong together.
pub fn check(certificate: &Certificate) -> Result<(), BadCertificate> {
    key(certificate).map(|_| ())
}

#[derive(Debug)]
struct BySni {
    listeners: Vec<Names>,
}

#[derive(Debug)]
struct Names {
    hostname: Option<HostPattern>,
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    certified: Arc<CertifiedKey>,
    /// DNS names of the certificate, lower case.
    names: Vec<String>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name()).cloned()
    }
}

impl BySni {
    /// The listener with the most specific hostname, then its certificate with the most specific name, else its first.
    fn choose(&self, sni: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let sni = sni.map(|s| s.trim_end_matches('.').to_ascii_lowercase());
        let sni = sni.as_deref();
        // `max_by_key` gives the last of equals; reversed, the first listener wins.
        let (_, listener) = self
            .listeners
            .iter()
            .rev()
            .filter(|l| !l.keys.is_empty())
            .filter_map(|l| Some((listener_rank(l.hostname.as_ref(), sni)?, l)))
            .max_by_key(|(rank, _)| *rank)?;
        let named = |exact: bool| {
            listener.keys.iter().find(|k| k.names.iter().any(|n| certificate_names(n, sni.unwrap_or_default(), exact)))
        };
        named(true).or_else(|| named(false)).or_else(|| listener.keys.first()).map(|k| &k.certified)
    }
}

/// How specific a listener's hostname is for a name; none if it is another's. Exact before wildcard, longer wildcard before shorter, all last.
fn listener_rank(hostname: Option<&HostPattern>, sni: Option<&str>) -> Option<usize> {
    match (hostname, sni) {
        (None, _) => Some(0),
        // Gateway API, Listener.hostname: TLS needs "the SNI … to match"; a client that says no name can only get a listener for all.
        (Some(_), None) => None,
        (Some(HostPattern::Exact(h)), Some(s)) => (**h == *s).then_some(usize::MAX),
        (Some(HostPattern::Wildcard(suffix)), Some(s)) => {
            let label = s.strip_suffix(&**suffix)?.strip_suffix('.')?;
            (!label.is_empty()).then_some(suffix.len())
        }
    }
}

/// RFC 6125 §6.4.3: a wildcard in a certificate stands for exactly one, the leftmost, label.
fn certificate_names(name: &str, sni: &str, exact: bool) -> bool {
    match (name.strip_prefix("*."), exact) {
        (None, true) => name == sni,
        (Some(suffix), false) => sni.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix),
        _ => false,
    }
}

fn key(certificate: &Certificate) -> Result<Key, BadCertificate> {
    let bad = |reason: String| BadCertificate { secret: certificate.id.clone(), reason };
    let chain: Vec<_> = certificate.chain.iter().map(|c| CertificateDer::from(c.to_vec())).collect();
    let leaf = chain.first().ok_or_else(|| bad("tls.crt has no certificate".into()))?;
    let parsed = EndEntityCert::try_from(leaf).map_err(|e| bad(format!("tls.crt: {e}")))?;
    let names = parsed.valid_dns_names().map(str::to_ascii_lowercase).collect();
    let der =
        PrivateKeyDer::try_from(certificate.key.secret_der().to_vec()).map_err(|e| bad(format!("tls.key: {e}")))?;
    let signing = crate::provider().key_provider.load_private_key(der).map_err(|e| bad(format!("tls.key: {e}")))?;
    let certified = CertifiedKey::new(chain.clone(), signing);
    certified.keys_match().map_err(|e| bad(format!("tls.key is not the key of tls.crt: {e}")))?;
    Ok(Key { certified: Arc::new(certified), names })
}
