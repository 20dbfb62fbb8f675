//! The life of a pod on its node, in sentences and in all orders.

use super::*;
use proptest::prelude::*;

fn run(pod: &mut Pod, events: impl IntoIterator<Item = Event>) -> Vec<Action> {
    events.into_iter().flat_map(|e| pod.handle(e)).collect()
}

fn announced(id: &str) -> Event {
    Event::Announced(id.into())
}

fn capture(id: &str) -> Action {
    Action::Capture(id.into())
}

#[test]
fn a_meshed_pod_is_captured_before_the_cni_gets_its_answer() {
    let mut pod = Pod::new(Says::Meshed);
    assert_eq!(run(&mut pod, [announced("s")]), [capture("s")]);
    assert_eq!(run(&mut pod, [Event::Captured]), [Action::Answer]);
    assert_eq!(pod.phase(), Some(Phase::Captured));
}

#[test]
fn a_pod_that_is_not_meshed_is_answered_at_once_and_left_alone() {
    let mut pod = Pod::new(Says::NotMeshed);
    assert_eq!(run(&mut pod, [announced("s")]), [Action::Answer]);
    assert_eq!(pod.phase(), Some(Phase::Plain));
}

#[test]
fn an_unknown_pod_waits_for_the_config_to_name_it() {
    let mut pod = Pod::default();
    assert_eq!(run(&mut pod, [announced("s")]), [Action::Wait]);
    assert_eq!(run(&mut pod, [Event::Config(Says::Meshed), Event::Captured]), [capture("s"), Action::Answer]);
}

#[test]
fn an_unknown_pod_whose_time_is_over_is_to_be_tried_again_and_still_captured_when_it_is_named() {
    let mut pod = Pod::default();
    assert_eq!(run(&mut pod, [announced("s"), Event::Expired]), [Action::Wait, Action::AnswerRetry]);
    assert_eq!(run(&mut pod, [Event::Config(Says::Meshed), Event::Captured]), [capture("s")]);
}

#[test]
fn a_label_added_or_taken_away_later_captures_and_releases() {
    let mut pod = Pod::new(Says::NotMeshed);
    run(&mut pod, [announced("s")]);
    assert_eq!(run(&mut pod, [Event::Config(Says::Meshed)]), [capture("s")]);
    assert_eq!(run(&mut pod, [Event::Captured, Event::Config(Says::NotMeshed)]), [Action::Release("s".into())]);
    assert_eq!(run(&mut pod, [Event::Released]), []);
    assert_eq!(pod.phase(), Some(Phase::Plain));
}

#[test]
fn a_captured_pod_that_the_config_forgets_stays_captured() {
    let mut pod = Pod::new(Says::Meshed);
    run(&mut pod, [announced("s"), Event::Captured]);
    assert_eq!(run(&mut pod, [Event::Config(Says::Unknown)]), []);
    assert_eq!(pod.phase(), Some(Phase::Captured));
}

#[test]
fn announcing_a_captured_sandbox_again_makes_sure_of_it_and_answers() {
    let mut pod = Pod::new(Says::Meshed);
    run(&mut pod, [announced("s"), Event::Captured]);
    assert_eq!(run(&mut pod, [announced("s"), Event::Captured]), [capture("s"), Action::Answer]);
}

#[test]
fn announcing_while_it_is_being_captured_captures_once() {
    let mut pod = Pod::new(Says::Meshed);
    assert_eq!(run(&mut pod, [announced("s"), announced("s"), Event::Captured]), [capture("s"), Action::Answer]);
}

#[test]
fn a_failed_capture_is_answered_and_tried_again() {
    let mut pod = Pod::new(Says::Meshed);
    let actions = run(&mut pod, [announced("s"), Event::CaptureFailed]);
    assert_eq!(actions, [capture("s"), Action::AnswerRetry, Action::TryAgain]);
    assert_eq!(run(&mut pod, [Event::Config(Says::Meshed), Event::Captured]), [capture("s")]);
}

#[test]
fn a_config_that_changes_during_the_work_is_followed_when_the_work_is_done() {
    let mut pod = Pod::new(Says::Meshed);
    assert_eq!(run(&mut pod, [announced("s"), Event::Config(Says::NotMeshed)]), [capture("s")]);
    assert_eq!(run(&mut pod, [Event::Captured, Event::Released]), [Action::Release("s".into()), Action::Answer]);
}

#[test]
fn a_new_sandbox_of_the_pod_replaces_the_old_one() {
    let mut pod = Pod::new(Says::Meshed);
    run(&mut pod, [announced("s"), Event::Captured]);
    assert_eq!(run(&mut pod, [announced("t")]), [Action::Forget("s".into()), capture("t")]);
    assert_eq!(run(&mut pod, [Event::Gone("s".into())]), []);
    assert_eq!(run(&mut pod, [Event::Captured, Event::Gone("t".into())]), [Action::Answer, Action::Forget("t".into())]);
    assert_eq!(pod.phase(), None);
}

