//! One replica: its state, and how inputs become effects.

use super::damage::Damage;
use super::election::Campaign;
use super::leader::Leader;
use super::membership::Membership;
use super::message::Message;
use super::propose::Forwards;
use super::read::FollowerReads;
use super::repair::Repair;
use super::snapshot::Install;
use crate::tail::Tail;
use crate::writes::Writes;
use crate::{
    Control, DropReason, Effect, Event, Input, Metrics, Opening, Options, Protocol, RefuseReason,
    RoleName, Status,
};
use quorate_types::{Digest, Epoch, HardState, Index, Instant, Mistake, NodeId, WriteId};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a replica does at present.
#[derive(Clone, Debug)]
pub(super) enum Role {
    /// Follows, waits for a leader, or receives the log as a learner.
    Follower,
    /// Asks whether it could win.
    PreCandidate(Campaign),
    /// Asks for votes.
    Candidate(Campaign),
    /// Leads.
    Leader(Box<Leader>),
}

/// What is known of the way to a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Contact {
    /// When it was last heard from.
    pub(super) heard: Option<Instant>,
    /// Whether its link was last said to be up, if anything was said.
    pub(super) link: Option<bool>,
}

/// A replica that runs Raft.
///
/// # Invariants
/// 1. `purged <= synced <= applied <= apply_asked <= committed <= last`, and `durable <= last`.
/// 2. `apply_asked <= durable`: only what is durable here is applied here.
/// 3. The term (`hard.promised`) never falls, and no entry of the log has a higher one.
/// 4. A leader voted for itself in its term, and leads exactly that term.
/// 5. A leader's log is only appended to; nobody truncates what is committed.
/// 6. For every peer of a leader `matched < next` and `matched <= last`.
/// 7. The configuration in force is the last one in the log, committed or not; the quorums are its.
/// 8. Writes complete in order, and nothing that an unfinished write changes is called durable.
/// 9. A replica that does not know what its log held, or lost its hard state, neither campaigns nor leads; no slot of a
///    leader's log is damaged above what its engine holds. No hard state is written while it is lost.
/// 10. A replica that needs a snapshot applies and purges nothing until it has one, and neither campaigns nor leads.
#[derive(Clone, Debug)]
pub struct Raft {
    /// Who this is, how long things take, what may be held.
    pub(super) options: Options,
    /// The latest time it was told.
    pub(super) now: Instant,
    /// The source of timeouts and contexts.
    pub(super) random: ChaCha8Rng,
    /// Term, vote, and the term whose leader the log follows; as it will be once all writes are done.
    pub(super) hard: HardState,
    /// The log.
    pub(super) tail: Tail,
    /// What was asked of the disk.
    pub(super) writes: Writes,
    /// What of the log or the hard state cannot be relied on.
    pub(super) damage: Damage,
    /// What goes to and fro about damaged slots.
    pub(super) repair: Repair,
    /// The configurations of the log.
    pub(super) membership: Membership,
    /// The highest index known to be committed.
    pub(super) committed: Index,
    /// The last index applied.
    pub(super) applied: Index,
    /// The last index synced in the engine.
    pub(super) synced: Index,
    /// The last index whose apply was asked for.
    pub(super) apply_asked: Index,
    /// What it does.
    pub(super) role: Role,
    /// Whom it follows; itself when it leads.
    pub(super) leader: Option<NodeId>,
    /// Who was heard to lead the present term, also while the way there is down.
    pub(super) term_leader: Option<NodeId>,
    /// Since when no leader is known.
    pub(super) leaderless_since: Instant,
    /// When the leader was last heard from.
    pub(super) leader_heard: Option<Instant>,
    /// When it campaigns if nothing is heard; `None` when it may not.
    pub(super) election_due: Option<Instant>,
    /// Why a campaign at `election_due` would begin.
    pub(super) election_cause: crate::ElectionCause,
    /// The longest it then waits for votes before it asks again, while it is known that nobody leads.
    pub(super) election_hurry: Option<Duration>,
    /// How far this log is known to agree with the log of the present term's leader.
    pub(super) verified: Index,
    /// What is known of the way to each peer.
    pub(super) contacts: BTreeMap<NodeId, Contact>,
    /// Up to where the leader is to be told that its entries are durable here.
    pub(super) acknowledgement: Option<Index>,
    /// Messages of this wake-up, with the writes that make them true.
    pub(super) replies: Vec<(NodeId, Message, Option<WriteId>)>,
    /// Messages of this wake-up that are large and not urgent, and promise nothing new.
    pub(super) bulk: Vec<(NodeId, Message)>,
    /// Proposals on their way to the leader.
    pub(super) forwards: Forwards,
    /// Reads that wait for the leader.
    pub(super) reads: FollowerReads,
    /// A snapshot being installed.
    pub(super) install: Option<Install>,
    /// Whether the state machine stands below what is purged, so that only a snapshot brings it further.
    pub(super) needs_snapshot: bool,
    /// Recent digests at multiples of the digest interval, oldest first.
    pub(super) digests: VecDeque<(Index, Digest)>,
    /// What was measured.
    pub(super) metrics: Metrics,
    /// Effects that are formed.
    pub(super) outbox: VecDeque<Effect>,
    /// Whether something was handled since effects were last formed.
    dirty: bool,
    /// A number that the next [`crate::FetchId`] takes.
    pub(super) next_fetch: u64,
}

