//! Rows of [`Table::Current`](quorate_store::engine::Table) that were read or written lately, so that reading
//! a key before it is overwritten, and reading it for a client, mostly ends in memory.
//!
//! A row is what the tables on disk hold as of a *base*: the state after so many flushes. A flush changes the
//! rows that it touches before its base is visible, so a row of a later base than a view's is not for that view.
//!
//! Rows stand in two maps. What is used moves to the young one; when that is full, the old one is dropped and the
//! young one becomes old. So what was not used for a while goes, without a list to keep.

#![expect(clippy::disallowed_types, reason = "the maps are never iterated, so no order shows")]

use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a row costs beside its key and value, in bytes, about.
const ROW_OVERHEAD: usize = 128;

/// A value and the base that it is as of.
type Row = (u64, Bytes);

#[derive(Default)]
struct Maps {
    young: HashMap<Bytes, Row>,
    old: HashMap<Bytes, Row>,
    /// What the rows in `young` cost, in bytes.
    young_size: usize,
    /// The base that rows which are read now belong to; `None` while a flush changes rows.
    base: Option<u64>,
}

impl Maps {
    /// Puts a row among the young; what must be dropped when the lock is released.
    fn insert(&mut self, key: Bytes, row: Row, size_max: usize) -> Option<HashMap<Bytes, Row>> {
        self.young_size += ROW_OVERHEAD + key.len() + row.1.len();
        self.young.insert(key, row);
        (self.young_size > size_max / 2).then(|| {
            self.young_size = 0;
            let young = std::mem::take(&mut self.young);
            std::mem::replace(&mut self.old, young)
        })
    }

    fn remove(&mut self, key: &[u8]) {
        if let Some((_, value)) = self.young.remove(key) {
            let size = ROW_OVERHEAD + key.len() + value.len();
            self.young_size = self.young_size.saturating_sub(size);
        }
        self.old.remove(key);
    }
}

/// The rows.
///
/// # Invariants
/// 1. A row of base `b` is what the tables hold as of every base from `b` to the newest.
pub(super) struct Rows {
    maps: Mutex<Maps>,
    /// What all rows may cost together, in bytes.
    size_max: usize,
}

impl Rows {
    pub(super) fn new(size_max: usize) -> Rows {
        let maps = Maps { base: Some(0), ..Maps::default() };
        Rows { maps: Mutex::new(maps), size_max }
    }

    fn lock(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of a key as of `base`, if it is known.
    pub(super) fn read(&self, key: &[u8], base: u64) -> Option<Bytes> {
        let mut maps = self.lock();
        if let Some((made, value)) = maps.young.get(key) {
            return (*made <= base).then(|| value.clone());
        }
        let (key, row) = maps.old.remove_entry(key)?;
        let value = (row.0 <= base).then(|| row.1.clone());
        let dropped = maps.insert(key, row, self.size_max);
        drop(maps);
        drop(dropped);
        value
    }

    /// Takes in what was read as of `base`, unless that is not the newest any more.
    pub(super) fn offer(&self, key: &[u8], value: &Bytes, base: u64) {
        let mut maps = self.lock();
        if maps.base != Some(base) {
            return;
        }
        let row = (base, value.clone());
        let dropped = maps.insert(Bytes::copy_from_slice(key), row, self.size_max);
        drop(maps);
        drop(dropped);
    }

    /// A flush begins: nothing that is read from here on is offered with success.
    pub(super) fn begin_flush(&self) {
        self.lock().base = None;
    }

    /// What the flush that leads to `base` makes of a key.
    pub(super) fn flush(&self, key: &Bytes, value: Option<&Bytes>, base: u64) {
        let mut maps = self.lock();
        maps.remove(key);
        let dropped = value
            .and_then(|value| maps.insert(key.clone(), (base, value.clone()), self.size_max));
        drop(maps);
        drop(dropped);
    }

    /// The flush that led to `base` is done.
    pub(super) fn end_flush(&self, base: u64) {
        self.lock().base = Some(base);
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
    fn rows_that_are_used_outlive_those_that_are_not_within_bounded_memory() {
        let size_max = 100 * (ROW_OVERHEAD + 11);
        let rows = Rows::new(size_max);
        let key = |number: u32| Bytes::from(number.to_be_bytes().to_vec());
        for number in 0..1_000 {
            rows.offer(&key(number), &Bytes::from_static(b"1234567"), 0);
            assert!(rows.read(&key(0), 0).is_some(), "after {number}");
        }
        assert_eq!(rows.read(&key(500), 0), None);
        let maps = rows.lock();
        assert!(maps.young.len() + maps.old.len() <= 102);
    }
}
