//! Merging a status: times of conditions that did not change are kept, and so is what other controllers say. Pure. It must not know kinds.

use crate::plan::CONTROLLER_NAME;
use serde_json::Value;

/// Condition types that this controller decides about. One that we no longer state is gone, not somebody else's.
const OURS: [&str; 12] = [
    "Accepted",
    "AttachedListenerSets",
    "Conflicted",
    "InsecureFrontendValidationMode",
    "OverlappingTLSConfig",
    "PartiallyInvalid",
    "Programmed",
    "Ready",
    "ResolvedRefs",
    "Scheduled",
    "SupportedVersion",
    "WaypointConfigured",
];

/// `wanted` as it is to be written: `before` is what we wrote last, `others` what the object bears now.
pub(super) fn merge(mut wanted: Value, before: &Value, others: &Value, now: &str) -> Value {
    conditions(&mut wanted, before, others, now);
    // "Controllers MUST NOT add/remove/modify entries with a different controllerName" (RouteParentStatus, PolicyAncestorStatus).
    for (list, name) in [("parents", "parentRef"), ("ancestors", "ancestorRef")] {
        let Some(entries) = wanted.get_mut(list).and_then(Value::as_array_mut) else { continue };
        for entry in entries.iter_mut() {
            let (before, others) = (find(&before[list], name, entry), find(&others[list], name, entry));
            conditions(entry, before, others, now);
        }
        let foreign = others[list].as_array().into_iter().flatten();
        entries.extend(foreign.filter(|e| e["controllerName"] != CONTROLLER_NAME).cloned());
    }
    if let Some(listeners) = wanted.get_mut("listeners").and_then(Value::as_array_mut) {
        for listener in listeners {
            let same = |status: &Value| find_by(&status["listeners"], |l| l["name"] == listener["name"]).clone();
            let (before, others) = (same(before), same(others));
            conditions(listener, &before, &others, now);
        }
    }
    wanted
}

/// Our entry about the same parent or ancestor.
fn find<'a>(list: &'a Value, name: &str, entry: &Value) -> &'a Value {
    find_by(list, |e| e[name] == entry[name] && e["controllerName"] == CONTROLLER_NAME)
}

fn find_by(list: &Value, is: impl Fn(&Value) -> bool) -> &Value {
    list.as_array().into_iter().flatten().find(|e| is(e)).unwrap_or(&Value::Null)
}

/// Times of the conditions of `holder`: of the one that it shows already, if that says the same.
pub(super) fn times(holder: &mut Value, shown: &Value, now: &str) {
    let conditions = holder.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        time(condition, &[shown], now);
    }
}

fn time(condition: &mut Value, before: &[&Value], now: &str) {
    let same = |c: &Value| c["type"] == condition["type"] && c["status"] == condition["status"];
    let kept = before
        .iter()
        .find_map(|status| find_by(&status["conditions"], same)["lastTransitionTime"].as_str().map(str::to_owned));
    condition["lastTransitionTime"] = kept.unwrap_or_else(|| now.to_owned()).into();
}

/// Times, and the conditions that others state beside ours.
pub(super) fn conditions(holder: &mut Value, before: &Value, others: &Value, now: &str) {
    let Some(wanted) = holder.get_mut("conditions").and_then(Value::as_array_mut) else { return };
    for condition in wanted.iter_mut() {
        time(condition, &[before, others], now);
    }
    let foreign = others["conditions"].as_array().into_iter().flatten();
    let foreign = foreign.filter(|c| c["type"].as_str().is_some_and(|t| !OURS.contains(&t)));
    let foreign: Vec<Value> = foreign.filter(|c| wanted.iter().all(|w| w["type"] != c["type"])).cloned().collect();
    wanted.extend(foreign);
}
