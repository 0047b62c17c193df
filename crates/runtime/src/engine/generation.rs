//! One generation: runs in a folder of its own, with what is in memory before them.

use super::layer::Layer;
use super::manifest::{RUNS_FOLDER, Runs};
use super::merge::{Merge, runs_max};
use super::rows::Rows;
use super::run::{BlockCache, BlockSize, FileWriter, Run, RunWriter};
use super::{EngineOptions, io_error};
use quorate_store::engine::{Batch, EngineError, Table};
use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Locked by whoever has the generation open.
const LOCK_FILE: &str = "lock";

/// About how large a block is, in bytes; only a first guess at how many there will be.
const BLOCK_SIZE_TYPICAL: usize = 4096;

/// How long nothing is merged after there was no space for it: until then a merge would only take the space of others.
const NO_SPACE_PAUSE: Duration = Duration::from_secs(60);

/// Takes a lock, also one that a thread panicked with: what it guards is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the runs hold after so many flushes. A merge changes the runs and not what they hold.
pub(super) struct Base {
    /// How many flushes there were since the generation was opened.
    pub(super) number: u64,
    pub(super) runs: Runs,
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

/// What the threads in the background are told.
#[derive(Default)]
struct Orders {
    /// A layer is full.
    full: bool,
    /// Since when something is in the layer.
    begun: Option<Instant>,
    /// There are new runs.
    flushed: bool,
}

/// A generation's content, shared with its threads.
pub(super) struct Core {
    folder: PathBuf,
    options: EngineOptions,
    layers: RwLock<Layers>,
    /// The number of the last batch, which is wholly in its layer.
    sequence: AtomicU64,
    /// How many views stand at a batch.
    views: Mutex<BTreeMap<u64, usize>>,
    pub(super) rows: Rows,
    pub(super) blocks: BlockCache,
    /// The number of the next file of runs.
    next_file: AtomicU64,
    /// Held by whoever flushes.
    flushing: Mutex<()>,
    /// Held by whoever merges; since when there is no space for it.
    merging: Mutex<Option<Instant>>,
    /// Held by whoever replaces the manifest, until views see what it names.
    publishing: Mutex<()>,
    /// Why flushing or merging failed: then nothing is written any more.
    failure: Mutex<Option<EngineError>>,
    orders: Mutex<Orders>,
    /// Wakes the threads.
    ordered: Condvar,
    /// The generation goes.
    stopped: AtomicBool,
}

/// A generation of the engine.
pub(super) struct Generation {
    pub(super) core: Arc<Core>,
    threads: Vec<JoinHandle<()>>,
    /// Keeps others out of the folder.
    _lock: File,
    /// Declared last, so that every file is closed when the folder goes.
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
        self.core.stopped.store(true, Ordering::Relaxed);
        // Under the lock, so that no thread is between looking and waiting.
        drop(lock(&self.core.orders));
        self.core.ordered.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so; there is nothing to save here.
            drop(thread.join());
        }
    }
}

impl Generation {
    /// Makes an empty generation in a folder that does not exist yet.
    pub(super) fn create(path: PathBuf, options: EngineOptions) -> Result<Generation, EngineError> {
        std::fs::create_dir_all(path.join(RUNS_FOLDER)).map_err(io_error)?;
        Runs::default().publish(&path, 1)?;
        Generation::open(path, options)
    }

    pub(super) fn open(path: PathBuf, options: EngineOptions) -> Result<Generation, EngineError> {
        let lock = lock_folder(&path)?;
        let (runs, next) = Runs::open(&path)?;
        // A process that ended between a rename and the sync of its folder leaves a manifest that is read here and that
        // a power cut would take back, while the log goes by what is read here.
        sync_folder(&path.join(RUNS_FOLDER))?;
        sync_folder(&path)?;
        let base = Arc::new(Base { number: 0, runs });
        let block_count =
            usize::try_from(options.cache_size).unwrap_or(usize::MAX) / BLOCK_SIZE_TYPICAL;
        let core = Arc::new(Core {
            folder: path.clone(),
            options,
            layers: RwLock::new(Layers { active: Arc::default(), frozen: None, base }),
            sequence: AtomicU64::new(0),
            views: Mutex::default(),
            rows: Rows::new(options.row_cache_size),
            blocks: BlockCache::with_weighter(block_count, options.cache_size, BlockSize),
            next_file: AtomicU64::new(next),
            flushing: Mutex::default(),
            merging: Mutex::default(),
            publishing: Mutex::default(),
            failure: Mutex::default(),
            orders: Mutex::new(Orders { flushed: true, ..Orders::default() }),
            ordered: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let spawn = |name: &str, work: fn(&Core)| {
            let core = Arc::clone(&core);
            let thread = std::thread::Builder::new().name(name.into());
            thread.spawn(move || work(&core)).map_err(io_error)
        };
        let threads = vec![
            spawn("engine-flush", Core::flush_when_due)?,
            spawn("engine-merge", Core::merge_when_due)?,
        ];
        let folder = Folder { path, retired: AtomicBool::new(false) };
        Ok(Generation { core, threads, _lock: lock, folder })
    }

    /// Makes durable what was written before the call, beside later writes.
    pub(super) fn sync(&self) -> Result<(), EngineError> {
        self.core.flush()
    }
}

/// Locks a folder for as long as the file is open.
pub(super) fn lock_folder(folder: &Path) -> Result<File, EngineError> {
    let path = folder.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(EngineError::Failed(format!("{} is in use", folder.display())))
        }
        Err(TryLockError::Error(error)) => Err(io_error(error)),
    }
}

