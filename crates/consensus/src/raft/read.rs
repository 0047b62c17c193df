//! Linearizable reads on every node without a log entry and without a clock (thesis 6.4).
//!
//! A leader that has committed an entry of its own term takes its commit index, lets one round of heartbeats prove
//! that it still led after the reads came in, and answers. A follower sends one request for all reads that wait,
//! and gathers the next batch while it is out.
//!
//! Such a request is sent after its reads came in, and says in which epoch: its sender had promised no later one by then,
//! nor has the leader when it takes the request in. Where these two are a quorum, as among three voters, no later leader
//! can have committed anything before the reads came in, which is all that a round would prove. So the leader answers
//! at once.

use super::message::Message;
use super::replica::{Raft, Role};
use crate::{Effect, ReadId, RefuseReason};
use quorate_types::{Epoch, Index, Instant, Mistake, NodeId};

/// Who waits for a round of the leader.
#[derive(Clone, Copy, Debug)]
pub(super) enum Waiter {
    /// A read of this node.
    Own(ReadId),
    /// A batch of reads of another node.
    Remote {
        /// Which node.
        node: NodeId,
        /// Which of its batches.
        context: u64,
    },
}

/// A batch of reads that was sent to the leader.
#[derive(Clone, Debug)]
struct Request {
    /// Which batch.
    context: u64,
    /// Who waits for it.
    reads: Vec<ReadId>,
    /// When it is sent again.
    due: Instant,
}

/// The reads of a node that does not lead.
#[derive(Clone, Debug)]
pub(super) struct FollowerReads {
    /// Came in since the last request.
    gathering: Vec<ReadId>,
    /// The request that is out.
    request: Option<Request>,
    /// The next context. Begins at random, so that answers to an earlier run of the process never fit.
    next_context: u64,
}

impl FollowerReads {
    pub(super) fn new(context: u64) -> FollowerReads {
        FollowerReads { gathering: Vec::new(), request: None, next_context: context }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.request.as_ref().map(|request| request.due)
    }
}

impl Raft {
    pub(super) fn on_read(&mut self, id: ReadId) {
        match &mut self.role {
            Role::Leader(leader) => leader.barrier.wait(Waiter::Own(id)),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                if self.leader.is_some() {
                    self.reads.gathering.push(id);
                } else {
                    let reason = self.why_no_leader();
                    self.outbox.push_back(Effect::ReadFailed { id, reason });
                }
            }
        }
    }

    /// Sends the gathered reads to the leader, if no request is out.
    pub(super) fn form_reads(&mut self) {
        if self.reads.request.is_some() || self.reads.gathering.is_empty() {
            return;
        }
        let Some(leader) = self.leader else { return self.abandon_reads() };
        let context = self.reads.next_context;
        self.reads.next_context = context.wrapping_add(1);
        let reads = std::mem::take(&mut self.reads.gathering);
        let due = self.now + self.options.timing.heartbeat_interval;
        self.reads.request = Some(Request { context, reads, due });
        let epoch = Epoch::new(self.term(), leader);
        self.send(leader, Message::Read { epoch, context }, None);
    }

    /// A request without an answer is sent again. An answer to either sending is good: both were sent after the
    /// reads came in.
    pub(super) fn maybe_repeat_read(&mut self) {
        let again = self.now + self.options.timing.heartbeat_interval;
        let Some(request) = &mut self.reads.request else { return };
        if request.due > self.now {
            return;
        }
        request.due = again;
        let context = request.context;
        if let Some(leader) = self.leader {
            let epoch = Epoch::new(self.term(), leader);
            self.send(leader, Message::Read { epoch, context }, None);
        }
    }

    /// The leader changed: whoever waits is told to ask again.
    pub(super) fn abandon_reads(&mut self) {
        let mut reads = std::mem::take(&mut self.reads.gathering);
        if let Some(request) = self.reads.request.take() {
            reads.extend(request.reads);
        }
        for id in reads {
            let reason = RefuseReason::NoLeader;
            self.outbox.push_back(Effect::ReadFailed { id, reason });
        }
    }

    pub(super) fn on_read_request(&mut self, from: NodeId, epoch: Epoch, context: u64) {
        let (is_vouched, index) = (self.is_vouched_by(from, epoch), self.committed);
        let waiter = Waiter::Remote { node: from, context };
        match &mut self.role {
            Role::Leader(leader) if is_vouched && leader.can_read(index) => {
                self.answer_reader(waiter, index);
            }
            Role::Leader(leader) => leader.barrier.wait(waiter),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => {
                self.fail_reader(waiter, RefuseReason::NotLeader);
            }
        }
    }

    /// Whether a request for reads stands for a round: its sender and this leader are a quorum, and it was sent in the
    /// present epoch.
    fn is_vouched_by(&self, from: NodeId, epoch: Epoch) -> bool {
        let own = self.own_epoch();
        let is_quorum = self.membership.quorum().is_quorum(|id| id == own.owner || id == from);
        epoch == own && (is_quorum || Mistake::ReadWithoutRound.is_made())
    }

    pub(super) fn on_read_reply(&mut self, context: u64, index: Option<Index>) {
        if self.reads.request.as_ref().is_none_or(|request| request.context != context) {
            return;
        }
        let request = self.reads.request.take().expect("was just seen");
        for id in request.reads {
            self.outbox.push_back(match index {
                Some(index) => Effect::ReadReady { id, index },
                None => Effect::ReadFailed { id, reason: RefuseReason::NotLeader },
            });
        }
    }

    /// Answers the reads of the round that is out, if a quorum has answered it or a later one.
    pub(super) fn maybe_end_read_round(&mut self) {
        let node = self.node();
        let quorum = self.membership.quorum();
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(round) = leader.barrier.outstanding_round() else { return };
        let answered = |id: NodeId| {
            id == node || leader.peers.get(&id).is_some_and(|peer| peer.answered >= round)
        };
        if !quorum.is_quorum(answered) && !Mistake::ReadWithoutRound.is_made() {
            return;
        }
        let (index, waiters) = leader.barrier.end().expect("a round is out");
        self.metrics.read_rounds += 1;
        for waiter in waiters {
            self.answer_reader(waiter, index);
        }
    }

    /// Tells somebody who waits from which index on the state may be read.
    fn answer_reader(&mut self, waiter: Waiter, index: Index) {
        match waiter {
            Waiter::Own(id) => self.outbox.push_back(Effect::ReadReady { id, index }),
            Waiter::Remote { node, context } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.awaits(node, index);
                }
                let epoch = self.own_epoch();
                self.send(node, Message::ReadReply { epoch, context, index: Some(index) }, None);
            }
        }
    }

    /// Tells somebody who waits that the barrier was not reached.
    pub(super) fn fail_reader(&mut self, waiter: Waiter, reason: RefuseReason) {
        match waiter {
            Waiter::Own(id) => self.outbox.push_back(Effect::ReadFailed { id, reason }),
            Waiter::Remote { node, context } => {
                let epoch = self.hard.promised;
                self.send(node, Message::ReadReply { epoch, context, index: None }, None);
            }
        }
    }
}
