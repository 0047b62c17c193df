//! How a follower takes in the leader's log (thesis 3.5).

use super::message::{AppendOutcome, Message};
use super::replica::{Raft, Role};
use crate::{Event, Mending};
use quorate_types::{
    Configuration, Entry, EntryKind, Epoch, Index, Mistake, NodeId, Position, Slot,
};

impl Raft {
    pub(super) fn on_append(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        previous: Position,
        committed: Index,
        entries: Vec<Entry>,
    ) {
        if !self.follow(from, epoch) || self.install.is_some() {
            return;
        }
        if let Err(why) = check_entries(epoch, previous, &entries) {
            return self.drop_message(from, why);
        }
        let last = Index(previous.index.0 + entries.len() as u64);
        let purged = self.tail.purged();
        if last <= purged.index {
            // All of it is purged here, so it was committed and applied: the logs agree up to there.
            return self.acknowledge(purged.index);
        }
        let known = purged.index.0.saturating_sub(previous.index.0);
        let skipped = usize::try_from(known).expect("at most as many as entries were sent");
        if skipped > 0 && entries[skipped - 1].created() != purged.epoch {
            let sent = entries[skipped - 1].created();
            return self.drop_message(from, format!("{purged} is committed, {sent} was sent"));
        }
        if skipped == 0 && !self.agrees_at(previous) {
            return self.reject(from, epoch, previous);
        }
        let first = previous.index.max(purged.index).next();
        if !self.accept(from, epoch, first, entries.into_iter().skip(skipped)) {
            return;
        }
        self.verified = self.verified.max(last);
        self.maybe_become_whole(epoch);
        let agreed = if Mistake::CommitUnverified.is_made() { self.tail.last() } else { last };
        self.advance_committed_to(committed.min(agreed));
        self.acknowledge(last);
    }

    /// Whether this log agrees with one that holds `position` up to there, and every slot is sound.
    fn agrees_at(&self, position: Position) -> bool {
        let sound = self.first_fault().is_none_or(|fault| fault > position.index);
        let epoch = self.tail.epoch_at(position.index);
        sound
            && self.may_be_matched(position.index)
            && (epoch == Some(position.epoch)
                || epoch.is_some() && Mistake::PreviousUnchecked.is_made())
    }

    /// Whether an entry of equal position at `index` proves that everything before it is equal, too (log matching). In a mixed
    /// log it does not, above what is committed or was compared with this leader's log, slot by slot.
    pub(super) fn may_be_matched(&self, index: Index) -> bool {
        !self.damage.mixed || index <= self.compared()
    }

    /// Up to where this log is certain to agree with the leader's, whatever was put into it on trust.
    fn compared(&self) -> Index {
        self.verified.max(self.committed.min(self.held()))
    }

    pub(super) fn reject(&mut self, from: NodeId, epoch: Epoch, previous: Position) {
        let fault = self.first_fault();
        // Where the end of the log may have gone with the hard state, what was acknowledged may be lost without a trace; and
        // what stands in a mixed log may not be what was.
        let lost = !self.may_be_matched(previous.index)
            || fault.is_some_and(|fault| fault <= previous.index);
        if !lost && previous.index <= self.committed && previous.index >= self.tail.purged().index {
            let why = format!("{previous} contradicts what is committed here");
            return self.drop_message(from, why);
        }
        let mut sound = fault.map_or(self.tail.last(), Index::previous);
        if self.damage.mixed {
            sound = sound.min(self.compared());
        }
        let index = self.tail.floor(Position::new(previous.index.min(sound), previous.epoch));
        let index = index.max(self.tail.purged().index);
        let hint_epoch = self.tail.epoch_at(index).expect("lies in the log");
        let outcome = AppendOutcome::Rejected {
            previous: previous.index,
            hint: Position::new(index, hint_epoch),
            lost,
        };
        let digest = self.digests.back().copied();
        self.send(from, Message::AppendReply { epoch, outcome, digest }, None);
    }

    /// Takes entries from `first` on into the log, where what stands before agrees. False when they contradict
    /// what is committed; nothing has changed then.
    fn accept(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        first: Index,
        entries: impl Iterator<Item = Entry>,
    ) -> bool {
        let mut index = first;
        for entry in entries {
            if index > self.tail.last() {
                self.append(epoch, entry);
            } else if self.damage.is_unknown(index) {
                self.damage.mixed = true;
                self.refill(epoch, index, entry);
            } else if self.tail.epoch_at(index) == Some(entry.created())
                && !(index > self.committed && Mistake::LogErased.is_made())
            {
                let (is_lost, is_suspect) =
                    (self.damage.has_fault(index), self.damage.is_suspect(index));
                if is_lost || is_suspect {
                    let position = Position::new(index, entry.created());
                    if is_lost {
                        self.note_configuration(index, &entry);
                        self.event(Event::Mended { position, how: Mending::From(from) });
                    }
                    self.put_back(Slot { index, accepted: epoch, entry });
                }
            } else {
                if index <= self.committed {
                    let sent = Position::new(index, entry.created());
                    self.drop_message(from, format!("{sent} contradicts what is committed here"));
                    return false;
                }
                self.truncate(index);
                self.append(epoch, entry);
            }
            index = index.next();
        }
        true
    }

    /// Puts an entry after the last one, in the next write.
    pub(super) fn append(&mut self, epoch: Epoch, entry: Entry) {
        let index = self.tail.last().next();
        self.note_log_epoch(epoch);
        self.note_configuration(index, &entry);
        let slot = Slot { index, accepted: epoch, entry };
        self.writes.write(slot.clone());
        self.tail.push(slot);
    }

