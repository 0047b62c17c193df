//! Stalls: nobody leads for long while the own log stands still.
//!
//! F4 of the mistakes of other libraries: a leader whose disk hangs keeps its followers content with heartbeats, so that
//! nobody takes its place and nothing is answered. Read off a node's status by the node's own clock, so that neither a
//! clock that drifts nor a process that stood still is taken for a disk.

use super::Violation;
use quorate_consensus::{RoleName, Status};
use quorate_types::{Epoch, Index, Instant};
use std::time::Duration;

/// How long a leader may wait for its own log: one and a half election timeouts, after which it hands over, and half a
/// one more for the moment at which it looks.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// What one replica waits for, while it leads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stalls {
    /// In which epoch it leads, up to where its log is durable, and since when that is all though more was asked for.
    waiting: Option<(Epoch, Index, Instant)>,
}

impl Stalls {
    /// The replica shows its status when its own clock shows `local`.
    ///
    /// # Errors
    /// When it leads although its log has stood still for too long.
    pub fn on_status(&mut self, status: &Status, local: Instant) -> Result<(), Violation> {
        let Status { epoch, durable, .. } = *status;
        if status.role != RoleName::Leader || durable >= status.last.index {
            self.waiting = None;
            return Ok(());
        }
        let since = match self.waiting {
            Some((of, index, since)) if (of, index) == (epoch, durable) => since,
            Some(_) | None => local,
        };
        self.waiting = Some((epoch, durable, since));
        let waited = local.since(since);
        if waited <= WAIT_MAX {
            return Ok(());
        }
        let seen = format!("{status} has led for {waited:?} while its log stood still");
        Err(Violation { promise: "stalls", seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::Metrics;
    use quorate_types::{Configuration, GroupId, NodeId, Position};
    use std::collections::BTreeMap;

    /// The status of a leader of an epoch whose log is durable up to one index and goes on to another.
    fn leading(number: u64, durable: u64, last: u64) -> Status {
        let epoch = Epoch::new(number, NodeId(1));
        Status {
            group: GroupId(0),
            node: NodeId(1),
            role: RoleName::Leader,
            epoch,
            leader: Some(NodeId(1)),
            last: Position::new(Index(last), epoch),
            durable: Index(durable),
            committed: Index::ZERO,
            applied: Index::ZERO,
            synced: Index::ZERO,
            configuration: Configuration::default(),
            peers: BTreeMap::new(),
            why_not: None,
            metrics: Metrics::default(),
        }
    }

    /// Shows one status a second, and tells whether all of them are borne.
    fn bears(statuses: &[Status]) -> bool {
        let mut stalls = Stalls::default();
        let mut at = Instant::ZERO;
        statuses.iter().all(|status| {
            at += Duration::from_secs(1);
            stalls.on_status(status, at).is_ok()
        })
    }

    #[test]
    fn a_leader_whose_log_stands_still_leads_for_two_seconds_at_most() {
        let still = leading(3, 7, 8);
        assert!(bears(&[still.clone(), still.clone(), still.clone()]));
        assert!(!bears(&[still.clone(), still.clone(), still.clone(), leading(3, 7, 9)]));
    }

    #[test]
    fn whoever_goes_on_or_leads_no_more_is_let_alone() {
        let still = leading(3, 7, 8);
        let follows = Status { role: RoleName::Follower, ..still.clone() };
        assert!(bears(&vec![follows.clone(); 9]), "it does not lead");
        assert!(bears(&vec![leading(3, 8, 8); 9]), "it waits for nothing");
        for other in [leading(3, 8, 9), leading(4, 7, 8), leading(3, 8, 8), follows] {
            let halved = [still.clone(), still.clone(), other, still.clone(), still.clone()];
            assert!(bears(&halved), "it began anew");
        }
    }
}
