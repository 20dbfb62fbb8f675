//! How the echo server misbehaves: asked by query (`?delay=200ms&status=503`), by headers (`echo-delay: 200ms`), or by `--behave`. Pure.

use std::time::Duration;

/// What to do with a request besides answering.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Wait before the answer.
    pub delay: Duration,
    /// Answer with this status.
    pub status: Option<u16>,
    /// gRPC status.
    pub grpc_status: Option<u32>,
    /// Fail every n-th request only.
    pub every: Option<u64>,
    /// Fail so many of 100, evenly spread.
    pub percent: Option<u64>,
    /// How to fail.
    pub failure: Failure,
    /// Body of so many bytes instead of the report.
    pub size: Option<usize>,
}

/// How a failing request ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// With a status.
    #[default]
    Status,
    /// The connection is closed without an answer.
    Close,
    /// The connection is reset.
    Reset,
}

/// What becomes of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered with this status.
    Answer(u16),
    /// As [`Failure::Close`].
    Close,
    /// As [`Failure::Reset`].
    Reset,
}

impl Behaviour {
    /// Reads `name=value&…`; unknown names are other people's and are left alone.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut behaviour = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, "1"));
            behaviour.set(name, value)?;
        }
        Ok(behaviour)
    }

    /// Sets one thing.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let bad = |_| format!("{name}={value} is no number");
        match name {
            "delay" => self.delay = duration(value)?,
            "status" => self.status = Some(value.parse().map_err(bad)?),
            "grpc-status" => self.grpc_status = Some(value.parse().map_err(bad)?),
            "every" => self.every = Some(value.parse::<u64>().map_err(bad)?.max(1)),
            "fail" => self.percent = Some(value.parse::<u64>().map_err(bad)?.min(100)),
            "size" => self.size = Some(value.parse::<usize>().map_err(bad)?.min(64 * 1024 * 1024)),
            "close" => self.failure = Failure::Close,
            "reset" => self.failure = Failure::Reset,
            _ => {}
        }
        Ok(())
    }

    /// The n-th request's fate, from 1. Deterministic, so that a test knows what comes.
    pub fn fate(&self, n: u64) -> Fate {
        let chosen = match (self.every, self.percent) {
            (Some(every), _) => n.is_multiple_of(every),
            // The count of failures up to n grows by one: evenly spread.
            (None, Some(percent)) => n * percent / 100 > (n - 1) * percent / 100,
            (None, None) => self.status.is_some() || self.failure != Failure::Status,
        };
        match self.failure {
            _ if !chosen => Fate::Answer(200),
            Failure::Status => Fate::Answer(self.status.unwrap_or(503)),
            Failure::Close => Fate::Close,
            Failure::Reset => Fate::Reset,
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("delay={text} is no duration (200ms, 2s)");
    if let Some(millis) = text.strip_suffix("ms") {
        return millis.parse().map(Duration::from_millis).map_err(|_| bad());
    }
    text.strip_suffix('s').and_then(|s| s.parse().ok()).map(Duration::from_secs).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_fails_and_a_share_is_spread_evenly() {
        let every = Behaviour::parse("every=3&status=500&x=y").unwrap();
        let failed: Vec<u64> = (1..=9).filter(|n| every.fate(*n) == Fate::Answer(500)).collect();
        assert_eq!(failed, [3, 6, 9]);
        let third = Behaviour::parse("fail=30").unwrap();
        assert_eq!((1..=100).filter(|n| third.fate(*n) == Fate::Answer(503)).count(), 30);
        assert_eq!((1..=10).filter(|n| third.fate(*n) == Fate::Answer(503)).count(), 3);
    }

    #[test]
    fn a_plain_request_is_answered_and_nonsense_is_named() {
        assert_eq!(Behaviour::parse("").unwrap().fate(1), Fate::Answer(200));
        assert_eq!(Behaviour::parse("reset=1").unwrap().fate(1), Fate::Reset);
        assert!(Behaviour::parse("delay=soon").unwrap_err().contains("soon"));
    }
}
