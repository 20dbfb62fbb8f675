//! TLS configs of the mesh, made once for each generation of an SVID and each peer. It must not make one per connection.

use crate::{
    ALPN_H2, Svid, Svids,
    verify::{ClientRules, ServerRules},
};
use mesh_core::identity::Identity;
use parking_lot::RwLock;
use rustls::{
    ClientConfig, ServerConfig, client::Resumption, server::ServerSessionMemoryCache, sign::SingleCertAndKey,
    version::TLS13,
};
use std::{collections::HashMap, sync::Arc};

/// Peers of one identity whose configs are kept; when full, all are dropped and made again as needed.
const PEERS: usize = 4096;
/// Sessions that a client keeps for one peer identity, about one for each of its pods that was dialled lately.
const CLIENT_SESSIONS: usize = 16;
/// Sessions that a server keeps for one identity of ours.
const SERVER_SESSIONS: usize = 512;

/// TLS configs by identity. Cheap to ask: two lock-free loads and, for clients, a shared lock that is never held over an await.
pub struct Trust {
    svids: Arc<Svids>,
}

/// There is no valid certificate; nothing is sent in plaintext instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} has no valid SVID")]
pub struct NoIdentity(pub Identity);

impl Trust {
    /// Configs from these SVIDs.
    pub fn new(svids: Arc<Svids>) -> Self {
        Self { svids }
    }

    /// The SVIDs behind the configs.
    pub fn svids(&self) -> &Arc<Svids> {
        &self.svids
    }

    /// The trust generation of an identity: part of every pool key. Two connections with the same number trusted the same things.
    pub fn generation(&self, local: &Identity) -> Result<u64, NoIdentity> {
        self.current(local).map(|g| g.svid.generation())
    }

    /// To dial `peer` as `local`. Any `ServerName` will do (the pod's address); it is neither sent nor compared: the peer's identity is.
    pub fn client_config(&self, local: &Identity, peer: &Identity) -> Result<Arc<ClientConfig>, NoIdentity> {
        Ok(self.current(local)?.client(peer))
    }

    /// To be dialled as `local` by any workload of the trust domain.
    pub fn server_config(&self, local: &Identity) -> Result<Arc<ServerConfig>, NoIdentity> {
        Ok(self.current(local)?.server.clone())
    }

    fn current(&self, local: &Identity) -> Result<Arc<Generation>, NoIdentity> {
        self.svids.generation(local).ok_or_else(|| NoIdentity(local.clone()))
    }
}

/// One SVID with the configs made from it. Configs, their session caches and the SVID go together, so a session is resumed only within the
/// generation that verified it.
pub(crate) struct Generation {
    svid: Arc<Svid>,
    server: Arc<ServerConfig>,
    /// Everything of a client config but the expected peer. Never used as it is.
    client: ClientConfig,
    clients: RwLock<HashMap<Identity, Arc<ClientConfig>>>,
}

impl Generation {
    pub(crate) fn new(svid: Arc<Svid>) -> Self {
        let server = Arc::new(server_config(&svid));
        let client = client_config(&svid, svid.identity());
        Self { svid, server, client, clients: RwLock::default() }
    }

    pub(crate) fn svid(&self) -> &Arc<Svid> {
        &self.svid
    }

    fn client(&self, peer: &Identity) -> Arc<ClientConfig> {
        if let Some(config) = self.clients.read().get(peer) {
            return config.clone();
        }
        let mut config = self.client.clone();
        let verifier = ServerRules { rules: self.svid.rules().clone(), expected: peer.clone() };
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
        let mut clients = self.clients.write();
        if clients.len() >= PEERS {
            clients.clear();
        }
        // Two that missed at once share the config of the first, and with it its sessions.
        clients.entry(peer.clone()).or_insert_with(|| Arc::new(config)).clone()
    }
}

fn server_config(svid: &Svid) -> ServerConfig {
    let verifier = ClientRules { rules: svid.rules().clone() };
    let mut config = ServerConfig::builder_with_provider(crate::provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the aws-lc provider has TLS 1.3 suites and groups")
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified().clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = ServerSessionMemoryCache::new(SERVER_SESSIONS);
    // One ticket: connections are pooled, so a peer that dials again needs one, not two.
    config.send_tls13_tickets = 1;
    config
}

fn client_config(svid: &Svid, expected: &Identity) -> ClientConfig {
    let verifier = ServerRules { rules: svid.rules().clone(), expected: expected.clone() };
    let mut config = ClientConfig::builder_with_provider(crate::provider().clone())
        .with_protocol_versions(&[&TLS13])
        .expect("the aws-lc provider has TLS 1.3 suites and groups")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified().clone())));
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config
}
