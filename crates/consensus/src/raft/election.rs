//! How a leader is chosen (thesis 3.4, 9.6).

use super::message::Message;
use super::replica::{Raft, Role};
use crate::{ElectionCause, Event};
use quorate_types::{Epoch, Mistake, NodeId, Position, WriteId};
use rand_chacha::rand_core::Rng;
use std::collections::BTreeSet;
use std::time::Duration;

/// A campaign under way, for pre-votes or for votes.
#[derive(Clone, Debug)]
pub(super) struct Campaign {
    /// Why it began.
    cause: ElectionCause,
    /// Which asking this is; answers to an older one do not count.
    context: u64,
    /// Who granted.
    granted: BTreeSet<NodeId>,
    /// The write that makes the own vote durable; `None` for pre-votes.
    vote: Option<WriteId>,
}

impl Campaign {
    /// Whether the own vote is on disk once `write` is.
    pub(super) fn vote_is_durable_with(&self, write: WriteId) -> bool {
        self.vote.is_some_and(|vote| vote <= write)
    }
}

/// How long a replica waits after its leader's link has closed: time for the votes of one of them to go round
/// before the other asks.
const LINK_CLOSED_DELAY: (Duration, Duration) =
    (Duration::from_millis(5), Duration::from_millis(30));

impl Raft {
    /// Whether this node votes under its own incarnation.
    pub(super) fn is_voter(&self) -> bool {
        self.membership.is_voter(self.options.node, self.options.incarnation)
    }

    /// Whether it may give its vote to `candidate`, under its own incarnation. One that is known to be removed for certain
    /// needs none: those who stay elect each other. A survey rests on that (`survey`).
    fn may_vote_for(&self, candidate: NodeId) -> bool {
        self.membership.may_vote(self.options.node, self.options.incarnation)
            && !self.membership.is_removed(candidate, self.committed)
    }

    /// Whether its configuration lets it campaign. One that is to leave may be the only one with the entry that says so;
    /// until that is known to be committed it still campaigns, without counting itself (thesis 4.2.2).
    fn may_campaign(&self) -> bool {
        let (node, incarnation) = (self.options.node, self.options.incarnation);
        self.is_voter()
            || self.membership.latest_index() > self.committed
                && self.membership.was_voter(node, incarnation)
    }

    /// Whether it may campaign.
    pub(super) fn is_electable(&self) -> bool {
        self.may_campaign()
            && self.is_log_electable()
            && self.install.is_none()
            && !self.needs_snapshot
            && !self.is_stalled()
    }

    /// Draws a new time to wait for a leader.
    pub(super) fn reset_election_timer(&mut self) {
        let timing = self.options.timing;
        let wait = self.random_between(timing.election_timeout_min, timing.election_timeout_max);
        self.election_due = Some(self.now + wait);
        self.election_cause = ElectionCause::Timeout;
        self.election_hurry = None;
    }

    /// The own leader's link was closed: ask soon, in a random order, instead of waiting out the timeout.
    pub(super) fn on_leader_link_closed(&mut self) {
        self.set_leader(None);
        let wait = self.random_between(LINK_CLOSED_DELAY.0, LINK_CLOSED_DELAY.1);
        let due = self.now + wait;
        self.election_due = Some(self.election_due.map_or(due, |old| old.min(due)));
        self.election_cause = ElectionCause::LinkClosed;
        self.election_hurry = Some(self.options.timing.election_timeout_min / 2);
    }

    pub(super) fn on_election_timeout(&mut self) {
        let (cause, hurry) = (self.election_cause, self.election_hurry);
        self.reset_election_timer();
        self.set_leader(None);
        if !self.is_electable() {
            if !matches!(self.role, Role::Follower) {
                self.become_follower();
            }
            return;
        }
        if let Some(max) = hurry.filter(|max| *max < self.options.timing.election_timeout_max) {
            // The cluster is known to be without its leader: retry sooner than after silence. Twice as late each time, for
            // others may not know it yet, and votes may be slow.
            let wait = self.random_between(max / 2, max);
            self.election_due = Some(self.now + wait);
            (self.election_cause, self.election_hurry) = (cause, Some(max * 2));
        }
        self.begin_pre_vote(cause);
    }

    pub(super) fn on_asked_to_campaign(&mut self) {
        if !matches!(self.role, Role::Leader(_)) && self.is_electable() {
            self.reset_election_timer();
            self.begin_pre_vote(ElectionCause::Asked);
        }
    }

    pub(super) fn on_timeout_now(&mut self, from: NodeId, epoch: Epoch) {
        if epoch.number != self.term() || self.leader != Some(from) {
            return;
        }
        if self.is_electable() {
            self.reset_election_timer();
            self.campaign(ElectionCause::Transfer);
        }
    }

