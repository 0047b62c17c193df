//! How a log is opened: scan, replay, and what must be written again before anything counts.

use crate::batch::{Batch, locations};
use crate::cache::Cache;
use crate::event::{DamageReport, OpenError, Recovery};
use crate::fetch::decode_entry;
use crate::format::{BatchNumber, FOLDER, SegmentNumber};
use crate::item::{Item, WriteRun};
use crate::log::{Counts, Log, Stream};
use crate::options::LogOptions;
use crate::remains::Survey;
use crate::replay::{Replay, replay};
use crate::scan::{ScannedBatch, ScannedSegment, read_file, scan};
use crate::segments::{Segment, Segments};
use quorate_types::{DiskId, DiskReader, GroupId, Index, Mistake, Slot};
use std::collections::{BTreeMap, VecDeque};

impl Log {
    /// Reads the log of a data folder back, through `reader`. Changes nothing; the first requests of
    /// [`Log::poll`] then write a checkpoint, and again every entry that no later record proves synced, into a
    /// fresh segment. [`crate::LogEvent::Recovered`] tells that this is durable.
    ///
    /// Damage is no error: it is reported, and the slots concerned are faults of their group's summary.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        reader: &dyn DiskReader,
        options: LogOptions,
    ) -> Result<(Log, Recovery), OpenError> {
        let options = options.checked();
        let files = list(reader)?;
        let scanned = scan_all(reader, &files)?;
        let replay = replay(&scanned)?;
        let mut log = Log::assemble(options, &files, &scanned, &replay);
        let rewritten_count = log.rewrite_unproven(reader, &scanned, &replay)?;
        log.note_recovered_damage(&replay);
        let mut reports: Vec<DamageReport> = replay.reports;
        reports.extend(log.damage.values().cloned());
        let place = |report: &DamageReport| {
            (report.file.clone(), report.offset, report.group, report.index)
        };
        reports.sort_by_key(place);
        reports.dedup();
        let recovery = Recovery {
            groups: log.groups.iter().map(|(id, group)| (*id, group.summary())).collect(),
            reports,
            torn: replay.torn,
            batch_count: replay.batch_count,
            rewritten_count,
        };
        Ok((log, recovery))
    }

    fn assemble(
        options: LogOptions,
        files: &BTreeMap<SegmentNumber, u64>,
        scanned: &[ScannedSegment],
        replay: &Replay,
    ) -> Log {
        let mut segments = sort_files(&options, files, scanned);
        for (number, segment) in &mut segments.used {
            segment.end = replay.ends.get(number).copied().unwrap_or(0);
        }
        for group in replay.groups.values() {
            for location in group.slots.runs().flat_map(|(_, run)| &run.locations) {
                if let Some(segment) = location.segment() {
                    segments.hold(segment, location.size);
                }
            }
        }
        let previous = replay
            .last
            .map_or((SegmentNumber(0), 0, 0), |last| (last.segment, last.end(), last.chain()));
        let stream = Stream {
            offset: 0,
            next: replay.highest.next(),
            synced: replay.proven,
            proved: BatchNumber(0),
            proof: 0..0,
            previous,
        };
        Log {
            options,
            groups: replay.groups.clone(),
            segments,
            cache: Cache::default(),
            pending: VecDeque::new(),
            submission: 0,
            durable_submission: 0,
            stream,
            recent: VecDeque::new(),
            prove_at: None,
            writing: None,
            proving: None,
            upkeep: None,
            survey: Survey::default(),
            wanted: None,
            copied: SegmentNumber(0),
            reads: BTreeMap::new(),
            damage: BTreeMap::new(),
            requests: VecDeque::new(),
            events: VecDeque::new(),
            disk_id: DiskId(0),
            recovered: false,
            refused_space: false,
            full: false,
            failed: None,
            counts: Counts::default(),
        }
    }

    /// Puts every live entry of the batches that nothing proves synced into the first batch: the page cache may
    /// show bytes that never reached the disk.
    fn rewrite_unproven(
        &mut self,
        reader: &dyn DiskReader,
        scanned: &[ScannedSegment],
        replay: &Replay,
    ) -> Result<u64, OpenError> {
        let mut batch = Batch::default();
        let mut count = 0;
        self.submission += 1;
        batch.submission = self.submission;
        let batches = scanned.iter().flat_map(|segment| &segment.batches);
        let is_unproven = |found: &&ScannedBatch| {
            !replay.is_proven(found.header.batch) && !Mistake::TailNotRewritten.is_made()
        };
        for found in batches.filter(is_unproven) {
            for item in found.items.iter().flatten() {
                let Item::Write(run) = item else { continue };
                let segment = found.header.segment;
                for slot in self.live_slots(reader, run, segment, found.header.bodies_offset())? {
                    batch.push_slot(run.group, &slot);
                    self.cache.put(run.group, slot, self.submission);
                    count += 1;
                }
            }
        }
        self.pending.push_back(batch);
        Ok(count)
    }

    /// The slots of a run whose entries are the live ones.
    fn live_slots(
        &mut self,
        reader: &dyn DiskReader,
        run: &WriteRun,
        segment: SegmentNumber,
        bodies_offset: u64,
    ) -> Result<Vec<Slot>, OpenError> {
        let mut slots = Vec::new();
        let places: Vec<_> = locations(run, segment, bodies_offset).collect();
        for (location, index) in places.into_iter().zip(run.first.0..) {
            let index = Index(index);
            let group = self.groups.get_mut(&run.group);
            let live = group.and_then(|group| group.slots.find(index));
            if live.is_none_or(|placed| placed.location != location) {
                continue;
            }
            let size = u64::from(location.size);
            let bytes = reader.read(&segment.file(), location.offset.into(), size)?;
            match decode_entry(bytes, location.check) {
                Ok(entry) => slots.push(Slot { index, accepted: run.accepted, entry }),
                Err(what) => self.lose_slot(run.group, index, what),
            }
        }
        Ok(slots)
    }

    fn note_recovered_damage(&mut self, replay: &Replay) {
        for (key, report) in &replay.damage {
            self.damage.entry(*key).or_insert_with(|| report.clone());
        }
    }
}

