//! How a leader keeps its followers in line and decides what is committed (thesis 3.5, 3.6, 6.2, 10.2).

use super::message::{AppendOutcome, Message};
use super::read::Waiter;
use super::replica::{Raft, Role};
use crate::barrier::Barrier;
use crate::progress::{Progress, ProgressState};
use crate::{Effect, Event, FetchId, RefuseReason, SnapshotEffect, StepDownReason};
use quorate_types::{Digest, Entry, Epoch, Index, Instant, Mistake, NodeId, Position, Slot};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// What a leader knows of one peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    /// How far its log has come.
    pub(super) progress: Progress,
    /// The highest round it has answered.
    pub(super) answered: u64,
    /// When the latest round it has answered was sent: until then it surely followed.
    followed: Instant,
    /// The commit index it was last told.
    told: Index,
    /// The last index that somebody there waits for: of a proposal it forwarded, of a read it asked for.
    awaited: Index,
    /// The read of older slots under way for it, and the first of them.
    fetch: Option<(FetchId, Index)>,
    /// Set while it is brought up by bulk: when it last made progress.
    catch_up: Option<Instant>,
    /// A digest of it that cannot be compared yet.
    pub(super) digest: Option<(Index, Digest)>,
    /// Whether its link is down: then only lone probes are sent.
    pub(super) link_down: bool,
    /// At least this much a snapshot under way will cover.
    pub(super) snapshot_from: Index,
}

/// Proposals appended together.
#[derive(Clone, Copy, Debug)]
struct Batch {
    /// The index of the last.
    last: Index,
    /// Their encoded size in bytes.
    size: usize,
    /// When they were taken in.
    taken: Instant,
}

/// A hand-over under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Transfer {
    /// To whom.
    pub(super) to: NodeId,
    /// When it is given up.
    due: Instant,
    /// Whether the receiver was told to campaign.
    told: bool,
}

/// The state of a leader.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    /// The index of its no-op: commits are counted from there on.
    pub(super) first: Index,
    /// Everybody else of the configuration.
    pub(super) peers: BTreeMap<NodeId, Peer>,
    /// The latest round sent.
    round: u64,
    /// When recent rounds were sent; the last is `round`.
    rounds: VecDeque<Instant>,
    /// When the next round is due.
    heartbeat_due: Instant,
    /// When followers, the disk and what was sent are looked at next. Rounds for reads put the next heartbeat off, but not
    /// this: they may come for ever.
    check_due: Instant,
    /// When followers that wait for nothing are told what is committed, if no entries have told them by then.
    commit_due: Option<Instant>,
    /// Reads that wait.
    pub(super) barrier: Barrier<Waiter>,
    /// Proposals that are not committed.
    batches: VecDeque<Batch>,
    /// Their encoded size in bytes.
    pub(super) uncommitted_size: usize,
    /// A hand-over.
    pub(super) transfer: Option<Transfer>,
    /// Whether it has tried to hand over because it is to leave.
    pub(super) has_tried_to_leave: bool,
}

/// How many rounds are remembered: at 100 µs a round, the time of an election.
const ROUNDS_MAX: usize = 10_000;

/// How long a leader waits for a peer to say that it installed a delivered snapshot before it probes, in election
/// timeouts. A peer that is still installing does not answer probes, so a short wait repeats no transfer.
const INSTALL_PATIENCE: u32 = 3;

/// How long entries sent by bulk may go without an acknowledgement before they are taken for lost, in election timeouts.
/// Heartbeats overtake them, so nothing is known sooner; and one message may take a slow link this long.
const BULK_PATIENCE: u32 = 3;

impl Leader {
    pub(super) fn next_deadline(&self) -> Instant {
        let due = self.heartbeat_due.min(self.check_due);
        self.commit_due.map_or(due, |commit| commit.min(due))
    }

    /// Whether what is committed holds all that earlier leaders committed.
    pub(super) fn can_read(&self, committed: Index) -> bool {
        committed >= self.first || Mistake::ReadBeforeNoop.is_made()
    }

