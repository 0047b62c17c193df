//! What a replica keeps in memory of its log: recent slots, and the epochs of all of it.

use quorate_types::{Bounds, Entry, Epoch, EpochRun, Index, Position, Slot};
use std::collections::VecDeque;

/// Consecutive slots of one created epoch, up to the next run or the end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    /// The first index.
    first: Index,
    /// The created epoch of its entries.
    created: Epoch,
}

/// A contiguous log as far as memory needs it: it can tell the epoch of any index without reading, and the
/// entries of recent ones.
///
/// # Invariants
/// 1. `purged.index <= last`.
/// 2. Runs rise in `first`, the first begins at `purged.index + 1`; there are none when the log is empty.
/// 3. `slots` are the last `slots.len()` slots of the log, without a gap.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The last position that is not in the log any more.
    purged: Position,
    /// The last index of the log.
    last: Index,
    /// The epochs.
    runs: VecDeque<Run>,
    /// The most recent slots.
    slots: VecDeque<Slot>,
    /// Encoded size of `slots` in bytes.
    size: usize,
}

impl Tail {
    /// The log as it is described at open; no slot is in memory yet.
    pub(crate) fn open(bounds: Bounds, epochs: &[EpochRun]) -> Tail {
        let mut tail = Tail {
            purged: bounds.purged,
            last: bounds.last,
            runs: VecDeque::new(),
            slots: VecDeque::new(),
            size: 0,
        };
        for run in epochs.iter().filter(|run| run.first <= bounds.last) {
            let first = run.first.max(bounds.purged.index.next());
            if tail.runs.back().is_some_and(|back| back.first == first) {
                tail.runs.pop_back();
            }
            if tail.runs.back().is_none_or(|back| back.created != run.created) {
                tail.runs.push_back(Run { first, created: run.created });
            }
        }
        if tail.purged.index < tail.last {
            match tail.runs.front_mut() {
                Some(front) => front.first = tail.purged.index.next(),
                None => tail
                    .runs
                    .push_back(Run { first: tail.purged.index.next(), created: tail.purged.epoch }),
            }
        }
        tail
    }

    /// The last position that was purged.
    pub(crate) fn purged(&self) -> Position {
        self.purged
    }

    /// The last index.
    pub(crate) fn last(&self) -> Index {
        self.last
    }

    /// The last position.
    pub(crate) fn last_position(&self) -> Position {
        match self.runs.back() {
            Some(run) => Position::new(self.last, run.created),
            None => self.purged,
        }
    }

    /// The created epoch at `index`; `None` when the log does not reach there, or begins later.
    pub(crate) fn epoch_at(&self, index: Index) -> Option<Epoch> {
        if index == self.purged.index {
            return Some(self.purged.epoch);
        }
        if index < self.purged.index || index > self.last {
            return None;
        }
        Some(self.runs[self.run_at(index)].created)
    }

    /// Which run covers `index`, which lies in the log.
    fn run_at(&self, index: Index) -> usize {
        let last = self.runs.len() - 1;
        if self.runs[last].first <= index {
            return last;
        }
        self.runs.partition_point(|run| run.first <= index) - 1
    }

    /// The highest index at or below `position.index` whose epoch is at or below `position.epoch`: no index above
    /// it can hold what a log with `position` holds. Below the purged index when only what was purged can match.
    pub(crate) fn floor(&self, position: Position) -> Index {
        let mut index = position.index.min(self.last);
        while index > self.purged.index {
            let run = self.runs[self.run_at(index)];
            if run.created <= position.epoch {
                return index;
            }
            index = run.first.previous();
        }
        if index == self.purged.index && self.purged.epoch > position.epoch {
            return index.previous();
        }
        index
    }

    /// Appends a slot.
    pub(crate) fn push(&mut self, slot: Slot) {
        assert!(
            slot.index == self.last.next(),
            "slot {} does not follow the last index {}",
            slot.index,
            self.last
        );
        let created = slot.entry.created();
        if self.runs.back().is_none_or(|run| run.created != created) {
            self.runs.push_back(Run { first: slot.index, created });
        }
        self.last = slot.index;
        self.size += slot.entry.encoded_size();
        self.slots.push_back(slot);
    }

    /// Puts another entry into a slot inside the log: a damaged slot is refilled.
    pub(crate) fn replace(&mut self, slot: Slot) {
        let index = slot.index;
        self.name(Position::new(index, slot.entry.created()));
        if index >= self.first_cached() {
            let at = self.offset(index);
            self.size -= self.slots[at].entry.encoded_size();
            self.size += slot.entry.encoded_size();
            self.slots[at] = slot;
        }
    }

    /// It is known now what stood in a damaged slot inside the log.
    pub(crate) fn name(&mut self, position: Position) {
        let Position { index, epoch: created } = position;
        assert!(index > self.purged.index, "slot {index} is purged at {}", self.purged);
        assert!(index <= self.last, "slot {index} is above the last index {}", self.last);
        let at = self.run_at(index);
        let old = self.runs[at];
        if old.created != created {
            if index < self.last
                && self.runs.get(at + 1).is_none_or(|next| next.first > index.next())
            {
                self.runs.insert(at + 1, Run { first: index.next(), created: old.created });
            }
            if old.first == index {
                self.runs[at].created = created;
            } else {
                self.runs.insert(at + 1, Run { first: index, created });
            }
        }
    }

