//! The way to the controller: TLS to its pinned authority, and the token that says who we are. It must not know what is said over it.

use arc_swap::ArcSwapOption;
use mesh_core::mesh::Roots;
use mesh_tls::x509::encode_certificates;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::time::timeout;
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

/// TCP, TLS and the HTTP/2 preface: a controller that takes longer counts as gone.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A silent controller is asked whether it lives, so that one that vanished without a word is noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// And has so long to say so.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// The name in the controller's certificate. Its address may be anything; its authority signs this name for nobody else.
const SERVER_NAME: &str = "mesh-controller";
/// A CA bundle or a token that is longer is the wrong file.
const FILE_LONGEST: u64 = 256 * 1024;

/// Where the controller is and what is needed to speak with it.
#[derive(Clone, Debug)]
pub struct Link {
    controller: Arc<str>,
    authority: Arc<Path>,
    token: Arc<Path>,
    told: Arc<ArcSwapOption<Roots>>,
}

/// Why the controller cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum LinkFault {
    /// A file that is needed.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// The token is not one.
    #[error("{path} holds no token: a token is one line of visible ASCII")]
    Token {
        /// The file.
        path: PathBuf,
    },
    /// The URL is not one.
    #[error("controller {controller:?} is not a URL to connect to: {source}")]
    Url {
        /// As given.
        controller: Arc<str>,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// No connection.
    #[error("{controller} cannot be reached: {reason}")]
    Unreachable {
        /// As given.
        controller: Arc<str>,
        /// Why: the whole chain of causes.
        reason: String,
    },
}

impl Link {
    /// `controller`: `https://HOST:PORT`. Both files are read at each connect, so that they can be replaced while running. The file of the authority
    /// may lag behind a root that is being replaced, so the roots that the controller itself told last count beside it.
    pub fn new(controller: &str, authority: impl Into<PathBuf>, token: impl Into<PathBuf>) -> Self {
        let (authority, token) = (authority.into().into(), token.into().into());
        Self { controller: controller.into(), authority, token, told: Arc::default() }
    }

    /// Remembers roots that an authentic controller told. All clones of the link know of it.
    pub fn trust(&self, roots: &Arc<Roots>) {
        let newer = |known: &Arc<Roots>| known.revision >= roots.revision;
        if !self.told.load().as_ref().is_some_and(newer) {
            self.told.store(Some(roots.clone()));
        }
    }

    /// A new connection. Dropping the future closes it.
    pub async fn connect(&self) -> Result<Channel, LinkFault> {
        let mut trusted = vec![Certificate::from_pem(read(&self.authority).await?)];
        if let Some(roots) = &*self.told.load() {
            trusted.push(Certificate::from_pem(encode_certificates(roots.certificates.iter().map(|der| &**der))));
        }
        let tls = ClientTlsConfig::new().ca_certificates(trusted).domain_name(SERVER_NAME);
        let url = |source| LinkFault::Url { controller: self.controller.clone(), source };
        let endpoint = Endpoint::from_shared(self.controller.to_string()).map_err(url)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tls_config(tls)
            .map_err(url)?;
        let unreachable = |reason| LinkFault::Unreachable { controller: self.controller.clone(), reason };
        match timeout(CONNECT_TIMEOUT, endpoint.connect()).await {
            Ok(connected) => connected.map_err(|e| unreachable(causes(&e))),
            Err(_) => Err(unreachable(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()))),
        }
    }

    /// A request that says who we are. The token is read anew, because it is replaced from time to time.
    pub async fn request<T>(&self, message: T) -> Result<Request<T>, LinkFault> {
        let text = read(&self.token).await?;
        let no_token = || LinkFault::Token { path: self.token.to_path_buf() };
        let token = std::str::from_utf8(&text).map_err(|_| no_token())?.trim();
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {token}").parse().map_err(|_| no_token())?;
        if token.is_empty() {
            return Err(no_token());
        }
        bearer.set_sensitive(true);
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", bearer);
        Ok(request)
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, LinkFault> {
    let bounded = async {
        if tokio::fs::metadata(path).await?.len() > FILE_LONGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("is longer than {FILE_LONGEST} bytes")));
        }
        tokio::fs::read(path).await
    };
    bounded.await.map_err(|source| LinkFault::File { path: path.into(), source })
}

/// An error with all its causes: the top one of the transport says only "transport error".
pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |e| e.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
