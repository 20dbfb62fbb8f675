//! What the conformance suite does not look at: where a redirect leads, what path an application gets, how requests of one connection spread.

use crate::{
    app::{App, Reply},
    world::{World, on_prefix, pod, read, rule},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use mesh_core::{mesh::*, name::NsName, node::Resource};
use std::{collections::HashMap, time::Duration};
use tokio::task::JoinSet;

fn redirect(scheme: Option<Scheme>, hostname: Option<&str>, path: Option<PathEdit>, port: Option<u16>) -> Redirect {
    Redirect { scheme, hostname: hostname.map(Into::into), path, port, status: StatusCode::FOUND }
}

#[tokio::test]
async fn a_redirect_leads_exactly_where_it_says() {
    use PathEdit::{Full, Prefix};
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[]);
    let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
    for (redirect, host, target, location) in [
        // "If no port is specified": of the scheme if one is given, else the port that was dialled; left out where it is the scheme's own.
        (redirect(None, None, None, None), "cart", "/a?b=c", "http://cart/a?b=c"),
        (redirect(None, None, None, None), "cart:8080", "/a", "http://cart/a"),
        (redirect(https, None, None, None), "cart:80", "/", "https://cart/"),
        (redirect(http, None, None, None), "cart", "/x", "http://cart/x"),
        (redirect(None, None, None, Some(8083)), "cart", "/x", "http://cart:8083/x"),
        (redirect(None, None, None, Some(80)), "cart:80", "/x", "http://cart/x"),
        (redirect(None, None, None, Some(443)), "cart", "/x", "http://cart:443/x"),
        (redirect(https, None, None, Some(443)), "cart", "/x", "https://cart/x"),
        (redirect(https, None, None, Some(80)), "cart", "/x", "https://cart:80/x"),
        (redirect(https, Some("new.example"), None, Some(8443)), "cart", "/x?y", "https://new.example:8443/x?y"),
        (
            redirect(None, Some("new.example"), Some(Full("/full".into())), None),
            "cart",
            "/old/x?q",
            "http://new.example/full?q",
        ),
        (redirect(None, None, Some(Prefix("/new".into())), None), "cart", "/old", "http://cart/new"),
        (redirect(None, None, Some(Prefix("/new".into())), None), "cart", "/old/", "http://cart/new/"),
        (redirect(None, None, Some(Prefix("/new/".into())), None), "cart", "/old/a/b", "http://cart/new/a/b"),
        (redirect(None, None, Some(Prefix("/".into())), None), "cart", "/old/a", "http://cart/a"),
        (redirect(None, None, Some(Prefix("/".into())), None), "cart", "/old", "http://cart/"),
    ] {
        let mut moved = if matches!(redirect.path, Some(Prefix(_))) { on_prefix("/old", rule(&[])) } else { rule(&[]) };
        let said = format!("{redirect:?} of {host}{target}");
        for status in [301, 302, 303, 307, 308] {
            let status = StatusCode::from_u16(status).unwrap();
            moved.filters = vec![Filter::Redirect(Redirect { status, ..redirect.clone() })];
            world.route("cart", [moved.clone()]);
            let request = Request::get(target).header("host", host).body(Bytes::new()).unwrap();
            let response = world.send("cart", request).await;
            assert_eq!(
                (response.status(), response.headers()["location"].to_str().unwrap()),
                (status, location),
                "{said}"
            );
        }
    }
}

