//! Clients of this node that wait: their proposals, their reads, their deadlines.
//!
//! A proposal gets an origin when it comes in and keeps it however often it is sent, so that sending it again never
//! applies it twice. How it ends:
//! ```text
//! applied here                    the state machine's reply answers
//! deadline                        Unknown if any sending of it may be in a log, else Refused
//! refused by the protocol         Refused if that was its only sending and trying again would not help
//! ```
//! A proposal that was sent more than once is never answered Refused: a refusal does not say which sending it is of.

use crate::agenda::Agenda;
use crate::interface::{Answer, RequestId};
use bytes::{Bytes, BytesMut};
use quorate_consensus::{Proposal, ReadId, RefuseReason};
use quorate_types::{
    BODY_SIZE_MAX, EntryKind, Fate, Incarnation, Index, Instant, NodeId, ORIGIN_WINDOW, Origin,
    SequenceMap, StartNumber, TransactionId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The most bytes of undecided proposals of this node's clients: what a leader takes in as well.
const WAITING_SIZE_MAX: usize = 64 * 1024 * 1024;

/// The most reads that wait.
const READS_MAX: usize = 65_536;

/// How many bits of a sequence count within one start.
const SEQUENCE_BITS: u32 = 40;

/// Above how many sequences to be sent those that nobody waits for any more are dropped.
const UNSENT_MAX: usize = 2 * ORIGIN_WINDOW as usize;

/// How long to wait before sending again what was refused because of a passing condition.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A proposal that is not decided yet.
#[derive(Clone, Debug)]
struct Waiting {
    /// Who waits.
    request: RequestId,
    /// What the body means.
    kind: EntryKind,
    /// What it says.
    body: Bytes,
    /// When the client stops waiting.
    deadline: Instant,
    /// How often it was sent.
    sending_count: u32,
    /// Whether some sending of it may be in a log.
    in_doubt: bool,
    /// Why it was refused last.
    refused: Option<RefuseReason>,
    /// When to send it again if nothing is heard.
    resend_at: Option<Instant>,
    /// How many sendings nothing was heard of, one after the other, by the present leader; the wait doubles with each.
    silence_count: u32,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The apply of the proposal of this sequence.
    Proposal(u64),
    /// A read barrier, until then.
    Barrier(Instant),
    /// The apply of this index.
    Index(Index, Instant),
}

/// Reads that share one barrier.
#[derive(Clone, Debug)]
struct Round {
    /// Who waits.
    requests: Vec<RequestId>,
    /// When to ask again if nothing is heard.
    resend_at: Instant,
}

/// An answer on its way out.
pub(crate) type Answered = (RequestId, Answer);

/// Everybody who waits in one group.
///
/// # Invariants
/// 1. Undecided sequences span less than [`ORIGIN_WINDOW`].
/// 2. Every request of `waits` stands in `deadlines`, and every proposal with a time to be sent again in `resends`.
///
/// There are up to a million proposals a second, so nothing here searches a tree for each of them.
#[derive(Debug)]
pub(crate) struct Waiters {
    /// This node.
    node: NodeId,
    /// Its data folder.
    incarnation: Incarnation,
    /// The next sequence.
    next_sequence: u64,
    /// How long to wait for a sign of life before sending again.
    resend_after: Duration,
    /// Undecided proposals by sequence.
    proposals: SequenceMap<Waiting>,
    /// Their bytes.
    waiting_size: usize,
    /// What each request waits for, by its number.
    waits: SequenceMap<Wait>,
    /// When each gives up, by its number.
    deadlines: Agenda,
    /// Sequences to be sent, in any order; some perhaps twice, or decided meanwhile.
    unsent: Vec<u64>,
    /// When those of `unsent` that were refused may go again; `None` when at once.
    unsent_pause: Option<Instant>,
    /// When each sent proposal goes again, by sequence.
    resends: Agenda,
    /// Reads to be asked for.
    unasked: Vec<RequestId>,
    /// When they may be asked for; `None` when at once.
    unasked_pause: Option<Instant>,
    /// Barriers asked for.
    rounds: BTreeMap<ReadId, Round>,
    /// The next barrier.
    next_read: u64,
    /// Reads that wait for an index to be applied.
    by_index: BTreeSet<(Index, RequestId)>,
}

impl Waiters {
    /// Nobody waits yet. The start number must be durable before this is used.
    pub(crate) fn new(
        node: NodeId,
        incarnation: Incarnation,
        start: StartNumber,
        resend_after: Duration,
    ) -> Waiters {
        Waiters {
            node,
            incarnation,
            next_sequence: (start.0 << SEQUENCE_BITS) + 1,
            resend_after,
            proposals: SequenceMap::default(),
            waiting_size: 0,
            waits: SequenceMap::default(),
            deadlines: Agenda::default(),
            unsent: Vec::new(),
            unsent_pause: None,
            resends: Agenda::default(),
            unasked: Vec::new(),
            unasked_pause: None,
            rounds: BTreeMap::new(),
            next_read: 1,
            by_index: BTreeSet::new(),
        }
    }

    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.waits.len()
    }

    /// Whether a read waits for an index to be applied.
    pub(crate) fn awaits_apply(&self) -> bool {
        !self.by_index.is_empty()
    }

    /// A client proposes. The error is why it is refused at once.
    pub(crate) fn propose(
        &mut self,
        request: RequestId,
        kind: EntryKind,
        body: Bytes,
        deadline: Instant,
    ) -> Result<(), RefuseReason> {
        if body.len() > BODY_SIZE_MAX {
            return Err(RefuseReason::TooLarge);
        }
        let oldest = self.proposals.first_key().unwrap_or(self.next_sequence);
        let is_known = self.waits.get(request.0).is_some();
        if is_known
            || self.next_sequence - oldest >= ORIGIN_WINDOW
            || self.waiting_size + body.len() > WAITING_SIZE_MAX
        {
            return Err(RefuseReason::Busy);
        }
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.waiting_size += body.len();
        self.waits.insert(request.0, Wait::Proposal(sequence));
        self.deadlines.add(deadline, request.0);
        let waiting = Waiting {
            request,
            kind,
            body,
            deadline,
            sending_count: 0,
            in_doubt: false,
            refused: None,
            resend_at: None,
            silence_count: 0,
        };
        self.proposals.insert(sequence, waiting);
        self.send_later(sequence);
        Ok(())
    }

    /// A client wants to read. The error is why it is refused at once.
    pub(crate) fn read(
        &mut self,
        request: RequestId,
        deadline: Instant,
    ) -> Result<(), RefuseReason> {
        let read_count = self.waits.len() - self.proposals.len();
        if read_count >= READS_MAX || self.waits.get(request.0).is_some() {
            return Err(RefuseReason::Busy);
        }
        self.waits.insert(request.0, Wait::Barrier(deadline));
        self.deadlines.add(deadline, request.0);
        self.unasked.push(request);
        Ok(())
    }

    /// A proposal is sent with the next ones.
    fn send_later(&mut self, sequence: u64) {
        if self.unsent.len() >= UNSENT_MAX {
            self.unsent.sort_unstable();
            self.unsent.dedup();
            self.unsent.retain(|sequence| self.proposals.get(*sequence).is_some());
        }
        self.unsent.push(sequence);
    }

    /// What to propose now, in order of sequence.
    pub(crate) fn take_proposals(&mut self, now: Instant) -> Vec<Proposal> {
        if self.unsent.is_empty() || self.unsent_pause.is_some_and(|until| until > now) {
            return Vec::new();
        }
        self.unsent_pause = None;
        let mut proposals = Vec::with_capacity(self.unsent.len());
        self.unsent.sort_unstable();
        self.unsent.dedup();
        for sequence in self.unsent.drain(..) {
            let origin = Origin { node: self.node, incarnation: self.incarnation, sequence };
            let Some(waiting) = self.proposals.get_mut(sequence) else { continue };
            if let Some(at) = waiting.resend_at {
                self.resends.remove(at);
            }
            let pause = self.resend_after * (1 << waiting.silence_count.min(5));
            waiting.sending_count = waiting.sending_count.saturating_add(1);
            waiting.in_doubt = true;
            waiting.resend_at = Some(now + pause);
            self.resends.add(now + pause, sequence);
            proposals.push(Proposal {
                origin,
                kind: waiting.kind,
                transaction: TransactionId(0),
                body: waiting.body.clone(),
            });
        }
        proposals
    }

    /// The barrier to ask for now, for all reads that came since the last.
    pub(crate) fn take_read(&mut self, now: Instant) -> Option<ReadId> {
        if self.unasked.is_empty() || self.unasked_pause.is_some_and(|until| until > now) {
            return None;
        }
        self.unasked_pause = None;
        let mut requests = std::mem::take(&mut self.unasked);
        requests.retain(|request| matches!(self.waits.get(request.0), Some(Wait::Barrier(_))));
        if requests.is_empty() {
            return None;
        }
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.rounds.insert(id, Round { requests, resend_at: now + self.resend_after });
        Some(id)
    }

    /// Everything undecided is to be sent again: another leader is known, or the one that is known can be reached again.
    pub(crate) fn resend_all(&mut self) {
        self.unsent.clear();
        self.unsent.extend(self.proposals.keys());
        for sequence in &self.unsent {
            if let Some(waiting) = self.proposals.get_mut(*sequence) {
                waiting.silence_count = 0;
            }
        }
        self.unsent_pause = None;
        for round in std::mem::take(&mut self.rounds).into_values() {
            self.unasked.extend(round.requests);
        }
        self.unasked_pause = None;
    }

    /// The protocol did not take a sending.
    pub(crate) fn on_refused(
        &mut self,
        now: Instant,
        origin: Origin,
        reason: RefuseReason,
    ) -> Option<Answered> {
        if origin.node != self.node || origin.incarnation != self.incarnation {
            return None;
        }
        let waiting = self.proposals.get_mut(origin.sequence)?;
        waiting.refused = Some(reason);
        waiting.silence_count = 0;
        if waiting.sending_count == 1 {
            waiting.in_doubt = false;
        }
        let is_lasting = match reason {
            RefuseReason::Busy | RefuseReason::TooLarge | RefuseReason::NotReady => true,
            RefuseReason::NoLeader | RefuseReason::NotLeader | RefuseReason::Transferring => false,
        };
        if is_lasting && !waiting.in_doubt {
            let request = waiting.request;
            self.forget(request);
            return Some((request, Answer::Refused { reason, missing: Vec::new() }));
        }
        self.send_later(origin.sequence);
        self.unsent_pause = Some(now + RETRY_INTERVAL);
        None
    }

    /// The request that waits for the apply of this origin.
    pub(crate) fn waiting_for(&self, origin: Origin) -> Option<RequestId> {
        let is_ours = origin.node == self.node && origin.incarnation == self.incarnation;
        let waiting = self.proposals.get(origin.sequence).filter(|_| is_ours)?;
        Some(waiting.request)
    }

    /// Entries were applied for which `requests` waited; to those of `answered` the reply was delivered. The others' origins
    /// had been seen before, in a state that came with a snapshot: applied, but the reply is lost.
    pub(crate) fn on_applied(
        &mut self,
        applied: Index,
        requests: &[RequestId],
        answered: &[RequestId],
        settled: &[(RequestId, Fate)],
    ) -> Vec<Answered> {
        for request in answered {
            self.forget(*request);
        }
        let mut answers = Vec::new();
        for (request, fate) in settled {
            if self.waits.get(request.0).is_some() {
                self.forget(*request);
                answers.push((*request, Answer::Settled(*fate)));
            }
        }
        for request in requests {
            if let Some(Wait::Proposal(sequence)) = self.waits.get(request.0) {
                let origin = Some(self.origin(*sequence));
                self.forget(*request);
                answers.push((*request, Answer::Unknown { origin, missing: Vec::new() }));
            }
        }
        while let Some((index, request)) = self.by_index.first().copied()
            && index <= applied
        {
            self.forget(request);
            answers.push((request, Answer::ReadReady { index }));
        }
        answers
    }

    /// A barrier gave an index; `applied` is how far the state machine is.
    pub(crate) fn on_read_ready(
        &mut self,
        id: ReadId,
        index: Index,
        applied: Index,
    ) -> Vec<Answered> {
        let Some(round) = self.rounds.remove(&id) else { return Vec::new() };
        let mut answers = Vec::new();
        for request in round.requests {
            let waits = self.waits.get(request.0).copied();
            let Some(Wait::Barrier(deadline)) = waits else { continue };
            if index <= applied {
                self.forget(request);
                answers.push((request, Answer::ReadReady { index }));
            } else {
                self.waits.insert(request.0, Wait::Index(index, deadline));
                self.by_index.insert((index, request));
            }
        }
        answers
    }

    /// A barrier was not reached: ask again.
    pub(crate) fn on_read_failed(&mut self, now: Instant, id: ReadId) {
        if let Some(round) = self.rounds.remove(&id) {
            self.unasked.extend(round.requests);
            self.unasked_pause = Some(now + RETRY_INTERVAL);
        }
    }

    /// Time has passed: gives up what is overdue, and sends again what nothing was heard of.
    pub(crate) fn on_time(
        &mut self,
        now: Instant,
        missing: &dyn Fn() -> Vec<String>,
    ) -> Vec<Answered> {
        let mut answers = Vec::new();
        while let Some((deadline, requests)) = self.deadlines.take_due(now) {
            for request in requests.into_iter().map(RequestId) {
                if self.deadline_of(request) == Some(deadline) {
                    answers.push((request, self.give_up(request, missing())));
                }
            }
        }
        while let Some((at, sequences)) = self.resends.take_due(now) {
            for sequence in sequences {
                let Some(waiting) = self.proposals.get_mut(sequence) else { continue };
                if waiting.resend_at.take_if(|of| *of == at).is_some() {
                    waiting.silence_count = waiting.silence_count.saturating_add(1);
                    self.send_later(sequence);
                }
            }
        }
        let overdue: Vec<ReadId> = self
            .rounds
            .iter()
            .filter(|(_, round)| round.resend_at <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in overdue {
            if let Some(round) = self.rounds.remove(&id) {
                self.unasked.extend(round.requests);
            }
        }
        answers
    }

    /// Answers everybody: the node leaves.
    pub(crate) fn give_up_all(&mut self) -> Vec<Answered> {
        let requests: Vec<RequestId> = self.waits.keys().map(RequestId).collect();
        let give_up = |request| (request, self.give_up(request, Vec::new()));
        requests.into_iter().map(give_up).collect()
    }

    fn origin(&self, sequence: u64) -> Origin {
        Origin { node: self.node, incarnation: self.incarnation, sequence }
    }

    /// Whether an origin can be that of a proposal: of this folder's, only what it has given out.
    pub(crate) fn may_exist(&self, origin: Origin) -> bool {
        let is_own = origin.node == self.node && origin.incarnation == self.incarnation;
        !origin.is_none() && (!is_own || origin.sequence < self.next_sequence)
    }

    /// A client wants to know what became of a proposal for certain, which [may exist](Waiters::may_exist). Settling it is a
    /// proposal as well, which may be sent again.
    pub(crate) fn settle(
        &mut self,
        request: RequestId,
        origin: Origin,
        deadline: Instant,
    ) -> Result<(), RefuseReason> {
        assert!(self.may_exist(origin), "{origin} was never given out");
        let mut body = BytesMut::new();
        origin.encode(&mut body);
        self.propose(request, EntryKind::Settle, body.freeze(), deadline)
    }

    /// When a request gives up, if it still waits.
    fn deadline_of(&self, request: RequestId) -> Option<Instant> {
        match self.waits.get(request.0)? {
            Wait::Proposal(sequence) => Some(self.proposals.get(*sequence)?.deadline),
            Wait::Barrier(deadline) | Wait::Index(_, deadline) => Some(*deadline),
        }
    }

    fn give_up(&mut self, request: RequestId, missing: Vec<String>) -> Answer {
        let (refused, origin) = match self.waits.get(request.0) {
            Some(Wait::Proposal(sequence)) => {
                let waiting = self.proposals.get(*sequence).filter(|waiting| !waiting.in_doubt);
                let refused = waiting.map(|it| it.refused.unwrap_or(RefuseReason::NoLeader));
                // Whoever settles a proposal knows its name, and can ask again.
                let is_named = self.proposals.get(*sequence);
                let is_named = is_named.is_some_and(|it| it.kind != EntryKind::Settle);
                (refused, is_named.then(|| self.origin(*sequence)))
            }
            Some(Wait::Barrier(_) | Wait::Index(..)) | None => (None, None),
        };
        self.forget(request);
        match refused {
            Some(reason) => Answer::Refused { reason, missing },
            None => Answer::Unknown { origin, missing },
        }
    }

    fn forget(&mut self, request: RequestId) {
        match self.waits.remove(request.0) {
            Some(Wait::Proposal(sequence)) => {
                let Some(waiting) = self.proposals.remove(sequence) else { return };
                self.waiting_size -= waiting.body.len();
                if let Some(at) = waiting.resend_at {
                    self.resends.remove(at);
                }
                self.deadlines.remove(waiting.deadline);
            }
            Some(Wait::Barrier(deadline)) => self.deadlines.remove(deadline),
            Some(Wait::Index(index, deadline)) => {
                self.by_index.remove(&(index, request));
                self.deadlines.remove(deadline);
            }
            None => {}
        }
    }

    /// When something is due, if nothing else happens. What waits to be sent is due at its time only while there is a
    /// leader to send it to.
    pub(crate) fn next_deadline(&self, has_leader: bool) -> Option<Instant> {
        let deadline = self.deadlines.first();
        let resend = self.resends.first();
        let round = self.rounds.values().map(|round| round.resend_at).min();
        let proposals = self.unsent_pause.filter(|_| has_leader && !self.unsent.is_empty());
        let reads = self.unasked_pause.filter(|_| has_leader && !self.unasked.is_empty());
        [deadline, resend, round, proposals, reads].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
