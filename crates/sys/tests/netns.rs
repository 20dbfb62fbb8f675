//! Namespaces made by the test: entering and coming back, sockets that stay there, rules that are applied twice. Needs CAP_SYS_ADMIN
//! (root, or `unshare -Urn`), nftables and iproute2; without them it fails and says so.

use mesh_sys::{Netns, socket, tool};
use nix::sched::{CloneFlags, unshare};
use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

/// A new network namespace, made on a thread of its own so that the test's stays where it is.
fn fresh() -> Netns {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("CAP_SYS_ADMIN is missing: run as root or under `unshare -Urn`");
        Netns::current().expect("the new namespace")
    })
    .join()
    .expect("the thread that makes a namespace")
}

fn here() -> mesh_sys::NetnsId {
    Netns::current().expect("the own namespace").id()
}

#[test]
fn a_closure_runs_inside_and_the_thread_comes_back_even_from_a_panic() {
    let (home, pod) = (here(), fresh());
    assert_ne!(pod.id(), home);
    assert_eq!(pod.run(here).expect("enter"), pod.id());
    assert_eq!(here(), home);
    let panicked = catch_unwind(AssertUnwindSafe(|| pod.run(|| panic!("inside"))));
    assert!(panicked.is_err());
    assert_eq!(here(), home, "a panic must not leave the thread in a pod");
    let failed: Result<Result<(), &str>, _> = pod.run(|| Err("inside"));
    assert_eq!(failed.expect("enter"), Err("inside"));
    assert_eq!(here(), home);
}

#[test]
fn a_socket_made_inside_stays_inside() {
    let pod = fresh();
    pod.run(|| std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status())
        .expect("enter")
        .expect("package iproute2");
    let any: SocketAddr = "[::]:15008".parse().expect("an address");
    let listener = pod.run(|| socket::listening(any, Some(1))).expect("enter").expect("CAP_NET_ADMIN for the mark");
    let to: SocketAddr = "127.0.0.1:15008".parse().expect("an address");
    assert!(
        pod.run(|| std::net::TcpStream::connect(to)).expect("enter").is_ok(),
        "IPv4 reaches the dual-stack listener"
    );
    assert!(std::net::TcpStream::connect(to).is_err(), "outside nobody listens");
    drop(listener);
}

#[test]
fn a_file_that_is_no_namespace_is_refused() {
    let refused = Netns::open(std::path::Path::new("/proc/self/status")).expect_err("not a namespace");
    assert_eq!(refused.to_string(), "/proc/self/status is not a network namespace");
}

#[test]
fn rules_are_applied_twice_and_removed_twice_as_once() {
    let pod = fresh();
    let table = "table inet heddle\ndelete table inet heddle\ntable inet heddle {\n chain c {\n type nat hook output priority -100;\n }\n}\n";
    let routes = "rule add fwmark 0x53a lookup 1337 pref 1337\nroute replace local default dev lo table 1337\n";
    let back = "rule del fwmark 0x53a lookup 1337 pref 1337\nroute del local default dev lo table 1337\n";
    pod.run(|| std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status())
        .expect("enter")
        .expect("package iproute2");
    assert!(tool::nft_has_table(&pod, "heddle").is_err());
    for _ in 0..2 {
        tool::apply_nft(&pod, table).expect("package nftables");
        tool::apply_ip(&pod, "-4", routes).expect("policy routes");
    }
    tool::nft_has_table(&pod, "heddle").expect("the table is there");
    for _ in 0..2 {
        tool::apply_nft(&pod, "table inet heddle\ndelete table inet heddle\n").expect("release");
        tool::remove_ip(&pod, "-4", back).expect("policy routes");
    }
    let nonsense = tool::apply_nft(&pod, "nonsense").expect_err("not nft");
    assert!(nonsense.to_string().starts_with("`nft` failed: "), "{nonsense}");
    assert!(tool::apply_ip(&pod, "-4", "rule add nonsense\n").is_err());
}
