//! The one table of what can go wrong with a connection or request: status, gRPC status, label, retry. It must not hold error chains; those are logged at the edge.

use http::StatusCode;

/// Why the mesh, not the application, ended a connection or request. Each has one bounded label for logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Routes are attached to this frontend or listener and none matches.
    NoRoute,
    /// The route's backend does not exist, is not permitted, or is of an unknown kind.
    BrokenBackend,
    /// The backend has no endpoint that may take traffic.
    NoEndpoint,
    /// TCP connect to the endpoint was refused or unreachable.
    ConnectFailed,
    /// The upstream took the connection but not this stream (REFUSED_STREAM, or above the last one of its GOAWAY); it has processed nothing.
    StreamRefused,
    /// The dial (TCP, TLS, HTTP/2 preface) took longer than its bound.
    ConnectTimeout,
    /// The peer's certificate is not the expected identity, or ours was refused.
    PeerIdentity,
    /// This workload has no valid certificate; nothing is sent in plaintext instead.
    NoIdentity,
    /// The upstream reset the stream or connection before a response.
    UpstreamReset,
    /// The upstream spoke something that is not the expected protocol.
    UpstreamProtocol,
    /// `timeouts.request` ran out.
    RequestTimeout,
    /// `timeouts.backendRequest` ran out on the last attempt.
    BackendTimeout,
    /// The retry budget of the Service is used up.
    RetryBudget,
    /// A named limit was reached (connections per pod, streams, header bytes).
    Limit,
    /// The client sent something that is not valid HTTP.
    BadRequest,
    /// The client went away first.
    ClientGone,
    /// Plaintext to a workload in strict mode.
    PlaintextRefused,
    /// A tunnel asks for an address that the connection's workload does not have.
    WrongDestination,
    /// A connection to one of the mesh's own ports, which would loop.
    SelfCall,
    /// Nobody has told this proxy of that workload (yet).
    UnknownWorkload,
    /// No certificate or listener for the server name.
    UnknownServerName,
    /// The proxy is draining.
    Draining,
    /// A defect of ours.
    Internal,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Self; 23] = [
        Self::NoRoute,
        Self::BrokenBackend,
        Self::NoEndpoint,
        Self::ConnectFailed,
        Self::StreamRefused,
        Self::ConnectTimeout,
        Self::PeerIdentity,
        Self::NoIdentity,
        Self::UpstreamReset,
        Self::UpstreamProtocol,
        Self::RequestTimeout,
        Self::BackendTimeout,
        Self::RetryBudget,
        Self::Limit,
        Self::BadRequest,
        Self::ClientGone,
        Self::PlaintextRefused,
        Self::WrongDestination,
        Self::SelfCall,
        Self::UnknownWorkload,
        Self::UnknownServerName,
        Self::Draining,
        Self::Internal,
    ];

    /// The fault of a label: what a peer's proxy says went wrong on its side.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| fault.label() == label)
    }

    /// The label in access logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::BrokenBackend => "broken_backend",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::StreamRefused => "stream_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::PeerIdentity => "peer_identity",
            Self::NoIdentity => "no_identity",
            Self::UpstreamReset => "upstream_reset",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::RequestTimeout => "request_timeout",
            Self::BackendTimeout => "backend_timeout",
            Self::RetryBudget => "retry_budget",
            Self::Limit => "limit",
            Self::BadRequest => "bad_request",
            Self::ClientGone => "client_gone",
            Self::PlaintextRefused => "plaintext_refused",
            Self::WrongDestination => "wrong_destination",
            Self::SelfCall => "self_call",
            Self::UnknownWorkload => "unknown_workload",
            Self::UnknownServerName => "unknown_server_name",
            Self::Draining => "draining",
            Self::Internal => "internal",
        }
    }

    /// The HTTP status that the client sees.
    pub const fn status(self) -> StatusCode {
        match self {
            // HTTPRouteRule.matches: "If no rules match a request … HTTP status code 404".
            Self::NoRoute | Self::UnknownServerName => StatusCode::NOT_FOUND,
            // HTTPRouteRule.backendRefs: "… invalid … MUST receive a 500 status code".
            Self::BrokenBackend | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            // HTTPRouteTimeouts: "MUST … respond … 504 Gateway Timeout".
            Self::RequestTimeout | Self::BackendTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::UpstreamReset | Self::UpstreamProtocol => StatusCode::BAD_GATEWAY,
            Self::BadRequest | Self::WrongDestination => StatusCode::BAD_REQUEST,
            Self::ClientGone => StatusCode::REQUEST_TIMEOUT,
            Self::PlaintextRefused | Self::PeerIdentity => StatusCode::FORBIDDEN,
            // GEP-1742/3388 and HTTPRouteRule.backendRefs: no endpoint, or budget used up, is 503.
            Self::NoEndpoint
            | Self::ConnectFailed
            | Self::StreamRefused
            | Self::ConnectTimeout
            | Self::NoIdentity
            | Self::RetryBudget
            | Self::Limit
            | Self::SelfCall
            | Self::UnknownWorkload
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The gRPC status code that a gRPC client sees instead of an HTTP status.
    pub const fn grpc_status(self) -> u8 {
        match self {
            // GRPCRouteRule.matches: unmatched is UNIMPLEMENTED (12).
            Self::NoRoute => 12,
            Self::RequestTimeout | Self::BackendTimeout => 4,
            Self::PlaintextRefused | Self::PeerIdentity => 7,
            Self::Limit => 8,
            Self::BadRequest | Self::Internal => 13,
            Self::ClientGone => 1,
            _ => 14,
        }
    }

    /// Whether the upstream certainly did not process the request, so that another attempt is safe for any method.
    pub const fn unprocessed(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::StreamRefused | Self::ConnectTimeout | Self::PeerIdentity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_is_found_by_its_own_label() {
        for fault in Fault::ALL {
            assert_eq!(Fault::from_label(fault.label()), Some(fault));
        }
        assert_eq!(Fault::from_label("fine"), None);
    }
}
