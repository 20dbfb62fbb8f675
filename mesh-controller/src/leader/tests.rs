//! Candidates against an API server of our own making; time is the test's.

use super::*;
use crate::api_server::{Answer, Asked, client};
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use std::sync::Arc;

/// The Lease as a server keeps it: every write makes a new version, and a write of an old version is refused.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// Nobody is answered whose request comes from here.
    cut: Option<&'static str>,
}

impl Server {
    fn client(&self, who: &'static str) -> Client {
        let server = self.clone();
        client(move |asked| server.answer(who, asked))
    }

    fn answer(&self, who: &'static str, asked: Asked) -> Answer {
        let mut state = self.0.lock();
        if state.cut == Some(who) {
            return Answer::Broken;
        }
        match (asked.method, state.lease.clone()) {
            (Method::GET, Some(lease)) => Answer::Json(200, lease),
            (Method::GET, None) => Answer::status(404),
            (Method::POST, Some(_)) => Answer::status(409),
            (Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"] != asked.body["metadata"]["resourceVersion"] =>
            {
                Answer::status(409)
            }
            (Method::PUT | Method::POST, _) => {
                state.version += 1;
                let mut lease = asked.body;
                lease["metadata"]["resourceVersion"] = state.version.to_string().into();
                state.lease = Some(lease.clone());
                Answer::Json(200, lease)
            }
            (method, _) => panic!("{method} is not expected"),
        }
    }

    fn holder(&self) -> Value {
        self.0.lock().lease.as_ref().map_or(json!(null), |lease| lease["spec"]["holderIdentity"].clone())
    }
}

fn candidate(server: &Server, name: &'static str) -> (tokio::task::JoinHandle<()>, Leadership) {
    let (candidate, leadership) = Candidate::new(&server.client(name), "heddle-system", name, Metrics::default());
    (tokio::spawn(candidate.run()), leadership)
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_leads_and_the_other_follows_when_it_dies() {
    let server = Server::default();
    let (first, a) = candidate(&server, "a");
    seconds(1).await;
    let (_second, mut b) = candidate(&server, "b");
    seconds(60).await;
    assert!(a.is_held() && !b.is_held());
    assert_eq!(server.0.lock().lease.as_ref().unwrap()["spec"]["leaseTransitions"], 1);
    first.abort();
    let died = Instant::now();
    timeout(Duration::from_secs(60), b.gained()).await.unwrap();
    let took = died.elapsed();
    assert!((DURATION - RENEW * 2..DURATION + RENEW * 2).contains(&took), "{took:?}");
    assert_eq!(server.holder(), "b");
    assert!(!a.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_ceases_before_another_begins() {
    let server = Server::default();
    let (_first, mut a) = candidate(&server, "a");
    a.gained().await;
    let (_second, mut b) = candidate(&server, "b");
    seconds(20).await;
    server.0.lock().cut = Some("a");
    let cut = Instant::now();
    timeout(DEADLINE + Duration::from_secs(1), a.lost()).await.expect("it is told in time");
    let ceased = cut.elapsed();
    assert!(ceased <= DEADLINE && !a.is_held(), "{ceased:?}");
    assert!(!b.is_held());
    timeout(DURATION * 2, b.gained()).await.unwrap();
    assert!(cut.elapsed() > ceased);
    // It comes back, and waits.
    server.0.lock().cut = None;
    seconds(60).await;
    assert!(!a.is_held() && b.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_somebody_else_wrote_is_lost_at_the_next_look() {
    let server = Server::default();
    let (_first, mut a) = candidate(&server, "a");
    a.gained().await;
    {
        let mut state = server.0.lock();
        state.version += 1;
        let version = state.version.to_string();
        let lease = state.lease.as_mut().unwrap();
        lease["spec"]["holderIdentity"] = "somebody".into();
        lease["metadata"]["resourceVersion"] = version.into();
    }
    timeout(RENEW * 2, a.lost()).await.unwrap();
    assert!(!a.is_held());
    assert_eq!(server.holder(), "somebody");
}

#[tokio::test(start_paused = true)]
async fn who_goes_gives_the_lease_up() {
    let server = Server::default();
    let (first, mut a) = candidate(&server, "a");
    a.gained().await;
    first.abort();
    release(server.client("a"), "heddle-system", "b").await;
    assert_eq!(server.holder(), "a", "only its holder can give it up");
    release(server.client("a"), "heddle-system", "a").await;
    assert_eq!(server.holder(), json!(null));
    let (_second, mut b) = candidate(&server, "b");
    timeout(Duration::from_secs(1), b.gained()).await.expect("at once");
}
