//! Rules across fields that the CRDs state in CEL, by hand: one table, each with the CRD's own message. It must not repeat what the structural schema says.

use crate::{api::schema::Flaw, inventory::Kind};
use serde_json::Value;
use std::net::IpAddr;

/// One rule: whether it holds for the value at its place, and the message of the CRD if it does not.
struct Rule {
    kinds: &'static [Kind],
    /// Where: names of fields, `*` for each item of a list.
    place: &'static str,
    holds: fn(&Value) -> bool,
    message: &'static str,
}

/// The flaws of an object whose fields hold by themselves.
pub(super) fn check(kind: Kind, object: &Value) -> Vec<Flaw> {
    let mut flaws = Vec::new();
    for rule in RULES.iter().filter(|rule| rule.kinds.contains(&kind)) {
        each(object, rule.place, String::new(), &mut |value, field| {
            if !(rule.holds)(value) {
                flaws.push(Flaw { field, reason: rule.message.into() });
            }
        });
    }
    for (_, place, judge) in JUDGES.iter().filter(|(kinds, ..)| kinds.contains(&kind)) {
        each(object, place, String::new(), &mut |value, field| {
            if let Some(reason) = judge(value) {
                flaws.push(Flaw { field, reason });
            }
        });
    }
    flaws
}

fn each(value: &Value, place: &str, field: String, visit: &mut dyn FnMut(&Value, String)) {
    let (step, rest) = place.split_once('.').unwrap_or((place, ""));
    match step {
        "" => visit(value, field),
        "*" => {
            for (i, item) in value.as_array().into_iter().flatten().enumerate() {
                each(item, rest, format!("{field}[{i}]"), visit);
            }
        }
        step => {
            let inner = &value[step];
            if !inner.is_null() {
                let dot = if field.is_empty() { "" } else { "." };
                each(inner, rest, format!("{field}{dot}{step}"), visit);
            }
        }
    }
}

const ROUTES: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute, Kind::TlsRoute, Kind::TcpRoute, Kind::UdpRoute];
const L7: &[Kind] = &[Kind::HttpRoute, Kind::GrpcRoute];
const HTTP: &[Kind] = &[Kind::HttpRoute];
const GRPC: &[Kind] = &[Kind::GrpcRoute];
const LISTENERS: &[Kind] = &[Kind::Gateway, Kind::ListenerSet];

fn has(value: &Value, field: &str) -> bool {
    !value[field].is_null()
}