    /// Somebody at `peer` waits until everything up to `index` is applied there.
    pub(super) fn awaits(&mut self, peer: NodeId, index: Index) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.awaited = peer.awaited.max(index);
        }
    }

    pub(super) fn on_link(&mut self, peer: NodeId, up: bool) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.link_down = !up;
            match peer.progress.state {
                ProgressState::Replicate => peer.progress.probe(peer.progress.matched),
                // Where nothing was acknowledged yet, starting over would mean the whole log.
                ProgressState::Probe { .. } => peer.progress.repeat_probe(),
                ProgressState::Snapshot { .. } => {}
            }
        }
    }

    /// When `round` was sent, if it is remembered.
    fn sent_at(&self, round: u64) -> Option<Instant> {
        let back = usize::try_from(self.round.checked_sub(round)?).ok()?;
        let at = self.rounds.len().checked_sub(back + 1)?;
        self.rounds.get(at).copied()
    }

    /// Begins the next round.
    fn begin_round(&mut self, now: Instant, interval: Duration) {
        self.round += 1;
        self.rounds.push_back(now);
        if self.rounds.len() > ROUNDS_MAX {
            self.rounds.pop_front();
        }
        self.heartbeat_due = now + interval;
    }

    /// Remembers proposals just appended.
    pub(super) fn took(&mut self, last: Index, size: usize, taken: Instant) {
        self.batches.push_back(Batch { last, size, taken });
        self.uncommitted_size += size;
    }
}

impl Raft {
    pub(super) fn become_leader(&mut self) {
        let epoch = self.own_epoch();
        assert!(
            self.hard.voted_for == Some(self.node()),
            "{epoch} is led without the own vote: {}",
            self.hard
        );
        let last = self.tail.last();
        let peers = self.membership.peers(self.node());
        let leader = Leader {
            first: last.next(),
            peers: peers.into_iter().map(|peer| (peer, self.new_peer(peer, last))).collect(),
            round: 0,
            rounds: VecDeque::new(),
            heartbeat_due: self.now,
            check_due: self.now,
            commit_due: None,
            barrier: Barrier::new(),
            batches: VecDeque::new(),
            uncommitted_size: 0,
            transfer: None,
            has_tried_to_leave: false,
        };
        self.election_due = None;
        self.term_leader = Some(self.node());
        self.change_role(Role::Leader(Box::new(leader)));
        self.set_leader(Some(self.node()));
        self.append(epoch, Entry::noop(epoch));
    }

    /// What is known of a peer of which nothing is known; its log is first compared after `last`.
    fn new_peer(&self, peer: NodeId, last: Index) -> Peer {
        Peer {
            progress: Progress::new(last),
            answered: 0,
            followed: self.now,
            told: Index::ZERO,
            awaited: Index::ZERO,
            fetch: None,
            catch_up: None,
            digest: None,
            snapshot_from: Index::ZERO,
            link_down: self.contacts.get(&peer).is_some_and(|contact| contact.link == Some(false)),
        }
    }

    /// Leads those who are members now: newcomers from here on, those who left no more.
    pub(super) fn lead_members(&mut self, last: Index) {
        let members = self.membership.peers(self.node());
        let Role::Leader(leader) = &self.role else { return };
        let known = |id: &NodeId| leader.peers.contains_key(id);
        let newcomers: Vec<(NodeId, Peer)> = members
            .iter()
            .filter(|id| !known(id))
            .map(|id| (*id, self.new_peer(*id, last)))
            .collect();
        let Role::Leader(leader) = &mut self.role else { return };
        leader.peers.retain(|id, _| members.contains(id));
        leader.peers.extend(newcomers);
        if leader.transfer.is_some_and(|transfer| !leader.peers.contains_key(&transfer.to)) {
            leader.transfer = None;
        }
    }

    /// Whether `peer` has followed lately.
    pub(super) fn has_followed(&self, peer: NodeId) -> bool {
        let timeout = self.options.timing.election_timeout_max;
        let Role::Leader(leader) = &self.role else { return false };
        let known = leader.peers.get(&peer);
        peer == self.node() || known.is_some_and(|peer| self.now.since(peer.followed) <= timeout)
    }

