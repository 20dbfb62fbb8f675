//! The edge where faults become log lines, resets and records. It must not hold a second fault table; the core has the one.

use crate::{
    tcp::{Carried, End},
    telemetry::Record,
    tunnel::DialFault,
};
use mesh_core::fault::Fault;
use mesh_tls::refusal_of;
use std::{
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

/// Logs a refused or failed connection once, with the whole chain of causes.
pub fn log(record: &Record, fault: &DialFault) {
    let end = |party: &crate::telemetry::Party| {
        let name = party.workload.as_ref().map_or_else(|| "-".to_owned(), |w| w.id.to_string());
        match party.address {
            Some(address) => format!("{name} ({address})"),
            None => name,
        }
    };
    tracing::info!(
        direction = record.direction.label(),
        source = end(&record.source),
        destination = end(&record.destination),
        fault = fault.fault.label(),
        detail = fault.detail(),
        "connection refused"
    );
}

/// Notes what was carried; the first side is the client's.
pub fn finish(record: &mut Record, carried: Carried) {
    record.bytes_in += carried.forth;
    record.bytes_out += carried.back;
    match carried.end {
        End::Finished => {}
        End::First(error) => record.fail(Fault::ClientGone, error),
        End::Second(error) => record.fail(Fault::UpstreamReset, error),
        End::Idle => record.fail(Fault::Limit, "no byte within the idle time"),
    }
}

/// Likewise, where the end may have been our own drain.
pub fn finish_or_cut(record: &mut Record, carried: Option<Carried>) {
    match carried {
        Some(carried) => finish(record, carried),
        None => record.fail(Fault::Draining, "still open at the end of the drain time"),
    }
}

/// Runs `work` to its end, but not longer than `drain` after `stop`.
pub async fn until_drained<T>(work: impl Future<Output = T>, stop: &CancellationToken, drain: Duration) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = async {
            stop.cancelled().await;
            tokio::time::sleep(drain).await;
        } => None,
    }
}

/// What a failed TLS handshake of a peer that dialled us means.
pub fn of_tls(error: io::Error) -> DialFault {
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>());
    let fault = match tls {
        // Somebody spoke something else than TLS to the mTLS port.
        Some(rustls::Error::InvalidMessage(_)) => Fault::PlaintextRefused,
        Some(_) if refusal_of(&error).is_some() => Fault::PeerIdentity,
        Some(_) => Fault::BadRequest,
        None => Fault::ClientGone,
    };
    // The refusal names the rule; the TLS stack's own text only wraps it.
    match refusal_of(&error) {
        Some(refusal) => DialFault::new(fault, refusal),
        None => DialFault::new(fault, error),
    }
}

/// An error with all its causes, for one log line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let line = cause.to_string();
        // Some errors repeat their source in their own text.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = cause.source();
    }
    text
}

/// Makes the end of a connection a reset.
pub fn reset(stream: &TcpStream) {
    // Refused only for a socket that is dead already.
    let _ = mesh_sys::socket::reset_on_close(stream);
}

/// The address that a connection was accepted on; `port` of nowhere if the socket is dead already, which no decision admits.
pub fn local_address(stream: &TcpStream, port: u16) -> SocketAddr {
    let nowhere = || SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    stream.local_addr().map_or_else(|_| nowhere(), |a| SocketAddr::new(a.ip().to_canonical(), a.port()))
}

/// Where a captured connection wanted to go; the listener's own address if it was not captured, which decisions refuse as a loop.
pub fn original(stream: &TcpStream, port: u16) -> SocketAddr {
    let local = local_address(stream, port);
    mesh_sys::socket::original_destination(stream, local)
        .map_or(local, |a| SocketAddr::new(a.ip().to_canonical(), a.port()))
}
