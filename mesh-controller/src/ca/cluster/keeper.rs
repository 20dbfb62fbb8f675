//! Keeps the authority at what its Secret says, and, where it leads, carries out the steps of a rotation and writes the roots. It must not decide a step.

use super::{
    BUNDLE, ClusterAuthority, SECRET,
    bundle::{Bundle, Progress},
    contents::{self, Contents, REQUEST},
    made,
};
use crate::ca::rotation::{Around, Ledger, Report, Stage, Step, missing};
use futures_util::{Stream, StreamExt};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use mesh_core::name::ProxyName;
use mesh_tls::x509::new_root;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::time::{MissedTickBehavior, interval};

/// How often it looks at the time and at the proxies. What the Secret says is heard at once.
const LOOK: Duration = Duration::from_secs(1);
/// Steps that one look may take: a whole rotation has three, and each is written before the next is thought of.
const STEPS: usize = 4;

/// What goes on around the authority.
pub trait Surroundings: Send + Sync + 'static {
    /// Whether this replica leads.
    fn leads(&self) -> bool;
    /// Lifetime that certificates get; none before the first plan.
    fn lifetime(&self) -> Option<Duration>;
    /// Proxies that hold identities, connected or not.
    fn holders(&self) -> BTreeSet<ProxyName>;
    /// Of the proxies connected to this replica: which trust the roots of this revision, and which do not yet.
    fn trusting(&self, revision: u64) -> (BTreeSet<ProxyName>, BTreeSet<ProxyName>);
}

/// What the keeper shows.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    usable: Gauge,
    stage: Gauge,
    expires: Gauge,
    waiting: Gauge,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone();
        registry.register(
            "heddle_ca_secret_usable",
            "1 while what stands in the Secret of the authority can be used",
            m.usable,
        );
        let help = "Rotation of the root: 0 none, 1 new roots are introduced, 2 old certificates run out";
        registry.register("heddle_ca_rotation_stage", help, m.stage);
        registry.register("heddle_ca_signer_expires_timestamp_seconds", "End of the certificate that signs", m.expires);
        registry.register(
            "heddle_ca_rotation_waiting",
            "Proxies that do not trust the newest roots yet, as the leader sees it",
            m.waiting,
        );
        metrics
    }
}

/// Runs beside the authority.
pub struct Keeper {
    authority: Arc<ClusterAuthority>,
    secrets: Api<Secret>,
    bundle: Bundle,
    namespace: String,
    replica: String,
    pub(super) around: Arc<dyn Surroundings>,
    metrics: Metrics,
    /// What it last said, and that parsed: to parse is to sign and verify, which is nothing to do every second.
    secret: Option<(Secret, Arc<Contents>)>,
    /// Whether the ConfigMap was heard of at all.
    heard: bool,
    said: String,
}

impl Keeper {
    /// Of an authority that was opened in this namespace. Needs get, list, watch, patch on the Secret and the ConfigMap by name, and create.
    pub fn new(
        client: &Client,
        namespace: &str,
        replica: &str,
        authority: Arc<ClusterAuthority>,
        around: Arc<dyn Surroundings>,
        metrics: Metrics,
    ) -> Self {
        Self {
            authority,
            secrets: Api::namespaced(client.clone(), namespace),
            bundle: Bundle::new(client, namespace),
            namespace: namespace.into(),
            replica: replica.into(),
            around,
            metrics,
            secret: None,
            heard: false,
            said: String::new(),
        }
    }

