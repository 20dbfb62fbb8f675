//! The real program over its real doors: folder in, TLS and gRPC out, status file, exit codes. It must not reach into the library.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, wherever it stands")]

use mesh_core::node::Resource;
use mesh_wire::proto::{
    Ack, Delta, Hello, ToController, ToProxy, config_client::ConfigClient, to_controller::Message, to_proxy,
};
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint},
};

const TOKEN: &str = "0123456789abcdef";
const DEADLINE: Duration = Duration::from_secs(30);

/// A controller on a folder of its own; killed when dropped.
struct Controller {
    dir: tempfile::TempDir,
    address: SocketAddr,
    child: Child,
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn service(name: &str, address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  clusterIP: {address}\n  ports:\n  - port: 80\n"
    )
}

fn start(dir: &Path, address: SocketAddr) -> Child {
    let path = |name: &str| dir.join(name);
    Command::new(env!("CARGO_BIN_EXE_mesh-controller"))
        .arg("--folder")
        .arg(path("user"))
        .arg("--folder")
        .arg(path("live"))
        .arg("--state")
        .arg(path("state"))
        .arg("--tokens")
        .arg(path("tokens"))
        .arg("--status-file")
        .arg(path("status.json"))
        .args(["--listen", &address.to_string(), "--admin", &free_address().to_string(), "--log", "warn"])
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

impl Controller {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["user", "live"] {
            fs::create_dir(dir.path().join(folder)).unwrap();
        }
        fs::write(dir.path().join("tokens"), format!("{TOKEN} node/n1\n")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let address = free_address();
        let child = start(dir.path(), address);
        Self { dir, address, child }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = start(self.dir.path(), self.address);
    }

    /// Asks the program to stop, and says its exit code.
    fn stop(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap().code()
    }

    async fn channel(&self) -> Channel {
        let end = Instant::now() + DEADLINE;
        loop {
            if let Ok(root) = fs::read(self.path("state/ca.crt")) {
                let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(root));
                let endpoint = Endpoint::from_shared(format!("https://{}", self.address)).unwrap();
                if let Ok(channel) = endpoint.tls_config(tls).unwrap().connect().await {
                    return channel;
                }
            }
            assert!(Instant::now() < end, "the controller does not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A proxy: addresses of Services by resource id, with versions.
struct Proxy {
    out: mpsc::Sender<ToController>,
    incoming: Streaming<ToProxy>,
    held: BTreeMap<String, (u64, Option<IpAddr>)>,
    received: usize,
}

impl Proxy {
    async fn connect(
        controller: &Controller,
        token: &str,
        held: BTreeMap<String, (u64, Option<IpAddr>)>,
    ) -> Result<Self, Status> {
        let (out, messages) = mpsc::channel(8);
        let known = held.iter().map(|(id, (version, _))| (id.clone(), *version)).collect();
        let hello = Hello { protocol: 1, proxy: "node/n1".into(), known };
        out.send(ToController { message: Some(Message::Hello(hello)) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let incoming = ConfigClient::new(controller.channel().await).stream(request).await?.into_inner();
        Ok(Self { out, incoming, held, received: 0 })
    }

    async fn hear(&mut self) -> bool {
        let message = tokio::time::timeout(DEADLINE, self.incoming.message()).await.expect("in time");
        let to_proxy::Message::Delta(Delta { nonce, upserts, removes, synced }) =
            message.unwrap().unwrap().message.unwrap();
        for resource in upserts {
            let (id, version) = (resource.id.clone(), resource.version);
            let address = match mesh_wire::decode(resource).unwrap() {
                Resource::Service(service) => service.addresses.first().copied(),
                _ => None,
            };
            self.held.insert(id, (version, address));
            self.received += 1;
        }
        removes.iter().for_each(|id| {
            self.held.remove(id);
        });
        let ack = Ack { nonce, errors: vec![] };
        self.out.send(ToController { message: Some(Message::Ack(ack)) }).await.unwrap();
        synced
    }

    async fn sync(&mut self) {
        while !self.hear().await {}
    }

    fn address(&self, service: &str) -> Option<String> {
        self.held.get(&format!("Service/shop/{service}"))?.1.map(|a| a.to_string())
    }
}

fn status(controller: &Controller, holds: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
    let end = Instant::now() + DEADLINE;
    loop {
        let text = fs::read_to_string(controller.path("status.json")).unwrap_or_default();
        let status = serde_json::from_str(&text).unwrap_or_default();
        if holds(&status) {
            return status;
        }
        assert!(Instant::now() < end, "{status:#}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_edit_reaches_a_proxy_and_a_broken_one_does_not() {
    let mut controller = Controller::new(&[
        ("user/a.yaml", &format!("{}---\n{}", service("a", "10.0.0.1"), service("b", "10.0.0.2"))),
        ("live/a.json", "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"shop\"}}"),
    ]);
    let mut proxy = Proxy::connect(&controller, TOKEN, BTreeMap::new()).await.unwrap();
    proxy.sync().await;
    assert_eq!((proxy.address("a").as_deref(), proxy.address("b").as_deref()), (Some("10.0.0.1"), Some("10.0.0.2")));

    // The longest of several saves: one alone may just have met a busy machine.
    let mut fastest = Duration::MAX;
    for i in 11..16 {
        let edited = format!("{}---\n{}", service("a", &format!("10.0.0.{i}")), service("b", "10.0.0.2"));
        fs::write(controller.path("user/a.yaml"), edited).unwrap();
        let saved = Instant::now();
        proxy.hear().await;
        fastest = fastest.min(saved.elapsed());
        assert_eq!(proxy.address("a"), Some(format!("10.0.0.{i}")));
    }
    assert!(fastest < Duration::from_millis(100), "a saved edit took {fastest:?} to the proxy");

    let broken = format!("{}---\n{}", service("a", "10.0.0.300"), service("b", "10.0.0.22"));
    fs::write(controller.path("user/a.yaml"), broken).unwrap();
    proxy.hear().await;
    assert_eq!((proxy.address("a").as_deref(), proxy.address("b").as_deref()), (Some("10.0.0.15"), Some("10.0.0.22")));
    let said = status(&controller, |s| s["problems"][0].is_object());
    let problem = &said["problems"][0];
    assert_eq!(
        (&problem["line"], &problem["object"], &problem["field"], &problem["reason"]),
        (&5.into(), &"Service shop/a".into(), &"spec.clusterIP".into(), &"\"10.0.0.300\" is not an IP address".into())
    );
    assert_eq!(controller.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_controller_comes_back_with_the_same_root_and_resends_nothing_known() {
    let mut controller = Controller::new(&[("user/a.yaml", &service("a", "10.0.0.1"))]);
    let mut proxy = Proxy::connect(&controller, TOKEN, BTreeMap::new()).await.unwrap();
    proxy.sync().await;
    assert_eq!(proxy.received, 3, "the settings, the roots and the Service");
    let root = fs::read(controller.path("state/ca.crt")).unwrap();
    controller.restart();
    let mut again = Proxy::connect(&controller, TOKEN, proxy.held).await.unwrap();
    again.sync().await;
    assert_eq!(again.received, 0);
    assert_eq!(fs::read(controller.path("state/ca.crt")).unwrap(), root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_valid_token_is_told_nothing() {
    let controller = Controller::new(&[]);
    let status = Proxy::connect(&controller, "fedcba9876543210", BTreeMap::new()).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (tonic::Code::Unauthenticated, "unknown token"));
}

#[test]
fn bad_flags_end_with_2_and_all_reasons() {
    let output = Command::new(env!("CARGO_BIN_EXE_mesh-controller"))
        .args(["--folder", "/no/such", "--state", "/s", "--tokens", "/t", "--status-file", "/x/y", "--listen", "x"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "--listen x: is not of the form IP:PORT\n--folder /no/such: is not a folder\n"
    );
}
