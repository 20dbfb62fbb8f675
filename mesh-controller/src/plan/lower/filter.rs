//! Filters: what HTTPRoute and GRPCRoute filters mean. A filter is never skipped: what cannot be applied takes its rule out. It must not edit requests.

use super::unsupported;
use crate::{
    api::{
        CorsFilter, GrpcFilter, GrpcFilterType, HeaderModifier, HttpFilter, HttpFilterType, MirrorFilter, PathModifier,
        PathModifierType, RedirectFilter, RedirectScheme,
    },
    plan::{
        attach::Refusal,
        backend::{Reference, Resolver},
        status::reason,
    },
};
use http::{HeaderName, HeaderValue, StatusCode};
use mesh_core::{
    mesh::{Cors, Filter, HeaderEdit, Mirror, PathEdit, Redirect, Rewrite, Scheme},
    name::Text,
};
use std::time::Duration;

/// Filters in the order of the spec, or what stands in for them.
pub(super) enum Filters {
    /// All of them can be applied.
    All(Vec<Filter>),
    /// One refers to an extension that does not exist: "requests that would have been processed by that filter MUST receive an HTTP error response".
    Failing,
}

pub(super) fn http(resolver: &mut Resolver<'_, '_>, field: &str, specs: &[HttpFilter]) -> Result<Filters, Refusal> {
    let mut filters = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let missing = |name: &str| unsupported(&format!("{field}.{name}"), "is required for this type");
        filters.push(match spec.r#type {
            HttpFilterType::RequestHeaderModifier => {
                let edit = spec.request_header_modifier.as_ref().ok_or_else(|| missing("requestHeaderModifier"))?;
                Filter::RequestHeaders(headers(&field, edit)?)
            }
            HttpFilterType::ResponseHeaderModifier => {
                let edit = spec.response_header_modifier.as_ref().ok_or_else(|| missing("responseHeaderModifier"))?;
                Filter::ResponseHeaders(headers(&field, edit)?)
            }
            HttpFilterType::RequestMirror => {
                let mirror_spec = spec.request_mirror.as_ref().ok_or_else(|| missing("requestMirror"))?;
                mirror(resolver, &field, mirror_spec)?
            }
            HttpFilterType::RequestRedirect => {
                let spec = spec.request_redirect.as_ref().ok_or_else(|| missing("requestRedirect"))?;
                Filter::Redirect(redirect(&field, spec)?)
            }
            HttpFilterType::UrlRewrite => {
                let spec = spec.url_rewrite.as_ref().ok_or_else(|| missing("urlRewrite"))?;
                let path = spec.path.as_ref().map(|p| path_edit(&field, p)).transpose()?;
                Filter::Rewrite(Rewrite { hostname: spec.hostname.as_deref().map(Text::from), path })
            }
            HttpFilterType::Cors => Filter::Cors(cors(spec.cors.as_ref().ok_or_else(|| missing("cors"))?)),
            HttpFilterType::ExternalAuth => {
                // Without this rule its requests might reach another rule, and a backend, without being asked who they are.
                let why = "ExternalAuth is not supported; requests of this rule are answered with 500";
                resolver.failing.push((resolver.rule, unsupported(&format!("{field}.type"), why)));
                return Ok(Filters::Failing);
            }
            HttpFilterType::ExtensionRef => {
                let kind = spec.extension_ref.as_ref().map(|r| format!("{}.{}", r.kind, r.group)).unwrap_or_default();
                extension(resolver, &field, &kind);
                return Ok(Filters::Failing);
            }
        });
    }
    let has = |wanted: fn(&Filter) -> bool| filters.iter().any(wanted);
    if has(|f| matches!(f, Filter::Redirect(_))) && has(|f| matches!(f, Filter::Rewrite(_))) {
        let message = format!("{field}: RequestRedirect and URLRewrite exclude each other");
        return Err(Refusal::new(reason::INCOMPATIBLE_FILTERS, message));
    }
    Ok(Filters::All(filters))
}

pub(super) fn grpc(resolver: &mut Resolver<'_, '_>, field: &str, specs: &[GrpcFilter]) -> Result<Filters, Refusal> {
    let mut filters = Vec::with_capacity(specs.len());
    for (i, spec) in specs.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let missing = |name: &str| unsupported(&format!("{field}.{name}"), "is required for this type");
        filters.push(match spec.r#type {
            GrpcFilterType::RequestHeaderModifier => {
                let edit = spec.request_header_modifier.as_ref().ok_or_else(|| missing("requestHeaderModifier"))?;
                Filter::RequestHeaders(headers(&field, edit)?)
            }
            GrpcFilterType::ResponseHeaderModifier => {
                let edit = spec.response_header_modifier.as_ref().ok_or_else(|| missing("responseHeaderModifier"))?;
                Filter::ResponseHeaders(headers(&field, edit)?)
            }
            GrpcFilterType::RequestMirror => {
                let mirror_spec = spec.request_mirror.as_ref().ok_or_else(|| missing("requestMirror"))?;
                mirror(resolver, &field, mirror_spec)?
            }
            GrpcFilterType::ExtensionRef => {
                let kind = spec.extension_ref.as_ref().map(|r| format!("{}.{}", r.kind, r.group)).unwrap_or_default();
                extension(resolver, &field, &kind);
                return Ok(Filters::Failing);
            }
        });
    }
    Ok(Filters::All(filters))
}

