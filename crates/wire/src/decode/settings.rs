//! Doubts mesh settings: bounds that a proxy can live with. It must not fill in defaults; the planner did.

use super::field::{At, Bad, choice, number, required, text, time, word};
use crate::proto;
use mesh_core::{
    identity::TrustDomain,
    mesh::{AccessLog, Limits, MeshSettings, Mode, Tracing},
};
use std::time::Duration;

/// Shortest SVID lifetime that can be renewed at half of it without renewing all the time.
const SVID_LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Least time of a limit: shorter ones would refuse everybody.
const LIMIT_TIME_MIN: Duration = Duration::from_millis(1);

pub(super) fn settings(s: proto::MeshSettings) -> Result<MeshSettings, Bad> {
    Ok(MeshSettings {
        name: word(s.name).at("name")?,
        trust_domain: TrustDomain::new(&s.trust_domain).map_err(|e| Bad::new(e.to_string())).at("trust_domain")?,
        mode: match choice("mode", s.mode)? {
            proto::Mode::Off => None,
            proto::Mode::Permissive => Some(Mode::Permissive),
            proto::Mode::Strict | proto::Mode::Unspecified => Some(Mode::Strict),
        },
        svid_lifetime: time(s.svid_lifetime_ns, SVID_LIFETIME_MIN).at("svid_lifetime_ns")?,
        tracing: s.tracing.map(tracing).transpose().at("tracing")?,
        access_log: match choice("access_log", s.access_log)? {
            proto::AccessLog::Off => AccessLog::Off,
            proto::AccessLog::Errors => AccessLog::Errors,
            proto::AccessLog::All | proto::AccessLog::Unspecified => AccessLog::All,
        },
        limits: limits(required("limits", s.limits)?).at("limits")?,
    })
}

fn tracing(t: proto::Tracing) -> Result<Tracing, Bad> {
    let endpoint = text(t.endpoint).at("endpoint")?;
    let uri = endpoint.parse::<http::Uri>().ok().filter(|u| u.scheme().is_some() && u.authority().is_some());
    if uri.is_none() {
        return Err(Bad::new(format!("{endpoint:?} is not an http URL"))).at("endpoint");
    }
    Ok(Tracing { endpoint, sampling_ppm: number(t.sampling_ppm, 0, 1_000_000).at("sampling_ppm")? })
}

fn limits(l: proto::Limits) -> Result<Limits, Bad> {
    let some = |field, value| number(value, 1, u32::MAX).at(field);
    let wait = |field, value| time(value, LIMIT_TIME_MIN).at(field);
    Ok(Limits {
        header_bytes: some("header_bytes", l.header_bytes)?,
        streams_per_connection: some("streams_per_connection", l.streams_per_connection)?,
        connections_per_pod: some("connections_per_pod", l.connections_per_pod)?,
        replay_bytes: l.replay_bytes,
        handshake: wait("handshake_ns", l.handshake_ns)?,
        idle: wait("idle_ns", l.idle_ns)?,
        drain: time(l.drain_ns, Duration::ZERO).at("drain_ns")?,
    })
}
