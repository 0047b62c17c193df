//! How batches reach the disk: placing, openings, proofs, and the upkeep of segment files.

use crate::batch::{Batch, locations};
use crate::event::LogEvent;
use crate::format::{
    BatchNumber, BlockKind, Header, PAGE_SIZE, SegmentNumber, batch_chunks, batch_size,
    directory_size, lone_chunks,
};
use crate::item::{HardRecord, Item, NO_SLOT, Standing};
use crate::log::{Log, Writing};
use crate::remains::{Survey, file_size_for};
use crate::segments::Segment;
use bytes::{Bytes, BytesMut};
use quorate_types::{DiskError, DiskOp, DiskOutput, GroupId, Index, Instant, Mistake};
use std::collections::{BTreeMap, BTreeSet};

/// How many batches back a standing looks: as many as one lost page can hide whole and one more, so that what it
/// hid is always bounded by what comes after it.
const RECENT_COUNT: usize = 5;

/// From how many segments on the leftovers in the oldest are copied forward.
const COPY_SEGMENT_COUNT_MIN: usize = 4;

/// Copying forward is for leftovers: at most this part of a segment.
const COPY_SHARE: u64 = 64;

/// So many prepared files are kept beyond those that are always there, if they had an earlier life: what a purge sets
/// free at one time, so that under load no file is ever deleted only to be made again.
const RECYCLED_COUNT_MAX: usize = 4;

/// Work on a file that no batch is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upkeep {
    /// Zero-writing a segment ahead.
    Allocate {
        /// Which.
        number: SegmentNumber,
        /// Its size in bytes.
        size: u64,
        /// Whether it is wanted now: the spares before it get later numbers.
        first: bool,
    },
    /// Giving a file without live content its next number.
    Rename {
        /// The next number.
        to: SegmentNumber,
        /// Its size in bytes.
        size: u64,
    },
    /// Reading what an earlier life left in a file.
    Survey {
        /// Its number.
        number: SegmentNumber,
        /// Its size in bytes.
        size: u64,
    },
    /// Writing down what it left.
    Conclude {
        /// Its number.
        number: SegmentNumber,
        /// Its size in bytes.
        size: u64,
    },
    /// Deleting a file.
    Delete {
        /// Whether space that was refused may be there afterwards.
        frees_space: bool,
    },
}

impl Log {
    /// Starts whatever can be started.
    pub(crate) fn advance(&mut self) {
        if self.writing.is_none() && (!self.pending.is_empty() || !self.recovered) {
            self.write_next();
        }
        if self.upkeep.is_none() {
            self.start_upkeep();
        }
    }

    /// Writes the batch that waits first, if there is a place for it.
    fn write_next(&mut self) {
        let room = self.segments.spare_room();
        if self.wanted.is_some_and(|wanted| room < wanted) {
            return;
        }
        let mut batch = self.pending.pop_front().unwrap_or_default();
        let bodies = batch.bodies_size as u64;
        if self.recovered {
            let items = self.encode_items(&batch, false);
            let size = batch_size(items.len() as u64, bodies, false);
            let offset = self.stream.place(size);
            let current = self.segments.used.get(&self.segments.current);
            if current.is_some_and(|segment| offset + size + PAGE_SIZE <= segment.limit()) {
                self.stream.offset = offset;
                self.write_batch(&mut batch, items, false);
                return;
            }
        }
        let items = self.encode_items(&batch, true);
        let needed = batch_size(items.len() as u64, bodies, true) + PAGE_SIZE;
        match self.segments.spares.front() {
            Some((number, size)) if room >= needed => {
                self.wanted = None;
                self.segments.used.insert(*number, Segment { size: *size, ..Segment::default() });
                self.segments.current = *number;
                self.segments.spares.pop_front();
                self.stream.offset = 0;
                self.stream.proof = 0..0;
                self.write_batch(&mut batch, items, true);
            }
            _ => {
                self.wanted = Some(needed);
                self.pending.push_front(batch);
            }
        }
    }

    /// The directory of a batch: how groups stand before it, then what it changes.
    fn encode_items(&self, batch: &Batch, opening: bool) -> Bytes {
        let mut buffer = BytesMut::with_capacity(batch.size() - batch.bodies_size + 256);
        if opening {
            let ends = self.segments.used.iter().map(|(number, segment)| (*number, segment.end));
            Item::Segments(ends.collect()).encode(&mut buffer);
            for (id, group) in &self.groups {
                Item::Checkpoint(group.checkpoint(*id)).encode(&mut buffer);
            }
        } else {
            self.encode_standings(batch.items.iter().filter_map(Item::group), &mut buffer);
        }
        batch.items.iter().for_each(|item| item.encode(&mut buffer));
        buffer.freeze()
    }