impl Raft {
    /// Opens a replica on what its log and state machine say of themselves. One whose log begins after what was
    /// applied follows and votes as its log allows, and waits for a snapshot of a peer.
    #[must_use]
    pub fn open(now: Instant, options: Options, opening: Opening) -> Raft {
        let Opening { log, applied } = opening;
        let needs_snapshot = applied.position.index < log.bounds.purged.index;
        // What is purged was committed, wherever the state machine that had applied it has gone.
        let applied = if needs_snapshot { log.bounds.purged } else { applied.position };
        let hard = log.hard_state.unwrap_or_default();
        let mut tail = Tail::open(log.bounds, &log.epochs);
        let mut random = ChaCha8Rng::seed_from_u64(
            options.seed ^ options.node.0.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        );
        let (context, run) = (random.next_u64(), random.next_u64());
        let damage = Damage::open(&log, &mut tail, options.node, applied, context);
        let mut raft = Raft {
            options,
            now,
            random,
            hard,
            writes: Writes::new(log.bounds.last),
            damage,
            repair: Repair::new(now),
            membership: Membership::open(log.configurations),
            committed: applied.index,
            applied: applied.index,
            synced: applied.index,
            apply_asked: applied.index,
            role: Role::Follower,
            leader: None,
            term_leader: None,
            leaderless_since: now,
            leader_heard: None,
            election_due: None,
            election_cause: crate::ElectionCause::Timeout,
            election_hurry: None,
            verified: Index::ZERO,
            contacts: BTreeMap::new(),
            acknowledgement: None,
            replies: Vec::new(),
            bulk: Vec::new(),
            forwards: Forwards::new(run, hard.promised.number),
            reads: FollowerReads::new(context),
            install: None,
            needs_snapshot,
            digests: VecDeque::new(),
            metrics: Metrics::default(),
            outbox: VecDeque::new(),
            dirty: true,
            next_fetch: 1,
            tail,
        };
        raft.finish_interrupted_install(applied);
        // The log's own entries prove a term, even where the hard state is lost.
        raft.hard.promised.number =
            raft.hard.promised.number.max(raft.tail.last_position().epoch.number);
        raft.reset_election_timer();
        if raft.is_electable() && raft.membership.quorum().is_alone(options.node) {
            raft.election_due = Some(now);
        }
        raft.report_damage();
        raft.check();
        raft
    }

    /// The node this replica runs on.
    pub(super) fn node(&self) -> NodeId {
        self.options.node
    }

    /// The present term.
    pub(super) fn term(&self) -> u64 {
        self.hard.promised.number
    }

    /// The present term with this node as owner: the epoch it campaigns and leads in.
    pub(super) fn own_epoch(&self) -> Epoch {
        Epoch::new(self.term(), self.node())
    }

