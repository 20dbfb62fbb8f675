//! The order in which pods come and go, whatever is planned meanwhile.

use super::*;
use mesh_core::identity::{Identity, TrustDomain};
use proptest::prelude::*;

use Enrolment::{Joining, Leaving, Meshed};
const STRICT: Enrolment = Meshed(Mode::Strict);
const PERMISSIVE: Enrolment = Meshed(Mode::Permissive);

fn pod(name: &str, uid: &str, node: &str, enrolment: Enrolment) -> Resource {
    Resource::Workload(Arc::new(Workload {
        id: NsName::new("shop", name),
        uid: uid.into(),
        node: node.into(),
        addresses: vec![],
        identity: Identity::new(TrustDomain::new("td").unwrap(), "shop", name).unwrap(),
        enrolment,
        owner: name.into(),
        probes: [].into(),
    }))
}

/// Stages with a clock.
struct World {
    stages: Stages,
    start: Instant,
    at: Duration,
}

impl World {
    fn new() -> Self {
        Self { stages: Stages::default(), start: Instant::now(), at: Duration::ZERO }
    }

    fn plan(&mut self, resource: Resource) -> Enrolment {
        let delta = NodeDelta { upserts: vec![resource], removes: vec![] };
        enrolments(&self.stages.take(&delta, self.start + self.at))[0].1
    }

    /// Lets time go by, and what is published meanwhile.
    fn wait(&mut self, time: Duration, current: bool) -> Vec<(String, Enrolment)> {
        self.at += time;
        enrolments(&self.stages.step(self.start + self.at, current))
    }

    fn moves(&mut self, time: Duration) -> Option<Enrolment> {
        self.wait(time, true).first().map(|(_, e)| *e)
    }
}

fn enrolments(delta: &NodeDelta) -> Vec<(String, Enrolment)> {
    let of = |r: &Resource| match r {
        Resource::Workload(w) => (w.id.name.to_string(), w.enrolment),
        other => panic!("{other:?}"),
    };
    delta.upserts.iter().map(of).collect()
}

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_secs(1);

#[test]
fn a_new_pod_is_at_once_what_is_planned() {
    let mut w = World::new();
    assert_eq!(w.plan(pod("a", "1", "n1", STRICT)), STRICT);
    assert_eq!(w.plan(pod("b", "1", "", Enrolment::None)), Enrolment::None);
    assert_eq!(w.plan(pod("b", "1", "n1", STRICT)), STRICT, "it did not run before");
    assert_eq!(w.plan(pod("c", "1", "n1", Enrolment::None)), Enrolment::None);
    assert_eq!(w.plan(pod("c", "2", "n1", STRICT)), STRICT, "another pod of the name");
    assert_eq!(w.stages.next(), None);
}

#[test]
fn a_labelled_pod_joins_before_it_is_strict() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", Enrolment::None));
    assert_eq!(w.plan(pod("a", "1", "n1", STRICT)), Joining);
    assert_eq!(w.plan(pod("a", "1", "n1", STRICT)), Joining, "news of the pod do not hurry it");
    assert_eq!(w.moves(JOIN - SOON), None);
    assert_eq!(w.moves(SOON), Some(STRICT));
    assert_eq!(w.stages.next(), None);
}

#[test]
fn an_unlabelled_pod_takes_plaintext_before_it_gets_any_and_stays_captured_until_all_speak_it() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", STRICT));
    assert_eq!(w.plan(pod("a", "1", "n1", Enrolment::None)), PERMISSIVE);
    assert_eq!(w.moves(YIELD), Some(Leaving));
    assert_eq!(w.moves(LEAVE), Some(Enrolment::None));
    assert_eq!(w.stages.next(), None);
}

#[test]
fn a_permissive_pod_needs_not_yield() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", PERMISSIVE));
    assert_eq!(w.plan(pod("a", "1", "n1", Enrolment::None)), Leaving);
    assert_eq!(w.moves(LEAVE), Some(Enrolment::None));
}

