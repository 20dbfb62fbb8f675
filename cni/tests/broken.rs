//! Broken inputs of the plugin, each with the message and code it must give, and the conversation with a proxy. It must not need privileges.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use mesh_cni::{fault::Code, run};
use mesh_wire::cni::{Error, Ok as Fine, Request, Response, read, request::Command, response::Result as Answer, write};
use serde_json::{Value, json};
use std::{collections::BTreeMap, os::unix::net::UnixListener, path::PathBuf, thread};

fn conf() -> Value {
    json!({
        "cniVersion": "1.1.0", "name": "cluster", "type": "mesh-cni", "socket": "/nowhere/cni.sock",
        "prevResult": {"ips": [{"address": "10.0.0.2/24"}], "interfaces": []},
    })
}

fn env() -> BTreeMap<&'static str, &'static str> {
    [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "c1"),
        ("CNI_NETNS", "/proc/self/ns/net"),
        ("CNI_IFNAME", "eth0"),
        ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart-0;K8S_POD_UID=u1"),
    ]
    .into()
}

fn call(env: &BTreeMap<&str, &str>, stdin: &str) -> Result<Option<Value>, (u32, String)> {
    run(&|name| env.get(name).map(|v| (*v).to_owned()), stdin.as_bytes()).map_err(|f| (f.code.number(), f.message))
}

#[test]
fn each_broken_environment_names_its_variable() {
    let cases: &[(&str, Option<&str>, &str)] = &[
        ("CNI_COMMAND", None, "CNI_COMMAND is not set"),
        ("CNI_COMMAND", Some("add"), "CNI_COMMAND is \"add\"; it must be ADD, DEL, CHECK, GC, STATUS or VERSION"),
        ("CNI_CONTAINERID", None, "CNI_CONTAINERID is not set"),
        ("CNI_CONTAINERID", Some("../x"), "CNI_CONTAINERID is \"../x\"; it must be alphanumeric"),
        ("CNI_CONTAINERID", Some("-x"), "CNI_CONTAINERID is \"-x\"; it must be alphanumeric"),
        ("CNI_NETNS", None, "CNI_NETNS is not set"),
        ("CNI_NETNS", Some("run/x"), "CNI_NETNS is \"run/x\"; it must be an absolute path"),
        ("CNI_IFNAME", Some(""), "CNI_IFNAME is not set"),
        ("CNI_ARGS", None, "CNI_ARGS is not set; K8S_POD_NAMESPACE and K8S_POD_NAME name the pod"),
        ("CNI_ARGS", Some("K8S_POD_NAME=x"), "CNI_ARGS lacks K8S_POD_NAMESPACE"),
        ("CNI_ARGS", Some("K8S_POD_NAMESPACE=x"), "CNI_ARGS lacks K8S_POD_NAME"),
        (
            "CNI_ARGS",
            Some("K8S_POD_NAMESPACE=;K8S_POD_NAME=x"),
            "CNI_ARGS has K8S_POD_NAMESPACE=\"\", which names nothing",
        ),
        ("CNI_ARGS", Some("nonsense"), "CNI_ARGS has \"nonsense\"; it must be KEY=VALUE pairs"),
        ("CNI_NETNS", Some("/nowhere/net"), "CNI_NETNS cannot be used"),
        ("CNI_NETNS", Some("/proc/self/status"), "CNI_NETNS cannot be used"),
    ];
    for (name, value, message) in cases {
        let mut env = env();
        match value {
            Some(value) => env.insert(name, value),
            None => env.remove(name),
        };
        let (code, said) = call(&env, &conf().to_string()).expect_err(message);
        assert_eq!(code, Code::Environment.number(), "{said}");
        assert!(said.starts_with(message), "{said:?} should say {message:?}");
    }
}

