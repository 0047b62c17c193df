//! How the batches of all segments become the state of the groups again, and how lost ones are told.

use crate::batch::locations;
use crate::event::{DamageReport, DamageWhat, OpenError, TornTail};
use crate::format::{BatchNumber, Header, SegmentNumber};
use crate::group::Group;
use crate::item::{Checkpoint, HardRecord, Item, Standing, WriteRun};
use crate::scan::{ScannedBatch, ScannedSegment};
use crate::slots::Location;
use quorate_types::{DecodeError, GroupId, Index, Mistake};
use std::collections::BTreeMap;

/// The most slots that one extent of a checkpoint may list: far above what fits in memory.
const EXTENT_COUNT_MAX: u64 = 1 << 32;

/// The state of the groups while batches are played back in order.
#[derive(Debug, Default)]
pub(crate) struct Replay {
    /// The groups so far.
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// Damaged places that concern no slot, or whole ranges.
    pub(crate) reports: Vec<DamageReport>,
    /// Slots that cannot be read, and why; some may have been replaced since.
    pub(crate) damage: BTreeMap<(GroupId, Index), DamageReport>,
    /// What was cut away.
    pub(crate) torn: Option<TornTail>,
    /// The highest batch that any readable block names as synced.
    pub(crate) proven: BatchNumber,
    /// Where the end of the stream is unreadable otherwise than torn.
    lost_end: Option<(SegmentNumber, u64)>,
    /// Batches that an opening wrote again because nothing proved them synced: after the first, before the second.
    superseded: Vec<(BatchNumber, BatchNumber)>,
    /// The highest batch that any readable block names at all.
    pub(crate) highest: BatchNumber,
    /// Where the last batch played back ends in each segment.
    pub(crate) ends: BTreeMap<SegmentNumber, u64>,
    /// The last batch played back.
    pub(crate) last: Option<Header>,
    /// The last of the missing batches that were judged.
    judged: BatchNumber,
    /// How many batches were played back.
    pub(crate) batch_count: u64,
}

/// Batches that are missing between two that are not.
#[derive(Clone, Copy, Debug)]
struct Hole {
    /// The first missing batch.
    first: BatchNumber,
    /// The batch after the last missing one.
    end: BatchNumber,
    /// Where the first should have been.
    place: (SegmentNumber, u64),
    /// What to report.
    contradiction: bool,
}

impl Hole {
    fn report(&self, group: Option<GroupId>, index: Option<Index>) -> DamageReport {
        let last = BatchNumber(self.end.0 - 1);
        let what = match self.contradiction {
            true => DamageWhat::Contradiction(last),
            false => DamageWhat::Hole { first: self.first, last },
        };
        DamageReport { file: self.place.0.file(), offset: self.place.1, group, index, what }
    }
}

/// Plays all segments back, in order.
pub(crate) fn replay(segments: &[ScannedSegment]) -> Result<Replay, OpenError> {
    let mut replay = Replay::default();
    for segment in segments {
        for header in segment.batches.iter().map(|batch| &batch.header) {
            replay.proven = replay.proven.max(header.synced);
            replay.highest = replay.highest.max(header.batch);
            if header.opening && header.synced.next() < header.batch {
                replay.superseded.push((header.synced, header.batch));
            }
        }
        for (proof, _) in &segment.proofs {
            replay.proven = replay.proven.max(proof.synced);
            replay.highest = replay.highest.max(proof.batch);
        }
    }
    for segment in segments {
        for batch in &segment.batches {
            let last = segment.batches.last().is_some_and(|last| std::ptr::eq(last, batch));
            replay.play(batch, last)?;
        }
    }
    let proofs = segments.iter().flat_map(|segment| &segment.proofs);
    if let Some((proof, items)) = proofs.max_by_key(|(proof, _)| proof.batch) {
        replay.bridge(proof.batch.next(), (proof.previous_segment, 0), items, None);
    }
    replay.bridge(replay.proven.next(), (SegmentNumber(0), 0), &[], None);
    let last = segments.iter().rev().find(|segment| !segment.batches.is_empty());
    let lost = last.and_then(|last| Some((last.number, last.lost_end?)));
    replay.lost_end = replay.lost_end.or(lost);
    replay.forget_hard_states();
    replay.finish();
    Ok(replay)
}

impl Replay {
    /// Whether a later record proves that a batch was synced.
    pub(crate) fn is_proven(&self, batch: BatchNumber) -> bool {
        batch <= self.proven && !self.is_superseded(batch)
    }