    /// Asks the voters whether they would vote for this replica; no term changes yet.
    fn begin_pre_vote(&mut self, cause: ElectionCause) {
        self.set_leader(None);
        let context = self.random.next_u64();
        let granted = BTreeSet::from([self.node()]);
        let epoch = Epoch::new(self.term() + 1, self.node());
        self.event(Event::Campaign { epoch, cause });
        self.change_role(Role::PreCandidate(Campaign { cause, context, granted, vote: None }));
        let last = self.tail.last_position();
        for peer in self.voting_peers() {
            self.send(peer, Message::PreVote { epoch, last, context }, None);
        }
        self.maybe_win();
    }

    /// Begins a new term and asks for votes. The requests wait for the own vote to be durable: nobody can then
    /// have voted in a term that its candidate has forgotten.
    fn campaign(&mut self, cause: ElectionCause) {
        self.set_leader(None);
        self.enter_term(self.term() + 1);
        self.hard.voted_for = Some(self.node());
        self.writes.hard(self.hard);
        let vote = self.writes.latest();
        let granted = BTreeSet::new();
        self.change_role(Role::Candidate(Campaign { cause, context: 0, granted, vote }));
        let (epoch, last) = (self.own_epoch(), self.tail.last_position());
        let transfer = cause == ElectionCause::Transfer;
        for peer in self.voting_peers() {
            self.send(peer, Message::Vote { epoch, last, transfer }, vote);
        }
    }

    fn voting_peers(&self) -> Vec<NodeId> {
        let mut peers = self.membership.peers(self.node());
        peers.retain(|peer| self.membership.latest().is_voter(*peer));
        peers
    }

    /// The own vote is on disk: it counts from now on.
    pub(super) fn count_own_vote(&mut self) {
        self.count_vote(self.node());
    }

    pub(super) fn maybe_win(&mut self) {
        match &self.role {
            Role::PreCandidate(campaign) if self.has_won(campaign) => {
                let cause = campaign.cause;
                self.campaign(cause);
            }
            Role::Candidate(campaign) if self.has_won(campaign) => {
                if self.first_fault().is_none() {
                    self.become_leader();
                }
            }
            Role::PreCandidate(_) | Role::Candidate(_) | Role::Follower | Role::Leader(_) => {}
        }
    }

    fn has_won(&self, campaign: &Campaign) -> bool {
        self.membership.quorum().is_quorum(|node| campaign.granted.contains(&node))
    }

    /// Whether a quorum has voted for this replica in the present term, and it does not lead yet.
    pub(super) fn has_won_votes(&self) -> bool {
        matches!(&self.role, Role::Candidate(campaign) if self.has_won(campaign))
    }

    /// Counts a vote in this campaign.
    fn count_vote(&mut self, node: NodeId) {
        let Role::Candidate(campaign) = &mut self.role else { return };
        campaign.granted.insert(node);
        self.maybe_win();
        if self.has_won_votes() {
            // Something is damaged: what the others say in this term decides.
            self.hasten_repair();
        }
    }

    /// Whether a log that ends at `last` holds everything that this one may have helped to commit (thesis
    /// 3.6.1).
    fn is_up_to_date(&self, last: Position) -> bool {
        let own = self.last_acknowledged_bound();
        (last.epoch, last.index) >= (own.epoch, own.index) || Mistake::VoteUnchecked.is_made()
    }

    /// Whether a leader is known and was heard from so recently that nobody else should be elected.
    fn has_live_leader(&self) -> bool {
        let min = self.options.timing.election_timeout_min;
        self.leader == Some(self.node())
            || self.leader.is_some()
                && self.leader_heard.is_some_and(|heard| self.now.since(heard) < min)
    }

    pub(super) fn on_pre_vote(&mut self, from: NodeId, epoch: Epoch, last: Position, context: u64) {
        if !self.is_from(from, epoch) {
            return;
        }
        if epoch.number <= self.term() {
            // The asker is behind in terms; it learns so and asks again with a higher one.
            let stale = Message::Stale { epoch: self.hard.promised };
            self.send(from, stale, None);
            return;
        }
        let granted = self.may_vote_for(from)
            && self.damage.is_genuine()
            && self.is_up_to_date(last)
            && !self.has_live_leader();
        self.send(from, Message::PreVoteReply { epoch, context, granted }, None);
    }

    pub(super) fn on_pre_vote_reply(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        context: u64,
        granted: bool,
    ) {
        let asked = Epoch::new(self.term() + 1, self.node());
        let Role::PreCandidate(campaign) = &mut self.role else { return };
        if granted && epoch == asked && context == campaign.context {
            campaign.granted.insert(from);
            self.maybe_win();
        }
    }

