//! Forges certificates and TLS peers that break rules. It must not be used outside tests.

use mesh_core::identity::Identity;
use mesh_tls::{Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName as Dn, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use zeroize::Zeroizing;

pub fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// What a forged leaf says. The default is a good one of `shop/cart`.
#[derive(Clone)]
pub struct Recipe {
    pub uris: Vec<String>,
    pub dns: Vec<String>,
    pub ca: bool,
    pub usages: Vec<KeyUsagePurpose>,
    pub purposes: Vec<ExtendedKeyUsagePurpose>,
    /// Start and end, in seconds from now.
    pub valid: (i64, i64),
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            uris: vec!["spiffe://cluster.local/ns/shop/sa/cart".into()],
            dns: vec![],
            ca: false,
            usages: vec![KeyUsagePurpose::DigitalSignature],
            purposes: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            valid: (-60, 3600),
        }
    }
}

/// A root that signs anything.
pub struct Forge {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A chain and its key.
#[derive(Clone)]
pub struct Forged {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: Vec<u8>,
}

impl Forge {
    pub fn new() -> Self {
        Self::named("forge")
    }

    pub fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { root: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.der().clone()]
    }

    pub fn leaf(&self, recipe: &Recipe) -> Forged {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "forged");
        params.is_ca = match recipe.ca {
            true => IsCa::Ca(BasicConstraints::Unconstrained),
            false => IsCa::ExplicitNoCa,
        };
        params.key_usages = recipe.usages.clone();
        params.extended_key_usages = recipe.purposes.clone();
        params.subject_alt_names = recipe.uris.iter().map(|u| SanType::URI(u.as_str().try_into().unwrap())).collect();
        params.subject_alt_names.extend(recipe.dns.iter().map(|d| SanType::DnsName(d.as_str().try_into().unwrap())));
        (params.not_before, params.not_after) = (from_now(recipe.valid.0).into(), from_now(recipe.valid.1).into());
        let leaf = params.signed_by(&key, &self.root).unwrap();
        Forged { chain: vec![leaf.der().clone()], key: key.serialize_der() }
    }

    pub fn svid(&self, identity: &str) -> Svid {
        let forged = self.leaf(&Recipe { uris: vec![identity.into()], ..Recipe::default() });
        Svid::new(id(identity), forged.chain, Zeroizing::new(forged.key), self.roots()).unwrap()
    }
}

fn from_now(seconds: i64) -> SystemTime {
    let by = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

/// A source that hands out SVIDs of a forge, made by `make`.
pub struct Forging<F>(pub F);

impl<F: Fn(&Identity) -> Svid + Send + Sync + 'static> SvidSource for Forging<F> {
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a> {
        Box::pin(async move { Ok((self.0)(identity)) })
    }
}

/// The real authority in process, which can be made to fail.
pub struct Signing {
    pub authority: Authority,
    pub lifetime: Duration,
    pub down: AtomicBool,
    pub asked: AtomicUsize,
    pub signed: AtomicUsize,
}

impl Signing {
    pub fn new(dir: &std::path::Path, lifetime: Duration) -> Arc<Self> {
        let authority = Authority::load_or_create(dir).unwrap();
        let (down, asked, signed) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { authority, lifetime, down, asked, signed })
    }
}

impl SvidSource for Signing {
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.down.load(Ordering::SeqCst) {
                return Err(FetchFault::Unreachable("it is down".into()));
            }
            let request = KeyRequest::new(identity).unwrap();
            let signed = self.authority.sign(request.csr(), identity, self.lifetime).unwrap();
            let svid = Svid::new(identity.clone(), signed.chain, request.into_key(), self.authority.roots());
            self.signed.fetch_add(1, Ordering::SeqCst);
            svid.map_err(|e| FetchFault::Unusable(e.to_string()))
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn key(forged: &Forged) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(forged.key.clone()))
}

/// A server that shows a forged chain and takes any client.
pub fn careless_server(forged: &Forged, versions: &[&'static SupportedProtocolVersion]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_client_cert_verifier(Arc::new(Careless))
        .with_single_cert(forged.chain.clone(), key(forged))
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A client that shows a forged chain, or none, and takes any server.
pub fn careless_client(forged: Option<&Forged>, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Careless));
    let mut config = match forged {
        Some(forged) => config.with_client_auth_cert(forged.chain.clone(), key(forged)).unwrap(),
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    Arc::new(config)
}

/// Believes everybody.
#[derive(Debug)]
struct Careless;

impl ServerCertVerifier for Careless {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Careless {
    fn root_hint_subjects(&self) -> &[Dn] {
        &[]
    }
    fn client_auth_mandatory(&self) -> bool {
        false
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