fn sync_folder(folder: &Path) -> Result<(), EngineError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(io_error)
}

impl Core {
    fn change_layers(&self, change: impl FnOnce(&mut Layers)) {
        change(&mut self.layers.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn base(&self) -> Arc<Base> {
        Arc::clone(&self.layers.read().unwrap_or_else(PoisonError::into_inner).base)
    }

    /// Fails once anything in the background has failed.
    fn check(&self) -> Result<(), EngineError> {
        lock(&self.failure).clone().map_or(Ok(()), Err)
    }

    /// From here on nothing is written any more.
    pub(super) fn fail(&self, error: &EngineError) {
        lock(&self.failure).get_or_insert(error.clone());
    }

    /// About how many bytes are used on the device, and wait in memory.
    pub(super) fn size(&self) -> u64 {
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner).clone();
        let waiting = layers.active.size() + layers.frozen.map_or(0, |layer| layer.size());
        layers.base.runs.all().map(|run| run.size).sum::<u64>() + waiting as u64
    }

    /// Takes a batch into memory. Called by one thread at a time.
    pub(super) fn write(&self, batch: Batch) -> Result<(), EngineError> {
        self.check()?;
        let before = self.sequence.load(Ordering::Relaxed);
        let floor = lock(&self.views).keys().next().copied().unwrap_or(before);
        // Held until the batch is whole, so that no layer is frozen with a part of it.
        let layers = self.layers.read().unwrap_or_else(PoisonError::into_inner);
        let (begins, size) = layers.active.write(batch, before + 1, floor);
        self.sequence.store(before + 1, Ordering::Release);
        drop(layers);
        if begins {
            lock(&self.orders).begun = Some(Instant::now());
            self.ordered.notify_all();
        }
        if size < self.options.layer_size {
            return Ok(());
        }
        lock(&self.orders).full = true;
        self.ordered.notify_all();
        if size < 2 * self.options.layer_size {
            return Ok(());
        }
        // Writes are ahead of the runs by as much as there may be: wait.
        self.flush()
    }

    /// Waits for an order that `take` takes; `false` when the generation goes. While it takes none, `take` may say
    /// after what time it would.
    fn wait_for(&self, take: impl Fn(&mut Orders) -> Result<(), Option<Duration>>) -> bool {
        let mut orders = lock(&self.orders);
        loop {
            if self.stopped.load(Ordering::Relaxed) {
                return false;
            }
            orders = match take(&mut orders) {
                Ok(()) => return true,
                Err(None) => self.ordered.wait(orders).unwrap_or_else(PoisonError::into_inner),
                Err(Some(time)) => {
                    let waited = self.ordered.wait_timeout(orders, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Flushes whenever a layer is full or old, until the generation goes.
    fn flush_when_due(&self) {
        let due = |orders: &mut Orders| {
            if std::mem::take(&mut orders.full) {
                return Ok(());
            }
            let begun = orders.begun.ok_or(None)?;
            match self.options.layer_age.checked_sub(begun.elapsed()) {
                None | Some(Duration::ZERO) => Ok(()),
                Some(left) => Err(Some(left)),
            }
        };
        while self.wait_for(due) {
            // A failure is kept, and told to the next who writes or syncs.
            if self.flush().is_err() {
                return;
            }
        }
    }

    /// Merges whenever there is something to merge, until the generation goes.
    fn merge_when_due(&self) {
        let due = |orders: &mut Orders| match std::mem::take(&mut orders.flushed) {
            true => Ok(()),
            false => Err(None),
        };
        while self.wait_for(due) {
            loop {
                let mut merging = lock(&self.merging);
                let done = self.merge(&mut merging);
                drop(merging);
                match done {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => return,
                }
            }
        }
    }

    /// Brings all that was written before the call into runs, durably.
    pub(super) fn flush(&self) -> Result<(), EngineError> {
        let flushing = lock(&self.flushing);
        self.check()?;
        // Before a new layer can begin.
        lock(&self.orders).begun = None;
        let (mut frozen, mut base, mut is_cut_short) = (None, None, false);
        self.change_layers(|layers| {
            base = Some(Arc::clone(&layers.base));
            is_cut_short = layers.frozen.is_some();
            if layers.active.size() > 0 && !is_cut_short {
                let next = Arc::new(layers.active.next());
                let full = std::mem::replace(&mut layers.active, next);
                layers.frozen = Some(Arc::clone(&full));
                frozen = Some(full);
            }
        });
        if is_cut_short {
            // Its thread panicked: what it had in hand is in no run, and nothing may be written behind it.
            let error = EngineError::Failed("a flush was cut short".into());
            self.fail(&error);
            return Err(error);
        }
        let (Some(frozen), Some(base)) = (frozen, base) else { return Ok(()) };
        let number = base.number + 1;
        self.rows.begin_flush();
        if let Err(error) = self.write_runs(&frozen, number) {
            self.fail(&error);
            return Err(error);
        }
        self.rows.end_flush(number);
        drop(flushing);
        lock(&self.orders).flushed = true;
        self.ordered.notify_all();
        if Table::ALL.iter().any(|table| base.runs.of(*table).len() >= runs_max(*table)) {
            // Merges do not keep up: wait for one that is under way, or do one.
            let mut merging = lock(&self.merging);
            self.merge(&mut merging)?;
            drop(merging);
        }
        Ok(())
    }

    /// Writes the newest values of a layer as runs, and puts them in the place of the frozen layer.
    fn write_runs(&self, layer: &Layer, number: u64) -> Result<(), EngineError> {
        let mut writer = self.create_file()?;
        let mut ends = Vec::new();
        for table in Table::ALL {
            let mut run = RunWriter::new(&mut writer, table, layer.count(table) as u64);
            layer.visit(table, |key, value| {
                if table == Table::Current {
                    self.rows.flush(key, value, number);
                }
                run.add(key, value.map(|value| &value[..]))
            })?;
            ends.extend(run.finish()?.map(|end| (table, end)));
        }
        let file = writer.finish()?;
        let mut runs = Vec::with_capacity(ends.len());
        for (table, end) in ends {
            runs.push((table, Arc::new(Run::open(Arc::clone(&file), table, end)?)));
        }
        self.publish(Some(number), |all| {
            for (table, run) in runs {
                all.0[table as usize].insert(0, run);
            }
        })
    }

    fn create_file(&self) -> Result<FileWriter, EngineError> {
        let number = self.next_file.fetch_add(1, Ordering::Relaxed);
        FileWriter::create(&self.folder.join(RUNS_FOLDER), number)
    }

    /// Changes which runs there are, durably, and then for views. With a flush's number, what was frozen is in
    /// the runs now.
    fn publish(
        &self,
        flushed: Option<u64>,
        change: impl FnOnce(&mut Runs),
    ) -> Result<(), EngineError> {
        let publishing = lock(&self.publishing);
        // The names of new files.
        sync_folder(&self.folder.join(RUNS_FOLDER))?;
        let before = self.base();
        let mut runs = before.runs.clone();
        change(&mut runs);
        runs.publish(&self.folder, self.next_file.load(Ordering::Relaxed))?;
        let named = runs.files();
        let base = Arc::new(Base { number: flushed.unwrap_or(before.number), runs });
        self.change_layers(|layers| {
            layers.base = base;
            if flushed.is_some() {
                layers.frozen = None;
            }
        });
        drop(publishing);
        for run in before.runs.all().filter(|run| !named.contains(&run.name().0)) {
            run.file().retire();
        }
        Ok(())
    }

    /// Does one merge; whether there was one to do, and space for it. The caller holds `merging`.
    fn merge(&self, no_space: &mut Option<Instant>) -> Result<bool, EngineError> {
        self.check()?;
        if no_space.is_some_and(|since| since.elapsed() < NO_SPACE_PAUSE) {
            return Ok(false);
        }
        let Some(merge) = Merge::choose(&self.base().runs) else { return Ok(false) };
        let done = self.write_merge(&merge);
        if let Err(error) = &done
            && !self.stopped.load(Ordering::Relaxed)
        {
            self.fail(error);
        }
        if let Ok(done) = done {
            *no_space = (!done).then(Instant::now);
        }
        done
    }

    /// Whether there was space for it.
    fn write_merge(&self, merge: &Merge) -> Result<bool, EngineError> {
        let mut writer = self.create_file()?;
        let written = merge.write(&mut writer, || !self.stopped.load(Ordering::Relaxed));
        let written = written.and_then(|end| writer.write_out().map(|()| end));
        if written.is_err() && writer.is_device_full() {
            // No manifest names what was written, and it goes with its writer: all is as it was.
            return Ok(false);
        }
        let merged = match written? {
            Some(end) => Some(Arc::new(Run::open(writer.finish()?, merge.table, end)?)),
            None => None,
        };
        self.publish(None, |all| {
            let runs = &mut all.0[merge.table as usize];
            let oldest = merge.runs.last().expect("a merge has runs");
            // Flushes may have put newer runs before them meanwhile.
            let end = runs.iter().position(|run| Arc::ptr_eq(run, oldest));
            let end = 1 + end.expect("only merges take runs away, one at a time");
            runs.splice(end - merge.runs.len()..end, merged);
        })?;
        Ok(true)
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
