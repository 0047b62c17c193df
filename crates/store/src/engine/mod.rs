//! What the store needs of an ordered key-value engine.
//!
//! ```text
//!   Store ── write(batch) ──▶ Engine ── reader() ──▶ EngineReader ── view() ──▶ EngineView
//!                               │                     (clone, any thread)        (consistent)
//!                               └── syncer() ──▶ durable up to the last write before the call
//! ```
//! An engine holds a *live generation* and at most one *staged generation*: a received snapshot is
//! written into the staged one, synced, and then made live in one atomic and durable step.

mod memory;

pub use memory::{MemoryDisk, MemoryEngine, MemoryReader, MemoryScan, MemoryView};

use bytes::Bytes;
use quorate_types::{ApplyFault, Syncer};

/// The tables of a generation: separate key spaces, because they are written and read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Key → its newest version. Point reads and scans; of a deleted key that it was deleted, until
    /// compaction made that unreachable.
    Current = 0,
    /// Revision → what changed. Written in order, read in order, removed about in order.
    History = 1,
    /// Applied position, origin windows, member attributes: few small records, rewritten often.
    State = 2,
}

impl Table {
    /// Every table, in order of its number.
    pub const ALL: [Table; 3] = [Table::Current, Table::History, Table::State];

    /// A name for files and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Table::Current => "current",
            Table::History => "history",
            Table::State => "state",
        }
    }
}

/// One change of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where.
    pub table: Table,
    /// At most 65,535 bytes.
    pub key: Bytes,
    /// The new value; `None` removes the key.
    pub value: Option<Bytes>,
}

/// Changes that take effect together or not at all, also across a crash. A key appears at most once
/// in a batch; tables come in order, and keys in order within a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes.
    pub changes: Vec<Change>,
}

/// In which order a scan gives the keys of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Lowest first.
    Forward,
    /// Highest first.
    Backward,
}

/// Why an engine cannot do what was asked. The replica stops.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The device or the engine failed.
    #[error("{0}")]
    Failed(String),
    /// The engine found content that does not match its checksums.
    #[error("{0}")]
    Damaged(String),
}

impl From<EngineError> for ApplyFault {
    fn from(error: EngineError) -> ApplyFault {
        match error {
            EngineError::Failed(reason) => ApplyFault::Engine(reason),
            EngineError::Damaged(reason) => ApplyFault::Damaged(reason),
        }
    }
}

/// The writing side: one owner, the store.
///
/// # Rules that an implementation keeps
/// 1. A batch survives a crash whole or not at all, and batches survive as a prefix of the order of
///    their writes.
/// 2. What was written before a call of the syncer is durable when that call returns.
/// 3. A view shows a prefix of the batches, never part of one, and stays as it is while writes go
///    on.
/// 4. A generation is either live or invisible: a crash before [`Engine::commit_generation`]
///    returns leaves the old one or the new one live, whole.
pub trait Engine: Send + 'static {
    /// The reading side.
    type Reader: EngineReader;

    /// Writes a batch into the live generation. It is visible to later views at once, and durable
    /// later.
    ///
    /// # Errors
    /// When the engine fails; it then refuses everything.
    fn write(&mut self, batch: Batch) -> Result<(), EngineError>;

    /// A handle that takes views of whatever generation is live, from any thread.
    fn reader(&self) -> Self::Reader;

    /// Syncs whatever generation is live; safe to call beside writes, from another thread.
    fn syncer(&self) -> Syncer;

    /// Begins an empty staged generation; drops an earlier one that was not committed.
    ///
    /// # Errors
    /// When the engine fails.
    fn begin_generation(&mut self) -> Result<(), EngineError>;

    /// Writes a batch into the staged generation.
    ///
    /// # Errors
    /// When none is staged or the engine fails.
    fn write_generation(&mut self, batch: Batch) -> Result<(), EngineError>;

    /// Makes the staged generation durable; it stays staged.
    ///
    /// # Errors
    /// When none is staged or the engine fails.
    fn sync_generation(&mut self) -> Result<(), EngineError>;

    /// Makes the staged and synced generation the live one, durably and atomically. Views taken
    /// before still show the old one.
    ///
    /// # Errors
    /// When none is staged and synced, or the engine fails.
    fn commit_generation(&mut self) -> Result<(), EngineError>;

    /// Drops the staged generation, if there is one.
    ///
    /// # Errors
    /// When the engine fails.
    fn drop_generation(&mut self) -> Result<(), EngineError>;
}

/// The reading side: cheap to clone, usable from any thread while the engine is written.
pub trait EngineReader: Clone + Send + Sync + 'static {
    /// What reads go to.
    type View: EngineView;

    /// A consistent view of the live generation as of the last write.
    ///
    /// # Errors
    /// When the engine fails.
    fn view(&self) -> Result<Self::View, EngineError>;

    /// About how many bytes the engine uses on its device.
    fn size(&self) -> u64;
}

/// The view type of an engine.
pub type View<E> = <<E as Engine>::Reader as EngineReader>::View;

/// A key and its value.
pub type Pair = (Bytes, Bytes);

/// A consistent view of one generation.
pub trait EngineView: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When the engine cannot read.
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError>;

    /// The pairs with `start <= key < end`, in order. Empty when `end <= start`.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, EngineError>>;
}
