//! How entries come back from disk while the log runs: for whoever fetches, and to copy leftovers forward.

use crate::batch::check_of;
use crate::event::{Damage, DamageReport, DamageWhat, LogEvent, ReadId};
use crate::format::SegmentNumber;
use crate::log::{Log, open_batch};
use crate::slots::{Location, Placed};
use bytes::Bytes;
use quorate_types::{
    DiskError, DiskOp, DiskOutput, Entry, GroupId, Index, Position, Reader, Slot, SlotFault,
};

/// A read under way.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// Whose entries.
    group: GroupId,
    /// The first slot.
    first: Index,
    /// The slots as they were when the read was asked for: consecutive, one after the other in one file.
    places: Vec<Placed>,
    /// Their segment.
    segment: SegmentNumber,
    /// Who gets them; `None` to copy them forward.
    answer: Option<Answer>,
}

/// Who gets what was read.
#[derive(Clone, Copy, Debug)]
struct Answer {
    /// Which fetch.
    read: ReadId,
    /// The last slot asked for.
    last: Index,
    /// The budget in bytes.
    budget: usize,
}

/// Verifies and decodes the entry that should lie in `bytes`.
pub(crate) fn decode_entry(bytes: Bytes, check: u32) -> Result<Entry, DamageWhat> {
    let mut reader = Reader::new("entry", bytes);
    let entry = Entry::decode(&mut reader).map_err(DamageWhat::Entry)?;
    reader.finish().map_err(DamageWhat::Entry)?;
    let found = check_of(&entry);
    if found == check { Ok(entry) } else { Err(DamageWhat::OtherEntry { expected: check, found }) }
}

impl Log {
    /// Answers from memory, or starts a read.
    pub(crate) fn start_fetch(
        &mut self,
        group: GroupId,
        read: ReadId,
        first: Index,
        last: Index,
        budget: usize,
    ) {
        if let Some(slots) = self.cached(group, first, last, budget) {
            self.events.push_back(LogEvent::Fetched { group, read, slots, damaged: None });
            return;
        }
        let places = self.plan_read(group, first, last, budget);
        match places.first().and_then(|placed| placed.location.segment()) {
            Some(segment) => {
                let answer = Some(Answer { read, last, budget });
                self.start_read(Reading { group, first, places, segment, answer });
            }
            None => {
                let damaged = self.damage_at(group, first);
                let slots = Vec::new();
                self.events.push_back(LogEvent::Fetched { group, read, slots, damaged });
            }
        }
    }

    /// Consecutive slots that lie one after the other in one file, within the budget.
    fn plan_read(&self, group: GroupId, first: Index, last: Index, budget: usize) -> Vec<Placed> {
        let Some(state) = self.groups.get(&group) else { return Vec::new() };
        let budget = budget.min(self.options.read_size_max);
        let mut places: Vec<Placed> = Vec::new();
        let mut size = 0;
        let mut index = first;
        while index <= last {
            let Some(placed) = state.slots.find(index) else { break };
            let location = placed.location;
            size += location.size as usize;
            let follows = places.last().is_none_or(|before| follows(before.location, location));
            let fits = places.is_empty() || size <= budget;
            if !follows || !fits || location == Location::LOST || self.pending_hides(group, index) {
                break;
            }
            places.push(placed);
            index = index.next();
        }
        places
    }

    fn start_read(&mut self, reading: Reading) {
        let start = reading.places.first().map_or(0, |placed| placed.location.offset);
        let size = reading.places.iter().map(|placed| u64::from(placed.location.size)).sum();
        let segment = self.segments.used.get_mut(&reading.segment);
        segment.expect("entries lie in segments in use").read_count += 1;
        let file = reading.segment.file();
        let id = self.request(DiskOp::Read { file, offset: start.into(), size });
        self.reads.insert(id, reading);
    }

    /// Reads one slot to write it again at the end of the stream.
    pub(crate) fn start_copy(&mut self, group: GroupId, index: Index) {
        let places = self.plan_read(group, index, index, usize::MAX);
        if let Some(segment) = places.first().and_then(|placed| placed.location.segment()) {
            self.start_read(Reading { group, first: index, places, segment, answer: None });
        }
    }

