//! Entry points for the bytes of log files, as fuzzers and the replay of their corpora call them.
//!
//! Every block has checksums and is chained to the one before, so a changed byte shows as damage and nothing more is read.
//! [`segment`] therefore opens the bytes as they are, and once more with every checksum and chain made right.

use crate::Log;
use crate::batch::check_of;
use crate::dump;
use crate::format::{
    BLOCK_SIZE, BlockKind, HEADER_SIZE, Header, MAGIC, SegmentNumber, directory_size,
};
use crate::item::Item;
use crate::options::LogOptions;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{DiskError, DiskReader, ENTRY_HEADER_SIZE, Entry, FileName, Reader};

/// A directory of a batch.
pub fn items(data: &[u8]) {
    let Ok(items) = Item::decode_all(Bytes::copy_from_slice(data)) else { return };
    let mut again = BytesMut::new();
    items.iter().for_each(|item| item.encode(&mut again));
    assert_eq!(Item::decode_all(again.freeze()), Ok(items), "a directory changes by its encoding");
}

/// A segment file, opened as the only one of a log, and printed.
pub fn segment(data: &[u8]) {
    open(data.to_vec());
    let mut sealed = data.to_vec();
    if seal(&mut sealed) {
        open(sealed);
    }
}

/// Whether a directory speaks of slots so far on that a list of them is large. Directories with right checksums are our own
/// or a forger's, and the log lists every slot that one says is missing; a forger's can take gigabytes, which is known
/// and would hide everything else.
fn is_far(items: &[Item]) -> bool {
    /// A few megabytes of missing slots.
    const INDEX_MAX: u64 = 1 << 14;
    items.iter().any(|item| {
        let ends = match item {
            Item::Standing(standing) => vec![standing.last.0, standing.purged.index.0],
            Item::Checkpoint(checkpoint) => {
                let extents = checkpoint.extents.iter().map(|extent| (extent.first, extent.count));
                let ranges = extents.chain(checkpoint.unknown.iter().copied());
                let ends = ranges.map(|(first, count)| first.0.saturating_add(count));
                ends.chain([checkpoint.purged.index.0]).collect()
            }
            Item::Write(run) => vec![run.first.0],
            Item::Purge(_, position) | Item::Reset(_, position, _) => vec![position.index.0],
            Item::Segments(_) | Item::HardState(_, _) | Item::Truncate(_, _) => Vec::new(),
        };
        ends.into_iter().any(|end| end > INDEX_MAX)
    })
}

/// The segment that a file's first header names.
fn number_in(data: &[u8]) -> SegmentNumber {
    /// Where the segment stands in a header.
    const SEGMENT_AT: usize = 24;
    let number = data.get(SEGMENT_AT..SEGMENT_AT + 8).and_then(|bytes| bytes.try_into().ok());
    SegmentNumber(number.map_or(1, u64::from_le_bytes).clamp(1, u64::MAX - 1))
}

fn open(content: Vec<u8>) {
    let reader = OneFile { file: number_in(&content).file(), content: content.into() };
    if let Ok((log, recovery)) = Log::open(&reader, LogOptions::default()) {
        for (group, summary) in &recovery.groups {
            let bounds = summary.bounds;
            assert!(bounds.purged.index <= bounds.last, "{group} ends before it begins");
            assert!(log.groups.contains_key(group), "{group} is reported and not there");
        }
    }
    let _ = dump::file(&reader, &reader.file.clone());
}

/// Makes the checksums of all batches right, from the first on, with the entries' hashes and the chain. False when what they
/// say is not for this target.
fn seal(file: &mut [u8]) -> bool {
    let segment = number_in(file);
    let mut before: Option<Header> = None;
    let mut at = 0;
    while let Some(mut header) = header_at(file, at) {
        header.segment = segment;
        header.offset = at as u64;
        if let Some(before) = before {
            header.batch = before.batch.next();
            header.previous_segment = segment;
            header.previous_end = before.end();
            header.previous_chain = before.chain();
        }
        let (items_at, items_size) = (at + HEADER_SIZE, header.items_size as usize);
        let Some(items) = file.get(items_at..items_at.saturating_add(items_size)) else { break };
        let items = seal_entries(file, Bytes::copy_from_slice(items), &header);
        if Item::decode_all(items.clone()).is_ok_and(|items| is_far(&items)) {
            return false;
        }
        header.items_crc = crc32c::crc32c(&items);
        let tail = at + header.total_size as usize;
        let Some(tail) = tail.checked_sub(directory_size(header.items_size.into()) as usize) else {
            break;
        };
        for (place, kind) in [(at, BlockKind::Head), (tail, BlockKind::Tail)] {
            let copy = Header { kind, ..header };
            let end = place.saturating_add(HEADER_SIZE + items.len());
            let Some(room) = file.get_mut(place..end) else { return true };
            room[..HEADER_SIZE].copy_from_slice(&copy.encode());
            room[HEADER_SIZE..].copy_from_slice(&items);
        }
        at += (header.total_size as usize).max(BLOCK_SIZE as usize);
        if header.batch.0 >= u64::MAX - 1 {
            break;
        }
        before = Some(header);
    }
    true
}

/// The header at a place, whatever its checksums say.
fn header_at(file: &[u8], at: usize) -> Option<Header> {
    let mut bytes = file.get(at..at.checked_add(HEADER_SIZE)?)?.to_vec();
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let crc = crc32c::crc32c(&bytes[..12]);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..HEADER_SIZE - 4]);
    bytes[HEADER_SIZE - 4..].copy_from_slice(&crc.to_le_bytes());
    Header::decode_fields(&Bytes::from(bytes)).ok().filter(|header| header.total_size > 0)
}

/// Makes the hashes of the entries right, and the directory that names them.
fn seal_entries(file: &mut [u8], items: Bytes, header: &Header) -> Bytes {
    let Ok(mut decoded) = Item::decode_all(items.clone()) else { return items };
    for item in &mut decoded {
        let Item::Write(run) = item else { continue };
        let mut at = header.bodies_offset().saturating_add(run.offset.into()) as usize;
        for mark in &mut run.entries {
            let end = at.saturating_add(mark.size as usize);
            let Some(bytes) = file.get_mut(at..end) else { break };
            if bytes.len() >= ENTRY_HEADER_SIZE {
                let sealed = quorate_types::fuzzing::sealed_entry(bytes);
                bytes.copy_from_slice(&sealed);
                let mut reader = Reader::new("entry", sealed.into());
                mark.check =
                    Entry::decode(&mut reader).map_or(mark.check, |entry| check_of(&entry));
            }
            at = end;
        }
    }
    let mut again = BytesMut::with_capacity(items.len());
    decoded.iter().for_each(|item| item.encode(&mut again));
    // What a later field would add is kept: the directory has the size that the header names.
    again.put_slice(items.get(again.len()..).unwrap_or_default());
    again.truncate(items.len());
    again.freeze()
}

/// A folder with one file.
struct OneFile {
    file: FileName,
    content: Bytes,
}

impl DiskReader for OneFile {
    fn list(&self, _: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(vec![(self.file.clone(), self.content.len() as u64)])
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        if *file != self.file {
            return Err(DiskError::NotFound(file.clone()));
        }
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(self.content.len());
        Ok(self.content.slice(place(offset)..place(offset.saturating_add(size))))
    }
}