    fn is_superseded(&self, batch: BatchNumber) -> bool {
        self.superseded.iter().any(|(after, before)| *after < batch && batch < *before)
    }

    fn next_number(&self) -> BatchNumber {
        let last = self.last.map_or(BatchNumber(0), |last| last.batch);
        last.max(self.judged).next()
    }

    /// Plays one batch back; `last` of its segment.
    fn play(&mut self, batch: &ScannedBatch, last: bool) -> Result<(), OpenError> {
        let header = &batch.header;
        let Some(items) = &batch.items else {
            // Nothing is known of it but its number. If it was synced, the next batch shows the hole.
            if !self.is_proven(header.batch) {
                if batch.unwritten || header.opening {
                    self.cut(header);
                } else if !self.is_superseded(header.batch) {
                    self.lost_end = Some((header.segment, header.offset));
                }
            }
            return Ok(());
        };
        let unproven = !self.is_proven(header.batch);
        let torn = unproven
            && !batch.bad_entries.is_empty()
            && batch.unwritten
            && !Mistake::TornIsWhole.is_made();
        if header.opening && torn {
            self.cut(header);
            return Ok(());
        }
        let place = (header.segment, header.offset);
        if !header.opening {
            self.bridge(header.batch, place, items, Some(header.previous_chain));
        }
        if torn {
            self.cut(header);
            return Ok(());
        }
        if Mistake::HoleIsTorn.is_made() && self.torn.is_some() {
            return Ok(());
        }
        // The last batch of a segment may have been torn and found whole by an earlier open, which wrote it again.
        if let Some(offset) = batch.bad_copy.filter(|_| !((unproven || last) && batch.unwritten)) {
            self.report_copy(header, offset, items);
        }
        self.restore_all(header, items)?;
        let mut bad = batch.bad_entries.iter().peekable();
        for (number, item) in items.iter().enumerate() {
            let mut lost = Vec::new();
            while let Some(entry) = bad.next_if(|bad| bad.item == number) {
                lost.push((entry.place, entry.offset, entry.what.clone()));
            }
            self.apply(header, item, lost);
            if let Item::Write(run) = item {
                self.apply_configurations(number, run, batch);
            }
        }
        self.last = Some(*header);
        self.ends.insert(header.segment, header.end());
        self.batch_count += 1;
        Ok(())
    }

    /// Notes the configurations among the entries of an item.
    fn apply_configurations(&mut self, number: usize, run: &WriteRun, batch: &ScannedBatch) {
        let group = self.groups.entry(run.group).or_default();
        for (of, index, configuration) in &batch.configurations {
            if *of == number && *index > group.purged.index {
                group.configurations.insert(*index, configuration.clone());
            }
        }
    }

    fn cut(&mut self, header: &Header) {
        if self.is_superseded(header.batch) {
            return;
        }
        let (file, offset) = (header.segment.file(), header.offset);
        self.torn = Some(TornTail { file, offset, batch: Some(header.batch) });
    }

    fn report_copy(&mut self, header: &Header, offset: u64, items: &[Item]) {
        let changes = |item: &&Item| item.group().is_some() && item.standing().is_none();
        let named = items.iter().find(changes);
        let named = named.or(items.first());
        self.reports.push(DamageReport {
            file: header.segment.file(),
            offset,
            group: named.and_then(Item::group),
            index: named.and_then(Item::index),
            what: DamageWhat::Copy(header.batch),
        });
    }

    /// Takes over the checkpoint of an opening batch: from here on nothing before matters but where entries lie.
    fn restore_all(&mut self, header: &Header, items: &[Item]) -> Result<(), OpenError> {
        if !header.opening {
            return Ok(());
        }
        let mut before = std::mem::take(&mut self.groups);
        for item in items {
            if let Item::Checkpoint(checkpoint) = item {
                let old = before.remove(&checkpoint.group).unwrap_or_default();
                let group = self.restore(header, checkpoint, &old)?;
                self.groups.insert(checkpoint.group, group);
            }
        }
        Ok(())
    }

