//! Files made by hand, sector by sector: what is found in them, and what is said of what cannot be read.

use super::*;
use crate::format::{BatchNumber, batch_chunks, batch_size, directory_size, lone_chunks};

const SEGMENT: SegmentNumber = SegmentNumber(7);
const FILE_SIZE: usize = 65_536;

fn header(batch: u64, offset: u64, bodies_size: u32) -> Header {
    Header {
        kind: BlockKind::Head,
        opening: false,
        items_size: 0,
        segment: SEGMENT,
        offset,
        batch: BatchNumber(batch),
        synced: BatchNumber(batch - 1),
        previous_segment: SEGMENT,
        previous_end: offset,
        previous_chain: 0,
        items_crc: crc32c::crc32c(b""),
        bodies_size,
        total_size: u32::try_from(batch_size(0, bodies_size.into(), false)).expect("small"),
    }
}

fn put(file: &mut [u8], offset: u64, chunks: Vec<Bytes>) {
    let (at, bytes) = (usize::try_from(offset).expect("small"), chunks.concat());
    file[at..at + bytes.len()].copy_from_slice(&bytes);
}

fn put_batch(file: &mut [u8], header: &Header) {
    let bodies = vec![Bytes::from(vec![3; header.bodies_size as usize])];
    put(file, header.offset, batch_chunks(header, &Bytes::new(), bodies));
}

/// A file whose only batch ends at `end`.
fn file_to(end: usize) -> Vec<u8> {
    let mut file = vec![0; FILE_SIZE];
    let bodies_size = u32::try_from(end - 512 - HEADER_SIZE).expect("small");
    put_batch(&mut file, &header(1, 0, bodies_size));
    file
}

fn scanned(file: Vec<u8>, limit: Option<u64>) -> ScannedSegment {
    scan(&file.into(), SEGMENT, limit).expect("a segment")
}

#[test]
fn a_batch_that_passes_the_limit_is_not_of_the_stream_by_either_copy() {
    let (first, second) = (header(1, 0, 300), header(2, 1024, 300));
    let mut file = vec![0; FILE_SIZE];
    put_batch(&mut file, &first);
    put_batch(&mut file, &second);
    let mut headless = file.clone();
    headless[1024] ^= 1;
    let found = |file: &Vec<u8>, limit| {
        let segment = scanned(file.clone(), limit);
        segment.batches.iter().map(|batch| batch.header).collect::<Vec<_>>()
    };
    for file in [&file, &headless] {
        assert_eq!(found(file, None), [first, second]);
        assert_eq!(found(file, Some(second.end())), [first, second]);
        assert_eq!(found(file, Some(second.end() - 1)), [first]);
        assert_eq!(found(file, Some(second.offset)), [first]);
    }
    let copies = scanned(headless, None).batches.into_iter().map(|batch| batch.bad_copy);
    assert_eq!(copies.collect::<Vec<_>>(), [None, Some(1024)]);
}

#[test]
fn a_copy_that_names_a_batch_over_the_one_before_it_is_none() {
    let mut file = file_to(1024);
    let over = header(2, 512, 1000);
    let tail = Header { kind: BlockKind::Tail, ..over };
    put(&mut file, over.tail_offset(), vec![Bytes::copy_from_slice(&tail.encode())]);
    let file = Bytes::from(file);
    assert!(Header::decode(&file, SEGMENT, over.tail_offset()).is_ok(), "it is a block");
    assert_eq!(scan(&file, SEGMENT, None).expect("a segment").batches.len(), 1);
}

#[test]
fn a_proof_is_found_once_also_beyond_the_limit() {
    let mut file = file_to(1024);
    let total_size = u32::try_from(directory_size(0)).expect("small");
    for (offset, batch) in [(4096, 1), (8192, 3)] {
        let proof = Header { kind: BlockKind::Proof, total_size, ..header(batch, offset, 0) };
        put(&mut file, offset, lone_chunks(&proof, Bytes::new()));
    }
    // What lies at the place of a proof and is none.
    put_batch(&mut file, &header(9, 12_288, 300));
    for limit in [Some(1024), Some(8192), Some(12_288)] {
        let proofs = scanned(file.clone(), limit).proofs;
        let batches: Vec<u64> = proofs.iter().map(|(proof, _)| proof.batch.0).collect();
        assert_eq!(batches, [1, 3], "{limit:?}");
    }
}

/// Where a batch is said to be lost behind one that ends at `end`, once sectors were filled.
fn lost_end(end: usize, fill: &[(usize, u8)], proof_at: Option<u64>) -> Option<u64> {
    let mut file = file_to(end);
    if let Some(offset) = proof_at {
        let total_size = u32::try_from(directory_size(0)).expect("small");
        let proof = Header { kind: BlockKind::Proof, total_size, ..header(1, offset, 0) };
        put(&mut file, offset, lone_chunks(&proof, Bytes::new()));
    }
    fill.iter().for_each(|(at, byte)| file[*at..at + 512].fill(*byte));
    scanned(file, None).lost_end
}

