//! Filters and backends, end to end.

use crate::{
    app::{App, Reply},
    world::{World, backend, on_prefix, read, rule, target},
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode};
use mesh_core::mesh::*;
use std::{collections::HashMap, time::Duration};

fn edit(
    set: &[(&'static str, &'static str)],
    add: &[(&'static str, &'static str)],
    remove: &[&'static str],
) -> HeaderEdit {
    let pairs = |list: &[(&'static str, &'static str)]| {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    };
    HeaderEdit { set: pairs(set), add: pairs(add), remove: remove.iter().map(|n| HeaderName::from_static(n)).collect() }
}

#[tokio::test]
async fn without_a_route_requests_go_to_the_service_itself() {
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    assert_eq!(world.get("cart", "/a?b=c").await, (200, "cart".into()));
    app.saw(0, |s| assert_eq!(s.head.uri, "/a?b=c"));
    assert_eq!(app.header(0, "host"), "client.example");
    let line = world.line(|l| l["kind"] == "request").await;
    assert_eq!(line["service"], "shop/cart:80");
    assert_eq!(line["source"]["workload"], "shop/client");
    assert_eq!(line["destination"]["address"], app.address.to_string());
    assert_eq!(
        (&line["status"], &line["attempts"], &line["route"]),
        (&200.into(), &1.into(), &serde_json::Value::Null)
    );
    assert_eq!(line["bytes_out"], 4);
    assert_eq!(line["request_id"], app.header(0, "x-request-id"), "hops are joined by it");
    assert!(app.header(0, "traceparent").contains(line["trace_id"].as_str().unwrap()));
}

#[tokio::test]
async fn requests_that_match_no_rule_are_404_and_the_fault_is_named() {
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    world.route("cart", [on_prefix("/in", rule(&[("cart", 1)]))]);
    assert_eq!(world.get("cart", "/in/x").await.0, 200);
    let response = world.send("cart", Request::get("/out").body(Bytes::new()).unwrap()).await;
    assert_eq!(response.headers()["heddle-fault"], "no_route");
    assert_eq!(read(response).await, (404, "no_route".into()));
    assert_eq!(world.line(|l| l["status"] == 404).await["fault"], "no_route");
}

#[tokio::test]
async fn a_broken_backend_is_500_and_one_without_endpoints_503() {
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[]);
    let mut broken = on_prefix("/broken", rule(&[]));
    broken.backends = vec![HttpBackend { weight: 1, target: BackendTarget::Broken, filters: vec![] }];
    world.route(
        "cart",
        [broken, on_prefix("/none", rule(&[])), on_prefix("/gone", rule(&[("gone", 1)])), rule(&[("cart", 1)])],
    );
    assert_eq!(world.get("cart", "/broken").await, (500, "broken_backend".into()));
    assert_eq!(world.get("cart", "/none").await, (500, "broken_backend".into()));
    assert_eq!(world.get("cart", "/gone").await, (500, "broken_backend".into()));
    assert_eq!(world.get("cart", "/").await, (503, "no_endpoint".into()));
    world.service("cart", AppProtocol::Http, &["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(world.get("cart", "/").await, (503, "connect_failed".into()));
}

#[tokio::test]
async fn headers_are_edited_on_the_way_in_and_out_also_for_one_backend_only() {
    let (world, app) =
        (World::new(), App::start(|_, _| Reply::text("").header("x-old", "1").header("x-del", "1")).await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut rule = rule(&[("cart", 1)]);
    rule.filters = vec![
        Filter::RequestHeaders(edit(&[("x-set", "new")], &[("x-add", "b")], &["x-gone"])),
        Filter::ResponseHeaders(edit(&[("x-old", "2")], &[], &["x-del"])),
    ];
    rule.backends[0].filters = vec![
        Filter::RequestHeaders(edit(&[("x-backend", "cart")], &[], &[])),
        Filter::ResponseHeaders(edit(&[], &[("x-from", "cart")], &[])),
    ];
    world.route("cart", [rule]);
    let request = Request::get("/").header("x-set", "old").header("x-add", "a").header("x-gone", "1");
    let response = world.send("cart", request.body(Bytes::new()).unwrap()).await;
    assert_eq!((app.header(0, "x-set"), app.header(0, "x-backend")), ("new".into(), "cart".into()));
    app.saw(0, |s| {
        assert_eq!(s.head.headers.get_all("x-add").iter().collect::<Vec<_>>(), ["a", "b"]);
        assert!(!s.head.headers.contains_key("x-gone"));
    });
    let headers = response.headers();
    assert_eq!(
        (&headers["x-old"], &headers["x-from"]),
        (&HeaderValue::from_static("2"), &HeaderValue::from_static("cart"))
    );
    assert!(!headers.contains_key("x-del"));
}

#[tokio::test]
async fn redirects_answer_without_a_backend() {
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[]);
    let mut rule = on_prefix("/old", rule(&[]));
    rule.filters = vec![Filter::Redirect(Redirect {
        scheme: Some(Scheme::Https),
        hostname: Some("new.example".into()),
        path: Some(PathEdit::Prefix("/new".into())),
        port: None,
        status: StatusCode::MOVED_PERMANENTLY,
    })];
    world.route("cart", [rule]);
    let response = world.send("cart", Request::get("/old/x?q=1").body(Bytes::new()).unwrap()).await;
    assert_eq!(response.status(), 301);
    assert_eq!(response.headers()["location"], "https://new.example/new/x?q=1");
}

#[tokio::test]
async fn rewrites_change_host_and_path_and_the_query_stays() {
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut rule = on_prefix("/old", rule(&[("cart", 1)]));
    rule.filters = vec![Filter::Rewrite(Rewrite {
        hostname: Some("inner.example".into()),
        path: Some(PathEdit::Prefix("/".into())),
    })];
    world.route("cart", [rule]);
    assert_eq!(world.get("cart", "/old/x?q=1").await.0, 200);
    app.saw(0, |s| assert_eq!(s.head.uri, "/x?q=1"));
    assert_eq!(app.header(0, "host"), "inner.example");
}

#[tokio::test]
async fn cors_answers_preflights_and_marks_actual_responses() {
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    let mut rule = rule(&[("cart", 1)]);
    rule.filters = vec![Filter::Cors(Cors {
        allow_origins: vec!["https://shop.example".into()],
        allow_credentials: true,
        allow_methods: vec!["PUT".into()],
        allow_headers: vec!["x-token".into()],
        expose_headers: vec!["x-seen".into()],
        max_age: Duration::from_secs(60),
    })];
    world.route("cart", [rule]);
    let preflight = |origin| {
        Request::options("/")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .body(Bytes::new())
            .unwrap()
    };
    let response = world.send("cart", preflight("https://shop.example")).await;
    assert_eq!(response.status(), 204);
    assert_eq!(response.headers()["access-control-allow-origin"], "https://shop.example");
    assert_eq!(app.hits(), 0, "preflights are answered here");
    let foreign = world.send("cart", preflight("https://evil.example")).await;
    assert!(!foreign.headers().contains_key("access-control-allow-origin"));

    let actual = Request::get("/").header("origin", "https://shop.example").body(Bytes::new()).unwrap();
    let response = world.send("cart", actual).await;
    assert_eq!(response.headers()["access-control-allow-origin"], "https://shop.example");
    assert_eq!(response.headers()["access-control-expose-headers"], "x-seen");
    assert_eq!(read(response).await, (200, "cart".into()));
}

#[tokio::test]
async fn a_mirror_gets_the_whole_request_and_its_answer_is_thrown_away() {
    let (world, app) = (World::new(), App::named("cart").await);
    let shadow = App::start(|_, _| Reply { delay: Duration::from_secs(60), ..Reply::status(500) }).await;
    world.service("cart", AppProtocol::Http, &[app.address]);
    world.service("shadow", AppProtocol::Http, &[shadow.address]);
    let mut rule = rule(&[("cart", 1)]);
    let mirror = |numerator| Filter::Mirror(Mirror { target: target("shadow"), numerator, denominator: 100 });
    rule.filters = vec![mirror(100), mirror(0)];
    world.route("cart", [rule]);
    let body = Bytes::from(vec![b'x'; 200_000]);
    let request = Request::post("/m?x").header("x-mine", "1").body(body.clone()).unwrap();
    assert_eq!(read(world.send("cart", request).await).await, (200, "cart".into()));
    for _ in 0..500 {
        if shadow.hits() > 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shadow.hits(), 1, "one mirror at 100 %, one at 0 %");
    shadow.saw(0, |s| {
        assert_eq!((s.head.uri.to_string().as_str(), &s.head.method), ("/m?x", &Method::POST));
        assert_eq!((&s.head.headers["x-mine"], s.body.len()), (&HeaderValue::from_static("1"), body.len()));
    });
}

#[tokio::test]
async fn weights_are_exact_over_a_window_and_per_request_on_one_connection() {
    let (one, two) = (App::named("one").await, App::named("two").await);
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[]);
    world.service("one", AppProtocol::Http, &[one.address]);
    world.service("two", AppProtocol::Http, &[two.address]);
    let mut rule = rule(&[("one", 90), ("two", 10)]);
    rule.backends.push(backend("cart", 0));
    world.route("cart", [rule]);
    let mut client = world.http2("cart").await;
    let mut counts: HashMap<String, u32> = HashMap::new();
    for _ in 0..100 {
        let request = Request::get("http://cart/").body(http_body_util::Empty::<Bytes>::new()).unwrap();
        let (status, body) = read(client.send_request(request).await.unwrap()).await;
        assert_eq!(status, 200);
        *counts.entry(body).or_default() += 1;
    }
    assert_eq!((counts["one"], counts["two"]), (90, 10));
}
