//! A peer that is not what it should be: dials :15008 with any certificate and asks for a tunnel to any address.

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use serde_json::json;
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};
use tokio::net::TcpStream;

#[derive(clap::Args)]
pub struct Flags {
    /// IP:PORT to dial.
    target: std::net::SocketAddr,
    /// PEM chain; none: no client certificate.
    #[arg(long, requires = "key")]
    cert: Option<PathBuf>,
    /// PEM key.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Authority of the CONNECT request.
    #[arg(long)]
    connect: String,
}

/// Takes any server: the rogue tests what the server does.
#[derive(Debug)]
struct AnyServer(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

pub async fn run(flags: Flags) -> Result<String> {
    let outcome = tokio::time::timeout(Duration::from_secs(15), attempt(&flags))
        .await
        .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer in 15 s")));
    Ok(match outcome {
        Ok(status) => json!({"status": status}).to_string(),
        Err(error) => json!({"refused": format!("{error:#}")}).to_string(),
    })
}

/// The status of the CONNECT request.
async fn attempt(flags: &Flags) -> Result<u16> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider)));
    let mut config = match (&flags.cert, &flags.key) {
        (Some(cert), Some(key)) => {
            let chain: Vec<_> = CertificateDer::pem_file_iter(cert)?.collect::<Result<_, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.enable_sni = false;
    let tcp = TcpStream::connect(flags.target).await.context("connect")?;
    let name = ServerName::from(IpAddr::from([0, 0, 0, 0]));
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.context("handshake")?;
    let (sender, connection) = h2::client::handshake(tls).await.context("h2")?;
    tokio::spawn(async move {
        // The response says how it went.
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.context("h2")?;
    let request = http::Request::builder().method("CONNECT").uri(&flags.connect).body(())?;
    let (response, _stream) = sender.send_request(request, false).context("CONNECT")?;
    Ok(response.await.context("CONNECT")?.status().as_u16())
}
