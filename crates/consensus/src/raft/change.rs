//! How the members of a group change (thesis 4.1 to 4.3).
//!
//! The leader takes a target in and goes step by step towards it ([`crate::plan`]); the steps stand in the log, so that
//! the next leader goes on. Why it is safe, beyond the thesis:
//!
//! - A configuration is in force from the moment it is appended. A leader appends one only after an entry of its own
//!   term is committed (the flaw of one-step changes that Ongaro found in 2015) and the configuration in force is.
//! - A step either changes nobody's vote, or goes from voters `a` to joint `a, b`, or from joint `a, b` to `b`. Any quorum
//!   of one step meets any quorum of the next.
//! - A replica gives its vote without asking its own configuration whether it has one: the candidate's decides whether
//!   it counts, and that may be newer. A vote is always bound to the data folder that the configuration names.
//! - A leader that is to leave hands over while it is still a member. Where that fails, it leads until the
//!   configuration without it is committed.

use super::message::Message;
use super::replica::{Raft, Role};
use crate::plan::{PlanError, leave, next_step, take_in};
use crate::progress::ProgressState;
use crate::{Event, StepDownReason};
use quorate_types::{
    Configuration, Entry, EntryKind, Epoch, Index, Mistake, NodeId, Origin, TransactionId,
};

/// A learner that lacks at most so many entries is ready to vote: they are sent in less than an election timeout.
const BEHIND_COUNT_MAX: u64 = 1_000;

impl Raft {
    /// Somebody at this node asks for other members.
    pub(super) fn on_target(&mut self, base: Configuration, target: Configuration) {
        if matches!(self.role, Role::Leader(_)) {
            let refusal = self.take_target(&base, &target);
            return self.event(Event::MembershipAnswer { refusal });
        }
        if let Err(error) = base.check().and_then(|()| target.check()) {
            let refusal = Some(error.to_string());
            return self.event(Event::MembershipAnswer { refusal });
        }
        match self.leader {
            Some(leader) => {
                let epoch = Epoch::new(self.term(), leader);
                self.send(leader, Message::Change { epoch, base, target }, None);
            }
            None => {
                let refusal = Some("no leader is known".into());
                self.event(Event::MembershipAnswer { refusal });
            }
        }
    }

    /// Somebody at another node does.
    pub(super) fn on_change(&mut self, from: NodeId, base: &Configuration, target: &Configuration) {
        let refusal = match &self.role {
            Role::Leader(_) => self.take_target(base, target),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                Some("the leader has changed meanwhile".into())
            }
        };
        let epoch = self.hard.promised;
        self.send(from, Message::ChangeReply { epoch, refusal }, None);
    }

    /// Takes a target in, or says why not. One that changes nothing is taken in again and again: messages may be
    /// repeated.
    fn take_target(&mut self, base: &Configuration, target: &Configuration) -> Option<String> {
        if crate::plan::aim(self.membership.latest()) == *target {
            return None;
        }
        if !self.may_change() {
            let is_pending = self.membership.latest_index() > self.committed;
            let error = if is_pending { PlanError::UnderWay } else { PlanError::Early };
            return Some(error.to_string());
        }
        if self.membership.latest() != base {
            return Some(PlanError::Stale.to_string());
        }
        let planned = take_in(base, target, |node| self.has_followed(node));
        match planned {
            Ok(planned) => {
                self.append_configuration(&planned);
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    /// Whether this leader may append a configuration: an entry of its own term is committed, and so is the
    /// configuration in force.
    fn may_change(&self) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        (self.committed >= leader.first || Mistake::EarlyChange.is_made())
            && self.committed >= self.membership.latest_index()
            && leader.transfer.is_none()
    }

    fn append_configuration(&mut self, configuration: &Configuration) {
        let epoch = self.own_epoch();
        let last = self.tail.last();
        let (origin, transaction) = (Origin::NONE, TransactionId(0));
        let body = configuration.encode();
        self.append(epoch, Entry::new(epoch, EntryKind::Configuration, origin, transaction, body));
        self.lead_members(last);
    }

    /// Takes the next step of a change, once the last one is committed.
    pub(super) fn maybe_change_membership(&mut self) {
        let is_leader = matches!(self.role, Role::Leader(_));
        if !is_leader || !self.membership.is_changing() && self.is_voter() || !self.may_change() {
            return;
        }
        let own = self.membership.latest().members.get(&self.node());
        if own.is_some_and(|own| own.outgoing_voter && !own.voter) && self.try_to_leave() {
            return;
        }
        let is_ready = |node: NodeId| self.is_ready_to_vote(node);
        let is_reachable = |node: NodeId| self.has_followed(node);
        if let Some(next) = next_step(self.membership.latest(), is_ready, is_reachable) {
            let skipped = Mistake::JointSkipped.is_made().then(|| leave(&next));
            self.append_configuration(skipped.as_ref().unwrap_or(&next));
        } else if !self.is_voter() {
            self.hand_over_to_anybody();
            self.step_down(StepDownReason::Removed);
        }
    }

    /// Whether a learner follows, lacks so little that its vote would not hold the group up, and knows that it is a member:
    /// where the whole log is short, one that holds nothing lacks little.
    fn is_ready_to_vote(&self, node: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else { return false };
        let named = self.membership.named_at(node);
        let has_most = |matched: Index| {
            matched >= named && matched.distance_to(self.tail.last()) <= BEHIND_COUNT_MAX
        };
        leader.peers.get(&node).is_some_and(|peer| {
            peer.progress.state == ProgressState::Replicate && has_most(peer.progress.matched)
        }) && self.has_followed(node)
    }
}
