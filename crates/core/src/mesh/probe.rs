//! Probes: what a kubelet asks of a pod, as the pod's spec says it. It must not decide who may ask; `decide` does.

use crate::name::Text;
use http::{HeaderName, HeaderValue, uri::PathAndQuery};

/// One thing that the kubelet of a pod's node asks the pod: a probe, or a lifecycle hook that is a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// Port of the container.
    pub port: u16,
    /// What it asks there.
    pub ask: Ask,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// `httpGet`.
    Http(HttpProbe),
    /// `tcpSocket`: that somebody listens; not a byte is said.
    Tcp,
    /// `grpc`: `grpc.health.v1.Health/Check`.
    Grpc {
        /// `service`, empty if there is none.
        service: Text,
    },
}

/// A GET of one path.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// `scheme: HTTPS`.
    pub tls: bool,
    /// Path and query, as they are in the request line.
    pub target: PathAndQuery,
    /// `httpHeaders`, without those that belong to the connection.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}
