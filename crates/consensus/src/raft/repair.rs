//! A replica with damaged slots: what it may do, and how it becomes whole again.
//!
//! Raft as published stops at a stable storage that keeps what it was given. After Alagappan et al., "Protocol-Aware
//! Recovery for Consensus-Based Storage" (FAST 2018), a damaged slot is not an empty one: it may have been
//! acknowledged, so it is neither cut away nor counted as held. `damage` tells slots whose position is known from
//! those that could have held anything.
//!
//! | damage above what the engine holds | votes | campaigns | leads |
//! |---|---|---|---|
//! | known slots | as if whole | once they are refilled, or given up by the others | when none is left |
//! | unknown slots | as if the last were of the latest epoch it can be of | once they are known | no |
//! | log mixed, or hard state lost (`survey`) | no | no | no |
//!
//! Nothing is acknowledged, committed or applied past the first damaged slot.
//!
//! # From peers, while no leader is known
//! The replica asks every member for the positions of its known damaged slots ([`Message::Repair`]). Whoever holds one
//! sends the entry. A member that holds it only in its engine's state sends a snapshot. So damage in different places
//! on all replicas heals before anybody leads, and each log then is what it was. What stood in an unknown slot inside its log
//! it asks first (`identify`); only at the end of a log is this left to a leader.
//!
//! *Why this is safe.* A position (index, created epoch) names one entry: only the leader of a term creates entries
//! of it, each index once. Putting that entry back restores the very log that was acknowledged, so each argument of
//! Raft about logs, votes and commitment holds as if nothing had happened. A vote needs no bytes: the rule that a
//! candidate's log must reach as far as the voter's compares positions, and those are known. Where the last slots are
//! unknown, their entries are of no later epoch than `log_epoch`, which was written with them; compared as if they
//! were of that one, the replica refuses more than it must, never less.
//!
//! # What was never committed
//! A damaged slot that nobody holds must not keep the group down if it was never committed. The replica campaigns with
//! the log that it had. Once it has won, in term T, it gives the lowest damaged slot `d` up, with all that follows,
//! if members answer in term T (durably) that their intact logs do not have that position, so many that those who
//! did not answer so are a majority of no set of voters in the configuration below `d`. It leads only then.
//!
//! *Why this is safe.* A committed entry was acknowledged by a quorum and is never removed from an intact log. Each
//! quorum under which the entry at `d` could be committed holds a majority of one set of voters of the configuration
//! below `d`: a later configuration is either joint with that one, or was itself committed, and `d` with it, by one
//! that is. Such a majority includes somebody who answered that it does not have the entry. It did not have it before,
//! having an intact log, and it acknowledges it to no leader of an earlier term after, having promised T. So the entry
//! was not and will not be committed; nor was any that follows it, by log matching. And all that was committed is below
//! `d`, for the log that won holds it all (thesis 3.6.1). A position that any intact log has is sent, not denied:
//! present anywhere, it is kept.
//!
//! Where nobody can give a slot that may have been committed, no leader is chosen, and the status names the slot and
//! who said what.
//!
//! # From a leader
//! A follower's damaged slots are refilled by appends. In a known slot the leader's entry is the one that was there, or
//! a conflict as anywhere else. An unknown slot takes whatever the leader sends, and what follows it may be of
//! another history: from then on the log is *mixed*, durably. That an entry of it is the leader's says nothing of those before
//! it, so that log matching does not hold: each slot above the committed ones is sent again and compared. It is whole again once it
//! is sound and agrees with the leader's, slot by slot, up to an entry of the leader's own term: every entry that was committed with
//! this replica's help before that term lies below (leader completeness). What it acknowledged in that very term still stands above:
//! it is the leader's, so nothing there is of another history. Where the end of the log may be lost, this does not hold, and `survey`
//! sees to it that a later term proves the log.

use super::damage::suspicion;
use super::message::{Message, Verdict};
use super::replica::{Raft, Role};
use crate::quorum::Quorum;
use crate::{Effect, Event, FetchId, Mending, StepDownReason};
use quorate_types::{
    Configuration, Entry, EntryKind, Epoch, Index, Instant, Mistake, NodeId, Position, Slot,
    SlotFault,
};
use std::collections::{BTreeMap, BTreeSet};

