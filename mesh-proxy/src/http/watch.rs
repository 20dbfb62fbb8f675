//! Watch: when a client connection is to leave or is closed: told to by the proxy, idle, or stalled. It must not touch the connection.

use super::{
    frontend::Frontend,
    progress::{Bounds, Progress},
};
use mesh_core::mesh::Limits;
use std::time::Duration;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

/// How often connections are looked at: fine enough for the limits, coarse enough for 10,000 idle ones.
const TICK_MIN: Duration = Duration::from_millis(50);
const TICK_MAX: Duration = Duration::from_secs(15);
/// Part of the drain time in which an HTTP/1.1 connection is left open for its next request, the answer to which ends it: a client that sends
/// one while we close would see it fail.
const QUIET: u32 = 3;

/// How long a connection that is to leave may wait for its next request.
pub(super) fn linger(limits: &Limits) -> Duration {
    limits.drain / QUIET
}

/// Which HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
}

/// What is to be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Tell the client to come again on another one.
    Leave,
    /// It waits for its next request and may be kept for less (HTTP/1.1).
    Rest,
    /// Close it.
    Close,
}

/// Watches one connection.
pub(super) struct Watch<'a> {
    version: Version,
    front: &'a Frontend,
    limits: &'a Limits,
    progress: &'a Progress,
    ticks: Interval,
    bounds: Bounds,
    /// Since it was known that it shall leave: when it must.
    quiet: Option<Instant>,
    /// When the drain is over.
    cut: Option<Instant>,
    told: bool,
    rested: bool,
}

impl<'a> Watch<'a> {
    pub(super) fn new(version: Version, front: &'a Frontend, limits: &'a Limits, progress: &'a Progress) -> Self {
        let tick = (limits.handshake.min(limits.idle) / 4).clamp(TICK_MIN, TICK_MAX);
        let mut ticks = interval_at(Instant::now() + tick, tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let bounds = Bounds::new(version == Version::Http1, limits, tick);
        Self { version, front, limits, progress, ticks, bounds, quiet: None, cut: None, told: false, rested: false }
    }

    /// Waits until something is to be done.
    pub(super) async fn next(mut self) -> (Word, Self) {
        let http2 = self.version == Version::Http2;
        loop {
            let (waits, leaves) = (self.quiet.is_none(), self.quiet.is_some() && !self.told);
            let leave = tokio::select! {
                () = self.front.ending(), if waits => {
                    self.quiet = Some(Instant::now() + linger(self.limits));
                    // GOAWAY leaves nothing in doubt; a client of HTTP/1.1 hears it with its next response. Who has just come gets the
                    // stream that it came for: told at once, it would come again and again.
                    http2 && self.progress.begun() > 0
                }
                () = self.progress.first(), if http2 && leaves => true,
                () = self.front.drain.cancelled(), if self.cut.is_none() => {
                    self.cut = Some(Instant::now() + self.limits.drain);
                    false
                }
                () = sleep_until(self.quiet.unwrap_or_else(Instant::now)), if leaves => true,
                now = self.ticks.tick() => {
                    if self.cut.is_some_and(|cut| now >= cut) || self.bounds.exceeded(self.progress) {
                        return (Word::Close, self);
                    }
                    if !http2 && !self.rested && self.quiet.is_none() && self.bounds.rests(self.progress) {
                        self.rested = true;
                        return (Word::Rest, self);
                    }
                    false
                }
            };
            if leave {
                self.told = true;
                return (Word::Leave, self);
            }
        }
    }
}
