//! What a snapshot finds, what it keeps from change to change, and that it does not matter in which steps it came to be.

use super::*;
use crate::{
    mesh::{AppProtocol, BackendTarget, EndpointHealth, EndpointHealth::*, ListenerProtocol, RouteKind},
    node::{NodeConfig, Resource, ResourceId},
    route::Aged,
    tests::fixture::*,
};
use proptest::prelude::*;
use std::time::Instant;

fn addresses(snapshot: &Snapshot, id: &str, port: u16) -> Vec<String> {
    let set = snapshot.endpoints(&name(id), port).unwrap();
    set.endpoints.iter().map(|t| t.address.to_string()).collect()
}

fn removes(ids: impl IntoIterator<Item = ResourceId>) -> NodeDelta {
    NodeDelta { upserts: vec![], removes: ids.into_iter().collect() }
}

fn s80() -> Resource {
    service("x/s", &["10.96.0.1"], &[port(80, AppProtocol::Unspecified)]).into()
}

#[test]
fn endpoints_are_the_union_of_slices_each_address_once_with_its_better_state() {
    let snapshot = snapshot([
        s80(),
        slice("x/s-1", "x/s", &[80], &[("10.0.0.3", "", Ready), ("10.0.0.2", "", Fallback)]).into(),
        slice("x/s-2", "x/s", &[80], &[("10.0.0.2", "", Ready), ("10.0.0.4", "", NotReady)]).into(),
        slice("x/other", "x/t", &[80], &[("10.0.0.9", "", Ready)]).into(),
    ]);
    assert_eq!(addresses(&snapshot, "x/s", 80), ["10.0.0.2:8080", "10.0.0.3:8080"]);
    assert!(snapshot.endpoints(&name("x/s"), 81).is_none());
    assert!(snapshot.endpoints(&name("x/t"), 80).is_none(), "a Service that is not known has no endpoints");
}

#[test]
fn fallback_endpoints_are_used_only_if_nobody_is_ready() {
    let of = |health: [EndpointHealth; 2]| {
        let endpoints = [("10.0.0.2", "", health[0]), ("10.0.0.3", "", health[1])];
        addresses(&snapshot([s80(), slice("x/s-1", "x/s", &[80], &endpoints).into()]), "x/s", 80).len()
    };
    assert_eq!(of([Ready, Fallback]), 1);
    assert_eq!(of([Fallback, Fallback]), 2);
    assert_eq!(of([Fallback, NotReady]), 1);
    assert_eq!(of([NotReady, NotReady]), 0);
}

#[test]
fn named_target_ports_may_differ_by_slice() {
    let mut second = slice("x/s-2", "x/s", &[80], &[("10.0.0.3", "", Ready)]);
    second.ports[0].target_port = 9999;
    let first = slice("x/s-1", "x/s", &[80], &[("10.0.0.2", "", Ready)]);
    let snapshot = snapshot([s80(), first.into(), second.into()]);
    assert_eq!(addresses(&snapshot, "x/s", 80), ["10.0.0.2:8080", "10.0.0.3:9999"]);
}

#[test]
fn an_endpoint_of_a_pod_that_nobody_told_of_gets_nothing_until_the_pod_is_known() {
    let before = snapshot([s80(), slice("x/s-1", "x/s", &[80], &[("10.0.0.2", "x/a", Ready)]).into()]);
    assert!(addresses(&before, "x/s", 80).is_empty());
    let after = before.with(&upserts([pod("x/a", &["10.0.0.2"]).into()]));
    let target = &after.endpoints(&name("x/s"), 80).unwrap().endpoints[0];
    assert_eq!(target.workload.as_ref().unwrap().id, name("x/a"));
    let gone = after.with(&removes([ResourceId::Workload(name("x/a"))]));
    assert!(addresses(&gone, "x/s", 80).is_empty());
}

