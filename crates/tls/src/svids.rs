//! Keeps an SVID fresh for every identity that this process serves. It must not decide which identities those are, nor build TLS configs.
//!
//! Roots that the mesh trusts from now on reach all SVIDs at once ([`Svids::trust`]), without a new certificate.
//! One task for each identity: fetch, wait for half of the life, fetch again; after a failure wait and fetch again, while the old one serves as
//! long as it is valid. Connections are never touched: they hold what they were made with.

use crate::{BadSvid, Svid, SvidStore, trust::Generation};
use arc_swap::{ArcSwap, ArcSwapOption};
use mesh_core::{identity::Identity, mesh::Roots, retry::backoff};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    task::AbortHandle,
    time::timeout,
};
use tracing::{debug, info, warn};

/// Fetches at the same time: a node that starts with hundreds of pods must not overrun the authority.
const FETCHES: usize = 8;
/// One fetch: an authority that does not answer counts as gone.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// First wait after a failed fetch.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Failures that are taken for a hiccup.
const RETRIES_QUICK: u32 = 4;
/// Wait after more: hundreds of identities must not keep dialling an authority that is away. One that is back is told of by [`Svids::hurry`].
const RETRY_SLOW: Duration = Duration::from_secs(15);
/// Shortest wait, so that a nearly expired SVID does not make a busy loop.
const WAIT_SHORTEST: Duration = Duration::from_millis(50);
/// Waits are cut into naps, because the wall clock that certificates live by may jump.
const NAP: Duration = Duration::from_secs(20);
/// A restored SVID is renewed within this time of the start, spread over the identities of a node.
const RESTORED_RENEWAL: Duration = Duration::from_secs(2);

/// What a [`SvidSource`] is doing.
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Svid, FetchFault>> + Send + 'a>>;

/// Where SVIDs come from: the controller's authority, or SPIRE.
pub trait SvidSource: Send + Sync + 'static {
    /// Gets a new SVID. May be dropped at any time; the caller bounds it.
    fn fetch<'a>(&'a self, identity: &'a Identity) -> Fetching<'a>;
}

/// Why there is no new SVID. All are tried again: what is refused now may be known to the authority in a moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchFault {
    /// Nobody to ask.
    #[error("the authority cannot be reached: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the authority refuses: {0}")]
    Refused(String),
    /// It said yes, but what it sent is not usable.
    #[error("the authority sent an SVID that cannot be used: {0}")]
    Unusable(String),
    /// Nothing within the time that a fetch may take.
    #[error("the authority did not answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
}

/// The SVIDs of this process. Reading is lock-free; one task for each identity renews. Dropping it ends the tasks.
pub struct Svids {
    writers: Mutex<HashMap<Identity, AbortHandle>>,
    issue: Arc<Issue>,
    runtime: Handle,
}

/// What all renewals share.
struct Issue {
    readers: ArcSwap<HashMap<Identity, Arc<Slot>>>,
    /// The newest roots that were told. Held while SVIDs are installed, so that none comes in beside them with older ones.
    roots: Mutex<Option<Arc<Roots>>>,
    source: Arc<dyn SvidSource>,
    store: Option<SvidStore>,
    permits: Semaphore,
    hurry: Notify,
}

/// One identity's place.
pub(crate) struct Slot {
    identity: Identity,
    current: ArcSwapOption<Generation>,
    /// Number of the newest generation, 0 before the first.
    changed: watch::Sender<u64>,
    /// Renew now, whatever the time.
    renew: Notify,
}

impl Svids {
    /// Renews on `runtime` (the control runtime, so that signing never delays data). `store`: where SVIDs outlive the process.
    pub fn new(source: Arc<dyn SvidSource>, store: Option<SvidStore>, runtime: Handle) -> Self {
        let (permits, hurry) = (Semaphore::new(FETCHES), Notify::new());
        let issue = Issue { readers: ArcSwap::default(), roots: Mutex::default(), source, store, permits, hurry };
        Self { writers: Mutex::default(), issue: Arc::new(issue), runtime }
    }