    /// Drops every slot at or above `from`.
    pub(crate) fn truncate(&mut self, from: Index) {
        assert!(from > self.purged.index, "truncation from {from} reaches into {}", self.purged);
        while self.slots.back().is_some_and(|slot| slot.index >= from) {
            let slot = self.slots.pop_back().expect("was just seen");
            self.size -= slot.entry.encoded_size();
        }
        while self.runs.back().is_some_and(|run| run.first >= from) {
            self.runs.pop_back();
        }
        self.last = self.last.min(from.previous());
    }

    /// Drops every slot at or below `position`, which is in the log.
    pub(crate) fn purge(&mut self, position: Position) {
        assert!(position.index <= self.last, "purge of {position} above {}", self.last);
        while self.runs.len() > 1 && self.runs[1].first <= position.index.next() {
            self.runs.pop_front();
        }
        if position.index == self.last {
            self.runs.clear();
        } else if let Some(front) = self.runs.front_mut() {
            front.first = position.index.next();
        }
        self.purged = position;
        while self.slots.front().is_some_and(|slot| slot.index <= position.index) {
            self.drop_oldest();
        }
    }

    /// Empties the log, which then begins after `position`.
    pub(crate) fn reset(&mut self, position: Position) {
        *self = Tail {
            purged: position,
            last: position.index,
            runs: VecDeque::new(),
            slots: VecDeque::new(),
            size: 0,
        };
    }

    /// Forgets the oldest slots up to `durable` until at most `size_max` bytes are kept.
    pub(crate) fn trim(&mut self, size_max: usize, durable: Index) {
        while self.size > size_max && self.slots.front().is_some_and(|slot| slot.index <= durable) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let slot = self.slots.pop_front().expect("only called with slots");
        self.size -= slot.entry.encoded_size();
    }

    /// The lowest index whose slot is in memory; the one after the last when none is.
    pub(crate) fn first_cached(&self) -> Index {
        Index(self.last.0 + 1 - self.slots.len() as u64)
    }

    fn offset(&self, index: Index) -> usize {
        usize::try_from(index.0 - self.first_cached().0).expect("slots fit in memory")
    }

    /// The slot at `index`, if it is in memory.
    pub(crate) fn slot(&self, index: Index) -> Option<&Slot> {
        (index >= self.first_cached() && index <= self.last)
            .then(|| &self.slots[self.offset(index)])
    }

    /// Entries from `first` on, at most `size_max` encoded bytes but at least one if there is one, with their
    /// encoded size. `first` is in memory or just above the log.
    pub(crate) fn entries(&self, first: Index, size_max: usize) -> (Vec<Entry>, usize) {
        let slots = self.slots.range(self.offset(first)..);
        let fitting = slots.clone().next().map_or(0, |slot| size_max / slot.entry.encoded_size());
        let mut entries = Vec::with_capacity(slots.len().min(fitting + 1));
        let mut size = 0;
        for slot in slots {
            let more = slot.entry.encoded_size();
            if !entries.is_empty() && size + more > size_max {
                break;
            }
            size += more;
            entries.push(slot.entry.clone());
        }
        (entries, size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::NodeId;

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number, NodeId(1))
    }

    fn tail_of(epochs: &[u64]) -> Tail {
        let mut tail = Tail::open(Bounds::default(), &[]);
        for (at, number) in epochs.iter().enumerate() {
            let entry = Entry::noop(epoch(*number));
            tail.push(Slot { index: Index(at as u64 + 1), accepted: epoch(*number), entry });
        }
        tail
    }

    fn epochs_of(tail: &Tail) -> Vec<u64> {
        (tail.purged().index.0 + 1..=tail.last().0)
            .map(|index| tail.epoch_at(Index(index)).expect("inside").number)
            .collect()
    }

    #[test]
    fn epochs_follow_truncation_purge_and_replacement() {
        let mut tail = tail_of(&[1, 1, 2, 2, 2, 4]);
        assert_eq!(epochs_of(&tail), [1, 1, 2, 2, 2, 4]);
        tail.truncate(Index(6));
        assert_eq!(tail.last_position(), Position::new(Index(5), epoch(2)));
        let entry = Entry::noop(epoch(3));
        tail.replace(Slot { index: Index(4), accepted: epoch(3), entry });
        assert_eq!(epochs_of(&tail), [1, 1, 2, 3, 2]);
        tail.purge(Position::new(Index(2), epoch(1)));
        assert_eq!(epochs_of(&tail), [2, 3, 2]);
        assert_eq!(tail.epoch_at(Index(2)), Some(epoch(1)));
        assert_eq!(tail.epoch_at(Index(1)), None);
        tail.purge(Position::new(Index(5), epoch(2)));
        assert_eq!(tail.last_position(), Position::new(Index(5), epoch(2)));
        assert_eq!(tail.first_cached(), Index(6));
    }

    #[test]
    fn the_floor_skips_runs_of_later_epochs() {
        let tail = tail_of(&[1, 1, 3, 3, 5]);
        let check = |index, number, expected| {
            assert_eq!(tail.floor(Position::new(Index(index), epoch(number))), Index(expected));
        };
        check(9, 9, 5);
        check(5, 4, 4);
        check(4, 2, 2);
        check(4, 1, 2);
        check(1, 9, 1);
        check(4, 0, 0);
    }

    #[test]
    fn trimming_keeps_what_is_not_durable() {
        let mut tail = tail_of(&[1, 1, 1, 1]);
        tail.trim(0, Index(2));
        assert_eq!(tail.first_cached(), Index(3));
        assert_eq!(tail.entries(Index(3), 1).0.len(), 1);
        assert_eq!(tail.entries(Index(3), 1000).0.len(), 2);
        assert_eq!(tail.entries(Index(5), 1000).0.len(), 0);
        assert_eq!(epochs_of(&tail), [1, 1, 1, 1]);
    }
}
