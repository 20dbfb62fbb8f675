//! Why a peer's certificate or handshake is refused: one variant for each rule, so that the log names the rule. It must not check anything.

use mesh_core::identity::{Identity, TrustDomain};
use std::io;

/// The rule that a peer broke. Reaches the log of the side that refuses; the peer only sees a TLS alert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// TLS client authentication was not answered.
    #[error("the peer sent no certificate")]
    NoCertificate,
    /// Not a certificate.
    #[error("the certificate cannot be read: {0}")]
    Malformed(String),
    /// `notAfter` is past.
    #[error("the certificate expired {ago} s ago")]
    Expired {
        /// Seconds since.
        ago: u64,
    },
    /// `notBefore` is still to come.
    #[error("the certificate becomes valid only in {in_seconds} s")]
    NotYetValid {
        /// Seconds until.
        in_seconds: u64,
    },
    /// No path to a root of ours.
    #[error("the certificate's issuer is unknown: no path to a root of this mesh")]
    UnknownIssuer,
    /// A signature of the chain is wrong.
    #[error("a signature in the certificate chain is wrong: a foreign root of the same name, or a forgery")]
    BadSignature,
    /// Any other defect of the chain.
    #[error("the certificate chain is refused: {0}")]
    Chain(String),
    /// X509-SVID §4.1: "leaf certificates MUST set the cA field to false".
    #[error("the leaf is a CA certificate")]
    CaLeaf,
    /// X509-SVID §4.3: leaf certificates "MUST NOT set keyCertSign or cRLSign".
    #[error("the leaf may sign certificates (keyCertSign or cRLSign)")]
    SigningLeaf,
    /// X509-SVID §4.3: leaf certificates "MUST set digitalSignature".
    #[error("the leaf's key usage lacks digitalSignature")]
    NoDigitalSignature,
    /// Extended key usage excludes this role.
    #[error("the certificate's extended key usage does not allow this side of TLS")]
    Purpose,
    /// No subject alternative name at all.
    #[error("the certificate has no subject alternative name")]
    NoSan,
    /// Names, but none is a URI.
    #[error("the certificate has no URI among its {names} subject alternative names")]
    NoUriSan {
        /// How many names of other kinds.
        names: usize,
    },
    /// X509-SVID §2: "An X.509 SVID MUST contain exactly one URI SAN".
    #[error("the certificate has {0} URI names; a SPIFFE certificate has exactly one")]
    UriSans(usize),
    /// The URI is not a SPIFFE ID, or not one of a workload of ours.
    #[error("the certificate's name is not an identity: {0}")]
    NotIdentity(String),
    /// Another trust domain.
    #[error("{found} is not of our trust domain {ours}")]
    TrustDomain {
        /// Who the peer says it is.
        found: Identity,
        /// The only trust domain that we accept.
        ours: TrustDomain,
    },
    /// A valid peer, but another one.
    #[error("expected {expected}, but the peer is {found}")]
    WrongIdentity {
        /// The destination's identity.
        expected: Identity,
        /// Who answered.
        found: Identity,
    },
    /// Something else than HTTP/2 was agreed.
    #[error("the peer did not agree on ALPN h2")]
    Alpn,
    /// The handshake is not over, so nothing is proven.
    #[error("the TLS handshake is not complete")]
    Unfinished,
    /// No common version or parameters: TLS 1.2, for example.
    #[error("the peer's TLS is not acceptable here: {0}")]
    Incompatible(String),
    /// The peer refused us and said so.
    #[error("the peer refused us with alert {0}")]
    ByPeer(String),
}

impl Refusal {
    /// Bounded label for metrics.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Malformed(_) => "malformed",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Chain(_) => "chain",
            Self::CaLeaf => "ca_leaf",
            Self::SigningLeaf => "signing_leaf",
            Self::NoDigitalSignature => "no_digital_signature",
            Self::Purpose => "purpose",
            Self::NoSan => "no_san",
            Self::NoUriSan { .. } => "no_uri_san",
            Self::UriSans(_) => "uri_sans",
            Self::NotIdentity(_) => "not_identity",
            Self::TrustDomain { .. } => "trust_domain",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::Alpn => "alpn",
            Self::Unfinished => "unfinished",
            Self::Incompatible(_) => "incompatible",
            Self::ByPeer(_) => "by_peer",
        }
    }
}

/// Wrapped so that [`refusal_of`] finds it again behind the TLS stack.
impl From<Refusal> for rustls::Error {
    fn from(refusal: Refusal) -> Self {
        Self::InvalidCertificate(rustls::CertificateError::Other(rustls::OtherError(std::sync::Arc::new(refusal))))
    }
}

/// The refusal behind a failed handshake; none if it failed for another reason (a reset, say).
pub fn refusal_of(error: &io::Error) -> Option<Refusal> {
    error.get_ref()?.downcast_ref::<rustls::Error>().and_then(refusal_of_tls)
}

/// Likewise for an error of the TLS stack itself.
pub fn refusal_of_tls(error: &rustls::Error) -> Option<Refusal> {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(rustls::CertificateError::Other(other)) => other.0.downcast_ref::<Refusal>().cloned(),
        E::InvalidCertificate(other) => Some(Refusal::Chain(other.to_string())),
        E::NoCertificatesPresented => Some(Refusal::NoCertificate),
        E::PeerIncompatible(what) => Some(Refusal::Incompatible(format!("{what:?}"))),
        E::NoApplicationProtocol => Some(Refusal::Alpn),
        E::AlertReceived(alert) => Some(Refusal::ByPeer(format!("{alert:?}"))),
        _ => None,
    }
}
