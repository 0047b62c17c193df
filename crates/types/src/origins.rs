//! The bounded, replicated memory of which proposals were applied.
//!
//! For each incarnation the table keeps the highest sequence seen and one bit for each of the
//! [`ORIGIN_WINDOW`] sequences up to it. What lies below the window counts as seen: whoever proposes keeps
//! fewer than a window's worth of proposals undecided, so only proposals already given up fall there.

use crate::{DecodeError, Incarnation, NodeId, Origin, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::BTreeMap;

/// How many sequences of one incarnation are remembered one by one.
pub const ORIGIN_WINDOW: u64 = 4096;

/// How many incarnations are remembered: more than the members of a group and their recent predecessors. Above
/// it the one whose last use is longest ago (by use, which is replicated order) is forgotten.
const INCARNATIONS_MAX: usize = 256;

/// How often a table can have been used: no group lives so long, and the next use can still be counted.
const USES_MAX: u64 = u64::MAX / 2;

const WORDS: usize = (ORIGIN_WINDOW / 64) as usize;

/// What the table says of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OriginVerdict {
    /// Never seen; now recorded. Apply the entry.
    New,
    /// Seen before, or too old to tell. Do not apply the entry.
    Seen,
}

/// One incarnation's window.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Window {
    /// The highest sequence seen.
    highest: u64,
    /// When this window was last used, in uses of the table.
    used: u64,
    /// Bit `s % ORIGIN_WINDOW` for each sequence `s` in `highest - ORIGIN_WINDOW < s <= highest`.
    seen: Box<[u64; WORDS]>,
}

/// Which proposals were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginTable {
    windows: BTreeMap<(NodeId, Incarnation), Window>,
    /// How often the table was used.
    uses: u64,
}

impl OriginTable {
    /// Records an origin and says whether it is new. [`Origin::NONE`] is always new and never recorded.
    pub fn record(&mut self, origin: Origin) -> OriginVerdict {
        if origin.is_none() {
            return OriginVerdict::New;
        }
        self.uses += 1;
        let key = (origin.node, origin.incarnation);
        if !self.windows.contains_key(&key) && self.windows.len() >= INCARNATIONS_MAX {
            self.forget_least_used();
        }
        let window = self.windows.entry(key).or_insert_with(|| Window {
            highest: 0,
            used: 0,
            seen: Box::new([0; WORDS]),
        });
        window.used = self.uses;
        window.record(origin.sequence)
    }

    fn forget_least_used(&mut self) {
        let least = self.windows.iter().min_by_key(|(_, window)| window.used).map(|(key, _)| *key);
        if let Some(key) = least {
            self.windows.remove(&key);
        }
    }

    /// The incarnations it remembers.
    pub fn incarnations(&self) -> impl Iterator<Item = (NodeId, Incarnation)> + '_ {
        self.windows.keys().copied()
    }

    /// The encoding of the whole table, for state machines that keep it in one piece.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_count(self.windows.len());
        for (node, incarnation) in self.windows.keys() {
            let window = self.encode_window(*node, *incarnation).expect("it is one of ours");
            buffer.put_u64_le(node.0);
            buffer.put_u64_le(incarnation.0);
            buffer.write_blob(&window);
        }
        buffer.freeze()
    }

    /// Reads what [`OriginTable::encode`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode(bytes: Bytes) -> Result<OriginTable, DecodeError> {
        let mut reader = Reader::new("origin table", bytes);
        let mut table = OriginTable::default();
        for _ in 0..reader.count(20)? {
            let (node, incarnation) = (NodeId(reader.u64()?), Incarnation(reader.u64()?));
            table.decode_window(node, incarnation, reader.blob()?)?;
        }
        reader.finish()?;
        Ok(table)
    }

    /// The encoding of one incarnation's window, to be kept under its key; `None` when it is not known.
    #[must_use]
    pub fn encode_window(&self, node: NodeId, incarnation: Incarnation) -> Option<Bytes> {
        let window = self.windows.get(&(node, incarnation))?;
        let mut buffer = BytesMut::with_capacity(16 + WORDS * 8);
        buffer.put_u64_le(window.highest);
        buffer.put_u64_le(window.used);
        window.seen.iter().for_each(|word| buffer.put_u64_le(*word));
        Some(buffer.freeze())
    }

    /// Takes in a window that [`OriginTable::encode_window`] wrote.
    ///
    /// # Errors
    /// When the bytes are not such an encoding.
    pub fn decode_window(
        &mut self,
        node: NodeId,
        incarnation: Incarnation,
        bytes: Bytes,
    ) -> Result<(), DecodeError> {
        let mut reader = Reader::new("origin window", bytes);
        let highest = reader.u64()?;
        let used = reader.u64()?;
        if used > USES_MAX {
            return Err(DecodeError::TooLarge { what: "origin use", value: used, limit: USES_MAX });
        }
        let mut seen = Box::new([0; WORDS]);
        for word in seen.iter_mut() {
            *word = reader.u64()?;
        }
        reader.finish()?;
        self.uses = self.uses.max(used);
        self.windows.insert((node, incarnation), Window { highest, used, seen });
        Ok(())
    }
}

