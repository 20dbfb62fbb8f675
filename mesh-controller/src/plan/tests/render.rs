//! A plan as text that a person can review: one line for one thing said. It must not leave anything out but keys of certificates.

use crate::plan::{
    Plan,
    status::{Body, Condition, Status},
};
use mesh_core::{
    mesh::{Attachment, BackendTarget, Filter, HttpBackend, HttpRule},
    node::Resource,
};
use std::fmt::Write;

pub(super) fn plan(plan: &Plan) -> String {
    let mut out = String::from("== mesh\n");
    for resource in plan.mesh.iter() {
        let _ = writeln!(out, "{}", resource.id());
        self::resource(&mut out, resource);
    }
    out.push_str("\n== statuses\n");
    statuses(&mut out, plan);
    out
}

pub(super) fn statuses(out: &mut String, plan: &Plan) {
    for (key, status) in &plan.statuses {
        let _ = writeln!(out, "{key} generation {}", status.generation);
        self::status(out, status);
    }
}

fn resource(out: &mut String, resource: &Resource) {
    match resource {
        Resource::Roots(_) => unreachable!("the plan makes no roots"),
        Resource::Settings(s) => {
            let mode = s.mode.map_or_else(|| "Off".to_owned(), |mode| format!("{mode:?}"));
            let _ = writeln!(out, "  {} {} {mode} svid {:?}", s.name, s.trust_domain, s.svid_lifetime);
            let _ = writeln!(out, "  access log {:?}, tracing {:?}", s.access_log, s.tracing);
            let _ = writeln!(out, "  {:?}", s.limits);
        }
        Resource::Workload(w) => {
            let _ = writeln!(
                out,
                "  {} {:?} node {:?} {:?} owner {} uid {:?}",
                w.identity, w.enrolment, &*w.node, w.addresses, w.owner, w.uid
            );
        }
        Resource::Service(s) => {
            let _ = writeln!(out, "  {:?}", s.addresses);
            for port in &s.ports {
                let _ = writeln!(out, "  port {} {:?} {:?}", port.number, &*port.name, port.protocol);
            }
        }
        Resource::EndpointSlice(s) => {
            let ports: Vec<String> = s.ports.iter().map(|p| format!("{}→{}", p.service_port, p.target_port)).collect();
            let _ = writeln!(out, "  of {} ports {}", s.service, ports.join(" "));
            for e in &s.endpoints {
                let _ = writeln!(
                    out,
                    "  {} {:?} {:?} zone {:?} node {:?}",
                    e.address, e.health, e.workload, &*e.zone, &*e.node
                );
            }
        }
        Resource::Certificate(c) => {
            let _ = writeln!(out, "  {} certificates", c.chain.len());
        }
        Resource::Gateway(g) => {
            let _ = writeln!(out, "  {:?}", g.addresses);
            for l in &g.listeners {
                let _ = writeln!(out, "  listener {} :{} {:?} {:?}", l.name, l.port, l.hostname, l.protocol);
            }
        }
        Resource::HttpRoute(r) => {
            attachments(out, &r.attachments);
            for rule in &r.rules {
                self::rule(out, rule);
            }
        }
        Resource::StreamRoute(r) => {
            attachments(out, &r.attachments);
            for (weight, to) in &r.backends {
                let _ = writeln!(out, "  {weight} {}", target(to));
            }
        }
        Resource::TrafficPolicy(p) => {
            let _ = writeln!(out, "  {:?} {:?}", p.targets, p.retry_budget);
        }
    }
}

fn attachments(out: &mut String, attachments: &[Attachment]) {
    for a in attachments {
        let _ = match a {
            Attachment::Service { service, ports, scope, hostnames } if hostnames.is_empty() => {
                writeln!(out, "  at Service {service} {ports:?} {scope:?}")
            }
            Attachment::Service { service, ports, scope, hostnames } => {
                writeln!(out, "  at Service {service} {ports:?} {scope:?} {hostnames:?}")
            }
            Attachment::Listener { gateway, listener, hostnames } => {
                writeln!(out, "  at Gateway {gateway} {listener} {hostnames:?}")
            }
        };
    }
}

fn rule(out: &mut String, rule: &HttpRule) {
    let _ = writeln!(out, "  rule {}", rule.name.as_deref().unwrap_or("-"));
    for m in &rule.matches {
        let _ = write!(out, "    match {:?}", m.path);
        if let Some(method) = &m.method {
            let _ = write!(out, " {method}");
        }
        for h in &m.headers {
            let _ = write!(out, " header {} {:?}", h.name, h.value);
        }
        for q in &m.query {
            let _ = write!(out, " query {} {:?}", q.name, q.value);
        }
        out.push('\n');
    }
    filters(out, "    ", &rule.filters);
    for HttpBackend { weight, target: to, filters: f } in &rule.backends {
        let _ = writeln!(out, "    {weight} {}", target(to));
        filters(out, "      ", f);
    }
    if rule.request_timeout.is_some() || rule.backend_timeout.is_some() {
        let _ = writeln!(out, "    timeouts {:?} {:?}", rule.request_timeout, rule.backend_timeout);
    }
    if let Some(retry) = &rule.retry {
        let _ = writeln!(out, "    {retry:?}");
    }
}

fn filters(out: &mut String, indent: &str, filters: &[Filter]) {
    for f in filters {
        let _ = match f {
            Filter::Mirror(m) => {
                writeln!(out, "{indent}Mirror {}/{} to {}", m.numerator, m.denominator, target(&m.target))
            }
            other => writeln!(out, "{indent}{other:?}"),
        };
    }
}

fn target(target: &BackendTarget) -> String {
    match target {
        BackendTarget::Service { service, port } => format!("Service {service}:{port}"),
        BackendTarget::Broken => "Broken".into(),
    }
}

fn status(out: &mut String, status: &Status) {
    match &status.body {
        Body::Route(parents) => {
            for p in parents {
                let r = &p.parent;
                let _ = write!(
                    out,
                    "  parent {} {}",
                    r.kind.as_deref().unwrap_or("-"),
                    r.namespace.as_deref().unwrap_or("-")
                );
                let _ = write!(out, "/{}", r.name);
                if let Some(section) = &r.section_name {
                    let _ = write!(out, " {section}");
                }
                if let Some(port) = r.port {
                    let _ = write!(out, " :{port}");
                }
                out.push('\n');
                conditions(out, "    ", &p.conditions);
            }
        }
        Body::Policy(ancestors) => {
            for a in ancestors {
                let _ = writeln!(out, "  ancestor {} {}", a.kind, a.name);
                conditions(out, "    ", &a.conditions);
            }
        }
        Body::Gateway { addresses, conditions: list, listeners } => {
            let _ = writeln!(out, "  addresses {addresses:?}");
            conditions(out, "  ", list);
            for l in listeners {
                let kinds: Vec<&str> = l.supported_kinds.iter().map(|k| k.as_str()).collect();
                let _ = writeln!(out, "  listener {} [{}] attached {}", l.name, kinds.join(" "), l.attached_routes);
                conditions(out, "    ", &l.conditions);
            }
        }
        Body::Class { conditions: list, features } | Body::Mesh { conditions: list, features } => {
            conditions(out, "  ", list);
            let _ = writeln!(out, "  {} features", features.len());
        }
    }
}

fn conditions(out: &mut String, indent: &str, conditions: &[Condition]) {
    for c in conditions {
        let _ = writeln!(out, "{indent}{}={} {}: {}", c.kind, c.state.as_str(), c.reason, c.message);
    }
}
