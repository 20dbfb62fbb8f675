//! Statuses as the JSON of `.status`, without times. It must not decide.

use super::{Ancestor, Body, Condition, ListenerStatus, RouteParent, Status};
use crate::plan::CONTROLLER_NAME;
use serde_json::{Map, Value, json};

impl Status {
    /// The `.status` that the object should have. `lastTransitionTime` is for the writer to add.
    pub fn to_json(&self) -> Value {
        let conditions = |list: &[Condition]| -> Value { list.iter().map(|c| condition(c, self.generation)).collect() };
        let listener = |l: &ListenerStatus| {
            let kinds = l.supported_kinds.iter().map(|k| json!({"group": k.group(), "kind": k.as_str()}));
            json!({
                "name": &*l.name,
                "supportedKinds": kinds.collect::<Value>(),
                "attachedRoutes": l.attached_routes,
                "conditions": conditions(&l.conditions),
            })
        };
        match &self.body {
            Body::Route(parents) => {
                let parents = parents.iter().map(|RouteParent { parent, conditions: list }| {
                    json!({
                        "parentRef": serde_json::to_value(parent).unwrap_or_default(),
                        "controllerName": CONTROLLER_NAME,
                        "conditions": conditions(list),
                    })
                });
                json!({"parents": parents.collect::<Value>()})
            }
            Body::Policy(ancestors) => {
                let ancestors = ancestors.iter().map(|Ancestor { kind, name, conditions: list }| {
                    let mut reference = Map::new();
                    reference.insert("group".into(), kind.group().into());
                    reference.insert("kind".into(), kind.as_str().into());
                    if kind.namespaced() {
                        reference.insert("namespace".into(), (*name.namespace).into());
                    }
                    reference.insert("name".into(), (*name.name).into());
                    json!({"ancestorRef": reference, "controllerName": CONTROLLER_NAME, "conditions": conditions(list)})
                });
                json!({"ancestors": ancestors.collect::<Value>()})
            }
            Body::Gateway { addresses, conditions: list, listeners } => json!({
                "addresses": addresses.iter().map(|a| json!({"type": "IPAddress", "value": a.to_string()})).collect::<Value>(),
                "conditions": conditions(list),
                "listeners": listeners.iter().map(listener).collect::<Value>(),
            }),
            Body::Class { conditions: list, features } | Body::Mesh { conditions: list, features } => json!({
                "conditions": conditions(list),
                "supportedFeatures": features.iter().map(|f| json!({"name": f})).collect::<Value>(),
            }),
        }
    }
}

fn condition(condition: &Condition, generation: i64) -> Value {
    json!({
        "type": condition.kind,
        "status": condition.state.as_str(),
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": generation,
    })
}
