//! Times of conditions and what others say.

use super::*;
use serde_json::json;

fn condition(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "R", "message": "", "observedGeneration": 1})
}

fn at(mut condition: Value, time: &str) -> Value {
    condition["lastTransitionTime"] = time.into();
    condition
}

#[test]
fn a_transition_time_changes_only_when_the_status_does() {
    let wanted = |status: &str, generation: i64| {
        let mut c = condition("Accepted", status);
        c["observedGeneration"] = generation.into();
        json!({"parents": [{"parentRef": {"name": "gw"}, "controllerName": "heddle.dev/controller", "conditions": [c]}]})
    };
    let time = |status: &Value| status["parents"][0]["conditions"][0]["lastTransitionTime"].clone();
    let first = merge::merge(wanted("True", 1), &Value::Null, &Value::Null, "t1");
    assert_eq!(time(&first), "t1");
    let same = merge::merge(wanted("True", 2), &first, &Value::Null, "t2");
    assert_eq!((time(&same), &same["parents"][0]["conditions"][0]["observedGeneration"]), ("t1".into(), &json!(2)));
    assert_eq!(time(&merge::merge(wanted("False", 2), &same, &Value::Null, "t3")), "t3");
}

#[test]
fn what_other_controllers_say_is_kept_and_what_we_no_longer_say_is_not() {
    let others = json!({
        "conditions": [at(condition("example.com/Audited", "True"), "t0"), at(condition("Conflicted", "True"), "t0")],
        "parents": [
            {"parentRef": {"name": "x"}, "controllerName": "example.com/other", "conditions": [at(condition("Accepted", "False"), "t0")]},
            {"parentRef": {"name": "gone"}, "controllerName": "heddle.dev/controller", "conditions": []},
        ],
    });
    let wanted = json!({"conditions": [condition("Accepted", "True")], "parents": []});
    let merged = merge::merge(wanted, &Value::Null, &others, "t1");
    assert_eq!(
        merged,
        json!({
            "conditions": [at(condition("Accepted", "True"), "t1"), at(condition("example.com/Audited", "True"), "t0")],
            "parents": [others["parents"][0]],
        })
    );
}

#[test]
fn listeners_keep_their_times_by_name() {
    let listeners = |names: &[&str]| -> Value {
        let of = |n: &&str| json!({"name": n, "conditions": [condition("Programmed", "True")]});
        json!({"listeners": names.iter().map(of).collect::<Value>()})
    };
    let first = merge::merge(listeners(&["a"]), &Value::Null, &Value::Null, "t1");
    let second = merge::merge(listeners(&["b", "a"]), &first, &Value::Null, "t2");
    let times: Vec<&Value> = (0..2).map(|i| &second["listeners"][i]["conditions"][0]["lastTransitionTime"]).collect();
    assert_eq!(times, ["t2", "t1"]);
}

#[test]
fn a_file_is_replaced_whole_and_a_new_run_goes_on_with_its_times() {
    use crate::plan::status::{Body, Condition};
    let key = Key::cluster(Kind::GatewayClass, "heddle");
    let status = || Status {
        key: key.clone(),
        generation: 3,
        body: Body::Class { conditions: Vec::<Condition>::new(), features: &[] },
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("status.json");
    let file = StatusFile::open(&path);
    let problem = Problem { file: "f".into(), line: 1, object: "o".into(), field: "x".into(), reason: "r".into() };
    file.change(|statuses, problems| {
        statuses.apply(&BTreeMap::from([(key.clone(), Some(Arc::new(status())))]), "t1");
        problems.push(problem);
    });
    file.write().unwrap();
    let written: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(written["problems"], json!([{"file": "f", "line": 1, "object": "o", "field": "x", "reason": "r"}]));
    assert_eq!(written["objects"][0]["name"], "heddle");
    assert_eq!(written["objects"][0]["generation"], 3);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");

    let resumed = Statuses::resume(&written.to_string());
    assert_eq!(resumed.former.get(&key), Some(&written["objects"][0]["status"]));
    assert!(Statuses::resume("half a fi").former.is_empty());
}
