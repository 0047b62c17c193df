//! One database in a folder of its own, with what is in memory before it.

use super::layer::Layer;
use super::rows::Rows;
use super::{EngineOptions, engine_error, io_error};
use crate::engine_key::pack_into;
use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode, Snapshot};
use quorate_store::engine::{Batch, EngineError, Table};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

/// Takes a lock, also one that a thread panicked with: what it guards is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the tables on disk hold after so many flushes.
pub(super) struct Base {
    /// How many flushes there were since the database was opened.
    pub(super) number: u64,
    pub(super) snapshot: Snapshot,
}

/// What a view is made of, newest first.
#[derive(Clone)]
pub(super) struct Layers {
    /// Where batches go.
    pub(super) active: Arc<Layer>,
    /// What is being flushed.
    pub(super) frozen: Option<Arc<Layer>>,
    /// What is below.
    pub(super) base: Arc<Base>,
}

/// What the flushing thread is told.
#[derive(Default)]
struct Orders {
    /// A layer is full.
    full: bool,
    /// The generation goes.
    stopped: bool,
}

/// A database and its memory, shared with the thread that flushes.
pub(super) struct Core {
    pub(super) database: Database,
    /// By number of [`Table`].
    pub(super) tables: Vec<Keyspace>,
    options: EngineOptions,
    layers: RwLock<Layers>,
    /// The number of the last batch, which is wholly in its layer.
    sequence: AtomicU64,
    /// How many views stand at a batch.
    views: Mutex<BTreeMap<u64, usize>>,
    pub(super) rows: Rows,
    /// Held by whoever flushes. Says why flushing failed: then nothing is written any more.
    flushing: Mutex<Option<EngineError>>,
    orders: Mutex<Orders>,
    /// Wakes the flushing thread.
    ordered: Condvar,
}

/// A generation of the engine.
pub(super) struct Generation {
    pub(super) core: Arc<Core>,
    flusher: Option<JoinHandle<()>>,
    /// Declared last, so that the database is closed when its folder goes.
    pub(super) folder: Folder,
}

/// A folder that goes with its last user, once it is retired.
pub(super) struct Folder {
    pub(super) path: PathBuf,
    retired: AtomicBool,
}

impl Folder {
    /// From here on it goes with its last user.
    pub(super) fn retire(&self) {
        self.retired.store(true, Ordering::Relaxed);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.retired.load(Ordering::Relaxed) {
            // What cannot be removed now is removed at the next open.
            drop(std::fs::remove_dir_all(&self.path));
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        lock(&self.core.orders).stopped = true;
        self.core.ordered.notify_all();
        // A thread that panicked has said so; there is nothing to save here.
        drop(self.flusher.take().map(JoinHandle::join));
    }
}

impl Generation {
    pub(super) fn open(path: PathBuf, options: EngineOptions) -> Result<Generation, EngineError> {
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
        // Fjall syncs what is in a keyspace's folder, not the folder in which it makes keyspaces: without this a power
        // cut may leave a database whose journal belongs to no keyspace.
        for made in [path.join("keyspaces"), path.clone()] {
            File::open(made).and_then(|made| made.sync_all()).map_err(io_error)?;
        }
        let base = Arc::new(Base { number: 0, snapshot: database.snapshot() });
        let core = Arc::new(Core {
            database,
            tables,
            options,
            layers: RwLock::new(Layers { active: Arc::default(), frozen: None, base }),
            sequence: AtomicU64::new(0),
            views: Mutex::default(),
            rows: Rows::new(options.row_cache_size),
            flushing: Mutex::default(),
            orders: Mutex::default(),
            ordered: Condvar::new(),
        });
        let shared = Arc::clone(&core);
        let flusher = std::thread::Builder::new()
            .name("engine-flush".into())
            .spawn(move || shared.flush_when_full())
            .map_err(io_error)?;
        let folder = Folder { path, retired: AtomicBool::new(false) };
        Ok(Generation { core, flusher: Some(flusher), folder })
    }

