//! Routes with nothing dangling: HTTPRoute and GRPCRoute as one noun, TCPRoute and TLSRoute as another. It must not match; `route/` does.

use super::HostPattern;
use crate::name::{GatewayId, NsName, ServiceId, Text};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use std::{sync::Arc, time::Duration};

/// Kind and name of a route object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteId {
    /// Kind of the object.
    pub kind: RouteKind,
    /// Namespace and name.
    pub name: NsName,
}

impl std::fmt::Display for RouteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.name)
    }
}

/// Kinds of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// GRPCRoute.
    Grpc,
    /// HTTPRoute.
    Http,
    /// TLSRoute.
    Tls,
    /// TCPRoute.
    Tcp,
}

impl RouteKind {
    /// The Kubernetes kind.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }
}

/// Where a route is attached, after acceptance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Attachment {
    /// A Service frontend (GAMMA).
    Service {
        /// The Service.
        service: ServiceId,
        /// Its ports that the route governs; never empty.
        ports: Vec<u16>,
        /// Whose requests it governs.
        scope: Scope,
        /// Server names of a TLSRoute; empty: any. HTTP routes on Services are not chosen by host, so theirs are empty and never looked at.
        hostnames: Vec<HostPattern>,
    },
    /// A Gateway listener.
    Listener {
        /// The Gateway.
        gateway: GatewayId,
        /// Name of the listener.
        listener: Text,
        /// The route's own hostnames that intersect the listener's; empty: the listener's hostname, or all.
        hostnames: Vec<HostPattern>,
    },
}

/// GAMMA: a route in the Service's namespace is a producer route, any other a consumer route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Governs all clients that have no consumer route.
    Producer,
    /// Governs clients of this namespace only, and hides producer routes from them.
    Consumer(Text),
}

/// An HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRoute {
    /// `RouteKind::Http` or `RouteKind::Grpc`.
    pub id: RouteId,
    /// `creationTimestamp`, seconds since 1970: older wins a tie.
    pub created: i64,
    /// Where it is attached; empty routes are not sent.
    pub attachments: Vec<Attachment>,
    /// Rules in the order of the spec.
    pub rules: Vec<Arc<HttpRule>>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpRule {
    /// `name`, if it has one; logs and metrics use it, else the index.
    pub name: Option<Text>,
    /// Alternatives; never empty (the CRD defaults to the prefix `/`, for gRPC to everything).
    pub matches: Vec<HttpMatch>,
    /// Filters of the rule in the order of the spec.
    pub filters: Vec<Filter>,
    /// Weighted backends. Empty: 500, unless a redirect filter answers.
    pub backends: Vec<HttpBackend>,
    /// `timeouts.request`; none: unbounded.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest` of each attempt.
    pub backend_timeout: Option<Duration>,
    /// Whether failed attempts are repeated.
    pub retry: Option<Retry>,
}

/// All conditions must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpMatch {
    /// Path (HTTPRoute) or method (GRPCRoute).
    pub path: PathMatch,
    /// HTTP method.
    pub method: Option<Method>,
    /// Header conditions; at most one for each name (the first of equals counts).
    pub headers: Vec<HeaderMatch>,
    /// Query parameter conditions; at most one for each name.
    pub query: Vec<QueryMatch>,
}

/// Condition on the path.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// Equal, case-sensitive.
    Exact(Text),
    /// By path element: `/abc` matches `/abc`, `/abc/` and `/abc/x`, not `/abcd`. Without trailing slash, but `/` itself.
    Prefix(Text),
    /// The whole path matches.
    Regex(Pattern),
    /// gRPC service and method; both absent: any gRPC request.
    Grpc {
        /// Full service name.
        service: Option<TextMatch>,
        /// Method name.
        method: Option<TextMatch>,
    },
}

/// Equal to a text, or wholly matched by a regular expression.
#[derive(Clone, Debug, PartialEq)]
pub enum TextMatch {
    /// Equal, case-sensitive.
    Exact(Text),
    /// The whole text matches.
    Regex(Pattern),
}

/// A regular expression that compiled, anchored at both ends; equal if its source is.
#[derive(Clone)]
pub struct Pattern {
    source: Text,
    regex: regex::Regex,
    /// Bytes at the start of the source that every match starts with as they are: most patterns have some, and comparing them first
    /// spares most runs of the expression.
    literal: usize,
}

/// Largest compiled program of one user pattern: 64 KiB keeps 128 matches of a route within 8 MiB.
pub const PATTERN_SIZE_MAX: usize = 64 * 1024;

impl Pattern {
    /// Compiles `source` for matching a whole text.
    pub fn new(source: &str) -> Result<Self, regex::Error> {
        let regex = regex::RegexBuilder::new(&format!("^(?:{source})$"))
            .size_limit(PATTERN_SIZE_MAX)
            .dfa_size_limit(PATTERN_SIZE_MAX * 4)
            .build()?;
        Ok(Self { source: source.into(), literal: literal(source), regex })
    }

    /// What the user wrote.
    pub fn source(&self) -> &Text {
        &self.source
    }

    /// What every match starts with as it is; often empty.
    pub fn literal(&self) -> &str {
        // The bytes counted are ASCII, so the cut is at a character.
        &self.source[..self.literal]
    }

    /// Whether the whole text matches.
    pub fn is_match(&self, text: &str) -> bool {
        text.starts_with(self.literal()) && self.regex.is_match(text)
    }
}

