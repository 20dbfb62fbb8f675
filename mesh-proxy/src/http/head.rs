//! Head: what a proxy must know of and do to a message head by RFC 9110: host, hop-by-hop headers, gRPC, upgrades. Pure; it must not send.

use http::{
    HeaderMap, HeaderName, HeaderValue, Uri, Version,
    header::{CONNECTION, CONTENT_TYPE, HOST, TE, UPGRADE},
    uri::Authority,
};
use mesh_core::fault::Fault;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Who the request is for, taken out of the head: `:authority` or the absolute form before `Host` (RFC 9112 §3.2.2). None: HTTP/1.0
/// without a Host.
pub fn take_authority(uri: &Uri, headers: &mut HeaderMap, version: Version) -> Result<Option<Authority>, Fault> {
    // RFC 9112 §3.2: "A server MUST respond with a 400 … to any request message that contains more than one Host header field line".
    let mut lines = headers.get_all(HOST).iter();
    let (host, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(Fault::BadRequest);
    }
    let authority = match (uri.authority(), host) {
        (Some(authority), _) => Some(authority.clone()),
        (None, Some(host)) if host.is_empty() => None,
        (None, Some(host)) => Some(Authority::try_from(host.as_bytes()).map_err(|_| Fault::BadRequest)?),
        (None, None) => None,
    };
    if authority.is_none() && version == Version::HTTP_11 {
        return Err(Fault::BadRequest);
    }
    // RFC 9110 §4.2.4: userinfo in a request is an error to be treated as such.
    if authority.as_ref().is_some_and(|a| a.as_str().contains('@')) {
        return Err(Fault::BadRequest);
    }
    headers.remove(HOST);
    Ok(authority)
}

/// The host for matching: without port and trailing dot, lower case.
pub fn match_host(authority: &Authority) -> Cow<'_, str> {
    let host = authority.host();
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

/// Whether the request is gRPC: `application/grpc`, alone or with a message format; not grpc-web.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|v| v.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Whether an HTTP/1.1 request asks for another protocol (RFC 9110 §7.8). `h2c` is ignored: RFC 9113 §3.1 has done away with it, and a
/// server may go on in HTTP/1.1.
pub fn wants_upgrade(version: Version, headers: &HeaderMap) -> bool {
    version == Version::HTTP_11
        && headers.get(UPGRADE).is_some_and(|to| !to.as_bytes().eq_ignore_ascii_case(b"h2c"))
        && lists(headers, &CONNECTION, "upgrade")
}

/// Whether a comma separated header has this token.
fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|t| t.trim().eq_ignore_ascii_case(token))
}

/// Removes what ends at this hop (RFC 9110 §7.6.1). `te: trailers` stays: gRPC needs it, and our hops pass trailers on.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Most messages have none or one of them: a look at each name is cheaper than a search for each of the list.
    let mut ends: SmallVec<[HeaderName; 4]> = headers.keys().filter(|name| ends_here(name)).cloned().collect();
    if ends.is_empty() {
        return;
    }
    for tokens in headers.get_all(CONNECTION).iter().filter_map(|v| v.to_str().ok()) {
        for token in tokens.split(',').map(str::trim) {
            // The two that nearly all say name no header that would not go anyway.
            if token.eq_ignore_ascii_case("keep-alive") || token.eq_ignore_ascii_case("close") {
                continue;
            }
            ends.extend(HeaderName::from_bytes(token.as_bytes()).ok().filter(|name| *name != TE));
        }
    }
    let trailers = ends.contains(&TE) && lists(headers, &TE, "trailers");
    for name in ends {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Headers of one hop; of `expect` too the server side answers it as soon as somebody reads the body.
fn ends_here(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "http2-settings"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "expect"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn the_authority_comes_from_the_target_before_the_host_header() {
        let absolute: Uri = "http://a.example:81/x".parse().unwrap();
        let origin: Uri = "/x".parse().unwrap();
        let take = |uri: &Uri, lines: &[(&'static str, &'static str)], version| {
            take_authority(uri, &mut headers(lines), version).map(|a| a.map(|a| a.to_string()))
        };
        assert_eq!(take(&absolute, &[("host", "b")], Version::HTTP_11), Ok(Some("a.example:81".into())));
        assert_eq!(take(&origin, &[("host", "b:80")], Version::HTTP_11), Ok(Some("b:80".into())));
        assert_eq!(take(&origin, &[], Version::HTTP_10), Ok(None));
        for bad in [&[][..], &[("host", "a"), ("host", "a")], &[("host", "a b")], &[("host", "u@a")], &[("host", "")]] {
            assert_eq!(take(&origin, bad, Version::HTTP_11), Err(Fault::BadRequest), "{bad:?}");
        }
    }

    #[test]
    fn hosts_match_without_port_case_and_trailing_dot() {
        for (text, host) in [("A.b:80", "a.b"), ("a.b.", "a.b"), ("[::1]:80", "[::1]"), ("a", "a")] {
            assert_eq!(match_host(&text.parse().unwrap()), host);
        }
    }

    #[test]
    fn hop_by_hop_headers_end_here_and_named_ones_too() {
        let mut map = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("keep-alive", "5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-other", "2"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, headers(&[("te", "trailers"), ("x-other", "2")]));
    }

    #[test]
    fn grpc_is_told_from_grpc_web() {
        for (value, is) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=y", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            assert_eq!(is_grpc(&headers(&[("content-type", value)])), is, "{value}");
        }
    }
}
