//! The on-disk engine under the store: sorted runs, merged in the background, behind a layer in memory.
//!
//! ```text
//!   engine/lock                locked by the engine that is open
//!   engine/LIVE                names the live generation; replaced atomically
//!   engine/gen-7/current       its manifest: which runs there are; replaced atomically
//!   engine/gen-7/tables/12     a file of runs, which never changes
//!   engine/gen-8/              a staged generation, if any; removed at open
//! ```
//! A batch goes into a [layer](layer) in memory. A sync, or a layer that is full, *flushes*: everything gathered is
//! written as sorted [runs](run), one for each table, into one new file; the file is synced, and then a
//! [manifest](manifest) that names it takes the place of the one before. So what many batches overwrite is written
//! once, what a batch costs by itself is paid once for many, and nothing is written twice to be safe: the log keeps
//! every entry until the engine was synced behind it.
//!
//! ```text
//!   write ──▶ active layer ──▶ frozen layer ──▶ runs ──▶ merged runs
//!                  └──────────────┴── views ──┴── rows (a cache of current rows)
//! ```
//! Batches survive a crash as a prefix because flushes do: each takes effect whole with its manifest, in order.
//! [Merges](merge) change which runs there are and nothing of what they say.

mod block;
mod filter;
pub(crate) mod fuzzing;
mod generation;
mod hash;
mod layer;
mod manifest;
mod merge;
mod rows;
mod run;
mod view;

use crate::files::{replace_file, sync_parent};
use generation::{Generation, lock_folder};
use quorate_store::engine::{Batch, Engine, EngineError, EngineReader};
use quorate_types::Syncer;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

pub use view::DiskView;

/// The file that names the live generation.
const LIVE_FILE: &str = "LIVE";

/// How much memory and disk an engine may use for what is only there to make it fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Blocks of runs kept in memory, in bytes.
    pub cache_size: u64,
    /// Newest versions of keys kept in memory, in bytes.
    pub row_cache_size: usize,
    /// What is gathered in memory before it is flushed, in bytes. Twice that makes writes wait for a flush.
    pub layer_size: usize,
    /// How long what is gathered waits for a sync before it is flushed without one: what was removed then gives its
    /// space back also where nothing more is written.
    pub layer_age: Duration,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            cache_size: 4 * 1024 * 1024,
            row_cache_size: 56 * 1024 * 1024,
            layer_size: 16 * 1024 * 1024,
            layer_age: Duration::from_secs(5),
        }
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
pub struct DiskEngine {
    root: PathBuf,
    options: EngineOptions,
    live: Live,
    /// The number of the live generation.
    number: u64,
    staged: Option<Staged>,
    /// Keeps other engines out of the folder.
    _lock: File,
}

impl DiskEngine {
    /// Opens the engine in `root`, making an empty one where there is none; removes what an install that was
    /// cut short left behind.
    ///
    /// # Errors
    /// `Damaged` when what is there cannot be trusted, `Failed` when the device fails.
    pub fn open(root: &Path, options: EngineOptions) -> Result<DiskEngine, EngineError> {
        std::fs::create_dir_all(root).map_err(io_error)?;
        // Before anything is removed: it may be another engine's.
        let lock = lock_folder(root)?;
        let number = match std::fs::read(root.join(LIVE_FILE)) {
            Ok(text) => parse_live(&String::from_utf8_lossy(&text)).ok_or_else(|| {
                let path = root.join(LIVE_FILE);
                EngineError::Damaged(format!("{} does not name a generation", path.display()))
            })?,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                check_nothing_written(root)?;
                0
            }
            Err(error) => return Err(io_error(error)),
        };
        remove_others(root, number)?;
        let engine = |number, generation| DiskEngine {
            _lock: lock,
            root: root.to_owned(),
            options,
            live: Live(Arc::new(RwLock::new(Arc::new(generation)))),
            number,
            staged: None,
        };
        if number > 0 {
            let path = generation_path(root, number);
            if !path.exists() {
                let reason = format!("{} is named as live and missing", path.display());
                return Err(EngineError::Damaged(reason));
            }
            let generation = Generation::open(path, options)?;
            sync_parent(&root.join(LIVE_FILE)).map_err(io_error)?;
            return Ok(engine(number, generation));
        }
        let generation = Generation::create(generation_path(root, 1), options)?;
        publish(root, &generation, 1)?;
        Ok(engine(1, generation))
    }

    fn staged(&mut self) -> Result<&mut Staged, EngineError> {
        self.staged.as_mut().ok_or_else(|| EngineError::Failed("no generation is staged".into()))
    }
}

