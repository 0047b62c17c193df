//! How proposals come in: appended by the leader, forwarded to it by everybody else (thesis 6.2).

use super::message::Message;
use super::replica::{Raft, Role};
use crate::{Effect, Proposal, RefuseReason};
use quorate_types::{BODY_SIZE_MAX, ENTRY_HEADER_SIZE, Entry, EntryKind, Epoch, NodeId, Origin};

impl Raft {
    pub(super) fn on_propose(&mut self, proposals: Vec<Proposal>) {
        if matches!(self.role, Role::Leader(_)) {
            for (origin, reason) in self.take_in(proposals) {
                self.refuse(origin, reason);
            }
        } else if self.leader.is_some() {
            self.forwards.extend(proposals);
        } else {
            let reason = self.why_no_leader();
            for proposal in proposals {
                self.refuse(proposal.origin, reason);
            }
        }
    }

    /// Why nobody can be asked.
    pub(super) fn why_no_leader(&self) -> RefuseReason {
        if self.damage.is_whole() { RefuseReason::NoLeader } else { RefuseReason::NotReady }
    }

    /// Appends what it may of `proposals` to the leader's log; gives back the others, with reasons.
    fn take_in(&mut self, proposals: Vec<Proposal>) -> Vec<(Origin, RefuseReason)> {
        let epoch = self.own_epoch();
        let mut refusals = Vec::new();
        let mut taken = 0;
        for proposal in proposals {
            match self.reason_to_refuse(&proposal, taken) {
                Some(reason) => refusals.push((proposal.origin, reason)),
                None => {
                    let Proposal { origin, kind, transaction, body } = proposal;
                    taken += ENTRY_HEADER_SIZE + body.len();
                    self.append(epoch, Entry::new(epoch, kind, origin, transaction, body));
                }
            }
        }
        let (last, now) = (self.tail.last(), self.now);
        if taken > 0
            && let Role::Leader(leader) = &mut self.role
        {
            leader.took(last, taken, now);
        }
        refusals
    }

    fn reason_to_refuse(&self, proposal: &Proposal, taken: usize) -> Option<RefuseReason> {
        let limits = &self.options.limits;
        let Role::Leader(leader) = &self.role else { return Some(RefuseReason::NotLeader) };
        if proposal.body.len() > BODY_SIZE_MAX {
            return Some(RefuseReason::TooLarge);
        }
        if leader.transfer.is_some() {
            return Some(RefuseReason::Transferring);
        }
        let waiting = leader.uncommitted_size + taken;
        let size = ENTRY_HEADER_SIZE + proposal.body.len();
        let unapplied = self.applied.distance_to(self.committed);
        if waiting > 0 && waiting + size > limits.uncommitted_size_max
            || unapplied > limits.unapplied_count_max
        {
            return Some(RefuseReason::Busy);
        }
        let is_clients = matches!(proposal.kind, EntryKind::Command | EntryKind::WriteSet)
            && !proposal.origin.is_none();
        (!is_clients).then_some(RefuseReason::NotReady)
    }

    /// Sends gathered proposals to the leader, in messages of a limited size.
    pub(super) fn form_forwards(&mut self) {
        if self.forwards.is_empty() {
            return;
        }
        let forwards = std::mem::take(&mut self.forwards);
        let Some(leader) = self.leader.filter(|leader| *leader != self.node()) else {
            return self.on_propose(forwards);
        };
        let epoch = Epoch::new(self.term(), leader);
        let mut message = Vec::new();
        let mut size = 0;
        for proposal in forwards {
            let more = ENTRY_HEADER_SIZE + proposal.body.len();
            if size > 0 && size + more > self.options.limits.append_size_max {
                let proposals = std::mem::take(&mut message);
                self.send(leader, Message::Propose { epoch, proposals }, None);
                size = 0;
            }
            size += more;
            message.push(proposal);
        }
        self.send(leader, Message::Propose { epoch, proposals: message }, None);
    }

    /// Proposals of another node's clients. They are not sent on: a leader that moved is named instead.
    pub(super) fn on_forwarded(&mut self, from: NodeId, proposals: Vec<Proposal>) {
        let refusals = match self.role {
            Role::Leader(_) => self.take_in(proposals),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                let refuse = |proposal: Proposal| (proposal.origin, RefuseReason::NotLeader);
                proposals.into_iter().map(refuse).collect()
            }
        };
        if !refusals.is_empty() {
            let epoch = self.hard.promised;
            let hint = self.leader;
            self.send(from, Message::Refuse { epoch, refusals, hint }, None);
        }
    }

    /// The leader did not take proposals of this node's clients.
    pub(super) fn on_refusals(
        &mut self,
        refusals: Vec<(Origin, RefuseReason)>,
        hint: Option<NodeId>,
    ) {
        for (origin, reason) in refusals {
            self.metrics.refused_count += 1;
            self.outbox.push_back(Effect::Refused { origin, reason, hint });
        }
    }
}
