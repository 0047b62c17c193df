//! Where the entries of a group lie: runs of consecutive slots with the same epochs.

use crate::format::SegmentNumber;
use quorate_types::{Epoch, Index};
use std::collections::{BTreeMap, VecDeque};

/// Where an entry lies. 16 bytes, since there is one for every live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// The low half of the entry's content hash.
    pub(crate) check: u32,
    /// The size of the encoded entry in bytes.
    pub(crate) size: u32,
    /// Where it begins in its segment, in bytes.
    pub(crate) offset: u32,
    /// Its segment, narrowed: 2^32 segments are never reached. 0 for a lost entry.
    segment: u32,
}

impl Location {
    /// The place of an entry that is known to have been, but cannot be read.
    pub(crate) const LOST: Location = Location { check: 0, size: 0, offset: 0, segment: 0 };

    /// A place in a segment.
    pub(crate) fn new(segment: SegmentNumber, offset: u64, size: u32, check: u32) -> Location {
        Location {
            check,
            size,
            offset: u32::try_from(offset).expect("segments are below 4 GiB"),
            segment: u32::try_from(segment.0).expect("2^32 segments are never reached"),
        }
    }

    /// The segment; `None` for a lost entry.
    pub(crate) fn segment(&self) -> Option<SegmentNumber> {
        (self.segment != 0).then_some(SegmentNumber(self.segment.into()))
    }
}

/// A slot as the index knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The created epoch of its entry.
    pub(crate) created: Epoch,
    /// Its accepted epoch.
    pub(crate) accepted: Epoch,
    /// Where its entry lies.
    pub(crate) location: Location,
}

/// Consecutive slots of the same epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// The created epoch of their entries.
    pub(crate) created: Epoch,
    /// Their accepted epoch.
    pub(crate) accepted: Epoch,
    /// One for each slot.
    pub(crate) locations: VecDeque<Location>,
}

/// Every slot of a group that holds an entry, by index.
///
/// # Invariants
/// 1. No run is empty, and no two runs overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots {
    /// By first index.
    runs: BTreeMap<Index, Run>,
}

fn end_of(first: Index, run: &Run) -> Index {
    Index(first.0 + run.locations.len() as u64)
}

impl Slots {
    /// The slot at `index`.
    pub(crate) fn find(&self, index: Index) -> Option<Placed> {
        let (first, run) = self.runs.range(..=index).next_back()?;
        let place = usize::try_from(index.0 - first.0).ok()?;
        let location = *run.locations.get(place)?;
        Some(Placed { created: run.created, accepted: run.accepted, location })
    }

    /// Changes where the entry of a slot lies; the slot must be there.
    pub(crate) fn replace_location(&mut self, index: Index, location: Location) {
        let (first, run) = self.runs.range_mut(..=index).next_back().expect("the slot was found");
        let place = usize::try_from(index.0 - first.0).expect("runs fit in memory");
        run.locations[place] = location;
    }

    /// The highest index.
    pub(crate) fn last(&self) -> Option<Index> {
        self.runs.last_key_value().map(|(first, run)| end_of(*first, run).previous())
    }

    /// The first slot's place.
    pub(crate) fn first_location(&self) -> Option<Location> {
        self.runs.first_key_value().and_then(|(_, run)| run.locations.front().copied())
    }

    /// The runs in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = (Index, &Run)> {
        self.runs.iter().map(|(first, run)| (*first, run))
    }

    /// Fills consecutive slots from `first` on. What they held goes to `freed`.
    pub(crate) fn put(
        &mut self,
        first: Index,
        created: Epoch,
        accepted: Epoch,
        locations: impl ExactSizeIterator<Item = Location>,
        freed: &mut impl FnMut(Location),
    ) {
        if locations.len() == 0 {
            return;
        }
        let end = Index(first.0 + locations.len() as u64);
        if self.last().is_some_and(|last| last >= first) {
            self.remove(first, end, freed);
        }
        if let Some((before, run)) = self.runs.range_mut(..first).next_back()
            && end_of(*before, run) == first
            && (run.created, run.accepted) == (created, accepted)
        {
            run.locations.extend(locations);
            return;
        }
        self.runs.insert(first, Run { created, accepted, locations: locations.collect() });
    }

    /// Empties `first..end`. What the slots held goes to `freed`.
    pub(crate) fn remove(&mut self, first: Index, end: Index, freed: &mut impl FnMut(Location)) {
        if first >= end {
            return;
        }
        self.split_at(first);
        self.split_at(end);
        while let Some((&key, _)) = self.runs.range(first..end).next() {
            let run = self.runs.remove(&key).expect("the key was just seen");
            run.locations.into_iter().for_each(&mut *freed);
        }
    }

    /// Makes `index` the first of its run, if it lies inside one.
    fn split_at(&mut self, index: Index) {
        let Some((first, run)) = self.runs.range_mut(..index).next_back() else { return };
        if end_of(*first, run) <= index {
            return;
        }
        let at = usize::try_from(index.0 - first.0).expect("runs fit in memory");
        let front = at < run.locations.len() / 2;
        let rest = if front {
            // A purge takes a short front off a long run: move the short part.
            let head: VecDeque<Location> = run.locations.drain(..at).collect();
            std::mem::replace(&mut run.locations, head)
        } else {
            run.locations.split_off(at)
        };
        let rest = Run { created: run.created, accepted: run.accepted, locations: rest };
        self.runs.insert(index, rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::NodeId;

    fn location(mark: u64) -> Location {
        Location::new(SegmentNumber(1), mark, 1, 0)
    }

    /// Every slot against a plain map, over a fixed walk of puts and removes.
    #[test]
    fn runs_equal_a_plain_map() {
        let mut slots = Slots::default();
        let mut model: BTreeMap<Index, (Epoch, Location)> = BTreeMap::new();
        let mut state = 7u64;
        let mut draw = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let mut live = 0i64;
        for step in 0..4000 {
            let first = Index(1 + draw(40));
            let count = draw(6);
            let epoch = Epoch::new(draw(3), NodeId(1));
            let mut freed = 0;
            if draw(3) == 0 {
                let end = Index(first.0 + count * 3);
                slots.remove(first, end, &mut |_| freed += 1);
                model.retain(|index, _| *index < first || *index >= end);
            } else {
                let places: Vec<Location> = (0..count).map(|i| location(step + i)).collect();
                slots.put(first, epoch, epoch, places.iter().copied(), &mut |_| freed += 1);
                live += places.len() as i64;
                for (place, index) in places.iter().zip(first.0..) {
                    model.insert(Index(index), (epoch, *place));
                }
            }
            live -= freed;
            assert_eq!(live, model.len() as i64, "everything displaced is freed once");
            for index in (0..70).map(Index) {
                let found = slots.find(index).map(|placed| (placed.created, placed.location));
                assert_eq!(found, model.get(&index).copied(), "slot {index} at step {step}");
            }
            assert_eq!(slots.last(), model.keys().next_back().copied());
        }
    }
}
