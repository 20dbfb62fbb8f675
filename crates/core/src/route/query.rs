//! Query: whether a request's query meets a condition. It must not change it.

use crate::mesh::{QueryMatch, TextMatch};
use std::borrow::Cow;

/// Whether the parameter is there and its first value matches.
///
/// HTTPQueryParamMatch: "it is *recommended* that implementations should match against the first value of the param".
pub(super) fn holds(condition: &QueryMatch, query: Option<&str>) -> bool {
    let pairs = query.unwrap_or_default().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Some((_, value)) = pairs.into_iter().find(|(name, _)| !name.is_empty() && equal(name, &condition.name)) else {
        return false;
    };
    match &condition.value {
        TextMatch::Exact(text) => equal(value, text),
        TextMatch::Regex(pattern) => std::str::from_utf8(&decoded(value)).is_ok_and(|v| pattern.is_match(v)),
    }
}

fn equal(encoded: &str, plain: &str) -> bool {
    if encoded.contains('%') { bytes(encoded).eq(plain.bytes()) } else { encoded == plain }
}

fn decoded(encoded: &str) -> Cow<'_, [u8]> {
    if encoded.contains('%') { Cow::Owned(bytes(encoded).collect()) } else { Cow::Borrowed(encoded.as_bytes()) }
}

/// RFC 3986 §2.1; a `%` that does not introduce two hexadecimal digits stands for itself. `+` is not a space: that is a convention of
/// HTML forms, not of URIs.
fn bytes(encoded: &str) -> impl Iterator<Item = u8> + '_ {
    let mut rest = encoded.as_bytes();
    std::iter::from_fn(move || {
        let (first, after) = rest.split_first()?;
        if let (b'%', [high, low, after @ ..]) = (first, after)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        rest = after;
        Some(*first)
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|d| d as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Pattern;

    fn check(query: &str, name: &str, value: &str) -> bool {
        holds(&QueryMatch { name: name.into(), value: TextMatch::Exact(value.into()) }, Some(query))
    }

    #[test]
    fn the_first_value_of_a_parameter_counts() {
        assert!(check("animal=whale&animal=dolphin", "animal", "whale"));
        assert!(!check("animal=whale&animal=dolphin", "animal", "dolphin"));
    }

    #[test]
    fn names_and_values_are_case_sensitive_and_decoded() {
        assert!(!check("Animal=whale", "animal", "whale"));
        assert!(!check("animal=Whale", "animal", "whale"));
        assert!(check("a%6Eimal=wh%61le%20shark", "animal", "whale shark"));
        assert!(check("a=%zz%4", "a", "%zz%4"));
        assert!(check("a=b+c", "a", "b+c"));
    }

    #[test]
    fn a_parameter_without_value_has_the_empty_one() {
        assert!(check("a&b=1", "a", "") && check("a=&b=1", "a", "") && check("a==", "a", "="));
        assert!(!check("", "a", "") && !check("&&", "", ""));
        assert!(!holds(&QueryMatch { name: "a".into(), value: TextMatch::Exact("".into()) }, None));
    }

    #[test]
    fn patterns_see_the_decoded_value() {
        let pattern = TextMatch::Regex(Pattern::new("[a-c é]+").unwrap());
        assert!(holds(&QueryMatch { name: "x".into(), value: pattern.clone() }, Some("x=a%20b%C3%A9")));
        assert!(!holds(&QueryMatch { name: "x".into(), value: pattern }, Some("x=%C3")));
    }
}
