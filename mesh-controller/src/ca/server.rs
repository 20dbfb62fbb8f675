//! The controller's own TLS: a certificate of its authority, made anew before it ends and whenever the authority changes. It must not know what is served.

use super::{CertificateAuthority, Standing};
use arc_swap::ArcSwap;
use mesh_tls::x509::AuthorityFault;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS13,
};
use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// A peer that connects and does not finish its TLS handshake in this time goes.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the backlog. A cluster's nodes may all come back at one moment.
const HANDSHAKES: usize = 256;
/// Finished handshakes that wait to be served.
const ACCEPTED: usize = 64;
/// After a failed accept (no file descriptors left, say) or a failed signature.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest sleep: the wall clock that certificates live by may jump.
const NAP: Duration = Duration::from_secs(60);

/// The certificate that new connections are shown.
pub struct Server {
    authority: Arc<dyn CertificateAuthority>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    shown: Arc<Shown>,
}

/// A connection whose handshake is done.
pub struct Accepted(TlsStream<TcpStream>);

impl Connected for Accepted {
    type ConnectInfo = ();

    /// Callers are known by their tokens; an address proves nothing.
    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Accepted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, into)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Debug)]
struct Shown(ArcSwap<(Arc<CertifiedKey>, SystemTime)>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load().0.clone())
    }
}

impl Server {
    /// Has a first certificate for these names.
    pub fn new(
        authority: Arc<dyn CertificateAuthority>,
        names: Vec<String>,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, AuthorityFault> {
        let first = make(&*authority, &names, &addresses)?;
        Ok(Self { authority, names, addresses, shown: Arc::new(Shown(ArcSwap::from_pointee(first))) })
    }

    /// Finished TLS connections of a listener, as long as somebody takes them.
    pub fn accept(&self, listener: TcpListener) -> io::Result<ReceiverStream<io::Result<Accepted>>> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![b"h2".to_vec()];
        let (accepted, connections) = mpsc::channel(ACCEPTED);
        tokio::spawn(accept(listener, TlsAcceptor::from(Arc::new(config)), accepted));
        Ok(ReceiverStream::new(connections))
    }

    /// Makes it anew in time, for ever.
    pub async fn keep(self) {
        let mut standing = self.authority.standing();
        let mut signer = standing.borrow_and_update().signer;
        let mut half = half_life(self.shown.0.load().1);
        loop {
            tokio::select! {
                () = until(half) => {}
                () = another(&mut standing, &mut signer) => {}
            }
            match make(&*self.authority, &self.names, &self.addresses) {
                Ok(made) => {
                    half = half_life(made.1);
                    self.shown.0.store(Arc::new(made));
                    tracing::info!("the controller's own certificate is made anew");
                }
                Err(error) => {
                    tracing::error!(%error, "the controller's own certificate cannot be made; the old one serves on");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}

fn make(
    authority: &dyn CertificateAuthority,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<(Arc<CertifiedKey>, SystemTime), AuthorityFault> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let made = authority.server_certificate(&names, addresses)?;
    let certified = made.certified().map_err(|e| AuthorityFault::Signing(e.to_string()))?;
    Ok((Arc::new(certified), made.not_after))
}

fn half_life(end: SystemTime) -> SystemTime {
    let now = SystemTime::now();
    // Near its end an authority signs certificates that end with it: then there is nothing to gain by hurrying.
    now + (end.duration_since(now).unwrap_or_default() / 2).max(PAUSE)
}

async fn until(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        sleep(left.min(NAP)).await;
    }
}

/// Ends when another signer signs.
async fn another(standing: &mut watch::Receiver<Standing>, signer: &mut [u8; 32]) {
    loop {
        if standing.changed().await.is_err() {
            return std::future::pending().await;
        }
        let now = standing.borrow_and_update().signer;
        if now != *signer {
            *signer = now;
            return;
        }
    }
}

async fn accept(listener: TcpListener, tls: TlsAcceptor, accepted: mpsc::Sender<io::Result<Accepted>>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            () = accepted.closed() => return,
        };
        match stream {
            Ok((stream, peer)) => {
                let (tls, accepted) = (tls.clone(), accepted.clone());
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    let done = timeout(HANDSHAKE, tls.accept(stream)).await;
                    drop(permit);
                    match done {
                        Ok(Ok(stream)) => drop(accepted.send(Ok(Accepted(stream))).await),
                        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}
