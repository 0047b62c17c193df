//! What a log says: events, the recovery report, errors and its status. Plain data.

use crate::format::{BatchNumber, SegmentNumber};
use quorate_types::{
    Bounds, DecodeError, DiskError, FileName, GroupId, Index, LogSummary, Slot, SlotFault, WriteId,
};
use std::collections::BTreeMap;
use std::fmt;

/// Names one fetch, so that its answer finds its way back. Chosen by whoever fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

impl fmt::Display for ReadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

/// What became of what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// The rewrite at open is durable. Nothing that [`Recovery`] shows counts as durable before.
    Recovered,
    /// All ops of this write, and of every write submitted before it, are durable.
    Durable {
        /// Whose write.
        group: GroupId,
        /// Which write.
        write: WriteId,
    },
    /// The answer to a fetch: the slots from its first index on, as many as the budget allowed. Empty without
    /// damage when the log has changed there since, or holds nothing there.
    Fetched {
        /// Whose slots.
        group: GroupId,
        /// Which fetch.
        read: ReadId,
        /// Consecutive slots from the first index asked for.
        slots: Vec<Slot>,
        /// What stopped it, when the slot after the last of `slots` cannot be served.
        damaged: Option<Damage>,
    },
    /// Whether the disk refused to give space for another segment. While `full`, what is left is the rest of the
    /// current segment and the reserve: writes should be refused where they come in, deletes and control entries
    /// go on. See [`crate::Log::retry_space`].
    Space {
        /// Whether space is short.
        full: bool,
    },
    /// A write or a sync failed: the log refuses everything from now on, for ever. The node must stop.
    Failed {
        /// What the disk said.
        reason: String,
    },
}

impl fmt::Display for LogEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogEvent::Recovered => f.write_str("recovered"),
            LogEvent::Durable { group, write } => write!(f, "durable({group} {write})"),
            LogEvent::Fetched { group, read, slots, damaged } => {
                write!(f, "fetched({group} {read} {} slots", slots.len())?;
                if let Some(damage) = damaged {
                    write!(f, ", {}", damage.report)?;
                }
                f.write_str(")")
            }
            LogEvent::Space { full } => write!(f, "space(full={full})"),
            LogEvent::Failed { reason } => write!(f, "failed({reason})"),
        }
    }
}

/// A slot that cannot be served, and where its record lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The slot and what is known of it.
    pub fault: SlotFault,
    /// Where and why.
    pub report: DamageReport,
}

/// One damaged place of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamageReport {
    /// The file.
    pub file: FileName,
    /// Where in it, in bytes.
    pub offset: u64,
    /// The group concerned; `None` when nothing readable tells.
    pub group: Option<GroupId>,
    /// The first slot concerned; `None` when no slot is, or nothing readable tells.
    pub index: Option<Index>,
    /// What is wrong there.
    pub what: DamageWhat,
}

impl fmt::Display for DamageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} offset {}", self.file, self.offset)?;
        if let Some(group) = self.group {
            write!(f, " {group}")?;
        }
        if let Some(index) = self.index {
            write!(f, " index {index}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// What is wrong at a damaged place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageWhat {
    /// One of the two copies of a batch's directory is unreadable; the other stands in and nothing is lost.
    #[error("one copy of the directory of batch {0} is unreadable, the other stands in")]
    Copy(BatchNumber),
    /// An entry is not what its record says.
    #[error("the entry is unreadable: {0}")]
    Entry(DecodeError),
    /// An intact entry lies where another belongs: a swapped, misdirected, stale or lost write.
    #[error("another entry lies here: expected check {expected:08x}, found {found:08x}")]
    OtherEntry {
        /// The low half of the content hash that the record names.
        expected: u32,
        /// That of the entry found.
        found: u32,
    },
    /// The device could not read it.
    #[error("{0}")]
    Unreadable(DiskError),
    /// Whole batches are gone that later records prove written and synced.
    #[error("batches {first} to {last} are unreadable although they were synced")]
    Hole {
        /// The first batch missing.
        first: BatchNumber,
        /// The last batch missing.
        last: BatchNumber,
    },
    /// A checkpoint lists a slot whose record is nowhere.
    #[error("the record of this slot is gone")]
    Missing,
    /// What is here contradicts what came before: a lost or stale write.
    #[error("batch {0} does not continue the batch before it")]
    Contradiction(BatchNumber),
    /// The end of the stream is unreadable, and not as a torn batch is.
    #[error("the last batch is unreadable, or one after it: what it held is not known")]
    End,
    /// The hard state is gone; the group may neither vote nor deny.
    #[error("the hard state is damaged")]
    HardState,
}

/// The end of the stream that was cut away at open: written when the node died, never acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub file: FileName,
    /// Where the torn batch begins, in bytes.
    pub offset: u64,
    /// Its number, when any copy of its header is readable.
    pub batch: Option<BatchNumber>,
}

