//! Answer: responses that the mesh itself gives. What they say comes from the fault table of the core. It must not decide which.

use super::body::Body;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, LOCATION},
};
use mesh_core::fault::Fault;

/// Says which fault the mesh answered with; applications' own responses never bear it.
pub const FAULT: HeaderName = HeaderName::from_static("heddle-fault");
/// The status of a gRPC call.
pub const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The response to a request that ended with a fault: a short text, or for gRPC a response of trailers only.
pub fn fault(fault: Fault, grpc: bool) -> Response<Body> {
    let label = HeaderValue::from_static(fault.label());
    let mut response = if grpc {
        // gRPC over HTTP/2: "Trailers-Only … calls that produce an immediate error": HTTP 200, the status in the one header block.
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(fault.grpc_status())));
        headers.insert(GRPC_MESSAGE, label.clone());
        response
    } else {
        let mut response = Response::new(Body::Full(Bytes::from_static(fault.label().as_bytes())));
        *response.status_mut() = fault.status();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    };
    response.headers_mut().insert(FAULT, label);
    response
}

/// A redirect.
pub fn redirect(status: StatusCode, location: HeaderValue) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = status;
    response.headers_mut().insert(LOCATION, location);
    response
}

/// The answer to a CORS preflight.
pub fn preflight(headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = headers;
    response
}
