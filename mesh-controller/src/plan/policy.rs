//! Policies: what an XBackendTrafficPolicy means for its Services, and who wins when several target one. It must not count requests.

use super::{
    status::{Ancestor, Body, Condition, Status, reason},
    view::View,
};
use crate::{
    api::{Object, XBackendTrafficPolicySpec, duration},
    inventory::{Key, Kind},
};
use mesh_core::{
    mesh::{RetryBudget, TrafficPolicy},
    name::{NsName, ServiceId},
};
use std::time::Duration;

/// The policy as far as it has won its targets, and its status.
pub(super) fn traffic(view: &View<'_>, id: &NsName) -> (Option<TrafficPolicy>, Option<Status>) {
    let Some(policy) = view.traffic_policy(id) else { return (None, None) };
    let judged = judge(view, id, policy);
    let condition = match &judged {
        Ok((_, lost)) if lost.is_empty() => {
            Condition::yes("Accepted", reason::ACCEPTED, "governs all its targets".into())
        }
        Ok((_, lost)) => Condition::yes("Accepted", reason::ACCEPTED, format!("does not govern {}", lost.join(", "))),
        Err((reason, message)) => Condition::no("Accepted", reason, message.clone()),
    };
    // GEP-3388's ancestor for mesh traffic is the mesh.
    let ancestor =
        Ancestor { kind: Kind::XMesh, name: NsName::new("", view.mesh().clone()), conditions: vec![condition] };
    let status = Status {
        key: Key::new(Kind::XBackendTrafficPolicy, id.clone()),
        generation: policy.meta.generation,
        body: Body::Policy(vec![ancestor]),
    };
    (judged.ok().map(|(policy, _)| policy), Some(status))
}

type Refusal = (&'static str, String);

fn judge(
    view: &View<'_>,
    id: &NsName,
    policy: &Object<XBackendTrafficPolicySpec>,
) -> Result<(TrafficPolicy, Vec<String>), Refusal> {
    if policy.spec.session_persistence.is_some() {
        // Half a policy would be less than the user asked for, so none of it is applied.
        return Err((reason::INVALID, "spec.sessionPersistence is not supported".into()));
    }
    let retry_budget = budget(&policy.spec).map_err(|message| (reason::INVALID, message))?;
    let (mut targets, mut lost, mut why) = (Vec::new(), Vec::new(), reason::TARGET_NOT_FOUND);
    for target in &policy.spec.target_refs {
        let (group, kind, name) = (&target.group, &target.kind, &target.name);
        if !group.is_empty() || kind != "Service" {
            lost.push(format!("{kind} {name} (kind is not supported)"));
            continue;
        }
        let service = NsName::new(id.namespace.clone(), name.as_str());
        if view.service(&service).is_none() {
            lost.push(format!("Service {name} (does not exist)"));
        } else if let Some(older) = winner(view, &service).filter(|winner| winner != id) {
            why = reason::CONFLICTED;
            lost.push(format!("Service {name} (governed by the older {older})"));
        } else {
            targets.push(service);
        }
    }
    if targets.is_empty() {
        return Err((why, lost.join(", ")));
    }
    targets.sort();
    targets.dedup();
    Ok((TrafficPolicy { id: id.clone(), targets, retry_budget }, lost))
}

/// "Conflict: oldest creationTimestamp, then namespace and name" (policy attachment, GEP-713).
fn winner(view: &View<'_>, service: &ServiceId) -> Option<NsName> {
    let rivals = view.traffic_policies_of(service);
    let rivals = rivals.filter_map(|id| Some((view.traffic_policy(id)?, id)));
    // A policy that is invalid by itself governs nothing and takes no place.
    let valid = rivals.filter(|(p, _)| p.spec.session_persistence.is_none() && budget(&p.spec).is_ok());
    valid.min_by_key(|(p, id)| (p.meta.created, *id)).map(|(_, id)| id.clone())
}

fn budget(spec: &XBackendTrafficPolicySpec) -> Result<Option<RetryBudget>, String> {
    let Some(constraint) = &spec.retry_constraint else { return Ok(None) };
    let mut budget = RetryBudget::default();
    let hour = Duration::from_secs(3600);
    let interval = |field: &str, text: &str, min: Duration| {
        duration::parse(text)
            .filter(|d| (min..=hour).contains(d))
            .ok_or_else(|| format!("spec.retryConstraint.{field}: {text:?} is not between {min:?} and 1h"))
    };
    if let Some(b) = &constraint.budget {
        if let Some(text) = &b.interval {
            budget.interval = interval("budget.interval", text, Duration::from_secs(1))?;
        }
        if let Some(percent) = b.percent {
            let percent = u8::try_from(percent).ok().filter(|p| *p <= 100);
            budget.percent = percent.ok_or("spec.retryConstraint.budget.percent is not between 0 and 100")?;
        }
    }
    if let Some(rate) = &constraint.min_retry_rate {
        if let Some(text) = &rate.interval {
            budget.min_interval = interval("minRetryRate.interval", text, Duration::from_millis(1))?;
        }
        if let Some(count) = rate.count {
            let count = u32::try_from(count).ok().filter(|c| (1..=1_000_000).contains(c));
            budget.min_retries = count.ok_or("spec.retryConstraint.minRetryRate.count is not between 1 and 1000000")?;
        }
    }
    Ok(Some(budget))
}

/// BackendTLSPolicies are not applied. Gateways answer 500 for their Services rather than send plaintext; see `backend`.
pub(super) fn tls(view: &View<'_>, id: &NsName) -> Option<Status> {
    let policy = view.tls_policy(id)?;
    let message = "BackendTLSPolicies are not supported; Gateways refuse to send to its targets".into();
    let conditions = vec![Condition::no("Accepted", reason::INVALID, message)];
    let ancestor = Ancestor { kind: Kind::XMesh, name: NsName::new("", view.mesh().clone()), conditions };
    let key = Key::new(Kind::BackendTlsPolicy, id.clone());
    Some(Status { key, generation: policy.meta.generation, body: Body::Policy(vec![ancestor]) })
}