#[test]
fn a_label_that_comes_back_on_the_way_out_joins_again() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", STRICT));
    w.plan(pod("a", "1", "n1", Enrolment::None));
    assert_eq!(w.plan(pod("a", "1", "n1", STRICT)), STRICT, "its peers still speak mTLS");
    w.plan(pod("a", "1", "n1", Enrolment::None));
    assert_eq!(w.moves(YIELD), Some(Leaving));
    assert_eq!(w.plan(pod("a", "1", "n1", STRICT)), Joining);
    assert_eq!(w.moves(JOIN), Some(STRICT));
}

#[test]
fn a_label_that_goes_again_on_the_way_in_leaves() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", Enrolment::None));
    w.plan(pod("a", "1", "n1", STRICT));
    assert_eq!(w.plan(pod("a", "1", "n1", Enrolment::None)), Leaving);
    assert_eq!(w.moves(LEAVE), Some(Enrolment::None));
}

#[test]
fn a_switch_of_mode_is_at_once_but_for_those_who_join() {
    let mut w = World::new();
    w.plan(pod("old", "1", "n1", PERMISSIVE));
    assert_eq!(w.plan(pod("old", "1", "n1", STRICT)), STRICT);
    assert_eq!(w.plan(pod("old", "1", "n1", PERMISSIVE)), PERMISSIVE);
    w.plan(pod("new", "1", "n1", Enrolment::None));
    assert_eq!(w.plan(pod("new", "1", "n1", STRICT)), Joining);
    assert_eq!(w.plan(pod("old", "1", "n1", STRICT)), PERMISSIVE);
    assert_eq!(w.wait(JOIN, true), [("new".to_owned(), STRICT), ("old".to_owned(), STRICT)]);
}

#[test]
fn a_step_waits_for_proxies_that_are_behind_but_not_for_ever() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", STRICT));
    w.plan(pod("a", "1", "n1", Enrolment::None));
    assert_eq!(w.wait(YIELD + SOON, false), []);
    assert_eq!(w.moves(NOW), Some(Leaving));
    assert_eq!(w.wait(LEAVE + PATIENCE - SOON, false), []);
    assert_eq!(w.wait(SOON, false), [("a".to_owned(), Enrolment::None)]);
}

#[test]
fn a_pod_that_is_gone_makes_no_step() {
    let mut w = World::new();
    w.plan(pod("a", "1", "n1", STRICT));
    w.plan(pod("a", "1", "n1", Enrolment::None));
    let gone = NodeDelta { upserts: vec![], removes: vec![ResourceId::Workload(NsName::new("shop", "a"))] };
    w.stages.take(&gone, w.start);
    assert_eq!(w.wait(JOIN, true), []);
}

proptest! {
    /// Only neighbouring states follow each other, and what is planned is reached.
    #[test]
    fn whatever_is_planned_when_states_follow_in_order(
        plans in prop::collection::vec((prop::sample::select(vec![Enrolment::None, STRICT, PERMISSIVE]), 0u64..30_000), 1..20),
    ) {
        let mut w = World::new();
        let mut at = w.plan(pod("a", "1", "n1", plans[0].0));
        let mut last = plans[0].0;
        let fits = |from: Enrolment, to: Enrolment| {
            from == to || matches!(
                (from, to),
                (Enrolment::None | Leaving, Joining)
                    | (Joining, Meshed(_) | Leaving)
                    | (Meshed(_), Meshed(_))
                    | (PERMISSIVE, Leaving)
                    | (Leaving, Enrolment::None)
            )
        };
        for (planned, millis) in plans {
            let to = w.plan(pod("a", "1", "n1", planned));
            prop_assert!(fits(at, to), "{at:?} to {to:?}");
            at = to;
            if let Some((_, to)) = w.wait(Duration::from_millis(millis), true).pop() {
                prop_assert!(fits(at, to), "{at:?} to {to:?}");
                at = to;
            }
            last = planned;
        }
        for _ in 0..3 {
            if let Some((_, to)) = w.wait(JOIN, true).pop() {
                prop_assert!(fits(at, to), "{at:?} to {to:?}");
                at = to;
            }
        }
        prop_assert_eq!(at, last);
    }
}