#[test]
fn an_endpoint_without_a_pod_is_the_pod_at_its_address_or_something_outside() {
    let slice = slice("x/s-1", "x/s", &[80], &[("10.0.0.2", "", Ready), ("203.0.113.1", "", Ready)]);
    let snapshot = snapshot([s80(), slice.into(), pod("x/a", &["10.0.0.2"]).into()]);
    let set = snapshot.endpoints(&name("x/s"), 80).unwrap();
    let who = set.endpoints.iter().map(|t| t.workload.as_ref().map(|w| w.id.to_string()));
    assert_eq!(who.collect::<Vec<_>>(), [Some("x/a".into()), None]);
}

#[test]
fn load_survives_every_change_that_leaves_the_pod_the_same() {
    let slice = |health| slice("x/s-1", "x/s", &[80], &[("10.0.0.2", "x/a", Ready), ("10.0.0.3", "", health)]);
    let a = pod("x/a", &["10.0.0.2"]);
    let load = |s: &Snapshot| s.endpoints(&name("x/s"), 80).unwrap().endpoints[0].load.clone();
    let before = snapshot([s80(), slice(Ready).into(), a.clone().into()]);
    let _busy = load(&before).start(Instant::now());

    let churn = before.with(&upserts([slice(NotReady).into()]));
    assert!(Arc::ptr_eq(
        &before.endpoints(&name("x/s"), 80).unwrap().endpoints[0],
        &churn.endpoints(&name("x/s"), 80).unwrap().endpoints[0]
    ));
    let relabelled = churn.with(&upserts([Workload { owner: "other".into(), ..a.clone() }.into()]));
    assert_eq!(load(&relabelled).in_flight(), 1);
    let target = &relabelled.endpoints(&name("x/s"), 80).unwrap().endpoints[0];
    assert_eq!(&*target.workload.as_ref().unwrap().owner, "other");
    let another = relabelled.with(&upserts([Workload { uid: "new".into(), ..a }.into()]));
    assert_eq!(load(&another).in_flight(), 0, "a new pod at an old address starts anew");
}

#[test]
fn a_retry_budget_is_shared_by_all_ports_and_survives_until_its_rule_changes() {
    let before = snapshot([s80(), budget("x/p", &["x/s"], 20).into()]);
    let of = |s: &Snapshot| s.retry_budget(&name("x/s")).unwrap().clone();
    let again = before.with(&upserts([budget("x/p", &["x/s", "x/t"], 20).into(), s80()]));
    assert!(Arc::ptr_eq(&of(&before), &of(&again)));
    let changed = again.with(&upserts([budget("x/p", &["x/s"], 30).into()]));
    assert_eq!(of(&changed).rule().percent, 30);
    assert!(changed.retry_budget(&name("x/t")).is_none());
    let gone = changed.with(&removes([ResourceId::TrafficPolicy(name("x/p"))]));
    assert!(gone.retry_budget(&name("x/s")).is_none());
}

#[test]
fn a_split_goes_on_where_it_was_until_its_shares_change() {
    let with = |weight, prefix_: &str| -> Resource {
        let rules = vec![rule(vec![prefix(prefix_)], vec![backend(1, "x/a", 80), backend(weight, "x/b", 80)])];
        route("x/r", 0, vec![to_service("x/s", &[80], "")], rules).into()
    };
    let next = |s: &Snapshot| {
        let table = s.service_routes("x", &name("x/s"), 80).unwrap();
        let head = crate::route::RequestHead {
            host: "",
            method: &http::Method::GET,
            path: "/p",
            query: None,
            headers: &http::HeaderMap::new(),
        };
        table.find(head).unwrap().rule.split.next().unwrap()
    };
    let first = snapshot([with(1, "/")]);
    assert_eq!(next(&first), 0);
    let edited = first.with(&upserts([with(1, "/p")]));
    assert_eq!(next(&edited), 1);
    assert_eq!(next(&first), 0);
    let reweighted = edited.with(&upserts([with(3, "/p")]));
    assert_eq!((0..4).map(|_| next(&reweighted)).filter(|i| *i == 1).count(), 3);
}

#[test]
fn a_rule_that_stays_the_same_in_a_changed_route_is_not_held_twice() {
    let with = |changing: &str| {
        let rules = ["/stays", changing].map(|path| rule(vec![prefix(path)], vec![backend(1, "x/a", 80)]));
        route("x/r", 0, vec![to_service("x/s", &[80], "")], rules.into())
    };
    let first = with("/a");
    let before = Arc::downgrade(&first.rules[0]);
    let snapshot = snapshot([first.into()]).with(&upserts([with("/b").into()]));
    assert!(snapshot.service_routes("x", &name("x/s"), 80).is_some());
    assert!(before.upgrade().is_none(), "the rule of the route before is still held");
}