    /// Runs for ever. Dropping it loses nothing: all that counts is in the Secret.
    pub async fn run(mut self) {
        let mut secrets = pin!(named(self.secrets.clone(), SECRET));
        let mut bundles = pin!(named(self.bundle.api(), BUNDLE));
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(secret) = secrets.next() => match secret {
                    Ok(Some(secret)) => self.hear(secret),
                    Ok(None) => self.restore().await,
                    Err(error) => tracing::debug!(%error, "watching the Secret of the authority"),
                },
                Some(bundle) = bundles.next() => match bundle {
                    Ok(bundle) => {
                        self.heard = true;
                        self.bundle.seen(bundle);
                    }
                    Err(error) => tracing::debug!(%error, "watching the ConfigMap of the roots"),
                },
                _ = look.tick() => {}
            }
            match self.turn().await {
                Ok(()) => {}
                // What the step was thought of for is not what stands there any more: the watch says in a moment what does.
                Err(kube::Error::Api(status)) if status.code == 409 => tracing::debug!("{status}; looking again"),
                Err(error) => self.say(format!("{}: the rotation of the root waits: {error}", self.named())),
            }
        }
    }

    /// What both watches say, and one look; for tests, whose API server has no watches.
    #[cfg(test)]
    pub(super) async fn look_at(&mut self, secret: Secret, bundle: Option<k8s_openapi::api::core::v1::ConfigMap>) {
        self.hear(secret);
        self.heard = true;
        self.bundle.seen(bundle);
        let _ = self.turn().await;
    }

    /// Takes what stands in the Secret, or goes on with what was there before.
    fn hear(&mut self, secret: Secret) {
        let contents = Contents::read(&secret);
        let named = self.named();
        let mut problems: Vec<String> = Vec::new();
        if let Err(bad) = &contents.wanted {
            problems.push(format!("{named}: {bad}"));
        }
        if let Some(Err(bad)) = &contents.active {
            problems.push(format!("{named}: active of {bad}"));
        }
        self.metrics.usable.set(i64::from(problems.is_empty()));
        match contents.current() {
            Ok((authority, roots)) => {
                let end = authority.not_after().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
                self.metrics.expires.set(i64::try_from(end).unwrap_or(i64::MAX));
                self.authority.replace(authority, roots);
            }
            Err(_) => problems.push("what could be used last signs on".into()),
        }
        match problems.is_empty() {
            true => self.said.clear(),
            false => self.say(problems.join("; ")),
        }
        let contents = Arc::new(Contents::read(&secret));
        self.secret = Some((secret, contents));
    }

    /// The Secret is gone. A controller that started now would make another root, which nobody trusts: so what was there is put back.
    pub(super) async fn restore(&mut self) {
        let Some((secret, _)) = self.secret.as_ref().filter(|_| self.around.leads()) else { return };
        let mut again = made(secret.data.clone().unwrap_or_default());
        again.metadata.annotations = secret.metadata.annotations.clone();
        again.metadata.labels = secret.metadata.labels.clone();
        again.type_ = secret.type_.clone();
        match self.secrets.create(&PostParams::default(), &again).await {
            Ok(_) => tracing::warn!("{} was deleted and is put back as it was", self.named()),
            Err(error) => tracing::error!(%error, "{} was deleted and cannot be put back", self.named()),
        }
    }

    async fn turn(&mut self) -> Result<(), kube::Error> {
        let leads = self.around.leads();
        if leads && self.heard {
            for _ in 0..STEPS {
                if !self.step().await? {
                    break;
                }
            }
            self.lead().await?;
        }
        // Nothing to report while nothing happens.
        let Some(seen) = self.secret.as_ref().map(|(_, contents)| contents.seen.clone()) else { return Ok(()) };
        let stage = seen.stage();
        self.metrics.stage.set(match stage {
            None | Some(Stage::Steady) => 0,
            Some(Stage::Introducing) => 1,
            Some(Stage::Draining) => 2,
        });
        if stage.is_some_and(|stage| stage != Stage::Steady) {
            let (held, behind) = self.around.trusting(seen.ledger.revision);
            let names = |all: BTreeSet<ProxyName>| all.iter().map(ToString::to_string).collect();
            let report = Report { revision: seen.ledger.revision, held: names(held), behind: names(behind) };
            self.bundle.report(&self.replica, &report).await?;
        }
        Ok(())
    }

    /// Takes the next step, if there is one now.
    async fn step(&mut self) -> Result<bool, kube::Error> {
        let (Some((secret, contents)), Some(lifetime)) = (&self.secret, self.around.lifetime()) else {
            return Ok(false);
        };
        if contents.requested && contents.seen.stage() == Some(Stage::Steady) {
            return self.answer(contents.foreign).await;
        }
        let revision = contents.seen.ledger.revision;
        let lacking = missing(revision, &self.around.holders(), &self.bundle.reports());
        // Whoever reconnects to a controller with the new certificate must find its root in the file, too.
        let confirmed = lacking.is_empty() && self.bundle.holds(&contents::bundle(&contents.trusted));
        let Some((step, ledger)) = contents.seen.next(Around { now: now(), lifetime, confirmed }) else {
            return Ok(false);
        };
        if step == Step::Switch && !lacking.is_empty() {
            tracing::warn!(proxies = ?lacking, "not all proxies have confirmed the new roots, but what they hold has ended");
        }
        let changed = contents::after(secret, contents, step, &ledger);
        self.write(changed, json!({})).await?;
        tracing::info!(?step, revision = ledger.revision, "the root's rotation has gone on");
        Ok(true)
    }

    /// Somebody asked for a new root: makes it what shall sign.
    async fn answer(&mut self, foreign: bool) -> Result<bool, kube::Error> {
        let done = json!({ REQUEST: null });
        if foreign {
            tracing::error!(
                "{}: a new root is asked for, but cert-manager makes it: renew its Certificate instead",
                self.named()
            );
            self.write(BTreeMap::new(), done).await?;
            return Ok(true);
        }
        match new_root() {
            Ok((certificate, key)) => {
                self.write(contents::wanted(&certificate, &key), done).await?;
                tracing::info!("a new root was asked for and made");
                Ok(true)
            }
            Err(error) => {
                tracing::error!(%error, "no new root can be made");
                Ok(false)
            }
        }
    }

    /// Changes the Secret, if it still is what the step was thought of for.
    async fn write(
        &mut self,
        data: BTreeMap<String, ByteString>,
        annotations: serde_json::Value,
    ) -> Result<(), kube::Error> {
        let version = self.secret.as_ref().and_then(|(secret, _)| secret.metadata.resource_version.clone());
        let metadata = json!({ "resourceVersion": version, "annotations": annotations });
        let patch = Patch::Merge(json!({ "metadata": metadata, "data": data }));
        let written = self.secrets.patch(SECRET, &PatchParams::default(), &patch).await?;
        self.hear(written);
        Ok(())
    }

    /// Roots and progress, for those who read them.
    async fn lead(&mut self) -> Result<(), kube::Error> {
        let Some((_, contents)) = &self.secret else { return Ok(()) };
        let named = self.named();
        let problem = contents.wanted.as_ref().err().map(|bad| format!("{named}: {bad}"));
        let (seen, ledger): (_, Ledger) = (contents.seen.clone(), contents.seen.ledger);
        let stage = seen.stage();
        let reports = self.bundle.reports();
        let lacking = match stage {
            Some(Stage::Introducing) => missing(ledger.revision, &self.around.holders(), &reports),
            _ => BTreeSet::new(),
        };
        self.metrics.waiting.set(i64::try_from(lacking.len()).unwrap_or(i64::MAX));
        let confirmed: BTreeSet<_> =
            reports.values().filter(|r| r.revision == ledger.revision).flat_map(|r| &r.held).collect();
        let progress = Progress {
            stage,
            problem,
            revision: ledger.revision,
            since: ledger.since,
            until: match stage {
                Some(Stage::Introducing) => Some(seen.patience(ledger.longest)),
                Some(Stage::Draining) => Some(ledger.drained),
                _ => None,
            },
            waiting_for: Vec::new(),
            waiting: 0,
            confirmed: 0,
        };
        let progress = progress.of_missing(&lacking, confirmed.len());
        let roots = contents.roots();
        if roots.is_empty() {
            return Ok(());
        }
        self.bundle.lead(&contents::bundle(&roots), &progress).await
    }

    fn named(&self) -> String {
        format!("Secret {}/{SECRET}", self.namespace)
    }

    /// Each new thing once; the same again and again would only hide it.
    fn say(&mut self, what: String) {
        if self.said != what {
            tracing::error!("{what}");
            self.said = what;
        }
    }
}

fn named<K>(api: Api<K>, name: &str) -> impl Stream<Item = watcher::Result<Option<K>>> + Send + use<K>
where
    K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    watcher::watch_object(api, name).default_backoff()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}
