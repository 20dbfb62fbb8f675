//! TLS of one Gateway port: the certificates of its listeners, exchanged while it serves. It must not choose listeners.

use crate::{ahead::Ahead, tunnel::DialFault};
use arc_swap::ArcSwapOption;
use mesh_core::{
    fault::Fault,
    mesh::{Gateway, HostPattern, ListenerProtocol},
    name::NsName,
    snapshot::Snapshot,
};
use mesh_tls::gateway::{ListenerCertificates, Offer, server_config};
use parking_lot::Mutex;
use rustls::{ProtocolVersion, ServerConfig};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// TLS of the listeners of one kind on a port.
#[derive(Debug)]
pub(super) struct PortTls {
    offer: Offer,
    config: ArcSwapOption<ServerConfig>,
    /// What `config` was made from. Only the task that follows the config takes it.
    made_from: Mutex<Vec<ListenerCertificates>>,
}

impl PortTls {
    pub(super) fn new(offer: Offer) -> Self {
        Self { offer, config: ArcSwapOption::empty(), made_from: Mutex::default() }
    }

    /// Takes the certificates of a newer config. Living connections keep what they have; new ones get the new.
    pub(super) fn follow(&self, snapshot: &Snapshot, gateway: &Gateway, port: u16) {
        let wanted: Vec<ListenerCertificates> = gateway
            .listeners
            .iter()
            .filter(|l| l.port == port)
            .filter_map(|l| match (&l.protocol, self.offer) {
                (ListenerProtocol::Https(ids), Offer::Http) | (ListenerProtocol::TlsTerminate(ids), Offer::Bytes) => {
                    Some(certificates(snapshot, l.hostname.clone(), ids))
                }
                _ => None,
            })
            .collect();
        let mut made_from = self.made_from.lock();
        let same = made_from.len() == wanted.len()
            && made_from.iter().zip(&wanted).all(|(a, b)| a.hostname == b.hostname && a.certificates == b.certificates);
        if same && (self.config.load().is_some() || wanted.is_empty()) {
            return;
        }
        if wanted.is_empty() {
            self.config.store(None);
        } else {
            let made = server_config(&wanted, self.offer);
            for bad in &made.rejected {
                tracing::warn!(gateway = %gateway.id, port, error = %bad, "certificate left out");
            }
            self.config.store(Some(made.config));
        }
        *made_from = wanted;
    }

    /// Terminates TLS until `deadline`. Returns the version beside the stream, which is on the heap: more than a kibibyte would else have its
    /// room in every future that it is handed through.
    pub(super) async fn accept(
        &self,
        io: Ahead<TcpStream>,
        deadline: Instant,
    ) -> Result<(Box<TlsStream<Ahead<TcpStream>>>, &'static str), DialFault> {
        let config = self.config.load_full().ok_or(Fault::UnknownServerName)?;
        match timeout_at(deadline, TlsAcceptor::from(config).accept(io)).await {
            Err(_) => Err(DialFault::new(Fault::ConnectTimeout, "the client did not finish TLS in time")),
            Ok(Err(error)) => Err(crate::fault::of_tls(error)),
            Ok(Ok(stream)) => {
                let version = match stream.get_ref().1.protocol_version() {
                    Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
                    _ => "TLSv1.2",
                };
                Ok((Box::new(stream), version))
            }
        }
    }
}

fn certificates(snapshot: &Snapshot, hostname: Option<HostPattern>, ids: &[NsName]) -> ListenerCertificates {
    let certificates = ids.iter().filter_map(|id| snapshot.certificate(id).cloned()).collect();
    ListenerCertificates { hostname, certificates }
}
