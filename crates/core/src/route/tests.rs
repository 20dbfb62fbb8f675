//! Precedence against a reference that sorts everything by the specification and scans, and single sentences of it.

use crate::{mesh::*, name::Text, route::RequestHead, tests::fixture::*};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use std::{cmp::Reverse, sync::Arc};

/// What a reference sees of a request.
#[derive(Clone, Debug)]
struct Request {
    host: String,
    method: Method,
    path: String,
    query: String,
    headers: HeaderMap,
}

impl Request {
    fn head(&self) -> RequestHead<'_> {
        let query = (!self.query.is_empty()).then_some(&*self.query);
        RequestHead { host: &self.host, method: &self.method, path: &self.path, query, headers: &self.headers }
    }
}

fn get(host: &str, path: &str) -> Request {
    Request {
        host: host.into(),
        method: Method::GET,
        path: path.into(),
        query: String::new(),
        headers: HeaderMap::new(),
    }
}

fn host_matches(pattern: &HostPattern, host: &str) -> bool {
    match pattern {
        HostPattern::Exact(name) => **name == *host,
        HostPattern::Wildcard(suffix) => host.strip_suffix(&format!(".{suffix}")).is_some_and(|rest| !rest.is_empty()),
    }
}

/// Less is more specific.
fn host_rank(pattern: Option<&HostPattern>) -> (u8, Reverse<usize>) {
    match pattern {
        Some(HostPattern::Exact(name)) => (0, Reverse(name.len())),
        Some(HostPattern::Wildcard(suffix)) => (1, Reverse(suffix.len())),
        None => (2, Reverse(0)),
    }
}

fn text_matches(wanted: &TextMatch, text: &str) -> bool {
    match wanted {
        TextMatch::Exact(t) => **t == *text,
        TextMatch::Regex(p) => p.is_match(text),
    }
}

fn text_rank(text: &Option<TextMatch>) -> (u8, Reverse<usize>) {
    match text {
        Some(TextMatch::Exact(t)) => (0, Reverse(t.len())),
        Some(TextMatch::Regex(p)) => (1, Reverse(p.source().len())),
        None => (2, Reverse(0)),
    }
}

fn matches(m: &HttpMatch, r: &Request) -> bool {
    let path = match &m.path {
        PathMatch::Exact(p) => **p == *r.path,
        PathMatch::Prefix(p) if &**p == "/" => true,
        PathMatch::Prefix(p) => *r.path == **p || r.path.starts_with(&format!("{p}/")),
        PathMatch::Regex(p) => p.is_match(&r.path),
        PathMatch::Grpc { service, method } => {
            let parts: Vec<_> = r.path.split('/').collect();
            let grpc =
                r.headers.get("content-type").is_some_and(|t| t.to_str().unwrap().starts_with("application/grpc"));
            grpc && match parts[..] {
                ["", s, m] if !s.is_empty() && !m.is_empty() => {
                    service.as_ref().is_none_or(|t| text_matches(t, s))
                        && method.as_ref().is_none_or(|t| text_matches(t, m))
                }
                _ => service.is_none() && method.is_none(),
            }
        }
    };
    let header = |h: &HeaderMatch| {
        let lines: Vec<_> = r.headers.get_all(&h.name).iter().map(|v| v.to_str().unwrap()).collect();
        !lines.is_empty() && text_matches(&h.value, &lines.join(","))
    };
    let query = |q: &QueryMatch| {
        let pair = r.query.split('&').map(|p| p.split_once('=').unwrap_or((p, ""))).find(|(n, _)| **n == *q.name);
        pair.is_some_and(|(_, v)| text_matches(&q.value, v))
    };
    path && m.method.as_ref().is_none_or(|x| *x == r.method)
        && m.headers.iter().all(header)
        && m.query.iter().all(query)
}

