//! What the log no longer holds: purging it, and snapshots in its place (thesis 5).

use super::replica::{Raft, Role};
use crate::progress::ProgressState;
use crate::{Effect, Event, SnapshotEffect, SnapshotInput, SnapshotOutcome};
use quorate_types::{Configuration, Entry, Epoch, Index, NodeId, Op, Position, Slot};

/// A snapshot on its way into the state machine.
#[derive(Clone, Debug)]
pub(super) struct Install {
    /// Who sent it.
    from: NodeId,
    /// What it covers.
    position: Position,
    /// Whether the install was asked for; before that, applies under way come to their end.
    asked: bool,
}

/// How far a connected peer may hold back the purge, in multiples of the retained count.
const HOLD_BACK_FACTOR: u64 = 4;

/// How far a peer that receives a snapshot may hold it back: what it will need next must still be there then.
const SNAPSHOT_HOLD_BACK_FACTOR: u64 = 64;

impl Raft {
    pub(super) fn on_snapshot(&mut self, input: SnapshotInput) {
        match input {
            SnapshotInput::Sent { to, position, outcome } => {
                self.on_snapshot_sent(to, position, outcome);
            }
            SnapshotInput::Staged { from, epoch, position, configuration: _ } => {
                self.on_staged(from, epoch, position);
            }
            SnapshotInput::Installed { position, configuration } => {
                self.on_installed(position, configuration);
            }
            SnapshotInput::InstallFailed { position } => {
                if self.install.as_ref().is_some_and(|install| install.position == position) {
                    self.install = None;
                }
            }
        }
    }

    fn on_snapshot_sent(&mut self, to: NodeId, position: Position, outcome: SnapshotOutcome) {
        let now = self.now;
        self.repair.snapshot_ended(to);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        if peer.progress.state != (ProgressState::Snapshot { delivered: None }) {
            return;
        }
        peer.progress.state = match outcome {
            SnapshotOutcome::Delivered => {
                ProgressState::Snapshot { delivered: Some((position, now)) }
            }
            // The next heartbeat finds out again what the peer needs.
            SnapshotOutcome::Failed => ProgressState::Probe { paused: true, repeated: false },
        };
    }

    fn on_staged(&mut self, from: NodeId, epoch: Epoch, position: Position) {
        if !self.damage.is_forgetful() {
            // A sender that was deposed meanwhile captured what a later leader has committed: that term is begun, and the
            // log that the snapshot leaves may not be ahead of it.
            self.observe_term(epoch.number.max(position.epoch.number));
        }
        if self.damage.is_genuine() {
            self.damage.name_applied(&mut self.tail, position);
        }
        let held = self.held();
        let found = self.tail.epoch_at(position.index);
        let is_sound = !self.damage.has_fault(position.index);
        let is_other = found.is_some_and(|epoch| epoch != position.epoch);
        let is_known = !self.damage.is_unknown(position.index);
        if is_other && is_known && position.index <= self.committed {
            let why = format!("a snapshot of {position} contradicts what is committed here");
            self.drop_message(from, why);
            return self.discard(from, position);
        }
        let is_new = match self.needs_snapshot {
            true => position.index >= self.tail.purged().index,
            // What is applied may lie above what is held: then slots below it are damaged.
            false => position.index > self.committed.min(held).max(self.applied),
        };
        let has_it = !self.needs_snapshot
            && is_sound
            && found == Some(position.epoch)
            && self.may_be_matched(position.index);
        // It would leave a log that only a leader can make whole, and that does not vote, where perhaps nobody else can.
        let is_harmful = self.leader.is_none()
            && self.damage.is_genuine()
            && !is_known
            && position.index < self.tail.last();
        if is_harmful {
            self.put_repair_off();
        }
        if has_it && is_new && position.index <= held {
            self.advance_committed_to(position.index);
        } else if is_new
            && self.install.is_none()
            && !is_harmful
            && !self.damage.is_forgetful()
            && !matches!(self.role, Role::Leader(_))
        {
            if !matches!(self.role, Role::Follower) {
                self.become_follower();
            }
            self.install = Some(Install { from, position, asked: false });
            return self.maybe_install();
        }
        self.discard(from, position);
        if matches!(self.role, Role::Follower) && self.term_leader.is_some() {
            self.acknowledge(self.committed.min(self.held()));
        }
    }

    fn discard(&mut self, from: NodeId, position: Position) {
        self.outbox.push_back(Effect::Snapshot(SnapshotEffect::Discard { from, position }));
    }

    /// Asks for the install once no apply is under way, unless those have come as far by themselves. An apply that
    /// cannot end, because the next slot is damaged, gives way to a snapshot beyond everything that was asked to be applied;
    /// any other one is of no use then.
    pub(super) fn maybe_install(&mut self) {
        let is_applying = self.applied != self.apply_asked;
        let is_stuck = is_applying && self.damage.has_fault(self.applied.next());
        if is_applying && !is_stuck {
            return;
        }
        let apply_asked = self.apply_asked;
        let reached = if self.needs_snapshot { Index::ZERO } else { self.applied };
        let Some(install) = self.install.as_mut().filter(|install| !install.asked) else { return };
        let (from, position) = (install.from, install.position);
        let is_late = position.index <= reached;
        if is_late || is_stuck && position.index <= apply_asked {
            self.install = None;
            self.discard(from, position);
        } else {
            install.asked = true;
            self.outbox.push_back(Effect::Snapshot(SnapshotEffect::Install { from, position }));
        }
    }

