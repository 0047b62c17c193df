//! The written state of one group: what a checkpoint holds, and where the entries lie.

use crate::item::{Checkpoint, Extent, HardRecord, Standing, WriteRun};
use crate::slots::{Location, Slots};
use quorate_types::{Bounds, Configuration, EpochRun, Index, LogSummary, Position, SlotFault};
use std::collections::{BTreeMap, BTreeSet};

/// One group as of the last batch handed to the disk (or read back).
///
/// # Invariants
/// 1. No slot lies at or below the purged index.
/// 2. `unknown` and `slots` share no index; every index of `lost` is in `slots`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    /// The hard state.
    pub(crate) hard: HardRecord,
    /// The purged position.
    pub(crate) purged: Position,
    /// Where the entries lie.
    pub(crate) slots: Slots,
    /// Slots of which nothing is known but that something was there.
    pub(crate) unknown: BTreeSet<Index>,
    /// Slots of `slots` that cannot be read.
    pub(crate) lost: BTreeSet<Index>,
    /// The configuration in force at the purged position, and every one above.
    pub(crate) configurations: BTreeMap<Index, Configuration>,
}

/// The index above all.
const END: Index = Index(u64::MAX);

impl Group {
    /// Where the log begins and ends.
    pub(crate) fn bounds(&self) -> Bounds {
        let slots = self.slots.last().unwrap_or_default();
        let unknown = self.unknown.last().copied().unwrap_or_default();
        Bounds { purged: self.purged, last: slots.max(unknown).max(self.purged.index) }
    }

    /// Empties `first..end` for new content. What the slots held goes to `freed`.
    fn clear(&mut self, first: Index, end: Index, freed: &mut impl FnMut(Location)) {
        self.slots.remove(first, end, freed);
        for set in [&mut self.lost, &mut self.unknown] {
            if set.last().is_some_and(|last| *last >= first) {
                set.retain(|index| *index < first || *index >= end);
            }
        }
    }

    fn clear_configurations(&mut self, first: Index, end: Index) {
        if self.configurations.last_key_value().is_some_and(|(last, _)| *last >= first) {
            self.configurations.retain(|index, _| *index < first || *index >= end);
        }
    }

    /// Puts a run of entries. Slots at or below the purged index stay empty.
    pub(crate) fn write(
        &mut self,
        run: &WriteRun,
        locations: impl ExactSizeIterator<Item = Location>,
        freed: &mut impl FnMut(Location),
    ) {
        let end = Index(run.first.0 + locations.len() as u64);
        for set in [&mut self.lost, &mut self.unknown] {
            if set.last().is_some_and(|last| *last >= run.first) {
                set.retain(|index| *index < run.first || *index >= end);
            }
        }
        self.clear_configurations(run.first, end);
        self.slots.put(run.first, run.created, run.accepted, locations, freed);
        if run.first <= self.purged.index {
            self.slots.remove(Index::ZERO, self.purged.index.next(), freed);
        }
    }

    /// Empties every slot at or above `index`.
    pub(crate) fn truncate(&mut self, index: Index, freed: &mut impl FnMut(Location)) {
        let index = index.max(self.purged.index.next());
        self.clear(index, END, freed);
        self.clear_configurations(index, END);
    }

    /// Empties every slot at or below `position`; does nothing below what was purged before.
    pub(crate) fn purge(&mut self, position: Position, freed: &mut impl FnMut(Location)) {
        if position.index <= self.purged.index {
            return;
        }
        self.clear(Index::ZERO, position.index.next(), freed);
        self.purged = position;
        let in_force = self.configurations.range(..=position.index).next_back();
        if let Some(in_force) = in_force.map(|(index, _)| *index) {
            self.configurations = self.configurations.split_off(&in_force);
        }
    }

    /// Empties the log, which then begins after `position`.
    pub(crate) fn reset(
        &mut self,
        position: Position,
        configuration: Configuration,
        freed: &mut impl FnMut(Location),
    ) {
        self.clear(Index::ZERO, END, freed);
        self.purged = position;
        self.configurations = BTreeMap::from([(position.index, configuration)]);
    }

    /// Marks a slot whose identity is known, but which cannot be read.
    pub(crate) fn lose(&mut self, index: Index) {
        self.slots.replace_location(index, Location::LOST);
        self.lost.insert(index);
    }

    /// Marks what lies at or above `first`, up to `last`, as damaged beyond knowledge; above `last` is nothing.
    pub(crate) fn forget(&mut self, first: Index, last: Index) {
        let first = first.max(self.purged.index.next());
        self.clear(first, END, &mut |_| {});
        self.clear_configurations(first, END);
        self.unknown.extend((first.0..=last.0).map(Index));
    }

    /// Everything but the entries.
    pub(crate) fn checkpoint(&self, group: quorate_types::GroupId) -> Checkpoint {
        let extents = self.slots.runs().map(|(first, run)| Extent {
            first,
            count: run.locations.len() as u64,
            created: run.created,
            accepted: run.accepted,
        });
        let mut unknown: Vec<(Index, u64)> = Vec::new();
        for index in &self.unknown {
            match unknown.last_mut() {
                Some((first, count)) if first.0 + *count == index.0 => *count += 1,
                _ => unknown.push((*index, 1)),
            }
        }
        Checkpoint {
            group,
            hard: self.hard,
            purged: self.purged,
            configurations: self.configurations.iter().map(|(i, c)| (*i, c.clone())).collect(),
            extents: extents.collect(),
            unknown,
        }
    }

    /// Whether this is how a later batch says that the group stood.
    pub(crate) fn agrees_with(&self, standing: &Standing) -> bool {
        self.hard == standing.hard
            && self.purged == standing.purged
            && self.bounds().last == standing.last
    }

    /// What the group is told of its log.
    pub(crate) fn summary(&self) -> LogSummary {
        let bounds = self.bounds();
        let hard_state = match self.hard {
            HardRecord::Known(state) => Some(state),
            HardRecord::Unset if bounds == Bounds::default() => Some(Default::default()),
            HardRecord::Unset | HardRecord::Damaged => None,
        };
        let mut epochs: Vec<EpochRun> = Vec::new();
        for (first, run) in self.slots.runs() {
            let run = EpochRun { first, created: run.created, accepted: run.accepted };
            let continues =
                |last: &EpochRun| (last.created, last.accepted) == (run.created, run.accepted);
            if !epochs.last().is_some_and(continues) {
                epochs.push(run);
            }
        }
        let configurations =
            self.configurations.iter().map(|(index, c)| (*index, c.clone())).collect();
        LogSummary { hard_state, bounds, epochs, faults: self.faults(), configurations }
    }

    fn faults(&self) -> Vec<SlotFault> {
        let mut faults = Vec::new();
        let mut next = self.purged.index.next();
        let absent = |faults: &mut Vec<SlotFault>, from: Index, to: Index| {
            faults.extend((from.0..to.0).map(Index).map(
                |index| match self.unknown.contains(&index) {
                    true => SlotFault::DamagedUnknown(index),
                    false => SlotFault::Absent(index),
                },
            ));
        };
        for (first, run) in self.slots.runs() {
            absent(&mut faults, next, first);
            next = Index(first.0 + run.locations.len() as u64);
            let lost = self.lost.range(first..next);
            faults.extend(
                lost.map(|index| SlotFault::DamagedKnown(Position::new(*index, run.created))),
            );
        }
        absent(&mut faults, next, self.bounds().last.next());
        faults
    }
}
