//! Sessions over real gRPC on loopback, with a fake proxy that uses the generated client.

use super::*;
use crate::{
    authenticate::{Authenticate, Unauthenticated},
    publish::{Metrics, slice::tests::service},
};
use mesh_core::node::{NodeDelta, Resource, ResourceId};
use mesh_wire::proto::{Ack, Delta, Rejection, ToProxy, config_client::ConfigClient, to_proxy};
use std::{collections::BTreeMap, net::SocketAddr};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};

struct Everybody;

#[tonic::async_trait]
impl Authenticate for Everybody {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        token.parse().map_err(|_| Unauthenticated::UnknownToken)
    }
}

/// A controller at an address; dropped, it is gone with all its connections.
struct Controller {
    publisher: Arc<Publisher>,
    address: SocketAddr,
    drain: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

impl Controller {
    async fn start(address: &str) -> Self {
        Self::start_with(address, SESSION_LIFE, Arc::new(Everybody)).await
    }

    async fn start_with(address: &str, life: Duration, authenticate: Arc<dyn Authenticate>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let publisher = Publisher::new(Metrics::register(&mut Default::default()));
        let drain = CancellationToken::new();
        let callers = Callers::new(authenticate, &mut Default::default());
        let service = ConfigService::new(publisher.clone(), callers, TaskTracker::new(), drain.clone(), life);
        let end = drain.clone().cancelled_owned();
        let server = tokio::spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, end).await.unwrap();
        });
        Self { publisher, address, drain, server }
    }

    async fn stop(self) {
        self.drain.cancel();
        self.server.await.unwrap();
    }

    fn publish(&self, services: &[(&str, u8)]) {
        let upserts = services.iter().map(|(name, address)| service("shop", name, *address)).collect();
        self.publisher.publish(&NodeDelta { upserts, removes: vec![] });
    }
}

/// A proxy that keeps what it is told, by the names and last address bytes of Services.
struct Proxy {
    out: mpsc::Sender<ToController>,
    incoming: Streaming<ToProxy>,
    held: BTreeMap<String, (u64, u8)>,
}

impl Proxy {
    async fn connect(address: SocketAddr, held: BTreeMap<String, (u64, u8)>) -> Result<Self, Status> {
        Self::connect_as(address, held, "node/n1", "node/n1", PROTOCOL).await
    }