#[test]
fn the_newest_claim_of_an_address_wins_and_an_old_pods_news_do_not_take_it_back() {
    let old = pod("x/old", &["10.0.0.2"]);
    let snapshot = snapshot([old.clone().into()]).with(&upserts([pod("x/new", &["10.0.0.2"]).into()]));
    let at = |s: &Snapshot| s.workload_at(ip("10.0.0.2")).unwrap().id.to_string();
    assert_eq!(at(&snapshot), "x/new");
    let news = snapshot.with(&upserts([Workload { owner: "other".into(), ..old.clone() }.into()]));
    assert_eq!(at(&news), "x/new");
    let reborn = news.with(&upserts([Workload { uid: "reborn".into(), ..old }.into()]));
    assert_eq!(at(&reborn), "x/old");
    assert_eq!(at(&reborn.with(&removes([ResourceId::Workload(name("x/old"))]))), "x/new");
}

#[test]
fn an_address_that_changes_hands_in_one_delta_ends_with_its_new_owner() {
    let before = snapshot([s80()]);
    let other = service("x/t", &["10.96.0.1"], &[port(80, AppProtocol::Http)]);
    let delta = NodeDelta { upserts: vec![other.into()], removes: vec![ResourceId::Service(name("x/s"))] };
    assert_eq!(before.with(&delta).frontend(ip("10.96.0.1"), 80).unwrap().service.id, name("x/t"));
    // The earlier snapshot is as it was.
    assert_eq!(before.frontend(ip("10.96.0.1"), 80).unwrap().service.id, name("x/s"));
}

#[test]
fn what_does_not_change_is_shared_with_the_snapshot_before() {
    let rules = || vec![rule(vec![prefix("/")], vec![])];
    let before = snapshot([
        s80(),
        service("x/t", &["10.96.0.2"], &[port(80, AppProtocol::Http)]).into(),
        gateway("g/g", &[("l", 80, "", ListenerProtocol::Http)]).into(),
        route("x/r", 0, vec![to_service("x/t", &[80], ""), to_listener("g/g", "l", &["a.com"])], rules()).into(),
    ]);
    let after = before.with(&upserts([slice("x/s-1", "x/s", &[80], &[("10.0.0.2", "", Ready)]).into()]));
    let routes = |s: &Snapshot| s.service_routes("x", &name("x/t"), 80).unwrap().clone();
    let listener = |s: &Snapshot| s.listener_routes(&name("g/g"), 80).unwrap().clone();
    assert!(Arc::ptr_eq(&routes(&before), &routes(&after)) && Arc::ptr_eq(&listener(&before), &listener(&after)));
    assert!(Arc::ptr_eq(before.endpoints(&name("x/t"), 80).unwrap(), after.endpoints(&name("x/t"), 80).unwrap()));
}

#[test]
fn a_listener_without_routes_has_an_empty_table_and_no_listener_has_none() {
    let snapshot = snapshot([gateway("g/g", &[("l", 80, "", ListenerProtocol::Http)]).into()]);
    assert!(
        snapshot.listener_routes(&name("g/g"), 80).is_some() && snapshot.listener_streams(&name("g/g"), 80).is_none()
    );
    assert!(
        snapshot.listener_routes(&name("g/g"), 81).is_none() && snapshot.listener_routes(&name("g/h"), 80).is_none()
    );
}

// Whether the steps matter.

fn pods() -> BoxedStrategy<Resource> {
    // Each pod has addresses of its own: who wins a contest depends on the order of messages, as it must.
    let p = (0..4u8, prop::sample::subsequence(vec![1u8, 2], 0..=2), 0..2u8, any::<bool>());
    p.prop_map(|(i, hosts, uid, meshed)| {
        let addresses: Vec<_> = hosts.iter().map(|h| format!("10.0.{i}.{h}")).collect();
        let mut w = pod(&format!("x/p{i}"), &addresses.iter().map(|a| &**a).collect::<Vec<_>>());
        w.uid = format!("{uid}").into();
        if !meshed {
            w.enrolment = crate::mesh::Enrolment::None;
        }
        w.into()
    })
    .boxed()
}