/// How many positions one message asks for: their answers fill an append or two.
pub(super) const WANTS_MAX: usize = 256;

/// After how many of the longest election timeouts is asked again for what was of no use.
const PATIENCE: u32 = 10;

/// What goes to and fro about damaged slots while no leader is known.
#[derive(Clone, Debug)]
pub(super) struct Repair {
    /// When the others are asked again.
    due: Instant,
    /// What others said of a position that they could not give, and in which term.
    answers: BTreeMap<Position, BTreeMap<NodeId, (Verdict, u64)>>,
    /// The damaged slot that was reported as lost.
    reported: Option<Position>,
    /// Reads of older slots for others, with the first slot; one for each of them.
    reading: BTreeMap<FetchId, (NodeId, Index)>,
    /// To whom a snapshot is on its way that only it can help.
    snapshots: BTreeSet<NodeId>,
}

impl Repair {
    pub(super) fn new(now: Instant) -> Repair {
        Repair {
            due: now,
            answers: BTreeMap::new(),
            reported: None,
            reading: BTreeMap::new(),
            snapshots: BTreeSet::new(),
        }
    }

    /// Whether no snapshot is on its way to this member yet; now one is.
    pub(super) fn begins_snapshot(&mut self, to: NodeId) -> bool {
        self.snapshots.insert(to)
    }

    /// A snapshot has ended, one way or the other.
    pub(super) fn snapshot_ended(&mut self, to: NodeId) {
        self.snapshots.remove(&to);
    }
}

impl Raft {
    /// The lowest damaged slot that is not safe in the engine.
    pub(super) fn first_fault(&self) -> Option<Index> {
        self.damage.first_fault_above(self.synced)
    }

    /// Whether a leader could be made of this log, once its damaged slots are refilled or given up.
    pub(super) fn knows_its_log(&self) -> bool {
        self.damage.is_genuine() && !self.damage.has_unknown_above(self.synced)
    }

    /// Whether this replica may campaign as far as its log is concerned: it is sound, or what is damaged is neither
    /// held nor may have been committed, as far as the others said.
    pub(super) fn is_log_electable(&self) -> bool {
        self.knows_its_log() && self.first_fault().is_none_or(|fault| self.is_given_up(fault, 0))
    }

    /// Where this log may end at the most: nothing was acknowledged that a log does not hold which ends there.
    pub(super) fn last_acknowledged_bound(&self) -> Position {
        let last = self.tail.last();
        if last <= self.synced || !self.damage.is_unknown(last) {
            return self.tail.last_position();
        }
        let bound = self.hard.log_epoch;
        let latest = Epoch::new(self.term(), NodeId(u64::MAX));
        Position::new(last, if bound == Epoch::ZERO { latest } else { bound })
    }

    /// Says what keeps this replica from taking part, if anything does.
    pub(super) fn report_damage(&mut self) {
        if let Some(reason) = self.why_not_ready() {
            self.event(Event::NotReady { reason });
        }
    }

    /// What keeps this replica from taking part, wholly or in some of it.
    pub(super) fn why_not_ready(&self) -> Option<String> {
        if self.damage.is_forgetful() {
            return Some(self.describe_survey());
        }
        let Some(fault) = self.first_fault() else {
            return self.why_not_ready_though_sound();
        };
        let position = self.damage.known_above(self.synced).find(|known| known.index == fault);
        Some(match position {
            Some(position) if self.knows_its_log() => match self.repair.reported {
                Some(lost) if lost == position => self.describe_loss(position),
                Some(_) | None => {
                    format!("slot {fault} is damaged: a member that holds it must refill it")
                }
            },
            Some(_) | None if self.damage.mixed => {
                format!(
                    "slot {fault} is damaged: a leader must refill it before this replica votes"
                )
            }
            Some(_) | None if !self.damage.gaps_above(self.synced, &self.tail).is_empty() => {
                format!(
                    "slot {fault} is damaged, and not all that was lost is known: a member must tell what stood there, \
                     or a leader refill it"
                )
            }
            Some(_) | None => format!(
                "slot {fault} is damaged, and not all that was lost is known: a leader must refill it"
            ),
        })
    }