    async fn connect_as(
        address: SocketAddr,
        held: BTreeMap<String, (u64, u8)>,
        token: &str,
        name: &str,
        protocol: u32,
    ) -> Result<Self, Status> {
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let (out, messages) = mpsc::channel(8);
        let known = held.iter().map(|(id, (version, _))| (id.clone(), *version)).collect();
        let hello = Hello { protocol, proxy: name.into(), known };
        out.send(ToController { message: Some(Message::Hello(hello)) }).await.unwrap();
        let mut request = Request::new(ReceiverStream::new(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let incoming = ConfigClient::new(channel).stream(request).await?.into_inner();
        Ok(Self { out, incoming, held })
    }

    async fn hear(&mut self) -> Delta {
        let message = tokio::time::timeout(Duration::from_secs(20), self.incoming.message()).await.expect("in time");
        match message.unwrap().unwrap().message.unwrap() {
            to_proxy::Message::Delta(delta) => delta,
        }
    }

    async fn answer(&mut self, delta: Delta) {
        for resource in delta.upserts {
            match mesh_wire::decode(resource.clone()).unwrap() {
                Resource::Service(s) => {
                    let std::net::IpAddr::V4(address) = s.addresses[0] else { panic!() };
                    self.held.insert(resource.id, (resource.version, address.octets()[3]));
                }
                other => panic!("{other:?}"),
            }
        }
        for id in delta.removes {
            self.held.remove(&id);
        }
        self.send(Ack { nonce: delta.nonce, errors: vec![] }).await;
    }

    async fn send(&mut self, ack: Ack) {
        self.out.send(ToController { message: Some(Message::Ack(ack)) }).await.unwrap();
    }

    async fn refuse(&mut self, delta: Delta, resource: &str) {
        let error = Rejection { resource: resource.into(), field: "ports[0].number".into(), reason: "is odd".into() };
        self.send(Ack { nonce: delta.nonce, errors: vec![error] }).await;
    }

    async fn sync(&mut self) -> usize {
        let mut resources = 0;
        loop {
            let delta = self.hear().await;
            resources += delta.upserts.len() + delta.removes.len();
            let synced = delta.synced;
            self.answer(delta).await;
            if synced {
                return resources;
            }
        }
    }

    /// Takes deltas until it holds this, and says how many deltas that took.
    async fn until(&mut self, expected: &[(&str, u8)]) -> usize {
        let expected: BTreeMap<String, u8> = expected.iter().map(|(n, a)| (format!("Service/shop/{n}"), *a)).collect();
        let mut deltas = 0;
        while self.held.iter().map(|(id, (_, a))| (id.clone(), *a)).collect::<BTreeMap<_, _>>() != expected {
            let delta = self.hear().await;
            self.answer(delta).await;
            deltas += 1;
        }
        deltas
    }
}

#[tokio::test]
async fn a_proxy_gets_its_slice_and_then_what_changes() {
    let controller = Controller::start("127.0.0.1:0").await;
    controller.publish(&[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    assert_eq!(proxy.sync().await, 2);
    controller.publish(&[("b", 3), ("c", 4)]);
    assert_eq!(proxy.until(&[("a", 1), ("b", 3), ("c", 4)]).await, 1);
    let id = ResourceId::Service(mesh_core::name::NsName::new("shop", "a"));
    controller.publisher.publish(&NodeDelta { upserts: vec![], removes: vec![id] });
    proxy.until(&[("b", 3), ("c", 4)]).await;
    controller.stop().await;
}

#[tokio::test]
async fn nobody_is_told_anything_before_the_first_plan() {
    let controller = Controller::start("127.0.0.1:0").await;
    let held = BTreeMap::from([("Service/shop/a".to_owned(), (1, 1))]);
    let mut proxy = Proxy::connect(controller.address, held).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(100), proxy.incoming.message()).await;
    assert!(early.is_err(), "an empty mesh would make it drop all it knows");
    controller.publish(&[("a", 1)]);
    proxy.sync().await;
    assert_eq!(proxy.held.len(), 1);
    controller.stop().await;
}

#[tokio::test]
async fn after_a_restart_of_the_controller_what_is_known_is_not_sent_again() {
    let controller = Controller::start("127.0.0.1:0").await;
    controller.publish(&[("a", 1), ("b", 2), ("c", 3)]);
    let mut proxy = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    assert_eq!(proxy.sync().await, 3);
    let address = controller.address.to_string();
    controller.stop().await;
    assert!(matches!(proxy.incoming.message().await, Err(_) | Ok(None)), "the session ended");

    let controller = Controller::start(&address).await;
    controller.publish(&[("a", 1), ("b", 9)]);
    let mut proxy = Proxy::connect(controller.address, proxy.held).await.unwrap();
    assert_eq!(proxy.sync().await, 2, "the changed b and the removed c");
    assert_eq!(proxy.until(&[("a", 1), ("b", 9)]).await, 0);
    controller.stop().await;
}

#[tokio::test]
async fn a_refused_resource_is_not_sent_again_and_the_others_arrive() {
    let controller = Controller::start("127.0.0.1:0").await;
    controller.publish(&[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    let delta = proxy.hear().await;
    proxy.refuse(delta, "Service/shop/a").await;
    assert_eq!(proxy.sync().await, 1);
    let state = &controller.publisher.proxies()[&ProxyName::Node("n1".into())];
    let refused: Vec<String> = state.refused.iter().map(|(id, r)| format!("{id}: {}: {}", r.field, r.reason)).collect();
    assert_eq!(refused, ["Service/shop/a: ports[0].number: is odd"]);
    assert_eq!(controller.publisher.metrics().refusals.get(), 1);
    controller.publish(&[("a", 3)]);
    proxy.until(&[("a", 3), ("b", 2)]).await;
    controller.stop().await;
}

#[tokio::test]
async fn a_slow_proxy_gets_the_newest_state_and_blocks_nobody() {
    let controller = Controller::start("127.0.0.1:0").await;
    controller.publish(&[("a", 0)]);
    let mut slow = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    let mut fast =
        Proxy::connect_as(controller.address, BTreeMap::new(), "node/n2", "node/n2", PROTOCOL).await.unwrap();
    let unanswered = slow.hear().await;
    fast.sync().await;
    for i in 1..=200 {
        controller.publish(&[("a", i)]);
        fast.until(&[("a", i)]).await;
    }
    slow.answer(unanswered).await;
    assert_eq!(slow.until(&[("a", 200)]).await, 1, "200 changes in one delta");
    controller.stop().await;
}

#[tokio::test]
async fn every_wrong_beginning_is_refused_with_its_reason() {
    let controller = Controller::start("127.0.0.1:0").await;
    controller.publish(&[]);
    for (token, name, protocol, message) in [
        ("nonsense", "node/n1", 1, "unknown token"),
        ("node/n1", "node/n2", 1, "the token is of node/n1, not of \"node/n2\""),
        ("node/n1", "", 1, "the token is of node/n1, not of \"\""),
        ("node/n1", "node/n1", 0, "protocol 0 is too old; this controller speaks 1"),
    ] {
        let status = match Proxy::connect_as(controller.address, BTreeMap::new(), token, name, protocol).await {
            Ok(mut proxy) => proxy.incoming.message().await.unwrap_err(),
            Err(status) => status,
        };
        assert_eq!(status.message(), message);
    }
    let mut proxy = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    proxy.hear().await;
    proxy.send(Ack { nonce: 77, errors: vec![] }).await;
    assert_eq!(proxy.incoming.message().await.unwrap_err().message(), "ack of nonce 77, which is not in flight");
    controller.stop().await;
}

/// Knows one token until it is forgotten.
struct Revocable(std::sync::atomic::AtomicBool);

#[tonic::async_trait]
impl Authenticate for Revocable {
    async fn authenticate(&self, token: &str) -> Result<ProxyName, Unauthenticated> {
        match self.0.load(std::sync::atomic::Ordering::SeqCst) {
            true => token.parse().map_err(|_| Unauthenticated::UnknownToken),
            false => Err(Unauthenticated::UnknownToken),
        }
    }
}

#[tokio::test]
async fn whoever_is_connected_must_prove_anew_who_it_is_and_is_then_told_only_what_is_new() {
    let known = Arc::new(Revocable(true.into()));
    let controller = Controller::start_with("127.0.0.1:0", Duration::from_millis(500), known.clone()).await;
    controller.publish(&[("a", 1), ("b", 2)]);
    let mut proxy = Proxy::connect(controller.address, BTreeMap::new()).await.unwrap();
    assert_eq!(proxy.sync().await, 2);
    // In good order: it is no fault of anybody's.
    assert!(matches!(proxy.incoming.message().await, Ok(None)));
    let mut again = Proxy::connect(controller.address, proxy.held).await.unwrap();
    assert_eq!(again.sync().await, 0);
    known.0.store(false, std::sync::atomic::Ordering::SeqCst);
    assert!(matches!(again.incoming.message().await, Ok(None)));
    let refused = Proxy::connect(controller.address, again.held).await.err().map(|status| status.code());
    assert_eq!(refused, Some(Code::Unauthenticated), "its token is worth nothing any more");
    controller.stop().await;
}
