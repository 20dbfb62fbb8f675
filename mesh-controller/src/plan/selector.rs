//! Label selectors, as Kubernetes evaluates them. It must not fetch labels.

use crate::api::Selector;
use std::collections::BTreeMap;

/// Whether labels are selected. "An empty label selector matches all objects"; an operator that we do not know selects nothing.
pub(super) fn matches(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().flatten().all(|e| {
            let value = labels.get(&e.key);
            let listed = || value.is_some_and(|v| e.values.iter().flatten().any(|listed| listed == v));
            match e.operator.as_str() {
                "In" => listed(),
                "NotIn" => !listed(),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_select_as_kubernetes_does() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        for (selector, expected) in [
            (json!({}), true),
            (json!({"matchLabels": {"env": "prod"}}), true),
            (json!({"matchLabels": {"env": "test"}}), false),
            (json!({"matchExpressions": [{"key": "env", "operator": "In", "values": ["a", "prod"]}]}), true),
            (json!({"matchExpressions": [{"key": "env", "operator": "NotIn", "values": ["prod"]}]}), false),
            (json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]}), true),
            (json!({"matchExpressions": [{"key": "env", "operator": "Exists"}]}), true),
            (json!({"matchExpressions": [{"key": "env", "operator": "DoesNotExist"}]}), false),
            (json!({"matchExpressions": [{"key": "env", "operator": "Like", "values": ["prod"]}]}), false),
            (json!({"matchLabels": {"env": "prod"}, "matchExpressions": [{"key": "x", "operator": "Exists"}]}), false),
        ] {
            let selector: Selector = serde_json::from_value(selector).unwrap();
            assert_eq!(matches(&selector, &labels), expected, "{selector:?}");
        }
    }
}
