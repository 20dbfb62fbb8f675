//! The writer against an API server of our own making; time is the test's.

use super::*;
use crate::{
    api::ParentRef,
    api_server::{Answer, Asked, client},
    leader::Leadership,
    plan::status::RouteParent,
};
use http::Method;
use serde_json::json;
use std::time::Duration;
use tokio::time::sleep;

const PATH: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/cart";

/// A server that keeps one HTTPRoute and applies as a server does to an atomic list.
#[derive(Clone)]
struct Server(Arc<Mutex<Kept>>);

struct Kept {
    object: Value,
    version: u64,
    applied: Vec<Asked>,
    /// Answers to the next writes instead of doing them.
    refuse: Vec<u16>,
}

impl Server {
    fn new(parents: Value) -> Self {
        let object = json!({"metadata": {"namespace": "shop", "name": "cart", "uid": "u", "resourceVersion": "1"}, "status": {"parents": parents}});
        Self(Arc::new(Mutex::new(Kept { object, version: 1, applied: Vec::new(), refuse: Vec::new() })))
    }

    fn client(&self) -> kube::Client {
        let server = self.clone();
        client(move |asked| server.answer(asked))
    }

    fn answer(&self, asked: Asked) -> Answer {
        let mut kept = self.0.lock();
        if asked.method == Method::GET {
            assert_eq!(asked.path, PATH);
            return Answer::Json(200, kept.object.clone());
        }
        assert_eq!((asked.method.clone(), asked.path.clone()), (Method::PATCH, format!("{PATH}/status")));
        assert_eq!(asked.query, "fieldManager=heddle.dev/controller&force=true");
        kept.applied.push(asked.clone());
        if !kept.refuse.is_empty() {
            return Answer::status(kept.refuse.remove(0));
        }
        if asked.body["metadata"]["resourceVersion"] != kept.object["metadata"]["resourceVersion"] {
            return Answer::status(409);
        }
        let status = asked.body["status"].clone();
        kept.write(status);
        Answer::Json(200, kept.object.clone())
    }

    fn parents(&self) -> Value {
        self.0.lock().object["status"]["parents"].clone()
    }

    fn writes(&self) -> usize {
        self.0.lock().applied.len()
    }

    /// What the watch says now.
    fn object(&self) -> Arc<Value> {
        Arc::new(self.0.lock().object.clone())
    }
}

impl Kept {
    fn write(&mut self, status: Value) {
        self.version += 1;
        self.object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.object["status"] = status;
    }
}

fn key() -> Key {
    Key::new(Kind::HttpRoute, "shop/cart".parse().unwrap())
}

fn says(message: &str) -> Said {
    let parent = ParentRef { name: "cart".into(), ..ParentRef::default() };
    let condition = Condition { kind: "Accepted", state: State::True, reason: "Accepted", message: message.into() };
    let body = Body::Route(vec![RouteParent { parent, conditions: vec![condition] }]);
    Said::from([(key(), Some(Arc::new(Status { key: key(), generation: 1, body })))])
}

fn foreign() -> Value {
    json!({"parentRef": {"name": "gw"}, "controllerName": "example.com/other", "conditions": [{"type": "Accepted", "status": "True", "odd": [null]}]})
}

async fn settled() {
    sleep(Duration::from_secs(300)).await;
}

