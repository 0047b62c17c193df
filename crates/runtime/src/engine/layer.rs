//! What was written lately, in memory: batches on their way into the tables on disk.
//!
//! Each key keeps its newest value and the older ones that a view may still ask for, each with the number of
//! its batch. A layer is never the whole truth about a key that it does not hold: what is below is asked then.

use bytes::Bytes;
use quorate_store::engine::{Batch, Change, Direction, Table};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What a version costs beside its key and value, in bytes, about.
const VERSION_OVERHEAD: usize = 128;

/// How many keys a scan takes at once under the lock: few at first, because many scans want only a few,
const PAGE_MIN: usize = 4;
/// and at most so many.
const PAGE_MAX: usize = 128;

/// The value of a key as of a batch; `None` when that batch removed it.
type Version = (u64, Option<Bytes>);

/// The newest version of a key and the older ones that may still be asked for, oldest first.
struct Chain {
    newest: Version,
    older: VecDeque<Version>,
}

impl Chain {
    /// What the key was as of a batch; `None` when this layer says nothing of that time.
    fn at(&self, sequence: u64) -> Option<&Option<Bytes>> {
        if self.newest.0 <= sequence {
            return Some(&self.newest.1);
        }
        self.older.iter().rev().find(|(made, _)| *made <= sequence).map(|(_, value)| value)
    }

    /// Puts a version on top and forgets what no view at or above `floor` can ask for; how many bytes of
    /// values went.
    fn push(&mut self, version: Version, floor: u64) -> usize {
        let before = std::mem::replace(&mut self.newest, version);
        let mut gone = 0;
        if before.0 <= floor {
            gone = self.older.drain(..).map(|(_, value)| size(value.as_ref())).sum();
        }
        self.older.push_back(before);
        gone
    }
}

fn size(value: Option<&Bytes>) -> usize {
    VERSION_OVERHEAD + value.map_or(0, Bytes::len)
}

/// The keys of a layer, by table.
#[derive(Default)]
struct Content {
    tables: [BTreeMap<Bytes, Chain>; Table::ALL.len()],
    /// About what all of it costs, in bytes.
    size: usize,
}

/// Some batches. One thread writes it until it is frozen; any may read it.
#[derive(Default)]
pub(super) struct Layer(RwLock<Content>);

impl Layer {
    fn look(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Content> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a batch under its number. No view asks for what was before `floor`.
    pub(super) fn write(&self, batch: Batch, sequence: u64, floor: u64) {
        let mut content = self.change();
        let Content { tables, size: total } = &mut *content;
        for Change { table, key, value } in batch.changes {
            let added = size(value.as_ref());
            let mut gone = 0;
            let key_size = key.len();
            let mut version = Some((sequence, value));
            tables[table as usize]
                .entry(key)
                .and_modify(|chain| {
                    gone = version.take().map_or(0, |version| chain.push(version, floor));
                })
                .or_insert_with(|| {
                    *total += key_size;
                    let newest = version.take().expect("a key is either there or not");
                    Chain { newest, older: VecDeque::new() }
                });
            *total = (*total + added).saturating_sub(gone);
        }
    }

    /// About what it costs, in bytes.
    pub(super) fn size(&self) -> usize {
        self.look().size
    }

    /// What a key was as of a batch; `None` when this layer says nothing of it.
    pub(super) fn read(&self, table: Table, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        self.look().tables[table as usize].get(key)?.at(sequence).cloned()
    }

    /// How many keys of a table it holds.
    pub(super) fn count(&self, table: Table) -> usize {
        self.look().tables[table as usize].len()
    }

    /// Shows every key of a table and its newest value, in order, until told to stop.
    pub(super) fn visit<E>(
        &self,
        table: Table,
        mut visit: impl FnMut(&Bytes, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let content = self.look();
        let mut pairs = content.tables[table as usize].iter();
        pairs.try_for_each(|(key, chain)| visit(key, chain.newest.1.as_ref()))
    }
}

/// What a layer says of a range as of a batch, also that keys were removed: takes pages under the lock, gives
/// keys without it.
pub(super) struct LayerScan<'a> {
    layer: &'a Layer,
    table: Table,
    /// As of which batch.
    sequence: u64,
    /// What is left of the range: from here,
    start: Bound<Bytes>,
    /// to before here.
    end: Bytes,
    direction: Direction,
    /// What was taken and not given yet.
    page: VecDeque<(Bytes, Option<Bytes>)>,
    /// How many keys to take next.
    page_size: usize,
    /// Whether the range is read to its end.
    done: bool,
}

impl<'a> LayerScan<'a> {
    pub(super) fn new(
        layer: &'a Layer,
        (table, sequence): (Table, u64),
        (start, end): (&[u8], &[u8]),
        direction: Direction,
    ) -> LayerScan<'a> {
        LayerScan {
            layer,
            table,
            sequence,
            start: Bound::Included(Bytes::copy_from_slice(start)),
            end: Bytes::copy_from_slice(end),
            direction,
            page: VecDeque::new(),
            page_size: PAGE_MIN,
            done: start >= end,
        }
    }

    fn fill(&mut self) {
        let content = self.layer.look();
        let (start, end) =
            (self.start.as_ref().map(|key| &key[..]), Bound::Excluded(&self.end[..]));
        let range = content.tables[self.table as usize].range::<[u8], _>((start, end));
        let sequence = self.sequence;
        let known = |(key, chain): (&Bytes, &Chain)| {
            chain.at(sequence).map(|value| (key.clone(), value.clone()))
        };
        match self.direction {
            Direction::Forward => self.page.extend(range.filter_map(known).take(self.page_size)),
            Direction::Backward => {
                self.page.extend(range.rev().filter_map(known).take(self.page_size));
            }
        }
        self.done = self.page.len() < self.page_size;
        self.page_size = (self.page_size * 2).min(PAGE_MAX);
        if let Some((last, _)) = self.page.back() {
            match self.direction {
                Direction::Forward => self.start = Bound::Excluded(last.clone()),
                Direction::Backward => {
                    self.end = last.clone();
                    self.done |= self.start == Bound::Included(last.clone());
                }
            }
        }
    }
}

impl Iterator for LayerScan<'_> {
    type Item = (Bytes, Option<Bytes>);

    fn next(&mut self) -> Option<(Bytes, Option<Bytes>)> {
        if self.page.is_empty() && !self.done {
            self.fill();
        }
        self.page.pop_front()
    }
}
