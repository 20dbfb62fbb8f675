//! Line: one record as one line of JSON. It must not queue or write to anything but the given buffer.

use super::{Kind, Party, Record};
use http::Version;
use std::{fmt::Display, io::Write, time::SystemTime};

/// Appends the line of `record`, with its newline.
pub fn append(record: &Record, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"ts\":\"");
    timestamp(record.started, out);
    out.push(b'"');
    text(
        out,
        "kind",
        Some(match record.kind {
            Kind::Request => "request",
            Kind::Connection => "connection",
        }),
    );
    text(out, "direction", Some(record.direction.label()));
    shown(out, "trace_id", record.trace.map(|t| t.trace_id));
    text(out, "request_id", record.request_id.as_ref().and_then(|v| v.to_str().ok()));
    text(out, "method", record.method.as_ref().map(|m| m.as_str()));
    text(out, "host", record.host.as_ref().map(|h| h.as_str()));
    text(out, "path", record.path.as_ref().map(|p| p.path()));
    text(out, "protocol", Some(protocol(record.version)));
    number(out, "status", record.status.map(|s| u64::from(s.as_u16())));
    number(out, "grpc_status", record.grpc_status.map(u64::from));
    party(out, "source", &record.source);
    party(out, "destination", &record.destination);
    shown(out, "service", record.service.as_ref().map(|(id, port)| service_port(id, *port)));
    shown(out, "route", record.route.as_ref());
    text(out, "rule", record.rule.as_deref());
    number(out, "attempts", Some(u64::from(record.attempts)));
    number(out, "bytes_in", Some(record.bytes_in));
    number(out, "bytes_out", Some(record.bytes_out));
    key(out, "duration_ms");
    put(out, format_args!("{:.3}", record.duration.as_secs_f64() * 1e3));
    text(out, "tls", record.tls);
    text(out, "fault", record.fault.map(mesh_core::fault::Fault::label));
    text(out, "detail", record.detail.as_deref());
    out.extend_from_slice(b"}\n");
}

fn protocol(version: Option<Version>) -> &'static str {
    match version {
        None => "tcp",
        Some(Version::HTTP_10) => "HTTP/1.0",
        Some(Version::HTTP_2) => "HTTP/2",
        Some(_) => "HTTP/1.1",
    }
}

fn party(out: &mut Vec<u8>, name: &str, party: &Party) {
    key(out, name);
    out.extend_from_slice(b"{\"workload\":");
    let workload = party.workload.as_deref();
    value(out, workload.map(|w| &w.id));
    shown(out, "owner", workload.map(|w| &w.owner));
    shown(out, "identity", party.identity.as_ref());
    shown(out, "address", party.address);
    out.push(b'}');
}

fn service_port(id: &mesh_core::name::ServiceId, port: u16) -> impl Display {
    struct ServicePort<'a>(&'a mesh_core::name::ServiceId, u16);
    impl Display for ServicePort<'_> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{}:{}", self.0, self.1)
        }
    }
    ServicePort(id, port)
}

