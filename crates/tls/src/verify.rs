//! Strict SPIFFE verification of a peer's chain, and its two faces for rustls. It must not know where certificates come from.

use crate::{Refusal, leaf};
use mesh_core::identity::{Identity, TrustDomain};
use rustls::{
    DigitallySignedStruct, DistinguishedName, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, TrustAnchor, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::sync::Arc;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

/// Whom we trust: the roots that came with an SVID and its trust domain. Nothing else vouches for a peer.
#[derive(Debug)]
pub struct Rules {
    roots: Vec<TrustAnchor<'static>>,
    trust_domain: TrustDomain,
}

/// The peer's side of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The peer dialled us.
    Client,
    /// We dialled the peer.
    Server,
}

impl Rules {
    /// Takes roots as DER certificates; several while a root is rotated.
    pub fn new(roots: &[CertificateDer<'_>], trust_domain: TrustDomain) -> Result<Self, Refusal> {
        let roots = roots
            .iter()
            .map(|r| anchor_from_trusted_cert(r).map(|a| a.to_owned()).map_err(|e| Refusal::Malformed(e.to_string())))
            .collect::<Result<_, _>>()?;
        Ok(Self { roots, trust_domain })
    }

    /// Who the chain proves the peer to be. `expected`: the only acceptable answer, if there is one.
    pub fn check(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        side: Side,
        expected: Option<&Identity>,
    ) -> Result<Identity, Refusal> {
        let cert = EndEntityCert::try_from(end_entity).map_err(chain_refusal)?;
        let usage = match side {
            Side::Client => KeyUsage::client_auth(),
            Side::Server => KeyUsage::server_auth(),
        };
        let algorithms = crate::provider().signature_verification_algorithms.all;
        cert.verify_for_usage(algorithms, &self.roots, intermediates, now, usage, None, None).map_err(chain_refusal)?;
        let found = leaf::read(end_entity)?.identity;
        if found.trust_domain != self.trust_domain {
            return Err(Refusal::TrustDomain { found, ours: self.trust_domain.clone() });
        }
        match expected {
            Some(expected) if *expected != found => Err(Refusal::WrongIdentity { expected: expected.clone(), found }),
            _ => Ok(found),
        }
    }
}

fn chain_refusal(error: webpki::Error) -> Refusal {
    use webpki::Error as E;
    match error {
        E::CertExpired { time, not_after } => {
            Refusal::Expired { ago: time.as_secs().saturating_sub(not_after.as_secs()) }
        }
        E::CertNotValidYet { time, not_before } => {
            Refusal::NotYetValid { in_seconds: not_before.as_secs().saturating_sub(time.as_secs()) }
        }
        E::CaUsedAsEndEntity => Refusal::CaLeaf,
        E::UnknownIssuer => Refusal::UnknownIssuer,
        E::InvalidSignatureForPublicKey => Refusal::BadSignature,
        E::RequiredEkuNotFoundContext(_) => Refusal::Purpose,
        E::BadDer | E::BadDerTime | E::MalformedExtensions | E::TrailingData(_) | E::InvalidCertValidity => {
            Refusal::Malformed(error.to_string())
        }
        other => Refusal::Chain(other.to_string()),
    }
}

/// Checks the server that we dialled: it must be exactly the expected identity. The name that was dialled means nothing.
#[derive(Debug)]
pub(crate) struct ServerRules {
    pub(crate) rules: Arc<Rules>,
    pub(crate) expected: Identity,
}

/// Checks a client: any workload of our trust domain; what it may do is decided elsewhere.
#[derive(Debug)]
pub(crate) struct ClientRules {
    pub(crate) rules: Arc<Rules>,
}

impl ServerCertVerifier for ServerRules {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.rules.check(end_entity, intermediates, now, Side::Server, Some(&self.expected))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &crate::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crate::provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for ClientRules {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // No hints: a peer has one certificate, and who we trust is nobody's business.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.rules.check(end_entity, intermediates, now, Side::Client, None)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &crate::provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        crate::provider().signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is never negotiated; should it be, nothing signed with it counts.
fn no_tls12() -> rustls::Error {
    Refusal::Incompatible("TLS 1.2".into()).into()
}
