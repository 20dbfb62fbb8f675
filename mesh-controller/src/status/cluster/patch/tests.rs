//! What is applied beside what is there.

use super::*;

fn condition(kind: &str, status: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "R", "message": message, "observedGeneration": 1})
}

fn at(mut condition: Value, time: &str) -> Value {
    condition["lastTransitionTime"] = time.into();
    condition
}

fn parent(name: &str, controller: &str, conditions: &[Value]) -> Value {
    json!({"parentRef": {"group": "", "kind": "Service", "name": name}, "controllerName": controller, "conditions": conditions})
}

fn ours(name: &str, conditions: &[Value]) -> Value {
    parent(name, CONTROLLER_NAME, conditions)
}

#[test]
fn foreign_parents_stay_as_they_are_each_in_its_place() {
    let foreign = json!({"parentRef": {"name": "gw", "weird": [1, {"b": null}]}, "controllerName": "example.com/other", "conditions": [], "more": 1.5});
    let shown = json!({"parents": [
        ours("gone", &[at(condition("Accepted", "True", ""), "t0")]),
        foreign,
        ours("cart", &[at(condition("Accepted", "True", "old"), "t0"), at(condition("example.com/Audited", "True", ""), "t0")]),
    ]});
    let wanted = json!({"parents": [ours("new", &[condition("Accepted", "False", "")]), ours("cart", &[condition("Accepted", "True", "new")])]});
    let patch = patch(Some(wanted.clone()), &shown, None, "t1").unwrap();
    assert!(patch.locked, "others may write the list too");
    assert_eq!(
        patch.status,
        json!({"parents": [
            foreign,
            ours("cart", &[at(condition("Accepted", "True", "new"), "t0"), at(condition("example.com/Audited", "True", ""), "t0")]),
            ours("new", &[at(condition("Accepted", "False", ""), "t1")]),
        ]})
    );
    assert_eq!(super::patch(Some(wanted), &patch.status, None, "t2"), None, "once is enough");
}

#[test]
fn a_route_that_is_no_longer_ours_keeps_only_what_others_say() {
    let foreign = parent("gw", "example.com/other", &[]);
    let shown = json!({"parents": [ours("cart", &[]), foreign]});
    let patch = patch(None, &shown, None, "t1").unwrap();
    assert_eq!(patch, Patch { status: json!({"parents": [foreign]}), locked: true });
    assert_eq!(super::patch(None, &patch.status, None, "t1"), None);
    assert_eq!(super::patch(None, &Value::Null, None, "t1"), None, "a route that nobody speaks of is left alone");
    assert_eq!(super::patch(None, &json!({"conditions": [condition("Accepted", "True", "")]}), None, "t1"), None);
}

#[test]
fn of_conditions_only_ours_are_applied_and_only_when_they_differ() {
    let features = json!([{"name": "A"}, {"name": "B"}]);
    let wanted = json!({"conditions": [condition("Accepted", "True", "x")], "supportedFeatures": features});
    let waiting = at(condition("Accepted", "Unknown", "Waiting for controller"), "1970");
    let audited = at(condition("example.com/Audited", "True", ""), "t0");
    let first = patch(Some(wanted.clone()), &json!({"conditions": [waiting, audited]}), None, "t1").unwrap();
    assert_eq!(
        first,
        Patch {
            status: json!({"conditions": [at(condition("Accepted", "True", "x"), "t1")], "supportedFeatures": features}),
            locked: false,
        }
    );
    let shown = json!({"conditions": [audited, first.status["conditions"][0]], "supportedFeatures": [{"name": "B"}, {"name": "A"}], "extra": 1});
    assert_eq!(patch(Some(wanted.clone()), &shown, Some(&first.status), "t2"), None);
    // A new message is a change; the time stays, since the status does.
    let said = json!({"conditions": [condition("Accepted", "True", "y")], "supportedFeatures": features});
    let second = patch(Some(said), &shown, Some(&first.status), "t2").unwrap();
    assert_eq!(second.status["conditions"], json!([at(condition("Accepted", "True", "y"), "t1")]));
}

#[test]
fn what_we_no_longer_state_is_applied_away_once() {
    let listener =
        |name: &str| json!({"name": name, "attachedRoutes": 1, "conditions": [condition("Accepted", "True", "")]});
    let two = json!({"conditions": [], "listeners": [listener("a"), listener("b")]});
    let first = patch(Some(two), &Value::Null, None, "t1").unwrap();
    let one = json!({"conditions": [], "listeners": [listener("b")]});
    let second = patch(Some(one.clone()), &first.status, Some(&first.status), "t2").unwrap();
    assert_eq!(second.status["listeners"][0]["conditions"][0]["lastTransitionTime"], "t1");
    assert_eq!(patch(Some(one), &first.status, Some(&second.status), "t3"), None, "what remains is not ours to remove");
}

#[test]
fn a_list_that_others_have_filled_is_left_alone() {
    let others: Vec<Value> = (0..16)
        .map(|i| json!({"ancestorRef": {"name": format!("gw{i}")}, "controllerName": "example.com/other"}))
        .collect();
    let wanted = json!({"ancestors": [{"ancestorRef": {"name": "heddle"}, "controllerName": CONTROLLER_NAME, "conditions": []}]});
    assert_eq!(patch(Some(wanted.clone()), &json!({"ancestors": others}), None, "t1"), None);
    assert!(patch(Some(wanted), &json!({"ancestors": others[1..]}), None, "t1").is_some());
}
