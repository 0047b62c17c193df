//! The log's state machine: what is asked, what is told, and the state between.

use crate::batch::{Batch, push_op};
use crate::cache::Cache;
use crate::event::{DamageReport, GroupStatus, LogEvent, LogStatus, ReadId};
use crate::fetch::Reading;
use crate::format::{BatchNumber, Header, SegmentNumber};
use crate::group::Group;
use crate::item::Item;
use crate::options::LogOptions;
use crate::remains::Survey;
use crate::segments::Segments;
use crate::write::Upkeep;
use quorate_types::{
    DiskDone, DiskError, DiskId, DiskOp, DiskRequest, GroupId, Index, Instant, Mistake, Op,
    Position, Slot, WriteId,
};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

/// The durable log of all groups of a node.
///
/// After every call of [`Log::submit`], [`Log::fetch`], [`Log::handle`] or [`Log::on_time`], drain [`Log::poll`] and
/// [`Log::poll_event`]. Submissions made before one `poll` share one write and one sync.
///
/// # Invariants
/// 1. At most one batch is being written; the next is cut only when it is synced.
/// 2. Whatever is not durable yet is in the cache.
/// 3. After a failed write or sync nothing is ever asked, written or reported again.
/// 4. A file is recycled only when nothing live is in it and a later segment's checkpoint is synced.
#[derive(Debug)]
pub struct Log {
    /// Sizes and bounds.
    pub(crate) options: LogOptions,
    /// The written state of each group, as of the last batch cut.
    pub(crate) groups: BTreeMap<GroupId, Group>,
    /// The files.
    pub(crate) segments: Segments,
    /// Recent entries.
    pub(crate) cache: Cache,
    /// Batches that wait for the disk; the last one takes submissions.
    pub(crate) pending: VecDeque<Batch>,
    /// Submissions so far.
    pub(crate) submission: u64,
    /// The last submission that is durable.
    pub(crate) durable_submission: u64,
    /// The end of the stream.
    pub(crate) stream: Stream,
    /// The lowest slot of each group that the last few batches changed.
    pub(crate) recent: VecDeque<(BatchNumber, BTreeMap<GroupId, Index>)>,
    /// When the last batch, if nothing was written since, is to be proved.
    pub(crate) prove_at: Option<Instant>,
    /// The batch being written.
    pub(crate) writing: Option<Writing>,
    /// The proof being written, and its segment.
    pub(crate) proving: Option<(DiskId, SegmentNumber)>,
    /// The work on files being done.
    pub(crate) upkeep: Option<(DiskId, Upkeep)>,
    /// What an earlier life left in the file that is prepared for another.
    pub(crate) survey: Survey,
    /// How large a segment the next batch waits for, in bytes.
    pub(crate) wanted: Option<u64>,
    /// The last segment whose leftovers were copied forward.
    pub(crate) copied: SegmentNumber,
    /// Reads under way.
    pub(crate) reads: BTreeMap<DiskId, Reading>,
    /// Slots that cannot be read, and why.
    pub(crate) damage: BTreeMap<(GroupId, Index), DamageReport>,
    /// What to ask the disk next.
    pub(crate) requests: VecDeque<DiskRequest>,
    /// What to say next.
    pub(crate) events: VecDeque<LogEvent>,
    /// The last disk request.
    pub(crate) disk_id: DiskId,
    /// Whether the rewrite at open is durable.
    pub(crate) recovered: bool,
    /// Whether the disk refused space, and no retry was asked for since.
    pub(crate) refused_space: bool,
    /// Whether space is short.
    pub(crate) full: bool,
    /// Why everything is refused.
    pub(crate) failed: Option<String>,
    /// Counts for the status.
    pub(crate) counts: Counts,
}

/// The end of the stream of batches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stream {
    /// Where the next batch goes in the current segment; meaningless before the first.
    pub(crate) offset: u64,
    /// The number of the next batch.
    pub(crate) next: BatchNumber,
    /// The highest batch known synced.
    pub(crate) synced: BatchNumber,
    /// The batch that a proof was written for.
    pub(crate) proved: BatchNumber,
    /// Where the last proof lies in the current segment: no batch is ever written over it, so that what a torn
    /// batch did not reach still holds zeroes.
    pub(crate) proof: Range<u64>,
    /// The segment, end and chain value of the batch before.
    pub(crate) previous: (SegmentNumber, u64, u32),
}