    fn why_not_ready_though_sound(&self) -> Option<String> {
        if self.damage.mixed {
            return Some(
                "the log was damaged: a leader must confirm it before this replica votes".into(),
            );
        }
        self.needs_snapshot.then(|| {
            format!(
                "the state machine stands below {}, where the log begins: a snapshot of a peer must take its place \
                 before this replica serves",
                self.tail.purged()
            )
        })
    }

    fn describe_loss(&self, position: Position) -> String {
        let answers = self.repair.answers.get(&position).into_iter().flatten();
        let said: Vec<String> =
            answers.map(|(node, (verdict, _))| format!("{node} {verdict}")).collect();
        let said = if said.is_empty() { "nobody else is a member".into() } else { said.join(", ") };
        format!(
            "slot {position} is damaged here and no member can give it ({said}): it may have been committed, so this \
             group waits for a member that holds it"
        )
    }

    /// After an append of the leader of `epoch`: the log is whole again when it is sound, and agrees with the
    /// leader's up to an entry of that term.
    pub(super) fn maybe_become_whole(&mut self, epoch: Epoch) {
        if self.damage.mixed
            && self.first_fault().is_none()
            && self.tail.epoch_at(self.verified) == Some(epoch)
        {
            self.damage.mixed = false;
            self.hard.log_epoch = epoch;
            self.writes.hard(self.hard);
        }
    }

    /// Records which leadership the log is brought in line with, in the write that does so. A lost hard state is written only
    /// when it is made up for: until then a crash must find it lost.
    pub(super) fn note_log_epoch(&mut self, epoch: Epoch) {
        if self.damage.is_forgetful() {
            return;
        }
        let epoch = if self.damage.mixed { suspicion(self.node()) } else { epoch };
        if self.hard.log_epoch != epoch {
            self.hard.log_epoch = epoch;
            self.writes.hard(self.hard);
        }
    }

