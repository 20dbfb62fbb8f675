//! Tunnels: what TCP promises, kept across mTLS and HTTP/2, and bounds that hold when peers do not.

use crate::world::{HANDSHAKE, World};
use futures_util::future::join_all;
use mesh_core::fault::Fault;
use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

/// Nothing here takes long on an idle machine; this is for busy ones.
const PATIENCE: Duration = Duration::from_secs(60);

async fn echo(mut stream: TcpStream) {
    let (mut read, mut write) = stream.split();
    let _ = tokio::io::copy(&mut read, &mut write).await;
    let _ = write.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn half_closes_pass_both_ways_and_a_server_may_speak_first() {
    let world = World::new().await;
    let target = world
        .peer("greeter", "127.0.9.1", |mut stream| async move {
            stream.write_all(b"hello").await.unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).await.unwrap();
            all.reverse();
            stream.write_all(&all).await.unwrap();
        })
        .await;
    let mut tunnel = world.open(&target).await.unwrap();
    let mut greeting = [0; 5];
    tunnel.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
    tunnel.write_all(b"abc").await.unwrap();
    tunnel.shutdown().await.unwrap();
    let mut rest = String::new();
    tunnel.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "cba");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_of_the_application_reaches_the_client_as_a_reset() {
    let world = World::new().await;
    let target = world
        .peer("resetter", "127.0.9.2", |mut stream| async move {
            let _ = stream.read_u8().await;
            stream.set_zero_linger().unwrap();
        })
        .await;
    let mut tunnel = world.open(&target).await.unwrap();
    tunnel.write_all(b"x").await.unwrap();
    let error = timeout(PATIENCE, tunnel.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn applications_that_do_not_read_do_not_stop_their_neighbours() {
    let world = World::new().await;
    let stalled = world
        .peer("stalled", "127.0.9.3", |mut stream| async move {
            // The first byte says which kind of application this is.
            match stream.read_u8().await {
                Ok(b'e') => echo(stream).await,
                _ => std::future::pending().await,
            }
        })
        .await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut tunnel = world.open(&stalled).await.unwrap();
        let full = async {
            loop {
                tunnel.write_all(&[0; 64 * 1024]).await.unwrap();
            }
        };
        assert!(timeout(Duration::from_millis(100), full).await.is_err(), "back pressure reaches the writer");
        deaf.push(tunnel);
    }
    assert_eq!(world.shared.pool.connections(), 1, "all are on one connection");
    let mut tunnel = world.open(&stalled).await.unwrap();
    tunnel.write_all(b"e").await.unwrap();
    let burst: Vec<u8> = (0..1024 * 1024u32).map(|n| n as u8).collect();
    let (mut read, mut write) = tokio::io::split(tunnel);
    let both = async {
        let send = async {
            write.write_all(&burst).await.unwrap();
            write.shutdown().await.unwrap();
        };
        let mut back = Vec::new();
        let (_, got) = tokio::join!(send, read.read_to_end(&mut back));
        got.unwrap();
        back
    };
    assert!(timeout(PATIENCE, both).await.unwrap() == burst);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_and_fifty_streams_share_two_connections() {
    let world = Arc::new(World::new().await);
    let target = Arc::new(world.peer("crowd", "127.0.9.4", echo).await);
    let tunnels = join_all((0..150).map(|_| world.open(&target))).await;
    let mut tunnels: Vec<_> = tunnels.into_iter().map(Result::unwrap).collect();
    assert_eq!(world.shared.pool.connections(), 2);
    for (n, tunnel) in tunnels.iter_mut().enumerate() {
        tunnel.write_u32(n as u32).await.unwrap();
    }
    for (n, tunnel) in tunnels.iter_mut().enumerate() {
        assert_eq!(tunnel.read_u32().await.unwrap(), n as u32);
    }
    drop(tunnels);
    world.open(&target).await.unwrap();
    assert_eq!(world.shared.pool.connections(), 2, "ended streams leave room for new ones");
}

/// Accepts TCP on :15008 and does `then` with each connection.
async fn rogue<F: Future<Output = ()> + Send + 'static>(
    address: &str,
    then: impl Fn(TcpStream) -> F + Send + 'static,
) -> IpAddr {
    let address: IpAddr = address.parse().unwrap();
    let listener = TcpListener::bind(SocketAddr::new(address, 15008)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(then(stream));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_peers_fail_in_time_and_block_nobody() {
    let world = World::new().await;
    let good = world.peer("good", "127.0.9.5", echo).await;
    world.certify("silent").await;
    let silent = rogue("127.0.9.6", |stream| async move {
        let _held = stream;
        std::future::pending().await
    });
    let half = rogue("127.0.9.7", |mut stream| async move {
        // The ClientHello is taken and never answered in full: a handshake record that announces more than comes.
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(&[22, 3, 3, 0, 200, 2]).await;
        std::future::pending().await
    });
    let trust = world.shared.trust.clone();
    let mute = rogue("127.0.9.8", move |stream| {
        let config = trust.server_config(&crate::world::identity("silent")).unwrap();
        async move {
            let _held = tokio_rustls::TlsAcceptor::from(config).accept(stream).await.unwrap();
            std::future::pending().await
        }
    });
    let addresses = [silent.await, half.await, mute.await];
    let stalled = addresses.map(|address| world.target("silent", address));
    let begun = Instant::now();
    let failing = join_all(stalled.iter().map(|target| world.open(target)));
    let fine = async {
        for _ in 0..10 {
            let mut tunnel = world.open(&good).await.unwrap();
            tunnel.write_u8(7).await.unwrap();
            assert_eq!(tunnel.read_u8().await.unwrap(), 7);
        }
        begun.elapsed()
    };
    let (failed, fine) = tokio::join!(failing, fine);
    assert!(fine < HANDSHAKE, "others waited {fine:?} for stalled peers");
    for outcome in failed {
        let fault = outcome.unwrap_err();
        assert_eq!(fault.fault, Fault::ConnectTimeout, "{}", fault.detail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_identity_gets_no_stream_and_the_reason_is_named() {
    let world = World::new().await;
    world.peer("actual", "127.0.9.10", echo).await;
    let expected = world.target("expected", "127.0.9.10".parse().unwrap());
    let fault = world.open(&expected).await.unwrap_err();
    assert_eq!(fault.fault, Fault::PeerIdentity);
    assert!(fault.detail().contains("spiffe://cluster.local/ns/shop/sa/actual"), "{}", fault.detail());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_leads_to_the_peers_own_address_only() {
    let world = World::new().await;
    let mut target = world.peer("own", "127.0.9.11", echo).await;
    for wrong in ["127.0.0.1:8080", "127.0.9.11:15008", "127.0.9.11:15001"] {
        let real = std::mem::replace(&mut target.address, wrong.parse().unwrap());
        let asked = target.address;
        target.address = real;
        let peer = target.workload.as_ref().unwrap().identity.clone();
        let slot = world.shared.pool.open(&world.local, &target, &peer).await.unwrap();
        let fault = mesh_proxy::tunnel::connect(slot, asked, Instant::now() + HANDSHAKE).await.unwrap_err();
        assert!(matches!(fault.fault, Fault::WrongDestination | Fault::ConnectFailed), "{wrong}: {}", fault.detail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_when_its_address_is_another_workloads() {
    let world = World::new().await;
    let target = world.peer("before", "127.0.9.12", echo).await;
    let pool = world.shared.pool.clone();
    tokio::spawn(async move { pool.follow().await });
    let mut tunnel = world.open(&target).await.unwrap();
    tokio::task::yield_now().await;
    world.target("after", "127.0.9.12".parse().unwrap());
    let removed = mesh_core::node::ResourceId::Workload(mesh_core::name::NsName::new("shop", "before"));
    let delta = mesh_core::node::NodeDelta { upserts: vec![], removes: vec![removed] };
    world.snapshots.send_modify(|s| *s = s.as_ref().map(|s| Arc::new(s.with(&delta))));
    assert!(timeout(PATIENCE, tunnel.read_u8()).await.unwrap().is_err(), "the old tunnel is broken");
    assert_eq!(world.shared.pool.connections(), 0);
}

#[tokio::test]
async fn a_tunnel_goes_on_while_the_proxy_drains() {
    let world = World::new().await;
    let target = world.peer("drains", "127.0.9.40", echo).await;
    let mut tunnel = world.open(&target).await.unwrap();
    let mut back = [0; 2];
    tunnel.write_all(b"ab").await.unwrap();
    tunnel.read_exact(&mut back).await.unwrap();
    world.shared.drain.cancel();
    tokio::time::sleep(Duration::from_millis(200)).await;
    tunnel.write_all(b"cd").await.unwrap();
    tunnel.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"cd");
    // Who comes later finds another connection: the old one takes nothing new.
    let mut later = world.open(&target).await.unwrap();
    later.write_all(b"ef").await.unwrap();
    later.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"ef");
}
