//! Settings: what the XMesh and its MeshParameters mean, and the statuses of XMesh and GatewayClass. It must not read flags of a process.

use super::{
    CONTROLLER_NAME,
    status::{Body, Condition, Status, features, reason},
    view::View,
};
use crate::{
    api::{
        MeshParametersAccessLog, MeshParametersLimits, MeshParametersMode, MeshParametersSpec, Object, XMeshSpec,
        duration,
    },
    inventory::{HEDDLE_GROUP, Key, Kind},
};
use mesh_core::{
    identity::TrustDomain,
    mesh::{AccessLog, Limits, MeshSettings, Mode, Tracing},
    name::NsName,
};
use std::time::Duration;

/// Lifetime of an SVID when nothing else is said.
const SVID_LIFETIME: Duration = Duration::from_secs(3600);
/// Below this a proxy would do little else than renew.
const SVID_LIFETIME_MIN: Duration = Duration::from_secs(2);
/// Beyond this a stolen key is good for too long, for there is no revocation.
const SVID_LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// Settings for an empty XMesh ("XMesh absent ⇒ act as for an empty spec", GEP-3949).
pub(super) fn defaults(mesh: &str) -> MeshSettings {
    MeshSettings {
        name: mesh.into(),
        trust_domain: TrustDomain::new("cluster.local").expect("lower case letters and a dot"),
        mode: Some(Mode::Strict),
        svid_lifetime: SVID_LIFETIME,
        tracing: None,
        access_log: AccessLog::All,
        limits: Limits::default(),
    }
}

/// What the XMesh of our name asks for. Invalid parameters leave the defaults, of which the strict mode is one.
pub(super) fn plan(view: &View<'_>) -> MeshSettings {
    let xmesh = view.xmesh(&NsName::new("", view.mesh().clone())).filter(|m| m.spec.controller_name == CONTROLLER_NAME);
    xmesh.and_then(|m| parameters(view, m).ok()).unwrap_or_else(|| defaults(view.mesh()))
}

/// Status of an XMesh of ours.
pub(super) fn status(view: &View<'_>, name: &NsName) -> Option<Status> {
    let xmesh = view.xmesh(name).filter(|m| m.spec.controller_name == CONTROLLER_NAME)?;
    let accepted = if name.name != *view.mesh() {
        Condition::unknown("Accepted", reason::PENDING, format!("this controller runs the mesh {}", view.mesh()))
    } else {
        match parameters(view, xmesh) {
            Ok(_) => Condition::yes(
                "Accepted",
                reason::ACCEPTED,
                format!("the mesh {name} is run by {CONTROLLER_NAME}", name = name.name),
            ),
            Err(message) => Condition::no("Accepted", reason::INVALID_PARAMETERS, message),
        }
    };
    let body = Body::Mesh { conditions: vec![accepted], features: features::MESH };
    Some(Status { key: Key::new(Kind::XMesh, name.clone()), generation: xmesh.meta.generation, body })
}

/// Status of a GatewayClass of ours.
pub(super) fn class_status(view: &View<'_>, name: &NsName) -> Option<Status> {
    let class = view.class(name).filter(|c| c.spec.controller_name == CONTROLLER_NAME)?;
    let accepted = match &class.spec.parameters_ref {
        None => Condition::yes("Accepted", reason::ACCEPTED, "Gateways of this class are served".into()),
        Some(p) => Condition::no(
            "Accepted",
            reason::INVALID_PARAMETERS,
            format!("parametersRef {}/{}: GatewayClasses take no parameters", p.kind, p.name),
        ),
    };
    let version = Condition::yes("SupportedVersion", "SupportedVersion", "types of Gateway API v1.7.0".into());
    let body = Body::Class { conditions: vec![accepted, version], features: features::GATEWAY };
    Some(Status { key: Key::new(Kind::GatewayClass, name.clone()), generation: class.meta.generation, body })
}

