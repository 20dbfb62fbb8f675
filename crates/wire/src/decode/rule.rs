//! Doubts rules of HTTP and gRPC routes: matches, filters, timeouts, retry. It must not match.

use super::field::{At, Bad, header_name, header_value, list, number, port, required, shorten, some, text, time, word};
use super::route::{target, weight};
use crate::proto::{self, filter::Filter as F};
use http::{Method, StatusCode};
use mesh_core::{
    mesh::{
        BackendTarget, Cors, Filter, HeaderEdit, HeaderMatch, HttpBackend, HttpMatch, HttpRule, Mirror, PathEdit,
        PathMatch, Pattern, QueryMatch, Redirect, Retry, Rewrite, Scheme, TextMatch,
    },
    name::Text,
};
use std::time::Duration;

/// Most repetitions of one request: what is more is a loop, not a retry.
const ATTEMPTS_MAX: u32 = 1_000;

/// Most codes a retry names: there are no more from 400 to 599.
const CODES_MAX: usize = 200;

pub(super) fn http_rule(r: proto::HttpRule) -> Result<HttpRule, Bad> {
    let limit = |field, ns: Option<u64>| ns.map(|ns| time(ns, Duration::ZERO)).transpose().at(field);
    Ok(HttpRule {
        name: r.name.map(word).transpose().at("name")?,
        matches: list("matches", some("matches", r.matches)?, http_match)?,
        filters: list("filters", r.filters, filter)?,
        backends: list("backends", r.backends, backend)?,
        request_timeout: limit("request_timeout_ns", r.request_timeout_ns)?,
        backend_timeout: limit("backend_timeout_ns", r.backend_timeout_ns)?,
        retry: r.retry.map(retry).transpose().at("retry")?,
    })
}

fn backend(b: proto::HttpBackend) -> Result<HttpBackend, Bad> {
    Ok(HttpBackend {
        weight: weight(b.weight).at("weight")?,
        target: target(b.service).at("service")?,
        filters: list("filters", b.filters, filter)?,
    })
}

fn http_match(m: proto::HttpMatch) -> Result<HttpMatch, Bad> {
    let header = |h: proto::HeaderMatch| {
        Ok(HeaderMatch { name: header_name(&h.name).at("name")?, value: text_match(h.value).at("value")? })
    };
    let query = |q: proto::QueryMatch| {
        Ok(QueryMatch { name: word(q.name).at("name")?, value: text_match(q.value).at("value")? })
    };
    Ok(HttpMatch {
        path: path_match(required("path", m.path)?).at("path")?,
        method: match m.method {
            any if any.is_empty() => None,
            m => Some(
                Method::from_bytes(m.as_bytes())
                    .map_err(|_| Bad::new(format!("{:?} is not a method", shorten(&m))))
                    .at("method")?,
            ),
        },
        headers: list("headers", m.headers, header)?,
        query: list("query", m.query, query)?,
    })
}

fn path_match(m: proto::PathMatch) -> Result<PathMatch, Bad> {
    use proto::path_match::Path;
    Ok(match required("path", m.path)? {
        Path::Exact(p) => PathMatch::Exact(path(p).at("exact")?),
        Path::Prefix(p) => PathMatch::Prefix(prefix(p).at("prefix")?),
        Path::Regex(p) => PathMatch::Regex(pattern(p).at("regex")?),
        Path::Grpc(g) => PathMatch::Grpc {
            service: g.service.map(|m| text_match(Some(m))).transpose().at("service").at("grpc")?,
            method: g.method.map(|m| text_match(Some(m))).transpose().at("method").at("grpc")?,
        },
    })
}

fn path(p: String) -> Result<Text, Bad> {
    if !p.starts_with('/') {
        return Err(Bad::new(format!("{:?} does not begin with /", shorten(&p))));
    }
    text(p)
}

fn prefix(p: String) -> Result<Text, Bad> {
    if p.len() > 1 && p.ends_with('/') {
        return Err(Bad::new(format!("{:?} ends with /", shorten(&p))));
    }
    path(p)
}

fn pattern(source: String) -> Result<Pattern, Bad> {
    let source = text(source)?;
    Pattern::new(&source).map_err(|e| {
        // The crate draws the pattern with a caret over several lines; its last line says what is wrong.
        Bad::new(e.to_string().lines().last().unwrap_or("is not a regular expression").trim().to_owned())
    })
}

fn text_match(m: Option<proto::TextMatch>) -> Result<TextMatch, Bad> {
    use proto::text_match::Text;
    match m.and_then(|m| m.text) {
        Some(Text::Exact(t)) => Ok(TextMatch::Exact(text(t).at("exact")?)),
        Some(Text::Regex(t)) => Ok(TextMatch::Regex(pattern(t).at("regex")?)),
        None => Err(Bad::new("is missing")),
    }
}