fn services() -> BoxedStrategy<Resource> {
    let ports = prop::sample::subsequence(vec![80u16, 81], 0..=2);
    (0..3u8, prop::sample::subsequence(vec![1u8, 2], 0..=2), ports)
        .prop_map(|(i, hosts, ports)| {
            let addresses: Vec<_> = hosts.iter().map(|h| format!("10.96.{i}.{h}")).collect();
            let addresses: Vec<_> = addresses.iter().map(|a| &**a).collect();
            let ports: Vec<_> = ports.into_iter().map(|p| port(p, AppProtocol::Http)).collect();
            service(&format!("x/s{i}"), &addresses, &ports).into()
        })
        .boxed()
}

fn slices() -> BoxedStrategy<Resource> {
    let health = prop::sample::select(vec![Ready, Fallback, NotReady]);
    // Mostly the pod that has the address, sometimes none or a wrong one.
    let one = (0..4u8, 1..3u8, prop_oneof![Just(None), (0..4u8).prop_map(Some), Just(Some(9))], health);
    (0..3u8, 0..3u8, prop::sample::subsequence(vec![80u16, 81], 0..=2), prop::collection::vec(one, 0..5))
        .prop_map(|(i, of, ports, endpoints)| {
            let texts: Vec<_> = endpoints
                .iter()
                .map(|(a, h, p, health)| {
                    (
                        format!("10.0.{a}.{h}"),
                        p.map(|p| format!("x/p{}", if p == 9 { a } else { &p })).unwrap_or_default(),
                        *health,
                    )
                })
                .collect();
            let endpoints: Vec<_> = texts.iter().map(|(a, p, h)| (&**a, &**p, *h)).collect();
            slice(&format!("x/e{i}"), &format!("x/s{of}"), &ports, &endpoints).into()
        })
        .boxed()
}

fn attachments() -> impl Strategy<Value = Vec<crate::mesh::Attachment>> {
    let ports = prop::sample::subsequence(vec![80u16, 81], 1..=2);
    let hosts = || prop::sample::subsequence(vec!["a.com", "*.com"], 0..=2);
    let to_s = (0..3u8, ports, prop::sample::select(vec!["", "y", "z"]), hosts())
        .prop_map(|(i, ports, scope, hosts)| to_server_names(&format!("x/s{i}"), &ports, scope, &hosts));
    let to_l = (0..2u8, prop::sample::select(vec!["l", "m"]), hosts())
        .prop_map(|(i, l, hosts)| to_listener(&format!("g/g{i}"), l, &hosts));
    prop::collection::vec(prop_oneof![to_s, to_l], 0..4)
}

fn http_routes() -> BoxedStrategy<Resource> {
    let paths = prop::collection::vec(prop::sample::select(vec!["/", "/a", "/b"]), 1..3);
    (0..4u8, 0..2i64, attachments(), paths)
        .prop_map(|(i, created, attachments, paths)| {
            let rules = paths.iter().map(|p| rule(vec![prefix(p)], vec![backend(1, "x/s0", 80)])).collect();
            route(&format!("x/r{i}"), created, attachments, rules).into()
        })
        .boxed()
}

fn stream_routes() -> BoxedStrategy<Resource> {
    let kind = prop::sample::select(vec![RouteKind::Tls, RouteKind::Tcp]);
    (0..3u8, kind, 0..2i64, attachments())
        .prop_map(|(i, kind, created, attachments)| stream(kind, &format!("x/t{i}"), created, attachments).into())
        .boxed()
}

