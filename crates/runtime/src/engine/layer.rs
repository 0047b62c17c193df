//! What was written lately, in memory: batches on their way into the runs on disk.
//!
//! Each key keeps its newest value and the older ones that a view may still ask for, each with the number of
//! its batch. A layer is never the whole truth about a key that it does not hold: what is below is asked then.
//!
//! The tables are kept as they are used. `Current` is looked up by key with every put and seldom scanned: a hash map,
//! beside which keys are only put in order when a scan or the flush asks. `History` is written in order: a list, with
//! a map for what comes out of order. `State` is small.

use super::hash::KeyHash;
use bytes::Bytes;
use quorate_store::engine::{Batch, Change, Direction, Table};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// What a version costs beside its key and value, in bytes, about.
const VERSION_OVERHEAD: usize = 128;

/// How many keys a scan takes at once under the lock: few at first, because many scans want only a few,
const PAGE_MIN: usize = 4;
/// and at most so many.
const PAGE_MAX: usize = 128;

/// The value of a key as of a batch; `None` when that batch removed it.
type Version = (u64, Option<Bytes>);

/// A key and what it is; `None` when it was removed.
type Word = (Bytes, Option<Bytes>);

/// The newest version of a key and the older ones that may still be asked for, oldest first.
struct Chain {
    newest: Version,
    older: VecDeque<Version>,
}

impl Chain {
    fn new(newest: Version) -> Chain {
        Chain { newest, older: VecDeque::new() }
    }

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

/// Which part of a table a scan wants.
struct Wanted<'a> {
    /// From here
    start: Bound<&'a [u8]>,
    /// to before here,
    end: &'a [u8],
    direction: Direction,
    /// as of this batch,
    sequence: u64,
    /// and at most so many keys.
    count: usize,
}

impl Wanted<'_> {
    fn bounds(&self) -> (Bound<&[u8]>, Bound<&[u8]>) {
        (self.start, Bound::Excluded(self.end))
    }

    /// The first that are known as of the batch, of keys that come in order.
    fn take<'a, K: DoubleEndedIterator<Item = T>, T>(
        &self,
        keys: K,
        known: impl Fn(T) -> Option<Word> + 'a,
    ) -> VecDeque<Word> {
        match self.direction {
            Direction::Forward => keys.filter_map(known).take(self.count).collect(),
            Direction::Backward => keys.rev().filter_map(known).take(self.count).collect(),
        }
    }
}

/// A table that is kept in order.
#[derive(Default)]
struct Ordered(BTreeMap<Bytes, Chain>);

impl Ordered {
    /// How many bytes it grew by, and shrank by.
    fn write(&mut self, key: Bytes, version: Version, floor: u64) -> (usize, usize) {
        let added = size(version.1.as_ref());
        if let Some(chain) = self.0.get_mut(&key) {
            return (added, chain.push(version, floor));
        }
        let added = added + key.len();
        self.0.insert(key, Chain::new(version));
        (added, 0)
    }

    fn read(&self, key: &[u8], sequence: u64) -> Option<&Option<Bytes>> {
        self.0.get(key)?.at(sequence)
    }

    fn page(&self, wanted: &Wanted<'_>) -> VecDeque<Word> {
        let known = |(key, chain): (&Bytes, &Chain)| {
            chain.at(wanted.sequence).map(|value| (key.clone(), value.clone()))
        };
        wanted.take(self.0.range::<[u8], _>(wanted.bounds()), known)
    }
}

/// A table that is mostly written in order of its keys.
#[derive(Default)]
struct Appended {
    /// In order.
    list: Vec<(Bytes, u64, Bytes)>,
    /// What came out of order, or overwrites or removes what is in the list: newer than the list.
    rest: Ordered,
}

impl Appended {
    fn write(&mut self, key: Bytes, version: Version, floor: u64) -> (usize, usize) {
        let is_next = self.list.last().is_none_or(|(last, ..)| *last < key);
        match version {
            (sequence, Some(value)) if is_next && !self.rest.0.contains_key(&key) => {
                let added = key.len() + size(Some(&value));
                self.list.push((key, sequence, value));
                (added, 0)
            }
            version => self.rest.write(key, version, floor),
        }
    }

    fn read(&self, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        if let Some(value) = self.rest.read(key, sequence) {
            return Some(value.clone());
        }
        let at = self.list.binary_search_by(|(other, ..)| other[..].cmp(key)).ok()?;
        let (_, made, value) = &self.list[at];
        (*made <= sequence).then(|| Some(value.clone()))
    }

