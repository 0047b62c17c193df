//! What was asked of the log, and how much of it is durable.

use quorate_types::{HardState, Index, Instant, Op, Slot, WriteId};
use std::collections::VecDeque;

/// A write that the log has not completed.
#[derive(Clone, Copy, Debug)]
struct InFlight {
    /// Which.
    id: WriteId,
    /// The lowest index it changes; above every index when it changes none.
    first: Index,
    /// The last index of the log after it.
    last: Index,
    /// When it was asked for.
    asked: Instant,
}

/// The writes of one replica.
///
/// An index says nothing about durability: the slot there may have been overwritten while an older write of the
/// same index was on its way. So completions are counted by write, and a completed write vouches only for what
/// no later write changes.
///
/// # Invariants
/// 1. Write ids rise by one and complete in order.
/// 2. `durable` is below the first index that any unfinished write changes.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    /// The id that the next write will have.
    next: WriteId,
    /// What the next write will hold.
    ops: Vec<Op>,
    /// The hard state that the next write will hold, if it changed.
    hard: Option<HardState>,
    /// The lowest index that `ops` change.
    first: Index,
    /// Writes under way, oldest first.
    in_flight: VecDeque<InFlight>,
    /// Up to here the log in memory is on disk.
    durable: Index,
}

/// Above every index: the write changes no slot.
const NONE: Index = Index(u64::MAX);

impl Writes {
    /// Nothing under way, all up to `durable` on disk.
    pub(crate) fn new(durable: Index) -> Writes {
        Writes {
            next: WriteId(1),
            ops: Vec::new(),
            hard: None,
            first: NONE,
            in_flight: VecDeque::new(),
            durable,
        }
    }

    /// Up to here the log in memory is on disk.
    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// Adds a slot to the next write.
    pub(crate) fn write(&mut self, slot: Slot) {
        self.changes(slot.index);
        self.ops.push(Op::Write(slot));
    }

    /// Adds a truncation to the next write.
    pub(crate) fn truncate(&mut self, from: Index) {
        self.changes(from);
        self.ops.push(Op::Truncate(from));
    }

    /// Puts the hard state into the next write, in place of one that is there already.
    pub(crate) fn hard(&mut self, hard: HardState) {
        self.hard = Some(hard);
    }

    /// Whether the next write holds a hard state.
    pub(crate) fn has_hard(&self) -> bool {
        self.hard.is_some()
    }

    /// Adds a change that concerns no slot above what is durable.
    pub(crate) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Says that all state up to `index` is durable by other means (a snapshot installed), and the log empty
    /// above it.
    pub(crate) fn reset(&mut self, index: Index) {
        // What is under way concerns slots that are gone.
        for write in &mut self.in_flight {
            write.first = NONE;
            write.last = index;
        }
        self.first = index.next();
        self.durable = index;
    }

    fn changes(&mut self, index: Index) {
        self.first = self.first.min(index);
        self.durable = self.durable.min(index.previous());
    }

    /// The next write, if there is anything to write; `last` is the last index of the log after it.
    pub(crate) fn form(&mut self, now: Instant, last: Index) -> Option<(WriteId, Vec<Op>)> {
        if self.ops.is_empty() && self.hard.is_none() {
            return None;
        }
        if let Some(hard) = self.hard.take() {
            self.ops.push(Op::HardState(hard));
        }
        let id = self.next;
        self.next = id.next();
        self.in_flight.push_back(InFlight { id, first: self.first, last, asked: now });
        self.first = NONE;
        // The next write is about as large as this one, under load.
        let next = Vec::with_capacity(self.ops.len());
        Some((id, std::mem::replace(&mut self.ops, next)))
    }