    /// Starts to keep an SVID for an identity. Again: nothing happens. Does not wait; see [`Self::obtained`].
    pub fn ensure(&self, identity: &Identity) {
        let mut writers = self.writers.lock();
        if writers.contains_key(identity) {
            return;
        }
        let slot = Arc::new(Slot {
            identity: identity.clone(),
            current: ArcSwapOption::empty(),
            changed: watch::Sender::new(0),
            renew: Notify::new(),
        });
        let task = self.runtime.spawn(keep(slot.clone(), self.issue.clone()));
        writers.insert(identity.clone(), task.abort_handle());
        self.issue.readers.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.insert(identity.clone(), slot.clone());
            map
        });
    }

    /// Drops an identity that no workload here has any more (the caller knows; several pods may share one), in the store too.
    pub fn forget(&self, identity: &Identity) {
        let mut writers = self.writers.lock();
        if let Some(task) = writers.remove(identity) {
            task.abort();
        }
        self.issue.readers.rcu(|map| {
            let mut map = HashMap::clone(map);
            map.remove(identity);
            map
        });
        drop(writers);
        if let Some(store) = self.issue.store.clone() {
            let identity = identity.clone();
            self.runtime.spawn_blocking(move || {
                if let Err(fault) = store.remove(&identity) {
                    warn!(%identity, error = %fault, "the stored SVID of a forgotten identity stays");
                }
            });
        }
    }

    /// The valid SVID of an identity, if there is one now.
    pub fn current(&self, identity: &Identity) -> Option<Arc<Svid>> {
        self.generation(identity).map(|g| g.svid().clone())
    }

    /// Waits until an identity has a valid SVID; never ends if it is not ensured or cannot be had, so bound it. Dropping it is harmless.
    pub async fn obtained(&self, identity: &Identity) -> Arc<Svid> {
        loop {
            let slot = self.issue.readers.load().get(identity).cloned();
            let Some(slot) = slot else {
                tokio::time::sleep(WAIT_SHORTEST).await;
                continue;
            };
            let mut changed = slot.changed.subscribe();
            if let Some(svid) = self.current(identity) {
                return svid;
            }
            // The slot is forgotten and made again, or its SVID changes: look again either way.
            let _ = timeout(NAP, changed.changed()).await;
        }
    }

    /// Makes these the roots of every SVID that is held and of every one to come, unless newer ones are known. When it returns, no new handshake
    /// of this process judges by older ones; connections that exist stay. An SVID that the new roots do not vouch for keeps what it has, and is renewed at once.
    pub fn trust(&self, roots: &Arc<Roots>) {
        for svid in self.issue.trust(roots) {
            if self.issue.store.is_some() {
                let issue = self.issue.clone();
                self.runtime.spawn(async move { save(svid, &issue).await });
            }
        }
    }

    /// Tells all waiting renewals that the authority may be back, so that they try at once.
    pub fn hurry(&self) {
        self.issue.hurry.notify_waiters();
    }

    /// Identities that are kept, with the end of the valid SVID of each; for `/debug/config`. Keys never.
    pub fn held(&self) -> Vec<(Identity, Option<SystemTime>)> {
        let map = self.issue.readers.load();
        map.keys().map(|id| (id.clone(), self.current(id).map(|s| s.not_after()))).collect()
    }

    pub(crate) fn generation(&self, identity: &Identity) -> Option<Arc<Generation>> {
        let generation = self.issue.readers.load().get(identity)?.current.load_full()?;
        (!generation.svid().is_expired(SystemTime::now())).then_some(generation)
    }
}

impl Drop for Svids {
    fn drop(&mut self) {
        self.writers.lock().values().for_each(AbortHandle::abort);
    }
}

