//! Token reviews against an API server that is a function: who is taken, who is refused and why, what is remembered, what an outage means.

use super::*;
use http::{Request, Response};
use kube::client::Body;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The account, the audience and the node that a token of the tests is made of: `ACCOUNT AUDIENCE NODE`, `-` for none.
fn api_server(body: &Value) -> Value {
    let token = body["spec"]["token"].as_str().unwrap();
    let wanted = body["spec"]["audiences"][0].as_str().unwrap();
    let [account, audience, node] = token.split(' ').collect::<Vec<_>>()[..] else {
        return json!({"authenticated": false, "error": "[invalid bearer token]"});
    };
    if audience != wanted && audience != "unaware" {
        return json!({"error": "[invalid bearer token, token audiences is invalid for the target audiences]"});
    }
    let mut extra = json!({"authentication.kubernetes.io/credential-id": ["JTI=1"]});
    if node != "-" {
        extra["authentication.kubernetes.io/node-name"] = json!(node.split(',').collect::<Vec<_>>());
        extra["authentication.kubernetes.io/pod-name"] = json!(["mesh-proxy-x"]);
        extra["authentication.kubernetes.io/pod-uid"] = json!(["1-2-3"]);
    }
    let audiences = if audience == "unaware" { json!(["https://kubernetes.default.svc"]) } else { json!([audience]) };
    json!({"authenticated": true, "audiences": audiences, "user": {"username": account, "extra": extra}})
}

fn reviews(asked: Arc<AtomicUsize>, answer: impl Fn(&Value) -> (u16, Value) + Clone + Send + 'static) -> TokenReviews {
    let service = tower::service_fn(move |request: Request<Body>| {
        let (answer, asked) = (answer.clone(), asked.clone());
        async move {
            assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
            asked.fetch_add(1, Ordering::SeqCst);
            let body = request.into_body().collect_bytes().await.unwrap();
            let (code, said) = answer(&serde_json::from_slice(&body).unwrap());
            Ok::<_, Infallible>(
                Response::builder().status(code).body(Body::from(said.to_string().into_bytes())).unwrap(),
            )
        }
    });
    let accounts = Accounts { audience: "heddle".into(), node: NsName::new("heddle-system", "mesh-proxy") };
    TokenReviews::new(Client::new(service, "default"), accounts)
}

fn review(status: Value) -> Value {
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": ""}, "status": status})
}

const OURS: &str = "system:serviceaccount:heddle-system:mesh-proxy";

#[tokio::test]
async fn only_a_token_of_the_proxies_account_for_our_audience_and_of_a_pod_on_a_node_is_a_node() {
    let reviews = reviews(Arc::default(), |body| (201, review(api_server(body))));
    let of = async |token: &str| reviews.authenticate(token).await;
    assert_eq!(of(&format!("{OURS} heddle n1")).await.unwrap(), ProxyName::Node("n1".into()));
    assert_eq!(of(&format!("{OURS} heddle n2")).await.unwrap(), ProxyName::Node("n2".into()));
    for (token, label) in [
        ("made up".to_owned(), "unknown_token"),
        (String::new(), "unknown_token"),
        ("x".repeat(TOKEN_LONGEST + 1), "unknown_token"),
        (format!("{OURS} vault n1"), "unknown_token"),
        (format!("{OURS} unaware n1"), "audience"),
        ("system:serviceaccount:shop:cart heddle n1".into(), "account"),
        ("system:serviceaccount:shop:mesh-proxy heddle n1".into(), "account"),
        ("system:serviceaccount:heddle-system:mesh-proxy2 heddle n1".into(), "account"),
        ("system:serviceaccount:heddle-system:mesh-controller heddle n1".into(), "account"),
        ("system:node:n1 heddle n1".into(), "account"),
        (format!("{OURS} heddle -"), "no_node"),
        (format!("{OURS} heddle n1,n2"), "no_node"),
        (format!("{OURS} heddle ,"), "no_node"),
    ] {
        let refused = of(&token).await.unwrap_err();
        assert_eq!(refused.label(), label, "{token}: {refused}");
        let status = refused.status();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert!(!status.message().contains("mesh-proxy"), "the caller is not told what would do: {}", status.message());
    }
}

#[tokio::test]
async fn an_api_server_that_cannot_answer_is_unavailable_and_nothing_is_remembered_of_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let reviews = reviews(asked.clone(), move |body| match count.load(Ordering::SeqCst) {
        1 => (
            500,
            json!({"kind": "Status", "status": "Failure", "message": "etcd is away", "reason": "InternalError", "code": 500}),
        ),
        2 => (
            403,
            json!({"kind": "Status", "status": "Failure", "message": "no rights", "reason": "Forbidden", "code": 403}),
        ),
        3 => (201, json!({"metadata": {}, "spec": {"token": ""}})),
        _ => (201, review(api_server(body))),
    });
    let token = format!("{OURS} heddle n1");
    for says in ["etcd is away", "no rights", "without status"] {
        let fault = reviews.authenticate(&token).await.unwrap_err();
        assert!(matches!(&fault, Unauthenticated::Unavailable(why) if why.contains(says)), "{says}: {fault}");
        assert_eq!(fault.status().code(), tonic::Code::Unavailable);
    }
    assert!(reviews.authenticate(&token).await.is_ok());
}

#[tokio::test]
async fn an_answer_is_remembered_for_moments_by_its_token_alone() {
    let asked = Arc::new(AtomicUsize::new(0));
    let reviews = reviews(asked.clone(), |body| (201, review(api_server(body))));
    let (good, bad) = (format!("{OURS} heddle n1"), "made up".to_owned());
    for _ in 0..3 {
        assert!(reviews.authenticate(&good).await.is_ok() && reviews.authenticate(&bad).await.is_err());
    }
    assert_eq!(asked.load(Ordering::SeqCst), 2);
    let past = |reviews: &TokenReviews, by: Duration| {
        reviews.memory.lock().values_mut().for_each(|(until, _)| *until -= by);
    };
    past(&reviews, REFUSED);
    assert!(reviews.authenticate(&bad).await.is_err() && reviews.authenticate(&good).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 3, "a refusal is asked again soon");
    past(&reviews, KNOWN);
    assert!(reviews.authenticate(&good).await.is_ok());
    assert_eq!(asked.load(Ordering::SeqCst), 4, "a known one is asked again a little later");
    for i in 0..REMEMBERED + 10 {
        reviews.remember(mesh_tls::sha256(&i.to_be_bytes()), &Err(Unauthenticated::UnknownToken));
    }
    assert!(reviews.memory.lock().len() <= REMEMBERED);
}
