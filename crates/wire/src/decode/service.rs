//! Doubts workloads, Services, endpoints and policies. It must not look whether what they name is there; resources may come in any order.

use super::field::{At, Bad, address, choice, list, name, ns_name, number, port, some, time, uid, word};
use crate::proto;
use mesh_core::{
    identity::BadIdentity,
    mesh::{
        AppProtocol, Endpoint, EndpointHealth, EndpointSlice, Enrolment, Mode, PortMapping, RetryBudget, Service,
        ServicePort, TrafficPolicy, Workload,
    },
};
use std::{sync::Arc, time::Duration};

/// Shortest window of a retry budget: a window of nothing counts nothing.
const BUDGET_WINDOW_MIN: Duration = Duration::from_millis(1);

pub(super) fn workload(w: proto::Workload) -> Result<Workload, Bad> {
    Ok(Workload {
        id: ns_name(w.id).at("id")?,
        uid: uid(w.uid).at("uid")?,
        node: name(w.node).at("node")?,
        addresses: list("addresses", w.addresses, address)?,
        identity: w.identity.parse().map_err(|e: BadIdentity| Bad::new(e.to_string())).at("identity")?,
        enrolment: match choice("enrolment", w.enrolment)? {
            proto::Enrolment::None => Enrolment::None,
            proto::Enrolment::Joining => Enrolment::Joining,
            proto::Enrolment::Leaving => Enrolment::Leaving,
            proto::Enrolment::Permissive => Enrolment::Meshed(Mode::Permissive),
            proto::Enrolment::Strict | proto::Enrolment::Unspecified => Enrolment::Meshed(Mode::Strict),
        },
        owner: name(w.owner).at("owner")?,
        // Of nearly all pods nothing is told, and the empty list is one for all.
        probes: if w.probes.is_empty() { Arc::default() } else { super::probe::probes(w.probes)?.into() },
    })
}

pub(super) fn service(s: proto::Service) -> Result<Service, Bad> {
    Ok(Service {
        id: ns_name(s.id).at("id")?,
        addresses: list("addresses", s.addresses, address)?,
        ports: list("ports", s.ports, service_port)?,
    })
}

fn service_port(p: proto::ServicePort) -> Result<ServicePort, Bad> {
    Ok(ServicePort {
        number: port(p.number).at("number")?,
        name: name(p.name).at("name")?,
        protocol: match choice("protocol", p.protocol)? {
            proto::AppProtocol::None | proto::AppProtocol::Unspecified => AppProtocol::Unspecified,
            proto::AppProtocol::Tcp => AppProtocol::Tcp,
            proto::AppProtocol::Http => AppProtocol::Http,
            proto::AppProtocol::H2c => AppProtocol::H2c,
            proto::AppProtocol::Grpc => AppProtocol::Grpc,
            proto::AppProtocol::WebSocket => AppProtocol::WebSocket,
            proto::AppProtocol::Tls => AppProtocol::Tls,
        },
    })
}

pub(super) fn endpoint_slice(s: proto::EndpointSlice) -> Result<EndpointSlice, Bad> {
    let mapping = |p: proto::PortMapping| {
        Ok(PortMapping {
            service_port: port(p.service_port).at("service_port")?,
            target_port: port(p.target_port).at("target_port")?,
        })
    };
    Ok(EndpointSlice {
        id: ns_name(s.id).at("id")?,
        service: ns_name(s.service).at("service")?,
        ports: list("ports", s.ports, mapping)?,
        endpoints: list("endpoints", s.endpoints, endpoint)?,
    })
}

fn endpoint(e: proto::Endpoint) -> Result<Endpoint, Bad> {
    Ok(Endpoint {
        address: address(e.address).at("address")?,
        workload: match e.workload {
            none if none.is_empty() => None,
            named => Some(ns_name(named).at("workload")?),
        },
        health: match choice("health", e.health)? {
            proto::EndpointHealth::Ready => EndpointHealth::Ready,
            proto::EndpointHealth::Fallback => EndpointHealth::Fallback,
            proto::EndpointHealth::NotReady | proto::EndpointHealth::Unspecified => EndpointHealth::NotReady,
        },
        zone: name(e.zone).at("zone")?,
        node: name(e.node).at("node")?,
    })
}

pub(super) fn traffic_policy(p: proto::TrafficPolicy) -> Result<TrafficPolicy, Bad> {
    Ok(TrafficPolicy {
        id: ns_name(p.id).at("id")?,
        targets: list("targets", p.targets, ns_name)?,
        retry_budget: p.retry_budget.map(retry_budget).transpose().at("retry_budget")?,
    })
}

fn retry_budget(b: proto::RetryBudget) -> Result<RetryBudget, Bad> {
    Ok(RetryBudget {
        percent: number(b.percent, 0, 100).at("percent")? as u8,
        interval: time(b.interval_ns, BUDGET_WINDOW_MIN).at("interval_ns")?,
        min_retries: b.min_retries,
        min_interval: time(b.min_interval_ns, BUDGET_WINDOW_MIN).at("min_interval_ns")?,
    })
}

/// A non-empty list of ports.
pub(super) fn ports(field: &str, values: Vec<u32>) -> Result<Vec<u16>, Bad> {
    list(field, some(field, values)?, port)
}

/// A name that must not be empty, at its field.
pub(super) fn named(field: &str, value: String) -> Result<mesh_core::name::Text, Bad> {
    word(value).at(field)
}
