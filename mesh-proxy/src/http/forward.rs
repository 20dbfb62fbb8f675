//! Forward: the attempts of one request, until one is good enough or none may follow. It must not choose routes; what may be repeated is the core's to say.

use super::{
    body::Body,
    direct::Directed,
    frontend::Frontend,
    outgoing::{Keep, Outgoing, Protocol, Unsent},
    response::Deadline,
    send::{Sent, send},
    upload::Upload,
};
use crate::{
    telemetry::{Attempted, RequestGuard, trace::TRACEPARENT},
    tunnel::DialFault,
};
use http::Response;
use mesh_core::{
    balance::Target,
    fault::Fault,
    mesh::Limits,
    retry::{self, Anew, Outcome, REACHES},
    snapshot::Snapshot,
};
use smallvec::SmallVec;
use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep_until, timeout_at};

/// A time so far away that nothing waits for it: 100 years.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// Addresses that were tried for a request, or that would be no better.
pub(super) type Tried = SmallVec<[SocketAddr; 1]>;

/// Sends a request until a response head is good enough. Returns it with what is left of its timeouts, or the fault of the last attempt.
/// An application may take hours for its answer, so the snapshot is let go of when the first endpoint is chosen.
pub async fn forward(
    front: &Frontend,
    snapshot: Arc<Snapshot>,
    directed: &Directed,
    outgoing: Box<Outgoing>,
    upload: Option<&Arc<Upload>>,
    guard: &mut RequestGuard,
    started: Instant,
) -> Result<(Response<Body>, Deadline), DialFault> {
    let settings = snapshot.settings().clone();
    let rule = directed.rule();
    let whole = Clock::new(started, rule.and_then(|r| r.request_timeout), Fault::RequestTimeout);
    let retry = directed.retry();
    let budget = snapshot.retry_budget(&directed.service).cloned();
    if let Some(budget) = &budget {
        budget.request(started.into_std());
    }
    let named = (directed.service.clone(), directed.port);
    let protocol = front.protocol_of(&snapshot, &directed.service, directed.port, &outgoing);
    let method = outgoing.method.clone();
    let mut head = Some(outgoing);
    let mut tried = Tried::new();
    // When the attempt begins; to look at the clock costs more than some of what is done for a request.
    let mut now = started;
    let mut target = pick(&snapshot, directed, &tried, now)?;
    drop(snapshot);
    // Attempts that count as retries, and those that began anew since nobody had processed them.
    let (mut number, mut anew, mut began_anew) = (0, 0, false);
    loop {
        tried.push(target.address);
        let body = match upload {
            Some(upload) => Body::Upload(upload.reader().ok_or(DialFault::from(Fault::Internal))?),
            None => Body::Empty,
        };
        let more = retry.is_some_and(|r| number < r.attempts);
        let may_anew = anew + 1 < REACHES;
        let keep = match (more, may_anew) {
            (true, _) => Keep::Always,
            (false, true) => Keep::Unprocessed,
            (false, false) => Keep::Never,
        };
        let clock = whole.min(Clock::new(now, rule.and_then(|r| r.backend_timeout), Fault::BackendTimeout));
        // What begins anew was counted when it began.
        let counted = Attempted {
            service: Some(&named),
            retry: if began_anew { 0 } else { number },
            fault: None,
            budgeted: budget.is_some() && !began_anew,
        };
        let unsent = Unsent::new(&mut head, body, keep);
        let sent = attempt(front, &settings.limits, (&target, protocol), unsent, (now, clock), counted, guard).await;
        let outcome = outcome_of(&sent);

        let replayable = || upload.is_none_or(|u| u.is_replayable());
        // What follows looks at the newest config: endpoints that died are the usual reason for it.
        if sent.is_err()
            && may_anew
            && head.is_some()
            && replayable()
            && let Some(next) = anew_at(front, directed, outcome, &target, &mut tried)
        {
            (target, anew, began_anew, now) = (next, anew + 1, true, Instant::now());
            continue;
        }
        let repeated = retry.filter(|retry| more && retry::may_repeat(retry, &method, outcome) && replayable());
        let Some(retry) = repeated else {
            let Sent { response, peer } = sent?;
            if let Some(upload) = upload {
                upload.keep_no_more();
            }
            guard.record.tls = peer.as_ref().map(|_| "TLSv1.3").or(guard.record.tls);
            guard.record.destination.identity = peer;
            return Ok((response, clock.deadline()));
        };
        if budget.as_ref().is_some_and(|b| !b.take_retry(std::time::Instant::now())) {
            let fault = Some(Fault::RetryBudget);
            let refused = Attempted { service: Some(&named), retry: number + 1, fault, budgeted: true };
            front.shared.telemetry.attempt(refused);
            if let Some(span) = &mut guard.span {
                span.budget_refused();
            }
            return Err(Fault::RetryBudget.into());
        }
        (number, began_anew) = (number + 1, false);
        // What the attempt answered is given up before the pause, so that its stream is free.
        drop(sent);
        let pause = Instant::now() + retry::backoff(retry.backoff, number, rand::random());
        if pause >= whole.at {
            sleep_until(whole.at).await;
            return Err(whole.fault.into());
        }
        sleep_until(pause).await;
        now = Instant::now();
        target = pick(&*newest(front)?, directed, &tried, now)?;
    }
}