    /// Stops leading; everybody who waits is told.
    pub(super) fn step_down(&mut self, reason: StepDownReason) {
        let epoch = self.own_epoch();
        let Role::Leader(leader) = &mut self.role else { return };
        let waiters = leader.barrier.abandon();
        self.event(Event::SteppedDown { epoch, reason });
        self.become_follower();
        self.set_leader(None);
        for waiter in waiters {
            self.fail_reader(waiter, RefuseReason::NotLeader);
        }
    }

    pub(super) fn on_leader_time(&mut self) {
        let timeout = self.options.timing.election_timeout_max;
        let interval = self.options.timing.heartbeat_interval;
        let is_stalled = self.is_stalled();
        let Role::Leader(leader) = &mut self.role else { return };
        if leader.transfer.is_some_and(|transfer| transfer.due <= self.now) {
            leader.transfer = None;
        }
        if leader.check_due > self.now {
            return;
        }
        leader.check_due = self.now + interval;
        let (now, node) = (self.now, self.options.node);
        let follows = |peer: NodeId| {
            peer == node
                || leader.peers.get(&peer).is_some_and(|peer| now.since(peer.followed) <= timeout)
        };
        if !self.membership.quorum().is_quorum(follows) {
            return self.step_down(StepDownReason::NoQuorum);
        }
        if is_stalled {
            self.hand_over_to_anybody();
            return self.step_down(StepDownReason::Stalled);
        }
        for peer in leader.peers.values_mut() {
            peer.progress.repeat_probe();
            if let ProgressState::Snapshot { delivered: Some((_, since)) } = peer.progress.state
                && now.since(since) > timeout * INSTALL_PATIENCE
            {
                peer.progress.probe(peer.progress.matched);
            }
            if peer.progress.in_flight_size() > 0
                && peer.catch_up.is_some_and(|since| now.since(since) > timeout * BULK_PATIENCE)
            {
                peer.progress.probe(peer.progress.matched);
            }
        }
    }

    /// Whether the disk has not completed a write for so long that somebody else should lead.
    pub(super) fn is_stalled(&self) -> bool {
        // Half an election timeout is left for the next leader to be elected within two.
        let limit = self.options.timing.election_timeout_max * 3 / 2;
        let is_late = |asked| self.now.since(asked) > limit;
        self.writes.oldest().is_some_and(is_late) && !Mistake::StallIgnored.is_made()
    }

    /// Tells the follower with the most entries to campaign.
    pub(super) fn hand_over_to_anybody(&mut self) {
        let epoch = self.own_epoch();
        let Role::Leader(leader) = &self.role else { return };
        let configuration = self.membership.latest();
        let best = leader
            .peers
            .iter()
            .filter(|(id, peer)| configuration.is_voter(**id) && !peer.link_down)
            .max_by_key(|(_, peer)| (peer.progress.matched, peer.followed));
        if let Some((id, _)) = best {
            let id = *id;
            self.send(id, Message::TimeoutNow { epoch }, None);
        }
    }

    pub(super) fn on_transfer(&mut self, to: NodeId) {
        let timeout = self.options.timing.election_timeout_max;
        let is_voter = self.membership.latest().is_voter(to);
        let Role::Leader(leader) = &mut self.role else { return };
        if is_voter && leader.peers.contains_key(&to) {
            leader.transfer = Some(Transfer { to, due: self.now + timeout, told: false });
        }
    }

    /// Hands over to the best of the incoming voters, once: as long as they know this leader, that takes no election
    /// timeout. False when there is nobody, or it was tried before.
    pub(super) fn try_to_leave(&mut self) -> bool {
        let due = self.now + self.options.timing.election_timeout_max;
        let configuration = self.membership.latest();
        let stays = |id: &NodeId| configuration.members.get(id).is_some_and(|member| member.voter);
        let Role::Leader(leader) = &mut self.role else { return false };
        let candidates = leader.peers.iter().filter(|(id, peer)| stays(id) && !peer.link_down);
        let best = candidates.max_by_key(|(_, peer)| (peer.progress.matched, peer.followed));
        let Some((to, _)) = best.filter(|_| !leader.has_tried_to_leave) else { return false };
        leader.has_tried_to_leave = true;
        leader.transfer = Some(Transfer { to: *to, due, told: false });
        true
    }

