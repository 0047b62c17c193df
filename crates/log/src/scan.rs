//! How one segment file is read back: which batches are in it, and what of them is readable.

use crate::event::{DamageWhat, OpenError};
use crate::fetch::decode_entry;
use crate::format::{
    BLOCK_SIZE, BlockKind, FORMAT_VERSION, HEADER_SIZE, Header, MAGIC, NoBlock, PAGE_SIZE,
    SegmentNumber,
};
use crate::item::{Item, WriteRun};
use crate::remains::{Unwritten, is_zero, remains_offset};
use bytes::{Bytes, BytesMut};
use quorate_types::{
    Configuration, DecodeError, DiskError, DiskReader, Entry, EntryKind, FileName, Index,
};

/// What stands in for pages that the device cannot read: neither zeroes nor anything of ours.
const UNREADABLE_FILL: u8 = 0xA5;

/// A segment as read back.
#[derive(Debug)]
pub(crate) struct ScannedSegment {
    /// Its number.
    pub(crate) number: SegmentNumber,
    /// The size of its file in bytes.
    pub(crate) size: u64,
    /// Its batches, in order.
    pub(crate) batches: Vec<ScannedBatch>,
    /// Its readable proofs, in order.
    pub(crate) proofs: Vec<(Header, Vec<Item>)>,
    /// Whether an unwritten sector of it shows: it holds zeroes only, or says what an earlier life left in it.
    pub(crate) prepared: bool,
    /// Where a batch may lie behind the last one that no copy of its header tells of any more: something was written there
    /// and cannot be read, and no torn write leaves that. Of the last segment with batches only it means anything.
    pub(crate) lost_end: Option<u64>,
    /// Whether the file begins with neither zeroes nor a block.
    pub(crate) foreign: bool,
}

/// A batch as read back.
#[derive(Debug)]
pub(crate) struct ScannedBatch {
    /// Its header.
    pub(crate) header: Header,
    /// Its directory; `None` when neither copy is readable.
    pub(crate) items: Option<Vec<Item>>,
    /// The place of a copy of the directory that is unreadable while the other one is good.
    pub(crate) bad_copy: Option<u64>,
    /// The entries that are not readable, in order.
    pub(crate) bad_entries: Vec<BadEntry>,
    /// The configurations among its entries: their item in the directory, and their place.
    pub(crate) configurations: Vec<(usize, Index, Configuration)>,
    /// Whether every unreadable part of it has a sector that was never written: it is torn.
    pub(crate) unwritten: bool,
}

/// An entry that is not readable.
#[derive(Debug)]
pub(crate) struct BadEntry {
    /// Its item in the directory.
    pub(crate) item: usize,
    /// Its place in the run.
    pub(crate) place: usize,
    /// Where it lies in the file, in bytes.
    pub(crate) offset: u64,
    /// Why.
    pub(crate) what: DamageWhat,
}

/// Reads a whole file; pages that the device cannot read are filled with a mark.
pub(crate) fn read_file(
    reader: &dyn DiskReader,
    file: &FileName,
    size: u64,
) -> Result<Bytes, DiskError> {
    match reader.read(file, 0, size) {
        Ok(bytes) => return Ok(bytes),
        Err(error @ (DiskError::NotFound(_) | DiskError::NoSpace(_))) => return Err(error),
        Err(DiskError::Io { .. }) => {}
    }
    let mut content = BytesMut::new();
    for at in (0..size).step_by(PAGE_SIZE as usize) {
        let wanted = usize::try_from(PAGE_SIZE.min(size - at)).expect("at most a page");
        let end = content.len() + wanted;
        if let Ok(page) = reader.read(file, at, wanted as u64) {
            content.extend_from_slice(&page[..page.len().min(wanted)]);
        }
        content.resize(end, UNREADABLE_FILL);
    }
    Ok(content.freeze())
}

/// Walks the batches of a segment up to `limit`, where a later segment says that the stream left it.
pub(crate) fn scan(
    file: &Bytes,
    number: SegmentNumber,
    limit: Option<u64>,
) -> Result<ScannedSegment, OpenError> {
    if let Err(NoBlock::Version(version)) = Header::decode(file, number, 0) {
        let file = number.file();
        return Err(OpenError::Future { file, offset: 0, version, known: FORMAT_VERSION });
    }
    let unwritten = Unwritten::of(file, number);
    let surveyed = matches!(unwritten, Unwritten::Sums(_));
    let mut scanner = Scanner {
        file,
        number,
        unwritten,
        segment: ScannedSegment {
            number,
            size: file.len() as u64,
            batches: Vec::new(),
            proofs: Vec::new(),
            prepared: surveyed || is_zero(file),
            lost_end: None,
            foreign: is_foreign(file),
        },
    };
    let limit = limit.unwrap_or(u64::MAX).min(file.len() as u64);
    let mut at = 0;
    while at < limit {
        let Some(header) = scanner.next_batch(at, limit) else { break };
        at = header.end();
        let batch = scanner.read_batch(header)?;
        scanner.segment.batches.push(batch);
    }
    scanner.find_proofs(at, file.len() as u64);
    scanner.segment.lost_end = scanner.lost_end(at);
    Ok(scanner.segment)
}