impl Stream {
    /// Where a batch of `size` bytes goes: at the end of the stream, or behind the last proof.
    pub(crate) fn place(&self, size: u64) -> u64 {
        let overlaps = self.offset < self.proof.end && self.proof.start < self.offset + size;
        if overlaps { self.proof.end } else { self.offset }
    }
}

/// The batch being written.
#[derive(Debug)]
pub(crate) struct Writing {
    /// The request.
    pub(crate) id: DiskId,
    /// The header of the batch.
    pub(crate) header: Header,
    /// Who waits.
    pub(crate) writes: Vec<(GroupId, WriteId)>,
    /// The last submission in it.
    pub(crate) submission: u64,
}

/// Counts since open.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    /// Syncs.
    pub(crate) syncs: u64,
    /// Submissions made durable.
    pub(crate) writes: u64,
    /// Bytes handed to the disk.
    pub(crate) written_size: u64,
}

impl Log {
    /// Persists `ops` of `group` atomically, after everything submitted before. The entries are readable at once
    /// ([`Log::cached`]) and durable with [`LogEvent::Durable`] of this `write`. After a failure it does nothing.
    pub fn submit(&mut self, group: GroupId, write: WriteId, ops: Vec<Op>) {
        if self.failed.is_some() {
            return;
        }
        self.submission += 1;
        let submission = self.submission;
        let batch = open_batch(&mut self.pending, self.options.batch_size_max);
        batch.writes.push((group, write));
        batch.submission = submission;
        batch.reserve(&ops);
        for op in ops {
            match &op {
                Op::Truncate(index) => self.cache.remove(group, *index, Index(u64::MAX)),
                Op::Purge(Position { index, .. }) => {
                    self.cache.remove(group, Index::ZERO, index.next());
                }
                Op::Reset(_, _) => self.cache.remove(group, Index::ZERO, Index(u64::MAX)),
                Op::Write(_) | Op::HardState(_) => {}
            }
            if let Some(slot) = push_op(batch, group, op) {
                self.cache.put(group, slot, submission);
            }
        }
    }

    /// Entries from `first` to `last` that are in memory: as many from `first` on as fit in `budget` bytes, at
    /// least one. `None` when the first is not in memory.
    #[must_use]
    pub fn cached(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        budget: usize,
    ) -> Option<Vec<Slot>> {
        self.cache.read(group, first, last, budget)
    }

    /// Asks for entries from `first` to `last`, from memory or disk, as many from `first` on as fit in `budget`
    /// bytes, at least one. Answered by [`LogEvent::Fetched`] with the same `read`; after a failure, never.
    pub fn fetch(
        &mut self,
        group: GroupId,
        read: ReadId,
        first: Index,
        last: Index,
        budget: usize,
    ) {
        if self.failed.is_none() {
            self.start_fetch(group, read, first, last, budget);
        }
    }

    /// The next thing to ask the disk.
    pub fn poll(&mut self) -> Option<DiskRequest> {
        if self.failed.is_some() {
            return None;
        }
        if self.requests.is_empty() {
            self.advance();
        }
        self.requests.pop_front()
    }

    /// Takes the completion of a request. One that is not of this log is ignored.
    pub fn handle(&mut self, now: Instant, done: DiskDone) {
        if self.failed.is_some() {
            return;
        }
        if let Some(reading) = self.reads.remove(&done.id) {
            self.finish_read(reading, done.result);
        } else if self.writing.as_ref().is_some_and(|writing| writing.id == done.id) {
            match done.result {
                Ok(_) => self.finish_write(now),
                Err(_) if Mistake::FailureForgotten.is_made() => self.finish_write(now),
                Err(error) => self.fail(&error),
            }
        } else if self.proving.is_some_and(|(id, _)| id == done.id) {
            self.proving = None;
            if let Err(error) = done.result {
                self.fail(&error);
            }
        } else if self.upkeep.is_some_and(|(id, _)| id == done.id) {
            self.finish_upkeep(done.result);
        }
    }