#[tokio::test(start_paused = true)]
async fn each_change_is_written_once_and_what_others_say_stays() {
    let server = Server::new(json!([foreign()]));
    let statuses = ClusterStatuses::new("heddle", Metrics::default());
    let (_term, leadership) = Leadership::fixed(true);
    tokio::spawn(statuses.clone().keep(server.client(), leadership));
    statuses.take(&[(key(), Some(server.object()))], &says("one"), Vec::new());
    settled().await;
    assert_eq!(server.writes(), 1);
    let parents = server.parents();
    assert_eq!((&parents[0], &parents[1]["conditions"][0]["message"]), (&foreign(), &json!("one")));
    // The watch tells of our own write, and of an older state after it.
    statuses.take(&[(key(), Some(server.object()))], &Said::new(), Vec::new());
    let mut older = Value::clone(&server.object());
    older["metadata"]["resourceVersion"] = "1".into();
    older["status"] = json!({"parents": []});
    statuses.take(&[(key(), Some(Arc::new(older)))], &Said::new(), Vec::new());
    settled().await;
    assert_eq!(server.writes(), 1, "one change, one write");
    // Many changes in one moment are one write.
    for message in ["two", "three", "four"] {
        statuses.take(&[], &says(message), Vec::new());
    }
    settled().await;
    assert_eq!((server.writes(), &server.parents()[1]["conditions"][0]["message"]), (2, &json!("four")));
    // Nobody of the mesh any more.
    statuses.take(&[], &Said::from([(key(), None)]), Vec::new());
    settled().await;
    assert_eq!((server.writes(), server.parents()), (3, json!([foreign()])));
}

#[tokio::test(start_paused = true)]
async fn who_wrote_meanwhile_is_read_and_kept() {
    let server = Server::new(json!([]));
    let statuses = ClusterStatuses::new("heddle", Metrics::default());
    let (_term, leadership) = Leadership::fixed(true);
    let known = server.object();
    // The watch has not told us yet.
    server.0.lock().write(json!({"parents": [foreign()]}));
    tokio::spawn(statuses.clone().keep(server.client(), leadership));
    statuses.take(&[(key(), Some(known))], &says("one"), Vec::new());
    settled().await;
    let parents = server.parents();
    assert_eq!((parents.as_array().unwrap().len(), &parents[0]), (2, &foreign()));
    assert_eq!(server.writes(), 2, "one refused, one done");
}

#[tokio::test(start_paused = true)]
async fn a_server_in_trouble_is_asked_less_and_less() {
    let server = Server::new(json!([]));
    server.0.lock().refuse = vec![500; 12];
    let statuses = ClusterStatuses::new("heddle", Metrics::default());
    let (_term, leadership) = Leadership::fixed(true);
    tokio::spawn(statuses.clone().keep(server.client(), leadership));
    statuses.take(&[(key(), Some(server.object()))], &says("one"), Vec::new());
    sleep(Duration::from_secs(60)).await;
    assert!((5..=11).contains(&server.writes()), "{}", server.writes());
    sleep(Duration::from_secs(600)).await;
    assert_eq!((server.writes(), server.parents()[0]["conditions"][0]["message"].clone()), (13, json!("one")));
}

#[tokio::test(start_paused = true)]
async fn only_a_leader_writes_and_a_new_one_writes_what_is_missing() {
    let server = Server::new(json!([]));
    let statuses = ClusterStatuses::new("heddle", Metrics::default());
    let (term, leadership) = Leadership::fixed(false);
    tokio::spawn(statuses.clone().keep(server.client(), leadership));
    statuses.take(&[(key(), Some(server.object()))], &says("one"), Vec::new());
    settled().await;
    assert_eq!(server.writes(), 0);
    term.send_replace(Some(Instant::now() + Duration::from_secs(3600)));
    settled().await;
    assert_eq!(server.writes(), 1);
    // Lost while a write waits for its next try: it is not tried again.
    server.0.lock().refuse = vec![500; 100];
    statuses.take(&[], &says("two"), Vec::new());
    sleep(Duration::from_secs(1)).await;
    let tried = server.writes();
    assert!(tried > 1);
    term.send_replace(None);
    settled().await;
    assert_eq!(server.writes(), tried);
    // And by its time alone, when nobody tells.
    term.send_replace(Some(Instant::now() + Duration::from_millis(100)));
    settled().await;
    let tried = server.writes();
    settled().await;
    assert_eq!(server.writes(), tried);
}