fn items<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + Clone {
    value[field].as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn listener(value: &Value, protocols: &[&str]) -> bool {
    value["protocol"].as_str().is_some_and(|p| protocols.contains(&p))
}

fn unique<K: PartialEq>(list: &Value, key: impl Fn(&Value) -> K) -> bool {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter().enumerate().all(|(i, a)| list[..i].iter().all(|b| key(a) != key(b)))
}

fn filter_types(filters: &Value) -> impl Iterator<Item = &str> + Clone {
    filters.as_array().map_or(&[][..], Vec::as_slice).iter().filter_map(|f| f["type"].as_str())
}

fn at_most_once(filters: &Value, kind: &str) -> bool {
    filter_types(filters).filter(|t| *t == kind).count() <= 1
}

const FILTER_FIELDS: [(&str, &str); 8] = [
    ("RequestHeaderModifier", "requestHeaderModifier"),
    ("ResponseHeaderModifier", "responseHeaderModifier"),
    ("RequestMirror", "requestMirror"),
    ("RequestRedirect", "requestRedirect"),
    ("URLRewrite", "urlRewrite"),
    ("CORS", "cors"),
    ("ExternalAuth", "externalAuth"),
    ("ExtensionRef", "extensionRef"),
];

/// A filter has the field of its type, and no other type's.
fn filter(filter: &Value) -> Option<String> {
    FILTER_FIELDS.iter().find_map(|(kind, field)| match (filter["type"] == *kind, has(filter, field)) {
        (true, false) => Some(format!("filter.{field} must be specified for {kind} filter.type")),
        (false, true) => Some(format!("filter.{field} must be nil if the filter.type is not {kind}")),
        _ => None,
    })
}

/// HTTPPathMatch of the types Exact and PathPrefix.
fn path(path: &Value) -> Option<String> {
    let value = path["value"].as_str().unwrap_or("/");
    if path["type"] == "RegularExpression" {
        return None;
    }
    let types = "when type one of ['Exact', 'PathPrefix']";
    if !value.starts_with('/') {
        return Some(format!("value must be an absolute path and start with '/' {types}"));
    }
    for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(part) {
            return Some(format!("must not contain '{part}' {types}"));
        }
    }
    for end in ["/..", "/."] {
        if value.ends_with(end) {
            return Some(format!("must not end with '{end}' {types}"));
        }
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@%".contains(&b);
    (!value.bytes().all(plain)).then(|| "must only contain valid characters of a URL path".to_owned())
}

/// Says what is wrong with a value, if anything is.
type Judge = fn(&Value) -> Option<String>;

/// Rules whose message depends on what is wrong.
const JUDGES: &[(&[Kind], &str, Judge)] = &[
    (L7, "spec.rules.*.filters.*", filter),
    (L7, "spec.rules.*.backendRefs.*.filters.*", filter),
    (HTTP, "spec.rules.*.matches.*.path", path),
    (&[Kind::Gateway], "spec.addresses.*", address),
];

/// GatewaySpecAddress; the CRD says this in a `oneOf` of formats.
fn address(address: &Value) -> Option<String> {
    let value = address["value"].as_str()?;
    match address["type"].as_str() {
        Some("IPAddress") if value.parse::<IpAddr>().is_err() => Some(format!("{value:?} is not an IP address")),
        Some("Hostname") if !value.is_empty() && !is_hostname(value) => Some(format!("{value:?} is not a hostname")),
        _ => None,
    }
}

/// `^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
fn is_hostname(value: &str) -> bool {
    let byte = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let label = |l: &str| !l.is_empty() && !l.starts_with('-') && !l.ends_with('-') && l.bytes().all(byte);
    value.strip_prefix("*.").unwrap_or(value).split('.').all(label)
}

fn window(value: &Value, least: f64) -> bool {
    seconds(value).is_none_or(|s| s >= least && s <= 3600.0)
}

fn prefix_needs_prefix_match(rule: &Value) -> bool {
    let of = |filter: &Value, field: &str| filter[field]["path"]["type"] == "ReplacePrefixMatch";
    let own = items(rule, "filters");
    let of_backends = items(rule, "backendRefs").flat_map(|b| items(b, "filters"));
    let replaces = own.chain(of_backends).any(|f| of(f, "requestRedirect") || of(f, "urlRewrite"));
    let matches: Vec<&Value> = items(rule, "matches").collect();
    !replaces || (matches.len() == 1 && matches[0]["path"]["type"] == "PathPrefix")
}

fn parents_are_distinct(parents: &Value) -> bool {
    unique(parents, |p| {
        let text = |field: &str| p[field].as_str().unwrap_or_default().to_owned();
        (
            text("group"),
            text("kind"),
            text("namespace"),
            text("name"),
            text("sectionName"),
            p["port"].as_i64().unwrap_or(0),
        )
    })
}

/// Either all references to one parent name a section or port, or there is one only.
fn parents_are_told_apart(parents: &Value) -> bool {
    let list = parents.as_array().map_or(&[][..], Vec::as_slice);
    let same = |a: &Value, b: &Value| ["group", "kind", "namespace", "name"].iter().all(|f| a[f] == b[f]);
    let section = |p: &Value| has(p, "sectionName") && p["sectionName"] != "";
    list.iter().enumerate().all(|(i, a)| {
        list[..i].iter().filter(|b| same(a, b)).all(|b| section(a) == section(b) && has(a, "port") == has(b, "port"))
    })
}

fn service_has_port(reference: &Value) -> bool {
    let group = reference["group"].as_str().unwrap_or_default();
    let kind = reference["kind"].as_str().unwrap_or("Service");
    !(group.is_empty() && kind == "Service") || has(reference, "port")
}

fn seconds(value: &Value) -> Option<f64> {
    let mut total = 0.0;
    let mut rest = value.as_str()?;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .map(|(unit, factor)| (factor, unit.len()))?;
        total += number * unit;
        rest = &rest[length..];
    }
    Some(total)
}

