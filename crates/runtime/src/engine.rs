//! The on-disk engine under the store: `fjall`, a log-structured merge tree.
//!
//! ```text
//!   engine/LIVE        names the live generation; replaced atomically
//!   engine/gen-7/      one fjall database: a journal and a tree for each table
//!   engine/gen-8/      a staged generation, if any; removed at open
//! ```
//! A batch goes to the operating system when it is written and becomes durable with the next sync. The
//! journal keeps the order of batches, checksums each and ends at the first that is torn, so batches survive
//! as a prefix; a tree's memory is flushed to a table only after the journal up to there was synced.
//!
//! Syncing goes past fjall on purpose: its own call holds the journal's lock while the device works, which
//! would make every apply wait for it. The journal files are synced through handles of our own instead; fjall
//! syncs a journal that it closes itself, and deletes one only when all of it is in synced tables.

use crate::engine_key::{pack, pack_into, unpack};
use crate::files::{replace_file, sync_parent};
use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot};
use quorate_store::engine::{
    Batch, Direction, Engine, EngineError, EngineReader, EngineView, Pair, Table,
};
use quorate_types::{ApplyFault, Syncer};
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// The file that names the live generation.
const LIVE_FILE: &str = "LIVE";

/// How much memory and disk an engine may use for what is only there to make it fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Blocks of tables kept in memory, in bytes.
    pub cache_size: u64,
    /// What a tree gathers in memory before it becomes a table, in bytes; `State` and `Versions`, whose
    /// records are small, get a quarter. A tree that cannot keep up holds a few of these.
    pub memtable_size: u64,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions { cache_size: 8 * 1024 * 1024, memtable_size: 8 * 1024 * 1024 }
    }
}

/// One database in a folder of its own.
struct Generation {
    database: Database,
    /// By number of [`Table`].
    tables: Vec<Keyspace>,
    /// Declared last, so that the database is closed when its folder goes.
    folder: Folder,
}

/// A folder that goes with its last user, once it is retired.
struct Folder {
    path: PathBuf,
    retired: AtomicBool,
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            // What cannot be removed now is removed at the next open.
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

impl Generation {
    fn open(path: PathBuf, options: EngineOptions) -> Result<Generation, EngineError> {
        let database = Database::builder(&path)
            .cache_size(options.cache_size)
            // With two, one of them passes compactions on to the other for as long as that one compacts,
            // which keeps a core busy with nothing.
            .worker_threads(1)
            .max_cached_files(Some(128))
            .open()
            .map_err(engine_error)?;
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let memtable_size = match table {
                Table::Current | Table::History => options.memtable_size,
                Table::Versions | Table::State => options.memtable_size / 4,
            };
            let create = || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable_size)
                    // The two cores are better spent on requests.
                    .data_block_compression_policy(CompressionPolicy::disabled())
            };
            tables.push(database.keyspace(table.name(), create).map_err(engine_error)?);
        }
        let folder = Folder { path, retired: AtomicBool::new(false) };
        Ok(Generation { database, tables, folder })
    }

    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    fn write(&self, batch: &Batch) -> Result<(), EngineError> {
        let mut writes =
            fjall::OwnedWriteBatch::with_capacity(self.database.clone(), batch.changes.len())
                .durability(Some(PersistMode::Buffer));
        let mut key = Vec::new();
        for change in &batch.changes {
            pack_into(&change.key, &mut key);
            let keyspace = self.table(change.table);
            match &change.value {
                Some(value) => writes.insert(keyspace, &key[..], &value[..]),
                None => writes.remove(keyspace, &key[..]),
            }
        }
        writes.commit().map_err(engine_error)
    }

    /// Makes durable what was written before the call, beside later writes.
    fn sync(&self) -> Result<(), EngineError> {
        let listing = std::fs::read_dir(&self.folder.path).map_err(io_error)?;
        for entry in listing {
            let path = entry.map_err(io_error)?.path();
            if path.extension().is_none_or(|extension| extension != "jnl") {
                continue;
            }
            match File::open(&path) {
                Ok(journal) => journal.sync_data().map_err(io_error)?,
                // Deleted since it was listed: all of it is in synced tables.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(io_error(error)),
            }
        }
        Ok(())
    }
}

