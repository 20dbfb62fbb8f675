//! Rules of an HTTPRoute. It must not know filters or matches one by one; `filter` and `matches` do.

use super::{
    Rule,
    filter::{self, Filters},
    matches, unsupported, weight,
};
use crate::{
    api::{self, HttpRouteSpec, RetrySpec, duration},
    plan::{
        attach::Refusal,
        backend::{Reference, Resolver},
    },
};
use mesh_core::mesh::{
    BackendTarget, Filter, HttpBackend, HttpMatch, HttpRule, PathEdit, PathMatch, Redirect, Retry, Rewrite,
};
use std::time::Duration;

pub(super) fn rules(resolver: &mut Resolver<'_, '_>, spec: &HttpRouteSpec) -> Vec<Rule> {
    let rules = spec.rules.iter().flatten().enumerate();
    let lower = |(index, spec)| {
        resolver.rule = index;
        rule(resolver, spec)
    };
    rules.map(lower).collect()
}

fn rule(resolver: &mut Resolver<'_, '_>, spec: &api::HttpRule) -> Rule {
    if spec.session_persistence.is_some() {
        return Err(unsupported(".sessionPersistence", "is not supported"));
    }
    let conditions = spec.matches.iter().flatten().enumerate();
    let mut matches = conditions
        .map(|(i, m)| matches::http(&format!(".matches[{i}]"), m))
        .collect::<Result<Vec<HttpMatch>, Refusal>>()?;
    if matches.is_empty() {
        // "If no matches are specified, the default is a prefix path match on "/"".
        matches.push(matches::http(".matches", &api::HttpMatch::default())?);
    }
    let (request_timeout, backend_timeout) = timeouts(spec.timeouts.as_ref())?;
    let retry = spec.retry.as_ref().map(retry).transpose()?;
    let filters = filter::http(resolver, ".filters", spec.filters.as_deref().unwrap_or_default())?;
    let mut backends = Vec::new();
    for (i, backend) in spec.backend_refs.iter().flatten().enumerate() {
        let field = format!(".backendRefs[{i}]");
        let reference = Reference {
            group: backend.group.as_deref(),
            kind: backend.kind.as_deref(),
            name: &backend.name,
            namespace: backend.namespace.as_deref(),
            port: backend.port,
        };
        let target = resolver.resolve(&field, &reference);
        let specs = backend.filters.as_deref().unwrap_or_default();
        let (target, filters) = match filter::http(resolver, &format!("{field}.filters"), specs)? {
            Filters::All(filters) => (target, filters),
            Filters::Failing => (BackendTarget::Broken, Vec::new()),
        };
        if let Some(kind) = filters.iter().find_map(not_for_backends) {
            return Err(unsupported(&format!("{field}.filters"), format!("{kind} is not supported on a backendRef")));
        }
        check_prefixes(&format!("{field}.filters"), &filters, &matches)?;
        backends.push(HttpBackend { weight: weight(backend.weight), target, filters });
    }
    let filters = match filters {
        Filters::All(filters) => filters,
        Filters::Failing => {
            backends.clear();
            Vec::new()
        }
    };
    check_prefixes(".filters", &filters, &matches)?;
    let name = spec.name.as_deref().map(Into::into);
    Ok(HttpRule { name, matches, filters, backends, request_timeout, backend_timeout, retry })
}

/// Filters that say what happens to a request as a whole make no sense once a backend was chosen.
fn not_for_backends(filter: &Filter) -> Option<&'static str> {
    match filter {
        Filter::Redirect(_) => Some("RequestRedirect"),
        Filter::Cors(_) => Some("CORS"),
        Filter::RequestHeaders(_) | Filter::ResponseHeaders(_) | Filter::Rewrite(_) | Filter::Mirror(_) => None,
    }
}

/// "ReplacePrefixMatch is only compatible with a `PathPrefix` HTTPRouteMatch".
fn check_prefixes(field: &str, filters: &[Filter], matches: &[HttpMatch]) -> Result<(), Refusal> {
    let replaces = filters.iter().any(|f| {
        matches!(
            f,
            Filter::Redirect(Redirect { path: Some(PathEdit::Prefix(_)), .. })
                | Filter::Rewrite(Rewrite { path: Some(PathEdit::Prefix(_)), .. })
        )
    });
    if replaces && !matches.iter().all(|m| matches!(m.path, PathMatch::Prefix(_))) {
        return Err(unsupported(field, "ReplacePrefixMatch needs a PathPrefix in every match"));
    }
    Ok(())
}

type Timeout = Option<Duration>;

/// "0s" disables a timeout (GEP-1742: "a zero-valued duration … the timeout is disabled").
fn timeouts(spec: Option<&api::Timeouts>) -> Result<(Timeout, Timeout), Refusal> {
    let Some(spec) = spec else { return Ok((None, None)) };
    let read = |name: &str, text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => duration::parse(text)
            .map(|d| (!d.is_zero()).then_some(d))
            .ok_or_else(|| unsupported(&format!(".timeouts.{name}"), format!("{text:?} is not a duration"))),
    };
    let (request, backend) = (read("request", &spec.request)?, read("backendRequest", &spec.backend_request)?);
    match (request, backend) {
        (Some(request), Some(backend)) if backend > request => {
            Err(unsupported(".timeouts", "backendRequest must not be longer than request"))
        }
        both => Ok(both),
    }
}

fn retry(spec: &RetrySpec) -> Result<Retry, Refusal> {
    let backoff = match &spec.backoff {
        None => None,
        Some(text) => Some(
            duration::parse(text)
                .ok_or_else(|| unsupported(".retry.backoff", format!("{text:?} is not a duration")))?,
        ),
    };
    let codes = spec.codes.iter().flatten().map(|code| match u16::try_from(*code) {
        Ok(code) if (400..=599).contains(&code) => Ok(code),
        _ => Err(unsupported(".retry.codes", format!("{code} is not between 400 and 599"))),
    });
    Ok(Retry {
        // The CRD defaults it to 1.
        attempts: spec.attempts.map_or(1, |n| u32::try_from(n).unwrap_or(u32::MAX)),
        codes: codes.collect::<Result<_, _>>()?,
        backoff,
    })
}
