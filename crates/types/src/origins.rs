//! The bounded, replicated memory of which proposals were applied.
//!
//! For each incarnation the table keeps the highest sequence seen and one bit for each of the
//! [`ORIGIN_WINDOW`] sequences up to it. What lies below the window counts as seen: whoever proposes keeps
//! fewer than a window's worth of proposals undecided, so only proposals already given up fall there.

use crate::{DecodeError, Entry, EntryKind, Incarnation, NodeId, Origin, Reader, Writer};
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{BTreeMap, BTreeSet};

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

/// What became of a proposal, as of some applied index.
///
/// A proposal whose client was told that its outcome is unknown may be applied at any later time, or never. An entry of kind
/// [`EntryKind::Settle`] puts an end to that: whichever of the two is applied first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was applied.
    Applied,
    /// It was not, and never will be.
    Never,
    /// It was not, and may still be.
    Open,
    /// It will not be any more; whether it was is no longer known, because [`ORIGIN_WINDOW`] later ones of that data folder
    /// have come, or one of a later start of it.
    Forgotten,
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
    /// Those of them that were settled before they came. Mostly none.
    settled: BTreeSet<u64>,
}

/// Which proposals were applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginTable {
    windows: BTreeMap<(NodeId, Incarnation), Window>,
    /// How often the table was used.
    uses: u64,
}

impl OriginTable {
    /// Takes an entry's origin in, as every apply must. Whether what the entry says is to be carried out: it is a client's, and
    /// its first. An entry that settles another's fate is done with that.
    ///
    /// # Errors
    /// When it settles something that cannot be read.
    pub fn admit(&mut self, entry: &Entry) -> Result<bool, DecodeError> {
        match entry.kind() {
            EntryKind::Noop | EntryKind::Configuration => Ok(false),
            EntryKind::Command | EntryKind::WriteSet | EntryKind::Prepared => {
                Ok(self.record(entry.origin()) == OriginVerdict::New)
            }
            EntryKind::Settle => {
                let target = settled_by(entry)?;
                self.record(entry.origin());
                self.settle(target);
                Ok(false)
            }
        }
    }

    /// What became of a proposal, as far as it was applied here.
    #[must_use]
    pub fn fate(&self, origin: Origin) -> Fate {
        let window = self.windows.get(&(origin.node, origin.incarnation));
        window.map_or(Fate::Open, |window| window.fate(origin.sequence))
    }

    /// From now on the proposal of this origin takes no effect, if it has taken none.
    fn settle(&mut self, origin: Origin) {
        if self.fate(origin) == Fate::Open && self.record(origin) == OriginVerdict::New {
            let window = self.windows.get_mut(&(origin.node, origin.incarnation));
            window.map(|window| window.settled.insert(origin.sequence));
        }
    }

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
            settled: BTreeSet::new(),
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
        window.settled.iter().for_each(|sequence| buffer.put_u64_le(*sequence));
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
        let mut window = Window { highest, used, seen, settled: BTreeSet::new() };
        while !reader.is_empty() {
            let sequence = reader.u64()?;
            let is_last = window.settled.last().is_none_or(|last| *last < sequence);
            if !is_last || window.fate(sequence) != Fate::Applied {
                return Err(DecodeError::Invalid("a settled proposal outside of its window"));
            }
            window.settled.insert(sequence);
        }
        self.uses = self.uses.max(used);
        self.windows.insert((node, incarnation), window);
        Ok(())
    }
}

/// Whose fate an entry settles.
///
/// # Errors
/// When it does not say.
pub fn settled_by(entry: &Entry) -> Result<Origin, DecodeError> {
    let mut reader = Reader::new("settled origin", entry.body().clone());
    let origin = Origin::decode(&mut reader)?;
    reader.finish()?;
    Ok(origin)
}

impl Window {
    /// Whether a sequence lies below the window.
    fn is_below(&self, sequence: u64) -> bool {
        sequence.saturating_add(ORIGIN_WINDOW) <= self.highest
    }

    fn fate(&self, sequence: u64) -> Fate {
        if self.is_below(sequence) {
            Fate::Forgotten
        } else if sequence > self.highest || !self.is_set(sequence) {
            Fate::Open
        } else if self.settled.contains(&sequence) {
            Fate::Never
        } else {
            Fate::Applied
        }
    }