fn key(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

fn text(out: &mut Vec<u8>, name: &str, text: Option<&str>) {
    key(out, name);
    match text {
        // Writing a str to a Vec cannot fail: both the serializer and the writer are total.
        Some(text) => drop(serde_json::to_writer(out, text)),
        None => out.extend_from_slice(b"null"),
    }
}

/// Values whose `Display` needs no escaping: names of Kubernetes objects, identities, addresses, hex.
fn shown(out: &mut Vec<u8>, name: &str, shown: Option<impl Display>) {
    key(out, name);
    value(out, shown);
}

fn value(out: &mut Vec<u8>, shown: Option<impl Display>) {
    match shown {
        Some(shown) => put(out, format_args!("\"{shown}\"")),
        None => out.extend_from_slice(b"null"),
    }
}

fn number(out: &mut Vec<u8>, name: &str, number: Option<u64>) {
    key(out, name);
    match number {
        Some(number) => put(out, format_args!("{number}")),
        None => out.extend_from_slice(b"null"),
    }
}

fn put(out: &mut Vec<u8>, args: std::fmt::Arguments<'_>) {
    // Writing to a Vec cannot fail.
    let _ = out.write_fmt(args);
}

/// RFC 3339 in UTC with milliseconds.
fn timestamp(at: SystemTime, out: &mut Vec<u8>) {
    let t = time::OffsetDateTime::from(at);
    put(
        out,
        format_args!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            t.year(),
            u8::from(t.month()),
            t.day(),
            t.hour(),
            t.minute(),
            t.second(),
            t.millisecond()
        ),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Direction;
    use http::{HeaderValue, Method, StatusCode};
    use mesh_core::{
        fault::Fault,
        mesh::{Enrolment, Mode, RouteId, RouteKind, Workload},
        name::NsName,
    };
    use std::{sync::Arc, time::Duration};

    fn parse(record: &Record) -> serde_json::Value {
        let mut out = Vec::new();
        append(record, &mut out);
        assert_eq!(out.iter().filter(|b| **b == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn an_empty_record_is_a_line_of_nulls() {
        let line = parse(&Record::new(Kind::Connection, Direction::Inbound));
        assert_eq!((&line["kind"], &line["direction"]), (&"connection".into(), &"inbound".into()));
        for absent in [
            "trace_id",
            "request_id",
            "method",
            "host",
            "path",
            "status",
            "grpc_status",
            "service",
            "route",
            "rule",
            "tls",
            "fault",
            "detail",
        ] {
            assert!(line.as_object().unwrap().contains_key(absent), "{absent} is there");
            assert!(line[absent].is_null(), "{absent}");
        }
        assert!(line["source"]["workload"].is_null());
    }

    #[test]
    fn a_full_record_says_everything_and_hostile_text_is_escaped() {
        let identity: mesh_core::identity::Identity = "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap();
        let workload = Arc::new(Workload {
            id: NsName::new("shop", "cart-1"),
            uid: "u".into(),
            node: "n1".into(),
            addresses: vec![],
            identity: identity.clone(),
            enrolment: Enrolment::Meshed(Mode::Strict),
            owner: "cart".into(),
            probes: [].into(),
        });
        let mut record = Record::new(Kind::Request, Direction::Outbound);
        record.started = SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_000_000_123);
        record.duration = Duration::from_micros(1500);
        record.trace = crate::telemetry::trace::parse(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        record.request_id = Some(HeaderValue::from_static("id\"1"));
        record.method = Some(Method::GET);
        record.host = Some(http::uri::Authority::from_static("cart:80"));
        record.path = Some("/a?secret=1".parse().unwrap());
        record.version = Some(Version::HTTP_2);
        record.status = Some(StatusCode::SERVICE_UNAVAILABLE);
        record.grpc_status = Some(14);
        record.source.workload = Some(workload);
        record.source.identity = Some(identity);
        record.source.address = Some("[::1]:80".parse().unwrap());
        record.service = Some((NsName::new("shop", "cart"), 80));
        record.route = Some(RouteId { kind: RouteKind::Http, name: NsName::new("shop", "split") });
        record.rule = Some("0".into());
        record.attempts = 3;
        record.bytes_in = 1;
        record.bytes_out = 2;
        record.tls = Some("TLSv1.3");
        record.fail(Fault::NoEndpoint, "nobody\nhome");
        record.fail(Fault::Internal, "a consequence");
        let expected = serde_json::json!({
            "ts": "2025-11-24T16:00:00.123Z", "kind": "request", "direction": "outbound",
            "trace_id": "0af7651916cd43dd8448eb211c80319c", "request_id": "id\"1", "method": "GET", "host": "cart:80",
            "path": "/a", "protocol": "HTTP/2", "status": 503, "grpc_status": 14,
            "source": {"workload": "shop/cart-1", "owner": "cart", "identity": "spiffe://cluster.local/ns/shop/sa/cart", "address": "[::1]:80"},
            "destination": {"workload": null, "owner": null, "identity": null, "address": null},
            "service": "shop/cart:80", "route": "HTTPRoute/shop/split", "rule": "0", "attempts": 3, "bytes_in": 1,
            "bytes_out": 2, "duration_ms": 1.5, "tls": "TLSv1.3", "fault": "no_endpoint", "detail": "nobody\nhome",
        });
        assert_eq!(parse(&record), expected);
    }
}