    /// When [`Log::on_time`] is due, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.prove_at.filter(|_| self.failed.is_none() && self.may_prove())
    }

    /// Time has passed: a log that was idle for long enough says on disk that its last batch is synced.
    pub fn on_time(&mut self, now: Instant) {
        if self.next_deadline().is_some_and(|at| at <= now) {
            self.prove();
        }
    }

    /// The next thing that happened.
    pub fn poll_event(&mut self) -> Option<LogEvent> {
        self.events.pop_front()
    }

    /// Tries again to get space for the segments that are missing. To be called now and then while
    /// [`LogEvent::Space`] says that the disk is full.
    pub fn retry_space(&mut self) {
        self.refused_space = false;
    }

    /// Whether everything submitted is durable and nothing is under way but reads.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.recovered
            && self.writing.is_none()
            && self.proving.is_none()
            && self.upkeep.is_none()
            && self.requests.is_empty()
            && self.pending.is_empty()
    }

    /// The account of the log.
    #[must_use]
    pub fn status(&self) -> LogStatus {
        let waiting: usize = self.pending.iter().map(|batch| batch.writes.len()).sum();
        let writing = self.writing.as_ref().map_or(0, |writing| writing.writes.len());
        LogStatus {
            recovered: self.recovered,
            failed: self.failed.clone(),
            full: self.full,
            segment: self.segments.current,
            offset: self.stream.offset,
            segment_count: self.segments.used.len(),
            spare_count: self.segments.spares.len(),
            disk_size: self.segments.disk_size(),
            live_size: self.segments.used.values().map(|segment| segment.live_size).sum(),
            cache_size: self.cache.size(),
            batch_written: BatchNumber(self.stream.next.0 - 1),
            batch_synced: self.stream.synced,
            pending_count: waiting + writing,
            sync_count: self.counts.syncs,
            write_count: self.counts.writes,
            written_size: self.counts.written_size,
            groups: self.groups.iter().map(|(id, group)| (*id, self.group_status(group))).collect(),
        }
    }

    fn group_status(&self, group: &Group) -> GroupStatus {
        let oldest = group.slots.first_location().and_then(|location| location.segment());
        let pinned = oldest.map_or(0, |oldest| self.segments.current.0.saturating_sub(oldest.0));
        GroupStatus {
            bounds: group.bounds(),
            pinned_segment_count: pinned,
            fault_count: group.lost.len() + group.unknown.len(),
        }
    }

    /// Asks the disk for something.
    pub(crate) fn request(&mut self, op: DiskOp) -> DiskId {
        self.disk_id = DiskId(self.disk_id.0 + 1);
        self.requests.push_back(DiskRequest { id: self.disk_id, op });
        self.disk_id
    }

    /// Refuses everything from now on: after a failed write or sync nobody knows what the file holds, and a later
    /// sync that succeeds proves nothing of the one that failed.
    pub(crate) fn fail(&mut self, error: &DiskError) {
        let reason = error.to_string();
        self.failed = Some(reason.clone());
        self.requests.clear();
        self.events.push_back(LogEvent::Failed { reason });
    }

    /// Whether a batch that waits changes the slot at `index`, so that what is on disk is no longer true.
    pub(crate) fn pending_hides(&self, group: GroupId, index: Index) -> bool {
        self.pending.iter().flat_map(|batch| &batch.items).any(|item| match item {
            Item::Write(run) => {
                let end = run.first.0 + run.entries.len() as u64;
                run.group == group && run.first <= index && index.0 < end
            }
            Item::Truncate(of, from) => *of == group && *from <= index,
            Item::Purge(of, to) => *of == group && to.index >= index,
            Item::Reset(of, _, _) => *of == group,
            Item::HardState(_, _) | Item::Standing(_) | Item::Checkpoint(_) | Item::Segments(_) => {
                false
            }
        })
    }
}

/// The batch that takes the next submission.
pub(crate) fn open_batch(pending: &mut VecDeque<Batch>, size_max: usize) -> &mut Batch {
    let last_size = pending.back().map(Batch::size);
    if last_size.is_none_or(|size| size >= size_max) {
        pending.push_back(Batch::with_capacity(last_size.unwrap_or(0).min(size_max)));
    }
    pending.back_mut().expect("one was just made sure of")
}
