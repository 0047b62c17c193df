//! Order: what a node says of itself never contradicts itself, and never goes back without a reason.
//!
//! C4 and C5 of the common invariants: within a life epoch, commit, applied and synced only rise; over a restart the epoch
//! and what was synced in the engine stay; at any time synced ≤ applied ≤ committed and durable ≤ last, and what is applied
//! is durable in the log or, by an installed snapshot, in the engine.

use super::Violation;
use quorate_consensus::Status;
use quorate_types::{Epoch, Index};

/// What one replica has said of itself.
#[derive(Clone, Debug, Default)]
pub struct Order {
    /// The latest status of this life.
    latest: Option<Seen>,
    /// The highest index that was ever reported as synced in the engine.
    synced: Index,
    /// The highest slot that could not be read and is being written again; zero when that is durable.
    rewritten: Index,
}

/// What must not go back within a life.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// The epoch.
    epoch: Epoch,
    /// The commit index.
    committed: Index,
    /// The applied index.
    applied: Index,
    /// The index synced in the engine.
    synced: Index,
}

impl Order {
    /// The process starts anew: what it knew in memory only may be gone.
    pub fn on_restart(&mut self) {
        self.latest = None;
        self.rewritten = Index::ZERO;
    }

    /// A slot that could not be read is written again: until that is durable, it is not, though it may be applied.
    pub fn on_rewritten(&mut self, index: Index) {
        self.rewritten = self.rewritten.max(index);
    }

    /// The engine is lost, and with it what was synced.
    pub fn on_engine_lost(&mut self) {
        self.synced = Index::ZERO;
    }

    /// The engine opened with this much applied.
    ///
    /// # Errors
    /// When it is less than was synced.
    pub fn on_open(&mut self, applied: Index) -> Result<(), Violation> {
        if applied < self.synced {
            return Err(violation(format!(
                "the engine opened at index {applied}, but {} was synced",
                self.synced
            )));
        }
        Ok(())
    }

    /// The replica shows its status; `has_state` unless it waits for a snapshot, and what it calls synced is not here. A
    /// log `is_damaged` may have lost what was applied from it.
    ///
    /// # Errors
    /// When something went back, or stands in the wrong order.
    pub fn on_status(
        &mut self,
        status: &Status,
        has_state: bool,
        is_damaged: bool,
    ) -> Result<(), Violation> {
        let seen = Seen {
            epoch: status.epoch,
            committed: status.committed,
            applied: status.applied,
            synced: status.synced,
        };
        let held = status.durable.max(status.synced).max(self.rewritten);
        let ordered = status.synced <= status.applied
            && status.applied <= status.committed
            && status.durable <= status.last.index
            && (is_damaged || status.applied <= held);
        if self.rewritten <= status.durable {
            self.rewritten = Index::ZERO;
        }
        if !ordered {
            return Err(violation(format!("{status} synced={}", status.synced)));
        }
        if let Some(latest) = self.latest {
            let back = seen.epoch.number < latest.epoch.number
                || seen.committed < latest.committed
                || seen.applied < latest.applied
                || seen.synced < latest.synced;
            if back {
                return Err(violation(format!("{status} after {latest:?}")));
            }
        }
        self.latest = Some(seen);
        if has_state {
            self.synced = self.synced.max(status.synced);
        }
        Ok(())
    }
}

fn violation(seen: String) -> Violation {
    Violation { promise: "order", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::{Metrics, RoleName};
    use quorate_types::{Configuration, GroupId, NodeId, Position};

    fn status(number: u64, indices: [u64; 5]) -> Status {
        let epoch = Epoch::new(number, NodeId(1));
        let [synced, applied, committed, durable, last] = indices.map(Index);
        Status {
            group: GroupId(0),
            node: NodeId(1),
            role: RoleName::Follower,
            epoch,
            leader: None,
            last: Position::new(last, epoch),
            durable,
            committed,
            applied,
            synced,
            configuration: Configuration::default(),
            peers: std::collections::BTreeMap::new(),
            why_not: None,
            metrics: Metrics::default(),
        }
    }

    #[test]
    fn nothing_goes_back_within_a_life() {
        let check = |second: Status, legal: bool| {
            let mut order = Order::default();
            assert_eq!(order.on_status(&status(2, [1, 2, 3, 4, 5]), true, false), Ok(()));
            assert_eq!(order.on_status(&second, true, false).is_ok(), legal, "{second}");
        };
        check(status(2, [1, 2, 3, 4, 5]), true);
        check(status(3, [1, 2, 3, 3, 3]), true);
        check(status(1, [1, 2, 3, 4, 5]), false);
        check(status(2, [1, 2, 2, 4, 5]), false);
        check(status(2, [1, 1, 3, 4, 5]), false);
        check(status(2, [0, 2, 3, 4, 5]), false);
    }

    #[test]
    fn one_status_is_ordered_in_itself() {
        let legal = |indices| Order::default().on_status(&status(1, indices), true, false).is_ok();
        assert!(legal([1, 1, 1, 1, 1]));
        assert!(!legal([2, 1, 3, 4, 5]));
        assert!(!legal([1, 3, 2, 4, 5]));
        assert!(!legal([1, 2, 3, 6, 5]));
        assert!(!legal([1, 3, 3, 2, 5]), "applied what is not durable here");
        let lost = Order::default().on_status(&status(1, [1, 3, 3, 2, 5]), true, true);
        assert_eq!(lost, Ok(()), "what was applied rotted afterwards");
        let mut order = Order::default();
        order.on_rewritten(Index(3));
        assert_eq!(order.on_status(&status(1, [1, 3, 3, 2, 5]), true, false), Ok(()));
        assert_eq!(order.on_status(&status(1, [1, 3, 3, 3, 5]), true, false), Ok(()));
        let again = order.on_status(&status(1, [1, 3, 3, 2, 5]), true, false);
        assert!(again.is_err(), "it was durable again");
    }

    #[test]
    fn a_restart_forgets_memory_but_not_what_was_synced() {
        let mut order = Order::default();
        assert_eq!(order.on_status(&status(2, [3, 4, 5, 5, 5]), true, false), Ok(()));
        order.on_restart();
        assert!(order.on_open(Index(2)).is_err());
        assert_eq!(order.on_open(Index(3)), Ok(()));
        assert_eq!(order.on_status(&status(2, [3, 3, 3, 5, 5]), true, false), Ok(()));
    }

    #[test]
    fn a_lost_engine_begins_anew_and_what_it_waits_for_is_not_there_yet() {
        let mut order = Order::default();
        assert_eq!(order.on_status(&status(2, [3, 4, 5, 5, 5]), true, false), Ok(()));
        order.on_engine_lost();
        order.on_restart();
        assert_eq!(order.on_open(Index(0)), Ok(()));
        assert_eq!(order.on_status(&status(2, [3, 3, 5, 5, 5]), false, false), Ok(()));
        order.on_restart();
        assert_eq!(order.on_open(Index(0)), Ok(()));
        assert_eq!(order.on_status(&status(2, [4, 4, 5, 5, 5]), true, false), Ok(()));
        order.on_restart();
        assert!(order.on_open(Index(3)).is_err());
    }
}
