//! Blocks: how batches lie in a segment file. `docs/format/log.md` draws them.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{FileName, Reader};
use std::fmt;

/// The format version that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// Blocks begin at multiples of this: a torn write never touches a sector of an earlier batch.
pub(crate) const BLOCK_SIZE: u64 = 512;

/// The unit that devices and page caches lose at once: proofs and the second copy of an opening batch lie in
/// another page than what they vouch for.
pub(crate) const PAGE_SIZE: u64 = 4096;

/// The size of a block's header in bytes.
pub(crate) const HEADER_SIZE: usize = 96;

/// What a block begins with, in every version.
pub(crate) const MAGIC: [u8; 8] = *b"QuorLog\0";

/// The highest number of a batch: they are counted one by one, so that none comes near, and a next one can be counted.
const NUMBER_MAX: u64 = u64::MAX / 2;

/// Where the header's own checksum lies.
const HEADER_CRC_AT: usize = HEADER_SIZE - 4;

/// Where in a header the kind of its block is.
const KIND_AT: usize = 16;

/// Where in a header the number of its segment is; the offset of its batch follows.
const SEGMENT_AT: usize = 24;

/// The folder of the log's files.
pub(crate) const FOLDER: &str = "log";

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl $name {
            /// The one after this.
            #[must_use]
            pub fn next(self) -> $name {
                $name(self.0.checked_add(1).expect("64 bits are counted one by one"))
            }
        }
    };
}

number!(
    /// The place of a batch in the one stream of all groups. The first is 1; never used twice.
    BatchNumber
);
number!(
    /// The place of a segment in the order of use. The first is 1; never used twice.
    SegmentNumber
);

impl SegmentNumber {
    /// The file of this segment.
    pub(crate) fn file(self) -> FileName {
        FileName::new(format!("{FOLDER}/{:016x}.seg", self.0))
    }

    /// The segment of a file name; `None` when it is no name of a segment.
    pub(crate) fn from_file(file: &FileName) -> Option<SegmentNumber> {
        let digits = file.as_str().strip_prefix("log/")?.strip_suffix(".seg")?;
        let number = u64::from_str_radix(digits, 16).ok().map(SegmentNumber)?;
        (number.0 > 0 && number.file() == *file).then_some(number)
    }
}

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum BlockKind {
    /// The beginning of a batch: header and directory, followed by the entries.
    Head = 1,
    /// The end of a batch: header and directory again.
    Tail = 2,
    /// No batch: says that the batch it names is synced, and how the recent groups stand after it.
    Proof = 3,
    /// No batch: at the end of a file that had an earlier life, the checksum of each sector that it left.
    Remains = 4,
}

/// The header of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// What the block is.
    pub(crate) kind: BlockKind,
    /// Whether the batch opens a segment and so begins with a checkpoint of every group.
    pub(crate) opening: bool,
    /// The size of the directory in bytes.
    pub(crate) items_size: u32,
    /// The segment that this was written for.
    pub(crate) segment: SegmentNumber,
    /// Where the batch (or proof) begins in the segment, in bytes.
    pub(crate) offset: u64,
    /// The batch; of a proof, the batch proved.
    pub(crate) batch: BatchNumber,
    /// The highest batch known synced when this was written.
    pub(crate) synced: BatchNumber,
    /// The segment of the batch before.
    pub(crate) previous_segment: SegmentNumber,
    /// Where the batch before ends in its segment, in bytes: what lies beyond is not part of the stream.
    pub(crate) previous_end: u64,
    /// The chain value of the batch before.
    pub(crate) previous_chain: u32,
    /// The checksum of the directory.
    pub(crate) items_crc: u32,
    /// The size of the encoded entries in bytes.
    pub(crate) bodies_size: u32,
    /// The size of the whole batch in bytes, a multiple of [`BLOCK_SIZE`].
    pub(crate) total_size: u32,
}

/// Why there is no block of this segment at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoBlock {
    /// Not the bytes of a block, damaged, or a block of another place or life of the file.
    Unreadable,
    /// A block of another format version.
    Version(u32),
}

/// The size of header and directory, rounded up to whole blocks.
pub(crate) fn directory_size(items_size: u64) -> u64 {
    (HEADER_SIZE as u64 + items_size).next_multiple_of(BLOCK_SIZE)
}

/// How large a batch is: head, entries, padding, tail.
pub(crate) fn batch_size(items_size: u64, bodies_size: u64, opening: bool) -> u64 {
    let align = if opening { PAGE_SIZE } else { BLOCK_SIZE };
    (HEADER_SIZE as u64 + items_size + bodies_size).next_multiple_of(align)
        + directory_size(items_size)
}

impl Header {
    /// Where the entries begin in the segment.
    pub(crate) fn bodies_offset(&self) -> u64 {
        self.offset + HEADER_SIZE as u64 + u64::from(self.items_size)
    }