    /// A random duration in `min..=max`.
    pub(super) fn random_between(&mut self, min: Duration, max: Duration) -> Duration {
        let span = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX - 1);
        min + Duration::from_nanos(self.random.next_u64() % (span + 1))
    }

    /// Says something to a peer in this wake-up.
    pub(super) fn send(&mut self, to: NodeId, message: Message, after: Option<WriteId>) {
        self.replies.push((to, message, after));
    }

    /// Tells those who watch.
    pub(super) fn event(&mut self, event: Event) {
        self.outbox.push_back(Effect::Event(event));
    }

    /// Drops a message that contradicts local state.
    pub(super) fn drop_message(&mut self, from: NodeId, why: String) {
        self.metrics.dropped_count += 1;
        self.event(Event::Dropped { from, reason: DropReason::Contradiction(why) });
    }

    /// Says that a proposal of this node was not taken.
    pub(super) fn refuse(&mut self, origin: quorate_types::Origin, reason: RefuseReason) {
        self.metrics.refused_count += 1;
        let hint = self.leader.filter(|leader| *leader != self.node());
        self.outbox.push_back(Effect::Refused { origin, reason, hint });
    }

    /// What it does, for people.
    pub(super) fn role_name(&self) -> RoleName {
        match self.role {
            Role::Follower if self.is_voter() => RoleName::Follower,
            Role::Follower => RoleName::Learner,
            Role::PreCandidate(_) => RoleName::PreCandidate,
            Role::Candidate(_) => RoleName::Candidate,
            Role::Leader(_) => RoleName::Leader,
        }
    }

    fn on_message(&mut self, from: NodeId, message: Message) {
        self.contacts.entry(from).or_default().heard = Some(self.now);
        if self.damage.is_forgetful() {
            return self.on_message_while_forgetful(from, message);
        }
        match message {
            Message::PreVote { epoch, last, context } => {
                self.on_pre_vote(from, epoch, last, context);
            }
            Message::PreVoteReply { epoch, context, granted } => {
                self.on_pre_vote_reply(from, epoch, context, granted);
            }
            Message::Vote { epoch, last, transfer } => self.on_vote(from, epoch, last, transfer),
            Message::VoteReply { epoch, granted } => self.on_vote_reply(from, epoch, granted),
            Message::Append { epoch, previous, committed, entries } => {
                self.on_append(from, epoch, previous, committed, entries);
            }
            Message::AppendReply { epoch, outcome, digest } => {
                self.on_append_reply(from, epoch, outcome, digest);
            }
            Message::Heartbeat { epoch, round, committed, sent } => {
                self.on_heartbeat(from, epoch, round, committed, sent);
            }
            Message::HeartbeatReply { epoch, round, sent, received } => {
                self.on_heartbeat_reply(from, epoch, round, sent, received);
            }
            Message::Commit { epoch, committed } => self.on_commit(from, epoch, committed),
            Message::Stale { epoch } => self.observe_term(epoch.number),
            Message::TimeoutNow { epoch } => self.on_timeout_now(from, epoch),
            Message::Propose { epoch, run, sequence, proposals } => {
                self.on_forwarded(from, epoch, run, sequence, proposals);
            }
            Message::Refuse { epoch: _, refusals, hint } => self.on_refusals(refusals, hint),
            Message::Read { epoch, context } => self.on_read_request(from, epoch, context),
            Message::ReadReply { epoch: _, context, index } => {
                self.on_read_reply(context, index);
            }
            Message::Survey { epoch, context } => self.on_survey(from, epoch, context),
            Message::SurveyReply { .. } => {}
            Message::Repair { epoch: _, wants } => self.on_repair(from, wants),
            Message::Identify { epoch: _, first, next } => self.on_identify(from, first, next),
            Message::Identified { epoch: _, next, positions } => {
                self.on_identified(from, next, &positions);
            }
            Message::RepairReply { epoch, entries, verdicts } => {
                self.on_repair_reply(from, epoch, entries, verdicts);
            }
            Message::Change { epoch: _, base, target } => self.on_change(from, &base, &target),
            Message::ChangeReply { epoch: _, refusal } => {
                self.event(Event::MembershipAnswer { refusal });
            }
        }
    }

    fn on_link(&mut self, peer: NodeId, up: bool) {
        self.contacts.entry(peer).or_default().link = Some(up);
        if up {
            // It may hold what nobody else could give.
            self.hasten_repair();
        }
        match &mut self.role {
            Role::Leader(leader) => leader.on_link(peer, up),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                if !up && self.leader == Some(peer) {
                    self.on_leader_link_closed();
                }
            }
        }
    }

    fn on_durable(&mut self, id: WriteId) {
        if !self.writes.complete(id) {
            return;
        }
        self.tail.trim(self.options.limits.tail_size_max, self.writes.durable());
        if let Role::Candidate(campaign) = &self.role
            && campaign.vote_is_durable_with(id)
        {
            self.count_own_vote();
        }
    }

    fn on_applied(&mut self, index: Index, synced: Index, digest: Option<Digest>) {
        assert!(index <= self.apply_asked, "{index} applied, only {} asked", self.apply_asked);
        self.applied = self.applied.max(index);
        self.synced = self.synced.max(synced.min(self.applied));
        if let Some(digest) = digest {
            self.on_own_digest(index, digest);
        }
        self.maybe_install();
    }

    fn on_control(&mut self, control: Control) {
        match control {
            Control::Campaign => self.on_asked_to_campaign(),
            Control::Transfer(to) => self.on_transfer(to),
            Control::TargetMembership { base, target } => self.on_target(base, target),
        }
    }

    fn on_time(&mut self) {
        if self.damage.is_forgetful() {
            self.maybe_survey();
            return;
        }
        if matches!(self.role, Role::Leader(_)) {
            self.on_leader_time();
        } else if self.election_due.is_some_and(|due| due <= self.now) {
            self.on_election_timeout();
        }
        self.maybe_repeat_read();
        self.maybe_ask_for_repair();
    }

    /// Forms the effects of everything handled since the last time. False when there was nothing.
    fn form(&mut self) -> bool {
        if !self.dirty {
            return false;
        }
        self.dirty = false;
        self.advance_commit();
        self.maybe_change_membership();
        self.maybe_purge();
        if let Some((id, ops)) = self.writes.form(self.now, self.tail.last()) {
            self.outbox.push_back(Effect::Persist { id, ops });
        }
        self.form_acknowledgement();
        self.form_reads();
        self.form_forwards();
        self.form_replication();
        for (to, message, after) in std::mem::take(&mut self.replies) {
            let message = crate::Message::Raft(message);
            self.outbox.push_back(Effect::Send { to, message, after });
        }
        for (to, message) in std::mem::take(&mut self.bulk) {
            self.outbox.push_back(Effect::SendBulk { to, message: crate::Message::Raft(message) });
        }
        self.form_apply();
        self.check();
        true
    }

    /// Asks for the next range that is committed, durable and sound.
    fn form_apply(&mut self) {
        let limits = &self.options.limits;
        if self.install.is_some()
            || self.needs_snapshot
            || self.apply_asked.0 >= self.applied.0 + limits.apply_count_max * 2
        {
            return;
        }
        let mut last = self.committed.min(self.held());
        if Mistake::AppliedUndurable.is_made() {
            last = self.committed;
        }
        last = last.min(Index(self.apply_asked.0 + limits.apply_count_max));
        let boundary = (self.apply_asked.0 / limits.digest_interval + 1) * limits.digest_interval;
        last = last.min(Index(boundary));
        if last > self.apply_asked {
            let first = self.apply_asked.next();
            self.apply_asked = last;
            self.outbox.push_back(Effect::Apply { first, last });
            // More may be ready than one range may hold.
            self.dirty = self.committed.min(self.held()) > last;
        }
    }

    /// Up to here every slot that is not yet safe in the engine is durable and sound.
    pub(super) fn held(&self) -> Index {
        let durable = self.writes.durable().max(self.synced);
        match self.first_fault() {
            Some(fault) => durable.min(fault.previous()),
            None => durable,
        }
    }
}

