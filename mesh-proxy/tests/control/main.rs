//! The control side of the proxy against a controller in the test: first sync, refusal, loss, resume, start from the cache, SVIDs.
#![expect(clippy::unwrap_used, reason = "tests")]

mod fake;

use fake::{Fake, service, settings};
use mesh_core::{identity::Identity, name::ProxyName, snapshot::Snapshot};
use mesh_proxy::control::{Cache, ConfigClient, ConfigView, Link, SvidClient};
use mesh_run::Readiness;
use mesh_tls::{FetchFault, SvidSource};
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{sync::watch, time::timeout};

const DEADLINE: Duration = Duration::from_secs(20);

fn node() -> ProxyName {
    ProxyName::Node("n1".into())
}

/// A running client and what it shows.
struct Client {
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    readiness: Readiness,
    view: ConfigView,
    connects: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Client {
    fn start(fake: &Fake, state: &Path) -> Self {
        let readiness = Readiness::default();
        let ready = readiness.condition("config", "none yet");
        let (client, snapshots) = ConfigClient::new(fake.link(), node(), Cache::new(state, node()), ready);
        let (view, connects) = (client.view(), Arc::new(AtomicUsize::new(0)));
        let count = connects.clone();
        let task = tokio::spawn(client.run(move || {
            count.fetch_add(1, Ordering::SeqCst);
        }));
        Self { snapshots, readiness, view, connects, task }
    }

    fn knows(&self, name: &str) -> bool {
        let id = format!("shop/{name}").parse().unwrap();
        self.snapshots.borrow().as_ref().is_some_and(|s| s.service(&id).is_some())
    }

    async fn learns(&self, name: &str) {
        eventually(&format!("knows {name}"), || self.knows(name)).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn nothing_is_shown_before_the_first_sync_is_complete_and_all_is_after() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    assert!(fake.hello().await.known.is_empty());
    fake.delta(vec![settings(), service("cart")], &[], false).await;
    assert!(fake.ack().await.errors.is_empty());
    assert!(client.snapshots.borrow().is_none() && !client.readiness.is_ready(), "half a config is none");
    fake.delta(vec![service("pay")], &[], true).await;
    let ack = fake.ack().await;
    assert_eq!((ack.nonce, ack.errors.len()), (2, 0));
    client.learns("cart").await;
    client.learns("pay").await;
    assert!(client.readiness.is_ready() && client.view.is_connected());
    fake.delta(vec![], &["Service/shop/pay"], false).await;
    eventually("pay is gone", || !client.knows("pay")).await;
    let shown = client.view.to_json();
    assert_eq!(shown["resources"].as_array().unwrap().len(), 2);
    assert_eq!((&shown["proxy"], &shown["controller"]["connected"]), (&"node/n1".into(), &true.into()));
}

#[tokio::test]
async fn of_a_wrong_update_nothing_is_applied_and_object_and_field_are_named() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![settings(), service("cart")], &[], true).await;
    assert!(fake.ack().await.errors.is_empty());
    let mut wrong = service("wrong");
    wrong.id = "Service/shop/other".into();
    fake.delta(vec![service("good"), wrong], &["Service/shop/cart"], false).await;
    let ack = fake.ack().await;
    assert_eq!(ack.nonce, 2);
    let error = &ack.errors[0];
    assert_eq!((error.resource.as_str(), error.field.as_str()), ("Service/shop/other", "id"));
    assert!(error.reason.contains("Service/shop/wrong"), "{}", error.reason);
    assert!(client.knows("cart") && !client.knows("good"), "nothing of it is applied");
    fake.delta(vec![], &["settings"], false).await;
    assert_eq!(fake.ack().await.errors[0].resource, "settings");
    fake.delta(vec![service("good")], &[], false).await;
    assert!(fake.ack().await.errors.is_empty());
    client.learns("good").await;
}

#[tokio::test]
async fn a_config_without_settings_is_not_complete() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![service("cart")], &[], true).await;
    let ack = fake.ack().await;
    assert!(ack.errors[0].resource == "settings" && ack.errors[0].reason.contains("missing"));
    assert!(client.snapshots.borrow().is_none());
}

#[tokio::test]
async fn a_killed_controller_changes_nothing_and_the_session_resumes_with_what_is_known() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    let (settings, cart) = (settings(), service("cart"));
    fake.delta(vec![settings.clone(), cart.clone()], &[], true).await;
    client.learns("cart").await;
    fake.kill();
    eventually("it knows that it is alone", || !client.view.is_connected()).await;
    assert!(client.knows("cart") && client.readiness.is_ready());
    assert!(client.view.to_json()["controller"]["fault"].is_string());
    fake.restart().await;
    let hello = fake.hello_with(|h| !h.known.is_empty()).await;
    let expected = [(settings.id, settings.version), (cart.id, cart.version)];
    assert_eq!(hello.known, expected.into_iter().collect());
    assert_eq!(hello.proxy, "node/n1");
    fake.delta(vec![service("pay")], &[], true).await;
    client.learns("pay").await;
    assert!(client.knows("cart") && client.connects.load(Ordering::SeqCst) == 2);
}