    fn record(&mut self, sequence: u64) -> OriginVerdict {
        if self.is_below(sequence) {
            return OriginVerdict::Seen;
        }
        if sequence > self.highest {
            let skipped = (sequence - self.highest).min(ORIGIN_WINDOW);
            for back in 0..skipped {
                self.set(sequence - back, false);
            }
            self.highest = sequence;
            while self.settled.first().is_some_and(|settled| self.is_below(*settled)) {
                self.settled.pop_first();
            }
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

    fn settle(target: Origin) -> Entry {
        let mut body = BytesMut::new();
        target.encode(&mut body);
        let own = Origin { node: NodeId(2), incarnation: Incarnation(8), sequence: 1 };
        entry(EntryKind::Settle, own, body.freeze())
    }

    fn entry(kind: EntryKind, origin: Origin, body: Bytes) -> Entry {
        Entry::new(crate::Epoch::new(1, NodeId(1)), kind, origin, crate::TransactionId(0), body)
    }

    fn command(sequence: u64) -> Entry {
        entry(EntryKind::Command, origin(sequence), Bytes::new())
    }

    #[test]
    fn whichever_comes_first_counts_a_proposal_or_what_settles_it() {
        let mut table = OriginTable::default();
        assert_eq!(table.fate(origin(3)), Fate::Open);
        assert_eq!(table.admit(&command(3)), Ok(true));
        assert_eq!(table.fate(origin(2)), Fate::Open, "it may come late");
        assert_eq!(table.fate(origin(4)), Fate::Open);
        for (sequence, fate) in [(2, Fate::Never), (3, Fate::Applied), (5, Fate::Never)] {
            // Said twice it changes nothing.
            for _ in 0..2 {
                assert_eq!(table.admit(&settle(origin(sequence))), Ok(false));
                assert_eq!(table.fate(origin(sequence)), fate, "{sequence}");
            }
            assert_eq!(table.admit(&command(sequence)), Ok(false), "{sequence}");
            assert_eq!(table.fate(origin(sequence)), fate, "{sequence}");
        }
        assert_eq!(OriginTable::decode(table.encode()), Ok(table.clone()));
        // What is too old to tell is not made up.
        assert_eq!(table.admit(&command(5 + ORIGIN_WINDOW)), Ok(true));
        assert_eq!(table.fate(origin(5)), Fate::Forgotten);
        assert_eq!(table.admit(&settle(origin(3))), Ok(false));
        assert_eq!(table.fate(origin(3)), Fate::Forgotten);
        assert_eq!(OriginTable::decode(table.encode()), Ok(table.clone()));
        let window = table.encode_window(NodeId(1), Incarnation(7)).expect("in use");
        assert_eq!(window.len(), 16 + WORDS * 8, "nothing is left of what is below the window");
    }

    #[test]
    fn what_settles_nothing_that_can_be_read_is_an_error() {
        let mut table = OriginTable::default();
        let broken = entry(EntryKind::Settle, origin(1), Bytes::from_static(b"?"));
        assert!(table.admit(&broken).is_err());
        assert_eq!(table, OriginTable::default());
        for kind in [EntryKind::Noop, EntryKind::Configuration] {
            assert_eq!(table.admit(&entry(kind, origin(1), Bytes::new())), Ok(false));
        }
        assert_eq!(table, OriginTable::default(), "nobody proposed those");
    }

    #[test]
    fn settled_proposals_that_are_not_in_the_window_are_no_encoding() {
        let mut table = OriginTable::default();
        table.record(origin(3));
        let window = table.encode_window(NodeId(1), Incarnation(7)).expect("in use");
        let with = |sequences: &[u64]| {
            let mut bytes = BytesMut::from(&window[..]);
            sequences.iter().for_each(|sequence| bytes.put_u64_le(*sequence));
            OriginTable::default().decode_window(NodeId(1), Incarnation(7), bytes.freeze())
        };
        assert_eq!(with(&[3]), Ok(()));
        for wrong in [&[2][..], &[4], &[3, 3], &[3, 2]] {
            assert!(with(wrong).is_err(), "{wrong:?}");
        }
    }
}