/// "Exact" path, then (our choice) the longest pattern, then the longest prefix; for gRPC the service, then the method.
fn path_rank(path: &PathMatch) -> ((u8, Reverse<usize>), (u8, Reverse<usize>)) {
    let none = (9, Reverse(0));
    match path {
        PathMatch::Exact(_) => ((0, Reverse(0)), none),
        PathMatch::Regex(p) => ((1, Reverse(p.source().len())), none),
        PathMatch::Prefix(p) => ((2, Reverse(p.len())), none),
        PathMatch::Grpc { service, method } => (text_rank(service), text_rank(method)),
    }
}

/// Route name, index of the rule, index of the match: by sorting all matches of the chosen listener as the specification says.
fn reference(
    listeners: &[(Text, Option<HostPattern>)],
    routes: &[Arc<HttpRoute>],
    r: &Request,
) -> Option<(String, usize, usize)> {
    let of_host = |h: &&(Text, Option<HostPattern>)| h.1.as_ref().is_none_or(|p| host_matches(p, &r.host));
    let (listener, _) = listeners.iter().filter(of_host).min_by_key(|(_, h)| host_rank(h.as_ref()))?;
    let mut all = Vec::new();
    for route in routes {
        for attachment in &route.attachments {
            let Attachment::Listener { listener: l, hostnames, .. } = attachment else { continue };
            if l != listener {
                continue;
            }
            let hosts: Vec<_> = if hostnames.is_empty() { vec![None] } else { hostnames.iter().map(Some).collect() };
            for host in hosts.into_iter().filter(|h| h.is_none_or(|h| host_matches(h, &r.host))) {
                for (i, rule) in route.rules.iter().enumerate() {
                    for (j, m) in rule.matches.iter().enumerate().filter(|(_, m)| matches(m, r)) {
                        let conditions =
                            (Reverse(m.method.is_some()), Reverse(m.headers.len()), Reverse(m.query.len()));
                        let age = (route.created, route.id.name.to_string());
                        all.push((host_rank(host), path_rank(&m.path), conditions, age, i, j));
                    }
                }
            }
        }
    }
    all.into_iter().min().map(|(_, _, _, (_, name), i, j)| (name, i, j))
}

const HOSTS: [&str; 6] = ["x.com", "a.x.com", "b.x.com", "c.a.x.com", "y.org", ""];
const PATTERNS: [&str; 6] = ["x.com", "a.x.com", "c.a.x.com", "*.x.com", "*.a.x.com", "*.com"];

fn path_text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![6 => Just("a"), 2 => Just("ab"), 1 => Just("b"), 1 => Just("")], 0..3)
        .prop_map(|elements| format!("/{}", elements.join("/")))
}

fn pattern(sources: &'static [&'static str]) -> impl Strategy<Value = Pattern> {
    prop::sample::select(sources).prop_map(|s| Pattern::new(s).unwrap())
}

fn text(exact: &'static [&'static str], sources: &'static [&'static str]) -> impl Strategy<Value = TextMatch> {
    prop_oneof![
        3 => prop::sample::select(exact).prop_map(|t| TextMatch::Exact(t.into())),
        1 => pattern(sources).prop_map(TextMatch::Regex),
    ]
}

fn http_path() -> impl Strategy<Value = PathMatch> {
    prop_oneof![
        2 => path_text().prop_map(|p| PathMatch::Exact(p.into())),
        3 => path_text().prop_map(|p| {
            let p = p.trim_end_matches('/');
            PathMatch::Prefix(if p.is_empty() { "/" } else { p }.into())
        }),
        2 => pattern(&["/a.*", "/a/.*", "/a/ab?", "/[ab]+", "/.*b", "/a/b|/b", ".*"]).prop_map(PathMatch::Regex),
    ]
}

fn grpc_path() -> impl Strategy<Value = PathMatch> {
    let service = prop::option::of(text(&["a.A", "a.AB", "b.B"], &["a\\..*", ".\\.B", ".*"]));
    let method = prop::option::of(text(&["Do", "Dont"], &["Do.*", "D.*"]));
    (service, method).prop_map(|(service, method)| PathMatch::Grpc { service, method })
}