impl Issue {
    /// See [`Svids::trust`]. Says which SVIDs changed.
    fn trust(&self, roots: &Arc<Roots>) -> Vec<Arc<Svid>> {
        let mut newest = self.roots.lock();
        if newest.as_ref().is_some_and(|known| known.revision >= roots.revision) {
            return Vec::new();
        }
        *newest = Some(roots.clone());
        let mut changed = Vec::new();
        for slot in self.readers.load().values() {
            let Some(svid) = slot.current.load().as_ref().map(|g| g.svid().clone()) else { continue };
            if svid.revision() < roots.revision && !svid.is_expired(SystemTime::now()) {
                match svid.with_roots(roots) {
                    Ok(svid) => changed.push(slot.install(svid)),
                    Err(error) => {
                        warn!(identity = %slot.identity, %error, "the new roots do not vouch for this SVID; it is renewed");
                        slot.renew.notify_one();
                    }
                }
            }
        }
        let count = roots.certificates.len();
        info!(revision = roots.revision, roots = count, svids = changed.len(), "the roots of the mesh have changed");
        changed
    }

    /// Makes an SVID the current one of its slot, with the newest roots that are known. If those do not vouch for it, every peer would refuse it:
    /// then what was there stays.
    fn install(&self, slot: &Slot, svid: Svid) -> Result<Arc<Svid>, BadSvid> {
        if svid.revision() > 0 {
            let certificates = svid.roots().iter().map(|der| Arc::from(&**der)).collect();
            // The others learn from it, if it came with news. What changed is stored with their next renewal.
            self.trust(&Arc::new(Roots { revision: svid.revision(), certificates }));
        }
        let newest = self.roots.lock();
        let svid = match newest.as_ref().filter(|roots| roots.revision > svid.revision()) {
            Some(roots) => svid.with_roots(roots)?,
            None => svid,
        };
        Ok(slot.install(svid))
    }
}

impl Slot {
    fn install(&self, svid: Svid) -> Arc<Svid> {
        let svid = Arc::new(svid);
        self.current.store(Some(Arc::new(Generation::new(svid.clone()))));
        self.changed.send_replace(svid.generation());
        svid
    }

    fn not_after(&self) -> Option<SystemTime> {
        self.current.load().as_ref().map(|g| g.svid().not_after())
    }
}

/// The life of one identity: restored → fresh ⇄ failing. Ends only by being aborted.
async fn keep(slot: Arc<Slot>, issue: Arc<Issue>) {
    let identity = slot.identity.clone();
    let restored = restore(&identity, &issue).await.and_then(|svid| {
        let installed = issue.install(&slot, svid);
        installed.inspect_err(|fault| warn!(%identity, error = %fault, "the stored SVID is not used")).ok()
    });
    let mut due = match restored {
        Some(svid) => {
            info!(%identity, generation = svid.generation(), "SVID restored from the store");
            SystemTime::now() + RESTORED_RENEWAL.mul_f64(rand::random())
        }
        None => SystemTime::now(),
    };
    let mut failures = 0u32;
    let mut said = (String::new(), false);
    loop {
        tokio::select! {
            () = wait(due, &issue.hurry, failures > 0) => {}
            // After a failure the pause counts, or a refusing authority would be asked without end.
            () = slot.renew.notified(), if failures == 0 => {}
        }
        let fetched = fetch(&identity, &issue).await;
        let unusable = |error: BadSvid| FetchFault::Unusable(format!("by the newest roots: {error}"));
        match fetched.and_then(|svid| issue.install(&slot, svid).map_err(unusable)) {
            Ok(svid) => {
                failures = 0;
                said.0.clear();
                let left = svid.not_after().duration_since(SystemTime::now()).unwrap_or_default();
                due = SystemTime::now() + renewal_after(left, rand::random());
                info!(%identity, generation = svid.generation(), valid_seconds = left.as_secs(), "SVID renewed");
                save(svid, &issue).await;
            }
            Err(fault) => {
                failures = failures.saturating_add(1);
                let left = slot.not_after().and_then(|end| end.duration_since(SystemTime::now()).ok());
                let pause = retry_after(failures, left, rand::random());
                due = SystemTime::now() + pause;
                let now = (fault.to_string(), left.is_some());
                match left {
                    // Said once; the same again and again would only hide it.
                    _ if now == said => debug!(%identity, error = %fault, ?pause, "still no new SVID"),
                    Some(left) => {
                        warn!(%identity, error = %fault, valid_seconds = left.as_secs(), "SVID not renewed; the old one serves on");
                    }
                    None => warn!(%identity, error = %fault, "no valid SVID; connections of this identity are refused"),
                }
                said = now;
            }
        }
    }
}