/// The segment files of the folder with their sizes.
fn list(reader: &dyn DiskReader) -> Result<BTreeMap<SegmentNumber, u64>, OpenError> {
    let mut files = BTreeMap::new();
    for (file, size) in reader.list(FOLDER)? {
        let Some(number) = SegmentNumber::from_file(&file) else {
            let reason = "its name is not of the form <16 hex digits>.seg";
            return Err(OpenError::Foreign { file, offset: 0, reason });
        };
        check_segment(number, size)?;
        files.insert(number, size);
    }
    Ok(files)
}

/// Whether a file can be one of ours by its number and its size: places in it are kept in 32 bits each.
pub(crate) fn check_segment(number: SegmentNumber, size: u64) -> Result<(), OpenError> {
    if size <= u64::from(u32::MAX) && number.0 <= u64::from(u32::MAX) {
        return Ok(());
    }
    let reason = "no segment is as large or has such a number";
    Err(OpenError::Foreign { file: number.file(), offset: 0, reason })
}

/// Scans every file, the last one first: a segment's opening batch says where the stream left the one before.
fn scan_all(
    reader: &dyn DiskReader,
    files: &BTreeMap<SegmentNumber, u64>,
) -> Result<Vec<ScannedSegment>, OpenError> {
    let mut limits: BTreeMap<SegmentNumber, u64> = BTreeMap::new();
    let mut scanned = Vec::new();
    for (number, size) in files.iter().rev() {
        let content = read_file(reader, &number.file(), *size)?;
        let segment = scan(&content, *number, limits.get(number).copied())?;
        let opening = segment.batches.first().filter(|batch| batch.header.opening);
        for item in opening.and_then(|batch| batch.items.as_ref()).into_iter().flatten() {
            if let Item::Segments(ends) = item {
                ends.iter().for_each(|(older, end)| {
                    limits.entry(*older).or_insert(*end);
                });
            }
        }
        scanned.push(segment);
    }
    let empty = |segment: &ScannedSegment| segment.batches.is_empty() && segment.proofs.is_empty();
    if scanned.iter().all(empty)
        && let Some(segment) = scanned.iter().find(|segment| segment.foreign)
    {
        let reason = "it holds bytes, but no batch";
        return Err(OpenError::Foreign { file: segment.number.file(), offset: 0, reason });
    }
    scanned.reverse();
    Ok(scanned)
}

/// Sorts the files into those with content, prepared ones, and those that no longer matter.
fn sort_files(
    options: &LogOptions,
    files: &BTreeMap<SegmentNumber, u64>,
    scanned: &[ScannedSegment],
) -> Segments {
    let mut segments = Segments::default();
    let holds =
        |segment: &&ScannedSegment| !segment.batches.is_empty() || !segment.proofs.is_empty();
    for segment in scanned.iter().filter(holds) {
        let size = segment.size;
        segments.used.insert(segment.number, Segment { size, ..Segment::default() });
        segments.current = segment.number;
    }
    let prepared: Vec<SegmentNumber> =
        scanned.iter().filter(|found| found.prepared).map(|found| found.number).collect();
    for (number, size) in files {
        segments.highest = segments.highest.max(*number);
        if segments.used.contains_key(number) {
            continue;
        }
        let fits = *size == options.segment_size && prepared.contains(number);
        if *number > segments.current && fits {
            segments.spares.push_back((*number, *size));
        } else {
            segments.leftovers.insert(*number, *size);
        }
    }
    segments
}

impl Log {
    /// A slot that could be read a moment ago no longer can.
    fn lose_slot(&mut self, group: GroupId, index: Index, what: crate::event::DamageWhat) {
        let placed = self.groups.get(&group).and_then(|state| state.slots.find(index));
        if let Some(placed) = placed {
            self.note_damage(group, index, placed.location, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_a_segment_fit_in_32_bits_each() {
        let most = u64::from(u32::MAX);
        assert!(check_segment(SegmentNumber(most), most).is_ok());
        assert!(check_segment(SegmentNumber(most + 1), most).is_err());
        assert!(check_segment(SegmentNumber(most), most + 1).is_err());
    }
}
