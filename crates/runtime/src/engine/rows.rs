//! Rows of [`Table::Current`](quorate_store::engine::Table) that were read or written lately, so that reading
//! a key before it is overwritten, and reading it for a client, mostly ends in memory.
//!
//! A row is what the tables on disk hold as of a *base*: the state after so many flushes. A flush changes the
//! rows that it touches before its base is visible, so a row of a later base than a view's is not for that view.
//!
//! Rows are copies, which keep nothing else in memory, so that the bound is one.

use super::hash::{Hashed, KeyHash};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::{Cache, DefaultLifecycle};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

/// What a row costs beside its key and value, in bytes, about.
const ROW_OVERHEAD: usize = 112;

/// About how large a row is, in bytes; only a first guess at how many there will be.
const ROW_SIZE_TYPICAL: usize = 512;

/// A key and its value, and the base that they are as of.
#[derive(Clone)]
struct Row {
    base: u64,
    key_size: usize,
    /// The key, then the value: finding one finds the other.
    bytes: Bytes,
}

impl Row {
    fn new(key: &[u8], value: &[u8], base: u64) -> Row {
        let mut bytes = Vec::with_capacity(key.len() + value.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
        Row { base, key_size: key.len(), bytes: bytes.into() }
    }

    fn is_of(&self, key: &[u8]) -> bool {
        self.bytes[..self.key_size] == *key
    }
}

#[derive(Clone)]
struct ByteSize;

impl Weighter<u64, Row> for ByteSize {
    fn weight(&self, _: &u64, row: &Row) -> u64 {
        (ROW_OVERHEAD + row.bytes.len()) as u64
    }
}

/// The rows, by the hash of their key: of two keys with one hash, the later has the place.
///
/// # Invariants
/// 1. A row of base `b` is what the tables hold as of every base from `b` to the newest.
pub(super) struct Rows {
    rows: Cache<u64, Row, ByteSize, Hashed>,
    hash: KeyHash,
    /// The base that rows which are read now belong to; `None` while a flush changes rows.
    base: RwLock<Option<u64>>,
}

impl Rows {
    /// An empty cache of at most so many bytes.
    pub(super) fn new(size_max: usize) -> Rows {
        let count = size_max / ROW_SIZE_TYPICAL;
        let rows =
            Cache::with(count, size_max as u64, ByteSize, Hashed, DefaultLifecycle::default());
        Rows { rows, hash: KeyHash::default(), base: RwLock::new(Some(0)) }
    }

    fn change_base(&self) -> RwLockWriteGuard<'_, Option<u64>> {
        self.base.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key as of `base`, if it is known.
    pub(super) fn read(&self, key: &[u8], base: u64) -> Option<Bytes> {
        let row = self.rows.get(&self.hash.of(key))?;
        (row.base <= base && row.is_of(key)).then(|| row.bytes.slice(row.key_size..))
    }

    /// Takes in what was read as of `base`, unless that is not the newest any more.
    pub(super) fn offer(&self, key: &[u8], value: &[u8], base: u64) {
        // Held while the row goes in, so that no flush begins meanwhile.
        let newest = self.base.read().unwrap_or_else(PoisonError::into_inner);
        if *newest == Some(base) {
            self.rows.insert(self.hash.of(key), Row::new(key, value, base));
        }
    }

    /// A flush begins: nothing that is read from here on is offered with success.
    pub(super) fn begin_flush(&self) {
        *self.change_base() = None;
    }

    /// What the flush that leads to `base` makes of a key.
    pub(super) fn flush(&self, key: &[u8], value: Option<&Bytes>, base: u64) {
        let hash = self.hash.of(key);
        match value {
            Some(value) => self.rows.insert(hash, Row::new(key, value, base)),
            None => drop(self.rows.remove(&hash)),
        }
    }

    /// The flush that led to `base` is done.
    pub(super) fn end_flush(&self, base: u64) {
        *self.change_base() = Some(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Bytes = Bytes::from_static(b"k");
    const OLD: Bytes = Bytes::from_static(b"old");
    const NEW: Bytes = Bytes::from_static(b"new");

    #[test]
    fn a_row_is_not_for_views_of_an_earlier_base() {
        let rows = Rows::new(1 << 20);
        rows.offer(&KEY, &OLD, 0);
        assert_eq!(rows.read(&KEY, 0), Some(OLD));
        rows.begin_flush();
        rows.flush(&KEY, Some(&NEW), 1);
        assert_eq!(rows.read(&KEY, 0), None);
        rows.offer(&KEY, &OLD, 0);
        rows.end_flush(1);
        rows.offer(&KEY, &OLD, 0);
        assert_eq!(rows.read(&KEY, 1), Some(NEW), "what was read before comes too late");
        rows.begin_flush();
        rows.flush(&KEY, None, 2);
        rows.end_flush(2);
        assert_eq!(rows.read(&KEY, 2), None, "the tables are asked for what was removed");
    }

    #[test]
    fn rows_take_no_more_memory_than_they_may() {
        let size_max = 1000 * (ROW_OVERHEAD + 11);
        let rows = Rows::new(size_max);
        for number in 0..10_000_u32 {
            rows.offer(&number.to_be_bytes(), b"1234567", 0);
        }
        let kept = (0..10_000_u32).filter(|number| rows.read(&number.to_be_bytes(), 0).is_some());
        let kept = kept.count();
        assert!((500..=1000).contains(&kept), "{kept} rows");
    }
}