    pub(super) fn on_vote(&mut self, from: NodeId, epoch: Epoch, last: Position, transfer: bool) {
        if !self.is_from(from, epoch) {
            return;
        }
        if epoch.number < self.term() {
            let stale = Message::Stale { epoch: self.hard.promised };
            self.send(from, stale, None);
            return;
        }
        if epoch.number > self.term() && self.has_live_leader() && !transfer {
            // A live leader is not deposed by somebody who merely lost sight of it (thesis 4.2.3).
            return;
        }
        self.observe_term(epoch.number);
        let free =
            self.hard.voted_for.is_none_or(|voted| voted == from) || Mistake::VoteTwice.is_made();
        let granted =
            free && self.may_vote_for(from) && self.damage.is_genuine() && self.is_up_to_date(last);
        if granted {
            if self.hard.voted_for.is_none() {
                self.hard.voted_for = Some(from);
                if !Mistake::VoteUnrecorded.is_made() {
                    self.writes.hard(self.hard);
                }
            }
            self.reset_election_timer();
        }
        let after = if granted { self.writes.latest() } else { None };
        self.send(from, Message::VoteReply { epoch, granted }, after);
    }

    pub(super) fn on_vote_reply(&mut self, from: NodeId, epoch: Epoch, granted: bool) {
        if granted && epoch == self.own_epoch() {
            self.count_vote(from);
        }
    }

    /// Whether a message that only the owner of its epoch may send came from there; drops it if not.
    pub(super) fn is_from(&mut self, from: NodeId, epoch: Epoch) -> bool {
        if epoch.owner != from {
            self.drop_message(from, format!("it speaks for epoch {epoch}"));
            return false;
        }
        true
    }

    /// Takes in that a term exists; a higher one makes this replica a follower without a leader.
    pub(super) fn observe_term(&mut self, number: u64) {
        if number <= self.term() {
            return;
        }
        if matches!(self.role, Role::Leader(_)) {
            self.step_down(crate::StepDownReason::HigherEpoch);
        }
        self.set_leader(None);
        self.enter_term(number);
        if !matches!(self.role, Role::Follower) {
            self.become_follower();
        }
        if self.election_due.is_none() {
            self.reset_election_timer();
        }
    }

    pub(super) fn enter_term(&mut self, number: u64) {
        assert!(number > self.term(), "term {number} does not follow {}", self.term());
        self.hard.promised = Epoch::new(number, NodeId(0));
        self.hard.voted_for = None;
        self.writes.hard(self.hard);
        self.term_leader = None;
        self.verified = quorate_types::Index::ZERO;
        self.acknowledgement = None;
        self.metrics.term_changes += 1;
        self.event(Event::EpochChanged { epoch: self.hard.promised });
    }

    /// Takes in a message of the leader of `epoch`. False when it is not to be followed.
    pub(super) fn follow(&mut self, from: NodeId, epoch: Epoch) -> bool {
        if !self.is_from(from, epoch) {
            return false;
        }
        let is_obeyed = Mistake::OldLeaderObeyed.is_made();
        if epoch.number < self.term() && Mistake::TermRegress.is_made() {
            self.hard.promised = Epoch::new(epoch.number, NodeId(0));
            self.term_leader = None;
        } else if epoch.number < self.term() && !is_obeyed {
            let stale = Message::Stale { epoch: self.hard.promised };
            self.send(from, stale, None);
            return false;
        }
        self.observe_term(epoch.number);
        let known = self.term_leader.filter(|_| !is_obeyed).unwrap_or(from);
        if known != from || matches!(self.role, Role::Leader(_)) {
            self.drop_message(from, format!("{known} leads term {}", epoch.number));
            return false;
        }
        self.term_leader = Some(from);
        if !matches!(self.role, Role::Follower) {
            self.become_follower();
        }
        self.set_leader(Some(from));
        self.leader_heard = Some(self.now);
        self.reset_election_timer();
        true
    }

    pub(super) fn become_follower(&mut self) {
        self.change_role(Role::Follower);
        self.reset_election_timer();
    }

    /// Takes on a role and says so.
    pub(super) fn change_role(&mut self, role: Role) {
        let old = self.role_name();
        self.role = role;
        let role = self.role_name();
        if role != old {
            let is_leader = matches!(self.role, Role::Leader(_));
            let epoch = if is_leader { self.own_epoch() } else { self.hard.promised };
            self.event(Event::Role { role, epoch });
        }
    }

    /// A leader became known or unknown.
    pub(super) fn set_leader(&mut self, leader: Option<NodeId>) {
        if self.leader == leader {
            return;
        }
        let leaderless = match (self.leader, leader) {
            (None, Some(_)) => {
                let span = self.now.since(self.leaderless_since);
                self.metrics.leader_election_time.observe(span);
                span
            }
            (_, None) => {
                self.leaderless_since = self.now;
                Duration::ZERO
            }
            (Some(_), Some(_)) => Duration::ZERO,
        };
        self.leader = leader;
        let epoch = self.hard.promised;
        self.event(Event::Leader { leader, epoch, leaderless });
        self.abandon_reads();
    }
}
