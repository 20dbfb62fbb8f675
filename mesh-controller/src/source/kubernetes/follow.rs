//! Following one kind: list it, watch it, and survive whatever the API server does. It must not keep objects; `state` does.

use super::{
    metrics::{Metrics, Restart},
    request::{self, Fault},
    state::{Event, Read, named},
    trim::trim,
};
use crate::inventory::Kind;
use futures_util::TryStreamExt;
use kube::{Client, core::WatchEvent};
use serde_json::Value;
use std::{pin::pin, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

/// Longest answer to one page of a list: an API server gives up after a minute itself.
const LIST_TIMEOUT: Duration = Duration::from_secs(70);

/// Shortest and longest life of a watch. It is short, so that a server that vanished without a word is missed soon; to go on from where
/// it ended costs nothing. Spread, so that not all end at once.
const WATCH: std::ops::Range<u64> = 60..90;

/// How much longer than it was asked for a watch may last until the server counts as gone.
const WATCH_SLACK: Duration = Duration::from_secs(15);

/// How long the answer to a watch may take to begin.
const WATCH_BEGIN: Duration = Duration::from_secs(30);

/// First and longest pause between tries.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// How soon a kind that does not exist is looked for again: as long after its CRD was installed it is read.
const ABSENT: Duration = Duration::from_secs(4);

/// How long a kind that was there must be missing until its objects are believed gone.
const ABSENT_BELIEVED: Duration = Duration::from_secs(10);

/// How soon Secrets that are withheld from us are asked for again: that is a choice, and each try a line in the server's audit log.
const WITHHELD: Duration = Duration::from_secs(60);

/// A watch that lasted so long was a good one: pauses begin anew.
const GOOD: Duration = Duration::from_secs(5);

/// Follows one kind.
pub(super) struct Follow {
    client: Client,
    kind: Kind,
    events: mpsc::Sender<Event>,
    metrics: Metrics,
    pause: Duration,
    /// It was listed, and what was listed counts until something else is said.
    listed: bool,
    /// Since when a kind that was listed is missing.
    missing: Option<Instant>,
    /// Trouble that was told.
    told: Option<String>,
}

/// Nobody listens any more: the source was dropped.
struct Unheard;

impl Follow {
    pub(super) fn new(client: Client, kind: Kind, events: mpsc::Sender<Event>, metrics: Metrics) -> Self {
        Self { client, kind, events, metrics, pause: PAUSE, listed: false, missing: None, told: None }
    }

    /// Follows until nobody listens.
    pub(super) async fn run(mut self) {
        let Err(Unheard) = self.follow().await;
    }

    async fn follow(&mut self) -> Result<std::convert::Infallible, Unheard> {
        loop {
            let version = match self.list().await? {
                Ok(version) => version,
                Err(fault) => {
                    self.fail(fault).await?;
                    continue;
                }
            };
            let fault = self.watch(version).await?;
            if matches!(fault, Fault::Expired) {
                self.count(fault.label());
                // A server that always says so shall not be asked without end.
                self.rest(self.pause).await;
            } else {
                self.fail(fault).await?;
            }
        }
    }

    /// Lists all objects, page by page, and says where to watch from.
    async fn list(&mut self) -> Result<Result<String, Fault>, Unheard> {
        let (mut read, mut next) = (Vec::new(), String::new());
        loop {
            let answer = timeout(LIST_TIMEOUT, request::list(&self.client, self.kind, &next)).await;
            let page = match answer.unwrap_or_else(|_| Err(Fault::Failed(format!("no list within {LIST_TIMEOUT:?}")))) {
                Ok(page) => page,
                Err(fault) => return Ok(Err(fault)),
            };
            // Admission of a page takes a while; other tasks of this thread may want their turn.
            tokio::task::yield_now().await;
            let kind = self.kind;
            read.extend(page.items.into_iter().map(|item| Read::new(kind, item)));
            next = page.next;
            if next.is_empty() {
                tracing::debug!(kind = %self.kind, objects = read.len(), version = page.version, "listed");
                (self.listed, self.missing, self.told) = (true, None, None);
                self.send(Event::Listed(self.kind, read)).await?;
                return Ok(Ok(page.version));
            }
        }
    }

    /// Watches from a version on, again and again, until the kind must be listed anew, and says why.
    async fn watch(&mut self, mut version: String) -> Result<Fault, Unheard> {
        loop {
            let began = Instant::now();
            let end = self.watch_once(&mut version).await?;
            if began.elapsed() >= GOOD {
                self.pause = PAUSE;
            }
            match end {
                // Its time was over.
                Ok(()) if began.elapsed() >= GOOD => {}
                Ok(()) => {
                    self.count("ended");
                    self.rest(self.pause).await;
                }
                Err(fault @ (Fault::Expired | Fault::Absent)) => return Ok(fault),
                Err(fault) => self.fail(fault).await?,
            }
        }
    }

    async fn watch_once(&mut self, version: &mut String) -> Result<Result<(), Fault>, Unheard> {
        let longest = Duration::from_secs(rand::random_range(WATCH));
        let until = Instant::now() + longest + WATCH_SLACK;
        let begun = async {
            let request = request::watch(self.kind, version, longest)?;
            Ok(self.client.request_events::<Value>(request).await?)
        };
        let stream = match timeout(WATCH_BEGIN, begun).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(fault)) => return Ok(Err(fault)),
            Err(_) => return Ok(Err(Fault::Failed(format!("no answer to a watch within {WATCH_BEGIN:?}")))),
        };
        if self.told.take().is_some() {
            self.send(Event::Well(self.kind)).await?;
        }
        let mut stream = pin!(stream);
        loop {
            let event = match tokio::time::timeout_at(until, stream.try_next()).await {
                Ok(Ok(Some(event))) => event,
                Ok(Ok(None)) => return Ok(Ok(())),
                // A line that is no event: what it said is unknown, so all must be read again.
                Ok(Err(kube::Error::SerdeError(e))) => {
                    tracing::warn!(kind = %self.kind, "an event cannot be read, listing again: {e}");
                    return Ok(Err(Fault::Expired));
                }
                Ok(Err(error)) => return Ok(Err(error.into())),
                Err(_) => return Ok(Err(Fault::Failed("the watch fell silent".into()))),
            };
            let (mut object, gone) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => (object, false),
                WatchEvent::Deleted(object) => (object, true),
                WatchEvent::Bookmark(bookmark) => {
                    *version = bookmark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => return Ok(Err(Fault::of_status(&status))),
            };
            let next = object["metadata"]["resourceVersion"].as_str().map(str::to_owned);
            let event = if gone {
                Event::Gone(self.kind, named(self.kind, &object))
            } else {
                trim(self.kind, &mut object);
                Event::Set(self.kind, Read::new(self.kind, object))
            };
            self.send(event).await?;
            if let Some(next) = next {
                *version = next;
            }
        }
    }

    /// Says what is wrong, and pauses before the next try.
    async fn fail(&mut self, fault: Fault) -> Result<(), Unheard> {
        self.count(fault.label());
        if matches!(fault, Fault::Absent) {
            let since = *self.missing.get_or_insert_with(Instant::now);
            if !self.listed || since.elapsed() >= ABSENT_BELIEVED {
                self.listed = false;
                self.told = None;
                self.send(Event::Absent(self.kind)).await?;
            }
            self.rest(ABSENT).await;
            return Ok(());
        }
        let wait = match fault {
            Fault::Busy(wait) => wait.max(self.pause),
            Fault::Forbidden(_) if self.kind == Kind::Secret => WITHHELD,
            _ => self.pause,
        };
        let reason = format!("cannot be read from the API server: {fault}");
        if self.told.as_ref() != Some(&reason) {
            tracing::debug!(kind = %self.kind, "{reason}");
            self.told = Some(reason.clone());
            // Without certificates of Gateways there still is a mesh; without any other kind the plan would be wrong.
            if matches!(fault, Fault::Forbidden(_)) && self.kind == Kind::Secret && !self.listed {
                self.send(Event::Absent(self.kind)).await?;
            }
            self.send(Event::Trouble(self.kind, reason)).await?;
        }
        self.rest(wait).await;
        Ok(())
    }

    /// Pauses, the next time for longer; never all kinds in step.
    async fn rest(&mut self, wait: Duration) {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        sleep(wait.mul_f64(rand::random_range(0.5..1.5))).await;
    }

    async fn send(&self, event: Event) -> Result<(), Unheard> {
        self.events.send(event).await.map_err(|_| Unheard)
    }

    fn count(&self, reason: &'static str) {
        self.metrics.restarts.get_or_create(&Restart { kind: self.kind.as_str(), reason }).inc();
    }
}
