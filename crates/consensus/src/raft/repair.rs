//! A replica whose log or hard state is damaged: what it may not do, and how it becomes whole again.
//!
//! Raft as published stops at a stable storage that keeps what it was given. A damaged slot may have been
//! acknowledged, and a lost hard state may have held a vote. Both are treated as what they are, unknown: the replica
//! neither votes nor campaigns nor acknowledges anything past the first damaged slot, and a lost hard state also
//! silences it towards leaders.
//!
//! - A damaged slot is refilled by a leader's append. The replica takes part again once its log is sound and is
//!   known to agree with the leader's up to an entry of the leader's own term: every entry that was ever
//!   committed with this replica's help lies below that (leader completeness).
//! - A lost hard state is made up for when all other voters have told their durable terms. Candidates ask for votes
//!   only when their own term is durable, so no vote of this replica can be of a higher term than the highest of
//!   those. In that term it will not vote again.

use super::message::Message;
use super::replica::{Raft, Role};
use crate::{Event, StepDownReason};
use quorate_types::{Epoch, Index, Instant, NodeId, SlotFault};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The search for a lost term.
#[derive(Clone, Debug)]
struct Survey {
    /// Which survey.
    context: u64,
    /// The terms that other voters told.
    answers: BTreeMap<NodeId, u64>,
    /// When to ask again.
    due: Instant,
}

/// What of the log or the hard state cannot be relied on.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    /// Slots that cannot be served.
    faults: BTreeMap<Index, SlotFault>,
    /// Slots above what the engine holds were found damaged, and the log was not proved whole since.
    suspect: bool,
    /// Set while the hard state is lost.
    survey: Option<Survey>,
}

impl Damage {
    /// What the log says of its damage at open; `marked` when the hard state bears [`suspicion`].
    pub(super) fn open(
        faults: &[SlotFault],
        applied: Index,
        marked: bool,
        forgotten: bool,
        context: u64,
    ) -> Damage {
        let faults: BTreeMap<Index, SlotFault> =
            faults.iter().map(|fault| (fault.index(), *fault)).collect();
        // A fault at the applied index itself may hide that a snapshot took its place just before a crash.
        let suspect = marked || faults.keys().any(|index| *index >= applied);
        let survey =
            forgotten.then_some(Survey { context, answers: BTreeMap::new(), due: Instant::ZERO });
        Damage { faults, suspect, survey }
    }

    /// Whether this replica may vote and campaign.
    pub(super) fn is_whole(&self) -> bool {
        !self.suspect && self.survey.is_none()
    }

    /// Whether the hard state is lost.
    pub(super) fn is_forgetful(&self) -> bool {
        self.survey.is_some()
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.survey.as_ref().map(|survey| survey.due)
    }

    /// The lowest damaged slot above `index`.
    pub(super) fn first_fault_above(&self, index: Index) -> Option<Index> {
        if self.faults.is_empty() {
            return None;
        }
        let above = (Bound::Excluded(index), Bound::Unbounded);
        self.faults.range(above).next().map(|(index, _)| *index)
    }

    pub(super) fn has_fault(&self, index: Index) -> bool {
        !self.faults.is_empty() && self.faults.contains_key(&index)
    }

    pub(super) fn refilled(&mut self, index: Index) {
        self.faults.remove(&index);
    }

    pub(super) fn truncated(&mut self, from: Index) {
        if !self.faults.is_empty() {
            self.faults.split_off(&from);
        }
    }

    pub(super) fn purged(&mut self, index: Index) {
        if !self.faults.is_empty() {
            self.faults = self.faults.split_off(&index.next());
        }
    }

    /// The first sound slot above every damaged one of `purged < i <= synced`, if there is one up to `synced`.
    pub(super) fn sound_above_faults(&self, purged: Index, synced: Index) -> Option<Index> {
        if self.faults.is_empty() || purged >= synced {
            return None;
        }
        let inside = (Bound::Excluded(purged), Bound::Included(synced));
        let (highest, _) = self.faults.range(inside).next_back()?;
        let sound = highest.next();
        (sound <= synced && !self.has_fault(sound)).then_some(sound)
    }
}

/// The `log_epoch` of a replica whose log was damaged and is not proved whole: in line with nobody. It stays on disk
/// over refills and restarts, since a refilled slot may for a while stand before slots of another history.
pub(super) fn suspicion(node: NodeId) -> Epoch {
    Epoch::new(0, node)
}

