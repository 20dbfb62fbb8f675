//! CORS: what HTTPCORSFilter says of a request. It must not answer it.

use crate::{mesh::Cors, name::Text, route::RequestHead};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

/// What CORS says of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum CorsAnswer {
    /// Answer the preflight with 204 and these headers (none if the origin is not allowed).
    Preflight(HeaderMap),
    /// Forward; put these headers on the response (none if the origin is not allowed) in place of those of the same name, but `vary`,
    /// which is added to what the application says.
    Actual(HeaderMap),
}

/// Applies HTTPCORSFilter to a request.
pub fn cors(cors: &Cors, head: RequestHead<'_>) -> CorsAnswer {
    let asked_method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
    let origin = head.headers.get(header::ORIGIN);
    let preflight = *head.method == Method::OPTIONS && origin.is_some() && asked_method.is_some();
    let mut answer = HeaderMap::new();
    if let Some(origin) = origin.filter(|o| o.to_str().is_ok_and(|o| cors.allow_origins.iter().any(|a| allows(a, o)))) {
        allow_origin(cors, origin, &mut answer);
        if preflight {
            allow_preflight(cors, asked_method, head.headers, &mut answer);
        }
    }
    if preflight { CorsAnswer::Preflight(answer) } else { CorsAnswer::Actual(answer) }
}

fn allow_origin(cors: &Cors, origin: &HeaderValue, answer: &mut HeaderMap) {
    // "If the configuration contains the wildcard `*` in `allowOrigins` and `allowCredentials` is set to `true`, the gateway must not
    // return `*` … it must return a single origin matching the value of the `Origin` request header."
    let anyone = cors.allow_origins.iter().any(|o| **o == *"*") && !cors.allow_credentials;
    let allowed = if anyone { HeaderValue::from_static("*") } else { origin.clone() };
    answer.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    if !anyone {
        answer.insert(header::VARY, HeaderValue::from_static("origin"));
    }
    if cors.allow_credentials {
        answer.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    // "If … `allowCredentials` is set to `true`, the gateway cannot use the `*` in the `Access-Control-Expose-Headers` response header."
    let exposed = cors.expose_headers.iter().filter(|h| !(cors.allow_credentials && ***h == *"*"));
    insert_list(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed, answer);
}

fn allow_preflight(cors: &Cors, asked_method: Option<&HeaderValue>, headers: &HeaderMap, answer: &mut HeaderMap) {
    allow_list(header::ACCESS_CONTROL_ALLOW_METHODS, &cors.allow_methods, asked_method, cors.allow_credentials, answer);
    let asked_headers = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    allow_list(
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        &cors.allow_headers,
        asked_headers,
        cors.allow_credentials,
        answer,
    );
    answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
}

/// A list as it is; for `*` what was asked for, since with credentials "the gateway must not return `*`" and without it may do either.
fn allow_list(
    name: HeaderName,
    allowed: &[Text],
    asked: Option<&HeaderValue>,
    credentials: bool,
    answer: &mut HeaderMap,
) {
    if !allowed.iter().any(|a| **a == *"*") {
        return insert_list(name, allowed.iter(), answer);
    }
    match asked {
        Some(asked) => drop(answer.insert(name, asked.clone())),
        None if credentials => {}
        None => drop(answer.insert(name, HeaderValue::from_static("*"))),
    }
}

fn insert_list<'a>(name: HeaderName, values: impl Iterator<Item = &'a Text>, answer: &mut HeaderMap) {
    let list = values.map(|v| &**v).collect::<Vec<_>>().join(", ");
    if let (false, Ok(list)) = (list.is_empty(), HeaderValue::try_from(list)) {
        answer.insert(name, list);
    }
}

/// Whether an allowed origin as written allows this origin.
fn allows(allowed: &str, origin: &str) -> bool {
    // "An origin value that includes _only_ the `*` character indicates requests from all `Origin`s are allowed."
    if allowed == "*" || allowed.eq_ignore_ascii_case(origin) {
        return true;
    }
    let (Some(allowed), Some(origin)) = (Origin::parse(allowed), Origin::parse(origin)) else { return false };
    allowed.scheme.eq_ignore_ascii_case(origin.scheme)
        && allowed.port == origin.port
        && host_allows(allowed.host, origin.host)
}

/// "`*` is a greedy match to the _left_, including any number of DNS labels"; "A wildcard by itself matches all hosts."
fn host_allows(allowed: &str, host: &str) -> bool {
    match allowed.strip_prefix('*') {
        Some(suffix) => {
            let cut = host.len().checked_sub(suffix.len()).filter(|cut| *cut > 0 && host.is_char_boundary(*cut));
            cut.is_some_and(|cut| host[cut..].eq_ignore_ascii_case(suffix))
        }
        None => allowed.eq_ignore_ascii_case(host),
    }
}

