//! Matches: paths, headers, query parameters and gRPC methods compiled. It must not match; the proxy does.

use super::unsupported;
use crate::{
    api::{self, GrpcMatch, HttpMethod, PathMatchType, ValueMatch, ValueMatchType},
    plan::attach::Refusal,
};
use http::{HeaderName, Method};
use mesh_core::mesh::{HeaderMatch, HttpMatch, PathMatch, Pattern, QueryMatch, TextMatch};

pub(super) fn http(field: &str, spec: &api::HttpMatch) -> Result<HttpMatch, Refusal> {
    let path = match &spec.path {
        None => PathMatch::Prefix("/".into()),
        Some(path) => {
            let value = path.value.as_deref().unwrap_or("/");
            match path.r#type.as_ref().unwrap_or(&PathMatchType::PathPrefix) {
                PathMatchType::Exact => PathMatch::Exact(value.into()),
                // "Matching is … done on a path element by element basis"; a trailing slash says nothing: "/abc/" is "/abc".
                PathMatchType::PathPrefix => match value.trim_end_matches('/') {
                    "" => PathMatch::Prefix("/".into()),
                    prefix => PathMatch::Prefix(prefix.into()),
                },
                PathMatchType::RegularExpression => PathMatch::Regex(pattern(&format!("{field}.path.value"), value)?),
            }
        }
    };
    let mut query: Vec<QueryMatch> = Vec::new();
    for (i, q) in spec.query_params.iter().flatten().enumerate() {
        // "If multiple entries specify equivalent query param names, only the first entry … MUST be considered".
        if !query.iter().any(|seen| *seen.name == *q.name) {
            query.push(QueryMatch {
                name: q.name.as_str().into(),
                value: text(&format!("{field}.queryParams[{i}]"), q)?,
            });
        }
    }
    let headers = headers(field, spec.headers.as_deref().unwrap_or_default())?;
    Ok(HttpMatch { path, method: spec.method.as_ref().map(method), headers, query })
}

pub(super) fn grpc(field: &str, spec: &GrpcMatch) -> Result<HttpMatch, Refusal> {
    let path = match &spec.method {
        None => PathMatch::Grpc { service: None, method: None },
        Some(m) => {
            let part = |name: &str, value: &Option<String>| {
                let value = value.as_deref().filter(|v| !v.is_empty());
                value.map(|v| match m.r#type.as_ref().unwrap_or(&ValueMatchType::Exact) {
                    ValueMatchType::Exact => Ok(TextMatch::Exact(v.into())),
                    ValueMatchType::RegularExpression => {
                        pattern(&format!("{field}.method.{name}"), v).map(TextMatch::Regex)
                    }
                })
            };
            PathMatch::Grpc {
                service: part("service", &m.service).transpose()?,
                method: part("method", &m.method).transpose()?,
            }
        }
    };
    let headers = headers(field, spec.headers.as_deref().unwrap_or_default())?;
    Ok(HttpMatch { path, method: None, headers, query: Vec::new() })
}

fn headers(field: &str, specs: &[ValueMatch]) -> Result<Vec<HeaderMatch>, Refusal> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for (i, h) in specs.iter().enumerate() {
        let field = format!("{field}.headers[{i}]");
        let name: HeaderName =
            h.name.parse().map_err(|_| unsupported(&field, format!("{:?} is not a header name", h.name)))?;
        // "only the first entry with an equivalent name MUST be considered for a match. … case-insensitive".
        if !headers.iter().any(|seen| seen.name == name) {
            headers.push(HeaderMatch { name, value: text(&field, h)? });
        }
    }
    Ok(headers)
}

fn text(field: &str, spec: &ValueMatch) -> Result<TextMatch, Refusal> {
    Ok(match spec.r#type.as_ref().unwrap_or(&ValueMatchType::Exact) {
        ValueMatchType::Exact => TextMatch::Exact(spec.value.as_str().into()),
        ValueMatchType::RegularExpression => TextMatch::Regex(pattern(&format!("{field}.value"), &spec.value)?),
    })
}

fn pattern(field: &str, source: &str) -> Result<Pattern, Refusal> {
    // The message of the regex crate draws the place on several lines; a condition's message is one line.
    Pattern::new(source).map_err(|e| {
        let text = e.to_string();
        let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        unsupported(field, format!("{source:?} is not a regular expression that is supported: {last}"))
    })
}

const fn method(method: &HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Connect => Method::CONNECT,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Trace => Method::TRACE,
        HttpMethod::Patch => Method::PATCH,
    }
}
