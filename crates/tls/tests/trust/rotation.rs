//! SVIDs over time: renewed before they end, kept while renewal fails, restored after a restart; connections live through it.

use crate::forge::{Signing, id};
use mesh_tls::{Svid, SvidSource, SvidStore, Svids, Trust, verified_peer};
use rustls::pki_types::ServerName;
use std::{
    net::Ipv4Addr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Handle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
const FRONT: &str = "spiffe://cluster.local/ns/shop/sa/front";
const DEADLINE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn obtained(svids: &Svids, identity: &str) -> Arc<Svid> {
    svids.ensure(&id(identity));
    timeout(DEADLINE, svids.obtained(&id(identity))).await.unwrap()
}

#[tokio::test]
async fn a_connection_lives_through_renewals_and_new_ones_use_the_new_svid() {
    let dir = tempfile::tempdir().unwrap();
    let source = Signing::new(dir.path(), Duration::from_secs(4));
    let svids = Arc::new(Svids::new(source.clone(), None, Handle::current()));
    let (first, _) = (obtained(&svids, CART).await, obtained(&svids, FRONT).await);
    let trust = Trust::new(svids.clone());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connector = TlsConnector::from(trust.client_config(&id(FRONT), &id(CART)).unwrap());
    let acceptor = TlsAcceptor::from(trust.server_config(&id(CART)).unwrap());
    let (client, server) = tokio::join!(
        async {
            connector
                .connect(ServerName::IpAddress(address.ip().into()), TcpStream::connect(address).await.unwrap())
                .await
        },
        async { acceptor.accept(listener.accept().await.unwrap().0).await },
    );
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    assert_eq!(*verified_peer(server.get_ref().1).unwrap().identity(), id(FRONT));

    eventually("the first SVID is over", || first.is_expired(SystemTime::now())).await;
    let now = svids.current(&id(CART)).expect("renewed in time");
    assert!(now.generation() > first.generation() && now.not_after() > first.not_after());
    assert_ne!(trust.generation(&id(CART)), Ok(first.generation()));
    client.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn while_renewal_fails_the_old_svid_serves_to_its_end_and_then_nothing_does() {
    let dir = tempfile::tempdir().unwrap();
    let source = Signing::new(dir.path(), Duration::from_secs(6));
    let svids = Svids::new(source.clone(), None, Handle::current());
    let first = obtained(&svids, CART).await;
    source.down.store(true, Ordering::SeqCst);
    let asked = source.asked.load(Ordering::SeqCst);
    eventually("several renewals failed", || source.asked.load(Ordering::SeqCst) >= asked + 3).await;
    assert_eq!(svids.current(&id(CART)).map(|s| s.generation()), Some(first.generation()), "the old one serves on");
    eventually("the old one is over", || svids.current(&id(CART)).is_none()).await;
    assert!(first.is_expired(SystemTime::now()), "it served to its end");
    source.down.store(false, Ordering::SeqCst);
    svids.hurry();
    timeout(Duration::from_secs(5), svids.obtained(&id(CART))).await.expect("told to hurry, it is soon back");
}

#[tokio::test]
async fn a_restarted_process_serves_from_its_store_without_the_authority() {
    let dir = tempfile::tempdir().unwrap();
    let source = Signing::new(&dir.path().join("ca"), Duration::from_secs(600));
    let store = SvidStore::open(dir.path().join("svids")).unwrap();
    let before = Svids::new(source.clone(), Some(store.clone()), Handle::current());
    let first = obtained(&before, CART).await;
    eventually("it is stored", || matches!(store.load(&id(CART)), Ok(Some(_)))).await;
    drop(before);
    source.down.store(true, Ordering::SeqCst);
    let after = Svids::new(source, Some(store.clone()), Handle::current());
    let restored = obtained(&after, CART).await;
    assert_eq!(restored.chain(), first.chain());
    after.forget(&id(CART));
    assert!(after.current(&id(CART)).is_none());
    eventually("the key is gone from the disk", || matches!(store.load(&id(CART)), Ok(None))).await;
}

#[tokio::test]
async fn keys_on_disk_are_the_owners_alone_and_damaged_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let source = Signing::new(&dir.path().join("ca"), Duration::from_secs(600));
    let store = SvidStore::open(dir.path().join("svids")).unwrap();
    let svids = Svids::new(source, Some(store.clone()), Handle::current());
    obtained(&svids, CART).await;
    let file = dir.path().join("svids/cluster.local/shop/cart/svid.pem");
    eventually("it is stored", || file.exists()).await;
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(&dir.path().join("ca/ca.key"))), (0o600, 0o600));
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    for (damage, says) in
        [("", "no key"), ("-----BEGIN X-----\nAA==\n-----END X-----\n", "unexpected block"), ("\0\0", "no key")]
    {
        std::fs::write(&file, damage).unwrap();
        let fault = store.load(&id(CART)).unwrap_err().to_string();
        assert!(fault.contains(says) && fault.contains("svid.pem"), "{fault}");
    }
}

