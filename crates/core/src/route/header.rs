//! Header: whether a request's headers meet a condition. It must not edit them.

use crate::mesh::{HeaderMatch, TextMatch};
use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE};
use std::borrow::Cow;

/// Whether the header is there and its value matches.
pub(super) fn holds(condition: &HeaderMatch, headers: &HeaderMap) -> bool {
    let Some(value) = value(&condition.name, headers) else { return false };
    match &condition.value {
        TextMatch::Exact(text) => *text.as_bytes() == *value,
        TextMatch::Regex(pattern) => std::str::from_utf8(&value).is_ok_and(|v| pattern.is_match(v)),
    }
}

/// The value of a header, all its lines together; none: it is not there.
pub(super) fn value<'a>(name: &HeaderName, headers: &'a HeaderMap) -> Option<Cow<'a, [u8]>> {
    let mut lines = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    let first = lines.next()?;
    let Some(second) = lines.next() else { return Some(Cow::Borrowed(first)) };
    // RFC 9110 §5.3: lines of one name are one list, joined by commas; RFC 9113 §8.2.3: cookie crumbs are joined by "; ".
    let separator: &[u8] = if *name == COOKIE { b"; " } else { b"," };
    let mut joined = first.to_vec();
    for line in [second].into_iter().chain(lines) {
        joined.extend_from_slice(separator);
        joined.extend_from_slice(line);
    }
    Some(Cow::Owned(joined))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::Pattern;

    fn check(lines: &[(&'static str, &str)], name: &'static str, value: TextMatch) -> bool {
        let mut headers = HeaderMap::new();
        for (n, v) in lines {
            headers.append(HeaderName::from_static(n), HeaderValue::from_bytes(v.as_bytes()).unwrap());
        }
        holds(&HeaderMatch { name: HeaderName::from_static(name), value }, &headers)
    }

    fn exact(text: &str) -> TextMatch {
        TextMatch::Exact(text.into())
    }

    #[test]
    fn values_match_exactly_and_whole() {
        assert!(check(&[("version", "two")], "version", exact("two")));
        assert!(!check(&[("version", "two")], "version", exact("Two")));
        assert!(!check(&[], "version", exact("")));
        assert!(check(&[("version", "v12")], "version", TextMatch::Regex(Pattern::new("v[0-9]+").unwrap())));
        assert!(!check(&[("version", "xv12")], "version", TextMatch::Regex(Pattern::new("v[0-9]+").unwrap())));
    }

    #[test]
    fn several_lines_are_one_list() {
        assert!(check(&[("x", "a"), ("x", "b"), ("x", "c")], "x", exact("a,b,c")));
        assert!(!check(&[("x", "a"), ("x", "b")], "x", exact("a")));
        assert!(check(&[("cookie", "a=1"), ("cookie", "b=2")], "cookie", exact("a=1; b=2")));
    }

    #[test]
    fn a_value_that_is_no_text_matches_no_pattern() {
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_bytes(b"\xff").unwrap());
        let any = TextMatch::Regex(Pattern::new(".*").unwrap());
        assert!(!holds(&HeaderMatch { name: HeaderName::from_static("x"), value: any }, &headers));
    }
}