    fn page(&self, wanted: &Wanted<'_>) -> VecDeque<Word> {
        let begin = self.list.partition_point(|(key, ..)| match wanted.start {
            Bound::Included(start) => key[..] < *start,
            Bound::Excluded(start) => key[..] <= *start,
            Bound::Unbounded => false,
        });
        let end = self.list.partition_point(|(key, ..)| key[..] < *wanted.end);
        let known = |(key, made, value): &(Bytes, u64, Bytes)| {
            (*made <= wanted.sequence).then(|| (key.clone(), Some(value.clone())))
        };
        let list = self.list.get(begin..end).unwrap_or_default();
        let listed = wanted.take(list.iter(), known);
        merge(self.rest.page(wanted), listed, wanted)
    }

    /// Shows every key and its newest value, in order, until told to stop.
    fn visit<E>(
        &self,
        mut visit: impl FnMut(&Bytes, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.rest.0.iter().peekable();
        for (key, _, value) in &self.list {
            let mut hidden = false;
            while let Some((other, chain)) = rest.next_if(|(other, _)| *other <= key) {
                hidden = other == key;
                visit(other, chain.newest.1.as_ref())?;
            }
            if !hidden {
                visit(key, Some(value))?;
            }
        }
        rest.try_for_each(|(key, chain)| visit(key, chain.newest.1.as_ref()))
    }
}

/// The first words of two lists in order; where both have a key, that of `newer`.
fn merge(
    mut newer: VecDeque<Word>,
    mut older: VecDeque<Word>,
    wanted: &Wanted<'_>,
) -> VecDeque<Word> {
    if newer.is_empty() {
        return older;
    }
    let mut merged = VecDeque::with_capacity(wanted.count);
    while merged.len() < wanted.count {
        let order = match (newer.front(), older.front()) {
            (Some((newer, _)), Some((older, _))) => match wanted.direction {
                Direction::Forward => newer.cmp(older),
                Direction::Backward => older.cmp(newer),
            },
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (None, None) => break,
        };
        if order.is_ge() {
            let older = older.pop_front();
            if order.is_gt() {
                merged.extend(older);
                continue;
            }
        }
        merged.extend(newer.pop_front());
    }
    merged
}

/// A table whose keys are looked up one by one.
#[derive(Default)]
struct Points {
    chains: HashMap<Bytes, Chain, KeyHash>,
    order: Mutex<Order>,
}

/// The keys of a table, in order as far as somebody asked.
#[derive(Default)]
struct Order {
    sorted: BTreeSet<Bytes>,
    /// New ones that nobody asked for in order yet.
    fresh: Vec<Bytes>,
    /// Whether somebody asked for the keys in order.
    asked: bool,
    /// Whether keys are put in order at once: somebody asked in the layer before, and would wait for a whole layer to be
    /// put in order, with all writes.
    eager: bool,
}

impl Points {
    fn write(&mut self, key: Bytes, version: Version, floor: u64) -> (usize, usize) {
        let added = size(version.1.as_ref());
        if let Some(chain) = self.chains.get_mut(&key) {
            return (added, chain.push(version, floor));
        }
        let added = added + key.len();
        let order = self.order.get_mut().unwrap_or_else(PoisonError::into_inner);
        if order.eager {
            order.sorted.insert(key.clone());
        } else {
            order.fresh.push(key.clone());
        }
        self.chains.insert(key, Chain::new(version));
        (added, 0)
    }

    fn read(&self, key: &[u8], sequence: u64) -> Option<&Option<Bytes>> {
        self.chains.get(key)?.at(sequence)
    }

    fn page(&self, wanted: &Wanted<'_>) -> VecDeque<Word> {
        let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        order.asked = true;
        let mut fresh = std::mem::take(&mut order.fresh);
        if order.sorted.is_empty() {
            sort(&mut fresh);
            order.sorted = fresh.into_iter().collect();
        } else {
            order.sorted.extend(fresh);
        }
        let known =
            |key: &Bytes| self.read(key, wanted.sequence).map(|value| (key.clone(), value.clone()));
        wanted.take(order.sorted.range::<[u8], _>(wanted.bounds()), known)
    }

