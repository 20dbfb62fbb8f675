//! The admin server over real sockets: its answers, its bounds. One process has one log, so this is one test binary with one log.
#![expect(clippy::unwrap_used, reason = "tests")]

use mesh_run::{Admin, Drain, LogLevel, Readiness, log};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

fn level() -> LogLevel {
    static LEVEL: OnceLock<LogLevel> = OnceLock::new();
    LEVEL.get_or_init(|| log::start("info").unwrap()).clone()
}

async fn admin() -> (SocketAddr, Readiness, Drain) {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    counter.inc_by(3);
    registry.register("heddle_things", "Things", counter);
    let (readiness, drain) = (Readiness::default(), Drain::new());
    let admin = Admin {
        readiness: readiness.clone(),
        drain: drain.clone(),
        metrics: Arc::new(registry),
        log: level(),
        config: Arc::new(|| r#"{"resources":[]}"#.to_owned()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(admin.serve(listener, std::future::pending()));
    (address, readiness, drain)
}

/// Status and body.
async fn ask(address: SocketAddr, method: &str, target: &str) -> (u16, String) {
    let mut tcp = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(10), tcp.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn ready_follows_the_conditions_and_the_drain() {
    let (address, readiness, drain) = admin().await;
    let condition = readiness.condition("config", "the controller has not answered");
    assert_eq!(
        ask(address, "GET", "/ready").await,
        (503, "waiting for config: the controller has not answered\n".into())
    );
    assert_eq!(ask(address, "GET", "/live").await.0, 200);
    condition.met();
    assert_eq!(ask(address, "GET", "/ready").await, (200, "ready\n".into()));
    let busy = drain.busy();
    drain.start();
    assert_eq!(ask(address, "GET", "/ready").await, (503, "draining, 1 busy\n".into()));
    drop(busy);
}

#[tokio::test]
async fn metrics_and_config_are_shown() {
    let (address, ..) = admin().await;
    let (status, body) = ask(address, "GET", "/metrics").await;
    assert!(status == 200 && body.contains("heddle_things_total 3"), "{body}");
    assert_eq!(ask(address, "GET", "/debug/config").await, (200, r#"{"resources":[]}"#.into()));
}

#[tokio::test]
async fn the_log_level_is_set_while_running() {
    let (address, ..) = admin().await;
    assert_eq!(ask(address, "PUT", "/debug/log?filter=warn,mesh_run%3Ddebug").await.0, 200);
    let (_, now) = ask(address, "GET", "/debug/log").await;
    assert!(now.contains("mesh_run=debug") && now.contains("warn"), "{now}");
    let (status, why) = ask(address, "PUT", "/debug/log?filter=mesh=loud").await;
    assert!(status == 400 && why.contains("mesh=loud"), "{why}");
    assert_eq!(ask(address, "PUT", "/debug/log").await.0, 400);
    assert_eq!(ask(address, "DELETE", "/debug/log").await.0, 405);
    assert_eq!(ask(address, "POST", "/ready").await.0, 405);
    assert_eq!(ask(address, "GET", "/secrets").await.0, 404);
}

#[tokio::test]
async fn silent_clients_are_dropped_and_do_not_shut_others_out() {
    let (address, ..) = admin().await;
    let mut silent = vec![];
    for _ in 0..64 {
        let mut tcp = TcpStream::connect(address).await.unwrap();
        tcp.write_all(b"GET /ready HT").await.unwrap();
        silent.push(tcp);
    }
    assert_eq!(ask(address, "GET", "/live").await.0, 200, "served once the silent ones have run out of time");
}
