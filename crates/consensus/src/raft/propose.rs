//! How proposals come in: appended by the leader, forwarded to it by everybody else (thesis 6.2).

use super::message::Message;
use super::replica::{Raft, Role};
use crate::{Effect, Proposal, RefuseReason};
use quorate_types::{BODY_SIZE_MAX, ENTRY_HEADER_SIZE, Entry, EntryKind, Epoch, NodeId, Origin};
use std::collections::{BTreeMap, VecDeque};

/// Proposals between nodes.
#[derive(Clone, Debug)]
pub(super) struct Forwards {
    /// What this node's clients proposed and the leader was not told yet.
    gathering: Vec<Proposal>,
    /// The run of this process, a random number.
    run: u64,
    /// The sequence of the last message sent.
    sequence: u64,
    /// The latest runs of each peer, and the last sequence seen of each.
    seen: BTreeMap<NodeId, VecDeque<(u64, u64)>>,
    /// The highest term in which an earlier process of this replica may have led.
    pub(super) led_before: u64,
}

/// How many runs of a peer are told apart from new ones: a message does not stay in the network for as many starts.
const RUNS_MAX: usize = 8;

impl Forwards {
    pub(super) fn new(run: u64, led_before: u64) -> Forwards {
        Forwards { gathering: Vec::new(), run, sequence: 0, seen: BTreeMap::new(), led_before }
    }

    /// Whether a message is neither a copy of one seen before nor older than it.
    fn is_new(&mut self, from: NodeId, run: u64, sequence: u64) -> bool {
        let runs = self.seen.entry(from).or_default();
        match runs.iter_mut().find(|(seen, _)| *seen == run) {
            Some((_, last)) if sequence <= *last => return false,
            Some((_, last)) => *last = sequence,
            None => {
                runs.push_back((run, sequence));
                if runs.len() > RUNS_MAX {
                    runs.pop_front();
                }
            }
        }
        true
    }
}

impl Raft {
    pub(super) fn on_propose(&mut self, proposals: Vec<Proposal>) {
        if matches!(self.role, Role::Leader(_)) {
            for (origin, reason) in self.take_in(proposals) {
                self.refuse(origin, reason);
            }
        } else if self.leader.is_some() {
            self.forwards.gathering.extend(proposals);
        } else {
            let reason = self.why_no_leader();
            for proposal in proposals {
                self.refuse(proposal.origin, reason);
            }
        }
    }

    /// Why nobody can be asked.
    pub(super) fn why_no_leader(&self) -> RefuseReason {
        if self.damage.is_genuine() { RefuseReason::NoLeader } else { RefuseReason::NotReady }
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
        let is_clients = match proposal.kind {
            EntryKind::Command | EntryKind::WriteSet | EntryKind::Settle => true,
            EntryKind::Noop | EntryKind::Configuration | EntryKind::Prepared => false,
        };
        (!is_clients || proposal.origin.is_none()).then_some(RefuseReason::NotReady)
    }

    /// Sends gathered proposals to the leader, in messages of a limited size.
    pub(super) fn form_forwards(&mut self) {
        if self.forwards.gathering.is_empty() {
            return;
        }
        let gathering = std::mem::take(&mut self.forwards.gathering);
        let Some(leader) = self.leader.filter(|leader| *leader != self.node()) else {
            return self.on_propose(gathering);
        };
        let mut message = Vec::new();
        let mut size = 0;
        for proposal in gathering {
            let more = ENTRY_HEADER_SIZE + proposal.body.len();
            if size > 0 && size + more > self.options.limits.append_size_max {
                self.forward(leader, std::mem::take(&mut message));
                size = 0;
            }
            size += more;
            message.push(proposal);
        }
        self.forward(leader, message);
    }

    fn forward(&mut self, leader: NodeId, proposals: Vec<Proposal>) {
        self.forwards.sequence += 1;
        let (run, sequence) = (self.forwards.run, self.forwards.sequence);
        let epoch = Epoch::new(self.term(), leader);
        self.send(leader, Message::Propose { epoch, run, sequence, proposals }, None);
    }

    /// Proposals of another node's clients. They are not sent on: a leader that moved is named instead.
    pub(super) fn on_forwarded(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        run: u64,
        sequence: u64,
        proposals: Vec<Proposal>,
    ) {
        // An earlier process may have taken another copy: who refused this one would deny what is in logs already.
        let may_be_known = epoch.number <= self.forwards.led_before;
        if may_be_known || !self.forwards.is_new(from, run, sequence) {
            return;
        }
        let refusals = match self.role {
            Role::Leader(_) => {
                let refusals = self.take_in(proposals);
                let last = self.tail.last();
                if let Role::Leader(leader) = &mut self.role {
                    leader.awaits(from, last);
                }
                refusals
            }
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