    /// Puts the leader's entry into a damaged slot.
    fn refill(&mut self, epoch: Epoch, index: Index, entry: Entry) {
        self.note_log_epoch(epoch);
        self.note_configuration(index, &entry);
        self.put_into_damaged(Slot { index, accepted: epoch, entry });
    }

    /// Puts `slot` into the place of a damaged one.
    pub(super) fn put_into_damaged(&mut self, slot: Slot) {
        let (index, created) = (slot.index, slot.entry.created());
        self.writes.write(slot.clone());
        self.tail.replace(slot);
        self.damage.refilled(index);
        // What an unknown slot held is only guessed.
        let next =
            self.tail.epoch_at(index.next()).filter(|_| !self.damage.is_unknown(index.next()));
        if next.is_some_and(|next| next < created) && index >= self.committed {
            // Terms never fall along a log, so what was here and what follows are not of the leader's.
            self.truncate(index.next());
        }
    }

    pub(super) fn note_configuration(&mut self, index: Index, entry: &Entry) {
        if entry.kind() != EntryKind::Configuration {
            return;
        }
        let configuration = Configuration::decode(entry.body().clone())
            .expect("configuration entries are decoded before they are accepted");
        self.membership.append(index, configuration.clone());
        self.tell_configurations(index, configuration);
    }

    /// Tells of the configuration at `index` and of all that follow: the last one told is the one in force.
    pub(super) fn tell_configurations(&mut self, index: Index, configuration: Configuration) {
        self.event(Event::Configuration { index, configuration });
        for (index, configuration) in self.membership.above(index) {
            self.event(Event::Configuration { index, configuration });
        }
    }

    /// Drops every slot at or above `from`.
    pub(super) fn truncate(&mut self, from: Index) {
        assert!(
            from > self.committed,
            "truncation from {from}, but {} is committed",
            self.committed
        );
        assert!(!matches!(self.role, Role::Leader(_)), "a leader truncates its log from {from}");
        self.metrics.truncated_count += from.previous().distance_to(self.tail.last());
        self.writes.truncate(from);
        self.tail.truncate(from);
        let latest = self.membership.latest_index();
        self.membership.truncate(from);
        if self.membership.latest_index() < latest {
            let (index, configuration) =
                (self.membership.latest_index(), self.membership.latest().clone());
            self.event(Event::Configuration { index, configuration });
        }
        self.damage.truncated(from);
        self.verified = self.verified.min(from.previous());
    }

    /// Remembers to tell the leader that everything up to `index` is durable here.
    pub(super) fn acknowledge(&mut self, index: Index) {
        self.verified = self.verified.max(index.min(self.tail.last()));
        self.acknowledgement = Some(self.acknowledgement.map_or(index, |old| old.max(index)));
    }

    /// One acknowledgement answers all appends of a wake-up. It leaves once the latest write is durable.
    pub(super) fn form_acknowledgement(&mut self) {
        let Some(index) = self.acknowledgement.take() else { return };
        let (Some(leader), Role::Follower) = (self.term_leader, &self.role) else { return };
        let epoch = Epoch::new(self.term(), leader);
        let after = match Mistake::DurableByIndex.is_made() {
            true => self.writes.first_reaching(index),
            false => self.writes.latest(),
        };
        let digest = self.digests.back().copied();
        let outcome = AppendOutcome::Matched(index);
        self.send(leader, Message::AppendReply { epoch, outcome, digest }, after);
    }

    pub(super) fn on_heartbeat(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        round: u64,
        committed: Index,
        sent: Index,
    ) {
        if !self.follow(from, epoch) {
            return;
        }
        self.learn_committed(from, committed);
        // What is committed agrees with every later leader, also where this term has not said so yet: a snapshot that
        // was installed while no leader was known is made known by this.
        let received = self.compared();
        if self.damage.mixed {
            self.verified = received;
            self.maybe_become_whole(epoch);
        }
        let received = self.first_fault().map_or(received, |fault| received.min(fault.previous()));
        self.send(from, Message::HeartbeatReply { epoch, round, sent, received }, None);
    }

    pub(super) fn on_commit(&mut self, from: NodeId, epoch: Epoch, committed: Index) {
        if self.follow(from, epoch) {
            self.learn_committed(from, committed);
        }
    }

    /// The leader names a commit index, of what this replica has acknowledged in this term.
    fn learn_committed(&mut self, from: NodeId, committed: Index) {
        if committed <= self.tail.last() {
            self.advance_committed_to(committed);
        } else if self.install.is_none() {
            let last = self.tail.last();
            self.drop_message(from, format!("commit {committed} is above the last index {last}"));
        }
    }

    /// Moves the commit index up to `index`, never down.
    pub(super) fn advance_committed_to(&mut self, index: Index) {
        if index > self.committed {
            assert!(
                index <= self.tail.last(),
                "commit {index} above the last index {}",
                self.tail.last()
            );
            self.committed = index;
        }
    }
}

/// What every append of a leader satisfies: terms do not fall along its log nor pass its own, and configurations
/// can be read.
fn check_entries(epoch: Epoch, previous: Position, entries: &[Entry]) -> Result<(), String> {
    let mut floor = previous.epoch;
    for entry in entries {
        if entry.created() < floor || entry.created() > epoch {
            let created = entry.created();
            return Err(format!("an entry of {created} after {floor} in an append of {epoch}"));
        }
        floor = entry.created();
        if entry.kind() == EntryKind::Configuration {
            Configuration::decode(entry.body().clone())
                .map_err(|error| format!("its configuration: {error}"))?;
        }
    }
    Ok(())
}
