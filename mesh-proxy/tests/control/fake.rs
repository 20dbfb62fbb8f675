//! A controller that says what the test tells it to, over real TLS on loopback, and can be killed. It must not be clever.

use mesh_core::{
    identity::TrustDomain,
    mesh::{AccessLog, Limits, MeshSettings, Mode, Service},
    name::NsName,
    node::Resource,
};
use mesh_proxy::control::Link;
use mesh_tls::Authority;
use mesh_wire::{encode, proto};
use proto::{
    Ack, Delta, Hello, SignRequest, SignResponse, ToController, ToProxy,
    config_server::{Config, ConfigServer},
    identity_server::{Identity, IdentityServer},
    to_controller::Message,
};
use std::{
    io::ErrorKind,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{Mutex, mpsc},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, ServerTlsConfig},
};

/// Numbers the fakes of this process.
static FAKES: AtomicU8 = AtomicU8::new(0);

pub const TOKEN: &str = "the-token-of-node-n1";

pub fn settings() -> proto::Resource {
    encode(&Resource::Settings(Arc::new(MeshSettings {
        name: "heddle".into(),
        trust_domain: TrustDomain::new("cluster.local").unwrap(),
        mode: Some(Mode::Strict),
        svid_lifetime: Duration::from_secs(3600),
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    })))
}

pub fn service(name: &str) -> proto::Resource {
    let id = NsName::new("shop", name);
    encode(&Resource::Service(Arc::new(Service { id, addresses: vec![[10, 0, 0, 1].into()], ports: vec![] })))
}

/// The test's side.
pub struct Fake {
    dir: tempfile::TempDir,
    address: SocketAddr,
    runtime: Option<Runtime>,
    shared: Arc<Wires>,
    heard: mpsc::Receiver<ToController>,
    nonce: u64,
}

/// Between the test and the sessions.
struct Wires {
    authority: Authority,
    heard: mpsc::Sender<ToController>,
    /// Where the newest session sends.
    say: Mutex<Option<mpsc::Sender<Result<ToProxy, Status>>>>,
}

impl Fake {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        let (sender, heard) = mpsc::channel(1024);
        let shared = Arc::new(Wires { authority, heard: sender, say: Mutex::default() });
        // A loopback address of its own: nobody's outgoing connection takes the port between a kill and a restart.
        let host = Ipv4Addr::new(127, 77, 0, 1 + FAKES.fetch_add(1, Ordering::Relaxed));
        let listener = std::net::TcpListener::bind((host, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut fake = Self { dir, address, runtime: None, shared, heard, nonce: 0 };
        fake.write_token(TOKEN);
        fake.restart().await;
        fake
    }

    /// A runtime of its own, because only its end closes connections as a killed process does.
    pub async fn restart(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (address, shared) = (self.address, self.shared.clone());
        let certificate = shared.authority.server_certificate(&["mesh-controller"], &[address.ip()]).unwrap();
        let identity = tonic::transport::Identity::from_pem(certificate.chain_pem(), certificate.key_pem().as_bytes());
        let (up, is_up) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let listener = listen(address).await;
            up.send(()).unwrap();
            let mut server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity)).unwrap();
            let server = server
                .add_service(ConfigServer::from_arc(shared.clone()))
                .add_service(IdentityServer::from_arc(shared));
            server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap();
        });
        is_up.await.unwrap();
        self.runtime = Some(runtime);
        self.nonce = 0;
    }

    /// As SIGKILL: connections are reset, nobody is told.
    pub fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
        *self.shared.say.try_lock().unwrap() = None;
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    pub fn token_path(&self) -> PathBuf {
        self.dir.path().join("token")
    }

    pub fn write_token(&self, token: &str) {
        std::fs::write(self.token_path(), format!("{token}\n")).unwrap();
    }

    pub fn link(&self) -> Link {
        Link::new(&self.url(), self.dir.path().join("ca.crt"), self.token_path())
    }

    async fn next(&mut self) -> Message {
        timeout(super::DEADLINE, self.heard.recv()).await.unwrap().unwrap().message.unwrap()
    }

    pub async fn hello(&mut self) -> Hello {
        self.hello_with(|_| true).await
    }

    /// The next Hello that is as wanted; others and Acks before it are passed over.
    pub async fn hello_with(&mut self, wanted: impl Fn(&Hello) -> bool) -> Hello {
        loop {
            match self.next().await {
                Message::Hello(hello) if wanted(&hello) => return hello,
                _ => {}
            }
        }
    }

    /// The next Ack; a Hello before it is passed over.
    pub async fn ack(&mut self) -> Ack {
        loop {
            if let Message::Ack(ack) = self.next().await {
                return ack;
            }
        }
    }

    /// Sends on the newest session, once there is one.
    pub async fn delta(&mut self, upserts: Vec<proto::Resource>, removes: &[&str], synced: bool) {
        self.nonce += 1;
        let removes = removes.iter().map(|r| (*r).to_owned()).collect();
        let delta = Delta { nonce: self.nonce, upserts, removes, synced };
        let message = ToProxy { message: Some(proto::to_proxy::Message::Delta(delta)) };
        let session = async {
            loop {
                if let Some(say) = self.shared.say.lock().await.clone() {
                    return say;
                }
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(super::DEADLINE, session).await.unwrap().send(Ok(message)).await.unwrap();
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A killed runtime lets go of its listener a moment later.
async fn listen(address: SocketAddr) -> TcpListener {
    let end = Instant::now() + super::DEADLINE;
    loop {
        match TcpListener::bind(address).await {
            Err(e) if e.kind() == ErrorKind::AddrInUse && Instant::now() < end => {
                sleep(Duration::from_millis(10)).await
            }
            bound => return bound.unwrap(),
        }
    }
}

fn authenticate<T>(request: &Request<T>) -> Result<(), Status> {
    let token = request.metadata().get("authorization").and_then(|v| v.to_str().ok());
    if token == Some(&format!("Bearer {TOKEN}")) { Ok(()) } else { Err(Status::unauthenticated("unknown token")) }
}

#[tonic::async_trait]
impl Config for Wires {
    type StreamStream = ReceiverStream<Result<ToProxy, Status>>;

    async fn stream(&self, request: Request<Streaming<ToController>>) -> Result<Response<Self::StreamStream>, Status> {
        authenticate(&request)?;
        let (say, stream) = mpsc::channel(16);
        *self.say.lock().await = Some(say);
        let (mut incoming, heard) = (request.into_inner(), self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(message)) = incoming.message().await {
                heard.send(message).await.unwrap();
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Identity for Wires {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        authenticate(&request)?;
        let SignRequest { csr, identity } = request.into_inner();
        let identity: mesh_core::identity::Identity = identity.parse().unwrap();
        if &*identity.namespace != "shop" {
            return Err(Status::permission_denied(format!("no pod of node/n1 is {identity}")));
        }
        let signed = self.authority.sign(&csr, &identity, Duration::from_secs(60)).unwrap();
        let roots = self.authority.roots();
        let der = |all: &[rustls::pki_types::CertificateDer<'_>]| all.iter().map(|c| c.to_vec()).collect();
        Ok(Response::new(SignResponse { chain: der(&signed.chain), roots: der(&roots), revision: 0 }))
    }
}
