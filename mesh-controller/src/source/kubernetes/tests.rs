//! The source against an API server of our own making; time is the test's.

use super::*;
use crate::{
    api_server::{Answer, Asked, client, event},
    source::Change,
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";

/// What the server does with HTTPRoutes; all other kinds are empty.
#[derive(Default)]
struct Server {
    /// Answers to the next lists, the last one again and again.
    lists: Vec<(u16, Value)>,
    /// Watches that were begun.
    watches: Vec<mpsc::UnboundedSender<String>>,
    /// Requests about HTTPRoutes.
    asked: Vec<Asked>,
    /// No request about HTTPRoutes is answered.
    gone: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Server>>);

impl Shared {
    fn answer(&self, asked: Asked) -> Answer {
        if asked.path != ROUTES {
            return if asked.is_watch() {
                let (sender, watch) = Answer::watch();
                // It says nothing and never ends.
                std::mem::forget(sender);
                watch
            } else {
                Answer::Json(200, list("1", &[]))
            };
        }
        let mut server = self.0.lock();
        server.asked.push(asked.clone());
        if server.gone {
            return Answer::Broken;
        }
        if asked.is_watch() {
            let (sender, watch) = Answer::watch();
            server.watches.push(sender);
            return watch;
        }
        let (code, body) = if server.lists.len() > 1 { server.lists.remove(0) } else { server.lists[0].clone() };
        if code == 200 { Answer::Json(200, body) } else { Answer::status(code) }
    }

    fn say(&self, kind: &str, object: &Value) {
        self.line(event(kind, object));
    }

    fn line(&self, line: String) {
        self.0.lock().watches.last().expect("a watch was begun").send(line).unwrap();
    }

    fn open(&self) -> Kubernetes {
        let shared = self.clone();
        Kubernetes::open(&client(move |asked| shared.answer(asked)), Metrics::default(), CancellationToken::new())
    }

    /// Waits until there is a watch that was begun after so many.
    async fn watched(&self, before: usize) {
        while self.0.lock().watches.len() <= before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn lists(&self) -> usize {
        self.0.lock().asked.iter().filter(|asked| !asked.is_watch()).count()
    }
}

fn list(version: &str, items: &[Value]) -> Value {
    json!({"metadata": {"resourceVersion": version}, "items": items})
}

fn route(name: &str, version: &str, host: Value) -> Value {
    json!({
        "metadata": {"namespace": "shop", "name": name, "uid": name, "generation": 1, "resourceVersion": version, "managedFields": [{}]},
        "spec": {"hostnames": [host], "rules": [{"backendRefs": [{"name": "cart", "port": 80}]}]},
    })
}

/// `+name` for what came or changed, `-name` for what went.
fn changes(batch: &Batch) -> Vec<String> {
    let say = |change: &Change| match change {
        Change::Upsert(key, object) => {
            assert!(object["metadata"]["managedFields"].is_null() && object["kind"] == "HTTPRoute", "{object}");
            format!("+{}", key.name)
        }
        Change::Read(key, _) => format!("+{}", key.name),
        Change::Remove(key) => format!("-{}", key.name),
    };
    batch.changes.iter().map(say).collect()
}

async fn next(source: &mut Kubernetes) -> Batch {
    tokio::time::timeout(Duration::from_secs(120), source.next()).await.expect("a batch comes").unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_is_told_and_the_others_are_not_held_up() {
    let server = Shared::default();
    let (good, bad) = (route("good", "3", json!("a.example")), route("bad", "4", json!(5)));
    server.0.lock().lists = vec![(200, list("5", &[good.clone(), bad]))];
    let mut source = server.open();
    let first = next(&mut source).await;
    assert_eq!(changes(&first), ["+good"]);
    let told: Vec<String> = first.problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].starts_with("HTTPRoute shop/bad: spec.hostnames[0]: "), "{told:?}");

    server.watched(0).await;
    server.say("MODIFIED", &route("good", "6", json!("b.example")));
    let second = next(&mut source).await;
    assert_eq!((changes(&second), second.problems), (vec!["+good".to_owned()], first.problems.clone()));

    // A good object that becomes unreadable stays as it was; a bad one that is mended comes.
    server.say("MODIFIED", &route("good", "7", json!({})));
    server.say("MODIFIED", &route("bad", "8", json!("c.example")));
    let third = next(&mut source).await;
    assert_eq!(changes(&third), ["+bad"]);
    assert!(third.problems.len() == 1 && third.problems[0].object == "HTTPRoute shop/good", "{third:?}");

    server.say("DELETED", &good);
    let fourth = next(&mut source).await;
    assert_eq!((changes(&fourth), fourth.problems), (vec!["-good".to_owned()], vec![]));
    assert_eq!((server.lists(), server.0.lock().watches.len()), (1, 1), "one list and one watch did all of it");
}

#[tokio::test(start_paused = true)]
async fn a_kind_whose_crd_comes_later_is_read_then_and_forgotten_when_it_goes() {
    let server = Shared::default();
    server.0.lock().lists =
        vec![(404, json!({})), (404, json!({})), (200, list("1", &[route("a", "1", json!("a.example"))]))];
    let mut source = server.open();
    // The other kinds are empty, and this one is known to be absent: that is all there is. Nothing has changed, so nothing is said
    // until there is something.
    let first = next(&mut source).await;
    assert_eq!(changes(&first), Vec::<String>::new());
    let later = next(&mut source).await;
    assert_eq!((changes(&later), later.problems), (vec!["+a".to_owned()], vec![]));

    server.watched(0).await;
    server.0.lock().lists = vec![(404, json!({}))];
    server.say("ERROR", &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 404, "message": "gone", "reason": "NotFound", "status": "Failure"}));
    let began = Instant::now();
    assert_eq!(changes(&next(&mut source).await), ["-a"]);
    assert!(began.elapsed() >= Duration::from_secs(10), "not at the first word: an API server that starts says so too");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_makes_it_list_again_and_tells_what_went_meanwhile() {
    let server = Shared::default();
    let (a, b, c) =
        (route("a", "1", json!("a.example")), route("b", "2", json!("b.example")), route("c", "9", json!("c.example")));
    server.0.lock().lists = vec![(200, list("3", &[a.clone(), b])), (200, list("9", &[a, c]))];
    let mut source = server.open();
    assert_eq!(changes(&next(&mut source).await), ["+a", "+b"]);
    server.watched(0).await;
    server.say("ERROR", &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 410, "message": "too old", "reason": "Expired", "status": "Failure"}));
    let batch = next(&mut source).await;
    assert_eq!(changes(&batch), ["+a", "-b", "+c"]);
    assert_eq!(server.lists(), 2);
    // The same when the first answer to a watch is 410, and when a line is no event.
    server.watched(1).await;
    server.line("{no json".into());
    assert_eq!(changes(&next(&mut source).await), ["+a", "+c"]);
    assert_eq!(server.lists(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_goes_away_is_told_and_the_watch_goes_on_where_it_was() {
    let server = Shared::default();
    server.0.lock().lists = vec![(200, list("3", &[route("a", "1", json!("a.example"))]))];
    let mut source = server.open();
    next(&mut source).await;
    server.watched(0).await;
    server.say("MODIFIED", &route("a", "17", json!("b.example")));
    next(&mut source).await;
    {
        let mut server = server.0.lock();
        server.gone = true;
        server.watches.clear();
    }
    let trouble = next(&mut source).await;
    assert_eq!(changes(&trouble), Vec::<String>::new(), "what was known stays");
    let told = trouble.problems[0].to_string();
    assert!(told.starts_with("HTTPRoute: cannot be read from the API server: ") && told.contains("broke"), "{told}");
    tokio::time::sleep(Duration::from_secs(300)).await;
    let tries = server.0.lock().asked.len();
    assert!(tries < 100, "{tries} tries in five minutes");
    server.0.lock().gone = false;
    // Other kinds have something to say too: their watches never end here.
    while !next(&mut source).await.problems.is_empty() {}
    server.say("ADDED", &route("b", "18", json!("b.example")));
    assert_eq!(changes(&next(&mut source).await), ["+b"]);
    assert_eq!(server.lists(), 1, "nothing was listed again");
    assert!(server.0.lock().asked.last().unwrap().query.contains("resourceVersion=17&"));
}

#[tokio::test(start_paused = true)]
async fn long_lists_come_in_pages_and_nothing_is_planned_before_the_last() {
    let server = Shared::default();
    let page = |name: &str, next: &str| json!({"metadata": {"resourceVersion": "5", "continue": next}, "items": [route(name, "1", json!("a.example"))]});
    server.0.lock().lists =
        vec![(200, page("a", "token/1")), (429, json!({})), (200, page("a", "token/1")), (200, page("b", ""))];
    let mut source = server.open();
    assert_eq!(changes(&next(&mut source).await), ["+a", "+b"]);
    let asked: Vec<String> = server.0.lock().asked.iter().map(|a| a.query.clone()).collect();
    assert_eq!(asked[0], "limit=500");
    assert_eq!(asked[1], "limit=500&continue=token%2F1");
    assert_eq!(asked[2], "limit=500", "begun again");
    assert_eq!(asked[3], "limit=500&continue=token%2F1");
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_not_be_read_is_not_taken_for_empty_but_secrets_are() {
    for (forbidden, planned) in [("/api/v1/pods", false), ("/api/v1/secrets", true)] {
        let server = client(move |asked| match asked.path == forbidden {
            true => Answer::status(403),
            false if asked.is_watch() => {
                let (sender, watch) = Answer::watch();
                std::mem::forget(sender);
                watch
            }
            false => Answer::Json(200, list("1", &[])),
        });
        let mut source = Kubernetes::open(&server, Metrics::default(), CancellationToken::new());
        let first = tokio::time::timeout(Duration::from_secs(60), source.next()).await;
        assert_eq!(first.is_ok(), planned, "{forbidden}");
        if let Ok(first) = first {
            let told = first.unwrap().problems[0].to_string();
            assert!(told.starts_with("Secret: cannot be read") && told.contains("not allowed"), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn changes_that_come_together_are_one_batch_with_each_object_once() {
    let server = Shared::default();
    server.0.lock().lists = vec![(200, list("3", &[]))];
    let mut source = server.open();
    next(&mut source).await;
    server.watched(0).await;
    for i in 10..30 {
        server.say("MODIFIED", &route(&format!("r{}", i % 4), &i.to_string(), json!("a.example")));
    }
    server.say("DELETED", &route("r3", "30", json!("a.example")));
    assert_eq!(changes(&next(&mut source).await), ["+r0", "+r1", "+r2", "-r3"]);
}