    /// Where the tail begins in the segment.
    pub(crate) fn tail_offset(&self) -> u64 {
        self.end() - directory_size(self.items_size.into())
    }

    /// Where the next batch may begin.
    pub(crate) fn end(&self) -> u64 {
        self.offset + u64::from(self.total_size)
    }

    /// What the next batch names as its predecessor's chain value: the checksum of the head's header, which covers
    /// the directory's checksum, which covers the entries' hashes.
    pub(crate) fn chain(&self) -> u32 {
        let head = Header { kind: BlockKind::Head, ..*self }.encode();
        crc32c::crc32c(&head[..HEADER_CRC_AT])
    }

    /// The bytes of the header.
    pub(crate) fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut header = [0; HEADER_SIZE];
        header[..8].copy_from_slice(&MAGIC);
        header[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let crc = crc32c::crc32c(&header[..12]);
        let mut rest = &mut header[12..HEADER_CRC_AT];
        rest.put_u32_le(crc);
        rest.put_u8(self.kind as u8);
        rest.put_u8(u8::from(self.opening));
        rest.put_u16_le(0);
        rest.put_u32_le(self.items_size);
        rest.put_u64_le(self.segment.0);
        rest.put_u64_le(self.offset);
        rest.put_u64_le(self.batch.0);
        rest.put_u64_le(self.synced.0);
        rest.put_u64_le(self.previous_segment.0);
        rest.put_u64_le(self.previous_end);
        rest.put_u32_le(self.previous_chain);
        rest.put_u32_le(self.items_crc);
        rest.put_u32_le(self.bodies_size);
        rest.put_u32_le(self.total_size);
        rest.put_u32_le(0);
        let crc = crc32c::crc32c(&header[..HEADER_CRC_AT]);
        header[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        header
    }

    /// Reads the header of the block at `at` of `file`, the whole content of `segment`. A header that was written
    /// for another place, for an earlier life of the file, or that points outside of it is none.
    pub(crate) fn decode(file: &Bytes, segment: SegmentNumber, at: u64) -> Result<Header, NoBlock> {
        let start = usize::try_from(at).map_err(|_| NoBlock::Unreadable)?;
        let bytes = match file.get(start..start.saturating_add(HEADER_SIZE)) {
            Some(bytes) if bytes.starts_with(&MAGIC) => bytes,
            _ => return Err(NoBlock::Unreadable),
        };
        let bytes = file.slice_ref(bytes);
        let header = Header::decode_fields(&bytes)?;
        let place = match header.kind {
            BlockKind::Head | BlockKind::Proof | BlockKind::Remains => header.offset,
            BlockKind::Tail => header.tail_offset(),
        };
        if header.segment != segment || place != at || header.end() > file.len() as u64 {
            return Err(NoBlock::Unreadable);
        }
        Ok(header)
    }

    /// Whether a whole header lies at `at`, of whatever place and life.
    pub(crate) fn is_any_at(file: &Bytes, at: u64) -> bool {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let bytes = file.get(start..start.saturating_add(HEADER_SIZE));
        bytes.is_some_and(|bytes| {
            bytes.starts_with(&MAGIC) && Header::decode_fields(&file.slice_ref(bytes)).is_ok()
        })
    }

    /// Whether a proof was being written at `at` of the file of `segment`, and its header was torn inside: it names its kind
    /// and place, and not even as a batch whose kind is damaged is it whole.
    pub(crate) fn is_torn_proof_at(file: &Bytes, segment: SegmentNumber, at: u64) -> bool {
        let start = usize::try_from(at).unwrap_or(usize::MAX);
        let Some(bytes) = file.get(start..start.saturating_add(HEADER_SIZE)) else { return false };
        let mut as_batch = bytes.to_vec();
        as_batch[KIND_AT] = BlockKind::Head as u8;
        let crc = |bytes: &[u8], at: usize| crc32c::crc32c(&bytes[..at]).to_le_bytes();
        let names = |at: usize, value: u64| bytes[at..at + 8] == value.to_le_bytes();
        bytes.starts_with(&MAGIC)
            && bytes[12..16] == crc(bytes, 12)
            && bytes[KIND_AT] == BlockKind::Proof as u8
            && names(SEGMENT_AT, segment.0)
            && names(SEGMENT_AT + 8, at)
            && bytes[HEADER_CRC_AT..] != crc(bytes, HEADER_CRC_AT)
            && bytes[HEADER_CRC_AT..] != crc(&as_batch, HEADER_CRC_AT)
    }

    pub(crate) fn decode_fields(bytes: &Bytes) -> Result<Header, NoBlock> {
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if crc32c::crc32c(&bytes[..12]) != word(12) {
            return Err(NoBlock::Unreadable);
        }
        if word(8) != FORMAT_VERSION {
            return Err(NoBlock::Version(word(8)));
        }
        if crc32c::crc32c(&bytes[..HEADER_CRC_AT]) != word(HEADER_CRC_AT) {
            return Err(NoBlock::Unreadable);
        }
        let header = Header::read(bytes.slice(16..)).ok_or(NoBlock::Unreadable)?;
        let expected = match header.kind {
            BlockKind::Head | BlockKind::Tail => {
                batch_size(header.items_size.into(), header.bodies_size.into(), header.opening)
            }
            BlockKind::Proof | BlockKind::Remains => directory_size(header.items_size.into()),
        };
        let consistent = u64::from(header.total_size) == expected
            && header.offset <= u64::MAX / 2
            && header.batch.0 <= NUMBER_MAX
            && header.synced.0 <= NUMBER_MAX
            && header.offset.is_multiple_of(BLOCK_SIZE);
        if consistent { Ok(header) } else { Err(NoBlock::Unreadable) }
    }

    fn read(bytes: Bytes) -> Option<Header> {
        let mut reader = Reader::new("block header", bytes);
        let kind = match reader.u8().ok()? {
            1 => BlockKind::Head,
            2 => BlockKind::Tail,
            3 => BlockKind::Proof,
            4 => BlockKind::Remains,
            _ => return None,
        };
        let opening = reader.bool().ok()?;
        reader.u16().ok()?;
        Some(Header {
            kind,
            opening,
            items_size: reader.u32().ok()?,
            segment: SegmentNumber(reader.u64().ok()?),
            offset: reader.u64().ok()?,
            batch: BatchNumber(reader.u64().ok()?),
            synced: BatchNumber(reader.u64().ok()?),
            previous_segment: SegmentNumber(reader.u64().ok()?),
            previous_end: reader.u64().ok()?,
            previous_chain: reader.u32().ok()?,
            items_crc: reader.u32().ok()?,
            bodies_size: reader.u32().ok()?,
            total_size: reader.u32().ok()?,
        })
    }
}

/// The chunks of a whole batch as they go to disk: head, directory, entries, padding, tail, directory, padding.
pub(crate) fn batch_chunks(header: &Header, items: &Bytes, bodies: Vec<Bytes>) -> Vec<Bytes> {
    let mut chunks = Vec::with_capacity(bodies.len() + 5);
    let mut head = BytesMut::with_capacity(HEADER_SIZE * 2 + items.len());
    head.put_slice(&header.encode());
    head.put_slice(items);
    chunks.push(head.freeze());
    chunks.extend(bodies);
    let filled = HEADER_SIZE as u64 + items.len() as u64 + u64::from(header.bodies_size);
    pad(&mut chunks, header.tail_offset() - header.offset - filled);
    let tail = Header { kind: BlockKind::Tail, ..*header }.encode();
    chunks.push(Bytes::copy_from_slice(&tail));
    chunks.push(items.clone());
    let filled = HEADER_SIZE as u64 + items.len() as u64;
    pad(&mut chunks, header.end() - header.tail_offset() - filled);
    chunks
}

/// The chunks of a block that is no batch.
pub(crate) fn lone_chunks(header: &Header, items: Bytes) -> Vec<Bytes> {
    let filled = HEADER_SIZE as u64 + items.len() as u64;
    let mut chunks = vec![Bytes::copy_from_slice(&header.encode()), items];
    pad(&mut chunks, u64::from(header.total_size) - filled);
    chunks
}

/// Zeroes up to the next block or page.
fn pad(chunks: &mut Vec<Bytes>, size: u64) {
    static ZEROES: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
    if size > 0 {
        let size = usize::try_from(size).expect("padding is below a page");
        chunks.push(Bytes::from_static(&ZEROES).slice(..size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Header {
        Header {
            kind: BlockKind::Head,
            opening: false,
            items_size: 3,
            segment: SegmentNumber(7),
            offset: 512,
            batch: BatchNumber(9),
            synced: BatchNumber(8),
            previous_segment: SegmentNumber(7),
            previous_end: 512,
            previous_chain: 5,
            items_crc: crc32c::crc32c(b"abc"),
            bodies_size: 1000,
            total_size: u32::try_from(batch_size(3, 1000, false)).expect("small"),
        }
    }

    fn file_with(header: &Header) -> Vec<u8> {
        let bodies = vec![Bytes::from(vec![1; header.bodies_size as usize])];
        let chunks = batch_chunks(header, &Bytes::from_static(b"abc"), bodies);
        let mut file = vec![0; 512];
        chunks.iter().for_each(|chunk| file.extend_from_slice(chunk));
        assert_eq!(file.len() as u64, header.end());
        file
    }

    #[test]
    fn head_and_tail_read_back_with_one_chain_value() {
        let file = Bytes::from(file_with(&sample()));
        assert_eq!(Header::decode(&file, SegmentNumber(7), 512), Ok(sample()));
        let tail = Header::decode(&file, SegmentNumber(7), sample().tail_offset());
        let tail = tail.expect("the second copy");
        assert_eq!(tail, Header { kind: BlockKind::Tail, ..sample() });
        assert_eq!(tail.chain(), sample().chain());
    }

    #[test]
    fn a_header_of_another_place_or_life_is_none() {
        let file = Bytes::from(file_with(&sample()));
        assert_eq!(Header::decode(&file, SegmentNumber(8), 512), Err(NoBlock::Unreadable));
        let moved = file.slice(512..);
        assert_eq!(Header::decode(&moved, SegmentNumber(7), 0), Err(NoBlock::Unreadable));
        let cut = file.slice(..file.len() - 1);
        assert_eq!(Header::decode(&cut, SegmentNumber(7), 512), Err(NoBlock::Unreadable));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        let file = file_with(&sample());
        for bit in 0..HEADER_SIZE * 8 {
            let mut damaged = file.clone();
            damaged[512 + bit / 8] ^= 1 << (bit % 8);
            let decoded = Header::decode(&damaged.into(), SegmentNumber(7), 512);
            assert_eq!(decoded, Err(NoBlock::Unreadable), "bit {bit}");
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_none_whatever_its_checksums_say() {
        let check = |header: Header, expected: bool| {
            let decoded = Header::decode_fields(&Bytes::copy_from_slice(&header.encode()));
            assert_eq!(decoded.is_ok(), expected, "{header:?}");
        };
        let far = u64::MAX / 2 + 1;
        check(sample(), true);
        check(Header { total_size: sample().total_size + 512, ..sample() }, false);
        check(Header { offset: 513, ..sample() }, false);
        check(Header { offset: far, ..sample() }, false);
        check(Header { batch: BatchNumber(far), ..sample() }, false);
        check(Header { synced: BatchNumber(far), ..sample() }, false);
        let most = BatchNumber(NUMBER_MAX);
        check(Header { offset: far - 512, batch: most, synced: most, ..sample() }, true);
    }

    #[test]
    fn what_does_not_begin_as_a_block_is_none_whatever_its_checksums_say() {
        let mut file = file_with(&sample());
        assert!(Header::is_any_at(&Bytes::from(file.clone()), 512));
        assert!(!Header::is_any_at(&Bytes::from(file.clone()), 513));
        file[512] ^= 1;
        let crc = crc32c::crc32c(&file[512..524]);
        file[524..528].copy_from_slice(&crc.to_le_bytes());
        let crc = crc32c::crc32c(&file[512..512 + HEADER_CRC_AT]);
        file[512 + HEADER_CRC_AT..512 + HEADER_SIZE].copy_from_slice(&crc.to_le_bytes());
        let file = Bytes::from(file);
        assert!(Header::decode_fields(&file.slice(512..512 + HEADER_SIZE)).is_ok());
        assert!(!Header::is_any_at(&file, 512));
        let decoded = Header::decode(&file, SegmentNumber(7), 512);
        assert_eq!(decoded, Err(NoBlock::Unreadable));
    }

    #[test]
    fn a_block_that_is_no_batch_fills_its_last_sector() {
        for items in [0, 3, 416, 417, 2000] {
            let total_size = u32::try_from(directory_size(items)).expect("small");
            let header = Header { kind: BlockKind::Proof, total_size, ..sample() };
            let items = Bytes::from(vec![1; usize::try_from(items).expect("small")]);
            let block = lone_chunks(&header, items.clone()).concat();
            assert_eq!(block.len() as u64, directory_size(items.len() as u64));
            let rest = &block[HEADER_SIZE + items.len()..];
            assert!(rest.iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn another_version_is_told_apart_from_damage() {
        let mut file = file_with(&sample());
        file[520..524].copy_from_slice(&2u32.to_le_bytes());
        let crc = crc32c::crc32c(&file[512..524]);
        file[524..528].copy_from_slice(&crc.to_le_bytes());
        let decoded = Header::decode(&file.into(), SegmentNumber(7), 512);
        assert_eq!(decoded, Err(NoBlock::Version(2)));
    }

    #[test]
    fn only_names_of_the_one_form_are_segments() {
        let check = |name: &str, expected: Option<u64>| {
            let found = SegmentNumber::from_file(&FileName::new(name)).map(|number| number.0);
            assert_eq!(found, expected, "{name}");
        };
        check("log/00000000000000ff.seg", Some(255));
        check("log/00000000000000FF.seg", None);
        check("log/ff.seg", None);
        check("log/0000000000000000.seg", None);
        check("log/0000000000000001.tmp", None);
    }
}
