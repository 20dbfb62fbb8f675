//! The mesh's root is replaced while two proxies carry tunnels between them, with certificates that live for seconds: nothing fails.

use crate::world::{World, identity};
use mesh_core::{identity::Identity, mesh::Roots};
use mesh_tls::{
    Authority, FetchFault, Fetching, KeyRequest, Svid, SvidSource,
    x509::{Material, new_root},
};
use parking_lot::Mutex;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, sleep, timeout},
};

/// Certificates end so soon.
const LIFETIME: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller whose root changes.
struct Rotating(Mutex<(Arc<Authority>, Arc<Roots>)>);

impl Rotating {
    fn signs(&self, authority: &Arc<Authority>) {
        self.0.lock().0 = authority.clone();
    }

    fn trusts(&self, revision: u64, authorities: &[&Arc<Authority>]) -> Arc<Roots> {
        let certificates = authorities.iter().flat_map(|a| a.roots()).map(|der| Arc::from(&*der)).collect();
        let roots = Arc::new(Roots { revision, certificates });
        self.0.lock().1 = roots.clone();
        roots
    }
}

impl SvidSource for Rotating {
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a> {
        Box::pin(async move {
            let (authority, roots) = self.0.lock().clone();
            let request = KeyRequest::new(identity).unwrap();
            let signed = authority.sign(request.csr(), identity, LIFETIME).unwrap();
            let der = roots.certificates.iter().map(|der| der.to_vec().into()).collect();
            let svid = Svid::new(identity.clone(), signed.chain, request.into_key(), der);
            svid.map(|svid| svid.at_revision(roots.revision)).map_err(|e| FetchFault::Unusable(e.to_string()))
        })
    }
}

fn authority() -> Arc<Authority> {
    let (certificate, key) = new_root().unwrap();
    let material = Material { certificate: certificate.as_bytes(), key: key.as_bytes(), roots: None };
    Arc::new(material.authority().unwrap())
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_is_replaced_under_load_and_no_tunnel_fails_or_is_cut() {
    let (old, new) = (authority(), authority());
    let first =
        Arc::new(Roots { revision: 1, certificates: old.roots().iter().map(|der| Arc::from(&**der)).collect() });
    let source = Arc::new(Rotating(Mutex::new((old.clone(), first))));
    let (near, far) = (World::of(source.clone()).await, Arc::new(World::of(source.clone()).await));
    far.peer("server", "127.0.9.50", |mut stream: tokio::net::TcpStream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await;
    let (near, target) = (Arc::new(near), near_target(&far));
    near.apply(mesh_core::node::Resource::Workload(target.workload.clone().unwrap()));

    let mut long = near.open(&target).await.unwrap();
    let (done, load) = (Arc::new(AtomicU64::new(0)), near.clone());
    let (counted, to) = (done.clone(), near_target(&far));
    let carrying = tokio::spawn(async move {
        loop {
            let mut tunnel = load.open(&to).await.unwrap_or_else(|fault| panic!("{fault}: {}", fault.detail()));
            tunnel.write_all(b"ping").await.unwrap();
            tunnel.shutdown().await.unwrap();
            let mut heard = String::new();
            timeout(PATIENCE, tunnel.read_to_string(&mut heard)).await.unwrap().unwrap();
            assert_eq!(heard, "ping");
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let more = async || {
        let now = done.load(Ordering::SeqCst);
        eventually("more tunnels", || done.load(Ordering::SeqCst) >= now + 20 || carrying.is_finished()).await;
        assert!(!carrying.is_finished(), "the load has failed");
    };
    let both = [("client", &near), ("server", &far)];
    let current = |name: &str, world: &World| world.shared.trust.svids().current(&identity(name)).unwrap();
    more().await;

    // Each proxy hears of it in its own time; in between they trust differently.
    let two = source.trusts(2, &[&old, &new]);
    far.shared.trust.svids().trust(&two);
    assert_eq!((current("server", &far).revision(), current("client", &near).revision() <= 2), (2, true));
    more().await;
    near.shared.trust.svids().trust(&two);
    assert_eq!(current("client", &near).roots().len(), 2, "at once, without a new certificate");
    more().await;

    source.signs(&new);
    let only_new = Roots { revision: 9, certificates: new.roots().iter().map(|der| Arc::from(&**der)).collect() };
    for (name, world) in both {
        eventually("the new root has signed", || current(name, world).with_roots(&only_new).is_ok()).await;
        more().await;
    }

    let one = source.trusts(3, &[&new]);
    near.shared.trust.svids().trust(&one);
    more().await;
    far.shared.trust.svids().trust(&one);
    far.shared.trust.svids().trust(&two);
    for (name, world) in both {
        let svid = current(name, world);
        assert_eq!((svid.revision(), svid.roots().len()), (3, 1), "older roots do not come back");
        eventually("one more renewal", || current(name, world).not_after() > svid.not_after()).await;
        assert!(current(name, world).not_after() > SystemTime::now());
    }
    more().await;
    carrying.abort();
    // The tunnel of the beginning has outlived the certificates and the root that it was opened with.
    long.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    timeout(PATIENCE, long.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"still here");
}

fn near_target(far: &World) -> mesh_core::balance::Target {
    far.target("server", "127.0.9.50".parse().unwrap())
}