    fn on_installed(&mut self, position: Position, configuration: Configuration) {
        self.install = None;
        let is_ahead =
            position.index > self.applied || self.needs_snapshot && position.index == self.applied;
        assert!(is_ahead, "a snapshot at {position} was installed over {}", self.applied);
        self.needs_snapshot = false;
        self.take_place(position, configuration);
        self.event(Event::SnapshotInstalled { position });
        if matches!(self.role, Role::Follower) && self.term_leader.is_some() {
            self.acknowledge(position.index);
        }
    }

    /// The state machine stands at `position`, which the log did not reach, or reached otherwise: the log begins
    /// there. Where it holds that very position, what follows stays.
    fn take_place(&mut self, position: Position, configuration: Configuration) {
        if self.damage.is_unknown(position.index) && position.index < self.tail.last() {
            // Nothing proves that what follows is not of this history, and it may have been acknowledged: it
            // stays. What stood in the slot is in the state machine, and is purged at once.
            let (index, accepted) = (position.index, position.epoch);
            self.committed = self.committed.max(index);
            self.put_into_damaged(Slot { index, accepted, entry: Entry::noop(position.epoch) });
            self.damage.mixed |= position.index < self.tail.last();
        }
        self.note_log_epoch(self.hard.log_epoch);
        let is_held = !self.damage.is_unknown(position.index)
            && self.tail.epoch_at(position.index) == Some(position.epoch);
        if is_held {
            self.tail.purge(position);
            self.writes.push(Op::Purge(position));
            // The entry that put it in force may be among those that are damaged.
            if *self.membership.at(position.index) != configuration {
                self.membership.append(position.index, configuration.clone());
            }
            self.membership.purge(position.index);
            self.tell_configurations(position.index, configuration);
        } else {
            self.tail.reset(position);
            self.writes.reset(position.index);
            self.writes.push(Op::Reset(position, configuration.clone()));
            self.membership.reset(position.index, configuration.clone());
            self.damage.truncated(Index::ZERO);
            let index = position.index;
            self.event(Event::Configuration { index, configuration });
        }
        self.damage.purged(position.index);
        self.committed = self.committed.max(position.index);
        self.applied = position.index;
        self.synced = position.index;
        self.apply_asked = position.index;
    }

    /// A crash between the install of a snapshot and the reset of the log leaves the state machine ahead of the
    /// log; the reset is made up for. So it is where the log cannot tell what stood at the index that the state machine
    /// reached: a guess that a leader contradicts would keep this replica from ever following again.
    pub(super) fn finish_interrupted_install(&mut self, applied: Position) {
        let is_unknown = self.damage.is_unknown(applied.index);
        // What stands below in a mixed log may not be what the snapshot took the place of.
        let is_doubtful = self.damage.mixed && applied.index > self.tail.purged().index;
        if is_unknown || is_doubtful || self.tail.epoch_at(applied.index) != Some(applied.epoch) {
            let configuration = self.membership.at(applied.index).clone();
            self.take_place(applied, configuration);
        }
    }

    /// Purges what is applied, synced and not needed by peers, rarely and much at a time; and at once where the
    /// log below the synced index is damaged.
    pub(super) fn maybe_purge(&mut self) {
        if self.install.is_some() || self.needs_snapshot {
            return;
        }
        let limits = self.options.limits;
        let purged = self.tail.purged().index;
        let damaged = self.damage.known_past_faults(purged, self.synced);
        let spare = purged.distance_to(self.synced);
        let is_due = spare >= limits.retained_count.saturating_add(limits.purge_count_min);
        let regular = if is_due {
            let target = Index(self.synced.0 - limits.retained_count);
            let target = target.min(self.needed_by_peers());
            if purged.distance_to(target) < limits.purge_count_min { purged } else { target }
        } else {
            purged
        };
        // The log begins after a position that is certain.
        let target = regular.max(damaged.unwrap_or(purged)).min(self.tail.last());
        let target = self.damage.first_known(target);
        if target > self.synced || target <= purged || target > self.writes.durable() {
            return;
        }
        assert!(target <= self.synced, "purge of {target} above the synced {}", self.synced);
        let epoch = self.tail.epoch_at(target).expect("lies in the log");
        let position = Position::new(target, epoch);
        self.tail.purge(position);
        self.writes.push(Op::Purge(position));
        self.membership.purge(target);
        self.damage.purged(target);
    }

    /// The last index that no connected peer needs any more, as far as it is not too far behind.
    fn needed_by_peers(&self) -> Index {
        let Role::Leader(leader) = &self.role else { return Index(u64::MAX) };
        let retained = self.options.limits.retained_count;
        let reach =
            |factor: u64| Index(self.synced.0.saturating_sub(retained.saturating_mul(factor)));
        let mut needed = Index(u64::MAX);
        for peer in leader.peers.values().filter(|peer| !peer.link_down) {
            let (index, floor) = match peer.progress.state {
                ProgressState::Replicate | ProgressState::Probe { .. } => {
                    (peer.progress.matched, reach(HOLD_BACK_FACTOR))
                }
                ProgressState::Snapshot { .. } => {
                    (peer.snapshot_from, reach(SNAPSHOT_HOLD_BACK_FACTOR))
                }
            };
            if index >= floor {
                needed = needed.min(index);
            }
        }
        needed
    }
}
