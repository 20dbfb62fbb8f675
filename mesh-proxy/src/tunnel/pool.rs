//! The pool of connections to peers: who shares one, who waits for which dial. It must not hold a lock while it dials.

use super::{
    DialFault, Slot, TunnelStream,
    connection::{self, Connection},
    limits::{CONNECTIONS, JOINING, WAITERS},
    stream,
};
use crate::{
    local::Local,
    telemetry::{HandshakeResult, HandshakeSide, Telemetry},
};
use foldhash::fast::RandomState;
use mesh_core::{
    balance::Target,
    decide::{self, Transport},
    fault::Fault,
    identity::Identity,
    mesh::Uid,
    retry::REACHES,
    snapshot::Snapshot,
};
use mesh_tls::Trust;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    hash::BuildHasher,
    net::IpAddr,
    sync::{Arc, OnceLock, Weak},
};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

/// Connections to peers, kept as long as what they trust.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

/// Locks of the pool, so that two workers seldom meet at one. Held for a look-up, never over an await.
const SHARDS: usize = 16;

type Shard = Mutex<HashMap<Key, Peer, RandomState>>;

struct Inner {
    trust: Arc<Trust>,
    snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    telemetry: OnceLock<Telemetry>,
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// All that the decision to trust a connection read, and from whose namespace it was dialled. The ALPN protocol is always h2.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    local: Identity,
    local_uid: Uid,
    generation: u64,
    peer: Identity,
    peer_uid: Uid,
    address: IpAddr,
}

/// How an endpoint is reached for bytes.
pub enum Reached {
    /// By mTLS, through a tunnel of this peer.
    Tunnel(TunnelStream, Identity),
    /// As it is.
    Plain,
}

/// How an endpoint is reached.
pub enum Way {
    /// By mTLS, on this stream, to this peer.
    Mesh(Slot, Identity),
    /// As it is.
    Plain,
}

/// Connections and dials of one key.
#[derive(Default)]
struct Peer {
    connections: Vec<Arc<Connection>>,
    dials: Vec<Dial>,
}

/// A dial that several wait for.
struct Dial {
    waiters: usize,
    done: Done,
}

type Done = watch::Receiver<Option<Result<(), DialFault>>>;