fn filter(f: proto::Filter) -> Result<Filter, Bad> {
    Ok(match required("filter", f.filter)? {
        F::RequestHeaders(e) => Filter::RequestHeaders(header_edit(e).at("request_headers")?),
        F::ResponseHeaders(e) => Filter::ResponseHeaders(header_edit(e).at("response_headers")?),
        F::Redirect(r) => Filter::Redirect(redirect(r).at("redirect")?),
        F::Rewrite(r) => Filter::Rewrite(rewrite(r).at("rewrite")?),
        F::Mirror(m) => Filter::Mirror(mirror(m).at("mirror")?),
        F::Cors(c) => Filter::Cors(cors(c).at("cors")?),
    })
}

fn header_edit(e: proto::HeaderEdit) -> Result<HeaderEdit, Bad> {
    let header = |h: proto::Header| Ok((header_name(&h.name).at("name")?, header_value(&h.value).at("value")?));
    Ok(HeaderEdit {
        set: list("set", e.set, header)?,
        add: list("add", e.add, header)?,
        remove: list("remove", e.remove, |name| header_name(&name))?,
    })
}

fn redirect(r: proto::Redirect) -> Result<Redirect, Bad> {
    Ok(Redirect {
        scheme: match proto::Scheme::try_from(r.scheme) {
            Ok(proto::Scheme::Unspecified) => None,
            Ok(proto::Scheme::Http) => Some(Scheme::Http),
            Ok(proto::Scheme::Https) => Some(Scheme::Https),
            Err(_) => return Err(Bad::new(format!("{} is not a value of this enum", r.scheme))).at("scheme"),
        },
        hostname: r.hostname.map(word).transpose().at("hostname")?,
        path: r.path.map(path_edit).transpose().at("path")?,
        port: match r.port {
            0 => None,
            p => Some(port(p).at("port")?),
        },
        status: match r.status {
            // HTTPRequestRedirectFilter.statusCode: "Enum: 301;302;303;307;308".
            301 => StatusCode::MOVED_PERMANENTLY,
            302 => StatusCode::FOUND,
            303 => StatusCode::SEE_OTHER,
            307 => StatusCode::TEMPORARY_REDIRECT,
            308 => StatusCode::PERMANENT_REDIRECT,
            other => return Err(Bad::new(format!("{other} is not one of 301, 302, 303, 307, 308"))).at("status"),
        },
    })
}

fn rewrite(r: proto::Rewrite) -> Result<Rewrite, Bad> {
    Ok(Rewrite {
        hostname: r.hostname.map(word).transpose().at("hostname")?,
        path: r.path.map(path_edit).transpose().at("path")?,
    })
}

fn path_edit(e: proto::PathEdit) -> Result<PathEdit, Bad> {
    use proto::path_edit::Edit;
    Ok(match required("edit", e.edit)? {
        Edit::Full(p) => PathEdit::Full(text(p).at("full")?),
        Edit::Prefix(p) => PathEdit::Prefix(text(p).at("prefix")?),
    })
}

fn mirror(m: proto::Mirror) -> Result<Mirror, Bad> {
    let target: BackendTarget = target(m.service).at("service")?;
    let denominator = number(m.denominator, 1, u32::MAX).at("denominator")?;
    Ok(Mirror { target, numerator: number(m.numerator, 0, denominator).at("numerator")?, denominator })
}

fn cors(c: proto::Cors) -> Result<Cors, Bad> {
    Ok(Cors {
        allow_origins: list("allow_origins", c.allow_origins, word)?,
        allow_credentials: c.allow_credentials,
        allow_methods: list("allow_methods", c.allow_methods, word)?,
        allow_headers: list("allow_headers", c.allow_headers, word)?,
        expose_headers: list("expose_headers", c.expose_headers, word)?,
        max_age: time(c.max_age_ns, Duration::ZERO).at("max_age_ns")?,
    })
}

fn retry(r: proto::Retry) -> Result<Retry, Bad> {
    if r.codes.len() > CODES_MAX {
        return Err(Bad::new(format!("has {} items, more than {CODES_MAX}", r.codes.len()))).at("codes");
    }
    Ok(Retry {
        attempts: number(r.attempts, 0, ATTEMPTS_MAX).at("attempts")?,
        // HTTPRouteRetryStatusCode: "minimum 400, maximum 599".
        codes: list("codes", r.codes, |code| number(code, 400, 599).map(|c| c as u16))?,
        backoff: r.backoff_ns.map(|ns| time(ns, Duration::ZERO)).transpose().at("backoff_ns")?,
    })
}