    /// Makes durable what was written before the call, beside later writes.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.core.flush()?;
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

impl Core {
    pub(super) fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    fn change_layers(&self, change: impl FnOnce(&mut Layers)) {
        change(&mut self.layers.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes a batch into memory. Called by one thread at a time.
    pub(super) fn write(&self, batch: Batch) -> Result<(), EngineError> {
        let before = self.sequence.load(Ordering::Relaxed);
        let floor = lock(&self.views).keys().next().copied().unwrap_or(before);
        // Held until the batch is whole, so that no layer is frozen with a part of it.
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        layers.active.write(batch, before + 1, floor);
        self.sequence.store(before + 1, Ordering::Release);
        let size = layers.active.size();
        drop(layers);
        if size < self.options.layer_size {
            return Ok(());
        }
        lock(&self.orders).full = true;
        self.ordered.notify_one();
        if size < 2 * self.options.layer_size {
            return Ok(());
        }
        // Writes are ahead of the tables by as much as there may be: wait.
        self.flush()
    }

    /// Flushes whenever a layer is full, until the generation goes.
    fn flush_when_full(&self) {
        loop {
            let mut orders = lock(&self.orders);
            while !orders.full && !orders.stopped {
                orders = self.ordered.wait(orders).unwrap_or_else(PoisonError::into_inner);
            }
            if orders.stopped {
                return;
            }
            orders.full = false;
            drop(orders);
            // A failure is kept, and told to the next who writes or syncs a full layer.
            if self.flush().is_err() {
                return;
            }
        }
    }

    /// Brings all that was written before the call into the tables.
    fn flush(&self) -> Result<(), EngineError> {
        let mut failure = lock(&self.flushing);
        if let Some(failure) = &*failure {
            return Err(failure.clone());
        }
        let mut frozen = None;
        let mut number = 0;
        self.change_layers(|layers| {
            if layers.active.size() > 0 {
                let full = std::mem::take(&mut layers.active);
                layers.frozen = Some(Arc::clone(&full));
                frozen = Some(full);
                number = layers.base.number + 1;
            }
        });
        let Some(frozen) = frozen else { return Ok(()) };
        self.rows.begin_flush();
        if let Err(error) = self.write_tables(&frozen, number) {
            *failure = Some(error.clone());
            return Err(error);
        }
        let base = Arc::new(Base { number, snapshot: self.database.snapshot() });
        self.change_layers(|layers| {
            layers.base = base;
            layers.frozen = None;
        });
        self.rows.end_flush(number);
        Ok(())
    }

    /// Writes the newest values of a layer as one batch.
    fn write_tables(&self, layer: &Layer, number: u64) -> Result<(), EngineError> {
        let mut writes = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut packed = Vec::new();
        layer.visit(|table, key, value| {
            self.add(&mut writes, &mut packed, (table, key, value));
            if table == Table::Current {
                self.rows.flush(key, value, number);
            }
        });
        writes.commit().map_err(engine_error)
    }

    /// Writes a batch into the tables at once, past what is in memory; for a generation that nobody reads yet.
    pub(super) fn write_through(&self, batch: &Batch) -> Result<(), EngineError> {
        let mut writes = self.database.batch().durability(Some(PersistMode::Buffer));
        let mut packed = Vec::new();
        for change in &batch.changes {
            let change = (change.table, &change.key, change.value.as_ref());
            self.add(&mut writes, &mut packed, change);
        }
        writes.commit().map_err(engine_error)?;
        let snapshot = self.database.snapshot();
        self.change_layers(|layers| {
            let number = layers.base.number;
            layers.base = Arc::new(Base { number, snapshot });
        });
        Ok(())
    }

    fn add(
        &self,
        writes: &mut OwnedWriteBatch,
        packed: &mut Vec<u8>,
        (table, key, value): (Table, &Bytes, Option<&Bytes>),
    ) {
        pack_into(key, packed);
        match value {
            Some(value) => writes.insert(self.table(table), &packed[..], &value[..]),
            None => writes.remove(self.table(table), &packed[..]),
        }
    }

    /// What a view of this moment is made of, and the batch it stands at. Must be given back.
    pub(super) fn enter(&self) -> (Layers, u64) {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let mut views = lock(&self.views);
        let sequence = self.sequence.load(Ordering::Acquire);
        *views.entry(sequence).or_default() += 1;
        drop(views);
        (layers.clone(), sequence)
    }

    /// A view that stood at a batch is gone.
    pub(super) fn leave(&self, sequence: u64) {
        let mut views = lock(&self.views);
        if let Some(count) = views.get_mut(&sequence) {
            *count -= 1;
            if *count == 0 {
                views.remove(&sequence);
            }
        }
    }
}