#[tokio::test]
async fn a_restarted_proxy_starts_from_its_cache_while_the_controller_is_gone() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![settings(), service("cart")], &[], true).await;
    client.learns("cart").await;
    let file = state.path().join("config");
    eventually("the cache is written", || file.exists()).await;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "gateway configs hold keys");
    drop(client);
    fake.kill();
    let again = Client::start(&fake, state.path());
    assert!(!again.readiness.is_ready(), "the controller's word is newer than the file");
    again.learns("cart").await;
    assert!(again.readiness.is_ready(), "without the controller");
    fake.restart().await;
    let hello = fake.hello_with(|h| h.known.len() == 2).await;
    assert_eq!(hello.known["Service/shop/cart"], service("cart").version, "what is cached is not sent again");
}

#[tokio::test]
async fn a_restarted_proxy_shows_what_the_controller_says_now_and_not_half_of_it() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![settings(), service("cart")], &[], true).await;
    client.learns("cart").await;
    let file = state.path().join("config");
    eventually("the cache is written", || file.exists()).await;
    drop(client);
    let mut again = Client::start(&fake, state.path());
    fake.hello_with(|h| h.known.len() == 2).await;
    fake.delta(vec![service("pay")], &[], false).await;
    fake.delta(vec![], &["Service/shop/cart"], true).await;
    timeout(DEADLINE, again.snapshots.wait_for(Option::is_some)).await.unwrap().unwrap();
    assert!(again.knows("pay") && !again.knows("cart"), "the first thing that is shown is whole");
}

#[tokio::test]
async fn a_wrong_cache_is_reported_and_ignored() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![settings(), service("cart")], &[], true).await;
    client.learns("cart").await;
    let file = state.path().join("config");
    eventually("the cache is written", || file.exists()).await;
    drop(client);
    let good = std::fs::read(&file).unwrap();
    let cache = Cache::new(state.path(), node());
    assert_eq!(cache.load().unwrap().unwrap().known().len(), 2);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    for (bytes, says) in [
        (vec![], "does not begin"),
        (b"heddle-config-9\nxxxxxxxxxxxxxxxx".to_vec(), "does not begin"),
        (good[..20].to_vec(), "cut short"),
        (good[..good.len() - 1].to_vec(), "damaged"),
        (flipped(good.len() - 3), "damaged"),
        (flipped(17), "damaged"),
    ] {
        std::fs::write(&file, bytes).unwrap();
        let fault = cache.load().err().unwrap().to_string();
        assert!(fault.contains(says) && fault.contains("config"), "{fault}");
    }
    std::fs::write(&file, &good).unwrap();
    let other = Cache::new(state.path(), ProxyName::Node("n2".into())).load().err().unwrap().to_string();
    assert!(other.contains("node/n1") && other.contains("node/n2"), "{other}");
    std::fs::write(&file, "nonsense").unwrap();
    let again = Client::start(&fake, state.path());
    assert!(!again.readiness.is_ready(), "it waits for the controller");
    fake.hello_with(|h| h.known.is_empty()).await;
}

#[tokio::test]
async fn a_burst_of_updates_ends_in_the_newest_state() {
    let state = tempfile::tempdir().unwrap();
    let mut fake = Fake::start().await;
    let client = Client::start(&fake, state.path());
    fake.delta(vec![settings()], &[], true).await;
    fake.ack().await;
    for i in 0..200 {
        fake.delta(vec![service(&format!("s{i}"))], &[], false).await;
        assert!(fake.ack().await.errors.is_empty());
    }
    client.learns("s199").await;
    let cache = Cache::new(state.path(), node());
    eventually("the cache is at the newest state", || {
        cache.load().ok().flatten().is_some_and(|held| held.known().len() == 201)
    })
    .await;
}

fn cart() -> Identity {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

#[tokio::test]
async fn svids_come_from_the_controller_and_refusals_keep_its_words() {
    let fake = Fake::start().await;
    let client = SvidClient::new(fake.link());
    let svid = timeout(DEADLINE, client.fetch(&cart())).await.unwrap().unwrap();
    assert_eq!(*svid.identity(), cart());
    let stranger = "spiffe://cluster.local/ns/bank/sa/vault".parse().unwrap();
    let refused = client.fetch(&stranger).await.unwrap_err();
    assert!(matches!(&refused, FetchFault::Refused(why) if why.contains("no pod of node/n1")), "{refused}");
    client.fetch(&cart()).await.expect("a refusal of one identity is none of another");
}

#[tokio::test]
async fn the_token_is_read_anew_and_a_wrong_authority_is_not_trusted() {
    let fake = Fake::start().await;
    let client = SvidClient::new(fake.link());
    client.fetch(&cart()).await.unwrap();
    fake.write_token("another-token");
    let refused = client.fetch(&cart()).await.unwrap_err().to_string();
    assert!(refused.contains("unknown token"), "{refused}");
    fake.write_token("");
    let none = client.fetch(&cart()).await.unwrap_err().to_string();
    assert!(none.contains("holds no token"), "{none}");
    fake.write_token(fake::TOKEN);
    client.fetch(&cart()).await.unwrap();

    let other = tempfile::tempdir().unwrap();
    mesh_tls::Authority::load_or_create(other.path()).unwrap();
    let link = Link::new(&fake.url(), other.path().join("ca.crt"), fake.token_path());
    let fault = SvidClient::new(link).fetch(&cart()).await.unwrap_err().to_string();
    assert!(fault.contains("UnknownIssuer") || fault.contains("invalid peer certificate"), "{fault}");
    let link = Link::new(&fake.url(), other.path().join("missing.crt"), fake.token_path());
    let fault = SvidClient::new(link).fetch(&cart()).await.unwrap_err().to_string();
    assert!(fault.contains("missing.crt"), "{fault}");
}
