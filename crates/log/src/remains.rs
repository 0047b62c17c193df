//! What an earlier life left in a file, and how it is told from what was written since.
//!
//! A torn batch is known by sectors that were never written. In a fresh file those hold zeroes. A file that had an earlier
//! life is not emptied, which would write every byte twice: before its next life, every sector is read and its checksum
//! kept in a block at the end of the file. A sector that still has that checksum was not written since.

use crate::format::{
    BLOCK_SIZE, BatchNumber, BlockKind, HEADER_SIZE, Header, PAGE_SIZE, SegmentNumber,
    directory_size, lone_chunks,
};
use bytes::{BufMut, Bytes, BytesMut};

/// How much is read at one time: what the log's thread checks in a tenth of a millisecond.
pub(crate) const SURVEY_SIZE: u64 = 1024 * 1024;

/// The bytes of one sector's checksum.
const SUM_SIZE: u64 = 4;

/// Where the block begins in a file of this size; no batch and no proof reaches it.
pub(crate) fn remains_offset(file_size: u64) -> u64 {
    let sums = file_size / BLOCK_SIZE * SUM_SIZE;
    let block = directory_size(sums).next_multiple_of(PAGE_SIZE);
    file_size.saturating_sub(block) / PAGE_SIZE * PAGE_SIZE
}

/// How large a file must be for so many bytes of batches and proofs.
pub(crate) fn file_size_for(needed: u64) -> u64 {
    // The block takes less than 1/126 of a file and two pages.
    (needed + needed / 64 + 4 * PAGE_SIZE).next_multiple_of(PAGE_SIZE)
}

/// The checksums of the sectors of a file, while they are gathered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    sums: BytesMut,
}

impl Survey {
    /// Where the next piece begins, and its size; `None` when all of a file of this size was read.
    pub(crate) fn next(&self, file_size: u64) -> Option<(u64, u64)> {
        let at = self.sums.len() as u64 / SUM_SIZE * BLOCK_SIZE;
        let size = SURVEY_SIZE.min(remains_offset(file_size) - at);
        (size > 0).then_some((at, size))
    }

    /// Takes the next piece in.
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.sums.reserve(piece.len() / (BLOCK_SIZE / SUM_SIZE) as usize);
        for sector in piece.chunks_exact(BLOCK_SIZE as usize) {
            self.sums.put_u32_le(crc32c::crc32c(sector));
        }
    }

    /// Where in the file of `segment` the block goes, and its bytes.
    pub(crate) fn block(&mut self, segment: SegmentNumber, file_size: u64) -> (u64, Vec<Bytes>) {
        let items = self.sums.split().freeze();
        let offset = remains_offset(file_size);
        let small = |size: u64| u32::try_from(size).expect("below the size of a segment");
        let header = Header {
            kind: BlockKind::Remains,
            opening: false,
            items_size: small(items.len() as u64),
            segment,
            offset,
            batch: BatchNumber(0),
            synced: BatchNumber(0),
            previous_segment: SegmentNumber(0),
            previous_end: 0,
            previous_chain: 0,
            items_crc: crc32c::crc32c(&items),
            bodies_size: 0,
            total_size: small(directory_size(items.len() as u64)),
        };
        (offset, lone_chunks(&header, items))
    }
}

/// What tells sectors of a file that were written in its present life from those that were not.
#[derive(Clone, Debug)]
pub(crate) enum Unwritten {
    /// They hold zeroes.
    Zeroes,
    /// They have these checksums, of four bytes each.
    Sums(Bytes),
}

impl Unwritten {
    /// Finds the block in the whole content of `segment`. When it is not readable, nothing but zeroes is known as
    /// unwritten, and a torn batch counts as damaged.
    pub(crate) fn of(file: &Bytes, segment: SegmentNumber) -> Unwritten {
        let offset = remains_offset(file.len() as u64);
        let Ok(header) = Header::decode(file, segment, offset) else { return Unwritten::Zeroes };
        let is_sized = u64::from(header.items_size) == offset / BLOCK_SIZE * SUM_SIZE;
        if header.kind != BlockKind::Remains || !is_sized {
            return Unwritten::Zeroes;
        }
        let start = usize::try_from(offset).expect("inside a file in memory") + HEADER_SIZE;
        let sums = file.slice(start..start + header.items_size as usize);
        match crc32c::crc32c(&sums) == header.items_crc {
            true => Unwritten::Sums(sums),
            false => Unwritten::Zeroes,
        }
    }