async fn wait(due: SystemTime, hurry: &Notify, may_hurry: bool) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        tokio::select! {
            () = tokio::time::sleep(left.min(NAP)) => {}
            () = hurry.notified(), if may_hurry => {
                // Spread: everybody is told at the same moment.
                tokio::time::sleep(RETRY_FIRST.mul_f64(rand::random())).await;
                return;
            }
        }
    }
}

async fn fetch(identity: &Identity, issue: &Issue) -> Result<Svid, FetchFault> {
    let _permit = issue.permits.acquire().await.map_err(|_| FetchFault::Unreachable("closing".into()))?;
    let svid = timeout(FETCH_TIMEOUT, issue.source.fetch(identity)).await.map_err(|_| FetchFault::Timeout)??;
    if svid.identity() != identity {
        return Err(FetchFault::Unusable(format!("asked for {identity}, got {}", svid.identity())));
    }
    Ok(svid)
}

async fn restore(identity: &Identity, issue: &Issue) -> Option<Svid> {
    let (store, wanted) = (issue.store.clone()?, identity.clone());
    match tokio::task::spawn_blocking(move || store.load(&wanted)).await.ok()? {
        Ok(svid) => svid,
        Err(fault) => {
            // An expired one after a long stop is ordinary; everything else is worth knowing. Either way a new one is fetched.
            warn!(%identity, error = %fault, "the stored SVID is not used");
            None
        }
    }
}

async fn save(svid: Arc<Svid>, issue: &Issue) {
    let Some(store) = issue.store.clone() else { return };
    let saved = tokio::task::spawn_blocking(move || store.save(&svid).map_err(|e| (svid, e))).await;
    match saved {
        Ok(Err((svid, fault))) => {
            warn!(identity = %svid.identity(), error = %fault, "SVID not stored; it serves until this process ends")
        }
        Ok(Ok(())) => {}
        Err(stopped) => debug!(error = %stopped, "storing was interrupted"),
    }
}

/// Half of what is left, up to a tenth earlier so that identities fetched together are not renewed together. `random` in 0..1.
fn renewal_after(left: Duration, random: f64) -> Duration {
    left.mul_f64(0.5 - 0.1 * random.clamp(0.0, 1.0)).max(WAIT_SHORTEST)
}

/// The mesh's one backoff, quick for the first failures and slow for an authority that stays away; but never longer than a quarter of what is left
/// of the old SVID, so that several tries fit before it ends.
fn retry_after(failures: u32, left: Option<Duration>, random: u64) -> Duration {
    let base = if failures <= RETRIES_QUICK { RETRY_FIRST } else { RETRY_SLOW };
    let pause = backoff(Some(base), failures, random);
    left.map_or(pause, |left| pause.min(left / 4)).max(WAIT_SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_is_due_before_half_of_what_is_left_is_over() {
        for random in [0.0, 0.3, 1.0] {
            let wait = renewal_after(Duration::from_secs(3600), random);
            assert!(wait >= Duration::from_secs(1440) && wait <= Duration::from_secs(1800), "{wait:?}");
        }
        assert_eq!(renewal_after(Duration::ZERO, 0.5), WAIT_SHORTEST);
    }

    #[test]
    fn retries_back_off_within_bounds_and_speed_up_when_little_is_left() {
        for failures in 1..40 {
            let longest = retry_after(failures, None, u64::MAX);
            assert!(longest <= RETRY_SLOW && retry_after(failures, None, 0) >= longest / 3, "{failures}: {longest:?}");
        }
        assert_eq!(retry_after(1, None, u64::MAX), RETRY_FIRST);
        assert_eq!(retry_after(30, None, u64::MAX), RETRY_SLOW);
        assert_eq!(retry_after(30, Some(Duration::from_secs(4)), u64::MAX), Duration::from_secs(1));
        assert_eq!(retry_after(1, Some(Duration::ZERO), u64::MAX), WAIT_SHORTEST);
    }
}