    /// Takes in that `id` and every earlier write are on disk; false when that is known already.
    pub(crate) fn complete(&mut self, id: WriteId) -> bool {
        assert!(id < self.next, "{id} completed, but the next write is {}", self.next);
        let mut last = None;
        while self.in_flight.front().is_some_and(|write| write.id <= id) {
            last = self.in_flight.pop_front().map(|write| write.last);
        }
        let Some(last) = last else { return false };
        let unfinished = self.in_flight.iter().map(|write| write.first).min().unwrap_or(NONE);
        let proved = last.min(unfinished.min(self.first).previous());
        self.durable = self.durable.max(proved);
        true
    }

    /// The write whose completion makes everything asked for so far durable; `None` when all is.
    pub(crate) fn latest(&self) -> Option<WriteId> {
        if !self.ops.is_empty() || self.hard.is_some() {
            return Some(self.next);
        }
        self.in_flight.back().map(|write| write.id)
    }

    /// The first unfinished write after which the log reaches to `index`. It promises nothing: a later one may change
    /// what stands there. Only a mistake asks for it.
    pub(crate) fn first_reaching(&self, index: Index) -> Option<WriteId> {
        self.in_flight.iter().find(|write| write.last >= index).map(|write| write.id)
    }

    /// When the oldest unfinished write was asked for.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.in_flight.front().map(|write| write.asked)
    }

    /// Whether the ids under way rise by one up to the next, and nothing unfinished is called durable.
    pub(crate) fn is_in_order(&self) -> bool {
        let count = self.in_flight.len() as u64;
        let ids = self.in_flight.front().is_none_or(|write| write.id.0 + count == self.next.0);
        let unfinished = self.in_flight.back().map_or(NONE, |write| write.first).min(self.first);
        ids && self.durable < unfinished
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Entry, Epoch, NodeId};

    fn slot(index: u64, number: u64) -> Slot {
        let epoch = Epoch::new(number, NodeId(1));
        Slot { index: Index(index), accepted: epoch, entry: Entry::noop(epoch) }
    }

    #[test]
    fn a_completed_write_vouches_only_for_what_no_later_write_changes() {
        let mut writes = Writes::new(Index(2));
        writes.write(slot(3, 1));
        writes.write(slot(4, 1));
        let (first, _) = writes.form(Instant::ZERO, Index(4)).expect("has ops");
        writes.truncate(Index(4));
        writes.write(slot(4, 2));
        let (second, _) = writes.form(Instant::ZERO, Index(4)).expect("has ops");
        writes.truncate(Index(4));
        writes.write(slot(4, 3));
        assert!(writes.complete(first));
        assert_eq!(writes.durable(), Index(3));
        assert!(writes.complete(second));
        assert_eq!(writes.durable(), Index(3), "the slot at 4 has changed again");
        let (third, _) = writes.form(Instant::ZERO, Index(4)).expect("has ops");
        assert!(writes.complete(third));
        assert_eq!(writes.durable(), Index(4));
        assert!(!writes.complete(second));
    }

    #[test]
    fn what_is_unfinished_and_called_durable_is_noticed() {
        let mut writes = Writes::new(Index(2));
        assert!(writes.is_in_order());
        writes.write(slot(3, 1));
        assert!(writes.is_in_order(), "gathered");
        let (id, _) = writes.form(Instant::ZERO, Index(3)).expect("has ops");
        assert!(writes.is_in_order(), "under way");
        let early = Writes { durable: Index(3), ..writes.clone() };
        assert!(!early.is_in_order(), "the slot at 3 is under way");
        let gap = Writes { next: id.next().next(), ..writes.clone() };
        assert!(!gap.is_in_order(), "a write is missing");
        assert!(writes.complete(id));
        assert!(writes.is_in_order(), "done");
    }

    #[test]
    fn the_latest_write_is_the_one_being_gathered() {
        let mut writes = Writes::new(Index::ZERO);
        assert_eq!(writes.latest(), None);
        writes.write(slot(1, 1));
        assert_eq!(writes.latest(), Some(WriteId(1)));
        writes.form(Instant::ZERO, Index(1));
        assert_eq!(writes.latest(), Some(WriteId(1)));
        writes.complete(WriteId(1));
        assert_eq!(writes.latest(), None);
    }
}
