//! A server on :15008 that is not who is expected there: TLS with any certificate; it says what a client that believed it would have sent.

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::{path::PathBuf, sync::Arc};
use tokio::{io::AsyncReadExt, net::TcpListener};

#[derive(clap::Args)]
pub struct Flags {
    /// IP:PORT to listen on.
    listen: std::net::SocketAddr,
    /// PEM chain.
    #[arg(long)]
    cert: PathBuf,
    /// PEM key.
    #[arg(long)]
    key: PathBuf,
}

/// Serves until stdin ends; then the number of handshakes and of bytes that clients sent after theirs.
pub async fn run(flags: Flags) -> Result<String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&flags.cert)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&flags.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(flags.listen).await.with_context(|| format!("listen on {}", flags.listen))?;
    let (mut dialled, mut believed) = (0_u64, 0_u64);
    let mut end = std::pin::pin!(crate::stdin_ends());
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut end => return Ok(json!({"dialled": dialled, "believed": believed}).to_string()),
        };
        dialled += 1;
        // A client that refuses the certificate ends the handshake; one that does not sends the preface of HTTP/2.
        if let Ok(mut tls) = acceptor.accept(stream).await {
            let mut preface = [0_u8; 24];
            believed += u64::from(tls.read_exact(&mut preface).await.is_ok());
        }
    }
}