#[test]
fn two_written_sectors_where_a_batch_may_begin_are_a_lost_batch() {
    assert_eq!(lost_end(1024, &[], None), None);
    assert_eq!(lost_end(1024, &[(1024, 9), (1536, 9)], None), Some(1024));
    assert_eq!(lost_end(1024, &[(1024, 9)], None), None, "a batch torn in its first sector");
    assert_eq!(lost_end(1024, &[(1536, 9)], None), None, "one whose first sector never came");
    assert_eq!(lost_end(1024, &[(1536, 9), (2048, 9)], None), None, "no batch begins there");
    // Behind a proof, where there is one.
    let behind = [(4608, 9), (5120, 9)];
    assert_eq!(lost_end(1024, &behind, None), None);
    assert_eq!(lost_end(1024, &behind, Some(4096)), Some(4608));
    assert_eq!(lost_end(4096, &behind, Some(4096)), Some(4608));
    assert_eq!(lost_end(1024, &[(1024, 9), (1536, 9)], Some(4096)), Some(1024));
}

#[test]
fn no_batch_is_lost_where_none_has_room() {
    let limit = usize::try_from(remains_offset(FILE_SIZE as u64)).expect("small");
    for before in [512, 1024, 1536] {
        let end = limit - before;
        let fill: Vec<_> = (end..limit + 1024).step_by(512).map(|at| (at, 9)).collect();
        let expected = (before >= 1024).then_some(end as u64);
        assert_eq!(lost_end(end, &fill, None), expected, "{before}");
    }
}

#[test]
fn an_unreadable_page_where_a_proof_belongs_may_have_held_a_batch() {
    let limit = usize::try_from(remains_offset(FILE_SIZE as u64)).expect("small");
    let page = |at: usize| {
        (at..at + 4096).step_by(512).map(|at| (at, UNREADABLE_FILL)).collect::<Vec<_>>()
    };
    assert_eq!(lost_end(1024, &page(4096), None), Some(4096));
    assert_eq!(lost_end(1024, &page(4096)[1..], None), None);
    assert_eq!(lost_end(1024, &page(8192), None), None);
    let end = limit - 4096 - 1024;
    assert_eq!(lost_end(end, &page(limit - 4096), None), Some(limit as u64 - 4096));
    assert_eq!(lost_end(limit - 1024, &page(limit), None), None, "no proof has room there");
}

#[test]
fn a_part_is_torn_when_a_sector_of_it_or_all_behind_it_was_never_written() {
    // A batch from 0 to 2,048 and what follows it; the part in question lies from 100 to 700. What is zero here was not
    // written; of a used file it is known by whole sectors, so that it counts from the first one behind the part on.
    let batch = header(1, 0, 1000);
    assert_eq!((batch.tail_offset(), batch.end()), (1536, 2048));
    let check = |zeroes: std::ops::Range<usize>, in_fresh: bool, in_used: bool| {
        let mut file = vec![3; FILE_SIZE];
        file[zeroes.clone()].fill(0);
        let mut sums = Vec::new();
        for sector in file.chunks(512) {
            let sum = crc32c::crc32c(sector) ^ u32::from(!is_zero(sector));
            sums.extend_from_slice(&sum.to_le_bytes());
        }
        let file = Bytes::from(file);
        let is_torn = |unwritten: Unwritten| {
            let segment = scanned(vec![0; FILE_SIZE], None);
            let scanner = Scanner { file: &file, number: SEGMENT, unwritten, segment };
            scanner.is_unwritten(100, 700, &batch)
        };
        let found = (is_torn(Unwritten::Zeroes), is_torn(Unwritten::Sums(sums.into())));
        assert_eq!(found, (in_fresh, in_used), "{zeroes:?}");
    };
    check(0..0, false, false);
    check(0..512, true, true);
    check(512..1024, true, true);
    check(1024..1536, false, false);
    check(699..2048, true, true);
    check(700..2048, false, true);
    check(699..2047, false, false);
    check(699..2046, false, false);
}

/// A file of 5,000 bytes of a device that cannot read one of its pages.
struct BadPage(u64);

impl DiskReader for BadPage {
    fn list(&self, _: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(Vec::new())
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        if offset < self.0 + PAGE_SIZE && self.0 < offset + size {
            return Err(DiskError::Io { file: file.clone(), reason: "medium error".into() });
        }
        let end = (offset + size).min(5000);
        Ok((offset..end).map(|at| (at % 100) as u8).collect::<Vec<_>>().into())
    }
}

#[test]
fn only_the_pages_that_cannot_be_read_are_filled() {
    let file = SEGMENT.file();
    for page in [0, 4096] {
        let content = read_file(&BadPage(page), &file, 5000).expect("read in part");
        let expected = (0..5000).map(|at| match at / 4096 * 4096 == page {
            true => UNREADABLE_FILL,
            false => (at % 100) as u8,
        });
        assert!(content.iter().copied().eq(expected), "page at {page}");
    }
}
