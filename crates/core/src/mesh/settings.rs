//! Settings of the whole mesh, from `XMesh.spec.parametersRef` → `MeshParameters`. It must not hold settings of one process (those are flags).

use crate::{identity::TrustDomain, name::Text};
use std::time::Duration;

/// What every proxy of the mesh agrees on.
#[derive(Clone, Debug, PartialEq)]
pub struct MeshSettings {
    /// Name of the `XMesh` object.
    pub name: Text,
    /// All identities live in this trust domain; others are refused.
    pub trust_domain: TrustDomain,
    /// What a meshed workload does with plaintext; none: the mesh is off, and no workload is meshed.
    pub mode: Option<Mode>,
    /// Lifetime of an SVID; renewed at half of it.
    pub svid_lifetime: Duration,
    /// Where spans go; none: no tracing.
    pub tracing: Option<Tracing>,
    /// Whether each connection and request leaves a line.
    pub access_log: AccessLog,
    /// Bounds that protect a proxy.
    pub limits: Limits,
}

/// Whether a meshed workload takes plaintext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Plaintext is refused.
    Strict,
    /// Plaintext is taken, as from an unknown peer; meant for migration.
    Permissive,
}

/// OTLP over gRPC.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// `http://HOST:PORT` of the collector.
    pub endpoint: Text,
    /// Share of new traces that are sampled, in 1/1,000,000; a sampled parent is always followed (parent-based).
    pub sampling_ppm: u32,
}

/// Which lines are written to the access log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// None.
    Off,
    /// Only those that ended with a fault or a 5xx.
    Errors,
    /// All.
    #[default]
    All,
}

/// Named bounds of a proxy. Every one has a reason; see each field.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of request or response headers: an h1 or h2 peer cannot make us hold more.
    pub header_bytes: u32,
    /// Concurrent streams of one h2 connection that we serve.
    pub streams_per_connection: u32,
    /// Open connections, tunnels and delivered requests of one pod, inbound and outbound together, so that one pod cannot starve the others.
    pub connections_per_pod: u32,
    /// Bytes of a request body kept for a retry; a longer body is sent once.
    pub replay_bytes: u32,
    /// TCP connect + TLS + HTTP/2 preface of a dial, and the handshakes of a peer that dials us.
    pub handshake: Duration,
    /// A connection without a byte for so long is closed.
    pub idle: Duration,
    /// Time that living requests get when a listener or the proxy goes away.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 64 * 1024,
            streams_per_connection: 200,
            connections_per_pod: 20_000,
            replay_bytes: 64 * 1024,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
        }
    }
}