    pub(super) fn on_append_reply(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        outcome: AppendOutcome,
        digest: Option<(Index, Digest)>,
    ) {
        let (own, last, now) = (self.own_epoch(), self.tail.last(), self.now);
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else {
            return self.event(Event::Dropped { from, reason: crate::DropReason::NotMember });
        };
        if epoch != own && !Mistake::StaleAckCounted.is_made() {
            self.metrics.stale_count += 1;
            return;
        }
        match outcome {
            AppendOutcome::Matched(index) if index > last => {
                self.drop_message(from, format!("it matched {index}, the last index is {last}"));
            }
            AppendOutcome::Matched(index) => {
                if index > peer.progress.matched && peer.catch_up.is_some() {
                    peer.catch_up = Some(now);
                }
                if Mistake::MatchRegress.is_made() {
                    peer.progress.matched = index;
                }
                if let Some(age) = peer.progress.acknowledged(index, now) {
                    self.metrics.log_replication_latency.entry(from).or_default().observe(age);
                }
            }
            AppendOutcome::Rejected { previous, hint, lost } => {
                let matched = peer.progress.matched;
                let fresh = match peer.progress.state {
                    ProgressState::Probe { .. } => previous == peer.progress.next.previous(),
                    ProgressState::Replicate => previous > matched,
                    ProgressState::Snapshot { .. } => false,
                };
                if lost && hint.index < matched {
                    peer.progress.lost(hint.index);
                } else if fresh {
                    let agreed = self.tail.floor(hint).min(previous.previous());
                    peer.progress.probe(agreed);
                }
            }
        }
        if let Some(digest) = digest {
            self.on_peer_digest(from, digest);
        }
    }