    fn restore(
        &mut self,
        header: &Header,
        checkpoint: &Checkpoint,
        old: &Group,
    ) -> Result<Group, OpenError> {
        let mut group = Group {
            hard: checkpoint.hard,
            purged: checkpoint.purged,
            configurations: checkpoint.configurations.iter().cloned().collect(),
            ..Group::default()
        };
        let counts = checkpoint.extents.iter().map(|extent| (extent.first, extent.count));
        if let Some((first, _)) =
            counts.chain(checkpoint.unknown.iter().copied()).find(|(first, count)| {
                *count > EXTENT_COUNT_MAX || first.0.checked_add(*count).is_none()
            })
        {
            return Err(OpenError::Structure {
                file: header.segment.file(),
                offset: header.offset,
                batch: header.batch,
                reason: DecodeError::TooLarge {
                    what: "an extent of a checkpoint",
                    value: first.0,
                    limit: EXTENT_COUNT_MAX,
                },
            });
        }
        let report = |index, what| DamageReport {
            file: header.segment.file(),
            offset: header.offset,
            group: Some(checkpoint.group),
            index: Some(index),
            what,
        };
        for extent in &checkpoint.extents {
            let places: Vec<Location> = (0..extent.count)
                .map(|place| Index(extent.first.0 + place))
                .map(|index| {
                    let placed = old.slots.find(index).filter(|placed| {
                        (placed.created, placed.accepted) == (extent.created, extent.accepted)
                    });
                    let location = placed.map_or(Location::LOST, |placed| placed.location);
                    if location == Location::LOST {
                        group.lost.insert(index);
                        let missing = || report(index, DamageWhat::Missing);
                        self.damage.entry((checkpoint.group, index)).or_insert_with(missing);
                    }
                    location
                })
                .collect();
            let (created, accepted) = (extent.created, extent.accepted);
            group.slots.put(extent.first, created, accepted, places.into_iter(), &mut |_| {});
        }
        for (first, count) in &checkpoint.unknown {
            for index in (first.0..first.0 + count).map(Index) {
                group.unknown.insert(index);
                let missing = || report(index, DamageWhat::Missing);
                self.damage.entry((checkpoint.group, index)).or_insert_with(missing);
            }
        }
        Ok(group)
    }

    /// Plays one change back. `lost` names the entries of a run that are not readable.
    fn apply(&mut self, header: &Header, item: &Item, lost: Vec<(usize, u64, DamageWhat)>) {
        let Some(id) = item.group() else { return };
        let group = self.groups.entry(id).or_default();
        let mut free = |_| {};
        match item {
            Item::HardState(_, _)
                if Mistake::OlderHardState.is_made()
                    && matches!(group.hard, HardRecord::Known(_)) => {}
            Item::HardState(_, state) => group.hard = HardRecord::Known(*state),
            Item::Write(run) => self.apply_run(header, run, lost),
            Item::Truncate(_, index) => group.truncate(*index, &mut free),
            Item::Purge(_, position) => group.purge(*position, &mut free),
            Item::Reset(_, position, configuration) => {
                group.reset(*position, configuration.clone(), &mut free);
            }
            Item::Standing(_) | Item::Checkpoint(_) | Item::Segments(_) => {}
        }
    }

    fn apply_run(&mut self, header: &Header, run: &WriteRun, lost: Vec<(usize, u64, DamageWhat)>) {
        let group = self.groups.entry(run.group).or_default();
        let mut places: Vec<Location> =
            locations(run, header.segment, header.bodies_offset()).collect();
        let mut marks = Vec::new();
        for (place, offset, what) in lost {
            let index = Index(run.first.0 + place as u64);
            // A copy of the same entry that was written before is as good.
            let before = group.slots.find(index).filter(|placed| {
                (placed.created, placed.accepted) == (run.created, run.accepted)
                    && placed.location != Location::LOST
                    && placed.location.check == run.entries[place].check
            });
            let report = DamageReport {
                file: header.segment.file(),
                offset,
                group: Some(run.group),
                index: Some(index),
                what,
            };
            match before {
                Some(placed) => {
                    places[place] = placed.location;
                    self.reports.push(report);
                }
                None => marks.push((index, report)),
            }
        }
        group.write(run, places.into_iter(), &mut |_| {});
        for (index, report) in marks {
            if index > group.purged.index {
                group.lose(index);
                self.damage.insert((run.group, index), report);
            }
        }
    }