fn one_match(path: BoxedStrategy<PathMatch>, grpc: bool) -> impl Strategy<Value = HttpMatch> {
    let header = |name: &'static str| {
        text(&["1", "1", "1", "2", "1,2"], &["1|2", "."])
            .prop_map(move |value| HeaderMatch { name: HeaderName::from_static(name), value })
    };
    let query = |name: &'static str| {
        text(&["1", "1", "2"], &["[12]"]).prop_map(move |value| QueryMatch { name: name.into(), value })
    };
    // Most conditions are absent, so that many matches hold for a request and their order shows.
    let method = prop::option::weighted(0.2, prop::sample::select(&[Method::GET, Method::POST][..]));
    let headers = (prop::option::weighted(0.3, header("h")), prop::option::weighted(0.2, header("i")));
    let queries = (prop::option::weighted(0.2, query("q")), prop::option::weighted(0.1, query("r")));
    (path, method, headers, queries).prop_map(move |(path, method, (h, i), (q, r))| HttpMatch {
        path,
        method: method.filter(|_| !grpc),
        headers: h.into_iter().chain(i).collect(),
        query: q.into_iter().chain(r).filter(|_| !grpc).collect(),
    })
}

fn listeners() -> impl Strategy<Value = Vec<(Text, Option<HostPattern>)>> {
    let hosts: Vec<&str> = PATTERNS.into_iter().chain([""]).collect();
    prop::sample::subsequence(hosts, 1..5).prop_map(|hosts| {
        let listener = |(i, h): (usize, &str)| (Text::from(format!("l{i}")), (!h.is_empty()).then(|| host(h)));
        hosts.into_iter().enumerate().map(listener).collect()
    })
}

fn routes(grpc: bool) -> impl Strategy<Value = Vec<Arc<HttpRoute>>> {
    routes_of(if grpc { grpc_path().boxed() } else { http_path().boxed() }, grpc, 1..4)
}

fn routes_of(
    path: BoxedStrategy<PathMatch>,
    grpc: bool,
    rules: std::ops::Range<usize>,
) -> impl Strategy<Value = Vec<Arc<HttpRoute>>> {
    let rules = prop::collection::vec(prop::collection::vec(one_match(path, grpc), 1..4), rules);
    let hosts = prop::sample::subsequence(&PATTERNS[..], 0..3);
    let attachments = prop::collection::vec((prop_oneof![3 => Just(0usize), 1 => 1..4usize], hosts), 1..3);
    // Ages collide on purpose; names of which one is a prefix of the other, with the separator in between.
    let name = prop::sample::select(&["a/r", "a-b/r", "a/q", "b/r", "a/r-1"][..]);
    let one = (name, 0i64..3, attachments, rules).prop_map(move |(name, created, attachments, rules)| {
        let attachments = attachments.iter().map(|(l, hosts)| to_listener("g/g", &format!("l{l}"), hosts)).collect();
        let mut r = route(name, created, attachments, rules.into_iter().map(|m| rule(m, vec![])).collect());
        if grpc {
            r.id.kind = RouteKind::Grpc;
        }
        r
    });
    prop::collection::vec(one, 0..6).prop_map(|mut routes| {
        routes.sort_by(|a, b| a.id.cmp(&b.id));
        routes.dedup_by(|a, b| a.id == b.id);
        routes.into_iter().map(Arc::new).collect()
    })
}

