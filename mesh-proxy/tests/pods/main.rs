//! The roster against real network namespaces: what the CNI may ask, in any order and again. Needs CAP_SYS_ADMIN (root, or `unshare -Urn`),
//! util-linux, nftables and iproute2; without them it fails and says so. It must not start a proxy.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod world;

use mesh_core::{capture::TABLE, decide::*, enroll::Phase, mesh::*};
use mesh_proxy::pods::{Sandbox, Shown};
use mesh_sys::{NetnsId, tool};
use world::{Node, Pod, done};

const MESHED: Enrolment = Enrolment::Meshed(Mode::Strict);

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_add_is_answered_again_and_leaves_what_is_there() {
    let (node, pod) = (Node::new(), Pod::new("cart"));
    node.names("cart", MESHED);
    assert_eq!(node.add(&pod).await, done(true));
    let living = pod.connect(HBONE_PORT).unwrap();
    assert_eq!(node.add(&pod).await, done(true));
    assert_eq!(node.check(&pod).await, done(true));
    tool::nft_has_table(&pod.netns, TABLE).unwrap();
    for port in [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT] {
        pod.connect(port).unwrap();
    }
    assert!(world::is_open(&living), "what is carried goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn del_leaves_nothing_and_may_come_again_or_for_what_never_was() {
    let (node, pod) = (Node::new(), Pod::new("cart"));
    node.names("cart", MESHED);
    assert_eq!(node.del("never-announced").await, done(false));
    assert_eq!(node.add(&pod).await, done(true));
    let living = pod.connect(HBONE_PORT).unwrap();
    for _ in 0..2 {
        assert_eq!(node.del(&pod.container).await, done(false));
        assert!(node.remembered().is_empty());
        for port in [OUTBOUND_PORT, INBOUND_PORT, HBONE_PORT] {
            pod.connect(port).unwrap_err();
        }
    }
    assert!(!world::is_open(&living));
    let unknown = node.check(&pod).await;
    assert_eq!(unknown, world::failed("sandbox container-cart is not known", false));
    // The runtime may build the same sandbox again.
    assert_eq!(node.add(&pod).await, done(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_outside_the_mesh_is_left_as_it_is() {
    let (node, pod) = (Node::new(), Pod::new("bare"));
    node.names("bare", Enrolment::None);
    assert_eq!(node.add(&pod).await, done(false));
    assert_eq!(node.check(&pod).await, done(false));
    tool::nft_has_table(&pod.netns, TABLE).unwrap_err();
    pod.connect(HBONE_PORT).unwrap_err();
    assert_eq!(node.remembered(), ["container-bare"], "it may become meshed later");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_that_fails_leaves_no_listener_and_no_way_out_and_is_tried_again() {
    let (node, pod) = (Node::new(), Pod::new("cart"));
    node.names("cart", MESHED);
    // The second of the three listeners cannot be opened.
    let in_the_way = pod.listen(INBOUND_PORT).unwrap();
    let answer = node.add(&pod).await;
    let reason = format!("pod shop/cart: listener on port {INBOUND_PORT}: Address already in use (os error 98)");
    assert_eq!(answer, world::failed(&reason, true));
    for port in [OUTBOUND_PORT, HBONE_PORT] {
        pod.connect(port).unwrap_err();
    }
    tool::nft_has_table(&pod.netns, TABLE).expect("closed, not open");
    drop(in_the_way);
    assert_eq!(node.add(&pod).await, done(true));
    pod.connect(OUTBOUND_PORT).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn del_after_a_capture_that_failed_leaves_nothing_to_try_again() {
    let (node, pod) = (Node::new(), Pod::new("cart"));
    node.names("cart", MESHED);
    let in_the_way = pod.listen(INBOUND_PORT).unwrap();
    assert!(matches!(node.add(&pod).await, mesh_proxy::pods::Answer::Failed { retry: true, .. }));
    assert_eq!(node.del(&pod.container).await, done(false));
    assert!(node.remembered().is_empty());
    drop(in_the_way);
    // Longer than the pause before another try.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    pod.connect(INBOUND_PORT).unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_no_sandbox_of_before_is_left_and_a_living_one_is_taken_up() {
    let (living, used_again) = (Pod::new("cart"), Pod::new("again"));
    let gone = Sandbox { container: "gone".into(), netns: "/run/netns/of-before".into(), ..living.sandbox() };
    // The path leads to another namespace than it did.
    let id = NetnsId { inode: 1, ..used_again.netns.id() };
    let other = Sandbox { netns_id: id, captured: true, ..used_again.sandbox() };
    let node = Node::with(&[gone, other, living.sandbox()]);
    assert_eq!(node.remembered(), ["container-cart"]);
    node.names("cart", MESHED);
    node.names("again", MESHED);
    world::eventually(|| living.connect(HBONE_PORT).is_ok()).await;
    tool::nft_has_table(&living.netns, TABLE).unwrap();
    tool::nft_has_table(&used_again.netns, TABLE).unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_shown_until_it_ends_whatever_becomes_of_its_pod_meanwhile() {
    let (node, pod) = (Node::new(), Pod::new("cart"));
    node.names("cart", MESHED);
    assert_eq!(node.add(&pod).await, done(true));
    let shows = |phase, connections| {
        let node = &node;
        world::eventually(move || node.shown("cart") == Some(Shown { phase, connections }))
    };
    let (first, second) = (pod.connect(HBONE_PORT).unwrap(), pod.connect(HBONE_PORT).unwrap());
    shows(Phase::Captured, 2).await;
    node.names("cart", Enrolment::None);
    shows(Phase::Plain, 2).await;
    node.names("cart", MESHED);
    shows(Phase::Captured, 2).await;
    drop(first);
    shows(Phase::Captured, 1).await;
    node.names("cart", Enrolment::None);
    shows(Phase::Plain, 1).await;
    assert!(world::is_open(&second));
    assert_eq!(node.del(&pod.container).await, done(false));
    assert!(!world::is_open(&second), "the pod is gone, and with it what any of its servings took");
    assert_eq!(node.shown("cart"), None);
}
