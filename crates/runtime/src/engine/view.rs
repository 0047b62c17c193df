//! Views: the layers in memory over the tables on disk, as of one batch.

use super::engine_error;
use super::generation::{Generation, Layers};
use super::layer::LayerScan;
use crate::engine_key::{pack, unpack};
use bytes::Bytes;
use fjall::{Guard, Readable};
use quorate_store::engine::{Direction, EngineError, EngineView, Pair, Table};
use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

/// A consistent view of one generation, which it keeps from being removed.
pub struct FjallView {
    layers: Layers,
    /// The last batch that it shows.
    sequence: u64,
    generation: Arc<Generation>,
}

impl FjallView {
    /// A view of this moment.
    pub(super) fn new(generation: Arc<Generation>) -> FjallView {
        let (layers, sequence) = generation.core.enter();
        FjallView { layers, sequence, generation }
    }

    fn read_base(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let core = &self.generation.core;
        let base = &self.layers.base;
        let is_row = table == Table::Current;
        if is_row && let Some(value) = core.rows.read(key, base.number) {
            return Ok(Some(value));
        }
        let value = base.snapshot.get(core.table(table), pack(key)).map_err(engine_error)?;
        // A copy, so that it does not keep the block that it stands in.
        let value = value.map(|value| Bytes::copy_from_slice(&value));
        if is_row && let Some(value) = &value {
            core.rows.offer(key, value, base.number);
        }
        Ok(value)
    }
}

impl Drop for FjallView {
    fn drop(&mut self) {
        self.generation.core.leave(self.sequence);
    }
}

impl EngineView for FjallView {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        if let Some(value) = self.layers.active.read(table, key, self.sequence) {
            return Ok(value);
        }
        let frozen = self.layers.frozen.as_ref();
        match frozen.and_then(|frozen| frozen.read(table, key, self.sequence)) {
            Some(value) => Ok(value),
            None => self.read_base(table, key),
        }
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, EngineError>> {
        let mut range = (start < end).then(|| {
            let tree = self.generation.core.table(table);
            self.layers.base.snapshot.range(tree, pack(start)..pack(end))
        });
        let below = std::iter::from_fn(move || {
            let range = range.as_mut()?;
            let guard = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            guard.map(pair)
        });
        let layers = [Some(&self.layers.active), self.layers.frozen.as_ref()];
        let above = layers.into_iter().flatten().map(|layer| {
            LayerScan::new(layer, (table, self.sequence), (start, end), direction).peekable()
        });
        Merged { above: above.collect(), below: below.peekable(), direction }
    }
}

fn pair(guard: Guard) -> Result<Pair, EngineError> {
    let (key, value) = guard.into_inner().map_err(engine_error)?;
    let key =
        unpack(&key).ok_or_else(|| EngineError::Damaged(format!("no key of ours: {key:02x?}")))?;
    Ok((Bytes::from(key), Bytes::copy_from_slice(&value)))
}

/// Ordered streams as one; where several have a key, the newest says what it is.
struct Merged<'a, I: Iterator<Item = Result<Pair, EngineError>>> {
    /// Newest first.
    above: Vec<Peekable<LayerScan<'a>>>,
    below: Peekable<I>,
    direction: Direction,
}

impl<I: Iterator<Item = Result<Pair, EngineError>>> Merged<'_, I> {
    fn order(&self, a: &[u8], b: &[u8]) -> Ordering {
        match self.direction {
            Direction::Forward => a.cmp(b),
            Direction::Backward => b.cmp(a),
        }
    }

    /// The first key that the layers say something of.
    fn first_above(&mut self) -> Option<Bytes> {
        let mut first: Option<Bytes> = None;
        for at in 0..self.above.len() {
            let Some(key) = self.above[at].peek().map(|(key, _)| key.clone()) else { continue };
            if first.as_ref().is_none_or(|first| self.order(&key, first).is_lt()) {
                first = Some(key);
            }
        }
        first
    }
}

impl<I: Iterator<Item = Result<Pair, EngineError>>> Iterator for Merged<'_, I> {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(first) = self.first_above() else { return self.below.next() };
            let order = match self.below.peek() {
                Some(Err(_)) => return self.below.next(),
                Some(Ok((key, _))) => {
                    let key = key.clone();
                    self.order(&key, &first)
                }
                None => Ordering::Greater,
            };
            if order.is_lt() {
                return self.below.next();
            }
            if order.is_eq() {
                self.below.next();
            }
            let mut newest = None;
            for layer in &mut self.above {
                if let Some((_, value)) = layer.next_if(|(key, _)| *key == first) {
                    newest = newest.or(Some(value));
                }
            }
            if let Some(Some(value)) = newest {
                return Some(Ok((first, value)));
            }
        }
    }
}
