//! A peer that is not what it should be: dials :15008 with any certificate and asks for a tunnel to any address.

use anyhow::{Context, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
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
    // The rogue tests what the server does.
    let builder = mesh_tls::unverified::client();
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