fn backend_timeout_fits(timeouts: &Value) -> bool {
    match (seconds(&timeouts["request"]), seconds(&timeouts["backendRequest"])) {
        (Some(request), Some(backend)) => request == 0.0 || backend <= request,
        _ => true,
    }
}

const RULES: &[Rule] = &[
    Rule {
        kinds: &[Kind::Gateway],
        place: "spec.addresses",
        holds: |list| {
            let valued: Vec<&Value> = list.as_array().into_iter().flatten().filter(|a| has(a, "value")).collect();
            valued.iter().enumerate().all(|(i, a)| !valued[..i].contains(a))
        },
        message: "IPAddress and Hostname values must be unique",
    },
    Rule {
        kinds: ROUTES,
        place: "spec.parentRefs",
        holds: parents_are_told_apart,
        message: "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent",
    },
    Rule {
        kinds: ROUTES,
        place: "spec.parentRefs",
        holds: parents_are_distinct,
        message: "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
    },
    Rule {
        kinds: ROUTES,
        place: "spec.rules",
        holds: |rules| {
            let named: Vec<&Value> = rules
                .as_array()
                .map_or(&[][..], Vec::as_slice)
                .iter()
                .map(|r| &r["name"])
                .filter(|n| !n.is_null())
                .collect();
            named.iter().enumerate().all(|(i, n)| !named[..i].contains(n))
        },
        message: "Rule name must be unique within the route",
    },
    Rule {
        kinds: ROUTES,
        place: "spec.rules.*.backendRefs.*",
        holds: service_has_port,
        message: "Must have port for Service reference",
    },
    Rule {
        kinds: L7,
        place: "spec.rules.*.filters.*.requestMirror.backendRef",
        holds: service_has_port,
        message: "Must have port for Service reference",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*",
        holds: |rule| {
            !items(rule, "filters").any(|f| has(f, "requestRedirect")) || items(rule, "backendRefs").next().is_none()
        },
        message: "RequestRedirect filter must not be used together with backendRefs",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*",
        holds: prefix_needs_prefix_match,
        message: "When using a filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.timeouts",
        holds: backend_timeout_fits,
        message: "backendRequest timeout cannot be longer than request timeout",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters",
        holds: |f| !(filter_types(f).any(|t| t == "RequestRedirect") && filter_types(f).any(|t| t == "URLRewrite")),
        message: "May specify either requestRedirect or urlRewrite, but not both",
    },
    Rule {
        kinds: L7,
        place: "spec.rules.*.filters",
        holds: |f| at_most_once(f, "RequestHeaderModifier"),
        message: "RequestHeaderModifier filter cannot be repeated",
    },
    Rule {
        kinds: L7,
        place: "spec.rules.*.filters",
        holds: |f| at_most_once(f, "ResponseHeaderModifier"),
        message: "ResponseHeaderModifier filter cannot be repeated",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters",
        holds: |f| at_most_once(f, "RequestRedirect"),
        message: "RequestRedirect filter cannot be repeated",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters",
        holds: |f| at_most_once(f, "URLRewrite"),
        message: "URLRewrite filter cannot be repeated",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters",
        holds: |f| at_most_once(f, "CORS"),
        message: "CORS filter cannot be repeated",
    },
    Rule {
        kinds: L7,
        place: "spec.rules.*.filters.*.requestMirror",
        holds: |m| !(has(m, "percent") && has(m, "fraction")),
        message: "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter",
    },
    Rule {
        kinds: L7,
        place: "spec.rules.*.filters.*.requestMirror.fraction",
        holds: |f| f["numerator"].as_i64().unwrap_or(0) <= f["denominator"].as_i64().unwrap_or(100),
        message: "numerator must be less than or equal to denominator",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters.*.urlRewrite.path",
        holds: path_modifier_fits,
        message: "the path modifier's type and its field must be of one kind",
    },
    Rule {
        kinds: HTTP,
        place: "spec.rules.*.filters.*.requestRedirect.path",
        holds: path_modifier_fits,
        message: "the path modifier's type and its field must be of one kind",
    },
    Rule {
        kinds: GRPC,
        place: "spec.rules.*.matches.*.method",
        holds: |m| has(m, "service") || has(m, "method"),
        message: "One or both of 'service' or 'method' must be specified",
    },
    Rule {
        kinds: GRPC,
        place: "spec.rules.*.matches.*.method",
        holds: |m| {
            let text = m["method"].as_str().unwrap_or_default();
            m["type"] == "RegularExpression" || text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        },
        message: "method must only contain valid characters (matching ^[A-Za-z_][A-Za-z_0-9]*$)",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners",
        holds: |list| unique(list, |l| l["name"].clone()),
        message: "Listener name must be unique within the Gateway",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners",
        holds: |list| unique(list, |l| (l["port"].clone(), l["protocol"].clone(), l["hostname"].clone())),
        message: "Combination of port, protocol and hostname must be unique for each listener",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners.*",
        holds: |l| !listener(l, &["HTTP", "TCP", "UDP"]) || !has(l, "tls"),
        message: "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners.*",
        holds: |l| !listener(l, &["HTTPS"]) || l["tls"]["mode"].is_null() || l["tls"]["mode"] == "Terminate",
        message: "tls mode must be Terminate for protocol HTTPS",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners.*",
        holds: |l| !listener(l, &["TLS"]) || l["tls"]["mode"].is_string(),
        message: "tls mode must be set for protocol TLS",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners.*",
        holds: |l| !listener(l, &["TCP", "UDP"]) || !has(l, "hostname") || l["hostname"] == "",
        message: "hostname must not be specified for protocols ['TCP', 'UDP']",
    },
    Rule {
        kinds: LISTENERS,
        place: "spec.listeners.*.tls",
        holds: |t| t["mode"] != "Terminate" || items(t, "certificateRefs").next().is_some() || has(t, "options"),
        message: "certificateRefs or options must be specified when mode is Terminate",
    },
    Rule {
        kinds: L7,
        place: "spec.rules",
        holds: |rules| {
            rules.as_array().into_iter().flatten().map(|r| items(r, "matches").count()).sum::<usize>() <= 128
        },
        message: "While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than 128",
    },
    Rule {
        kinds: &[Kind::TlsRoute],
        place: "spec.hostnames",
        holds: |hosts| {
            hosts.as_array().into_iter().flatten().filter_map(Value::as_str).all(|h| h.parse::<IpAddr>().is_err())
        },
        message: "Hostnames cannot contain an IP",
    },
    Rule {
        kinds: &[Kind::XBackendTrafficPolicy],
        place: "spec.retryConstraint.budget.interval",
        holds: |v| window(v, 1.0),
        message: "interval cannot be greater than one hour or less than one second",
    },
    Rule {
        kinds: &[Kind::XBackendTrafficPolicy],
        place: "spec.retryConstraint.minRetryRate.interval",
        holds: |v| window(v, 0.001),
        message: "interval cannot be greater than one hour",
    },
];

fn path_modifier_fits(path: &Value) -> bool {
    (path["type"] == "ReplaceFullPath") == has(path, "replaceFullPath")
        && (path["type"] == "ReplacePrefixMatch") == has(path, "replacePrefixMatch")
}
