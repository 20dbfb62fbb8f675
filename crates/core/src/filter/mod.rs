//! Filters: what they do to request and response heads. Pure edits of header maps and URIs. It must not send, mirror or sleep.

use crate::{
    mesh::{Cors, HeaderEdit, HttpMatch, Mirror, Redirect, Rewrite, Scheme},
    route::RequestHead,
};
use http::{HeaderMap, HeaderValue, StatusCode, uri::PathAndQuery};

/// Edits headers: set, then add, then remove.
pub fn edit_headers(_edit: &HeaderEdit, _headers: &mut HeaderMap) {
    todo!("core")
}

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

/// Status and `Location` of a redirect (HTTPRequestRedirectFilter: port and scheme derivation, well-known ports left out).
pub fn redirect(
    _redirect: &Redirect,
    _arrival: Arrival<'_>,
    _head: RequestHead<'_>,
    _condition: &HttpMatch,
) -> Option<(StatusCode, HeaderValue)> {
    todo!("core")
}

/// The path and query after a rewrite; none: unchanged.
pub fn rewrite_path(_rewrite: &Rewrite, _head: RequestHead<'_>, _condition: &HttpMatch) -> Option<PathAndQuery> {
    todo!("core")
}

/// Whether a request with this random number is mirrored.
pub fn mirrors(_mirror: &Mirror, _random: u64) -> bool {
    todo!("core")
}

/// What CORS says of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum CorsAnswer {
    /// Answer the preflight with 204 and these headers (none if the origin is not allowed).
    Preflight(HeaderMap),
    /// Forward; put these headers on the response (none if the origin is not allowed).
    Actual(HeaderMap),
}

/// Applies HTTPCORSFilter to a request.
pub fn cors(_cors: &Cors, _head: RequestHead<'_>) -> CorsAnswer {
    todo!("core")
}