/// The live generation, which readers and syncers look up at each use.
#[derive(Clone)]
struct Live(Arc<RwLock<Arc<Generation>>>);

impl Live {
    fn now(&self) -> Arc<Generation> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn set(&self, generation: Arc<Generation>) -> Arc<Generation> {
        let mut live = self.0.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut live, generation)
    }
}

/// A staged generation.
struct Staged {
    generation: Generation,
    number: u64,
    synced: bool,
}

/// The engine in a folder.
///
/// # Invariants
/// 1. `LIVE` names a folder that was synced whole before it was named.
/// 2. Only the live and the staged generation have writers.
pub struct FjallEngine {
    root: PathBuf,
    options: EngineOptions,
    live: Live,
    /// The number of the live generation.
    number: u64,
    staged: Option<Staged>,
    #[cfg(feature = "fault-injection")]
    fault: Option<Arc<crate::fault::Shadow>>,
}

impl FjallEngine {
    /// Opens the engine in `root`, making an empty one where there is none; removes what an install that was
    /// cut short left behind.
    ///
    /// # Errors
    /// `Damaged` when what is there cannot be trusted, `Failed` when the device fails.
    pub fn open(root: &Path, options: EngineOptions) -> Result<FjallEngine, EngineError> {
        std::fs::create_dir_all(root).map_err(io_error)?;
        let number = match std::fs::read_to_string(root.join(LIVE_FILE)) {
            Ok(text) => parse_live(&text).ok_or_else(|| {
                let path = root.join(LIVE_FILE);
                EngineError::Damaged(format!("{} does not name a generation", path.display()))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(io_error(error)),
        };
        remove_others(root, number)?;
        let engine = |number, generation| FjallEngine {
            root: root.to_owned(),
            options,
            live: Live(Arc::new(RwLock::new(Arc::new(generation)))),
            number,
            staged: None,
            #[cfg(feature = "fault-injection")]
            fault: None,
        };
        if number > 0 {
            let path = generation_path(root, number);
            if !path.exists() {
                let reason = format!("{} is named as live and missing", path.display());
                return Err(EngineError::Damaged(reason));
            }
            return Ok(engine(number, Generation::open(path, options)?));
        }
        let generation = Generation::open(generation_path(root, 1), options)?;
        publish(root, &generation, 1)?;
        Ok(engine(1, generation))
    }

    /// Tells `shadow` of every sync once it is done.
    #[cfg(feature = "fault-injection")]
    #[must_use]
    pub fn with_fault(mut self, shadow: Option<Arc<crate::fault::Shadow>>) -> FjallEngine {
        self.fault = shadow;
        self
    }

    fn staged(&mut self) -> Result<&mut Staged, EngineError> {
        self.staged.as_mut().ok_or_else(|| EngineError::Failed("no generation is staged".into()))
    }
}

impl Engine for FjallEngine {
    type Reader = FjallReader;

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.live.now().write(&batch)
    }

    fn reader(&self) -> FjallReader {
        FjallReader { live: self.live.clone() }
    }

    fn syncer(&self) -> Syncer {
        let live = self.live.clone();
        #[cfg(feature = "fault-injection")]
        let (fault, root) = (self.fault.clone(), self.root.clone());
        Arc::new(move || {
            #[cfg(feature = "fault-injection")]
            if fault.as_ref().is_some_and(|fault| fault.skips_sync()) {
                return Ok(());
            }
            live.now().sync()?;
            #[cfg(feature = "fault-injection")]
            if let Some(fault) = &fault {
                fault.engine_synced(&root).map_err(|error| ApplyFault::from(io_error(error)))?;
            }
            Ok::<(), ApplyFault>(())
        })
    }

    fn begin_generation(&mut self) -> Result<(), EngineError> {
        self.drop_generation()?;
        let number = self.number + 1;
        let path = generation_path(&self.root, number);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(io_error)?;
        }
        let generation = Generation::open(path, self.options)?;
        self.staged = Some(Staged { generation, number, synced: false });
        Ok(())
    }

    fn write_generation(&mut self, batch: Batch) -> Result<(), EngineError> {
        let staged = self.staged()?;
        staged.synced = false;
        staged.generation.write(&batch)
    }