/// Whether a file begins with something that neither we nor a torn write of ours put there.
fn is_foreign(file: &Bytes) -> bool {
    let begin = &file[..file.len().min(MAGIC.len())];
    let same = begin.iter().zip(MAGIC).take_while(|(byte, magic)| **byte == *magic).count();
    !is_zero(&begin[same..])
}

/// Walks one file.
struct Scanner<'a> {
    /// Its content.
    file: &'a Bytes,
    /// Its segment.
    number: SegmentNumber,
    /// What tells its unwritten sectors from others.
    unwritten: Unwritten,
    /// What was found.
    segment: ScannedSegment,
}

impl Scanner<'_> {
    /// The first batch at or after `at`, by either copy of its directory. What lies between is lost.
    fn next_batch(&mut self, at: u64, limit: u64) -> Option<Header> {
        let mut place = at;
        while place < limit {
            if let Ok(header) = Header::decode(self.file, self.number, place) {
                match header.kind {
                    BlockKind::Head if header.end() <= limit => return Some(header),
                    BlockKind::Tail if header.offset >= at && header.end() <= limit => {
                        return Some(Header { kind: BlockKind::Head, ..header });
                    }
                    BlockKind::Head | BlockKind::Tail | BlockKind::Remains => {}
                    BlockKind::Proof => self.add_proof(header),
                }
            }
            place += BLOCK_SIZE;
        }
        None
    }

    fn add_proof(&mut self, header: Header) {
        let known = self.segment.proofs.iter().any(|(proof, _)| *proof == header);
        let items = self.directory_at(header.offset, &header);
        if let (false, Some(Ok(items))) = (known, items) {
            self.segment.proofs.push((header, items));
        }
    }

    /// Proofs stand at the beginning of a page beyond the last batch.
    fn find_proofs(&mut self, from: u64, to: u64) {
        let mut place = from.next_multiple_of(PAGE_SIZE);
        while place < to {
            if let Ok(header) = Header::decode(self.file, self.number, place)
                && header.kind == BlockKind::Proof
            {
                self.add_proof(header);
            }
            place += PAGE_SIZE;
        }
    }

    /// Whether a batch may have begun at `end`, where the last readable one ends, or behind the proof of that one, and is
    /// unreadable with both copies of its directory. A torn batch leaves its first sector unwritten, or readable, or nothing
    /// behind it; a page that the device cannot read is never torn. A proof may be torn while a batch is on its way behind it.
    fn lost_end(&self, end: u64) -> Option<u64> {
        let proof = end.next_multiple_of(PAGE_SIZE);
        let is_torn = Header::is_torn_proof_at(self.file, self.number, proof);
        let is_proof =
            is_torn || self.segment.proofs.iter().any(|(header, _)| header.offset == proof);
        let behind = if is_proof { proof + BLOCK_SIZE } else { end };
        let is_page = |offset: u64| {
            offset + PAGE_SIZE <= remains_offset(self.file.len() as u64)
                && self.slice(offset, PAGE_SIZE).iter().all(|byte| *byte == UNREADABLE_FILL)
        };
        let may_begin = |offset: &u64| !(is_proof && *offset == proof) && self.is_garbage(*offset);
        let lost = [end, behind].into_iter().find(may_begin);
        lost.or_else(|| is_page(proof).then_some(proof))
    }

    /// Whether two sectors were written and the first is no block. One of zeroes, or a header of an earlier life, is what a
    /// batch that never came leaves, also where the remains do not know it.
    fn is_garbage(&self, offset: u64) -> bool {
        let (second, end) = (offset + BLOCK_SIZE, offset + 2 * BLOCK_SIZE);
        let sector = |at: u64| self.slice(at, BLOCK_SIZE);
        let is_written = |at: u64| !self.unwritten.is_sector(at, &sector(at));
        end <= remains_offset(self.file.len() as u64)
            && !Header::is_any_at(self.file, offset)
            && !is_zero(&sector(offset))
            && is_written(offset)
            && is_written(second)
    }

    fn slice(&self, start: u64, size: u64) -> Bytes {
        let start = usize::try_from(start).expect("inside a file that fits in memory");
        let size = usize::try_from(size).expect("inside a file that fits in memory");
        self.file.slice(start..start + size)
    }

    /// The directory behind the block at `place`, if it is the one that the header names.
    fn directory_at(&self, place: u64, header: &Header) -> Option<Result<Vec<Item>, DecodeError>> {
        let items = self.slice(place + HEADER_SIZE as u64, header.items_size.into());
        (crc32c::crc32c(&items) == header.items_crc).then(|| Item::decode_all(items))
    }

    fn read_batch(&self, header: Header) -> Result<ScannedBatch, OpenError> {
        let tail = Header { kind: BlockKind::Tail, ..header };
        let readable = |place: u64, expected: Header| {
            let found = Header::decode(self.file, self.number, place);
            (found == Ok(expected)).then(|| self.directory_at(place, &header)).flatten()
        };
        let head_copy = readable(header.offset, header);
        let tail_copy = readable(header.tail_offset(), tail);
        let size = HEADER_SIZE as u64 + u64::from(header.items_size);
        let mut bad_parts = Vec::new();
        let bad_copy = match (&head_copy, &tail_copy) {
            (Some(_), Some(_)) => None,
            (None, _) => Some(header.offset),
            (Some(_), None) => Some(header.tail_offset()),
        };
        bad_parts.extend(bad_copy.map(|place| (place, size)));
        if head_copy.is_none() && tail_copy.is_none() {
            bad_parts.push((header.tail_offset(), size));
        }
        let mut batch = ScannedBatch {
            header,
            items: None,
            bad_copy,
            bad_entries: Vec::new(),
            configurations: Vec::new(),
            unwritten: false,
        };
        if let Some(items) = head_copy.or(tail_copy) {
            let items = items.map_err(|reason| self.structure(&header, reason))?;
            self.read_entries(&items, &mut batch)?;
            batch.items = Some(items);
        }
        bad_parts
            .extend(batch.bad_entries.iter().map(|bad| (bad.offset, self.size_of(&batch, bad))));
        batch.unwritten = bad_parts
            .iter()
            .all(|(offset, size)| self.is_unwritten(*offset, offset + size, &header));
        Ok(batch)
    }

    fn size_of(&self, batch: &ScannedBatch, bad: &BadEntry) -> u64 {
        match batch.items.as_ref().map(|items| &items[bad.item]) {
            Some(Item::Write(run)) => run.entries[bad.place].size.into(),
            _ => 0,
        }
    }

    fn structure(&self, header: &Header, reason: DecodeError) -> OpenError {
        let (file, offset) = (self.number.file(), header.offset);
        OpenError::Structure { file, offset, batch: header.batch, reason }
    }

    fn read_entries(&self, items: &[Item], batch: &mut ScannedBatch) -> Result<(), OpenError> {
        let header = batch.header;
        for (number, item) in items.iter().enumerate() {
            let Item::Write(run) = item else { continue };
            let size: u64 = run.entries.iter().map(|mark| u64::from(mark.size)).sum();
            if u64::from(run.offset) + size > header.bodies_size.into() {
                let reason = DecodeError::Invalid("entries reach beyond their batch");
                return Err(self.structure(&header, reason));
            }
            self.read_run(number, run, batch);
        }
        Ok(())
    }

    fn read_run(&self, item: usize, run: &WriteRun, batch: &mut ScannedBatch) {
        let mut offset = batch.header.bodies_offset() + u64::from(run.offset);
        for (place, mark) in run.entries.iter().enumerate() {
            match decode_entry(self.slice(offset, mark.size.into()), mark.check) {
                Ok(entry) => {
                    let index = Index(run.first.0 + place as u64);
                    let found = configuration_of(&entry);
                    batch.configurations.extend(found.map(|found| (item, index, found)));
                }
                Err(what) => batch.bad_entries.push(BadEntry { item, place, offset, what }),
            }
            offset += u64::from(mark.size);
        }
    }

    /// Whether a part of a batch was never written: a whole sector of it was not, or nothing behind it was, up to the
    /// end of the batch. Damage leaves neither behind.
    fn is_unwritten(&self, start: u64, end: u64, header: &Header) -> bool {
        let first = start - start % BLOCK_SIZE;
        let last = end.next_multiple_of(BLOCK_SIZE).min(self.file.len() as u64);
        let is_sector =
            |offset: u64| self.unwritten.is_sector(offset, &self.slice(offset, BLOCK_SIZE));
        let mut sectors = (first..last).step_by(BLOCK_SIZE as usize);
        if sectors.any(is_sector) {
            return true;
        }
        match self.unwritten {
            Unwritten::Zeroes => {
                let rest = self.slice(end - 1, header.end() - (end - 1));
                is_zero(&rest)
            }
            // Behind the second copy of the directory there is nothing. Where its very last sector was torn inside, nothing is
            // left that would show it; but nothing is lost by it either.
            Unwritten::Sums(_) => (last..header.end()).step_by(BLOCK_SIZE as usize).all(is_sector),
        }
    }
}

/// The configuration that an entry holds, if it is one.
pub(crate) fn configuration_of(entry: &Entry) -> Option<Configuration> {
    match entry.kind() {
        EntryKind::Configuration => Configuration::decode(entry.body().clone()).ok(),
        EntryKind::Noop
        | EntryKind::Command
        | EntryKind::WriteSet
        | EntryKind::Prepared
        | EntryKind::Settle => None,
    }
}

#[cfg(test)]
mod tests;
