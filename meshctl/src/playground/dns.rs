//! The cluster's DNS: Service names to addresses, over UDP and TCP. What is asked is decided by a pure `answer`; the server only carries it.

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, RecordType},
    serialize::binary::{BinDecodable, BinEncodable},
};
use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::watch,
};

/// Everything below is ours.
pub const DOMAIN: &str = "cluster.local";

/// Answers may be kept so long, in seconds; short, because endpoints of headless Services move.
const TTL: u32 = 1;

/// A larger answer over UDP is cut, and asked again over TCP.
const UDP_LIMIT: usize = 1232;

/// A TCP client that says nothing for so long is let go.
const TCP_IDLE: Duration = Duration::from_secs(10);

/// Names and their addresses, as of one moment.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Zone {
    names: HashMap<String, Vec<IpAddr>>,
    /// Names that have something below them exist, without an address.
    inner: HashSet<String>,
}

impl Zone {
    /// A Service's name and its addresses: ClusterIPs, or those of its pods if it is headless.
    pub fn service(&mut self, namespace: &str, name: &str, addresses: Vec<IpAddr>) {
        self.inner.insert(format!("svc.{DOMAIN}"));
        self.inner.insert(format!("{namespace}.svc.{DOMAIN}"));
        self.names.insert(format!("{name}.{namespace}.svc.{DOMAIN}"), addresses);
    }

    /// A pod of a headless Service, by its hostname.
    pub fn member(&mut self, namespace: &str, service: &str, hostname: &str, addresses: Vec<IpAddr>) {
        self.names.insert(format!("{hostname}.{service}.{namespace}.svc.{DOMAIN}"), addresses);
    }

    /// Addresses of a fully qualified name.
    pub fn lookup(&self, name: &str) -> Option<&[IpAddr]> {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        match self.names.get(&name) {
            Some(addresses) => Some(addresses),
            None => self.inner.contains(&name).then_some(&[]),
        }
    }

    /// What a pod of this namespace gets for a name: through the search list of its resolv.conf.
    pub fn resolve(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        if let Ok(address) = name.parse() {
            return vec![address];
        }
        let candidates = search(namespace).into_iter().map(|s| format!("{name}.{s}")).chain([name.to_owned()]);
        candidates.filter_map(|c| self.lookup(&c)).find(|a| !a.is_empty()).map(<[_]>::to_vec).unwrap_or_default()
    }
}

/// The search list of a pod.
pub fn search(namespace: &str) -> [String; 3] {
    [format!("{namespace}.svc.{DOMAIN}"), format!("svc.{DOMAIN}"), DOMAIN.to_owned()]
}

/// What to say to a query; none if it is no query.
pub fn answer(zone: &Zone, packet: &[u8]) -> Option<Message> {
    let query = Message::from_bytes(packet).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    let [question] = query.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Some(reply);
    };
    reply.add_query(question.clone());
    if query.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return Some(reply);
    }
    let name = question.name().to_ascii();
    reply.metadata.authoritative = name.trim_end_matches('.').to_ascii_lowercase().ends_with(DOMAIN);
    match zone.lookup(&name) {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(addresses) => {
            for address in addresses {
                let data = match (question.query_type(), address) {
                    (RecordType::A | RecordType::ANY, IpAddr::V4(a)) => RData::A((*a).into()),
                    (RecordType::AAAA | RecordType::ANY, IpAddr::V6(a)) => RData::AAAA((*a).into()),
                    _ => continue,
                };
                reply.add_answer(Record::from_rdata(question.name().clone(), TTL, data));
            }
        }
    }
    Some(reply)
}

/// Serves until the task is dropped.
pub async fn serve(address: SocketAddr, zone: watch::Receiver<Arc<Zone>>) -> std::io::Result<()> {
    let udp = UdpSocket::bind(address).await?;
    let tcp = TcpListener::bind(address).await?;
    let over_tcp = zone.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = tcp.accept().await {
            let zone = over_tcp.clone();
            tokio::spawn(async move {
                // A client that breaks off concerns only itself.
                let _ = serve_tcp(stream, &zone).await;
            });
        }
    });
    let mut packet = [0; 4096];
    loop {
        let (length, from) = udp.recv_from(&mut packet).await?;
        let now = Arc::clone(&zone.borrow());
        let Some(reply) = answer(&now, &packet[..length]) else { continue };
        let mut bytes = reply.to_bytes().unwrap_or_default();
        if bytes.len() > UDP_LIMIT {
            bytes = reply.truncate().to_bytes().unwrap_or_default();
        }
        // The asker may be gone.
        let _ = udp.send_to(&bytes, from).await;
    }
}

async fn serve_tcp(mut stream: TcpStream, zone: &watch::Receiver<Arc<Zone>>) -> std::io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_IDLE, stream.read_u16()).await??;
        let mut packet = vec![0; length.into()];
        tokio::time::timeout(TCP_IDLE, stream.read_exact(&mut packet)).await??;
        let now = Arc::clone(&zone.borrow());
        let Some(reply) = answer(&now, &packet) else { return Ok(()) };
        let bytes = reply.to_bytes().map_err(std::io::Error::other)?;
        let Ok(length) = u16::try_from(bytes.len()) else { return Ok(()) };
        stream.write_u16(length).await?;
        stream.write_all(&bytes).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::{op::Query, rr::Name};

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> Message {
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        answer(zone, &query.to_bytes().unwrap()).unwrap()
    }

    #[test]
    fn a_service_has_its_addresses_by_family_and_an_unknown_name_does_not_exist() {
        let mut zone = Zone::default();
        zone.service("shop", "cart", vec!["10.96.0.9".parse().unwrap(), "fd10:96::9".parse().unwrap()]);
        let reply = ask(&zone, "Cart.shop.svc.cluster.local.", RecordType::A);
        assert_eq!((reply.answers.len(), reply.metadata.response_code), (1, ResponseCode::NoError));
        assert_eq!(ask(&zone, "cart.shop.svc.cluster.local.", RecordType::AAAA).answers.len(), 1);
        // NOERROR without data, so that a resolver does not take the name for missing.
        let mx = ask(&zone, "cart.shop.svc.cluster.local.", RecordType::MX);
        assert_eq!((mx.answers.len(), mx.metadata.response_code), (0, ResponseCode::NoError));
        let none = ask(&zone, "cart.other.svc.cluster.local.", RecordType::A);
        assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn a_pod_resolves_short_and_long_names() {
        let mut zone = Zone::default();
        zone.service("shop", "cart", vec!["10.96.0.9".parse().unwrap()]);
        for (from, name) in
            [("shop", "cart"), ("other", "cart.shop"), ("other", "cart.shop.svc"), ("x", "cart.shop.svc.cluster.local")]
        {
            assert_eq!(zone.resolve(from, name).len(), 1, "{name} from {from}");
        }
        assert!(zone.resolve("other", "cart").is_empty());
    }

    #[test]
    fn noise_gets_no_answer() {
        assert!(answer(&Zone::default(), b"\x00\x01").is_none());
    }
}