impl Raft {
    /// Says what keeps this replica from taking part, if anything does.
    pub(super) fn report_damage(&mut self) {
        if let Some(reason) = self.why_not_ready() {
            self.event(Event::NotReady { reason });
        }
    }

    /// What keeps this replica from taking part, wholly or in some of it.
    pub(super) fn why_not_ready(&self) -> Option<String> {
        if self.damage.is_forgetful() {
            return Some(
                "the hard state is lost: every other voter must be reached once before this replica takes part"
                    .into(),
            );
        }
        let fault = self.damage.first_fault_above(self.synced);
        match fault {
            Some(index) => Some(format!(
                "slot {index} is damaged: a leader must refill it before this replica votes"
            )),
            None if !self.damage.is_whole() => Some(
                "the log was damaged: a leader must confirm it before this replica votes".into(),
            ),
            None if self.needs_snapshot => Some(format!(
                "the state machine stands below {}, where the log begins: a snapshot of a peer must take its place \
                 before this replica serves",
                self.tail.purged()
            )),
            None => None,
        }
    }

    /// After an append of the leader of `epoch`: the log is whole again when it is sound, and agrees with the
    /// leader's up to an entry of that term.
    pub(super) fn maybe_become_whole(&mut self, epoch: Epoch) {
        if self.damage.suspect
            && self.damage.first_fault_above(self.synced).is_none()
            && self.tail.epoch_at(self.verified) == Some(epoch)
        {
            self.damage.suspect = false;
            self.hard.log_epoch = epoch;
            self.writes.hard(self.hard);
        }
    }

    /// Records which leadership the log is brought in line with, in the write that does so.
    pub(super) fn note_log_epoch(&mut self, epoch: Epoch) {
        let epoch = if self.damage.suspect { suspicion(self.node()) } else { epoch };
        if self.hard.log_epoch != epoch {
            self.hard.log_epoch = epoch;
            self.writes.hard(self.hard);
        }
    }

    /// A slot was found unreadable. What is still in memory is written again; otherwise only a leader can mend
    /// it.
    pub(super) fn on_damaged(&mut self, fault: SlotFault) {
        let index = fault.index();
        if index <= self.tail.purged().index || index > self.tail.last() {
            return;
        }
        if let Some(slot) = self.tail.slot(index) {
            let slot = slot.clone();
            return self.writes.write(slot);
        }
        self.damage.faults.insert(index, fault);
        if index <= self.synced {
            return;
        }
        self.damage.suspect = true;
        self.report_damage();
        match self.role {
            Role::Leader(_) => {
                self.hand_over_to_anybody();
                self.step_down(StepDownReason::Damaged);
            }
            Role::PreCandidate(_) | Role::Candidate(_) => self.become_follower(),
            Role::Follower => {}
        }
    }

    /// Asks the other voters for their terms, now and then.
    pub(super) fn maybe_survey(&mut self) {
        let epoch = self.hard.promised;
        let again = self.now + self.options.timing.election_timeout_min;
        let Some(survey) = &mut self.damage.survey else { return };
        if survey.due > self.now {
            return;
        }
        survey.due = again;
        let context = survey.context;
        for peer in self.membership.peers(self.options.node) {
            self.replies.push((peer, Message::Survey { epoch, context }, None));
        }
    }

    /// Somebody has lost its hard state; the answer is as durable as a promise.
    pub(super) fn on_survey(&mut self, from: NodeId, epoch: Epoch, context: u64) {
        self.observe_term(epoch.number);
        let epoch = self.hard.promised;
        let after = self.writes.latest();
        self.send(from, Message::SurveyReply { epoch, context }, after);
    }

    pub(super) fn on_message_while_forgetful(&mut self, from: NodeId, message: Message) {
        let Message::SurveyReply { epoch, context } = message else { return };
        let Some(survey) = &mut self.damage.survey else { return };
        if context != survey.context {
            return;
        }
        survey.answers.insert(from, epoch.number);
        let configuration = self.membership.latest();
        let mut others = configuration.members.keys().filter(|id| **id != self.options.node);
        if configuration.members.len() < 2 || !others.all(|id| survey.answers.contains_key(id)) {
            return;
        }
        let highest = survey.answers.values().copied().max().unwrap_or(0).max(self.term());
        self.damage.survey = None;
        self.hard.promised = Epoch::new(highest, NodeId(0));
        // Whoever it voted for in this term, it votes for nobody else.
        self.hard.voted_for = Some(self.node());
        self.writes.hard(self.hard);
        self.event(Event::EpochChanged { epoch: self.hard.promised });
        self.reset_election_timer();
    }
}
