//! What stood in slots that are damaged beyond knowledge, as another log tells.
//!
//! ```text
//! here   2 2 ? 3 3          identify 3.. before 4@3  ->
//! peer   2 2 3 3 3 3    <-  identified 3@3 before 4@3
//! ```
//! *Why this is safe.* If two logs hold an entry of the same position, they are identical in all entries before it (log matching,
//! thesis 3.5). What follows the unknown slots here is known. So a peer whose log holds that same position had in the slots before it what
//! this log had, whether it is committed or not, and whatever happens to the peer's log afterwards. It holds of logs as Raft makes
//! them: nobody asks or answers whose log is mixed (`damage`). The answer makes no slot whole: it makes an unknown slot a known
//! one, and `repair` goes on from there.
//!
//! Unknown slots at the very end of a log have nothing that follows: only a leader refills them.

use super::message::Message;
use super::repair::WANTS_MAX;
use super::replica::Raft;
use crate::{Effect, SnapshotEffect};
use quorate_types::{Index, NodeId, Position};

/// How many runs of unknown slots are asked for at a time.
const GAPS_MAX: usize = 16;

impl Raft {
    /// Asks the members what stood in unknown slots.
    pub(super) fn ask_what_stood(&mut self, peers: &[NodeId]) {
        let epoch = self.hard.promised;
        let gaps = self.damage.gaps_above(self.synced, &self.tail);
        // What one run was is known by what follows it, so names come from the end on.
        for (first, next) in gaps.into_iter().rev().take(GAPS_MAX) {
            for peer in peers {
                self.send(*peer, Message::Identify { epoch, first, next }, None);
            }
        }
    }

    /// Whether this log is known to hold or to have held an entry of this position.
    fn is_known_to_hold(&self, position: Position) -> bool {
        self.damage.is_genuine()
            && self.tail.epoch_at(position.index) == Some(position.epoch)
            && !self.damage.is_unknown(position.index)
    }

    /// A member does not know what stood in its slots from `first` to the one before `next`.
    pub(super) fn on_identify(&mut self, from: NodeId, first: Index, next: Position) {
        let purged = self.tail.purged().index;
        if next.index <= purged && !self.needs_snapshot {
            return self.offer_snapshot(from);
        }
        if !self.is_known_to_hold(next) {
            return;
        }
        // What was purged last is known as well.
        let nearest = Index(next.index.0.saturating_sub(WANTS_MAX as u64));
        let first = first.max(nearest).max(purged).max(Index(1));
        let known = (first.0..next.index.0).map(Index).filter(|at| !self.damage.is_unknown(*at));
        let position = |index| Some(Position::new(index, self.tail.epoch_at(index)?));
        let positions: Vec<Position> = known.filter_map(position).collect();
        if !positions.is_empty() {
            let epoch = self.hard.promised;
            let after = self.writes.latest();
            self.send(from, Message::Identified { epoch, next, positions }, after);
        } else if first <= self.synced && !self.needs_snapshot {
            self.offer_snapshot(from);
        }
    }

    /// Only the engine still has what a member lost.
    pub(super) fn offer_snapshot(&mut self, to: NodeId) {
        if self.repair.begins_snapshot(to) {
            let epoch = self.hard.promised;
            self.outbox.push_back(Effect::Snapshot(SnapshotEffect::Send { to, epoch }));
        }
    }

    /// A member tells what stands before `next` in its log, and so stood here.
    pub(super) fn on_identified(&mut self, from: NodeId, next: Position, positions: &[Position]) {
        if !self.is_known_to_hold(next) {
            return;
        }
        if let Some(why) = self.contradiction(next, positions) {
            return self.drop_message(from, why);
        }
        for position in positions {
            if self.damage.is_unknown(position.index) {
                self.damage.name(&mut self.tail, *position);
                self.hasten_repair();
            }
        }
        if self.damage.is_genuine() {
            self.damage.identify(&mut self.tail, self.hard.log_epoch);
        }
    }

    /// Why these cannot stand before `next`, as far as it is known here.
    fn contradiction(&self, next: Position, positions: &[Position]) -> Option<String> {
        let known =
            |index: Index| self.tail.epoch_at(index).filter(|_| !self.damage.is_unknown(index));
        let mut after = next;
        for position in positions.iter().rev() {
            // Terms never fall along a log.
            if position.index >= after.index || position.epoch.number > after.epoch.number {
                return Some(format!("{position} before {after}"));
            }
            if let Some(ours) = known(position.index).filter(|ours| *ours != position.epoch) {
                return Some(format!("{position} is of {ours} here"));
            }
            after = *position;
        }
        let before = known(after.index.previous());
        let ours = before.filter(|ours| ours.number > after.epoch.number)?;
        Some(format!("{after} after an entry of {ours}"))
    }
}
