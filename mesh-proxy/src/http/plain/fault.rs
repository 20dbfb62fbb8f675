//! Fault: what a failed HTTP/1.1 exchange with an application means. Pure.

use crate::tunnel::DialFault;
use mesh_core::fault::Fault;

/// What a failed exchange with an application means.
pub(in crate::http) fn fault_of(error: hyper::Error) -> DialFault {
    let fault = match () {
        () if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() => Fault::UpstreamProtocol,
        // The connection ended before the request was written to it.
        () if error.is_canceled() => Fault::ConnectFailed,
        // Our side of the request body broke off: the client did.
        () if error.is_user() => Fault::ClientGone,
        () => Fault::UpstreamReset,
    };
    DialFault::new(fault, error)
}
