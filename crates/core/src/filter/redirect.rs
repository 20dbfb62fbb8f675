//! Redirect: the Location of HTTPRequestRedirectFilter. It must not build responses.

use super::path::edited;
use crate::{
    mesh::{HttpMatch, Redirect, Scheme},
    route::RequestHead,
};
use http::{HeaderValue, StatusCode};
use std::fmt::Write;

/// Where the request came in, for redirects.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Scheme that the client used.
    pub scheme: Scheme,
    /// Host as the client wrote it, without port.
    pub host: &'a str,
    /// Port of the listener or frontend.
    pub port: u16,
}

impl Scheme {
    const fn text(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn well_known_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// Status and `Location` of a redirect (HTTPRequestRedirectFilter: port and scheme derivation, well-known ports left out); none: the host
/// cannot stand in a header.
pub fn redirect(
    redirect: &Redirect,
    arrival: Arrival<'_>,
    head: RequestHead<'_>,
    condition: &HttpMatch,
) -> Option<(StatusCode, HeaderValue)> {
    let scheme = redirect.scheme.unwrap_or(arrival.scheme);
    // "If redirect scheme is not-empty, the redirect port MUST be the well-known port associated with the redirect scheme. … If redirect
    // scheme is empty, the redirect port MUST be the Gateway Listener port."
    let derived = if redirect.scheme.is_some() { scheme.well_known_port() } else { arrival.port };
    let port = redirect.port.unwrap_or(derived);
    let host = redirect.hostname.as_deref().unwrap_or(arrival.host);
    let mut location = format!("{}://{host}", scheme.text());
    // "Implementations SHOULD NOT add the port number in the 'Location' header" for http and 80, https and 443.
    if port != scheme.well_known_port() {
        // Writing to a String does not fail.
        let _ = write!(location, ":{port}");
    }
    match redirect.path.as_ref().and_then(|edit| edited(edit, head.path, condition)) {
        Some(path) => location.push_str(&path),
        None => location.push_str(head.path),
    }
    if let Some(query) = head.query {
        location.push('?');
        location.push_str(query);
    }
    Some((redirect.status, HeaderValue::try_from(location).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{PathEdit, PathMatch};
    use http::{HeaderMap, Method};

    const PLAIN: Redirect =
        Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND };

    fn location(filter: &Redirect, scheme: Scheme, port: u16) -> String {
        let (headers, method) = (HeaderMap::new(), Method::GET);
        let head = RequestHead { host: "a.com", method: &method, path: "/p/x", query: Some("q=1"), headers: &headers };
        let condition =
            HttpMatch { path: PathMatch::Prefix("/p".into()), method: None, headers: vec![], query: vec![] };
        let (status, location) = redirect(filter, Arrival { scheme, host: "a.com", port }, head, &condition).unwrap();
        assert_eq!(status, filter.status);
        location.to_str().unwrap().into()
    }

    #[test]
    fn port_and_scheme_follow_the_table_of_the_specification() {
        use Scheme::{Http, Https};
        for (arrival, port, new_scheme, new_port, want) in [
            (Http, 80, None, None, "http://a.com"),
            (Http, 8080, None, None, "http://a.com:8080"),
            (Http, 8080, Some(Https), None, "https://a.com"),
            (Http, 8080, Some(Http), None, "http://a.com"),
            (Https, 443, None, None, "https://a.com"),
            (Https, 8443, None, None, "https://a.com:8443"),
            (Https, 8443, Some(Http), None, "http://a.com"),
            (Http, 80, None, Some(8083), "http://a.com:8083"),
            (Http, 8080, None, Some(80), "http://a.com"),
            (Http, 80, Some(Https), Some(443), "https://a.com"),
            (Http, 80, Some(Https), Some(80), "https://a.com:80"),
            (Https, 443, None, Some(80), "https://a.com:80"),
        ] {
            let filter = Redirect { scheme: new_scheme, port: new_port, ..PLAIN };
            assert_eq!(
                location(&filter, arrival, port),
                format!("{want}/p/x?q=1"),
                "{arrival:?} {port} {new_scheme:?} {new_port:?}"
            );
        }
    }

    #[test]
    fn host_path_and_status_are_replaced() {
        let filter = Redirect {
            hostname: Some("b.org".into()),
            path: Some(PathEdit::Prefix("/n".into())),
            status: StatusCode::PERMANENT_REDIRECT,
            ..PLAIN
        };
        assert_eq!(location(&filter, Scheme::Http, 80), "http://b.org/n/x?q=1");
    }
}