    /// Takes what was read.
    pub(crate) fn finish_read(&mut self, reading: Reading, result: Result<DiskOutput, DiskError>) {
        if let Some(segment) = self.segments.used.get_mut(&reading.segment) {
            segment.read_count -= 1;
        }
        let group = reading.group;
        let slots = self.decode_read(&reading, result);
        let Some(Answer { read, last, budget }) = reading.answer else {
            self.copy_forward(group, slots);
            return;
        };
        let next = Index(reading.first.0 + slots.len() as u64);
        if slots.is_empty()
            && let Some(slots) = self.cached(group, next, last, budget)
        {
            self.events.push_back(LogEvent::Fetched { group, read, slots, damaged: None });
            return;
        }
        let has_moved = slots.is_empty()
            && self.damage_at(group, next).is_none()
            && self.groups.get(&group).and_then(|state| state.slots.find(next))
                != reading.places.first().copied();
        if has_moved && !self.plan_read(group, next, last, budget).is_empty() {
            // The slot was copied forward while it was read: it is read again where it is now.
            return self.start_fetch(group, read, next, last, budget);
        }
        let stopped = slots.len() < reading.places.len();
        let damaged = stopped.then(|| self.damage_at(group, next)).flatten();
        self.events.push_back(LogEvent::Fetched { group, read, slots, damaged });
    }

    /// The slots of a read, up to the first that is damaged or has changed since.
    fn decode_read(
        &mut self,
        reading: &Reading,
        result: Result<DiskOutput, DiskError>,
    ) -> Vec<Slot> {
        let mut bytes = match result {
            Ok(DiskOutput::Read(bytes)) => Ok(bytes),
            Ok(DiskOutput::Done) => Ok(Bytes::new()),
            Err(error) => Err(error),
        };
        let mut slots = Vec::with_capacity(reading.places.len());
        for (placed, index) in
            reading.places.iter().zip(reading.first.0..).map(|(p, i)| (p, Index(i)))
        {
            let state = self.groups.get(&reading.group);
            let unchanged = state.and_then(|state| state.slots.find(index)) == Some(*placed);
            if !unchanged || self.pending_hides(reading.group, index) {
                break;
            }
            let entry = match &mut bytes {
                Ok(bytes) => {
                    let size = bytes.len().min(placed.location.size as usize);
                    decode_entry(bytes.split_to(size), placed.location.check)
                }
                Err(error) => Err(DamageWhat::Unreadable(error.clone())),
            };
            match entry {
                Ok(entry) => slots.push(Slot { index, accepted: placed.accepted, entry }),
                Err(what) => {
                    self.note_damage(reading.group, index, placed.location, what);
                    break;
                }
            }
        }
        slots
    }

    /// Remembers that a slot cannot be read.
    pub(crate) fn note_damage(
        &mut self,
        group: GroupId,
        index: Index,
        location: Location,
        what: DamageWhat,
    ) {
        let Some(segment) = location.segment() else { return };
        let report = DamageReport {
            file: segment.file(),
            offset: location.offset.into(),
            group: Some(group),
            index: Some(index),
            what,
        };
        self.damage.insert((group, index), report);
        self.groups.get_mut(&group).expect("the slot was found in it").lose(index);
        self.segments.release(&[location]);
    }

    /// What is known of a slot that cannot be served; `None` when it is not damaged.
    fn damage_at(&self, group: GroupId, index: Index) -> Option<Damage> {
        let state = self.groups.get(&group)?;
        let fault = if state.unknown.contains(&index) {
            SlotFault::DamagedUnknown(index)
        } else if state.lost.contains(&index) {
            let placed = state.slots.find(index)?;
            SlotFault::DamagedKnown(Position::new(index, placed.created))
        } else {
            return None;
        };
        if self.pending_hides(group, index) {
            return None;
        }
        let report = self.damage.get(&(group, index)).cloned().unwrap_or(DamageReport {
            file: self.segments.current.file(),
            offset: 0,
            group: Some(group),
            index: Some(index),
            what: DamageWhat::Missing,
        });
        Some(Damage { fault, report })
    }

    /// Writes slots again at the end of the stream, unchanged.
    fn copy_forward(&mut self, group: GroupId, slots: Vec<Slot>) {
        if slots.is_empty() {
            return;
        }
        self.submission += 1;
        let batch = open_batch(&mut self.pending, self.options.batch_size_max);
        batch.submission = self.submission;
        for slot in slots {
            batch.push_slot(group, &slot);
            self.cache.put(group, slot, self.submission);
        }
    }
}

/// Whether an entry lies right behind another.
fn follows(before: Location, location: Location) -> bool {
    before.segment() == location.segment()
        && before.offset.checked_add(before.size) == Some(location.offset)
}
