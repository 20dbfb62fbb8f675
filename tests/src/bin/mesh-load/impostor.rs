//! A server on :15008 that is not who is expected there, or not well: TLS with any certificate; it says what a client that believed it would
//! have sent, or falls silent at a chosen point.

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::json;
use std::{path::PathBuf, sync::Arc};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

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
    /// Where to fall silent.
    #[arg(long, value_enum, default_value_t = Stall::Never)]
    stall: Stall,
}

/// How far it goes before it says nothing any more, though it stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Stall {
    /// Ends each connection once it has seen whether it was believed.
    Never,
    /// Half of its part of the TLS handshake.
    Handshake,
    /// All of TLS, but not a word of HTTP/2.
    Http2,
    /// All of HTTP/2, PINGs too, but no answer to a request.
    Answer,
}

/// Serves until stdin ends; then the number of handshakes and of bytes that clients sent after theirs.
pub async fn run(flags: Flags) -> Result<String> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(&flags.cert)?.collect::<Result<_, _>>()?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&flags.key)?)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(flags.listen).await.with_context(|| format!("listen on {}", flags.listen))?;
    let (mut dialled, mut believed) = (0_u64, 0_u64);
    let config = acceptor.config().clone();
    let mut end = std::pin::pin!(crate::stdin_ends());
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted?,
            () = &mut end => return Ok(json!({"dialled": dialled, "believed": believed}).to_string()),
        };
        dialled += 1;
        if flags.stall != Stall::Never {
            // Ends with the process.
            tokio::spawn(stall(stream, acceptor.clone(), config.clone(), flags.stall));
            continue;
        }
        // A client that refuses the certificate ends the handshake; one that does not sends the preface of HTTP/2.
        if let Ok(mut tls) = acceptor.accept(stream).await {
            let mut preface = [0_u8; 24];
            believed += u64::from(tls.read_exact(&mut preface).await.is_ok());
        }
    }
}

/// Goes as far as it is told and then holds the connection, whatever the client does.
async fn stall(mut stream: TcpStream, acceptor: TlsAcceptor, config: Arc<ServerConfig>, at: Stall) -> Result<()> {
    match at {
        Stall::Never => {}
        Stall::Handshake => {
            let mut tls = rustls::ServerConnection::new(config)?;
            let mut read = [0; 4096];
            while !tls.wants_write() {
                let n = stream.read(&mut read).await?;
                tls.read_tls(&mut &read[..n])?;
                tls.process_new_packets()?;
            }
            let mut ours = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut ours)?;
            }
            stream.write_all(&ours[..ours.len() / 2]).await?;
            std::future::pending::<()>().await;
        }
        Stall::Http2 => {
            let _silent = acceptor.accept(stream).await?;
            std::future::pending::<()>().await;
        }
        Stall::Answer => {
            let mut connection = h2::server::handshake(acceptor.accept(stream).await?).await?;
            let mut held = Vec::new();
            while let Some(request) = connection.accept().await {
                held.push(request?);
            }
        }
    }
    Ok(())
}
