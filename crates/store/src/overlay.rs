//! Changes not yet written, over a view: what an apply reads sees the writes of the entries before
//! it.

use crate::engine::{Batch, Change, Direction, EngineError, EngineView, Pair, Table};
use crate::keys::KeyRange;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, btree_map};
use std::iter::{Peekable, Rev};

/// Changes by table and key; a later change of a key replaces an earlier one.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    tables: [BTreeMap<Bytes, Option<Bytes>>; Table::ALL.len()],
}

impl Changes {
    pub(crate) fn put(&mut self, table: Table, key: Bytes, value: Bytes) {
        self.tables[table as usize].insert(key, Some(value));
    }

    pub(crate) fn remove(&mut self, table: Table, key: Bytes) {
        self.tables[table as usize].insert(key, None);
    }

    /// All of them, as one batch.
    pub(crate) fn into_batch(self) -> Batch {
        let count = self.tables.iter().map(BTreeMap::len).sum();
        let mut changes = Vec::with_capacity(count);
        for (table, pairs) in Table::ALL.into_iter().zip(self.tables) {
            changes.extend(pairs.into_iter().map(|(key, value)| Change { table, key, value }));
        }
        Batch { changes }
    }
}

/// A view with changes over it.
pub(crate) struct Overlay<V> {
    /// What was written before.
    view: V,
    /// What this apply changes; empty for a reader.
    pub(crate) changes: Changes,
    /// Where the keys and values of changes are put together: what is written about one time stands,
    /// and goes, together.
    pub(crate) scratch: BytesMut,
}

impl<V: EngineView> Overlay<V> {
    pub(crate) fn new(view: V) -> Overlay<V> {
        Overlay::with_scratch(view, BytesMut::new())
    }

    pub(crate) fn with_scratch(view: V, scratch: BytesMut) -> Overlay<V> {
        Overlay { view, changes: Changes::default(), scratch }
    }

    pub(crate) fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        match self.changes.tables[table as usize].get(key) {
            Some(value) => Ok(value.clone()),
            None => self.view.read(table, key),
        }
    }

    pub(crate) fn scan(
        &self,
        table: Table,
        range: &KeyRange,
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, EngineError>> {
        let changed = &self.changes.tables[table as usize];
        let above = if range.start < range.end {
            changed.range::<Bytes, _>(&range.start..&range.end)
        } else {
            btree_map::Range::default()
        };
        let above = match direction {
            Direction::Forward => Above::Forward(above),
            Direction::Backward => Above::Backward(above.rev()),
        };
        let below = self.view.scan(table, &range.start, &range.end, direction);
        Merged { below: below.peekable(), above: above.peekable(), direction }
    }
}

enum Above<'a> {
    Forward(btree_map::Range<'a, Bytes, Option<Bytes>>),
    Backward(Rev<btree_map::Range<'a, Bytes, Option<Bytes>>>),
}

impl<'a> Iterator for Above<'a> {
    type Item = (&'a Bytes, &'a Option<Bytes>);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Above::Forward(range) => range.next(),
            Above::Backward(range) => range.next(),
        }
    }
}

/// Two ordered streams as one; where both have a key, the changes win.
struct Merged<'a, I: Iterator<Item = Result<Pair, EngineError>>> {
    below: Peekable<I>,
    above: Peekable<Above<'a>>,
    direction: Direction,
}

impl<I: Iterator<Item = Result<Pair, EngineError>>> Iterator for Merged<'_, I> {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some((changed, _)) = self.above.peek() else { return self.below.next() };
            if let Some(Err(_)) = self.below.peek() {
                return self.below.next();
            }
            if let Some(Ok((key, _))) = self.below.peek() {
                let order = match self.direction {
                    Direction::Forward => key.cmp(changed),
                    Direction::Backward => key.cmp(changed).reverse(),
                };
                if order.is_lt() {
                    return self.below.next();
                }
                if order.is_eq() {
                    self.below.next();
                }
            }
            if let Some((key, Some(value))) = self.above.next() {
                return Some(Ok((key.clone(), value.clone())));
            }
        }
    }
}
