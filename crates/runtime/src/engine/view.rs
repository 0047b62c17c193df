//! Views: the layers in memory over the runs on disk, as of one batch.

use super::block;
use super::generation::{Generation, Layers};
use super::layer::LayerScan;
use super::run::{BlockCache, Run};
use bytes::Bytes;
use quorate_store::engine::{Direction, EngineError, EngineView, Pair, Table};
use std::sync::Arc;

/// A consistent view of one generation, which it keeps from being removed.
pub struct DiskView {
    layers: Layers,
    /// The last batch that it shows.
    sequence: u64,
    generation: Arc<Generation>,
}

impl DiskView {
    /// A view of this moment.
    pub(super) fn new(generation: Arc<Generation>) -> DiskView {
        let (layers, sequence) = generation.core.enter();
        DiskView { layers, sequence, generation }
    }

    fn read_base(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let core = &self.generation.core;
        let base = &self.layers.base;
        let is_row = table == Table::Current;
        if is_row && let Some(value) = core.rows.read(key, base.number) {
            return Ok(Some(value));
        }
        for run in base.runs.of(table) {
            let Some(found) = run.find(key, &core.blocks)? else { continue };
            // A copy, so that it does not keep the block that it stands in.
            let value = found.map(|value| Bytes::copy_from_slice(&value));
            if is_row && let Some(value) = &value {
                core.rows.offer(key, value, base.number);
            }
            return Ok(value);
        }
        Ok(None)
    }
}

impl Drop for DiskView {
    fn drop(&mut self) {
        self.generation.core.leave(self.sequence);
    }
}

impl EngineView for DiskView {
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
        let layers = [Some(&self.layers.active), self.layers.frozen.as_ref()];
        let layers = layers.into_iter().flatten().map(|layer| {
            let scan = LayerScan::new(layer, (table, self.sequence), (start, end), direction);
            Source::new(Words::Layer(scan))
        });
        let blocks = &self.generation.core.blocks;
        let runs = self.layers.base.runs.of(table).iter().filter_map(|run| {
            let scan = RunScan::new(run, blocks, (start, end), direction)?;
            Some(Source::new(Words::Run(scan)))
        });
        Merged { sources: layers.chain(runs).collect(), direction }
    }
}

/// A key and what is said of it; `None` that it was removed.
type Word = (Bytes, Option<Bytes>);

/// What a run says of a range, in order.
struct RunScan<'a> {
    run: &'a Run,
    blocks: &'a BlockCache,
    start: Bytes,
    end: Bytes,
    direction: Direction,
    /// The blocks that were not begun.
    left: std::ops::Range<usize>,
    block: Bytes,
    /// Where the entries begin in the block that were not given.
    entries: std::vec::IntoIter<usize>,
}

impl<'a> RunScan<'a> {
    /// `None` when the run has nothing there.
    fn new(
        run: &'a Run,
        blocks: &'a BlockCache,
        (start, end): (&[u8], &[u8]),
        direction: Direction,
    ) -> Option<RunScan<'a>> {
        if start >= end || run.last() < start || run.first(0) >= end {
            return None;
        }
        // The block in which the end would stand may begin with it.
        let (first, last) = (run.block_of(start).unwrap_or(0), run.block_of(end)?);
        let (start, end) = (Bytes::copy_from_slice(start), Bytes::copy_from_slice(end));
        let (block, entries) = (Bytes::new(), Vec::new().into_iter());
        Some(RunScan { run, blocks, start, end, direction, left: first..last + 1, block, entries })
    }

    fn next_word(&mut self) -> Result<Option<Word>, EngineError> {
        loop {
            let at = match self.direction {
                Direction::Forward => self.entries.next(),
                Direction::Backward => self.entries.next_back(),
            };
            let Some(at) = at else {
                let block = match self.direction {
                    Direction::Forward => self.left.next(),
                    Direction::Backward => self.left.next_back(),
                };
                let Some(block) = block else { return Ok(None) };
                self.begin_block(block)?;
                continue;
            };
            let entry = block::entry_at(&self.block, at).expect("its block was read through");
            let (key, value) = entry.slice(&self.block);
            return Ok(Some((key, value)));
        }
    }

    /// Reads a block, and finds the entries in it that are inside the range.
    fn begin_block(&mut self, at: usize) -> Result<(), EngineError> {
        self.block = self.run.block(at, self.blocks)?;
        let malformed = |()| self.run.malformed(at);
        let mut starts = block::starts(&self.block).map_err(malformed)?;
        let key = |at: &usize| {
            let entry = block::entry_at(&self.block, *at).expect("it was read through");
            &self.block[entry.key]
        };
        starts.truncate(starts.partition_point(|at| *key(at) < self.end[..]));
        let before = starts.partition_point(|at| *key(at) < self.start[..]);
        starts.drain(..before);
        self.entries = starts.into_iter();
        Ok(())
    }
}

/// Something that says words in order of key.
enum Words<'a> {
    Layer(LayerScan<'a>),
    Run(RunScan<'a>),
}

impl Words<'_> {
    fn next_word(&mut self) -> Result<Option<Word>, EngineError> {
        match self {
            Words::Layer(scan) => Ok(scan.next()),
            Words::Run(scan) => scan.next_word(),
        }
    }
}

/// Words with the next of them looked at.
struct Source<'a> {
    words: Words<'a>,
    head: Option<Word>,
    /// Whether the head is the next word, or that there is none.
    looked: bool,
}

impl Source<'_> {
    fn new(words: Words<'_>) -> Source<'_> {
        Source { words, head: None, looked: false }
    }

    fn look(&mut self) -> Result<(), EngineError> {
        if !self.looked {
            self.head = self.words.next_word()?;
            self.looked = true;
        }
        Ok(())
    }

    fn take(&mut self) -> Option<Word> {
        self.looked = false;
        self.head.take()
    }
}

/// Ordered sources as one; where several have a key, the newest says what it is.
struct Merged<'a> {
    /// Newest first.
    sources: Vec<Source<'a>>,
    direction: Direction,
}

impl Merged<'_> {
    /// The next word, also when it says that a key was removed.
    fn next_word(&mut self) -> Result<Option<Word>, EngineError> {
        let mut next: Option<usize> = None;
        for at in 0..self.sources.len() {
            self.sources[at].look()?;
            let Some((key, _)) = &self.sources[at].head else { continue };
            let is_next =
                next.and_then(|next| self.sources[next].head.as_ref()).is_none_or(|(first, _)| {
                    match self.direction {
                        Direction::Forward => key < first,
                        Direction::Backward => key > first,
                    }
                });
            if is_next {
                next = Some(at);
            }
        }
        let Some(next) = next else { return Ok(None) };
        let Some(word) = self.sources[next].take() else { return Ok(None) };
        for older in &mut self.sources[next + 1..] {
            if older.head.as_ref().is_some_and(|(key, _)| *key == word.0) {
                older.take();
            }
        }
        Ok(Some(word))
    }
}

impl Iterator for Merged<'_> {
    type Item = Result<Pair, EngineError>;

    fn next(&mut self) -> Option<Result<Pair, EngineError>> {
        loop {
            match self.next_word() {
                Ok(Some((key, Some(value)))) => return Some(Ok((key, value))),
                Ok(Some((_, None))) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.sources.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}
