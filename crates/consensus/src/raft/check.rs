//! The numbered invariants of [`Raft`], asserted after every input and every set of effects.

use super::replica::{Raft, Role};

impl Raft {
    /// Asserts the invariants by their numbers.
    pub(super) fn check(&self) {
        self.check_indexes();
        self.check_term();
        self.check_leader();
        assert!(
            !self.damage.is_forgetful() || !self.writes.has_hard(),
            "invariant 9: a lost hard state is written over with {}",
            self.hard
        );
        assert!(
            !self.needs_snapshot || self.apply_asked == self.tail.purged().index,
            "invariant 10: applies up to {} over a state machine below {}",
            self.apply_asked,
            self.tail.purged()
        );
        assert!(
            self.membership.latest_index() <= self.tail.last(),
            "invariant 7: the configuration of {} lies above the last index {}",
            self.membership.latest_index(),
            self.tail.last()
        );
        assert!(
            self.writes.is_in_order(),
            "invariant 8: writes out of order, or durable {} above an unfinished one",
            self.writes.durable()
        );
    }

    fn check_indexes(&self) {
        let chain = [
            ("purged", self.tail.purged().index),
            ("synced", self.synced),
            ("applied", self.applied),
            ("apply_asked", self.apply_asked),
            ("committed", self.committed),
            ("last", self.tail.last()),
        ];
        for pair in chain.windows(2) {
            let ((low_name, low), (high_name, high)) = (pair[0], pair[1]);
            assert!(low <= high, "invariant 1: {low_name} {low} is above {high_name} {high}");
        }
        assert!(
            self.writes.durable() <= self.tail.last(),
            "invariant 1: durable {} is above last {}",
            self.writes.durable(),
            self.tail.last()
        );
    }

    fn check_term(&self) {
        let last = self.tail.last_position();
        assert!(
            last.epoch.number <= self.term(),
            "invariant 3: the entry {last} has a higher term than {}",
            self.term()
        );
    }

    fn check_leader(&self) {
        let Role::Leader(leader) = &self.role else {
            assert!(
                matches!(self.role, Role::Follower) || self.knows_its_log(),
                "invariant 9: a damaged replica campaigns"
            );
            return;
        };
        assert!(self.knows_its_log(), "invariant 9: a damaged replica leads");
        assert!(
            self.first_fault().is_none(),
            "invariant 9: a replica leads with a damaged slot: {:?}",
            self.first_fault()
        );
        assert!(!self.needs_snapshot, "invariant 10: a replica without its state leads");
        assert!(
            self.hard.voted_for == Some(self.node()),
            "invariant 4: the leader {} voted otherwise: {}",
            self.node(),
            self.hard
        );
        assert!(
            leader.first <= self.tail.last(),
            "invariant 5: the own no-op at {} is gone, the last index is {}",
            leader.first,
            self.tail.last()
        );
        for (id, peer) in &leader.peers {
            let progress = &peer.progress;
            assert!(
                progress.matched < progress.next,
                "invariant 6: {id} matched {} and next is {}",
                progress.matched,
                progress.next
            );
            assert!(
                progress.matched <= self.tail.last(),
                "invariant 6: {id} matched {} above the last index {}",
                progress.matched,
                self.tail.last()
            );
        }
    }
}
