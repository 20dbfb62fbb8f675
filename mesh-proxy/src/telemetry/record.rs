//! Record: everything that one connection or request has to tell, by reference to the nouns. It must not format; `line` does.

use super::trace::TraceParent;
use http::{HeaderValue, Method, StatusCode, Version, uri::Authority};
use mesh_core::{
    fault::Fault,
    identity::Identity,
    mesh::{AccessLog, RouteId, Workload},
    name::{ServiceId, Text},
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An HTTP request.
    Request,
    /// A connection whose bytes were carried, or that was refused.
    Connection,
}

/// Which side of the proxy took the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From a local workload.
    Outbound,
    /// To a local workload.
    Inbound,
    /// From outside, through a Gateway.
    Gateway,
}

impl Direction {
    /// The label in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Gateway => "gateway",
        }
    }
}

/// One end of a connection or request.
#[derive(Clone, Debug, Default)]
pub struct Party {
    /// The pod, if the mesh knows it.
    pub workload: Option<Arc<Workload>>,
    /// The identity that was verified, or under which we act for it.
    pub identity: Option<Identity>,
    /// Its address as seen here.
    pub address: Option<SocketAddr>,
}

/// What a connection or request leaves behind. Absent is `None`; every field is set where it becomes known.
#[derive(Clone, Debug)]
pub struct Record {
    /// Request or connection.
    pub kind: Kind,
    /// Which side.
    pub direction: Direction,
    /// When it began.
    pub started: SystemTime,
    /// How long it lasted.
    pub duration: Duration,
    /// Trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// `x-request-id`.
    pub request_id: Option<HeaderValue>,
    /// HTTP method.
    pub method: Option<Method>,
    /// Host as the client wrote it.
    pub host: Option<Authority>,
    /// Path without query (queries carry secrets).
    pub path: Option<http::uri::PathAndQuery>,
    /// HTTP version that the client spoke; none: opaque bytes.
    pub version: Option<Version>,
    /// HTTP status that the client got.
    pub status: Option<StatusCode>,
    /// gRPC status that the client got.
    pub grpc_status: Option<u16>,
    /// Who called.
    pub source: Party,
    /// Who was called (of several attempts the last).
    pub destination: Party,
    /// The Service and port that the client dialled or that a backend named.
    pub service: Option<(ServiceId, u16)>,
    /// The route that matched.
    pub route: Option<RouteId>,
    /// The rule that matched.
    pub rule: Option<Text>,
    /// Tries at an upstream; 1: no retry, 0: none was reached for.
    pub attempts: u32,
    /// Bytes from the client.
    pub bytes_in: u64,
    /// Bytes to the client.
    pub bytes_out: u64,
    /// TLS version towards the mesh peer; none: plaintext.
    pub tls: Option<&'static str>,
    /// What the mesh found wrong.
    pub fault: Option<Fault>,
    /// The cause chain behind `fault`.
    pub detail: Option<Box<str>>,
}

impl Record {
    /// A record that begins now.
    pub fn new(kind: Kind, direction: Direction) -> Self {
        Self::at(kind, direction, SystemTime::now())
    }

    /// A record of which no more is known than this.
    pub fn at(kind: Kind, direction: Direction, started: SystemTime) -> Self {
        Self {
            kind,
            direction,
            started,
            duration: Duration::ZERO,
            trace: None,
            request_id: None,
            method: None,
            host: None,
            path: None,
            version: None,
            status: None,
            grpc_status: None,
            source: Party::default(),
            destination: Party::default(),
            service: None,
            route: None,
            rule: None,
            attempts: 0,
            bytes_in: 0,
            bytes_out: 0,
            tls: None,
            fault: None,
            detail: None,
        }
    }

    /// Notes what went wrong; the first fault stands, because later ones follow from it.
    pub fn fail(&mut self, fault: Fault, detail: impl std::fmt::Display) {
        if self.fault.is_none() {
            self.fault = Some(fault);
            let detail = detail.to_string();
            self.detail = (!detail.is_empty()).then(|| detail.into_boxed_str());
        }
    }

    /// The pod that this proxy acts for.
    pub fn local(&self) -> Option<&Arc<Workload>> {
        match self.direction {
            Direction::Outbound | Direction::Gateway => self.source.workload.as_ref(),
            Direction::Inbound => self.destination.workload.as_ref(),
        }
    }

    /// Whether a line is written for it.
    pub fn is_wanted(&self, level: AccessLog) -> bool {
        match level {
            AccessLog::Off => false,
            AccessLog::All => true,
            AccessLog::Errors => {
                self.fault.is_some()
                    || self.status.is_some_and(|s| s.is_server_error())
                    // A gRPC failure hides behind HTTP 200.
                    || self.grpc_status.is_some_and(|s| s != 0)
            }
        }
    }
}