/// What a log found when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Every group that the log holds anything of.
    pub groups: BTreeMap<GroupId, LogSummary>,
    /// Every damaged place, in order of file and offset.
    pub reports: Vec<DamageReport>,
    /// What was cut away at the end.
    pub torn: Option<TornTail>,
    /// How many batches were read back.
    pub batch_count: u64,
    /// How many entries no later record proves synced; they are rewritten before [`LogEvent::Recovered`].
    pub rewritten_count: u64,
}

/// Why a log cannot be opened. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The device failed.
    #[error("cannot read the log: {0}")]
    Disk(#[from] DiskError),
    /// A file of the log folder is none of ours.
    #[error("{file} offset {offset} is not a log segment: {reason}")]
    Foreign {
        /// The file.
        file: FileName,
        /// Where in it, in bytes.
        offset: u64,
        /// Why.
        reason: &'static str,
    },
    /// The log was written by a newer version.
    #[error("{file} offset {offset} has log format {version}, this version reads format {known}")]
    Future {
        /// The file.
        file: FileName,
        /// Where in it, in bytes.
        offset: u64,
        /// The version found.
        version: u32,
        /// The version that this code reads.
        known: u32,
    },
    /// A record with a good checksum makes no sense: a defect of the writer, not of the disk.
    #[error("{file} offset {offset}: batch {batch} has a record that makes no sense: {reason}")]
    Structure {
        /// The file.
        file: FileName,
        /// Where in it, in bytes.
        offset: u64,
        /// The batch.
        batch: BatchNumber,
        /// What is wrong with it.
        reason: DecodeError,
    },
}

/// The account of a log, for status pages and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Whether the rewrite at open is durable.
    pub recovered: bool,
    /// Why the log refuses everything, if it does.
    pub failed: Option<String>,
    /// Whether the disk refused space for another segment.
    pub full: bool,
    /// The segment written to.
    pub segment: SegmentNumber,
    /// Where in it the next batch goes, in bytes.
    pub offset: u64,
    /// How many segments hold live entries or are written to.
    pub segment_count: usize,
    /// How many prepared segments wait.
    pub spare_count: usize,
    /// The bytes of all segment files.
    pub disk_size: u64,
    /// The bytes of all live entries on disk.
    pub live_size: u64,
    /// The bytes of entries held in memory.
    pub cache_size: usize,
    /// The last batch handed to the disk.
    pub batch_written: BatchNumber,
    /// The last batch known synced.
    pub batch_synced: BatchNumber,
    /// Submissions that are not durable yet.
    pub pending_count: usize,
    /// Syncs since open.
    pub sync_count: u64,
    /// Submissions made durable since open.
    pub write_count: u64,
    /// Bytes handed to the disk since open.
    pub written_size: u64,
    /// Each group.
    pub groups: BTreeMap<GroupId, GroupStatus>,
}

/// The part of one group in a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    /// Where its log begins and ends, as written.
    pub bounds: Bounds,
    /// How many segments lie between its oldest entry and the one written to: a group with a high count keeps
    /// others from being recycled and should be snapshotted and purged.
    pub pinned_segment_count: u64,
    /// How many slots cannot be served.
    pub fault_count: usize,
}
