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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::SegmentNumber;
    use crate::item::EntryMark;
    use quorate_types::{Epoch, GroupId, HardState, NodeId};

    /// One slot as plainly as can be: the epoch of what it holds, and where that lies; a slot of which nothing is known has
    /// no epoch.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Known {
        Held(Epoch, Location),
        Lost(Epoch),
        Nothing,
    }

    /// A group as plainly as can be.
    #[derive(Default)]
    struct Model {
        purged: Position,
        slots: BTreeMap<Index, Known>,
        configurations: BTreeMap<Index, Configuration>,
    }

    impl Model {
        fn clear(&mut self, from: Index, to: Index) {
            self.slots.retain(|index, _| *index < from || *index > to);
        }

        fn last(&self) -> Index {
            let last = self.slots.last_key_value().map_or(Index::ZERO, |(index, _)| *index);
            last.max(self.purged.index)
        }

        fn faults(&self) -> Vec<SlotFault> {
            let indexes = (self.purged.index.0 + 1..=self.last().0).map(Index);
            let fault = |index| match self.slots.get(&index) {
                Some(Known::Held(_, _)) => None,
                Some(Known::Lost(epoch)) => {
                    Some(SlotFault::DamagedKnown(Position::new(index, *epoch)))
                }
                Some(Known::Nothing) => Some(SlotFault::DamagedUnknown(index)),
                None => Some(SlotFault::Absent(index)),
            };
            indexes.filter_map(fault).collect()
        }

        fn epochs(&self) -> Vec<EpochRun> {
            let mut epochs: Vec<EpochRun> = Vec::new();
            for (first, known) in &self.slots {
                let (Known::Held(epoch, _) | Known::Lost(epoch)) = *known else { continue };
                if epochs.last().is_none_or(|last| last.created != epoch) {
                    epochs.push(EpochRun { first: *first, created: epoch, accepted: epoch });
                }
            }
            epochs
        }
    }

    fn check(group: &Group, model: &Model, step: u64) {
        let summary = group.summary();
        let bounds = Bounds { purged: model.purged, last: model.last() };
        assert_eq!(summary.bounds, bounds, "step {step}");
        assert_eq!(summary.faults, model.faults(), "step {step}");
        assert_eq!(summary.epochs, model.epochs(), "step {step}");
        let configurations = summary.configurations.into_iter().collect::<BTreeMap<_, _>>();
        assert_eq!(configurations, model.configurations, "step {step}");
        for index in (0..60).map(Index) {
            let found = group.slots.find(index).map(|placed| (placed.created, placed.location));
            let expected = match model.slots.get(&index) {
                Some(Known::Held(epoch, location)) => Some((*epoch, *location)),
                Some(Known::Lost(epoch)) => Some((*epoch, Location::LOST)),
                Some(Known::Nothing) | None => None,
            };
            assert_eq!(found, expected, "slot {index} at step {step}");
        }
        let unknown = group.checkpoint(GroupId(0)).unknown;
        let apart = |pair: &[(Index, u64)]| pair[0].0.0 + pair[0].1 < pair[1].0.0;
        assert!(unknown.windows(2).all(apart), "{unknown:?} at step {step}");
        let unknown = unknown.iter().flat_map(|(first, count)| first.0..first.0 + count);
        assert!(unknown.eq(group.unknown.iter().map(|index| index.0)), "step {step}");
    }

    #[test]
    fn a_group_equals_a_plain_map() {
        let (mut group, mut model) = (Group::default(), Model::default());
        let mut state = 7u64;
        let mut draw = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        let mut live = 0i64;
        for step in 0..6000 {
            let mut freed = 0i64;
            let mut free = |location| freed += i64::from(location != Location::LOST);
            let purged = model.purged.index.0;
            let (index, count) = (Index(1 + purged.saturating_sub(2) + draw(20)), 1 + draw(4));
            let epoch = Epoch::new(draw(3), NodeId(1));
            match draw(20) {
                0..10 => {
                    let entries = vec![EntryMark { size: 1, check: 0 }; count as usize];
                    let (created, accepted) = (epoch, epoch);
                    let first = index;
                    let group_id = GroupId(0);
                    let run =
                        WriteRun { group: group_id, first, created, accepted, offset: 0, entries };
                    let at = |place| Location::new(SegmentNumber(1), step * 4 + place, 1, 0);
                    let places: Vec<Location> = (0..count).map(at).collect();
                    group.write(&run, places.iter().copied(), &mut free);
                    live += count as i64;
                    for (place, index) in places.into_iter().zip(first.0..) {
                        model.configurations.remove(&Index(index));
                        if index > purged {
                            model.slots.insert(Index(index), Known::Held(epoch, place));
                        }
                    }
                    if draw(4) == 0 && index > model.purged.index {
                        group.configurations.insert(index, Configuration::default());
                        model.configurations.insert(index, Configuration::default());
                    }
                }
                10..12 => {
                    group.truncate(index, &mut free);
                    let from = index.max(model.purged.index.next());
                    model.clear(from, END);
                    model.configurations.retain(|found, _| *found < from);
                }
                12..14 => {
                    let position = Position::new(Index(index.0.saturating_sub(8)), epoch);
                    group.purge(position, &mut free);
                    if position.index > model.purged.index {
                        model.clear(Index::ZERO, position.index);
                        model.purged = position;
                        let mut found = model.configurations.range(..=position.index);
                        let in_force = found.next_back().map_or(Index::ZERO, |(index, _)| *index);
                        model.configurations.retain(|found, _| *found >= in_force);
                    }
                }
                14..17 => {
                    if let Some(Known::Held(epoch, _)) = model.slots.get(&index).copied() {
                        group.lose(index);
                        live -= 1;
                        model.slots.insert(index, Known::Lost(epoch));
                    }
                }
                17..19 => {
                    let last = Index(index.0 + count);
                    let from = index.max(model.purged.index.next());
                    let held = model.slots.range(from..);
                    live -=
                        held.filter(|(_, known)| matches!(known, Known::Held(..))).count() as i64;
                    group.forget(index, last);
                    model.clear(from, END);
                    model.configurations.retain(|found, _| *found < from);
                    let unknown = (from.0..=last.0).map(|index| (Index(index), Known::Nothing));
                    model.slots.extend(unknown);
                }
                _ if draw(10) == 0 => {
                    let position = Position::new(Index(draw(5)), epoch);
                    group.reset(position, Configuration::default(), &mut free);
                    let configuration = (position.index, Configuration::default());
                    model = Model {
                        purged: position,
                        slots: BTreeMap::new(),
                        configurations: BTreeMap::from([configuration]),
                    };
                }
                _ => {}
            }
            live -= freed;
            let held = model.slots.values().filter(|known| matches!(known, Known::Held(..)));
            assert_eq!(live, held.count() as i64, "what is displaced is freed once, step {step}");
            check(&group, &model, step);
        }
    }

    #[test]
    fn a_standing_that_differs_in_anything_disagrees() {
        let position = Position::new(Index(2), Epoch::new(1, NodeId(1)));
        let hard = HardRecord::Known(HardState::default());
        let group = Group { hard, purged: position, ..Group::default() };
        let (since, lows) = (crate::format::BatchNumber(1), Vec::new());
        let standing =
            Standing { group: GroupId(0), since, lows, hard, purged: position, last: Index(2) };
        assert!(group.agrees_with(&standing));
        let others = [
            Standing { hard: HardRecord::Unset, ..standing.clone() },
            Standing { purged: Position::new(Index(2), Epoch::ZERO), ..standing.clone() },
            Standing { last: Index(3), ..standing },
        ];
        assert!(others.iter().all(|other| !group.agrees_with(other)));
    }

    #[test]
    fn only_an_empty_group_may_do_without_a_hard_state() {
        let mut group = Group::default();
        assert_eq!(group.summary().hard_state, Some(HardState::default()));
        group.purged = Position::new(Index(1), Epoch::ZERO);
        assert_eq!(group.summary().hard_state, None, "a hard state came before what was purged");
        let damaged = Group { hard: HardRecord::Damaged, ..Group::default() };
        assert_eq!(damaged.summary().hard_state, None);
    }
}