/// `scheme://host[:port]`; "if not included, port `80` is assumed for `http` scheme origins, and port `443` … for `https` origins".
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (host, port) = match authority.rsplit_once(':') {
            // An IPv6 literal has colons within its brackets.
            Some((host, port)) if !port.contains(']') => (host, Some(port.parse().ok()?)),
            _ => (authority, None),
        };
        let well_known = match scheme {
            s if s.eq_ignore_ascii_case("http") => Some(80),
            s if s.eq_ignore_ascii_case("https") => Some(443),
            _ => None,
        };
        (!host.is_empty()).then_some(Self { scheme, host, port: port.or(well_known) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn filter(origins: &[&str], credentials: bool, methods: &[&str], headers: &[&str], expose: &[&str]) -> Cors {
        let texts = |list: &[&str]| list.iter().map(|t| Text::from(*t)).collect();
        Cors {
            allow_origins: texts(origins),
            allow_credentials: credentials,
            allow_methods: texts(methods),
            allow_headers: texts(headers),
            expose_headers: texts(expose),
            max_age: Duration::from_secs(3600),
        }
    }

    fn ask(filter: &Cors, method: Method, lines: &[(&'static str, &str)]) -> (bool, Vec<String>) {
        let headers: HeaderMap =
            lines.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_str(v).unwrap())).collect();
        let answer = cors(filter, RequestHead { host: "", method: &method, path: "/", query: None, headers: &headers });
        let (preflight, map) = match answer {
            CorsAnswer::Preflight(map) => (true, map),
            CorsAnswer::Actual(map) => (false, map),
        };
        let mut lines: Vec<_> = map.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        lines.sort();
        (preflight, lines)
    }

    fn preflight(filter: &Cors, origin: &str, headers: &str) -> Vec<String> {
        let lines =
            [("origin", origin), ("access-control-request-method", "PUT"), ("access-control-request-headers", headers)];
        let asked = if headers.is_empty() { &lines[..2] } else { &lines };
        let (preflight, lines) = ask(filter, Method::OPTIONS, asked);
        assert!(preflight);
        lines
    }

    #[test]
    fn a_preflight_from_an_allowed_origin_gets_the_lists() {
        let filter =
            filter(&["https://www.foo.com", "https://*.bar.com"], true, &["GET", "OPTIONS"], &["x-1", "x-2"], &["x-3"]);
        for origin in ["https://www.foo.com", "https://xpto.www.bar.com"] {
            let want = [
                "access-control-allow-credentials: true".into(),
                "access-control-allow-headers: x-1, x-2".into(),
                "access-control-allow-methods: GET, OPTIONS".into(),
                format!("access-control-allow-origin: {origin}"),
                "access-control-expose-headers: x-3".into(),
                "access-control-max-age: 3600".into(),
                "vary: origin".into(),
            ];
            assert_eq!(preflight(&filter, origin, "x-1"), want);
        }
        assert!(preflight(&filter, "https://foobar.com", "x-1").is_empty());
    }

    #[test]
    fn an_actual_request_is_forwarded_and_its_response_says_who_may_read_it() {
        let filter = filter(&["https://www.foo.com"], false, &["GET"], &[], &[]);
        let origin = |o| ask(&filter, Method::GET, &[("origin", o)]);
        assert_eq!(
            origin("https://www.foo.com").1,
            ["access-control-allow-origin: https://www.foo.com", "vary: origin"]
        );
        assert_eq!(origin("https://www.bar.com"), (false, vec![]));
        assert_eq!(ask(&filter, Method::GET, &[]), (false, vec![]));
        // OPTIONS without the question is a request like any other.
        assert!(!ask(&filter, Method::OPTIONS, &[("origin", "https://www.foo.com")]).0);
    }

    #[test]
    fn wildcards_with_credentials_echo_and_never_say_star() {
        let filter = filter(&["*"], true, &["*"], &["*"], &["*"]);
        let want = [
            "access-control-allow-credentials: true",
            "access-control-allow-headers: x-1, x-2",
            "access-control-allow-methods: PUT",
            "access-control-allow-origin: https://other.foo.com",
            "access-control-max-age: 3600",
            "vary: origin",
        ];
        assert_eq!(preflight(&filter, "https://other.foo.com", "x-1, x-2"), want);
        assert!(!preflight(&filter, "https://other.foo.com", "").iter().any(|l| l.contains("allow-headers")));
    }

    #[test]
    fn wildcards_without_credentials_may_say_star() {
        let lines = preflight(&filter(&["*"], false, &["*"], &["*"], &["*"]), "null", "");
        assert!(lines.contains(&"access-control-allow-origin: *".into()), "{lines:?}");
        assert!(lines.contains(&"access-control-allow-headers: *".into()), "{lines:?}");
        assert!(lines.contains(&"access-control-expose-headers: *".into()), "{lines:?}");
    }

    #[test]
    fn origins_match_by_scheme_host_and_port() {
        for (allowed, origin, want) in [
            ("https://foo.com", "https://foo.com:443", true),
            ("http://foo.com:80", "http://foo.com", true),
            ("https://foo.com", "http://foo.com", false),
            ("https://foo.com", "https://foo.com:8443", false),
            ("https://FOO.com", "https://foo.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://.bar.com", false),
            ("https://*.bar.com", "https://evilbar.com", false),
            ("https://*.bar.com", "https://a.bar.com.evil.org", false),
            ("https://*", "https://anything.org", true),
            ("https://*", "http://anything.org", false),
            ("http://*:8080", "http://x.org:8080", true),
            ("http://[::1]:8080", "http://[::1]:8080", true),
            ("*", "null", true),
            ("https://foo.com", "null", false),
        ] {
            assert_eq!(allows(allowed, origin), want, "{allowed} {origin}");
        }
    }
}
