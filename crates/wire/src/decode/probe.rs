//! Doubts what a kubelet asks of a pod. It must not know who may ask.

use super::field::{At, Bad, header_name, header_value, list, port, required, shorten, text};
use crate::proto;
use http::uri::PathAndQuery;
use mesh_core::mesh::{Ask, HttpProbe, Probe};

/// Most probes of a pod: three and two hooks for each container of far more containers than a pod has.
const PROBES_MAX: usize = 256;

pub(super) fn probes(probes: Vec<proto::Probe>) -> Result<Vec<Probe>, Bad> {
    if probes.len() > PROBES_MAX {
        return Err(Bad::new(format!("has {} items, more than {PROBES_MAX}", probes.len()))).at("probes");
    }
    list("probes", probes, probe)
}

fn probe(p: proto::Probe) -> Result<Probe, Bad> {
    use proto::probe::Ask as In;
    Ok(Probe {
        port: port(p.port).at("port")?,
        ask: match required("ask", p.ask)? {
            In::Http(h) => Ask::Http(http(h).at("http")?),
            In::Tcp(proto::TcpProbe {}) => Ask::Tcp,
            In::Grpc(g) => Ask::Grpc { service: text(g.service).at("grpc.service")? },
        },
    })
}

fn http(h: proto::HttpProbe) -> Result<HttpProbe, Bad> {
    let header = |h: proto::Header| Ok((header_name(&h.name).at("name")?, header_value(&h.value).at("value")?));
    Ok(HttpProbe { tls: h.tls, target: target(h.target).at("target")?, headers: list("headers", h.headers, header)? })
}

/// A request target in origin form, and the same text when it is written again.
fn target(value: String) -> Result<PathAndQuery, Bad> {
    let bad = || Bad::new(format!("{:?} is not a path of a request", shorten(&value)));
    let parsed: PathAndQuery = value.parse().map_err(|_| bad())?;
    if !value.starts_with('/') || parsed.as_str() != value {
        return Err(bad());
    }
    Ok(parsed)
}