    /// Shows every key and its newest value, in order, until told to stop.
    fn visit<E>(
        &self,
        mut visit: impl FnMut(&Bytes, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let mut keys: Vec<Bytes> = order.sorted.iter().chain(&order.fresh).cloned().collect();
        drop(order);
        sort(&mut keys);
        keys.iter().try_for_each(|key| {
            let chain = self.chains.get(key).expect("keys are only added");
            visit(key, chain.newest.1.as_ref())
        })
    }
}

/// Sorts keys, mostly by eight bytes kept beside each: comparing keys where they lie costs a walk to the heap.
fn sort(keys: &mut Vec<Bytes>) {
    let Some(first) = keys.first() else { return };
    let shared = keys.iter().fold(first.len(), |shared, key| {
        let same = first[..shared].iter().zip(&key[..]).take_while(|(a, b)| a == b);
        same.count()
    });
    let mut marked: Vec<(u64, Bytes)> = std::mem::take(keys)
        .into_iter()
        .map(|key| {
            let mut mark = [0; 8];
            let rest = &key[shared..];
            let size = rest.len().min(8);
            mark[..size].copy_from_slice(&rest[..size]);
            (u64::from_be_bytes(mark), key)
        })
        .collect();
    marked.sort_unstable_by(|(mark, key), (other_mark, other)| {
        mark.cmp(other_mark).then_with(|| key.cmp(other))
    });
    keys.extend(marked.into_iter().map(|(_, key)| key));
}

/// The keys of a layer, by table.
#[derive(Default)]
struct Content {
    current: Points,
    history: Appended,
    state: Ordered,
    /// About what all of it costs, in bytes.
    size: usize,
}

/// Some batches. One thread writes it until it is frozen; any may read it.
#[derive(Default)]
pub(super) struct Layer(RwLock<Content>);

impl Layer {
    /// The layer that follows this one.
    pub(super) fn next(&self) -> Layer {
        let content = self.look();
        let order = content.current.order.lock().unwrap_or_else(PoisonError::into_inner);
        let order = Order { eager: order.asked, ..Order::default() };
        let current = Points { order: Mutex::new(order), ..Points::default() };
        Layer(RwLock::new(Content { current, ..Content::default() }))
    }

    fn look(&self) -> RwLockReadGuard<'_, Content> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self) -> RwLockWriteGuard<'_, Content> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a batch under its number. No view asks for what was before `floor`. Says whether it is the first, and
    /// what the layer costs with it.
    pub(super) fn write(&self, batch: Batch, sequence: u64, floor: u64) -> (bool, usize) {
        let mut content = self.change();
        let Content { current, history, state, size } = &mut *content;
        let before = *size;
        for Change { table, key, value } in batch.changes {
            let version = (sequence, value);
            let (added, gone) = match table {
                Table::Current => current.write(key, version, floor),
                Table::History => history.write(key, version, floor),
                Table::State => state.write(key, version, floor),
            };
            *size = (*size + added).saturating_sub(gone);
        }
        (before == 0, *size)
    }

    /// About what it costs, in bytes.
    pub(super) fn size(&self) -> usize {
        self.look().size
    }

    /// What a key was as of a batch; `None` when this layer says nothing of it.
    pub(super) fn read(&self, table: Table, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        let content = self.look();
        match table {
            Table::Current => content.current.read(key, sequence).cloned(),
            Table::History => content.history.read(key, sequence),
            Table::State => content.state.read(key, sequence).cloned(),
        }
    }

    /// How many keys of a table it holds, at most.
    pub(super) fn count(&self, table: Table) -> usize {
        let content = self.look();
        match table {
            Table::Current => content.current.chains.len(),
            Table::History => content.history.list.len() + content.history.rest.0.len(),
            Table::State => content.state.0.len(),
        }
    }

    /// Shows every key of a table and its newest value, in order, until told to stop.
    pub(super) fn visit<E>(
        &self,
        table: Table,
        mut visit: impl FnMut(&Bytes, Option<&Bytes>) -> Result<(), E>,
    ) -> Result<(), E> {
        let content = self.look();
        match table {
            Table::Current => content.current.visit(visit),
            Table::History => content.history.visit(visit),
            Table::State => {
                let mut pairs = content.state.0.iter();
                pairs.try_for_each(|(key, chain)| visit(key, chain.newest.1.as_ref()))
            }
        }
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
    page: VecDeque<Word>,
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
        let wanted = Wanted {
            start: self.start.as_ref().map(|key| &key[..]),
            end: &self.end,
            direction: self.direction,
            sequence: self.sequence,
            count: self.page_size,
        };
        self.page = match self.table {
            Table::Current => content.current.page(&wanted),
            Table::History => content.history.page(&wanted),
            Table::State => content.state.page(&wanted),
        };
        drop(content);
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
    type Item = Word;

    fn next(&mut self) -> Option<Word> {
        if self.page.is_empty() && !self.done {
            self.fill();
        }
        self.page.pop_front()
    }
}
