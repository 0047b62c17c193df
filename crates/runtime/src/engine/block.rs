//! Blocks: some entries of a sorted run, read and checked together.
//!
//! ```text
//!  entry   0          2            6        6+k
//!          +----------+------------+--------+----------
//!          | key size | value size | key    | value ...
//!          +----------+------------+--------+----------
//! ```
//! Little-endian. A value size of 2^32 - 1 says that the key was removed; then no value follows. A block is its
//! entries, nothing more: where it stands and its checksum are in the index of its run.

use bytes::{BufMut, Bytes};
use std::ops::Range;

/// The bytes of an entry before its key.
const ENTRY_HEADER_SIZE: usize = 6;

/// The value size of a key that was removed.
const REMOVED: u32 = u32::MAX;

/// Where an entry's parts stand in its block.
pub(super) struct Entry {
    pub(super) key: Range<usize>,
    /// `None` when the key was removed.
    pub(super) value: Option<Range<usize>>,
    /// Where the next entry begins.
    pub(super) end: usize,
}

impl Entry {
    /// Key and value; both share memory with the block.
    pub(super) fn slice(self, block: &Bytes) -> (Bytes, Option<Bytes>) {
        (block.slice(self.key), self.value.map(|value| block.slice(value)))
    }
}

/// Appends an entry to a block.
pub(super) fn append(block: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    block
        .put_u16_le(u16::try_from(key.len()).expect("the engine's keys have at most 65,535 bytes"));
    let size = value
        .map_or(REMOVED, |value| u32::try_from(value.len()).expect("values are far below 4 GiB"));
    block.put_u32_le(size);
    block.put_slice(key);
    block.put_slice(value.unwrap_or_default());
}

/// The entry that begins at `at`; `None` when the block ends inside it.
pub(super) fn entry_at(block: &[u8], at: usize) -> Option<Entry> {
    let (key_size, rest) = block.get(at..)?.split_first_chunk::<2>()?;
    let value_size = u32::from_le_bytes(*rest.first_chunk::<4>()?);
    let key = at + ENTRY_HEADER_SIZE;
    let value = key + usize::from(u16::from_le_bytes(*key_size));
    let (end, is_put) = match value_size {
        REMOVED => (value, false),
        size => (value + size as usize, true),
    };
    let fits = end <= block.len();
    fits.then(|| Entry { key: key..value, value: is_put.then_some(value..end), end })
}

/// The entry of a key, if the block has one; `Err` when the block is malformed.
pub(super) fn find(block: &[u8], key: &[u8]) -> Result<Option<Entry>, ()> {
    let mut at = 0;
    while at < block.len() {
        let entry = entry_at(block, at).ok_or(())?;
        match block[entry.key.clone()].cmp(key) {
            std::cmp::Ordering::Less => at = entry.end,
            std::cmp::Ordering::Equal => return Ok(Some(entry)),
            std::cmp::Ordering::Greater => return Ok(None),
        }
    }
    Ok(None)
}

/// Where the entries of a block begin; `Err` when it is malformed.
pub(super) fn starts(block: &[u8]) -> Result<Vec<usize>, ()> {
    let mut starts = Vec::with_capacity(32);
    let mut at = 0;
    while at < block.len() {
        starts.push(at);
        at = entry_at(block, at).ok_or(())?.end;
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_and_a_cut_block_is_malformed() {
        let mut block = Vec::new();
        append(&mut block, b"a", Some(b"one"));
        append(&mut block, b"b", None);
        append(&mut block, b"d", Some(b""));
        let value = |key: &[u8]| {
            find(&block, key).expect("whole").map(|entry| entry.value.map(|at| &block[at]))
        };
        assert_eq!(value(b"a"), Some(Some(&b"one"[..])));
        assert_eq!(value(b"b"), Some(None), "that it was removed is known");
        assert_eq!(value(b"d"), Some(Some(&b""[..])));
        assert_eq!((value(b"c"), value(b"e"), value(b"")), (None, None, None));
        assert_eq!(starts(&block).map(|starts| starts.len()), Ok(3));
        for size in 1..block.len() {
            let whole = starts(&block[..size]).is_ok();
            assert_eq!(whole, [10, 17].contains(&size), "cut at {size}");
        }
    }
}