/// One attempt at one endpoint, until its response head or `clock`; recorded, measured, counted.
async fn attempt(
    front: &Frontend,
    limits: &Limits,
    (target, protocol): (&Arc<Target>, Protocol),
    mut unsent: Unsent<'_>,
    (now, clock): (Instant, Clock),
    counted: Attempted<'_>,
    guard: &mut RequestGuard,
) -> Result<Sent, DialFault> {
    guard.record.attempts += 1;
    guard.record.destination.address = Some(target.address);
    guard.record.destination.workload = target.workload.clone();
    // On the heap, as few requests are sampled.
    let span = guard.span.as_ref().map(|s| Box::new(s.attempt(guard.record.attempts, target.address)));
    if let Some(span) = &span {
        unsent.set_header(TRACEPARENT, span.parent().header());
    }
    let load = target.load.start(now.into_std());
    // Pinned here once: moved into either way of waiting, it would have its room twice.
    let mut sending = pin!(send(front, limits, target, protocol, unsent));
    let sent = match clock.bounded {
        // A timer costs more than many a request.
        false => sending.as_mut().await,
        true => timeout_at(clock.at, sending.as_mut()).await.unwrap_or_else(|_| Err(clock.fault.into())),
    };
    let outcome = outcome_of(&sent);
    let failed = match outcome {
        Outcome::Response(status) => status.is_server_error(),
        Outcome::Failed(_) => true,
    };
    load.done(std::time::Instant::now(), failed);
    front.shared.telemetry.attempt(Attempted { fault: sent.as_ref().err().map(|f| f.fault), ..counted });
    if let Some(span) = span {
        span.finish(match outcome {
            Outcome::Response(status) => Ok(status),
            Outcome::Failed(fault) => Err(fault),
        });
    }
    sent
}

fn outcome_of(sent: &Result<Sent, DialFault>) -> Outcome {
    match sent {
        Ok(sent) => Outcome::Response(sent.response.status()),
        Err(fault) => Outcome::Failed(fault.fault),
    }
}

/// The newest config. There was one when the request began, and none is ever taken back.
fn newest(front: &Frontend) -> Result<Arc<Snapshot>, Fault> {
    front.shared.snapshot().ok_or(Fault::Internal)
}

/// The endpoint, by the newest config, at which an attempt at `target` that nobody has processed is made anew. None: it was processed, the
/// rule's `retry` decides, or nobody is left.
pub(super) fn anew_at(
    front: &Frontend,
    directed: &Directed,
    outcome: Outcome,
    target: &Target,
    tried: &mut Tried,
) -> Option<Arc<Target>> {
    let anew = retry::may_begin_anew(directed.rule().and_then(|r| r.retry.as_ref()), outcome)?;
    if anew == Anew::OtherWorkload {
        tried.extend(target.everywhere());
    }
    let next = pick(&*newest(front).ok()?, directed, tried, Instant::now()).ok()?;
    (anew == Anew::Anywhere || !tried.contains(&next.address)).then_some(next)
}

/// An endpoint of the backend, one that was not tried yet while there is one.
pub(super) fn pick(
    snapshot: &Snapshot,
    directed: &Directed,
    tried: &[SocketAddr],
    now: Instant,
) -> Result<Arc<Target>, Fault> {
    // HTTPRouteRule.backendRefs: an unknown Service is 500, one without endpoints is 503.
    let endpoints = snapshot.endpoints(&directed.service, directed.port).ok_or(Fault::BrokenBackend)?;
    endpoints.pick(rand::random(), now.into_std(), tried).cloned().ok_or(Fault::NoEndpoint)
}

/// A moment and the fault that it means.
#[derive(Clone, Copy)]
struct Clock {
    at: Instant,
    fault: Fault,
    bounded: bool,
}

impl Clock {
    fn new(from: Instant, patience: Option<Duration>, fault: Fault) -> Self {
        Self { at: from + patience.unwrap_or(NEVER), fault, bounded: patience.is_some() }
    }

    /// The earlier one.
    fn min(self, other: Self) -> Self {
        if self.bounded && (!other.bounded || self.at <= other.at) { self } else { other }
    }

    fn deadline(self) -> Deadline {
        self.bounded.then_some((self.at, self.fault))
    }
}
