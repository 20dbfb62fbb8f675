//! What a replica does with the Lease that it sees. Pure; time comes from outside. It must not ask anybody.

use std::time::Duration;
use tokio::time::Instant;

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// Who holds it; empty: nobody.
    pub(super) holder: String,
    /// When it was renewed, by its holder's clock; only ever compared with itself.
    pub(super) renewed: String,
    /// How long its holder asked for.
    pub(super) duration: Duration,
}

/// The renewal that was seen last, and when it was new to us.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    holder: String,
    renewed: String,
    since: Instant,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Somebody else holds it.
    Wait,
    /// It is free, or its holder is gone.
    Take,
    /// It is ours.
    Renew,
}

/// Decides. A holder is gone when its Lease did not change for as long as it asked for, by our own clock.
pub(super) fn decide(lease: Option<&View>, me: &str, seen: &mut Option<Seen>, now: Instant) -> Step {
    let Some(lease) = lease else { return Step::Take };
    let since = match seen {
        Some(seen) if seen.renewed == lease.renewed && seen.holder == lease.holder => seen.since,
        _ => {
            *seen = Some(Seen { holder: lease.holder.clone(), renewed: lease.renewed.clone(), since: now });
            now
        }
    };
    match &*lease.holder {
        "" => Step::Take,
        holder if holder == me => Step::Renew,
        _ if now.saturating_duration_since(since) >= lease.duration.max(super::DURATION) => Step::Take,
        _ => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, renewed: &str) -> View {
        View { holder: holder.into(), renewed: renewed.into(), duration: Duration::from_secs(15) }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_or_was_not_renewed_for_its_duration() {
        let (mut seen, start) = (None, Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(decide(None, "a", &mut seen, at(0)), Step::Take);
        assert_eq!(decide(Some(&lease("", "1")), "a", &mut seen, at(0)), Step::Take);
        assert_eq!(decide(Some(&lease("a", "2")), "a", &mut seen, at(0)), Step::Renew);
        assert_eq!(decide(Some(&lease("b", "3")), "a", &mut seen, at(0)), Step::Wait);
        assert_eq!(decide(Some(&lease("b", "3")), "a", &mut seen, at(14)), Step::Wait);
        assert_eq!(decide(Some(&lease("b", "4")), "a", &mut seen, at(16)), Step::Wait, "it was renewed");
        assert_eq!(decide(Some(&lease("b", "4")), "a", &mut seen, at(30)), Step::Wait);
        assert_eq!(decide(Some(&lease("b", "4")), "a", &mut seen, at(31)), Step::Take);
    }

    #[test]
    fn a_lease_that_asks_for_longer_is_left_longer() {
        let (mut seen, start) = (None, Instant::now());
        let view = View { duration: Duration::from_secs(60), ..lease("b", "1") };
        assert_eq!(decide(Some(&view), "a", &mut seen, start), Step::Wait);
        assert_eq!(decide(Some(&view), "a", &mut seen, start + Duration::from_secs(59)), Step::Wait);
        assert_eq!(decide(Some(&view), "a", &mut seen, start + Duration::from_secs(60)), Step::Take);
    }
}