fn gateways() -> BoxedStrategy<Resource> {
    let protocol = prop::sample::select(vec![ListenerProtocol::Http, ListenerProtocol::TlsPassthrough]);
    let host = || prop::sample::select(vec!["", "*.com", "a.com"]);
    (0..2u8, protocol, host(), host(), any::<bool>())
        .prop_map(|(i, protocol, h1, h2, two)| {
            let l = ("l", 80, h1, protocol.clone());
            // Two listeners on one port are distinct by hostname, or the planner would have refused them.
            let m = ("m", if h1 == h2 { 81 } else { 80 }, h2, protocol);
            let listeners = if two { vec![l, m] } else { vec![l] };
            gateway(&format!("g/g{i}"), &listeners).into()
        })
        .boxed()
}

fn policies() -> BoxedStrategy<Resource> {
    (0..2u8, prop::sample::subsequence(vec!["x/s0", "x/s1", "x/s2"], 0..3), prop::sample::select(vec![20u8, 30]))
        .prop_map(|(i, targets, percent)| budget(&format!("x/b{i}"), &targets, percent).into())
        .boxed()
}

fn resources() -> impl Strategy<Value = Resource> {
    prop_oneof![pods(), services(), slices(), http_routes(), stream_routes(), gateways(), policies()]
}

/// All that can be asked, as text; names instead of addresses in memory.
fn seen(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = Vec::new();
    for a in 0..4u8 {
        for h in 1..3u8 {
            lines.push(format!("{:?}", snapshot.workload_at([10, 0, a, h].into())));
            lines.push(format!("{:?}", snapshot.frontend([10, 96, a, h].into(), 80)));
            lines.push(format!("{}", snapshot.is_service_address([10, 96, a, h].into())));
        }
    }
    for s in 0..3u8 {
        let id = name(&format!("x/s{s}"));
        lines.push(format!("{:?} {:?}", snapshot.service(&id), snapshot.retry_budget(&id).map(|b| *b.rule())));
        for port in [80, 81, 82] {
            let endpoints = snapshot.endpoints(&id, port).map(|set| {
                set.endpoints.iter().map(|t| (t.address, t.workload.clone(), t.zone.clone())).collect::<Vec<_>>()
            });
            lines.push(format!("{endpoints:?}"));
            for ns in ["x", "y", "z"] {
                let governing = snapshot.port(&id, port).and_then(|p| p.governing(ns));
                let routes = governing.and_then(|g| g.http.as_ref()).map(|(i, _)| names(i.routes()));
                lines.push(format!("{routes:?} {:?}", streams(snapshot.service_streams(ns, &id, port))));
                lines.push(found(snapshot.service_routes(ns, &id, port)));
            }
        }
    }
    for g in 0..2u8 {
        let id = name(&format!("g/g{g}"));
        lines.push(format!("{:?}", snapshot.gateway(&id)));
        for port in [80, 81] {
            lines.push(found(snapshot.listener_routes(&id, port)));
            lines.push(format!("{:?}", streams(snapshot.listener_streams(&id, port))));
        }
    }
    lines
}

use crate::route::Bucket;

fn names<R: Aged>(routes: &[Arc<R>]) -> Vec<String> {
    routes.iter().map(|r| r.id().to_string()).collect()
}

type Found = [Option<crate::mesh::RouteId>; 3];

fn streams(table: Option<&Arc<StreamTable>>) -> Option<(bool, Found)> {
    let find = |t: &StreamTable| ["", "a.com", "b.com"].map(|h| t.find(Some(h)).map(|s| s.route.id.clone()));
    table.map(|t| (t.wants_server_name(), find(t)))
}