impl Pool {
    /// An empty pool. `snapshot` tells the bounds, and which workloads are gone.
    pub fn new(trust: Arc<Trust>, snapshot: watch::Receiver<Option<Arc<Snapshot>>>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Inner { trust, snapshot, telemetry: OnceLock::new(), shards, hasher: RandomState::default() }))
    }

    /// Counts handshakes there from now on; the first call counts.
    pub fn counting(&self, telemetry: Telemetry) {
        let _ = self.0.telemetry.set(telemetry);
    }

    /// A stream slot on a connection from `local` to `target`'s workload, whose certificate must be `peer`'s; dials if there is none.
    /// Bounded by `limits.handshake`. Cancelling it leaves the dial to those who also wait for it.
    pub async fn open(&self, local: &Arc<Local>, target: &Target, peer: &Identity) -> Result<Slot, DialFault> {
        self.dialled(self.key(local, target, peer)?, local).await
    }

    fn key(&self, local: &Local, target: &Target, peer: &Identity) -> Result<Key, DialFault> {
        let me = local.workload();
        Ok(Key {
            generation: self.0.trust.generation(&me.identity).map_err(|e| DialFault::new(Fault::NoIdentity, e))?,
            local: me.identity.clone(),
            local_uid: me.uid.clone(),
            peer: peer.clone(),
            peer_uid: target.workload.as_ref().map_or_else(|| "".into(), |w| w.uid.clone()),
            address: target.address.ip().to_canonical(),
        })
    }

    async fn dialled(&self, key: Key, local: &Arc<Local>) -> Result<Slot, DialFault> {
        let deadline = Instant::now() + self.0.handshake();
        loop {
            let mut done = match self.0.find(&key, local, deadline)? {
                Found::Slot(slot) => return Ok(slot),
                Found::Dial(done) => done,
            };
            let result = timeout_at(deadline, done.wait_for(Option::is_some)).await;
            match result {
                Ok(Ok(result)) => {
                    if let Some(Err(fault)) = &*result {
                        return Err(fault.clone());
                    }
                }
                Ok(Err(_)) => return Err(DialFault::new(Fault::Internal, "the dial was given up")),
                Err(_) => {
                    let what = format!("no stream to {} in time: others were first", key.address);
                    return Err(DialFault::new(Fault::ConnectTimeout, what));
                }
            }
        }
    }

    /// Finds out how an endpoint is reached now, and takes a slot if it is by mTLS. Who is on the way into the mesh may not be there yet.
    pub async fn reach(&self, local: &Arc<Local>, target: &Target, transport: Transport) -> Result<Way, DialFault> {
        let (peer, joining) = match transport {
            Transport::Plaintext => return Ok(Way::Plain),
            Transport::Mesh { peer } => (peer, false),
            Transport::Joining { peer } => (peer, true),
        };
        let key = self.key(local, target, &peer)?;
        if let Some(slot) = self.0.ready(&key) {
            return Ok(Way::Mesh(slot, peer));
        }
        // To dial is seldom, and what it holds would be carried about by every request.
        let dialled = Box::pin(self.dialled(key, local));
        if !joining {
            return dialled.await.map(|slot| Way::Mesh(slot, peer));
        }
        match timeout(JOINING, dialled).await {
            Ok(Ok(slot)) => Ok(Way::Mesh(slot, peer)),
            Ok(Err(fault)) if !decide::is_not_there_yet(fault.fault) => Err(fault),
            Ok(Err(_)) | Err(_) => Ok(Way::Plain),
        }
    }

    /// As [`Self::reach`], and asks the peer for a tunnel to `target`, which gets `limits.handshake` of its own: the dial may have used up
    /// its share, and the peer now connects to the application.
    pub async fn tunnel(
        &self,
        local: &Arc<Local>,
        target: &Target,
        transport: Transport,
    ) -> Result<Reached, DialFault> {
        let mut tries = 0;
        loop {
            let (slot, peer) = match self.reach(local, target, transport.clone()).await? {
                Way::Mesh(slot, peer) => (slot, peer),
                Way::Plain => return Ok(Reached::Plain),
            };
            tries += 1;
            match stream::connect(slot, target.address, Instant::now() + self.0.handshake()).await {
                // The peer's proxy is being replaced; the next one takes it.
                Err(refused) if refused.fault == Fault::StreamRefused && tries < REACHES => {}
                done => return done.map(|tunnel| Reached::Tunnel(tunnel, peer)),
            }
        }
    }

    /// Follows the config for ever: connections to an address that is another workload's now are cut, those to a workload that is no
    /// more take no new streams.
    pub async fn follow(&self) {
        let mut changes = self.0.snapshot.clone();
        while changes.changed().await.is_ok() {
            let snapshot = changes.borrow_and_update().clone();
            if let Some(snapshot) = snapshot {
                self.sweep(&snapshot);
            }
        }
    }

    fn sweep(&self, snapshot: &Snapshot) {
        for shard in &self.0.shards {
            shard.lock().retain(|key, peer| {
                let now = snapshot.workload_at(key.address);
                if now.is_some_and(|w| w.uid != key.peer_uid || w.identity != key.peer) {
                    peer.connections.iter().for_each(|c| c.cut());
                    peer.connections.clear();
                }
                if now.is_none_or(|w| !w.enrolment.is_meshed()) {
                    peer.connections.clear();
                }
                peer.connections.retain(|c| !c.is_leaving());
                !peer.connections.is_empty() || !peer.dials.is_empty()
            });
        }
    }

    /// Cuts what was dialled for a local workload that is gone.
    pub fn forget(&self, local_uid: &Uid) {
        for shard in &self.0.shards {
            shard.lock().retain(|key, peer| {
                let gone = key.local_uid == *local_uid;
                if gone {
                    peer.connections.iter().for_each(|c| c.cut());
                }
                !gone
            });
        }
    }

    /// Connections that are open, for metrics and tests.
    pub fn connections(&self) -> usize {
        self.0.shards.iter().map(|s| s.lock().values().map(|p| p.connections.len()).sum::<usize>()).sum()
    }
}

enum Found {
    Slot(Slot),
    Dial(Done),
}

impl Inner {
    fn handshake(&self) -> std::time::Duration {
        let snapshot = self.snapshot.borrow();
        snapshot
            .as_ref()
            .map_or_else(|| mesh_core::mesh::Limits::default().handshake, |s| s.settings().limits.handshake)
    }