    /// How the groups that a batch or the recent ones touch stand now.
    fn encode_standings(&self, groups: impl Iterator<Item = GroupId>, buffer: &mut BytesMut) {
        let mut lows: BTreeMap<GroupId, Vec<(BatchNumber, Index)>> = BTreeMap::new();
        for (batch, touched) in &self.recent {
            for (group, low) in touched {
                lows.entry(*group).or_default().push((*batch, *low));
            }
        }
        let mut seen = None;
        for group in groups.filter(|group| seen.replace(*group) != Some(*group)) {
            lows.entry(group).or_default();
        }
        let oldest = self.recent.front().map_or(self.stream.next, |(batch, _)| *batch);
        let since = BatchNumber(oldest.0 - 1);
        let nothing = crate::group::Group::default();
        for (id, lows) in lows {
            let group = self.groups.get(&id).unwrap_or(&nothing);
            let last = group.bounds().last;
            let (hard, purged) = (group.hard, group.purged);
            let standing = Standing { group: id, since, lows, hard, purged, last };
            Item::Standing(standing).encode(buffer);
        }
    }

    /// Hands a batch to the disk at the end of the stream, and takes over what it changes.
    fn write_batch(&mut self, batch: &mut Batch, items: Bytes, opening: bool) {
        let (previous_segment, previous_end, previous_chain) = self.stream.previous;
        let small = |size: u64| u32::try_from(size).expect("one batch is below 4 GiB");
        let total = batch_size(items.len() as u64, batch.bodies_size as u64, opening);
        let header = Header {
            kind: BlockKind::Head,
            opening,
            items_size: small(items.len() as u64),
            segment: self.segments.current,
            offset: self.stream.offset,
            batch: self.stream.next,
            synced: match Mistake::SyncedTooFar.is_made() && !opening {
                true => self.stream.next,
                false => self.stream.synced,
            },
            previous_segment,
            previous_end,
            previous_chain,
            items_crc: crc32c::crc32c(&items),
            bodies_size: small(batch.bodies_size as u64),
            total_size: small(total),
        };
        assert!(self.writing.is_none(), "batch {} is still being written", header.batch);
        self.apply(batch, &header);
        let segment = self.segments.used.get_mut(&header.segment);
        segment.expect("the current segment is in use").end = header.end();
        self.stream.offset = header.end();
        self.stream.next = header.batch.next();
        self.stream.previous = (header.segment, header.end(), header.chain());
        self.counts.written_size += total;
        let data = batch_chunks(&header, &items, batch.take_bodies());
        let file = header.segment.file();
        let id = self.request(DiskOp::Write { file, offset: header.offset, data, sync: true });
        let writes = std::mem::take(&mut batch.writes);
        self.writing = Some(Writing { id, header, writes, submission: batch.submission });
        if Mistake::RecycledEarly.is_made() {
            self.retire_dead();
        }
    }

    /// Takes over what a batch changes, now that its place is known.
    fn apply(&mut self, batch: &mut Batch, header: &Header) {
        let mut freed = Vec::new();
        let mut lows = BTreeMap::new();
        let mut configurations = batch.configurations.drain(..).peekable();
        for (number, item) in batch.items.drain(..).enumerate() {
            let Some(id) = item.group() else { continue };
            let low = item.low();
            let lowest = lows.entry(id).or_insert(NO_SLOT);
            *lowest = low.map_or(*lowest, |low| low.min(*lowest));
            let group = self.groups.entry(id).or_default();
            let mut free = |location| freed.push(location);
            match item {
                Item::HardState(_, state) => group.hard = HardRecord::Known(state),
                Item::Write(run) => {
                    let size = run.entries.iter().map(|mark| u64::from(mark.size)).sum();
                    let count = run.entries.len() as u64;
                    self.segments.hold_many(header.segment, count, size);
                    let places = locations(&run, header.segment, header.bodies_offset());
                    group.write(&run, places, &mut free);
                }
                Item::Truncate(_, index) => group.truncate(index, &mut free),
                Item::Purge(_, position) => group.purge(position, &mut free),
                Item::Reset(_, position, configuration) => {
                    group.reset(position, configuration, &mut free);
                }
                Item::Standing(_) | Item::Checkpoint(_) | Item::Segments(_) => {}
            }
            while let Some((_, of, index, configuration)) =
                configurations.next_if(|(at, ..)| *at == number)
            {
                let group = self.groups.entry(of).or_default();
                if index > group.purged.index {
                    group.configurations.insert(index, configuration);
                }
            }
        }
        self.segments.release(&freed);
        self.recent.push_back((header.batch, lows));
        if self.recent.len() > RECENT_COUNT {
            self.recent.pop_front();
        }
        if header.opening {
            self.prune_damage();
        }
    }