/// How many bytes at the start of a pattern stand for themselves. Few is always right: what may be more is left to the expression.
fn literal(source: &str) -> usize {
    let itself = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'~' | b':' | b',' | b'=');
    let run = source.bytes().take_while(itself).count();
    match source.as_bytes().get(run) {
        // An alternative may start otherwise.
        _ if source.contains('|') => 0,
        // What may come no times at all, or only belongs to a count, is the last character of the run.
        Some(b'*' | b'?' | b'{') => run.saturating_sub(1),
        // A character beyond ASCII, or anything special, ends the run.
        _ => run,
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl std::fmt::Debug for Pattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// Condition on a header; names are case-insensitive.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    /// Name.
    pub name: HeaderName,
    /// Value. Several header lines of the name are joined by `,` first (RFC 9110 §5.3).
    pub value: TextMatch,
}

/// Condition on a query parameter; names are case-sensitive, the first of several counts.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    /// Name.
    pub name: Text,
    /// Value, percent-decoded.
    pub value: TextMatch,
}

/// A weighted backend with filters of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpBackend {
    /// Share, 0 to 1,000,000.
    pub weight: u32,
    /// Where to.
    pub target: BackendTarget,
    /// Filters that apply only to requests for this backend.
    pub filters: Vec<Filter>,
}

/// Where a backendRef leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendTarget {
    /// A port of a Service; its own routes are not applied again.
    Service {
        /// The Service.
        service: ServiceId,
        /// Port of the Service.
        port: u16,
    },
    /// Does not exist, is not permitted, or is of an unknown kind: its share gets 500 (gRPC UNAVAILABLE).
    Broken,
}

/// A filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// RequestHeaderModifier.
    RequestHeaders(HeaderEdit),
    /// ResponseHeaderModifier.
    ResponseHeaders(HeaderEdit),
    /// RequestRedirect.
    Redirect(Redirect),
    /// URLRewrite.
    Rewrite(Rewrite),
    /// RequestMirror.
    Mirror(Mirror),
    /// CORS.
    Cors(Cors),
}

/// Set, add and remove, in that order.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct HeaderEdit {
    /// Replaces all values of a name.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Adds a value to a name.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removes all values of a name.
    pub remove: Vec<HeaderName>,
}

/// HTTPRequestRedirectFilter. What is absent stays as the request has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Option<Scheme>,
    /// Host of the Location.
    pub hostname: Option<Text>,
    /// Path of the Location.
    pub path: Option<PathEdit>,
    /// Port of the Location.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// URI scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

/// HTTPPathModifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathEdit {
    /// ReplaceFullPath.
    Full(Text),
    /// ReplacePrefixMatch: the matched prefix is replaced.
    Prefix(Text),
}

/// HTTPURLRewriteFilter.
#[derive(Clone, Debug, PartialEq)]
pub struct Rewrite {
    /// New Host.
    pub hostname: Option<Text>,
    /// New path.
    pub path: Option<PathEdit>,
}

/// HTTPRequestMirrorFilter.
#[derive(Clone, Debug, PartialEq)]
pub struct Mirror {
    /// Who gets the copy.
    pub target: BackendTarget,
    /// Mirrored share is `numerator` of `denominator`.
    pub numerator: u32,
    /// Not 0.
    pub denominator: u32,
}

/// HTTPCORSFilter.
#[derive(Clone, Debug, PartialEq)]
pub struct Cors {
    /// Origins as written: `*`, `scheme://host[:port]`, `scheme://*.host[:port]`.
    pub allow_origins: Vec<Text>,
    /// Whether credentials are allowed.
    pub allow_credentials: bool,
    /// Methods, or `*`.
    pub allow_methods: Vec<Text>,
    /// Header names, or `*`.
    pub allow_headers: Vec<Text>,
    /// Header names, or `*`.
    pub expose_headers: Vec<Text>,
    /// How long a preflight may be cached.
    pub max_age: Duration,
}

/// HTTPRouteRetry (GEP-1731).
#[derive(Clone, Debug, PartialEq)]
pub struct Retry {
    /// Attempts in addition to the first; 0: none.
    pub attempts: u32,
    /// Response codes that are retried, 400 to 599.
    pub codes: Vec<u16>,
    /// Base of the jittered exponential backoff.
    pub backoff: Option<Duration>,
}

/// A TCPRoute or TLSRoute: one rule, bytes to a weighted backend.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamRoute {
    /// `RouteKind::Tcp` or `RouteKind::Tls`.
    pub id: RouteId,
    /// `creationTimestamp`, seconds since 1970: the oldest on a listener gets the traffic.
    pub created: i64,
    /// Where it is attached. A TLSRoute's hostnames are the server names.
    pub attachments: Vec<Attachment>,
    /// Weighted backends.
    pub backends: Vec<(u32, BackendTarget)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_the_whole_text_whatever_it_starts_with() {
        for (source, yes, no) in [
            ("/a/b[0-9]+", &["/a/b1", "/a/b22"][..], &["/a/b", "/a/bx", "x/a/b1", "/a/b1x"][..]),
            ("/ab*", &["/a", "/ab", "/abb"], &["/", "/b"]),
            ("/ab?c", &["/ac", "/abc"], &["/abbc"]),
            ("/ab{0,2}", &["/a", "/abb"], &["/abbb"]),
            ("/ab+", &["/ab", "/abb"], &["/a"]),
            ("/a|/b", &["/a", "/b"], &["/a|/b", "/c"]),
            ("/x(a|b)", &["/xa", "/xb"], &["/x"]),
            ("(?i)/abc", &["/ABC"], &["/abd"]),
            ("", &[""], &["x"]),
            (".*", &["", "anything"], &[]),
            ("/é*", &["/", "/é"], &["é"]),
        ] {
            let pattern = Pattern::new(source).unwrap();
            assert!(yes.iter().all(|t| pattern.is_match(t)), "{source}");
            assert!(!no.iter().any(|t| pattern.is_match(t)), "{source}");
        }
    }
}