impl Engine for DiskEngine {
    type Reader = DiskReader;

    fn write(&mut self, batch: Batch) -> Result<(), EngineError> {
        self.live.now().core.write(batch)
    }

    fn reader(&self) -> DiskReader {
        DiskReader { live: self.live.clone() }
    }

    fn syncer(&self) -> Syncer {
        let live = self.live.clone();
        Arc::new(move || Ok(live.now().sync()?))
    }

    fn begin_generation(&mut self) -> Result<(), EngineError> {
        self.drop_generation()?;
        let number = self.number + 1;
        let path = generation_path(&self.root, number);
        if path.exists() {
            std::fs::remove_dir_all(&path).map_err(io_error)?;
        }
        let generation = Generation::create(path, self.options)?;
        self.staged = Some(Staged { generation, number, synced: false });
        Ok(())
    }

    fn write_generation(&mut self, batch: Batch) -> Result<(), EngineError> {
        let staged = self.staged()?;
        staged.synced = false;
        staged.generation.core.write(batch)
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
        if let Err(error) = publish(&self.root, &generation, number) {
            // Nobody knows which generation the next open finds: neither may be written.
            self.live.now().core.fail(&error);
            return Err(error);
        }
        let old = self.live.set(Arc::new(generation));
        old.folder.retire();
        self.number = number;
        Ok(())
    }

    fn drop_generation(&mut self) -> Result<(), EngineError> {
        if let Some(staged) = self.staged.take() {
            staged.generation.folder.retire();
        }
        Ok(())
    }
}

/// Reads whatever generation is live.
#[derive(Clone)]
pub struct DiskReader {
    live: Live,
}

impl EngineReader for DiskReader {
    type View = DiskView;

    fn view(&self) -> Result<DiskView, EngineError> {
        Ok(DiskView::new(self.live.now()))
    }

    fn size(&self) -> u64 {
        self.live.now().core.size()
    }
}

/// Checks that an engine without the file that names its generation is one whose first start was cut short.
fn check_nothing_written(root: &Path) -> Result<(), EngineError> {
    for entry in std::fs::read_dir(root).map_err(io_error)? {
        let runs = entry.map_err(io_error)?.path().join(manifest::RUNS_FOLDER);
        if runs.is_dir() && std::fs::read_dir(&runs).map_err(io_error)?.next().is_some() {
            let live = root.join(LIVE_FILE);
            let reason = format!("{} is missing, {} is not empty", live.display(), runs.display());
            return Err(EngineError::Damaged(reason));
        }
    }
    Ok(())
}

fn generation_path(root: &Path, number: u64) -> PathBuf {
    root.join(format!("gen-{number}"))
}

/// What the file says that names the live generation.
fn live_text(number: u64) -> String {
    format!("gen-{number}\n")
}

fn parse_live(text: &str) -> Option<u64> {
    let number = text.strip_prefix("gen-")?.strip_suffix('\n')?.parse().ok()?;
    (number > 0 && live_text(number) == text).then_some(number)
}

/// Makes a generation durable and names it as the live one.
fn publish(root: &Path, generation: &Generation, number: u64) -> Result<(), EngineError> {
    generation.sync()?;
    sync_parent(&generation.folder.path).map_err(io_error)?;
    replace_file(&root.join(LIVE_FILE), live_text(number).as_bytes()).map_err(io_error)?;
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
