//! Programmed: whether every connected node proxy, of whichever replica, runs the newest settings of the mesh. It must not count gateways' proxies.

use super::ClusterStatuses;
use crate::{
    leader::{Leadership, Reports},
    plan::status::{Condition, reason},
    publish::{Publisher, Taken},
};
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How often the leader looks.
const LOOK: Duration = Duration::from_secs(2);

/// How often the same must be seen until it is said: a proxy that comes has nothing for a moment, and that is no news.
const STEADY: u32 = 2;

/// Tells the status of the XMesh, as long as this replica leads, for ever.
pub async fn programmed(
    statuses: Arc<ClusterStatuses>,
    publisher: Arc<Publisher>,
    mut reports: Reports,
    mut leadership: Leadership,
) {
    let (mut last, mut times) = (None, 0);
    loop {
        leadership.gained().await;
        // Version 0: this replica has no plan to compare with.
        let version = publisher.settings_taken().version;
        if version != 0
            && let Some(reports) = reports.read().await
        {
            let condition = judge(&reports, version);
            if last.as_ref() == Some(&condition) {
                times += 1;
            } else {
                (last, times) = (Some(condition.clone()), 1);
            }
            if times >= STEADY {
                statuses.programmed(condition);
            }
        }
        sleep(LOOK).await;
    }
}

fn judge(reports: &[Taken], version: u64) -> Condition {
    let connected: usize = reports.iter().map(|taken| taken.connected).sum();
    // A replica that is behind speaks of other settings.
    let by: usize = reports.iter().filter(|taken| taken.version == version).map(|taken| taken.by).sum();
    match connected {
        0 => Condition::unknown("Programmed", reason::PENDING, "no node proxy is connected".into()),
        _ if by < connected => {
            let message = "not all connected node proxies run these settings yet";
            Condition::no("Programmed", reason::PENDING, message.into())
        }
        _ => Condition::yes("Programmed", reason::PROGRAMMED, "all connected node proxies run these settings".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::status::State;

    #[test]
    fn it_is_programmed_when_all_proxies_of_all_replicas_run_the_same_settings_and_there_is_one() {
        let taken = |version, connected, by| Taken { version, connected, by };
        for (reports, state) in [
            (vec![], State::Unknown),
            (vec![taken(7, 0, 0), taken(6, 0, 0)], State::Unknown),
            (vec![taken(7, 2, 2), taken(7, 0, 0)], State::True),
            (vec![taken(7, 2, 2), taken(6, 0, 0)], State::True),
            (vec![taken(7, 2, 2), taken(7, 3, 2)], State::False),
            (vec![taken(7, 2, 2), taken(6, 1, 1)], State::False),
        ] {
            assert_eq!(judge(&reports, 7).state, state, "{reports:?}");
        }
    }
}