    /// Judges what lies between the last batch and batch `end`, whose directory says how groups stood before it.
    fn bridge(
        &mut self,
        end: BatchNumber,
        place: (SegmentNumber, u64),
        items: &[Item],
        chain: Option<u32>,
    ) {
        let first = self.next_number();
        let place = self.last.map_or(place, |last| (last.segment, last.end()));
        let standings: Vec<&Standing> = items.iter().filter_map(Item::standing).collect();
        if end > first {
            self.judge_hole(Hole { first, end, place, contradiction: false }, &standings);
            self.judged = BatchNumber(end.0 - 1);
            return;
        }
        if end < first || (items.is_empty() && chain.is_none()) {
            return;
        }
        let before = self.last.filter(|last| last.batch.next() == end).map(|last| last.chain());
        let broken = before.is_some() && chain.is_some() && chain != before;
        let hole = Hole { first, end, place, contradiction: true };
        let mut reported = false;
        for standing in standings {
            let group = self.groups.entry(standing.group).or_default();
            if group.hard == HardRecord::Damaged {
                group.hard = standing.hard;
            }
            if !group.agrees_with(standing) {
                reported = true;
                self.forget(&hole, standing.group, Index::ZERO, Some(standing));
            }
        }
        if broken && !reported {
            self.reports.push(hole.report(None, None));
        }
    }

    /// Batches are gone that were synced: what they may have changed is damaged, nothing else.
    fn judge_hole(&mut self, hole: Hole, standings: &[&Standing]) {
        if Mistake::HoleIsTorn.is_made() {
            let (file, offset) = (hole.place.0.file(), hole.place.1);
            self.torn = Some(TornTail { file, offset, batch: Some(hole.first) });
            return;
        }
        let before = BatchNumber(hole.first.0 - 1);
        let bounded = standings.first().is_some_and(|standing| standing.since <= before);
        let mut reported = false;
        let mut mentioned = Vec::new();
        for standing in standings {
            mentioned.push(standing.group);
            let lows = standing.lows.iter().filter(|(batch, _)| *batch >= hole.first);
            let low = lows.map(|(_, low)| *low).min();
            match (bounded, low) {
                (true, None) => {}
                (true, Some(low)) => {
                    reported = true;
                    self.forget(&hole, standing.group, low, Some(standing));
                }
                (false, _) => {
                    reported = true;
                    self.forget(&hole, standing.group, Index::ZERO, Some(standing));
                }
            }
        }
        if !bounded {
            let others: Vec<GroupId> =
                self.groups.keys().filter(|id| !mentioned.contains(id)).copied().collect();
            for group in others {
                reported = true;
                self.forget(&hole, group, Index::ZERO, None);
            }
        }
        if !reported {
            self.reports.push(hole.report(None, None));
        }
    }

    /// Everything of a group from `low` on is uncertain, and its hard state unless a later batch restates it.
    fn forget(&mut self, hole: &Hole, id: GroupId, low: Index, standing: Option<&Standing>) {
        let group = self.groups.entry(id).or_default();
        let mut last = group.bounds().last;
        group.hard = HardRecord::Damaged;
        if let Some(standing) = standing {
            group.hard = standing.hard;
            group.purge(standing.purged, &mut |_| {});
            last = standing.last;
        }
        group.forget(low, last);
        let from = low.max(group.purged.index.next());
        let first = (from <= last).then_some(from);
        self.reports.push(hole.report(Some(id), first));
        for index in (from.0..=last.0).map(Index) {
            self.damage.insert((id, index), hole.report(Some(id), Some(index)));
        }
    }

    /// What the unreadable end of the stream held is not known: a vote, or slots that were acknowledged. Without its hard
    /// state a replica promises nothing until others have told it what it may have forgotten.
    fn forget_hard_states(&mut self) {
        let Some((segment, offset)) = self.lost_end else { return };
        for (id, group) in &mut self.groups {
            group.hard = HardRecord::Damaged;
            self.reports.push(DamageReport {
                file: segment.file(),
                offset,
                group: Some(*id),
                index: None,
                what: DamageWhat::End,
            });
        }
    }

    /// Keeps the damage that is still there, and adds what concerns hard states.
    fn finish(&mut self) {
        // A torn batch may have named a group that nothing was ever kept of.
        self.groups.retain(|_, group| *group != Group::default());
        let groups = &self.groups;
        self.damage.retain(|(id, index), _| {
            groups
                .get(id)
                .is_some_and(|group| group.lost.contains(index) || group.unknown.contains(index))
        });
        for (id, group) in groups {
            if group.hard == HardRecord::Damaged {
                let (segment, offset) =
                    self.last.map_or((SegmentNumber(0), 0), |last| (last.segment, last.offset));
                self.reports.push(DamageReport {
                    file: segment.file(),
                    offset,
                    group: Some(*id),
                    index: None,
                    what: DamageWhat::HardState,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
