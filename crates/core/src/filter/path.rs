//! Path: HTTPPathModifier, shared by redirects and rewrites. It must not touch hosts or queries.

use crate::{
    mesh::{HttpMatch, PathEdit, PathMatch},
    route::trimmed,
};

/// The path after an edit; none: it does not apply, because the match that won has no prefix.
pub(super) fn edited(edit: &PathEdit, path: &str, condition: &HttpMatch) -> Option<String> {
    let edited = match edit {
        PathEdit::Full(new) => absolute(new),
        PathEdit::Prefix(new) => {
            let PathMatch::Prefix(prefix) = &condition.path else { return None };
            // "When specified, a trailing `/` is ignored": `/foo/bar` by `/foo/` → `/xyz/` is `/xyz/bar`, `/foo` → empty is `/`.
            let rest = path.strip_prefix(trimmed(prefix))?;
            absolute(&format!("{}{rest}", trimmed(new)))
        }
    };
    Some(edited)
}

/// The path with a leading slash, and with what may not stand in a path percent-encoded.
fn absolute(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        out.push('/');
    }
    for byte in path.bytes() {
        // RFC 3986 §3.3 pchar and `/`; `%` is taken as the start of an escape that the user wrote.
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' | b'%' | b':' | b'@' => {
                out.push(byte.into())
            }
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => out.push(byte.into()),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(HEX[usize::from(byte >> 4)].into());
                out.push(HEX[usize::from(byte & 15)].into());
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(prefix: &str) -> HttpMatch {
        HttpMatch { path: PathMatch::Prefix(prefix.into()), method: None, headers: vec![], query: vec![] }
    }

    #[test]
    fn prefixes_are_replaced_as_the_table_of_the_specification_says() {
        // HTTPPathModifier.replacePrefixMatch: Request Path | Prefix Match | Replace Prefix | Modified Path
        for (path, matched, new, want) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            // And what it leaves out.
            ("/bar", "/", "/xyz", "/xyz/bar"),
            ("/a%20b/c", "/a%20b", "/x", "/x/c"),
        ] {
            assert_eq!(
                edited(&PathEdit::Prefix(new.into()), path, &prefix(matched)).unwrap(),
                want,
                "{path} {matched} {new}"
            );
        }
    }

    #[test]
    fn a_full_path_replaces_everything_and_is_made_valid() {
        for (new, want) in
            [("/one", "/one"), ("one", "/one"), ("", "/"), ("/a b?c#d", "/a%20b%3Fc%23d"), ("/é", "/%C3%A9")]
        {
            assert_eq!(edited(&PathEdit::Full(new.into()), "/x", &prefix("/")).unwrap(), want);
        }
    }

    #[test]
    fn a_prefix_edit_needs_a_prefix_match() {
        let exact = HttpMatch { path: PathMatch::Exact("/foo".into()), ..prefix("/") };
        assert_eq!(edited(&PathEdit::Prefix("/x".into()), "/foo", &exact), None);
    }
}