#[test]
fn each_broken_configuration_names_its_field() {
    let cases: &[(&str, Value, u32, &str)] = &[
        ("cniVersion", json!(null), 7, "cniVersion is missing"),
        (
            "cniVersion",
            json!("0.2.0"),
            1,
            "cniVersion \"0.2.0\" is not supported; supported are 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        ("cniVersion", json!(1), 7, "cniVersion must be a string"),
        ("name", json!(null), 7, "name is missing"),
        ("name", json!(""), 7, "name is missing"),
        ("socket", json!(null), 7, "socket is missing"),
        ("socket", json!("cni.sock"), 7, "socket is \"cni.sock\"; it must be an absolute path"),
        ("socket", json!(7), 7, "socket must be a string"),
        ("timeoutSeconds", json!(0), 7, "timeoutSeconds is 0; it must be a whole number from 1 to 120"),
        ("timeoutSeconds", json!("ten"), 7, "timeoutSeconds is \"ten\"; it must be a whole number from 1 to 120"),
        ("timeoutSeconds", json!(1e9), 7, "timeoutSeconds is 1000000000.0; it must be"),
        ("excludeNamespaces", json!("a"), 7, "excludeNamespaces must be a list"),
        ("excludeNamespaces", json!(["a", 1]), 7, "excludeNamespaces[1] must be a string"),
        ("prevResult", json!(null), 7, "prevResult is missing: mesh-cni must come after"),
        ("prevResult", json!([]), 7, "prevResult must be an object"),
        ("prevResult", json!({}), 7, "prevResult.ips is missing: the pod has no address"),
        ("prevResult", json!({"ips": []}), 7, "prevResult.ips is empty: the pod has no address"),
        ("prevResult", json!({"ips": {}}), 7, "prevResult.ips must be a list"),
        (
            "prevResult",
            json!({"ips": [{"address": "10.0.0.2/24"}, {"address": "x/1"}]}),
            7,
            "prevResult.ips[1].address is x/1",
        ),
        ("prevResult", json!({"ips": [{}]}), 7, "prevResult.ips[0].address is missing"),
        ("cni.dev/valid-attachments", json!({}), 7, "cni.dev/valid-attachments must be a list"),
        (
            "cni.dev/valid-attachments",
            json!([{"ifname": "eth0"}]),
            7,
            "cni.dev/valid-attachments[0].containerID is missing",
        ),
    ];
    for (field, value, code, message) in cases {
        let mut conf = conf();
        conf[*field] = value.clone();
        let (number, said) = call(&env(), &conf.to_string()).expect_err(message);
        assert!(said.starts_with(message), "{said:?} should say {message:?}");
        assert_eq!(number, *code, "{said}");
    }
    for (text, message) in [("", "not JSON"), ("{", "not JSON"), ("[]", "not a JSON object")] {
        let (number, said) = call(&env(), text).expect_err(message);
        assert!(said.contains(message), "{said}");
        assert_eq!(number, Code::Decode.number());
    }
}

#[test]
fn version_is_answered_without_a_configuration() {
    let env = [("CNI_COMMAND", "VERSION")].into();
    for (stdin, version) in [("", "1.1.0"), (r#"{"cniVersion":"1.0.0"}"#, "1.0.0")] {
        let said = call(&env, stdin).unwrap().unwrap();
        assert_eq!(said, json!({"cniVersion": version, "supportedVersions": mesh_cni::VERSIONS}));
    }
}

#[test]
fn a_missing_proxy_delays_add_fails_status_and_does_not_hold_up_del() {
    let mut env = env();
    let (code, said) = call(&env, &conf().to_string()).unwrap_err();
    assert_eq!((code, &*said), (11, "the node proxy does not answer on /nowhere/cni.sock"));
    env.insert("CNI_COMMAND", "DEL");
    assert_eq!(call(&env, &conf().to_string()), Ok(None));
    env.insert("CNI_COMMAND", "STATUS");
    assert_eq!(call(&env, &conf().to_string()).unwrap_err().0, 50);
}

#[test]
fn pods_of_excluded_namespaces_start_and_end_without_a_proxy() {
    let mut conf = conf();
    conf["excludeNamespaces"] = json!(["kube-system", "shop"]);
    let mut env = env();
    let result = call(&env, &conf.to_string()).unwrap().unwrap();
    assert_eq!(result["ips"], conf["prevResult"]["ips"]);
    for command in ["DEL", "CHECK", "STATUS"] {
        env.insert("CNI_COMMAND", command);
        assert_eq!(call(&env, &conf.to_string()), Ok(None), "{command}");
    }
    env.insert("CNI_ARGS", "K8S_POD_NAMESPACE=shopping;K8S_POD_NAME=cart-0");
    env.insert("CNI_COMMAND", "ADD");
    assert_eq!(call(&env, &conf.to_string()).unwrap_err().0, 11);
    env.insert("CNI_COMMAND", "CHECK");
    assert_eq!(call(&env, &conf.to_string()).unwrap_err().0, 11);
}

/// A proxy that answers one request, and what it was asked.
fn proxy(name: &str, answer: Answer) -> (PathBuf, thread::JoinHandle<Request>) {
    let path = std::env::temp_dir().join(format!("heddle-cni-{name}-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).unwrap();
    let served = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read(&mut stream).unwrap();
        write(&mut stream, &Response { result: Some(answer) }).unwrap();
        request
    });
    (path, served)
}

#[test]
fn add_hands_the_facts_over_and_passes_the_result_on() {
    let (path, served) = proxy("add", Answer::Ok(Fine { meshed: true }));
    let mut conf = conf();
    conf["socket"] = json!(path);
    conf["cniVersion"] = json!("1.0.0");
    let result = call(&env(), &conf.to_string()).unwrap().unwrap();
    assert_eq!(result["ips"], conf["prevResult"]["ips"]);
    assert_eq!(result["cniVersion"], "1.0.0");
    let Some(Command::Add(add)) = served.join().unwrap().command else { panic!("not an ADD") };
    assert_eq!((&*add.pod_namespace, &*add.pod_name, &*add.pod_uid), ("shop", "cart-0", "u1"));
    assert_eq!((add.addresses, &*add.netns), (vec!["10.0.0.2".to_owned()], "/proc/self/ns/net"));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_the_proxy_refuses_is_said_in_its_words() {
    for (name, retry, code) in [("later", true, 11), ("never", false, 100)] {
        let (path, served) = proxy(name, Answer::Error(Error { message: "pod shop/cart-0: no".into(), retry }));
        let mut conf = conf();
        conf["socket"] = json!(path);
        assert_eq!(call(&env(), &conf.to_string()), Err((code, "pod shop/cart-0: no".into())));
        served.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn arbitrary_stdin_is_read_or_refused_and_never_fatal() {
    bolero::check!().for_each(|bytes: &[u8]| {
        // Whatever comes of it: what a runtime pipes in must not make the plugin panic.
        let _ = mesh_cni::conf::Conf::parse(bytes).map(|c| c.addresses());
        let _ = mesh_cni::conf::version_of(bytes);
    });
}