    fn shard(&self, key: &Key) -> &Shard {
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// A slot of a connection that is there.
    fn ready(&self, key: &Key) -> Option<Slot> {
        self.shard(key).lock().get(key)?.connections.iter().find_map(|c| c.slot())
    }

    /// A slot, or a dial to wait for; begins one if those under way have waiters enough.
    fn find(self: &Arc<Self>, key: &Key, local: &Arc<Local>, deadline: Instant) -> Result<Found, DialFault> {
        let mut shard = self.shard(key).lock();
        let peer = match shard.get_mut(key) {
            Some(peer) => peer,
            None => shard.entry(key.clone()).or_default(),
        };
        if let Some(slot) = peer.connections.iter().find_map(|c| c.slot()) {
            return Ok(Found::Slot(slot));
        }
        peer.connections.retain(|c| !c.is_leaving());
        if let Some(dial) = peer.dials.iter_mut().find(|d| d.waiters < WAITERS) {
            dial.waiters += 1;
            return Ok(Found::Dial(dial.done.clone()));
        }
        if peer.connections.len() + peer.dials.len() >= CONNECTIONS {
            return Err(DialFault::new(Fault::Limit, format!("{CONNECTIONS} connections to {} are full", key.address)));
        }
        let (tell, done) = watch::channel(None);
        peer.dials.push(Dial { waiters: 1, done: done.clone() });
        drop(shard);
        // A task of its own, so that a waiter who gives up does not take the others' dial along. Its end is the connection's end.
        tokio::spawn(self.clone().dial(key.clone(), local.clone(), deadline, tell));
        Ok(Found::Dial(done))
    }

    /// Dials, tells the waiters, and drives the connection until it ends.
    async fn dial(
        self: Arc<Self>,
        key: Key,
        local: Arc<Local>,
        deadline: Instant,
        tell: watch::Sender<Option<Result<(), DialFault>>>,
    ) {
        let dialled = connection::dial(&local, key.address, &key.peer, &self.trust, deadline).await;
        if let Some(telemetry) = self.telemetry.get() {
            let result = dialled.as_ref().map_or_else(|f| HandshakeResult::Failed(f.rule()), |_| HandshakeResult::Ok);
            telemetry.handshake(HandshakeSide::Client, result);
        }
        // The connection must not keep the workload's namespace alive.
        drop(local);
        let mut driver = None;
        let result = {
            let mut shard = self.shard(&key).lock();
            // A workload that was forgotten meanwhile has no entry any more; its connection is dropped with `dialled`.
            let peer = shard.get_mut(&key);
            let result = match (dialled, peer) {
                (Ok((connection, drive)), Some(peer)) => {
                    let connection = Arc::new(connection);
                    driver = Some((drive, Arc::downgrade(&connection)));
                    peer.connections.push(connection);
                    Ok(())
                }
                (Ok(_), None) => Err(DialFault::from(Fault::Draining)),
                (Err(fault), _) => Err(fault),
            };
            if let Some(peer) = shard.get_mut(&key) {
                peer.dials.retain(|d| !d.done.same_channel(&tell.subscribe()));
                if peer.connections.is_empty() && peer.dials.is_empty() {
                    shard.remove(&key);
                }
            }
            result
        };
        if let Err(fault) = &result {
            tracing::debug!(peer = %key.peer, address = %key.address, fault = fault.fault.label(), detail = fault.detail(), "dial failed");
        }
        tell.send_replace(Some(result));
        let Some((driver, connection)) = driver else { return };
        let remove = || self.remove(&key, &connection);
        let ended = driver.drive(|| self.trust.svids().current(&key.local).map(|s| s.not_after()), remove).await;
        if let Err(error) = ended {
            tracing::info!(peer = %key.peer, address = %key.address, %error, "connection to peer ended");
        }
        // A dead connection leaves at once.
        remove();
    }

    fn remove(&self, key: &Key, connection: &Weak<Connection>) {
        let mut shard = self.shard(key).lock();
        if let Some(peer) = shard.get_mut(key) {
            peer.connections.retain(|c| !std::ptr::eq(Arc::as_ptr(c), connection.as_ptr()));
            if peer.connections.is_empty() && peer.dials.is_empty() {
                shard.remove(key);
            }
        }
    }
}
