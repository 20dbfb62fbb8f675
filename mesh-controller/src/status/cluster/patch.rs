//! The patch: what is to be applied to an object's status so that it says what we say, and everything that others say stays as it is. Pure. It must not send.

use crate::{plan::CONTROLLER_NAME, status::merge};
use serde_json::{Value, json};

/// Entries that the CRDs allow.
const PARENTS: usize = 32;
const ANCESTORS: usize = 16;

/// What to apply.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Patch {
    /// `.status` as we apply it.
    pub(super) status: Value,
    /// It replaces a list in which others may write too, so it counts only for the version that was read.
    pub(super) locked: bool,
}

/// The patch from `shown`, the object's status, to `wanted`, ours without times; none: it says already what it shall. `last` is what we applied last.
///
/// Lists of conditions, listeners and features are maps to the API server: we apply our own entries, and of those that we no longer apply it removes
/// what is ours. `parents` and `ancestors` are atomic: whoever applies one entry replaces the list. So the foreign entries are applied with ours, as
/// they were read, each in its place, and only if nobody has written since.
pub(super) fn patch(wanted: Option<Value>, shown: &Value, last: Option<&Value>, now: &str) -> Option<Patch> {
    let list = ["parents", "ancestors"]
        .into_iter()
        .find(|list| wanted.as_ref().map_or_else(|| shown[list].is_array(), |wanted| wanted[list].is_array()));
    match (list, wanted) {
        (Some(list), wanted) => atomic(list, wanted, shown, now),
        (None, Some(wanted)) => maps(wanted, shown, last, now),
        // An object of another controller now, which states the same conditions: they are its own when it says so.
        (None, None) => None,
    }
}

fn atomic(list: &str, wanted: Option<Value>, shown: &Value, now: &str) -> Option<Patch> {
    let (name, most) = if list == "parents" { ("parentRef", PARENTS) } else { ("ancestorRef", ANCESTORS) };
    let mut ours = match wanted {
        Some(mut wanted) => match wanted[list].take() {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        },
        None => Vec::new(),
    };
    let there = shown[list].as_array().map_or(&[][..], Vec::as_slice);
    let mut new = Vec::with_capacity(there.len().max(ours.len()));
    for entry in there {
        if entry["controllerName"] != CONTROLLER_NAME {
            new.push(entry.clone());
        } else if let Some(i) = ours.iter().position(|ours| ours[name] == entry[name]) {
            let mut ours = ours.remove(i);
            merge::conditions(&mut ours, &Value::Null, entry, now);
            new.push(ours);
        }
    }
    // "If this slice is full, implementations MUST NOT add further entries" (PolicyStatus); a list that is too long would be refused whole.
    let room = most.saturating_sub(new.len());
    for mut entry in ours.into_iter().take(room) {
        merge::conditions(&mut entry, &Value::Null, &Value::Null, now);
        new.push(entry);
    }
    let same = new.len() == there.len() && new.iter().zip(there).all(|(a, b)| covers(b, a) && covers(a, b));
    (!same).then(|| Patch { status: json!({ list: new }), locked: true })
}

fn maps(mut wanted: Value, shown: &Value, last: Option<&Value>, now: &str) -> Option<Patch> {
    merge::times(&mut wanted, shown, now);
    for listener in wanted.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
        let there = shown["listeners"].as_array().into_iter().flatten().find(|l| l["name"] == listener["name"]);
        merge::times(listener, there.unwrap_or(&Value::Null), now);
    }
    // What we applied before and do not now is there as ours until it is applied without.
    let more = last.is_some_and(|last| names(last).iter().any(|name| !names(&wanted).contains(name)));
    (more || !covers(shown, &wanted)).then_some(Patch { status: wanted, locked: false })
}

/// Whether `has` says all that `wants` says. Lists whose items bear a type or a name are maps.
fn covers(has: &Value, wants: &Value) -> bool {
    match (has, wants) {
        (Value::Object(has), Value::Object(wants)) => {
            wants.iter().all(|(field, wants)| has.get(field).is_some_and(|has| covers(has, wants)))
        }
        (Value::Array(has), Value::Array(wants)) => match wants.first().and_then(identity) {
            Some(by) => wants.iter().all(|w| has.iter().find(|h| h[by] == w[by]).is_some_and(|h| covers(h, w))),
            None => has == wants,
        },
        (has, wants) => has == wants,
    }
}

/// By what items of a list are told apart; none: by their place.
fn identity(item: &Value) -> Option<&'static str> {
    ["type", "name"].into_iter().find(|by| item[by].is_string())
}

/// The conditions, listeners and features of a status, whatever they say.
fn names(status: &Value) -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |path: &str, list: &Value| {
        for item in list.as_array().into_iter().flatten() {
            if let Some(name) = identity(item).and_then(|by| item[by].as_str()) {
                names.push(format!("{path}/{name}"));
            }
        }
    };
    add("conditions", &status["conditions"]);
    add("supportedFeatures", &status["supportedFeatures"]);
    add("listeners", &status["listeners"]);
    for listener in status["listeners"].as_array().into_iter().flatten() {
        add(listener["name"].as_str().unwrap_or_default(), &listener["conditions"]);
    }
    names.sort();
    names
}

#[cfg(test)]
mod tests;
