//! Retries, budgets and timeouts, end to end.

use crate::{
    app::{App, Reply},
    world::{World, read, rule, settings},
};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use mesh_core::{mesh::*, name::NsName, node::Resource};
use std::{sync::Arc, time::Duration};

fn retry(attempts: u32, codes: &[u16]) -> Option<Retry> {
    Some(Retry { attempts, codes: codes.to_vec(), backoff: Some(Duration::from_millis(1)) })
}

#[tokio::test]
async fn a_listed_code_is_retried_at_another_endpoint() {
    let (bad, good) = (App::start(|_, _| Reply::status(503)).await, App::named("good").await);
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[bad.address, good.address]);
    world.route("pay", [HttpRule { retry: retry(1, &[503]), ..rule(&[("pay", 1)]) }]);
    for _ in 0..20 {
        assert_eq!(world.get("pay", "/").await, (200, "good".into()));
    }
    assert!(bad.hits() > 0, "the bad one was tried");
    let retried = world.lines().iter().filter(|l| l["attempts"] == 2).count();
    assert_eq!(retried, bad.hits());
    assert!(world.metrics().contains(&format!("heddle_retries_total{{service=\"shop/pay:80\"}} {retried}")));
}

#[tokio::test]
async fn the_last_code_is_the_answer_when_attempts_run_out_and_without_retry_the_first_is() {
    let app = App::start(|n, _| Reply::status(500 + n as u16)).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[app.address]);
    world.route("pay", [HttpRule { retry: retry(2, &[500, 501, 502, 503]), ..rule(&[("pay", 1)]) }]);
    assert_eq!(world.get("pay", "/").await.0, 502);
    assert_eq!(app.hits(), 3);
    world.route("pay", [rule(&[("pay", 1)])]);
    assert_eq!(world.get("pay", "/").await.0, 503);
    assert_eq!(app.hits(), 4);
}

#[tokio::test]
async fn a_refused_connection_is_retried_at_another_endpoint() {
    let good = App::named("good").await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &["127.0.0.1:1".parse().unwrap(), good.address]);
    world.route("pay", [HttpRule { retry: retry(1, &[]), ..rule(&[("pay", 1)]) }]);
    for _ in 0..20 {
        let request = Request::post("/").body(Bytes::from_static(b"body")).unwrap();
        assert_eq!(read(world.send("pay", request).await).await, (200, "good".into()));
    }
    assert!((0..20).all(|n| good.saw(n, |s| s.body == "body")), "the body arrives whole after a retry");
}

#[tokio::test]
async fn nothing_is_retried_after_response_bytes() {
    let app = App::start(|_, _| Reply { abort: true, ..Reply::text("half") }).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[app.address]);
    world.route("pay", [HttpRule { retry: retry(3, &[500, 502, 503]), ..rule(&[("pay", 1)]) }]);
    let response = world.send("pay", Request::get("/").body(Bytes::new()).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err(), "the client sees that the response broke off");
    assert_eq!(app.hits(), 1);
    let line = world.line(|l| l["kind"] == "request").await;
    assert_eq!(
        (&line["fault"], &line["attempts"], &line["bytes_out"]),
        (&"upstream_reset".into(), &1.into(), &4.into())
    );
}

#[tokio::test]
async fn a_used_up_budget_is_503_and_counted() {
    let app = App::start(|_, _| Reply::status(500)).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[app.address]);
    world.route("pay", [HttpRule { retry: retry(1, &[500]), ..rule(&[("pay", 1)]) }]);
    world.apply([Resource::TrafficPolicy(Arc::new(TrafficPolicy {
        id: NsName::new("shop", "budget"),
        targets: vec![NsName::new("shop", "pay")],
        retry_budget: Some(RetryBudget {
            percent: 0,
            interval: Duration::from_secs(60),
            min_retries: 2,
            min_interval: Duration::from_secs(60),
        }),
    }))]);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(world.get("pay", "/").await);
    }
    let over = (503, "retry_budget".to_owned());
    assert_eq!(answers, [(500, String::new()), (500, String::new()), over.clone(), over]);
    assert_eq!(app.hits(), 6, "four requests and two retries");
    assert!(
        world.metrics().contains("heddle_retry_budget_refusals_total{service=\"shop/pay:80\"} 2"),
        "{}",
        world.metrics()
    );
}

