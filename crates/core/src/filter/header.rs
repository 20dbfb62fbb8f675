//! Header: edits header maps by header modifiers. It must not know whose headers they are.

use crate::mesh::HeaderEdit;
use http::HeaderMap;

/// Edits headers: set, then add, then remove.
///
/// HTTPHeaderFilter: "Set overwrites the request with the given header"; "Add … appends to any existing values associated with the header
/// name", as a line of its own, which is the same list (RFC 9110 §5.3); "Remove the given header(s)".
pub fn edit_headers(edit: &HeaderEdit, headers: &mut HeaderMap) {
    for (name, value) in &edit.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edit.add {
        headers.append(name, value.clone());
    }
    for name in &edit.remove {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Lines = Vec<(HeaderName, HeaderValue)>;

    fn lines() -> impl Strategy<Value = Lines> {
        let line = ("[a-d]", "[x-z]{1,2}");
        let line = line.prop_map(|(n, v)| (HeaderName::try_from(n).unwrap(), HeaderValue::try_from(v).unwrap()));
        prop::collection::vec(line, 0..6)
    }

    /// The same edit on a map of lists.
    fn naive(edit: &HeaderEdit, before: &Lines) -> BTreeMap<String, Vec<HeaderValue>> {
        let mut map = BTreeMap::<String, Vec<HeaderValue>>::new();
        before.iter().for_each(|(n, v)| map.entry(n.to_string()).or_default().push(v.clone()));
        edit.set.iter().for_each(|(n, v)| drop(map.insert(n.to_string(), vec![v.clone()])));
        edit.add.iter().for_each(|(n, v)| map.entry(n.to_string()).or_default().push(v.clone()));
        edit.remove.iter().for_each(|n| drop(map.remove(n.as_str())));
        map
    }

    proptest! {
        #[test]
        fn an_edit_is_set_then_add_then_remove(before in lines(), set in lines(), add in lines(), remove in lines()) {
            let edit = HeaderEdit { set, add, remove: remove.into_iter().map(|(n, _)| n).collect() };
            let mut headers = HeaderMap::new();
            for (n, v) in &before {
                headers.append(n, v.clone());
            }
            edit_headers(&edit, &mut headers);
            let mut after = BTreeMap::<String, Vec<HeaderValue>>::new();
            headers.iter().for_each(|(n, v)| after.entry(n.to_string()).or_default().push(v.clone()));
            prop_assert_eq!(after, naive(&edit, &before));
        }
    }
}
