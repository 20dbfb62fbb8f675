//! Files to objects: what each broken document says, and what stays as it was.

use super::*;

fn place(folder: usize, file: &str) -> Place {
    (folder, file.into())
}

fn set(state: &mut State, file: &str, text: &str) -> Batch {
    state.set(&place(0, file), Ok(text));
    state.settle()
}

/// `+HTTPRoute shop/a` and `-HTTPRoute shop/a`.
fn changes(batch: &Batch) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Upsert(key, _) | Change::Read(key, _) => format!("+{key}"),
        Change::Remove(key) => format!("-{key}"),
    };
    batch.changes.iter().map(word).collect()
}

fn problems(batch: &Batch) -> Vec<String> {
    batch.problems.iter().map(Problem::to_string).collect()
}

fn service(name: &str, port: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: shop\nspec:\n  ports:\n  - port: {port}\n"
    )
}

fn route(rules: &str) -> String {
    let head = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: r\n  namespace: shop\nspec:\n  rules:\n";
    format!("{head}{rules}")
}

fn gateway(listener: &str) -> String {
    let head = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: g, namespace: shop}\nspec:\n  gatewayClassName: c\n  listeners:\n";
    format!("{head}{listener}")
}

/// Every broken document and the message it gives.
#[test]
fn each_broken_document_says_what_is_wrong_with_it() {
    let r = |rules: &str| route(rules);
    let cases: Vec<(String, &[&str])> = vec![
        ("kind: Service\n".into(), &["f:1: apiVersion: is required"]),
        ("apiVersion: v1\nmetadata: {name: a}\n".into(), &["f:1: kind: is required"]),
        ("apiVersion: v1\nkind: Service\nmetadata:\n  namespace: shop\n".into(), &["f:3: metadata.name: is required"]),
        ("just text\n".into(), &["f:1: is not an object"]),
        ("- a\n- b\n".into(), &["f:1: is not an object"]),
        ("a: [1, 2\nb: 3\n".into(), &["f:2: is not YAML: "]),
        ("a: 1\na: 2\n".into(), &["f:2: is not YAML: "]),
        ("a: \"open\n".into(), &["f:2: is not YAML: "]),
        ("a: *nobody\n".into(), &["f:1: is not YAML: "]),
        ("apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, namespace: n}\n".into(),
            &["f:2: Widget n/w: is of a kind that the mesh does not read; it is left alone"]),
        ("apiVersion: gateway.networking.k8s.io/v7\nkind: Gateway\nmetadata: {name: g}\n".into(),
            &["f:1: Gateway default/g: apiVersion: gateway.networking.k8s.io/v7 is not a version of Gateway that is served"]),
        (service("Cart", "80"), &["f:4: Service shop/Cart: metadata.name: \"Cart\" must consist of lower case letters, digits and '-', beginning with a letter, at most 63"]),
        (service("cart", "0"), &["f:8: Service shop/cart: spec.ports[0].port: 0 is not a port, 1 to 65535", "f:8: Service shop/cart: spec.ports[0].targetPort: 0 is not a port, 1 to 65535"]),
        (service("cart", "80\n  - port: 81"), &["f:8: Service shop/cart: spec.ports[0].name: is required when there are several ports", "f:9: Service shop/cart: spec.ports[1].name: is required when there are several ports"]),
        (service("cart", "80\n    protocol: HTTP"), &["f:9: Service shop/cart: spec.ports[0].protocol: \"HTTP\" is not one of TCP, UDP, SCTP"]),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: []}\n".into(), &["f:4: Pod default/p: spec.containers: is required"]),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ntype: kubernetes.io/tls\ndata:\n  tls.crt: aGk=\n".into(),
            &["f:5: Secret default/s: data.tls.key: is required for type kubernetes.io/tls"]),
        ("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: e}\naddressType: IPv4\nendpoints:\n- addresses: [10.0.0.300]\n".into(),
            &["f:6: EndpointSlice default/e: endpoints[0].addresses[0]: \"10.0.0.300\" is not an IPv4 address"]),
        (r("  - backendRefs: [{name: a}]\n"), &["f:8: HTTPRoute shop/r: spec.rules[0].backendRefs[0]: Must have port for Service reference"]),
        (r("  - matches:\n    - path: {type: Glob, value: /}\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].matches[0].path.type: \"Glob\" is not one of Exact, PathPrefix, RegularExpression"]),
        (r("  - matches:\n    - path:\n        value: cart\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].matches[0].path: value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"]),
        (r("  - matches:\n    - path: {value: /a/../b}\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].matches[0].path: must not contain '/../' when type one of ['Exact', 'PathPrefix']"]),
        (r("  - timeouts:\n      request: 5 s\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].timeouts.request: \"5 s\" does not match ^([0-9]{1,5}(h|m|s|ms)){1,4}$"]),
        (r("  - timeouts: {request: 1s, backendRequest: 2s}\n"), &["f:8: HTTPRoute shop/r: spec.rules[0].timeouts: backendRequest timeout cannot be longer than request timeout"]),
        (r("  - filters: [{type: URLRewrite}]\n"), &["f:8: HTTPRoute shop/r: spec.rules[0].filters[0]: filter.urlRewrite must be specified for URLRewrite filter.type"]),
        (r("  - filters:\n    - {type: RequestRedirect, requestRedirect: {statusCode: 200}}\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].filters[0].requestRedirect.statusCode: 200 is not one of 301, 302, 303, 307, 308"]),
        (r("  - filters:\n    - {type: RequestRedirect, requestRedirect: {scheme: https}}\n    backendRefs: [{name: a, port: 1}]\n"), &["f:8: HTTPRoute shop/r: spec.rules[0]: RequestRedirect filter must not be used together with backendRefs"]),
        (r("  - backendRefs:\n    - {name: a, port: 80, weight: -1}\n"), &["f:9: HTTPRoute shop/r: spec.rules[0].backendRefs[0].weight: must be at least 0, not -1"]),
        (r("  - name: x\n  - name: x\n"), &["f:7: HTTPRoute shop/r: spec.rules: Rule name must be unique within the route"]),
        (r("  - matchs: []\n"), &["f:8: HTTPRoute shop/r: spec.rules[0].matchs: is not a field of this kind"]),
        (gateway("  - {name: a, port: 80, protocol: HTTP, tls: {mode: Terminate, certificateRefs: [{name: x}]}}\n"), &["f:7: Gateway shop/g: spec.listeners[0]: tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"]),
        (gateway("  - {name: a, port: 80, protocol: HTTP}\n  - {name: b, port: 80, protocol: HTTP}\n"), &["f:6: Gateway shop/g: spec.listeners: Combination of port, protocol and hostname must be unique for each listener"]),
        (gateway("  - {name: a, port: 443, protocol: HTTPS, tls: {mode: Terminate}}\n"), &["f:7: Gateway shop/g: spec.listeners[0].tls: certificateRefs or options must be specified when mode is Terminate"]),
        (gateway("  - {name: a, port: 66000, protocol: HTTP}\n"), &["f:7: Gateway shop/g: spec.listeners[0].port: must be at most 65535, not 66000"]),
        ("apiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {name: c}\n".into(), &["f:1: GatewayClass c: spec: is required"]),
        ("apiVersion: heddle.dev/v1alpha1\nkind: MeshParameters\nmetadata: {name: p}\nspec: {mode: Lax}\n".into(), &["f:4: MeshParameters p: spec.mode: \"Lax\" is not one of Strict, Permissive, Off"]),
    ];
    let mut failures = Vec::new();
    for (text, expected) in &cases {
        let found = problems(&set(&mut State::default(), "f", text));
        // What the YAML crate says is its own; that it is said, and where, is ours.
        let same = |(f, e): (&String, &&str)| {
            f == e || (e.ends_with("is not YAML: ") && f.starts_with(e) && f.len() > e.len())
        };
        if found.len() != expected.len() || !found.iter().zip(*expected).all(same) {
            failures.push(format!("{text}\n  expected {expected:#?}\n  found {found:#?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(cases.len() >= 25);
}

#[test]
fn a_broken_document_keeps_its_last_good_state_and_harms_no_other() {
    let mut state = State::default();
    let good = format!("{}---\n{}", service("a", "80"), service("b", "80"));
    assert_eq!(changes(&set(&mut state, "f", &good)), ["+Service shop/a", "+Service shop/b"]);
    let broken = format!("{}---\n{}", service("a", "0"), service("b", "81"));
    let batch = set(&mut state, "f", &broken);
    assert_eq!(changes(&batch), ["+Service shop/b"]);
    assert_eq!(batch.problems.len(), 2);
    assert_eq!(changes(&set(&mut state, "f", &service("b", "81"))), ["-Service shop/a"], "gone is gone");
    assert_eq!(changes(&set(&mut state, "f", &good)), ["+Service shop/a", "+Service shop/b"]);
}

#[test]
fn a_document_that_cannot_be_parsed_keeps_the_object_that_it_looks_like() {
    let mut state = State::default();
    let good = format!("{}---\n{}---\n{}", service("a", "80"), service("b", "80"), service("c", "80"));
    set(&mut state, "f", &good);
    let torn = format!("{}---\n{}---\n{}", service("a", "80"), service("b", "[80"), "");
    let batch = set(&mut state, "f", &torn);
    assert_eq!(changes(&batch), ["-Service shop/c"], "b is kept, c is gone");
    assert!(problems(&batch)[0].contains(": Service shop/b: is not YAML: "), "{:?}", batch.problems);
}

#[test]
fn a_document_that_names_nobody_keeps_all_that_its_file_said() {
    let mut state = State::default();
    set(&mut state, "f", &format!("{}---\n{}", service("a", "80"), service("b", "80")));
    assert_eq!(
        changes(&set(&mut state, "f", &format!("{}---\n{{{{ template }}", service("a", "81")))),
        ["+Service shop/a"]
    );
    assert_eq!(changes(&set(&mut state, "f", &service("a", "81"))), ["-Service shop/b"]);
}

#[test]
fn an_emptied_file_keeps_its_objects_until_it_is_deleted() {
    let mut state = State::default();
    set(&mut state, "f", &service("a", "80"));
    let batch = set(&mut state, "f", "\n");
    assert_eq!(changes(&batch), [""; 0]);
    assert_eq!(problems(&batch), ["f: is empty; its objects stay as they were until it says something or is deleted"]);
    assert_eq!(changes(&set(&mut state, "f", &service("a", "80"))), [""; 0], "nothing changed in the end");
    set(&mut state, "f", "");
    state.remove(&place(0, "f"));
    let batch = state.settle();
    assert_eq!((changes(&batch), problems(&batch)), (vec!["-Service shop/a".to_owned()], vec![]));
    assert_eq!(changes(&set(&mut state, "f", "# all commented out\n")), [""; 0]);
}

#[test]
fn a_later_folder_replaces_an_object_and_uncovers_it_again() {
    let mut state = State::default();
    state.set(&place(0, "user"), Ok(&service("a", "80")));
    state.set(&place(1, "live"), Ok(&service("a", "90")));
    let port = |batch: &Batch| match &batch.changes[..] {
        [Change::Upsert(_, object)] => object["spec"]["ports"][0]["port"].clone(),
        other => panic!("{other:?}"),
    };
    let batch = state.settle();
    assert_eq!((port(&batch), problems(&batch)), (90.into(), vec![]));
    state.set(&place(0, "user"), Ok(&service("a", "81")));
    assert_eq!(state.settle().changes, [], "the later folder counts");
    state.set(&place(1, "live"), Ok(&service("a", "0")));
    assert_eq!(state.settle().changes, [], "broken: it stays as it was");
    state.remove(&place(1, "live"));
    assert_eq!(port(&state.settle()), 81);
}

#[test]
fn an_object_defined_twice_in_a_folder_counts_once_and_is_reported() {
    let mut state = State::default();
    set(&mut state, "b", &service("a", "81"));
    let batch = set(&mut state, "a", &format!("{}---\n{}", service("a", "80"), service("a", "82")));
    let [Change::Upsert(_, object)] = &batch.changes[..] else { panic!() };
    assert_eq!(object["spec"]["ports"][0]["port"], 80, "the first in the order of paths");
    assert_eq!(
        problems(&batch),
        [
            "a:13: Service shop/a: is also defined at a:1, which counts",
            "b:1: Service shop/a: is also defined at a:1, which counts"
        ]
    );
}

#[test]
fn a_generation_counts_changes_of_meaning() {
    let mut state = State::default();
    let generation = |batch: Batch| match &batch.changes[..] {
        [Change::Upsert(_, object)] => object["metadata"]["generation"].as_i64().unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(generation(set(&mut state, "f", &service("a", "80"))), 1);
    assert_eq!(generation(set(&mut state, "f", &service("a", "81"))), 2);
    let labelled = service("a", "81").replace("metadata:\n", "metadata:\n  labels: {x: y}\n");
    assert_eq!(generation(set(&mut state, "f", &labelled)), 2, "labels are not spec");
    let own = labelled.replace("metadata:\n", "metadata:\n  generation: 77\n");
    assert_eq!(generation(set(&mut state, "f", &own)), 77);
}

#[test]
fn a_list_is_its_items() {
    let mut state = State::default();
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: B}}\n";
    let batch = set(&mut state, "f", list);
    assert_eq!(changes(&batch), ["+Namespace a"]);
    assert_eq!(
        problems(&batch),
        ["f:5: Namespace B: metadata.name: \"B\" must consist of lower case letters, digits and '-', at most 63"]
    );
}

#[test]
fn arbitrary_files_never_panic_and_never_take_another_file_down() {
    bolero::check!().with_max_len(256).for_each(|bytes: &[u8]| {
        let mut state = State::default();
        set(&mut state, "good", &service("a", "80"));
        let text = String::from_utf8_lossy(bytes);
        let batch = set(&mut state, "bad", &text);
        assert!(!changes(&batch).contains(&"-Service shop/a".to_owned()));
        let text = format!("{}---\n{text}", service("b", "80"));
        assert!(!changes(&set(&mut state, "bad", &text)).contains(&"-Service shop/b".to_owned()));
    });
}