    /// Forgets the reports of slots that have been repaired since; once a segment is often enough.
    fn prune_damage(&mut self) {
        let groups = &self.groups;
        self.damage.retain(|(id, index), _| {
            groups
                .get(id)
                .is_some_and(|group| group.lost.contains(index) || group.unknown.contains(index))
        });
    }

    /// The batch is written and synced.
    pub(crate) fn finish_write(&mut self, now: Instant) {
        let writing = self.writing.take().expect("its completion was just matched");
        self.stream.synced = writing.header.batch;
        self.prove_at = Some(now + self.options.prove_after);
        self.durable_submission = self.durable_submission.max(writing.submission);
        self.counts.syncs += 1;
        self.counts.writes += writing.writes.len() as u64;
        if !self.recovered {
            self.recovered = true;
            self.events.push_back(LogEvent::Recovered);
        }
        for (group, write) in writing.writes {
            self.events.push_back(LogEvent::Durable { group, write });
        }
        self.cache.evict(self.options.cache_size_max, self.durable_submission);
        self.cache.trim();
        // Now, and only now: what made a segment dead is synced, and so is the checkpoint of the current segment.
        self.retire_dead();
    }

    /// Gives up segments that nothing is live in.
    fn retire_dead(&mut self) {
        while let Some((number, size)) = self.segments.dead() {
            if self.proving.is_some_and(|(_, segment)| segment == number) {
                break;
            }
            self.segments.used.remove(&number);
            self.segments.leftovers.insert(number, size);
        }
    }

    /// Whether nothing waits, and the last batch is not proved yet.
    pub(crate) fn may_prove(&self) -> bool {
        self.recovered
            && self.writing.is_none()
            && self.proving.is_none()
            && self.pending.is_empty()
            && self.stream.proved != self.stream.synced
    }

    /// Says on disk that the last batch is synced, in the next page. It need not be synced itself: it only helps a
    /// later open to tell damage from a torn end.
    pub(crate) fn prove(&mut self) {
        self.stream.proved = self.stream.synced;
        let mut buffer = BytesMut::new();
        self.encode_standings(std::iter::empty(), &mut buffer);
        let items = buffer.freeze();
        let offset = self.stream.offset.next_multiple_of(PAGE_SIZE);
        let total = directory_size(items.len() as u64);
        let current = self.segments.used.get(&self.segments.current);
        if current.is_none_or(|segment| offset + total > segment.limit()) {
            return;
        }
        let (previous_segment, previous_end, previous_chain) = self.stream.previous;
        let header = Header {
            kind: BlockKind::Proof,
            opening: false,
            items_size: u32::try_from(items.len()).expect("below the size of a segment"),
            segment: self.segments.current,
            offset,
            batch: self.stream.synced,
            synced: self.stream.synced,
            previous_segment,
            previous_end,
            previous_chain,
            items_crc: crc32c::crc32c(&items),
            bodies_size: 0,
            total_size: u32::try_from(total).expect("below the size of a segment"),
        };
        self.counts.written_size += total;
        let (file, data) = (header.segment.file(), lone_chunks(&header, items));
        let id = self.request(DiskOp::Write { file, offset, data, sync: false });
        self.stream.proof = offset..offset + total;
        self.proving = Some((id, header.segment));
    }

    /// Starts the most urgent work on files, if there is any.
    fn start_upkeep(&mut self) {
        let target = 1 + self.options.reserve_count;
        let short = self.segments.spares.len() < target;
        if let Some(needed) = self.wanted
            && self.segments.spare_room() < needed
            && !self.refused_space
        {
            let size = file_size_for(needed).max(self.options.segment_size);
            let number = self.segments.next_number();
            self.allocate(number, size, true);
            return;
        }
        if !self.recovered && !self.refused_space {
            return;
        }
        if let Some((number, size)) = self.segments.leftovers.pop_first() {
            let from = number.file();
            let kept = if self.full { target } else { target + RECYCLED_COUNT_MAX };
            let is_of_use = self.segments.spares.len() < kept;
            if is_of_use && size == self.options.segment_size {
                let to = self.segments.next_number();
                let id = self.request(DiskOp::Rename { from, to: to.file() });
                self.upkeep = Some((id, Upkeep::Rename { to, size }));
            } else {
                let id = self.request(DiskOp::Delete { file: from });
                self.upkeep = Some((id, Upkeep::Delete { frees_space: true }));
            }
        } else if short && !self.refused_space {
            let number = self.segments.next_number();
            self.allocate(number, self.options.segment_size, false);
        } else if self.recovered {
            self.maybe_copy_forward();
        }
    }

