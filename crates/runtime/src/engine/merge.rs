//! Merging runs into larger ones, so that they stay few and what was overwritten gives its space back.
//!
//! Runs of about one size are merged once there are [`width`] of them, newest first, into one that is about as
//! many times larger: each entry is written again once for each step in size. Only neighbours in age are merged,
//! so the newest word on a key always stands first. A merge with the oldest run drops what says that a key was
//! removed, as there is nothing left to hide.

use super::block;
use super::manifest::Runs;
use super::run::{BlockPiece, FileWriter, Run, RunWriter, block_size};
use bytes::Bytes;
use quorate_store::engine::{EngineError, Table};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// How many runs of about one size are merged. Those of history mostly follow each other, so that a key is looked for
/// in one, and many are no burden.
const fn width(table: Table) -> usize {
    match table {
        Table::History => 16,
        Table::Current | Table::State => 4,
    }
}

/// With so many runs, flushes wait for merges.
pub(super) const fn runs_max(table: Table) -> usize {
    8 * width(table)
}

/// Runs up to this size in bytes count as one size: a flush of little work.
const SIZE_MIN: u64 = 256 * 1024;

/// How much of a run is read at once, in bytes.
const READ_SIZE: usize = 128 * 1024;

/// A merge that is due.
pub(super) struct Merge {
    pub(super) table: Table,
    /// Neighbours, newest first.
    pub(super) runs: Vec<Arc<Run>>,
    /// Whether the oldest run is among them.
    drops_removed: bool,
}

/// How often a size was multiplied by `width`.
fn step(size: u64, width: usize) -> u32 {
    (size / SIZE_MIN).max(1).ilog(width as u64)
}

impl Merge {
    /// What should be merged next, if anything.
    pub(super) fn choose(runs: &Runs) -> Option<Merge> {
        Table::ALL.into_iter().find_map(|table| {
            let runs = runs.of(table);
            let range = due(runs, width(table))?;
            let drops_removed = range.end == runs.len();
            Some(Merge { table, runs: runs[range].to_vec(), drops_removed })
        })
    }

    /// Writes what the runs say together as one run; where it ends in the file, and `None` when nothing is left.
    /// `goes_on` is asked now and then; when it says no, the merge fails.
    pub(super) fn write(
        &self,
        file: &mut FileWriter,
        goes_on: impl Fn() -> bool,
    ) -> Result<Option<u64>, EngineError> {
        let count = self.runs.iter().map(|run| run.count).sum();
        let mut writer = RunWriter::new(file, self.table, count);
        let mut sources = Vec::with_capacity(self.runs.len());
        for run in &self.runs {
            sources.push(Source::new(Arc::clone(run))?);
        }
        let copies = self.table != Table::Current;
        while let Some(first) = first(&sources) {
            if copies && self.copy_block(&mut writer, &mut sources, first)? {
                continue;
            }
            let (key, value) = sources[first].head();
            if value.is_some() || !self.drops_removed {
                writer.add(key, value)?;
            }
            let (newest, older) = sources.split_at_mut(first + 1);
            let mut ended = false;
            for source in older.iter_mut().filter(|source| source.left) {
                if source.key() == newest[first].key() {
                    ended |= source.advance()?;
                }
            }
            if (newest[first].advance()? || ended) && !goes_on() {
                return Err(EngineError::Failed("the merge was cut short".into()));
            }
        }
        writer.finish()
    }

    /// Copies the block in which the first source stands, if it stands at its beginning and all of it lies before
    /// what the others have left.
    fn copy_block(
        &self,
        writer: &mut RunWriter<'_>,
        sources: &mut [Source],
        first: usize,
    ) -> Result<bool, EngineError> {
        let source = &sources[first];
        if source.block.len() < block_size(self.table) / 2 {
            // Every block has a place in memory: those of small flushes are joined.
            return Ok(false);
        }
        if source.at != 0 || (self.drops_removed && source.run.removed > 0) {
            return Ok(false);
        }
        let behind = source.behind_block();
        let others = sources.iter().enumerate().filter(|(at, other)| *at != first && other.left);
        for (_, other) in others {
            let head = other.head().0;
            let is_before = match behind {
                Some(behind) => behind <= head,
                None => source.run.last() < head,
            };
            if !is_before {
                return Ok(false);
            }
        }
        let source = &mut sources[first];
        let (piece, last) = source.piece()?;
        writer.add_block(&piece, &piece.block[last])?;
        source.skip_block()?;
        Ok(true)
    }
}

/// The runs to merge: the newest of about one size, once there are enough, the smaller ones before them together
/// counting as one; otherwise all, when much of them only says what was removed.
fn due(runs: &[Arc<Run>], width: usize) -> Option<Range<usize>> {
    let (mut largest, mut count, mut end) = (0, 0, 0);
    for (at, run) in runs.iter().enumerate() {
        // A run behind a larger one is merged with it.
        if step(run.size, width) > largest {
            largest = step(run.size, width);
            count = usize::from(at > 0);
        }
        count += 1;
        if count >= width {
            end = at + 1;
        }
    }
    let entries: u64 = runs.iter().map(|run| run.count).sum();
    let removed: u64 = runs.iter().map(|run| run.removed).sum();
    if end == 0 && removed > entries / 4 {
        end = runs.len();
    }
    (end > 0).then_some(0..end)
}

/// Which source stands at the lowest key; of several the newest.
fn first(sources: &[Source]) -> Option<usize> {
    let mut first: Option<usize> = None;
    for (at, source) in sources.iter().enumerate().filter(|(_, source)| source.left) {
        if first.is_none_or(|first| source.key() < sources[first].key()) {
            first = Some(at);
        }
    }
    first
}