impl Window {
    fn record(&mut self, sequence: u64) -> OriginVerdict {
        if sequence.saturating_add(ORIGIN_WINDOW) <= self.highest {
            return OriginVerdict::Seen;
        }
        if sequence > self.highest {
            let skipped = (sequence - self.highest).min(ORIGIN_WINDOW);
            for back in 0..skipped {
                self.set(sequence - back, false);
            }
            self.highest = sequence;
        }
        if self.is_set(sequence) {
            return OriginVerdict::Seen;
        }
        self.set(sequence, true);
        OriginVerdict::New
    }

    fn is_set(&self, sequence: u64) -> bool {
        let bit = sequence % ORIGIN_WINDOW;
        self.seen[(bit / 64) as usize] & (1 << (bit % 64)) != 0
    }

    fn set(&mut self, sequence: u64, value: bool) {
        let bit = sequence % ORIGIN_WINDOW;
        let word = &mut self.seen[(bit / 64) as usize];
        let mask = 1 << (bit % 64);
        if value { *word |= mask } else { *word &= !mask }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(sequence: u64) -> Origin {
        Origin { node: NodeId(1), incarnation: Incarnation(7), sequence }
    }

    #[test]
    fn an_origin_is_new_once_in_any_order() {
        let mut table = OriginTable::default();
        for sequence in [5, 1, 3, 4, 2, 9000, 8000, 5000] {
            assert_eq!(table.record(origin(sequence)), OriginVerdict::New, "{sequence}");
            assert_eq!(table.record(origin(sequence)), OriginVerdict::Seen, "{sequence}");
        }
        assert_eq!(table.record(origin(9000 - ORIGIN_WINDOW)), OriginVerdict::Seen);
        assert_eq!(table.record(origin(9001 - ORIGIN_WINDOW)), OriginVerdict::New);
    }

    #[test]
    fn a_window_agrees_with_a_set_of_everything_seen() {
        let mut table = OriginTable::default();
        let mut seen = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        for step in 0..200_000_u64 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let sequence = 1 + step / 3 + (state >> 33) % ORIGIN_WINDOW;
            let highest = seen.last().copied().unwrap_or(0);
            let expected_new = sequence + ORIGIN_WINDOW > highest && !seen.contains(&sequence);
            let verdict = table.record(origin(sequence));
            assert_eq!(verdict == OriginVerdict::New, expected_new, "{sequence} at step {step}");
            seen.insert(sequence);
        }
    }

    #[test]
    fn a_window_survives_its_encoding() {
        let mut table = OriginTable::default();
        (1..5000).for_each(|sequence| {
            table.record(origin(sequence * 3 % 5000));
        });
        let bytes = table.encode_window(NodeId(1), Incarnation(7)).expect("known");
        let mut copy = OriginTable::default();
        copy.decode_window(NodeId(1), Incarnation(7), bytes).expect("own encoding");
        assert_eq!(copy, table);
        assert_eq!(OriginTable::decode(table.encode()), Ok(table));
    }
}
