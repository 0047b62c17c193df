//! Streaming a snapshot out.
//!
//! ```text
//!  chunk   0        4          8        12         20
//!          +--------+----------+--------+----------+---------
//!          | magic  | number   | size   | checksum | records ...
//!          +--------+----------+--------+----------+---------
//!  stream  [summary] [origin window]* [member attributes]* [change]* [end]
//! ```
//! The stream is logical: what can be computed from it is left out. `Current` follows from `History`,
//! because compaction never removes a key's newest version. Changes that are unreachable and were not
//! removed yet are left out too, so that two replicas at one applied index stream the same bytes. The
//! checksum of a chunk
//! covers its number, its records and the checksum before it, and the first starts from the digest,
//! so that a chunk that is cut, damaged, out of order or of another snapshot shows at once.

use crate::compaction::is_reachable;
use crate::engine::{Direction, EngineView, Table};
use crate::keys::{GROUP_SIZE, KeyRange, Keys};
use crate::overlay::Overlay;
use crate::record::{FORMAT_VERSION, Summary, read_record};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Applied, ApplyFault, Digest, SNAPSHOT_CHUNK_SIZE, SnapshotSource, Writer};
use xxhash_rust::xxh3::Xxh3;

/// The first bytes of a chunk.
pub(crate) const CHUNK_MAGIC: u32 = u32::from_le_bytes(*b"QSNP");
/// The bytes of a chunk before its records.
pub(crate) const CHUNK_HEADER_SIZE: usize = 20;

/// The first record: format version and summary.
pub(crate) const RECORD_SUMMARY: u8 = 1;
/// The window of one incarnation: its key without the group, its value.
pub(crate) const RECORD_ORIGIN: u8 = 2;
/// The attributes of one member: its key without the group, its value.
pub(crate) const RECORD_MEMBER: u8 = 3;
/// One change, as `History` holds it.
pub(crate) const RECORD_CHANGE: u8 = 4;
/// The last record: how many others there were.
pub(crate) const RECORD_END: u8 = 5;

/// The checksum of a chunk: chained to the one before, or to the digest.
pub(crate) fn chunk_checksum(before: u64, number: u32, records: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(before);
    hasher.update(&number.to_le_bytes());
    hasher.update(records);
    hasher.digest()
}

/// What the first chunk is chained to.
pub(crate) fn chain_start(digest: Digest) -> u64 {
    digest.0 ^ u64::from(FORMAT_VERSION)
}

/// What is streamed next.
enum Stage {
    /// The first record.
    Summary,
    /// The records of a kind, from what is left of a range of a table.
    Table(u8, Table, KeyRange),
    /// The last record.
    End,
    /// Nothing.
    Done,
}

/// A snapshot being read.
pub(crate) struct Capture<V> {
    /// The view it reads.
    overlay: Overlay<V>,
    /// The keys of the group.
    keys: Keys,
    /// The summary of the view.
    summary: Summary,
    /// Whether the view holds no unreachable change.
    is_swept: bool,
    /// Where the stream goes on.
    stage: Stage,
    /// The records so far.
    count: u64,
    /// The chunks so far.
    number: u32,
    /// The checksum of the chunk before.
    checksum: u64,
}

impl<V: EngineView> Capture<V> {
    pub(crate) fn new(
        overlay: Overlay<V>,
        keys: Keys,
        summary: Summary,
        is_swept: bool,
    ) -> Capture<V> {
        let checksum = chain_start(summary.applied.digest);
        let stage = Stage::Summary;
        Capture { overlay, keys, summary, is_swept, stage, count: 0, number: 0, checksum }
    }

    /// Appends records until the chunk is full or the stream is at its end.
    fn fill(&mut self, chunk: &mut BytesMut) -> Result<(), ApplyFault> {
        while chunk.len() < SNAPSHOT_CHUNK_SIZE {
            match std::mem::replace(&mut self.stage, Stage::Done) {
                Stage::Summary => {
                    chunk.put_u8(RECORD_SUMMARY);
                    chunk.write_blob(&self.summary.encode());
                    self.count += 1;
                    self.stage = Stage::Table(RECORD_ORIGIN, Table::State, self.keys.origins());
                }
                Stage::Table(kind, table, range) => {
                    let left = self.fill_from(kind, table, &range, chunk)?;
                    self.stage = match (left, kind) {
                        (Some(left), _) => Stage::Table(kind, table, left),
                        (None, RECORD_ORIGIN) => {
                            Stage::Table(RECORD_MEMBER, Table::State, self.keys.members())
                        }
                        (None, RECORD_MEMBER) => {
                            Stage::Table(RECORD_CHANGE, Table::History, self.keys.all())
                        }
                        (None, _) => Stage::End,
                    };
                }
                Stage::End => {
                    chunk.put_u8(RECORD_END);
                    chunk.put_u64_le(self.count);
                }
                Stage::Done => return Ok(()),
            }
        }
        Ok(())
    }

    /// Appends records of one kind until the chunk is full; what is left of the range, if it is.
    fn fill_from(
        &mut self,
        kind: u8,
        table: Table,
        range: &KeyRange,
        chunk: &mut BytesMut,
    ) -> Result<Option<KeyRange>, ApplyFault> {
        for pair in self.overlay.scan(table, range, Direction::Forward) {
            let (key, value) = pair?;
            if chunk.len() >= SNAPSHOT_CHUNK_SIZE {
                return Ok(Some(KeyRange { start: key, end: range.end.clone() }));
            }
            if kind == RECORD_CHANGE && !self.is_wanted(&value)? {
                continue;
            }
            chunk.put_u8(kind);
            if kind != RECORD_CHANGE {
                chunk.write_blob(&key[GROUP_SIZE..]);
            }
            chunk.write_blob(&value);
            self.count += 1;
        }
        Ok(None)
    }
}

impl<V: EngineView> Capture<V> {
    fn is_wanted(&self, change: &Bytes) -> Result<bool, ApplyFault> {
        if self.is_swept {
            return Ok(true);
        }
        let change = read_record(change.clone())?;
        is_reachable(&self.overlay, self.keys, &change, self.summary.compacted)
    }
}

impl<V: EngineView> SnapshotSource for Capture<V> {
    fn applied(&self) -> Applied {
        self.summary.applied
    }

    fn next_chunk(&mut self) -> Result<Option<Bytes>, ApplyFault> {
        let mut chunk = BytesMut::with_capacity(SNAPSHOT_CHUNK_SIZE + SNAPSHOT_CHUNK_SIZE / 8);
        chunk.resize(CHUNK_HEADER_SIZE, 0);
        self.fill(&mut chunk)?;
        if chunk.len() == CHUNK_HEADER_SIZE {
            return Ok(None);
        }
        let records = &chunk[CHUNK_HEADER_SIZE..];
        let size = u32::try_from(records.len()).expect("a chunk is about 256 KiB and one record");
        self.checksum = chunk_checksum(self.checksum, self.number, records);
        let mut header = &mut chunk[..CHUNK_HEADER_SIZE];
        header.put_u32_le(CHUNK_MAGIC);
        header.put_u32_le(self.number);
        header.put_u32_le(size);
        header.put_u64_le(self.checksum);
        self.number += 1;
        Ok(Some(chunk.freeze()))
    }
}