    /// A slot was found unreadable. What is still in memory is written again; anything else has lost its bytes, while
    /// its epoch is still remembered here.
    pub(super) fn on_damaged(&mut self, fault: SlotFault) {
        let index = fault.index();
        if index <= self.tail.purged().index || index > self.tail.last() {
            return;
        }
        if let Some(slot) = self.tail.slot(index) {
            let (slot, position) = (slot.clone(), slot.position());
            self.writes.write(slot);
            return self.event(Event::Mended { position, how: Mending::FromMemory });
        }
        if self.damage.has_fault(index) {
            return;
        }
        let epoch = self.tail.epoch_at(index).expect("lies in the log");
        self.damage.add(SlotFault::DamagedKnown(Position::new(index, epoch)));
        self.damage.suspect_after(index, self.tail.last());
        if index <= self.synced {
            return;
        }
        self.report_damage();
        match self.role {
            Role::Leader(_) => {
                self.hand_over_to_anybody();
                self.step_down(StepDownReason::Damaged);
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.become_follower(),
            Role::Follower => self.tell_of_loss(),
        }
        self.maybe_install();
    }

    /// The leader believes that this replica holds what it has acknowledged, and would find out only when it sends more. Lost
    /// on the way, this is made up for by the next heartbeat.
    fn tell_of_loss(&mut self) {
        if let Some(leader) = self.leader {
            let epoch = Epoch::new(self.term(), leader);
            self.reject(leader, epoch, self.tail.last_position());
        }
    }

    /// Whether damaged slots are to be asked for: a leader, where there is one, refills them by itself.
    fn asks_for_repair(&self) -> bool {
        self.leader.is_none()
            && self.install.is_none()
            && self.damage.is_genuine()
            && self.first_fault().is_some()
    }

    /// When the others are asked again.
    pub(super) fn repair_deadline(&self) -> Option<Instant> {
        self.asks_for_repair().then_some(self.repair.due)
    }

    /// Asks every member for what is damaged here, now and then.
    pub(super) fn maybe_ask_for_repair(&mut self) {
        if self.repair.due > self.now || !self.asks_for_repair() {
            return;
        }
        self.repair.due = self.now + self.options.timing.heartbeat_interval;
        let wants: Vec<Position> = self.damage.known_above(self.synced).take(WANTS_MAX).collect();
        let epoch = self.hard.promised;
        let peers = self.membership.peers(self.node());
        if peers.is_empty() {
            self.maybe_report_loss();
        }
        for peer in peers.iter().filter(|_| !wants.is_empty()) {
            self.send(*peer, Message::Repair { epoch, wants: wants.clone() }, None);
        }
        self.ask_what_stood(&peers);
    }

    /// What could be given is of no use as things are: asking for it again and again would only be load.
    pub(super) fn put_repair_off(&mut self) {
        self.repair.due = self.now + self.options.timing.election_timeout_max * PATIENCE;
    }

    /// Asks at once: something has changed.
    pub(super) fn hasten_repair(&mut self) {
        self.repair.due = self.now;
    }

    /// A member has lost these positions.
    pub(super) fn on_repair(&mut self, from: NodeId, wants: Vec<Position>) {
        let budget = self.options.limits.append_size_max;
        let (mut entries, mut verdicts) = (Vec::new(), Vec::new());
        let mut size = 0;
        let mut older: Option<(Index, Index)> = None;
        for want in wants.into_iter().take(WANTS_MAX) {
            match self.judge(want) {
                Some(verdict) => verdicts.push((want, verdict)),
                None => match (self.tail.slot(want.index), older) {
                    (Some(slot), _) if entries.is_empty() || size < budget => {
                        size += slot.entry.encoded_size();
                        entries.push((want.index, slot.entry.clone()));
                    }
                    (Some(_), _) => {}
                    (None, None) => older = Some((want.index, want.index)),
                    (None, Some((first, last))) if want.index == last.next() => {
                        older = Some((first, want.index));
                    }
                    (None, Some(_)) => {}
                },
            }
        }
        if verdicts.iter().any(|(_, verdict)| *verdict == Verdict::Applied) {
            self.offer_snapshot(from);
        }
        let is_reading = self.repair.reading.values().any(|(to, _)| *to == from);
        if let Some((first, last)) = older.filter(|_| !is_reading) {
            let id = FetchId(self.next_fetch);
            self.next_fetch += 1;
            self.repair.reading.insert(id, (from, first));
            self.outbox.push_back(Effect::Fetch { id, first, last, budget });
        }
        if !entries.is_empty() || !verdicts.is_empty() {
            self.answer_repair(from, entries, verdicts);
        }
    }

    fn answer_repair(
        &mut self,
        to: NodeId,
        entries: Vec<(Index, Entry)>,
        verdicts: Vec<(Position, Verdict)>,
    ) {
        let epoch = self.hard.promised;
        // The term is a promise: whoever answers in it accepts nothing more of an earlier one.
        let after = self.writes.latest();
        self.send(to, Message::RepairReply { epoch, entries, verdicts }, after);
    }

    /// Why `want` cannot be given; `None` when it can.
    fn judge(&self, want: Position) -> Option<Verdict> {
        let Position { index, epoch } = want;
        let is_in_engine = index <= self.synced;
        if index <= self.tail.purged().index {
            let has_state = !self.needs_snapshot;
            return Some(if has_state { Verdict::Applied } else { Verdict::Unsure });
        }
        let is_ours = self.tail.epoch_at(index) == Some(epoch);
        if !self.damage.has_fault(index) && is_ours {
            return None;
        }
        Some(if is_in_engine && (is_ours || self.damage.has_fault(index)) {
            Verdict::Applied
        } else if !self.damage.is_genuine() || self.damage.is_unknown(index) {
            Verdict::Unsure
        } else if is_ours {
            Verdict::Damaged
        } else {
            Verdict::Absent
        })
    }

    /// Slots that were read for somebody else's repair; false when the fetch was for something else.
    pub(super) fn on_fetched_for_repair(&mut self, id: FetchId, slots: &[Slot]) -> bool {
        let Some((to, first)) = self.repair.reading.remove(&id) else { return false };
        if slots.is_empty() {
            self.on_damaged(SlotFault::DamagedUnknown(first));
            return true;
        }
        let own = |slot: &&Slot| self.tail.epoch_at(slot.index) == Some(slot.entry.created());
        let entries: Vec<(Index, Entry)> =
            slots.iter().filter(own).map(|slot| (slot.index, slot.entry.clone())).collect();
        self.answer_repair(to, entries, Vec::new());
        true
    }

    /// A member gives what is damaged here, or says why it cannot.
    pub(super) fn on_repair_reply(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        entries: Vec<(Index, Entry)>,
        verdicts: Vec<(Position, Verdict)>,
    ) {
        if self.install.is_some() {
            return;
        }
        let wanted: BTreeSet<Position> = self.damage.known_above(self.synced).collect();
        for (index, entry) in entries {
            let position = Position::new(index, entry.created());
            if !wanted.contains(&position) {
                continue;
            }
            if entry.kind() == EntryKind::Configuration
                && let Err(error) = Configuration::decode(entry.body().clone())
            {
                return self.drop_message(from, format!("its configuration at {index}: {error}"));
            }
            self.note_configuration(index, &entry);
            self.put_back(Slot { index, accepted: entry.created(), entry });
            self.event(Event::Mended { position, how: Mending::From(from) });
            self.hasten_repair();
        }
        for (position, verdict) in verdicts.into_iter().filter(|(of, _)| wanted.contains(of)) {
            self.repair.answers.entry(position).or_default().insert(from, (verdict, epoch.number));
        }
        self.maybe_give_up();
        self.maybe_report_loss();
        self.maybe_win();
    }

    /// Puts the entry of a known damaged slot back.
    pub(super) fn put_back(&mut self, slot: Slot) {
        self.repair.answers.remove(&slot.position());
        self.damage.refilled(slot.index);
        self.writes.write(slot.clone());
        self.tail.replace(slot);
    }

    /// Whether enough members said, in `term` or a later one, that they do not have what stood in the damaged slot at
    /// `index`.
    fn is_given_up(&self, index: Index, term: u64) -> bool {
        let Some(epoch) = self.tail.epoch_at(index) else { return false };
        let Some(answers) = self.repair.answers.get(&Position::new(index, epoch)) else {
            return false;
        };
        let denied = |node: NodeId| {
            answers
                .get(&node)
                .is_some_and(|(verdict, at)| *verdict == Verdict::Absent && *at >= term)
        };
        let quorum = Quorum::new(self.membership.at(index.previous()));
        let is_proved = quorum.is_blocked_by(denied)
            || Mistake::GivenUpUnproved.is_made() && answers.keys().any(|node| denied(*node));
        index > self.committed && is_proved
    }

    /// Gives up what was proved uncommitted in the term that this replica has won.
    pub(super) fn maybe_give_up(&mut self) {
        let Some(fault) = self.first_fault() else { return };
        if !self.has_won_votes() || !self.is_given_up(fault, self.term()) {
            return;
        }
        let epoch = self.tail.epoch_at(fault).expect("lies in the log");
        self.event(Event::Mended { position: Position::new(fault, epoch), how: Mending::GivenUp });
        self.truncate(fault);
        self.repair.answers.retain(|position, _| position.index < fault);
    }

    /// Says it once when every other member has answered and none can give the lowest damaged slot.
    fn maybe_report_loss(&mut self) {
        let Some(fault) = self.first_fault() else { return };
        let lost = self.damage.known_above(self.synced).next().filter(|lost| lost.index == fault);
        let Some(lost) = lost.filter(|lost| self.repair.reported != Some(*lost)) else { return };
        let answers = self.repair.answers.get(&lost);
        let said = |node: &NodeId| answers.and_then(|answers| answers.get(node));
        let cannot = |node: NodeId| said(&node).is_some_and(|(said, _)| *said != Verdict::Applied);
        let peers = self.membership.peers(self.node());
        if self.is_given_up(fault, 0) || !peers.into_iter().all(cannot) {
            return;
        }
        self.repair.reported = Some(lost);
        self.report_damage();
    }
}