fn request(grpc: bool) -> impl Strategy<Value = Request> {
    let path = if grpc {
        let calls = ["/a.A/Do", "/a.AB/Do", "/b.B/Dont", "/a.A", "/a.A/Do/x", "/c.C/Did"];
        prop::sample::select(calls.to_vec()).prop_map(String::from).boxed()
    } else {
        path_text().boxed()
    };
    let lines =
        prop::collection::vec((prop_oneof![Just("h"), Just("i")], prop_oneof![3 => Just("1"), 1 => Just("2")]), 0..4);
    let pairs = prop::collection::vec(prop::sample::select(vec!["q=1", "q=1", "r=1", "q=2", "r", "s=1"]), 0..4);
    let methods = prop::sample::select(vec![Method::GET, Method::POST, Method::PUT]);
    (prop::sample::select(&HOSTS[..]), methods, path, pairs, lines).prop_map(
        move |(host, method, path, pairs, lines)| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(name, HeaderValue::from_static(value));
            }
            if grpc && host != "y.org" {
                headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            }
            Request { host: host.into(), method, path, query: pairs.join("&"), headers }
        },
    )
}

fn check(
    listeners: Vec<(Text, Option<HostPattern>)>,
    routes: Vec<Arc<HttpRoute>>,
    requests: Vec<Request>,
) -> Result<(), TestCaseError> {
    let listener = |(name, hostname): &(Text, Option<HostPattern>)| Listener {
        name: name.clone(),
        port: 80,
        hostname: hostname.clone(),
        protocol: ListenerProtocol::Http,
    };
    let g = Gateway { id: name("g/g"), addresses: vec![], listeners: listeners.iter().map(listener).collect() };
    let resources = routes.iter().cloned().map(crate::node::Resource::HttpRoute).chain([g.into()]);
    let snapshot = snapshot(resources);
    let table = snapshot.listener_routes(&name("g/g"), 80).unwrap();
    for r in &requests {
        let found = table.find(r.head()).map(|m| {
            let index: usize = m.rule.name.parse().unwrap();
            let at = m.rule.rule.matches.iter().position(|c| std::ptr::eq(c, m.condition)).unwrap();
            (m.rule.route.name.to_string(), index, at)
        });
        prop_assert_eq!(found, reference(&listeners, &routes, r), "{:?}", r);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]
    #[test]
    fn http_routes_match_as_sorting_by_the_specification_and_scanning_would(
        listeners in listeners(),
        routes in routes(false),
        requests in prop::collection::vec(request(false), 20..40),
    ) {
        check(listeners, routes, requests)?;
    }

    #[test]
    fn many_matches_of_one_path_are_found_as_sorting_and_scanning_would(
        routes in routes_of(Just(PathMatch::Prefix("/".into())).boxed(), false, 6..12),
        requests in prop::collection::vec(request(false), 20..40),
    ) {
        check(vec![("l0".into(), None)], routes, requests)?;
    }

    #[test]
    fn grpc_routes_match_as_sorting_by_the_specification_and_scanning_would(
        listeners in listeners(),
        routes in routes(true),
        requests in prop::collection::vec(request(true), 20..40),
    ) {
        check(listeners, routes, requests)?;
    }
}

#[test]
fn a_request_for_a_more_specific_listener_never_falls_to_a_less_specific_one() {
    let hosts = [("any", ""), ("wild", "*.example.com"), ("foo", "*.foo.example.com"), ("abc", "abc.foo.example.com")];
    let listeners = hosts.map(|(name, host)| (name, 80, host, ListenerProtocol::Http));
    let one = |(name, _): (&str, &str)| {
        let rules = vec![rule(vec![prefix(&format!("/{name}"))], vec![])];
        route(&format!("x/{name}"), 0, vec![to_listener("g/g", name, &[])], rules).into()
    };
    let snapshot = snapshot(hosts.map(one).into_iter().chain([gateway("g/g", &listeners).into()]));
    let table = snapshot.listener_routes(&name("g/g"), 80).unwrap();
    for (request_host, owner) in [
        ("bar.com", "any"),
        ("bar.example.com", "wild"),
        ("bar.foo.example.com", "foo"),
        ("abc.foo.example.com", "abc"),
    ] {
        for (listener, _) in hosts {
            let found = table.find(get(request_host, &format!("/{listener}")).head());
            assert_eq!(found.is_some(), listener == owner, "{request_host} /{listener}");
        }
    }
}