    /// Whether the sector at `offset` was never written in the present life.
    pub(crate) fn is_sector(&self, offset: u64, sector: &[u8]) -> bool {
        match self {
            Unwritten::Zeroes => is_zero(sector),
            Unwritten::Sums(sums) => {
                let at = usize::try_from(offset / BLOCK_SIZE * SUM_SIZE).expect("in memory");
                let sum = sums.get(at..at + SUM_SIZE as usize);
                sum.is_some_and(|sum| sum == crc32c::crc32c(sector).to_le_bytes())
            }
        }
    }
}

/// Whether there are nothing but zeroes. A prepared file is looked at whole at each open: a sector at a time, without a
/// branch inside, is as fast as memory is read.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    bytes.chunks(BLOCK_SIZE as usize).all(|sector| sector.iter().fold(0, |or, byte| or | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of 64 KiB that holds something everywhere, with its block.
    fn surveyed() -> Vec<u8> {
        let mut file: Vec<u8> = (0..65_536_u32).map(|at| (at * 7 / 3 % 251) as u8).collect();
        let mut survey = Survey::default();
        while let Some((at, size)) = survey.next(65_536) {
            let at = usize::try_from(at).expect("small");
            survey.add(&file[at..at + usize::try_from(size).expect("small")]);
        }
        let (offset, chunks) = survey.block(SegmentNumber(7), 65_536);
        let (offset, block) = (usize::try_from(offset).expect("small"), chunks.concat());
        assert!(offset + block.len() <= file.len(), "the block fits");
        file[offset..offset + block.len()].copy_from_slice(&block);
        file
    }

    #[test]
    fn one_bit_anywhere_is_not_zero() {
        assert!(is_zero(&[]));
        for size in [1, 511, 512, 513, 1300] {
            let mut bytes = vec![0; size];
            assert!(is_zero(&bytes), "{size}");
            for at in 0..size {
                bytes[at] = 1 << (at % 8);
                assert!(!is_zero(&bytes), "{at} of {size}");
                bytes[at] = 0;
            }
        }
    }

    #[test]
    fn a_sector_is_unwritten_until_it_is_written() {
        let mut file = surveyed();
        file[1024..1536].fill(0);
        file[2048] ^= 1;
        let unwritten = Unwritten::of(&Bytes::from(file.clone()), SegmentNumber(7));
        let offset = usize::try_from(remains_offset(65_536)).expect("small");
        let written: Vec<usize> = (0..offset)
            .step_by(512)
            .filter(|at| !unwritten.is_sector(*at as u64, &file[*at..*at + 512]))
            .collect();
        assert_eq!(written, [1024, 2048], "a sector of zeroes was written too");
    }

    #[test]
    fn a_damaged_block_or_one_of_another_life_is_none() {
        let file = surveyed();
        let known = |file: Vec<u8>, number| {
            matches!(Unwritten::of(&Bytes::from(file), SegmentNumber(number)), Unwritten::Sums(_))
        };
        assert!(known(file.clone(), 7));
        assert!(!known(file.clone(), 8));
        let offset = usize::try_from(remains_offset(65_536)).expect("small");
        for bit in (offset * 8..(offset + HEADER_SIZE + offset / 512 * 4) * 8).step_by(5) {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!known(damaged, 7), "bit {bit}");
        }
    }

    #[test]
    fn a_block_of_another_kind_or_size_is_none() {
        let file = surveyed();
        let offset = remains_offset(65_536);
        let start = usize::try_from(offset).expect("small");
        let segment = SegmentNumber(7);
        let known = |change: &dyn Fn(&mut Header)| {
            let mut header =
                Header::decode(&Bytes::from(file.clone()), segment, offset).expect("the block");
            change(&mut header);
            let items = start + HEADER_SIZE..start + HEADER_SIZE + header.items_size as usize;
            header.items_crc = crc32c::crc32c(&file[items]);
            let mut file = file.clone();
            file[start..start + HEADER_SIZE].copy_from_slice(&header.encode());
            let file = Bytes::from(file);
            assert_eq!(Header::decode(&file, segment, offset), Ok(header), "a block");
            matches!(Unwritten::of(&file, segment), Unwritten::Sums(_))
        };
        assert!(known(&|_| {}));
        assert!(!known(&|header| header.kind = BlockKind::Proof));
        assert!(!known(&|header| header.items_size -= 4));
    }

    #[test]
    fn there_is_room_for_what_a_file_is_made_for() {
        for needed in [4096, 60_000, 16 << 20, 500 << 20] {
            assert!(remains_offset(file_size_for(needed)) >= needed, "{needed}");
        }
        for size in [32 << 10, 64 << 10, 16 << 20, 1 << 30] {
            let (offset, block) = (remains_offset(size), size - remains_offset(size));
            assert!(directory_size(offset / BLOCK_SIZE * SUM_SIZE) <= block, "{size}");
        }
    }
}