#[tokio::test]
async fn an_application_gets_exactly_the_rewritten_path() {
    use PathEdit::{Full, Prefix};
    let (world, app) = (World::new(), App::named("cart").await);
    world.service("cart", AppProtocol::Http, &[app.address]);
    for (nth, (on, edit, target, got)) in [
        ("/one", Prefix("/two".into()), "/one", "/two"),
        ("/one", Prefix("/two".into()), "/one/", "/two/"),
        ("/one", Prefix("/two".into()), "/one/a?b=%2F", "/two/a?b=%2F"),
        ("/one", Prefix("/two/".into()), "/one/a", "/two/a"),
        ("/one/", Prefix("/two".into()), "/one/a", "/two/a"),
        ("/one", Prefix("/".into()), "/one", "/"),
        ("/one", Prefix("/".into()), "/one/a", "/a"),
        ("/", Prefix("/two".into()), "/a%20b", "/two/a%20b"),
        ("/one", Full("/all".into()), "/one/a/b?c", "/all?c"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut rewritten = on_prefix(on, rule(&[("cart", 1)]));
        rewritten.filters = vec![Filter::Rewrite(Rewrite { hostname: None, path: Some(edit) })];
        world.route("cart", [rewritten]);
        assert_eq!(world.get("cart", target).await.0, 200, "{target}");
        app.saw(nth, |s| assert_eq!(s.head.uri, got, "{on} {target}"));
    }
}

#[tokio::test]
async fn calls_of_one_grpc_connection_are_spread_over_all_endpoints() {
    // Calls take long beside what a busy machine adds to some of them, and are many at once, as on a connection that many share.
    let app =
        |name: &'static str| App::start(move |_, _| Reply { delay: Duration::from_millis(50), ..Reply::text(name) });
    let apps = [app("one").await, app("two").await, app("three").await];
    let world = World::new();
    world.service("cart", AppProtocol::Grpc, &apps.each_ref().map(|a| a.address));
    let client = world.http2("cart").await;
    let mut calls = JoinSet::new();
    for _ in 0..120 {
        let mut client = client.clone();
        calls.spawn(async move {
            let request = Request::post("http://cart/shop.Cart/Add").header("content-type", "application/grpc");
            let request = request.body(Empty::<Bytes>::new()).unwrap();
            read(client.send_request(request).await.unwrap()).await
        });
    }
    let mut counts: HashMap<String, u32> = HashMap::new();
    for (status, body) in calls.join_all().await {
        assert_eq!(status, 200);
        *counts.entry(body).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|n| *n >= 20), "{counts:?}");
}

#[tokio::test]
async fn weights_stay_exact_while_endpoints_come_and_go() {
    let (one, two, more) = (App::named("one").await, App::named("two").await, App::named("one").await);
    let world = World::new();
    world.service("cart", AppProtocol::Http, &[]);
    world.service("one", AppProtocol::Http, &[one.address]);
    world.service("two", AppProtocol::Http, &[two.address]);
    world.route("cart", [rule(&[("one", 70), ("two", 30)])]);
    let mut client = world.http2("cart").await;
    let mut counts: HashMap<String, u32> = HashMap::new();
    for n in 0..200 {
        // A slice of another Service's, and one more of the first one's, that changes its mind each time.
        let health = if n % 2 == 0 { EndpointHealth::Ready } else { EndpointHealth::NotReady };
        world.apply([Resource::EndpointSlice(std::sync::Arc::new(EndpointSlice {
            id: NsName::new("shop", "one-more"),
            service: NsName::new("shop", "one"),
            ports: vec![PortMapping { service_port: 80, target_port: more.address.port() }],
            endpoints: vec![Endpoint {
                address: more.address.ip(),
                workload: None,
                health,
                zone: "".into(),
                node: "".into(),
            }],
        }))]);
        let request = Request::get("http://cart/").body(Empty::<Bytes>::new()).unwrap();
        let (status, body) = read(client.send_request(request).await.unwrap()).await;
        assert_eq!(status, 200);
        *counts.entry(body).or_default() += 1;
    }
    assert_eq!((counts["one"], counts["two"]), (140, 60));
    assert!(more.hits() > 0, "the one that comes and goes is used, too");
}

#[tokio::test]
async fn a_pod_on_its_way_into_the_mesh_is_spoken_to_as_before_until_it_answers() {
    let (world, app) =
        (World::new(), App::at("127.0.7.90:8080".parse().unwrap(), |_, _| crate::app::Reply::text("joined")).await);
    let with = |enrolment| {
        let workload = Workload { enrolment, ..Workload::clone(&pod("joins", app.address.ip())) };
        world.apply([Resource::Workload(std::sync::Arc::new(workload))]);
    };
    world.service("cart", AppProtocol::Http, &[]);
    with(Enrolment::Joining);
    world.endpoint("cart", app.address, Some(NsName::new("shop", "joins")));
    world.shared.trust.svids().ensure(&crate::world::identity("client"));
    world.shared.trust.svids().obtained(&crate::world::identity("client")).await;
    assert_eq!(world.get("cart", "/").await, (200, "joined".into()), "nobody is at :15008");
    assert!(world.line(|l| l["path"] == "/").await["tls"].is_null());
    with(Enrolment::Meshed(Mode::Permissive));
    assert_eq!(
        world.get("cart", "/strict").await.0,
        503,
        "a pod of the mesh never gets plaintext, whatever it would take"
    );
    with(Enrolment::Leaving);
    assert_eq!(world.get("cart", "/leaving").await, (200, "joined".into()));
    assert_eq!(app.hits(), 2);
}