    pub(super) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        epoch: Epoch,
        round: u64,
        sent: Index,
        received: Index,
    ) {
        let (own, now, last) = (self.own_epoch(), self.now, self.tail.last());
        let Role::Leader(leader) = &mut self.role else { return };
        if epoch != own || received > last || round > leader.round {
            return;
        }
        let sent_at = leader.sent_at(round);
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        if round > peer.answered {
            peer.answered = round;
            if let Some(sent_at) = sent_at {
                peer.followed = peer.followed.max(sent_at);
                let trip = now.since(sent_at);
                self.metrics.network_round_trips.entry(from).or_default().observe(trip);
            }
        }
        match peer.progress.state {
            // What was sent before this heartbeat has not arrived: it was lost.
            ProgressState::Replicate if received < sent => peer.progress.probe(received),
            // The peer holds more than is being offered to it.
            ProgressState::Probe { .. } | ProgressState::Replicate
                if received >= peer.progress.next =>
            {
                peer.progress.probe(received);
            }
            ProgressState::Snapshot { delivered: Some((position, _)) }
                if received >= position.index =>
            {
                peer.progress.probe(received);
            }
            ProgressState::Probe { .. }
            | ProgressState::Replicate
            | ProgressState::Snapshot { .. } => {}
        }
        self.maybe_end_read_round();
    }

    /// Counts what a quorum holds durably; entries of earlier terms are committed only together with one of the
    /// own term (thesis 3.6.2).
    pub(super) fn advance_commit(&mut self) {
        let (node, mut held) = (self.node(), self.held());
        if Mistake::OwnUndurableCounted.is_made() {
            held = self.tail.last();
        }
        let Role::Leader(leader) = &mut self.role else { return };
        let holds = |id: NodeId| match leader.peers.get(&id) {
            Some(peer) => peer.progress.matched,
            None if id == node => held,
            None => Index::ZERO,
        };
        let index = self.membership.quorum().highest(holds).min(self.tail.last());
        let is_older = index < leader.first && !Mistake::OldTermCommit.is_made();
        if index <= self.committed || is_older {
            return;
        }
        while leader.batches.front().is_some_and(|batch| batch.last <= index) {
            let batch = leader.batches.pop_front().expect("was just seen");
            leader.uncommitted_size -= batch.size;
            self.metrics.commit_latency.observe(self.now.since(batch.taken));
        }
        self.advance_committed_to(index);
    }

    /// What a leader says in this wake-up: a round of heartbeats if one is due or reads wait for one, entries
    /// and commit indexes to everybody who can take them, and the last word of a hand-over.
    pub(super) fn form_replication(&mut self) {
        let interval = self.options.timing.heartbeat_interval;
        let committed = self.committed;
        let Role::Leader(leader) = &mut self.role else { return };
        let can_read = leader.can_read(committed) && leader.barrier.wants_round();
        if can_read || leader.heartbeat_due <= self.now {
            leader.begin_round(self.now, interval);
            if can_read {
                leader.barrier.begin(leader.round, committed);
            }
            self.send_heartbeats();
            self.maybe_end_read_round();
        }
        let Role::Leader(leader) = &self.role else { return };
        let is_due = leader.commit_due.is_some_and(|due| due <= self.now);
        for id in leader.peers.keys().copied().collect::<Vec<_>>() {
            self.replicate_to(id, is_due);
        }
        self.schedule_commit(is_due);
        self.maybe_hand_over();
    }

    /// Sets when followers are told of what they were not told in this wake-up.
    fn schedule_commit(&mut self, is_due: bool) {
        let delay = self.options.timing.commit_delay;
        if delay.is_zero() {
            // Every wake-up tells whom it can.
            return;
        }
        let (committed, next) = (self.committed, self.now + delay);
        let Role::Leader(leader) = &mut self.role else { return };
        let is_untold = |peer: &Peer| {
            peer.progress.state == ProgressState::Replicate
                && committed.min(peer.progress.matched) > peer.told
        };
        leader.commit_due = match leader.commit_due {
            _ if !leader.peers.values().any(is_untold) => None,
            Some(due) if !is_due => Some(due),
            Some(_) | None => Some(next),
        };
    }

    fn send_heartbeats(&mut self) {
        let epoch = self.own_epoch();
        let Role::Leader(leader) = &mut self.role else { return };
        for (id, peer) in &mut leader.peers {
            // What goes by bulk is overtaken by this, and would be taken for lost.
            let sent = match peer.catch_up {
                Some(_) => peer.progress.matched,
                None => peer.progress.next.previous(),
            };
            let committed = self.committed.min(peer.progress.matched);
            peer.told = peer.told.max(committed);
            let message = Message::Heartbeat { epoch, round: leader.round, committed, sent };
            self.replies.push((*id, message, None));
        }
    }

    /// Sends a peer the entries that it lacks and has room for; what is committed also alone if `tell_commit` or if
    /// somebody there waits for it.
    fn replicate_to(&mut self, to: NodeId, tell_commit: bool) {
        let limits = self.options.limits;
        let tell_commit = tell_commit || self.options.timing.commit_delay.is_zero();
        let epoch = self.own_epoch();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&to) else { return };
        loop {
            let probing = match peer.progress.state {
                ProgressState::Snapshot { .. } | ProgressState::Probe { paused: true, .. } => {
                    return;
                }
                ProgressState::Probe { paused: false, repeated } => Some(repeated),
                ProgressState::Replicate => None,
            };
            let next = peer.progress.next;
            // A damaged slot of a leader is safe in its engine, so a snapshot holds what the slot cannot give. Of one that is
            // damaged beyond knowledge the position is only guessed, and no follower may compare with that.
            let is_lost = self.damage.has_fault(next) || self.damage.is_unknown(next.previous());
            if next <= self.tail.purged().index || is_lost {
                peer.progress.begin_snapshot();
                peer.snapshot_from = self.applied;
                self.outbox.push_back(Effect::Event(Event::SnapshotNeeded { peer: to }));
                let send = SnapshotEffect::Send { to, epoch };
                self.outbox.push_back(Effect::Snapshot(send));
                return;
            }
            let bare = probing == Some(true) || peer.link_down;
            let room = match Mistake::WindowIgnored.is_made() {
                true => usize::MAX,
                false => peer.progress.room(limits.window_size_max),
            };
            let is_idle = peer.progress.in_flight_size() == 0;
            let is_old = next < self.tail.first_cached();
            // The two ways keep no order between them: one is changed for the other when nothing is on its way.
            if is_old && !bare && peer.catch_up.is_none() {
                if !is_idle {
                    return;
                }
                peer.catch_up = Some(self.now);
            } else if is_idle && next > self.tail.last() {
                peer.catch_up = None;
            }
            let (entries, size) = if bare || room == 0 || next > self.tail.last() {
                (Vec::new(), 0)
            } else if is_old {
                if peer.fetch.is_some() {
                    return;
                }
                let id = FetchId(self.next_fetch);
                self.next_fetch += 1;
                peer.fetch = Some((id, next));
                let (last, budget) = (self.tail.last(), limits.append_size_max);
                self.outbox.push_back(Effect::Fetch { id, first: next, last, budget });
                return;
            } else {
                self.tail.entries(next, limits.append_size_max.min(room))
            };
            if entries.is_empty() && probing.is_none() {
                let committed = self.committed.min(peer.progress.matched);
                if committed > peer.told && (tell_commit || peer.awaited > peer.told) {
                    peer.told = committed;
                    self.replies.push((to, Message::Commit { epoch, committed }, None));
                }
                return;
            }
            let is_the_rest = next.0 + entries.len() as u64 > self.tail.last().0;
            if peer.catch_up.is_some() && is_the_rest && !bare {
                if !is_idle {
                    return;
                }
                peer.catch_up = None;
            }
            let epoch_before =
                self.tail.epoch_at(next.previous()).expect("next is above what is purged");
            let previous = Position::new(next.previous(), epoch_before);
            let message =
                append_message(peer, epoch, previous, self.committed, entries, size, self.now);
            if peer.catch_up.is_some() && !bare {
                if is_idle {
                    peer.catch_up = Some(self.now);
                }
                self.bulk.push((to, message));
            } else {
                self.replies.push((to, message, None));
            }
        }
    }

    /// Slots that were read for a peer are sent to it at once.
    pub(super) fn on_fetched(&mut self, id: FetchId, slots: Vec<Slot>) {
        if self.on_fetched_for_repair(id, &slots) {
            return;
        }
        let epoch = self.own_epoch();
        let Role::Leader(leader) = &mut self.role else { return };
        let asked = leader.peers.iter_mut().find_map(|(to, peer)| {
            let (_, asked) = peer.fetch.take_if(|(fetch, _)| *fetch == id)?;
            Some((*to, peer, asked))
        });
        let Some((to, peer, asked)) = asked else { return };
        let next = peer.progress.next;
        let waits = matches!(
            peer.progress.state,
            ProgressState::Replicate | ProgressState::Probe { paused: false, .. }
        );
        let Some(first) = slots.first() else {
            // Where the peer stands by now says nothing about what could not be read then.
            return self.on_damaged(quorate_types::SlotFault::DamagedUnknown(asked));
        };
        let own = |slot: &Slot| self.tail.epoch_at(slot.index) == Some(slot.entry.created());
        if !waits || first.index != next || !slots.iter().all(own) {
            return;
        }
        let Some(epoch_before) = self.tail.epoch_at(next.previous()) else { return };
        let previous = Position::new(next.previous(), epoch_before);
        let size = slots.iter().map(|slot| slot.entry.encoded_size()).sum();
        let entries = slots.into_iter().map(|slot| slot.entry).collect();
        if peer.progress.in_flight_size() == 0 {
            peer.catch_up = Some(self.now);
        }
        let message =
            append_message(peer, epoch, previous, self.committed, entries, size, self.now);
        self.bulk.push((to, message));
    }

    /// Tells the receiver of a hand-over to campaign, once it has the whole log.
    fn maybe_hand_over(&mut self) {
        let (epoch, last) = (self.own_epoch(), self.tail.last());
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(transfer) = &mut leader.transfer else { return };
        let Some(peer) = leader.peers.get(&transfer.to) else { return };
        if !transfer.told && peer.progress.matched == last {
            transfer.told = true;
            self.replies.push((transfer.to, Message::TimeoutNow { epoch }, None));
        }
    }
}

/// The next append for a peer, already counted in its progress.
fn append_message(
    peer: &mut Peer,
    epoch: Epoch,
    previous: Position,
    committed: Index,
    entries: Vec<Entry>,
    size: usize,
    now: Instant,
) -> Message {
    let last = Index(previous.index.0 + entries.len() as u64);
    peer.told = peer.told.max(committed.min(last));
    peer.progress.sent(last, size, now);
    Message::Append { epoch, previous, committed, entries }
}