    fn allocate(&mut self, number: SegmentNumber, size: u64, first: bool) {
        let id = self.request(DiskOp::Allocate { file: number.file(), size });
        self.upkeep = Some((id, Upkeep::Allocate { number, size, first }));
    }

    /// Takes the end of the work on a file.
    pub(crate) fn finish_upkeep(&mut self, result: Result<DiskOutput, DiskError>) {
        let (_, upkeep) = self.upkeep.take().expect("its completion was just matched");
        match (upkeep, result) {
            (Upkeep::Allocate { number, .. }, Err(DiskError::NoSpace(_))) => {
                self.refused_space = true;
                if !self.full {
                    self.full = true;
                    self.events.push_back(LogEvent::Space { full: true });
                }
                let id = self.request(DiskOp::Delete { file: number.file() });
                self.upkeep = Some((id, Upkeep::Delete { frees_space: false }));
            }
            (Upkeep::Survey { number, .. }, Err(_)) => {
                // The device cannot read it: it may hold nothing of use, but another file serves better.
                let id = self.request(DiskOp::Delete { file: number.file() });
                self.upkeep = Some((id, Upkeep::Delete { frees_space: true }));
            }
            (_, Err(error)) => self.fail(&error),
            (Upkeep::Allocate { number, size, first }, Ok(_)) => {
                self.add_spare(number, size, first);
            }
            (Upkeep::Rename { to, size }, Ok(_)) if self.options.zero_recycled => {
                self.allocate(to, size, false);
            }
            (Upkeep::Rename { to, size }, Ok(_)) => {
                self.survey = Survey::default();
                self.survey_on(to, size);
            }
            (Upkeep::Survey { number, size }, Ok(DiskOutput::Read(piece))) => {
                self.survey.add(&piece);
                self.survey_on(number, size);
            }
            (Upkeep::Survey { number, .. }, Ok(DiskOutput::Done)) => {
                unreachable!("a read of {} gives bytes", number.file())
            }
            (Upkeep::Conclude { number, size }, Ok(_)) => self.add_spare(number, size, false),
            (Upkeep::Delete { frees_space }, Ok(_)) => {
                if frees_space {
                    self.refused_space = false;
                }
            }
        }
    }

    /// Reads the next piece of what an earlier life left in a file, or writes down what was found.
    fn survey_on(&mut self, number: SegmentNumber, size: u64) {
        let file = number.file();
        if let Some((offset, piece)) = self.survey.next(size) {
            let id = self.request(DiskOp::Read { file, offset, size: piece });
            self.upkeep = Some((id, Upkeep::Survey { number, size }));
        } else {
            let (offset, data) = self.survey.block(number, size);
            // The sync makes durable what was read, too: not all that the earlier life wrote last was synced.
            let id = self.request(DiskOp::Write { file, offset, data, sync: true });
            self.upkeep = Some((id, Upkeep::Conclude { number, size }));
        }
    }

    fn add_spare(&mut self, number: SegmentNumber, size: u64, first: bool) {
        if first {
            // Segments are used in order of number: the smaller ones before are renamed.
            let smaller = std::mem::take(&mut self.segments.spares);
            self.segments.leftovers.extend(smaller);
        }
        self.segments.spares.push_back((number, size));
        if self.full && self.segments.spares.len() > self.options.reserve_count {
            self.full = false;
            // Nobody is asked to try again any more, so the next time that space is missing it must be tried.
            self.refused_space = false;
            self.events.push_back(LogEvent::Space { full: false });
        }
    }

    /// Copies what little is live in the oldest segment into the stream, so that the file can be recycled.
    fn maybe_copy_forward(&mut self) {
        if self.segments.used.len() < COPY_SEGMENT_COUNT_MIN {
            return;
        }
        let Some((&oldest, segment)) = self.segments.used.first_key_value() else { return };
        let few = segment.live_size <= self.options.segment_size / COPY_SHARE;
        if oldest >= self.segments.current || oldest == self.copied || !few {
            return;
        }
        self.copied = oldest;
        let mut live: BTreeSet<(u32, GroupId, Index)> = BTreeSet::new();
        for (id, group) in &self.groups {
            for (first, run) in group.slots.runs() {
                for (location, index) in run.locations.iter().zip(first.0..) {
                    if location.segment() == Some(oldest) {
                        live.insert((location.offset, *id, Index(index)));
                    }
                }
            }
        }
        for (_, group, index) in live {
            self.start_copy(group, index);
        }
    }
}