/// A run that is read from its beginning to its end, past the cache of blocks.
struct Source {
    run: Arc<Run>,
    /// What was read and not begun.
    pieces: VecDeque<BlockPiece>,
    /// The block that is next to be read.
    next: usize,
    block: Bytes,
    first: Bytes,
    checksum: u64,
    /// Where in the block the entry begins that it stands at.
    at: usize,
    /// Where its key stands, and its value unless the key was removed.
    key: Range<usize>,
    value: Option<Range<usize>>,
    /// Where the next entry begins.
    end: usize,
    /// Whether it stands at an entry.
    left: bool,
}

impl Source {
    fn new(run: Arc<Run>) -> Result<Source, EngineError> {
        let mut source = Source {
            run,
            pieces: VecDeque::new(),
            next: 0,
            block: Bytes::new(),
            first: Bytes::new(),
            checksum: 0,
            at: 0,
            key: 0..0,
            value: None,
            end: 0,
            left: true,
        };
        source.skip_block()?;
        Ok(source)
    }

    fn head(&self) -> (&[u8], Option<&[u8]>) {
        (self.key(), self.value.clone().map(|value| &self.block[value]))
    }

    fn key(&self) -> &[u8] {
        &self.block[self.key.clone()]
    }

    /// The first key of the block behind the one it stands in.
    fn behind_block(&self) -> Option<&[u8]> {
        match self.pieces.front() {
            Some(piece) => Some(&piece.first),
            None => (self.next < self.run.block_count()).then(|| self.run.first(self.next)),
        }
    }

    /// The block that it stands in, and where its last key stands.
    fn piece(&self) -> Result<(BlockPiece, Range<usize>), EngineError> {
        let (mut count, mut removed, mut at, mut last) = (0, 0, 0, 0..0);
        while at < self.block.len() {
            let entry = block::entry_at(&self.block, at).ok_or_else(|| self.malformed())?;
            count += 1;
            removed += u64::from(entry.value.is_none());
            (at, last) = (entry.end, entry.key);
        }
        let (first, block) = (self.first.clone(), self.block.clone());
        Ok((BlockPiece { first, block, checksum: self.checksum, count, removed }, last))
    }

    fn malformed(&self) -> EngineError {
        self.run.malformed(self.next - self.pieces.len() - 1)
    }

    /// Goes to the next entry; whether a block ended.
    fn advance(&mut self) -> Result<bool, EngineError> {
        if self.end == self.block.len() {
            self.skip_block()?;
            return Ok(true);
        }
        self.stand_at(self.end)?;
        Ok(false)
    }

    fn stand_at(&mut self, at: usize) -> Result<(), EngineError> {
        let entry = block::entry_at(&self.block, at).ok_or_else(|| self.malformed())?;
        self.at = at;
        self.end = entry.end;
        self.value = entry.value;
        self.key = entry.key;
        Ok(())
    }

    /// Goes to the first entry of the next block.
    fn skip_block(&mut self) -> Result<(), EngineError> {
        if self.pieces.is_empty() {
            if self.next == self.run.block_count() {
                self.left = false;
                return Ok(());
            }
            self.pieces = self.run.blocks(self.next, READ_SIZE)?.into();
            self.next += self.pieces.len();
        }
        let BlockPiece { first, block, checksum, .. } =
            self.pieces.pop_front().expect("at least one block was read");
        (self.first, self.block, self.checksum) = (first, block, checksum);
        self.stand_at(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run in a file of its own.
    fn run(folder: &std::path::Path, number: u64, table: Table, keys: &[u32]) -> Arc<Run> {
        let mut file = FileWriter::create(folder, number).expect("made");
        let mut writer = RunWriter::new(&mut file, table, keys.len() as u64);
        for key in keys {
            writer.add(&key.to_be_bytes(), Some(&[7; 100])).expect("added");
        }
        let end = writer.finish().expect("written").expect("it has entries");
        Arc::new(Run::open(file.finish().expect("synced"), table, end).expect("whole"))
    }

    fn merged(folder: &std::path::Path, runs: Vec<Arc<Run>>) -> Run {
        let merge = Merge { table: Table::History, runs, drops_removed: true };
        let mut file = FileWriter::create(folder, 1_000_000).expect("made");
        let end = merge.write(&mut file, || true).expect("merged").expect("it has entries");
        Run::open(file.finish().expect("synced"), merge.table, end).expect("whole")
    }

    #[test]
    fn small_blocks_are_joined_and_large_ones_are_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = |number: u32| run(folder.path(), number.into(), Table::History, &[number]);
        let joined = merged(folder.path(), (0..100).rev().map(one).collect());
        assert_eq!((joined.count, joined.block_count()), (100, 1));

        let many = |number: u32| {
            let keys: Vec<u32> = (number * 1_000..(number + 1) * 1_000).collect();
            run(folder.path(), number.into(), Table::History, &keys)
        };
        let runs: Vec<_> = (0..3).rev().map(many).collect();
        let blocks: usize = runs.iter().map(|run| run.block_count()).sum();
        let kept = merged(folder.path(), runs);
        assert_eq!((kept.count, kept.block_count()), (3_000, blocks));
    }

    #[test]
    fn keys_that_do_not_rise_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut file = FileWriter::create(folder.path(), 1).expect("made");
        let mut writer = RunWriter::new(&mut file, Table::Current, 3);
        writer.add(b"b", None).expect("added");
        assert!(writer.add(b"b", None).is_err());
        assert!(writer.add(b"a", None).is_err());
    }
}