#[test]
fn a_routes_own_hostname_decides_even_where_both_meet_the_listener_in_the_same_name() {
    let listener = [("l", 80, "abc.example.com", ListenerProtocol::Http)];
    let older = route(
        "x/older",
        0,
        vec![to_listener("g/g", "l", &["*.example.com"])],
        vec![rule(vec![prefix("/p/q")], vec![])],
    );
    let newer = route(
        "x/newer",
        1,
        vec![to_listener("g/g", "l", &["abc.example.com"])],
        vec![rule(vec![prefix("/p")], vec![])],
    );
    let snapshot = snapshot([older.into(), newer.into(), gateway("g/g", &listener).into()]);
    let table = snapshot.listener_routes(&name("g/g"), 80).unwrap();
    let found = |path: &str| table.find(get("abc.example.com", path).head()).map(|m| m.rule.route.name.to_string());
    assert_eq!(found("/p/q/r").as_deref(), Some("x/newer"));
    assert_eq!(found("/z"), None);
}

#[test]
fn routes_of_a_service_ignore_the_host() {
    let r = route("x/r", 0, vec![to_service("x/s", &[80], "")], vec![rule(vec![prefix("/")], vec![])]);
    let snapshot = snapshot([r.into(), service("x/s", &["10.96.0.1"], &[port(80, AppProtocol::Http)]).into()]);
    let table = snapshot.service_routes("y", &name("x/s"), 80).unwrap();
    for host in ["", "s.x", "other.example.com"] {
        assert!(table.find(get(host, "/anything").head()).is_some());
    }
}

#[test]
fn a_name_with_a_dash_is_in_front_of_the_separator() {
    let both = ["a/r", "a-b/r"]
        .map(|id| route(id, 0, vec![to_service("x/s", &[80], "")], vec![rule(vec![prefix("/")], vec![])]).into());
    let snapshot = snapshot(both);
    let table = snapshot.service_routes("y", &name("x/s"), 80).unwrap();
    let found = table.find(get("", "/").head()).unwrap();
    // "The Route appearing first in alphabetical order by '{namespace}/{name}'": '-' is before '/'.
    assert_eq!(found.rule.route.name, name("a-b/r"));
}

#[test]
fn of_stream_routes_the_most_specific_name_wins_and_then_the_oldest() {
    let tls = ListenerProtocol::TlsPassthrough;
    let routes = [
        stream(RouteKind::Tls, "x/wild", 0, vec![to_listener("g/g", "l", &["*.example.com"])]),
        stream(RouteKind::Tls, "x/new", 9, vec![to_listener("g/g", "l", &["a.example.com"])]),
        stream(RouteKind::Tls, "x/old", 5, vec![to_listener("g/g", "l", &["a.example.com"])]),
        stream(RouteKind::Tcp, "x/tcp", 0, vec![to_listener("g/g", "t", &[])]),
    ];
    let listeners = [("l", 443, "", tls), ("t", 5432, "", ListenerProtocol::Tcp)];
    let snapshot = snapshot(routes.map(Into::into).into_iter().chain([gateway("g/g", &listeners).into()]));
    let find = |port, name_| {
        let table = snapshot.listener_streams(&name("g/g"), port).unwrap();
        table.find(name_).map(|s| s.route.id.name.name.to_string())
    };
    assert_eq!(find(443, Some("a.example.com")).as_deref(), Some("old"));
    assert_eq!(find(443, Some("b.example.com")).as_deref(), Some("wild"));
    assert_eq!(find(443, Some("example.com")), None);
    assert_eq!(find(443, None), None);
    assert_eq!(find(5432, None).as_deref(), Some("tcp"));
    let wants = |port| snapshot.listener_streams(&name("g/g"), port).unwrap().wants_server_name();
    assert!(wants(443) && !wants(5432));
}