fn found(table: Option<&Arc<RouteTable>>) -> String {
    let headers = http::HeaderMap::new();
    let ask = |host, path| {
        let head = crate::route::RequestHead { host, method: &http::Method::GET, path, query: None, headers: &headers };
        table.map(|t| t.find(head).map(|m| (m.rule.route.clone(), m.rule.name.clone())))
    };
    format!("{:?}", ["a.com", "b.com", "org"].map(|h| ["/a", "/b/x", "/c"].map(|p| ask(h, p))))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn a_snapshot_is_the_same_whether_it_came_step_by_step_or_at_once(
        steps in prop::collection::vec((prop::collection::vec(resources(), 0..6), prop::collection::vec(any::<prop::sample::Index>(), 0..4)), 1..12),
    ) {
        let mut config = NodeConfig::new();
        let mut stepwise = Snapshot::empty(settings());
        for (upserts, removes) in steps {
            let known: Vec<_> = config.keys().cloned().collect();
            let mut removes: Vec<_> = removes.iter().filter(|_| !known.is_empty()).map(|i| i.get(&known).clone()).collect();
            removes.push(ResourceId::Service(name("x/never-was")));
            let delta = NodeDelta { upserts, removes };
            stepwise = stepwise.with(&delta);
            delta.removes.iter().for_each(|id| drop(config.remove(id)));
            delta.upserts.iter().for_each(|r| drop(config.insert(r.id(), r.clone())));
        }
        let at_once = snapshot(config.values().cloned());
        prop_assert_eq!(seen(&stepwise), seen(&at_once));

        // And nothing stays when everything is gone.
        let empty = stepwise.with(&removes(config.keys().cloned()));
        prop_assert!(empty.services.is_empty() && empty.gateways.is_empty() && empty.workloads.is_empty());
        prop_assert!(empty.http_routes.is_empty() && empty.stream_routes.is_empty() && empty.slices.is_empty());
        prop_assert!(empty.policies.is_empty() && empty.workloads_at.is_empty());
        prop_assert!(empty.services_at.is_empty() && empty.slices_at.is_empty());
    }
}

#[test]
fn a_tls_route_backend_is_chosen_by_weight_and_goes_on_after_an_unrelated_edit() {
    let with = |created| -> Resource {
        let mut s = stream(RouteKind::Tcp, "x/t", created, vec![to_service("x/s", &[80], "")]);
        s.backends = vec![(1, BackendTarget::Broken), (1, s.backends[0].1.clone())];
        s.into()
    };
    let next = |s: &Snapshot| s.service_streams("x", &name("x/s"), 80).unwrap().find(None).unwrap().split.next();
    let before = snapshot([with(0)]);
    assert_eq!(next(&before), Some(0));
    assert_eq!(next(&before.with(&upserts([with(1)]))), Some(1));
}

#[test]
fn a_tls_route_on_a_service_gets_only_its_server_names() {
    let at = |hosts: &[&str]| vec![to_server_names("x/s", &[443], "", hosts)];
    let exact: Resource = stream(RouteKind::Tls, "x/exact", 0, at(&["a.com"])).into();
    let wild: Resource = stream(RouteKind::Tls, "x/wild", 0, at(&["*.com", "b.org"])).into();
    let find = |s: &Snapshot, server_name| {
        let table = s.service_streams("x", &name("x/s"), 443).unwrap().clone();
        assert!(table.wants_server_name());
        table.find(server_name).map(|r| r.route.id.name.name.to_string())
    };
    let both = snapshot([exact, wild]);
    for (server_name, want) in [
        (Some("a.com"), Some("exact")),
        (Some("x.com"), Some("wild")),
        (Some("b.org"), Some("wild")),
        (Some("c.org"), None),
        (None, None),
    ] {
        assert_eq!(find(&both, server_name).as_deref(), want, "{server_name:?}");
    }
    // An edit takes a name from one route and gives it to the other.
    let edited = [("x/exact", &["c.org"][..]), ("x/wild", &["a.com"])];
    let edited = both.with(&upserts(edited.map(|(id, hosts)| stream(RouteKind::Tls, id, 0, at(hosts)).into())));
    assert_eq!(find(&edited, Some("a.com")).as_deref(), Some("wild"));
    assert_eq!(find(&edited, Some("c.org")).as_deref(), Some("exact"));
    assert_eq!(find(&edited, Some("x.com")), None);
}

#[test]
fn a_request_route_on_a_service_is_not_chosen_by_host() {
    let rules = || vec![rule(vec![prefix("/")], vec![])];
    let with = |hosts: &[&str]| -> Resource {
        route("x/r", 0, vec![to_server_names("x/s", &[80], "", hosts)], rules()).into()
    };
    let found = |s: &Snapshot| found(s.service_routes("x", &name("x/s"), 80));
    let any = snapshot([with(&[])]);
    assert_eq!(found(&snapshot([with(&["other.org"])])), found(&any));
    assert_eq!(found(&any.with(&upserts([with(&["other.org", "a.com"])]))), found(&any));
}
