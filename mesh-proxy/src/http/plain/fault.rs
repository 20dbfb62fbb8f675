//! Fault: what a failed exchange with an application or a peer means. Pure.

use crate::tunnel::{DialFault, is_refused};
use mesh_core::fault::Fault;

/// What a failed exchange with an application means.
pub(in crate::http) fn fault_of(error: hyper::Error) -> DialFault {
    let native = std::iter::successors(std::error::Error::source(&error), |e| e.source())
        .find_map(|e| e.downcast_ref::<h2::Error>());
    let fault = match native {
        Some(native) => fault_of_native(native),
        None if error.is_parse() || error.is_parse_status() || error.is_parse_too_large() => Fault::UpstreamProtocol,
        // The connection ended before the request was written to it.
        None if error.is_canceled() => Fault::ConnectFailed,
        // Our side of the request body broke off: the client did.
        None if error.is_user() => Fault::ClientGone,
        None => Fault::UpstreamReset,
    };
    DialFault::new(fault, error)
}

/// What a failed stream means.
pub(in crate::http) fn fault_of_native(error: &h2::Error) -> Fault {
    match error.reason() {
        _ if is_refused(error) => Fault::StreamRefused,
        _ if error.is_remote() || error.is_io() => Fault::UpstreamReset,
        _ => Fault::UpstreamProtocol,
    }
}
