//! `/debug/config`: what is published and how far each proxy is, as JSON. It must not show a key: resources are shown by their `Debug`, which has none.

use crate::{publish::Publisher, status::Sink};
use serde_json::{Map, Value, json};

pub(super) fn config(publisher: &Publisher, status: &dyn Sink) -> String {
    let resources = publisher.resources().into_iter();
    let resources: Map<String, Value> = resources
        .map(|(id, version, resource)| {
            (id.to_string(), json!({"version": format!("{version:016x}"), "resource": format!("{resource:?}")}))
        })
        .collect();
    let proxies: Map<String, Value> = publisher
        .proxies()
        .into_iter()
        .map(|(name, state)| {
            let refused = state.refused.iter().map(|(id, refusal)| {
                json!({
                    "resource": id.to_string(),
                    "version": format!("{:016x}", refusal.version),
                    "field": refusal.field,
                    "reason": refusal.reason,
                })
            });
            let refused: Value = refused.collect();
            (name.to_string(), json!({"sessions": state.sessions, "current": state.current, "refused": refused}))
        })
        .collect();
    let mut text = json!({"proxies": proxies, "problems": status.problems(), "resources": resources}).to_string();
    text.push('\n');
    text
}