#[test]
fn a_sandbox_that_was_captured_is_captured_after_a_restart_before_any_config_comes() {
    let mut pod = Pod::default();
    let restored = Event::Restored { sandbox: "s".into(), captured: true };
    assert_eq!(run(&mut pod, [restored, Event::Captured]), [capture("s")]);
}

#[test]
fn a_sandbox_released_while_the_proxy_was_away_loses_its_old_rules() {
    let mut pod = Pod::new(Says::NotMeshed);
    let restored = Event::Restored { sandbox: "s".into(), captured: true };
    assert_eq!(run(&mut pod, [restored, Event::Released]), [Action::Release("s".into())]);
    assert_eq!(pod.phase(), Some(Phase::Plain));
}

#[test]
fn a_plain_sandbox_after_a_restart_follows_the_config() {
    let restored = || Event::Restored { sandbox: "s".into(), captured: false };
    assert_eq!(run(&mut Pod::default(), [restored()]), []);
    assert_eq!(run(&mut Pod::new(Says::Meshed), [restored()]), [capture("s")]);
    assert_eq!(run(&mut Pod::new(Says::NotMeshed), [restored()]), []);
}

#[test]
fn a_record_of_another_uid_says_nothing_of_this_pod() {
    let w = crate::tests::fixture::pod("x/a", &[]);
    assert_eq!(Says::of(Some(&w), "uid-x/a"), Says::Meshed);
    assert_eq!(Says::of(Some(&w), ""), Says::Meshed);
    assert_eq!(Says::of(Some(&w), "other"), Says::Unknown);
    assert_eq!(Says::of(None, "uid-x/a"), Says::Unknown);
    let plain = crate::mesh::Workload { enrolment: crate::mesh::Enrolment::None, ..w };
    assert_eq!(Says::of(Some(&plain), "uid-x/a"), Says::NotMeshed);
}

fn event() -> impl Strategy<Value = Event> {
    let sandbox = || prop_oneof![Just(Text::from("s")), Just(Text::from("t"))];
    prop_oneof![
        sandbox().prop_map(Event::Announced),
        (sandbox(), any::<bool>()).prop_map(|(sandbox, captured)| Event::Restored { sandbox, captured }),
        sandbox().prop_map(Event::Gone),
        prop_oneof![Just(Says::Unknown), Just(Says::NotMeshed), Just(Says::Meshed)].prop_map(Event::Config),
        Just(Event::Captured),
        Just(Event::CaptureFailed),
        Just(Event::Released),
        Just(Event::ReleaseFailed),
        Just(Event::Expired),
    ]
}

proptest! {
    /// Whatever happens, in whatever order: the CNI gets one answer for each wait, a pod that the config calls meshed is never answered
    /// uncaptured, work goes on only for the living sandbox, and once the world holds still the pod is where the config wants it.
    #[test]
    fn in_any_order_of_events_no_meshed_pod_starts_uncaptured(events in prop::collection::vec(event(), 0..40)) {
        let mut pod = Pod::default();
        let (mut says, mut waiting) = (Says::Unknown, false);
        for event in events {
            if let Event::Config(s) = &event {
                says = *s;
            }
            let announced = matches!(event, Event::Announced(_));
            let mut answers = 0;
            let before = (pod.clone(), event.clone());
            for action in pod.handle(event) {
                match action {
                    Action::Answer => {
                        answers += 1;
                        let want = if says == Says::NotMeshed { pod.phase() == Some(Phase::Plain) } else { true };
                        prop_assert!(want, "{:?}", before);
                        prop_assert!(says != Says::Meshed || pod.phase() == Some(Phase::Captured), "{:?}", before);
                    }
                    Action::AnswerRetry => answers += 1,
                    Action::Capture(id) => {
                        prop_assert_eq!(pod.sandbox(), Some(&id));
                        prop_assert_eq!(pod.phase(), Some(Phase::Capturing));
                    }
                    Action::Release(id) => {
                        prop_assert_eq!(says, Says::NotMeshed);
                        prop_assert_eq!(pod.sandbox(), Some(&id));
                    }
                    Action::Forget(id) => prop_assert_ne!(pod.sandbox(), Some(&id)),
                    Action::Wait => prop_assert!(announced),
                    Action::TryAgain => {}
                }
            }
            // A repeated announcement asks once more in place of the earlier one, or after the earlier one was answered.
            prop_assert!(answers <= usize::from(waiting) + usize::from(announced), "{:?}", before);
            waiting = (waiting || announced) && answers < usize::from(waiting) + usize::from(announced);
        }
        if pod.sandbox().is_some() {
            run(&mut pod, [Event::Config(Says::Meshed)]);
            for _ in 0..3 {
                let done = match pod.phase() {
                    Some(Phase::Capturing) => Event::Captured,
                    Some(Phase::Releasing) => Event::Released,
                    _ => break,
                };
                run(&mut pod, [done]);
            }
            prop_assert_eq!(pod.phase(), Some(Phase::Captured));
        }
    }
}