#[tokio::test]
async fn a_source_that_answers_with_another_identity_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let signing = Signing::new(dir.path(), Duration::from_secs(600));
    let forge = Arc::new(crate::forge::Forge::new());
    let wrong = crate::forge::Forging(move |_: &_| forge.svid(FRONT));
    let svids = Svids::new(Arc::new(wrong), None, Handle::current());
    svids.ensure(&id(CART));
    assert!(timeout(Duration::from_millis(300), svids.obtained(&id(CART))).await.is_err());
    assert_eq!(signing.signed.load(Ordering::SeqCst), 0);
}

/// An authority that can be replaced by another, whose roots have a number.
struct Replaced(std::sync::Mutex<(Arc<Signing>, u64)>);

impl SvidSource for Replaced {
    fn fetch<'a>(&'a self, identity: &'a mesh_core::identity::Identity) -> mesh_tls::Fetching<'a> {
        Box::pin(async move {
            let (signing, revision) = self.0.lock().unwrap().clone();
            Ok(signing.fetch(identity).await?.at_revision(revision))
        })
    }
}

#[tokio::test]
async fn newer_roots_reach_all_svids_at_once_and_what_they_do_not_vouch_for_is_not_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let signing = |name: &str| Signing::new(&dir.path().join(name), Duration::from_secs(600));
    let (old, new) = (signing("old"), signing("new"));
    let roots = |revision, of: &[&Arc<Signing>]| {
        let certificates = of.iter().flat_map(|s| s.authority.roots()).map(|der| Arc::from(&*der)).collect();
        Arc::new(mesh_core::mesh::Roots { revision, certificates })
    };
    let source = Arc::new(Replaced(std::sync::Mutex::new((old.clone(), 1))));
    let store = SvidStore::open(dir.path().join("svids")).unwrap();
    let svids = Svids::new(source.clone(), Some(store.clone()), Handle::current());
    let (cart, front) = (obtained(&svids, CART).await, obtained(&svids, FRONT).await);
    svids.trust(&roots(2, &[&old, &new]));
    for (before, identity) in [(&cart, CART), (&front, FRONT)] {
        let now = svids.current(&id(identity)).unwrap();
        assert_eq!((now.roots().len(), now.chain()), (2, before.chain()), "the same certificate, other roots");
        assert!(now.generation() > before.generation(), "what is pooled with one is not used with the other");
    }
    eventually("the store has them too", || matches!(store.load(&id(CART)), Ok(Some(s)) if s.roots().len() == 2)).await;
    let generation = svids.current(&id(CART)).unwrap().generation();
    svids.trust(&roots(2, &[&new]));
    svids.trust(&roots(1, &[&old]));
    assert_eq!(svids.current(&id(CART)).unwrap().generation(), generation, "only newer ones count");

    // Told before any certificate of the new root is there: what is held serves on, and is renewed now and not in minutes.
    let asked = old.asked.load(Ordering::SeqCst);
    svids.trust(&roots(3, &[&new]));
    assert_eq!(svids.current(&id(CART)).unwrap().generation(), generation);
    eventually("renewal was tried", || old.asked.load(Ordering::SeqCst) >= asked + 3).await;
    assert_eq!(
        svids.current(&id(CART)).unwrap().generation(),
        generation,
        "one more of the old root would be no better"
    );
    *source.0.lock().unwrap() = (new.clone(), 3);
    eventually("the new root has signed", || svids.current(&id(CART)).unwrap().revision() == 3).await;
    assert_eq!(svids.current(&id(CART)).unwrap().roots(), new.authority.roots());

    // Likewise the other way round: a certificate that comes with newer roots tells all others of them.
    *source.0.lock().unwrap() = (new.clone(), 4);
    let other = obtained(&svids, "spiffe://cluster.local/ns/shop/sa/other").await;
    assert_eq!(other.revision(), 4);
    eventually("the others know", || svids.current(&id(CART)).unwrap().revision() == 4).await;
}