#[tokio::test]
async fn the_request_timeout_is_504_and_bounds_all_attempts() {
    let app = App::start(|_, _| Reply { delay: Duration::from_secs(60), ..Reply::default() }).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[app.address]);
    let rule = HttpRule {
        request_timeout: Some(Duration::from_millis(250)),
        backend_timeout: Some(Duration::from_millis(100)),
        retry: retry(100, &[504]),
        ..rule(&[("pay", 1)])
    };
    world.route("pay", [rule]);
    let begun = std::time::Instant::now();
    assert_eq!(world.get("pay", "/").await, (504, "request_timeout".into()));
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert!(app.hits() >= 2, "attempts that ran out were repeated: {}", app.hits());
}

#[tokio::test]
async fn a_slow_backend_is_504_and_with_retry_another_one_answers() {
    let slow = App::start(|_, _| Reply { delay: Duration::from_secs(60), ..Reply::default() }).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[slow.address]);
    let patient = |retry| HttpRule { backend_timeout: Some(Duration::from_millis(150)), retry, ..rule(&[("pay", 1)]) };
    world.route("pay", [patient(None)]);
    assert_eq!(world.get("pay", "/").await, (504, "backend_timeout".into()));
    let good = App::named("good").await;
    world.endpoint("pay", good.address, None);
    world.route("pay", [patient(retry(1, &[]))]);
    for _ in 0..5 {
        assert_eq!(world.get("pay", "/").await, (200, "good".into()));
    }
}

#[tokio::test]
async fn a_timeout_in_the_middle_of_a_response_breaks_it_off() {
    let app = App::start(|_, _| Reply { linger: Duration::from_secs(60), ..Reply::text("begun") }).await;
    let world = World::new();
    world.service("pay", AppProtocol::Http, &[app.address]);
    world.route("pay", [HttpRule { request_timeout: Some(Duration::from_millis(300)), ..rule(&[("pay", 1)]) }]);
    let response = world.send("pay", Request::get("/").body(Bytes::new()).unwrap()).await;
    assert_eq!(response.status(), 200);
    assert!(response.into_body().collect().await.is_err());
    assert_eq!(world.line(|l| l["kind"] == "request").await["fault"], "request_timeout");
}

#[tokio::test]
async fn a_body_is_replayed_within_its_bound_and_never_beyond() {
    let app = App::start(|n, _| if n % 2 == 0 { Reply::status(503) } else { Reply::text("second") }).await;
    let mut settings = settings();
    settings.limits.replay_bytes = 100_000;
    let world = World::with(settings);
    world.service("pay", AppProtocol::Http, &[app.address]);
    world.route("pay", [HttpRule { retry: retry(1, &[503]), ..rule(&[("pay", 1)]) }]);
    let small: Bytes = (0..90_000u32).map(|i| i as u8).collect();
    let post = |body: &Bytes| Request::post("/").body(body.clone()).unwrap();
    assert_eq!(read(world.send("pay", post(&small)).await).await, (200, "second".into()));
    assert_eq!(app.hits(), 2);
    assert!((0..2).all(|n| app.saw(n, |s| s.body == small)));
    assert_eq!(world.line(|l| l["attempts"] == 2).await["bytes_in"], 90_000, "replayed bytes count once");
    let large = Bytes::from(vec![0; 100_001]);
    assert_eq!(read(world.send("pay", post(&large)).await).await.0, 503, "sent once");
    assert_eq!(app.hits(), 3);
}