fn extension(resolver: &mut Resolver<'_, '_>, field: &str, kind: &str) {
    let message = format!("{kind} is not a filter that is supported; its requests are answered with 500");
    resolver.problem(&format!("{field}.extensionRef"), Refusal::new(reason::INVALID_KIND, message));
}

fn headers(field: &str, spec: &HeaderModifier) -> Result<HeaderEdit, Refusal> {
    let name = |text: &str| -> Result<HeaderName, Refusal> {
        text.parse().map_err(|_| unsupported(field, format!("{text:?} is not a header name")))
    };
    let mut edit = HeaderEdit::default();
    for (specs, into) in [(&spec.set, &mut edit.set), (&spec.add, &mut edit.add)] {
        for h in specs.iter().flatten() {
            let value = HeaderValue::from_str(&h.value)
                .map_err(|_| unsupported(field, format!("{:?} is not a header value", h.value)))?;
            let name = name(&h.name)?;
            // "If multiple entries specify equivalent header names, the first entry … MUST be considered".
            if !into.iter().any(|(seen, _)| *seen == name) {
                into.push((name, value));
            }
        }
    }
    for text in spec.remove.iter().flatten() {
        edit.remove.push(name(text)?);
    }
    Ok(edit)
}

fn mirror(resolver: &mut Resolver<'_, '_>, field: &str, spec: &MirrorFilter) -> Result<Filter, Refusal> {
    let (numerator, denominator) = match (&spec.fraction, spec.percent) {
        (Some(_), Some(_)) => return Err(unsupported(field, "percent and fraction exclude each other")),
        (None, None) => (1, 1),
        (None, Some(percent)) => (percent, 100),
        (Some(fraction), None) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
    };
    let (Ok(numerator), Ok(denominator)) = (u32::try_from(numerator), u32::try_from(denominator)) else {
        return Err(unsupported(field, "a share must not be negative"));
    };
    if denominator == 0 || numerator > denominator {
        return Err(unsupported(field, format!("{numerator}/{denominator} is not a share")));
    }
    let to = &spec.backend_ref;
    let reference = Reference {
        group: to.group.as_deref(),
        kind: to.kind.as_deref(),
        name: &to.name,
        namespace: to.namespace.as_deref(),
        port: to.port,
    };
    let target = resolver.resolve(&format!("{field}.requestMirror.backendRef"), &reference);
    Ok(Filter::Mirror(Mirror { target, numerator, denominator }))
}

fn redirect(field: &str, spec: &RedirectFilter) -> Result<Redirect, Refusal> {
    let code = spec.status_code.unwrap_or(302);
    let status = match code {
        301 | 302 | 303 | 307 | 308 => u16::try_from(code).ok().and_then(|c| StatusCode::from_u16(c).ok()),
        _ => None,
    };
    let port = spec.port.map(|p| u16::try_from(p).map_err(|_| unsupported(field, format!("{p} is not a port"))));
    Ok(Redirect {
        scheme: spec.scheme.as_ref().map(|s| match s {
            RedirectScheme::Http => Scheme::Http,
            RedirectScheme::Https => Scheme::Https,
        }),
        hostname: spec.hostname.as_deref().map(Text::from),
        path: spec.path.as_ref().map(|p| path_edit(field, p)).transpose()?,
        port: port.transpose()?,
        status: status.ok_or_else(|| unsupported(field, format!("{code} is not a status of a redirect")))?,
    })
}

fn path_edit(field: &str, spec: &PathModifier) -> Result<PathEdit, Refusal> {
    let missing = |name: &str| unsupported(field, format!("path.{name} is required for this type"));
    Ok(match spec.r#type {
        PathModifierType::ReplaceFullPath => {
            PathEdit::Full(spec.replace_full_path.as_deref().ok_or_else(|| missing("replaceFullPath"))?.into())
        }
        PathModifierType::ReplacePrefixMatch => {
            PathEdit::Prefix(spec.replace_prefix_match.as_deref().ok_or_else(|| missing("replacePrefixMatch"))?.into())
        }
    })
}

fn cors(spec: &CorsFilter) -> Cors {
    let list = |items: &Option<Vec<String>>| items.iter().flatten().map(|s| Text::from(s.as_str())).collect();
    Cors {
        allow_origins: list(&spec.allow_origins),
        allow_credentials: spec.allow_credentials.unwrap_or(false),
        allow_methods: list(&spec.allow_methods),
        allow_headers: list(&spec.allow_headers),
        expose_headers: list(&spec.expose_headers),
        // The CRD defaults it to 5 seconds, at least 1.
        max_age: Duration::from_secs(spec.max_age.map_or(5, |s| u64::try_from(s).unwrap_or(5))),
    }
}