    fn sync_generation(&mut self) -> Result<(), EngineError> {
        let staged = self.staged()?;
        staged.generation.sync()?;
        staged.synced = true;
        Ok(())
    }

    fn commit_generation(&mut self) -> Result<(), EngineError> {
        if !self.staged()?.synced {
            return Err(EngineError::Failed("the staged generation is not synced".into()));
        }
        let Staged { generation, number, .. } =
            self.staged.take().expect("it was there one line above");
        publish(&self.root, &generation, number)?;
        #[cfg(feature = "fault-injection")]
        if let Some(fault) = &self.fault {
            fault.engine_synced(&self.root).map_err(io_error)?;
        }
        let old = self.live.set(Arc::new(generation));
        old.folder.retired.store(true, Ordering::Relaxed);
        self.number = number;
        Ok(())
    }

    fn drop_generation(&mut self) -> Result<(), EngineError> {
        if let Some(staged) = self.staged.take() {
            staged.generation.folder.retired.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// Reads whatever generation is live.
#[derive(Clone)]
pub struct FjallReader {
    live: Live,
}

impl EngineReader for FjallReader {
    type View = FjallView;

    fn view(&self) -> Result<FjallView, EngineError> {
        let generation = self.live.now();
        let snapshot = generation.database.snapshot();
        Ok(FjallView { snapshot, generation })
    }

    fn size(&self) -> u64 {
        let generation = self.live.now();
        let tables: u64 = generation.tables.iter().map(Keyspace::disk_space).sum();
        tables + generation.database.write_buffer_size()
    }
}

/// A consistent view of one generation, which it keeps from being removed.
pub struct FjallView {
    snapshot: Snapshot,
    generation: Arc<Generation>,
}

impl EngineView for FjallView {
    fn read(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let value =
            self.snapshot.get(self.generation.table(table), pack(key)).map_err(engine_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: &[u8],
        direction: Direction,
    ) -> impl Iterator<Item = Result<Pair, EngineError>> {
        let mut range = (start < end)
            .then(|| self.snapshot.range(self.generation.table(table), pack(start)..pack(end)));
        std::iter::from_fn(move || {
            let range = range.as_mut()?;
            let guard = match direction {
                Direction::Forward => range.next(),
                Direction::Backward => range.next_back(),
            };
            guard.map(pair)
        })
    }
}

fn pair(guard: Guard) -> Result<Pair, EngineError> {
    let (key, value) = guard.into_inner().map_err(engine_error)?;
    let key =
        unpack(&key).ok_or_else(|| EngineError::Damaged(format!("no key of ours: {key:02x?}")))?;
    Ok((Bytes::from(key), Bytes::copy_from_slice(&value)))
}

fn generation_path(root: &Path, number: u64) -> PathBuf {
    root.join(format!("gen-{number}"))
}

fn parse_live(text: &str) -> Option<u64> {
    text.strip_prefix("gen-")?.strip_suffix('\n')?.parse().ok().filter(|number| *number > 0)
}

/// Makes a generation durable and names it as the live one.
fn publish(root: &Path, generation: &Generation, number: u64) -> Result<(), EngineError> {
    generation.sync()?;
    sync_parent(&generation.folder.path).map_err(io_error)?;
    replace_file(&root.join(LIVE_FILE), format!("gen-{number}\n").as_bytes()).map_err(io_error)?;
    sync_parent(root).map_err(io_error)
}

/// Removes every generation but the live one.
fn remove_others(root: &Path, live: u64) -> Result<(), EngineError> {
    for entry in std::fs::read_dir(root).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let generation =
            path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"gen-"));
        if generation && path != generation_path(root, live) {
            std::fs::remove_dir_all(&path).map_err(io_error)?;
        }
    }
    Ok(())
}

fn io_error(error: std::io::Error) -> EngineError {
    EngineError::Failed(error.to_string())
}

/// What fjall says, as the two things that a replica can do about it.
fn engine_error(error: fjall::Error) -> EngineError {
    let failed = matches!(
        error,
        fjall::Error::Io(_)
            | fjall::Error::Storage(fjall::LsmError::Io(_))
            | fjall::Error::Poisoned
            | fjall::Error::Locked
    );
    let text = error.to_string();
    if failed { EngineError::Failed(text) } else { EngineError::Damaged(text) }
}
