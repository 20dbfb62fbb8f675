//! Outgoing: a request head on its way to an upstream, and its forms: native between proxies, HTTP/2 or HTTP/1.1 to an application. Pure.

use super::body::Body;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version,
    header::HOST,
    uri::{Authority, PathAndQuery, Scheme},
};
use mesh_core::fault::Fault;
use std::{fmt::Write, net::SocketAddr};

/// Where the receiving proxy delivers a native request.
pub const DESTINATION: HeaderName = HeaderName::from_static("heddle-destination");
/// How the receiving proxy speaks to the application.
pub const PROTOCOL: HeaderName = HeaderName::from_static("heddle-protocol");

/// How an application is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

impl Protocol {
    /// The value of [`PROTOCOL`].
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }

    /// Reads what `as_str` writes.
    pub fn parse(value: &[u8]) -> Option<Self> {
        [Self::Http1, Self::Http2].into_iter().find(|p| p.as_str().as_bytes() == value)
    }
}

/// A request head without hop-by-hop headers and without `host`, which is `authority`.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Method.
    pub method: Method,
    /// What the application sees as Host.
    pub authority: Authority,
    /// Path and query.
    pub path: PathAndQuery,
    /// Headers.
    pub headers: HeaderMap,
    /// HTTP version that the client spoke.
    pub version: Version,
}

/// A request that becomes one when there is a connection to send it on: where none comes about, its head is still there for another attempt.
#[derive(Debug)]
pub struct Unsent<'a> {
    head: &'a mut Option<Box<Outgoing>>,
    body: Body,
    keep: Keep,
    /// An HTTP/1.1 request that was made of it and that came back unsent. On the heap, as that seldom happens.
    back: Option<Box<Request<Body>>>,
}

/// Whether a head is kept, by a copy, although it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// There is no other attempt.
    Never,
    /// There may be one if nobody has processed it, which a peer may say of a stream of HTTP/2 after it was sent.
    Unprocessed,
    /// There may be one whatever comes of it.
    Always,
}

impl<'a> Unsent<'a> {
    /// A head and its body. An attempt takes `head`; it is there again, or still, where another attempt may follow.
    pub fn new(head: &'a mut Option<Box<Outgoing>>, body: Body, keep: Keep) -> Self {
        Self { head, body, keep, back: None }
    }

    /// Sets a header of the head; a later attempt may set it anew.
    pub fn set_header(&mut self, name: HeaderName, value: HeaderValue) {
        if let Some(head) = self.head {
            head.headers.insert(name, value);
        }
    }

    /// The head for the proxy of `destination`, and the body.
    pub fn native(&mut self, destination: SocketAddr, protocol: Protocol) -> Result<(Request<()>, Body), Fault> {
        let head = self.take(Protocol::Http2)?;
        Ok((head.native(destination, protocol), std::mem::replace(&mut self.body, Body::Empty)))
    }

    /// The head for an application by HTTP/2, and the body.
    pub fn http2(&mut self) -> Result<(Request<()>, Body), Fault> {
        let head = self.take(Protocol::Http2)?;
        Ok((head.http2(), std::mem::replace(&mut self.body, Body::Empty)))
    }

    /// The request for an application by HTTP/1.1: the one that came back, if one did.
    pub fn http1(&mut self) -> Result<Request<Body>, Fault> {
        if let Some(back) = self.back.take() {
            return Ok(*back);
        }
        let head = self.take(Protocol::Http1)?;
        Ok(head.http1(std::mem::replace(&mut self.body, Body::Empty)))
    }

    fn take(&mut self, on: Protocol) -> Result<Box<Outgoing>, Fault> {
        let kept = match self.keep {
            Keep::Never => false,
            Keep::Unprocessed => on == Protocol::Http2,
            Keep::Always => true,
        };
        // Nobody makes a request of one head twice; it would be a fault of ours.
        if kept { self.head.clone() } else { self.head.take() }.ok_or(Fault::Internal)
    }

    /// Takes back the HTTP/1.1 request that was made of it: nothing of it was sent, or it may be sent once more. Whether there is one.
    pub fn take_back(&mut self, request: Option<Request<Body>>) -> bool {
        self.back = request.map(Box::new);
        self.back.is_some()
    }
}

impl Drop for Unsent<'_> {
    fn drop(&mut self) {
        // Nobody is left to send it to.
        if let Some(back) = self.back.take()
            && self.head.is_none()
        {
            *self.head = Outgoing::of_http1(*back).map(Box::new);
        }
    }
}