impl Protocol for Raft {
    fn handle(&mut self, now: Instant, input: Input) {
        self.now = self.now.max(now);
        self.dirty = true;
        match input {
            Input::Tick => {}
            Input::Message { from, message: crate::Message::Raft(message) } => {
                self.on_message(from, message);
            }
            Input::Link { peer, incarnation: _, up } => self.on_link(peer, up),
            Input::Propose(proposals) => self.on_propose(proposals),
            Input::Read(id) => self.on_read(id),
            Input::Durable(id) => self.on_durable(id),
            Input::Applied { index, synced, digest } => self.on_applied(index, synced, digest),
            Input::Damaged(fault) => self.on_damaged(fault),
            Input::Fetched { id, slots } => self.on_fetched(id, slots),
            Input::Snapshot(snapshot) => self.on_snapshot(snapshot),
            Input::Control(control) => self.on_control(control),
        }
        self.on_time();
        self.check();
    }

    fn poll(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.outbox.pop_front() {
                return Some(effect);
            }
            if !self.form() {
                return None;
            }
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        if self.damage.is_forgetful() {
            return self.damage.next_deadline();
        }
        let role = match &self.role {
            Role::Leader(leader) => Some(leader.next_deadline()),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => self.election_due,
        };
        [role, self.reads.next_deadline(), self.repair_deadline()].into_iter().flatten().min()
    }

    fn status(&self, now: Instant) -> Status {
        self.describe(now)
    }

    fn committed(&self) -> Index {
        self.committed
    }
}