fn parameters(view: &View<'_>, xmesh: &Object<XMeshSpec>) -> Result<MeshSettings, String> {
    let mut settings = defaults(view.mesh());
    let Some(reference) = &xmesh.spec.parameters_ref else { return Ok(settings) };
    let (group, kind, name) = (&reference.group, &reference.kind, &reference.name);
    if group != HEDDLE_GROUP || kind != Kind::MeshParameters.as_str() {
        return Err(format!("spec.parametersRef: {group}/{kind} is not {HEDDLE_GROUP}/MeshParameters"));
    }
    let Some(parameters) = view.parameters(&NsName::new("", name.as_str())) else {
        return Err(format!("spec.parametersRef: MeshParameters {name} does not exist"));
    };
    read(&parameters.spec, &mut settings).map_err(|e| format!("MeshParameters {name}: {e}"))?;
    Ok(settings)
}

/// The CRD's CEL rules say the same; they are checked again because a folder has no API server.
fn read(spec: &MeshParametersSpec, settings: &mut MeshSettings) -> Result<(), String> {
    if let Some(domain) = &spec.trust_domain {
        settings.trust_domain = TrustDomain::new(domain).map_err(|e| format!("spec.trustDomain: {e}"))?;
    }
    if let Some(lifetime) = &spec.svid_lifetime {
        settings.svid_lifetime = duration::parse(lifetime)
            .filter(|d| (SVID_LIFETIME_MIN..=SVID_LIFETIME_MAX).contains(d))
            .ok_or_else(|| format!("spec.svidLifetime: {lifetime:?} is not between 2s and 24h"))?;
    }
    settings.mode = match spec.mode {
        Some(MeshParametersMode::Off) => None,
        Some(MeshParametersMode::Permissive) => Some(Mode::Permissive),
        Some(MeshParametersMode::Strict) | None => Some(Mode::Strict),
    };
    settings.access_log = match spec.access_log {
        Some(MeshParametersAccessLog::Off) => AccessLog::Off,
        Some(MeshParametersAccessLog::Errors) => AccessLog::Errors,
        Some(MeshParametersAccessLog::All) | None => AccessLog::All,
    };
    if let Some(tracing) = &spec.tracing {
        let uri: http::Uri =
            tracing.endpoint.parse().map_err(|e| format!("spec.tracing.endpoint: {:?}: {e}", tracing.endpoint))?;
        if uri.scheme_str() != Some("http") || uri.port().is_none() || !matches!(uri.path(), "" | "/") {
            return Err(format!("spec.tracing.endpoint: {:?} is not of the form http://HOST:PORT", tracing.endpoint));
        }
        let percent = tracing.sampling_percent.unwrap_or(100.0);
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("spec.tracing.samplingPercent: {percent} is not between 0 and 100"));
        }
        // 1 % is 10,000 of 1,000,000; at most 1,000,000, so it fits.
        let sampling_ppm = (percent * 10_000.0).round() as u32;
        settings.tracing = Some(Tracing { endpoint: tracing.endpoint.as_str().into(), sampling_ppm });
    }
    spec.limits.as_ref().map_or(Ok(()), |limits| read_limits(limits, &mut settings.limits))
}

fn read_limits(spec: &MeshParametersLimits, limits: &mut Limits) -> Result<(), String> {
    let number = |field: &str, value: Option<i64>, into: &mut u32| match value.map(u32::try_from) {
        None => Ok(()),
        Some(Ok(n)) => {
            *into = n;
            Ok(())
        }
        Some(Err(_)) => Err(format!("spec.limits.{field}: does not fit")),
    };
    number("headerBytes", spec.header_bytes, &mut limits.header_bytes)?;
    number("streamsPerConnection", spec.streams_per_connection, &mut limits.streams_per_connection)?;
    number("connectionsPerPod", spec.connections_per_pod, &mut limits.connections_per_pod)?;
    number("replayBytes", spec.replay_bytes, &mut limits.replay_bytes)?;
    for (field, text, into, min) in [
        ("handshake", &spec.handshake, &mut limits.handshake, Duration::from_millis(100)),
        ("idle", &spec.idle, &mut limits.idle, Duration::from_secs(1)),
        ("drain", &spec.drain, &mut limits.drain, Duration::ZERO),
    ] {
        if let Some(text) = text {
            *into = duration::parse(text)
                .filter(|d| *d >= min)
                .ok_or_else(|| format!("spec.limits.{field}: {text:?} is not a duration of at least {min:?}"))?;
        }
    }
    if limits.idle < limits.handshake {
        return Err("spec.limits: idle must not be shorter than handshake".into());
    }
    Ok(())
}