impl Outgoing {
    /// The head of what [`Self::http1`] made. The version is no longer the client's.
    fn of_http1(request: Request<Body>) -> Option<Self> {
        let (mut parts, _) = request.into_parts();
        let authority = Authority::try_from(parts.headers.remove(HOST)?.as_bytes()).ok()?;
        let path = parts.uri.path_and_query()?.clone();
        Some(Self { method: parts.method, authority, path, headers: parts.headers, version: parts.version })
    }

    /// The head for the proxy of `destination`. What a client put into our own headers is overwritten.
    pub fn native(mut self, destination: SocketAddr, protocol: Protocol) -> Request<()> {
        let mut text = String::with_capacity(48);
        // Writing to a String cannot fail.
        let _ = write!(text, "{destination}");
        let value = HeaderValue::try_from(text).expect("the text of an address is a header value");
        self.headers.insert(DESTINATION, value);
        self.headers.insert(PROTOCOL, HeaderValue::from_static(protocol.as_str()));
        self.http2()
    }

    /// The head for an application by HTTP/2.
    pub fn http2(self) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = absolute(self.authority, self.path);
        *request.method_mut() = self.method;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = self.headers;
        request
    }

    /// The request for an application by HTTP/1.1.
    pub fn http1(mut self, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        // Every authority is a valid header value: its characters are a subset.
        if let Ok(host) = HeaderValue::from_str(self.authority.as_str()) {
            self.headers.insert(HOST, host);
        }
        *request.uri_mut() = Uri::from(self.path);
        *request.version_mut() = Version::HTTP_11;
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        request
    }
}

fn absolute(authority: Authority, path: PathAndQuery) -> Uri {
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).expect("scheme, authority and path together are a URI")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        let mut headers = HeaderMap::new();
        headers.insert(DESTINATION, HeaderValue::from_static("6.6.6.6:1"));
        Outgoing {
            method: Method::GET,
            authority: "cart.shop:8080".parse().unwrap(),
            path: "/a?b".parse().unwrap(),
            headers,
            version: Version::HTTP_11,
        }
    }

    #[test]
    fn a_native_head_names_destination_and_protocol_whatever_the_client_wrote() {
        let request = outgoing().native("[fd00::1]:80".parse().unwrap(), Protocol::Http2);
        assert_eq!(request.uri(), "http://cart.shop:8080/a?b");
        assert_eq!(request.headers().get_all(DESTINATION).iter().collect::<Vec<_>>(), ["[fd00::1]:80"]);
        assert_eq!(request.headers()[PROTOCOL], "http2");
    }

    #[test]
    fn h1_gets_a_host_header_and_h2_an_authority() {
        let one = outgoing().http1(Body::Empty);
        assert_eq!((one.uri().to_string().as_str(), one.headers()[HOST].as_bytes()), ("/a?b", &b"cart.shop:8080"[..]));
        let two = outgoing().http2();
        assert_eq!(two.uri(), "http://cart.shop:8080/a?b");
        assert!(!two.headers().contains_key(HOST));
    }

    #[test]
    fn a_head_is_there_for_another_attempt_where_one_may_follow_and_after_it_came_back_unsent() {
        use Protocol::{Http1, Http2};
        for (keep, on, kept) in [
            (Keep::Never, Http1, false),
            (Keep::Never, Http2, false),
            (Keep::Unprocessed, Http1, false),
            (Keep::Unprocessed, Http2, true),
            (Keep::Always, Http1, true),
            (Keep::Always, Http2, true),
        ] {
            let mut head = Some(Box::new(outgoing()));
            let mut unsent = Unsent::new(&mut head, Body::Empty, keep);
            let back = match on {
                Http1 => Some(unsent.http1().unwrap()),
                Http2 => unsent.http2().map(|_| None).unwrap(),
            };
            assert_eq!(unsent.head.is_some(), kept, "{keep:?} {on:?}");
            let is_back = unsent.take_back(back);
            assert_eq!(is_back, on == Http1);
            drop(unsent);
            assert_eq!(head.is_some(), kept || is_back, "{keep:?} {on:?}");
            if head.is_some() {
                let again = Unsent::new(&mut head, Body::Empty, Keep::Never).http1().unwrap();
                let first = outgoing().http1(Body::Empty);
                assert_eq!(
                    (again.uri(), again.method(), again.headers()),
                    (first.uri(), first.method(), first.headers())
                );
            }
        }
    }
}
