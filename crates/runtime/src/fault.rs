//! A disk that can lose its power, for tests; release builds lack this module.
//!
//! A [`Shadow`] keeps, in a folder of its own, what a node's files hold according to their syncs alone: a
//! write arrives there when the sync after it has returned, and before its completion is told. Killing the
//! process at any moment and then calling [`cut`] leaves the data folder as a power failure would: every file
//! has exactly its synced content.
//!
//! ```text
//!   shadow/files/...    the data folder's files, but the engine's
//!   shadow/engine-12/   the engine's folder as of its last sync that returned
//!   shadow/ENGINE       names it; replaced atomically
//! ```
//! The engine writes its files by itself, so its state is taken whole after each of its syncs: tables, which
//! never change, by hard link, the rest by copy. The copy may hold a little of what was written while it was
//! taken, as a device may also keep what was never synced.

use bytes::Bytes;
use quorate_types::FileName;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// How often a copy of the engine is begun again because its tables changed meanwhile.
const ATTEMPTS_MAX: usize = 100;

/// The engine's folder inside a data folder.
const ENGINE_FOLDER: &str = "engine";

/// Keeps synced content apart.
#[derive(Debug)]
pub struct Shadow {
    root: PathBuf,
    /// Whether syncs are left out, to show that a check notices.
    skip_sync: bool,
    /// Writes that no sync has followed yet, by file, in order.
    pending: Mutex<BTreeMap<FileName, Vec<(u64, Bytes)>>>,
    /// The number of the engine's latest copy; held while one is taken.
    engine: Mutex<u64>,
}

impl Shadow {
    /// Opens the shadow in `root`, making an empty one for an empty data folder. With `skip_sync` nothing is
    /// synced any more, and nothing new becomes durable by a write.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(root: &Path, skip_sync: bool) -> std::io::Result<Shadow> {
        std::fs::create_dir_all(root.join("files"))?;
        let engine = engine_number(root)?.unwrap_or(0);
        Ok(Shadow {
            root: root.to_owned(),
            skip_sync,
            pending: Mutex::default(),
            engine: Mutex::new(engine),
        })
    }

    pub(crate) fn skips_sync(&self) -> bool {
        self.skip_sync
    }

    fn path(&self, file: &FileName) -> PathBuf {
        self.root.join("files").join(file.as_str())
    }

    fn take_pending(&self, file: &FileName) -> Vec<(u64, Bytes)> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.remove(file).unwrap_or_default()
    }

    pub(crate) fn wrote(&self, file: &FileName, offset: u64, data: &[Bytes]) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.entry(file.clone()).or_default().push((offset, Bytes::from(data.concat())));
    }

    pub(crate) fn synced(&self, file: &FileName) -> std::io::Result<()> {
        let handle = OpenOptions::new().write(true).open(self.path(file))?;
        for (offset, data) in self.take_pending(file) {
            handle.write_all_at(&data, offset)?;
        }
        Ok(())
    }

    pub(crate) fn allocated(&self, file: &FileName, size: u64) -> std::io::Result<()> {
        self.take_pending(file);
        let path = self.path(file);
        make_parent(&path)?;
        OpenOptions::new().write(true).create(true).truncate(true).open(&path)?.set_len(size)
    }

    pub(crate) fn renamed(&self, from: &FileName, to: &FileName) -> std::io::Result<()> {
        let writes = self.take_pending(from);
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.insert(to.clone(), writes);
        make_parent(&self.path(to))?;
        std::fs::rename(self.path(from), self.path(to))
    }

    pub(crate) fn deleted(&self, file: &FileName) -> std::io::Result<()> {
        self.take_pending(file);
        ignore_missing(std::fs::remove_file(self.path(file)))
    }

    pub(crate) fn replaced(&self, file: &FileName, data: &[u8]) -> std::io::Result<()> {
        self.take_pending(file);
        let path = self.path(file);
        make_parent(&path)?;
        write_atomically(&path, data)
    }

    /// Takes the engine's state after one of its syncs.
    pub(crate) fn engine_synced(&self, engine: &Path) -> std::io::Result<()> {
        let mut number = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        let next = *number + 1;
        let target = self.root.join(format!("engine-{next}"));
        for _ in 0..ATTEMPTS_MAX {
            ignore_missing(std::fs::remove_dir_all(&target))?;
            let before = versions(engine)?;
            copy_tree(engine, &target, true)?;
            if versions(engine)? == before {
                write_atomically(&self.root.join("ENGINE"), next.to_string().as_bytes())?;
                let old = self.root.join(format!("engine-{number}"));
                ignore_missing(std::fs::remove_dir_all(old))?;
                *number = next;
                return Ok(());
            }
        }
        Err(std::io::Error::other("the engine's tables changed throughout every copy"))
    }
}

/// Cuts the power: the data folder of a node that does not run gets exactly what its shadow holds.
///
/// # Errors
/// When the system refuses.
pub fn cut(data: &Path, shadow: &Path) -> std::io::Result<()> {
    ignore_missing(std::fs::remove_dir_all(data))?;
    copy_tree(&shadow.join("files"), data, false)?;
    if let Some(number) = engine_number(shadow)? {
        let engine = shadow.join(format!("engine-{number}"));
        copy_tree(&engine, &data.join(ENGINE_FOLDER), false)?;
    }
    Ok(())
}

fn engine_number(root: &Path) -> std::io::Result<Option<u64>> {
    match std::fs::read_to_string(root.join("ENGINE")) {
        Ok(text) => text.trim().parse().map(Some).map_err(std::io::Error::other),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Which tables each tree of the engine consists of, and which generation is live: the content of every file
/// that names others. While they stay the same, no table in use is removed.
fn versions(engine: &Path) -> std::io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    for path in files_below(engine)? {
        if path.file_name().is_some_and(|name| name == "current" || name == "LIVE") {
            match std::fs::read(&path) {
                Ok(content) => drop(found.insert(path, content)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let listing = match std::fs::read_dir(&folder) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in listing {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

/// Copies all files; with `link`, the engine's tables by hard link. Files that vanish meanwhile are left out.
fn copy_tree(from: &Path, to: &Path, link: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for path in files_below(from)? {
        let relative = path.strip_prefix(from).map_err(std::io::Error::other)?;
        let target = to.join(relative);
        make_parent(&target)?;
        let is_table = relative.components().any(|part| part.as_os_str() == "tables");
        let result = if link && is_table {
            std::fs::hard_link(&path, &target)
        } else {
            copy_sparse(&path, &target)
        };
        ignore_missing(result)?;
    }
    Ok(())
}

/// Copies a file without writing its zeros: journals are mostly unwritten.
fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let mut source = File::open(from)?;
    let mut target = OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
    let mut buffer = vec![0; 64 * 1024];
    let mut size = 0;
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return target.set_len(size);
        }
        if buffer[..count].iter().any(|byte| *byte != 0) {
            target.seek(SeekFrom::Start(size))?;
            target.write_all(&buffer[..count])?;
        }
        size += count as u64;
    }
}

fn make_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)
}

fn write_atomically(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let temporary = path.with_extension("shadow-tmp");
    std::fs::write(&temporary, data)?;
    std::fs::rename(&temporary, path)
}

fn ignore_missing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{DiskEngine, EngineOptions};
    use crate::files::Files;
    use quorate_store::engine::{Batch, Change, Engine, EngineReader, EngineView, Table};
    use quorate_types::DiskOp;
    use std::sync::Arc;

    fn write(data: &'static [u8], sync: bool) -> DiskOp {
        let file = FileName::new("log/1");
        DiskOp::Write { file, offset: 0, data: vec![Bytes::from_static(data)], sync }
    }

    fn survivors(skip_sync: bool) -> Vec<u8> {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, shadow) = (folder.path().join("data"), folder.path().join("shadow"));
        std::fs::create_dir(&data).expect("made");
        let layer = Arc::new(Shadow::open(&shadow, skip_sync).expect("opened"));
        let files = Files::new(&data, Arc::default()).with_fault(Some(layer));
        let mut gather = Vec::new();
        let allocate = DiskOp::Allocate { file: FileName::new("log/1"), size: 4 };
        for op in [allocate, write(b"abcd", true), write(b"xy", false)] {
            files.execute(&op, &mut gather).expect("done");
        }
        cut(&data, &shadow).expect("cut");
        std::fs::read(data.join("log/1")).expect("present")
    }

    #[test]
    fn a_cut_leaves_what_was_synced_and_nothing_else() {
        assert_eq!(survivors(false), b"abcd");
        assert_eq!(survivors(true), [0; 4], "without syncs nothing is left");
    }

    #[test]
    fn a_cut_engine_is_as_of_its_last_sync() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, shadow) = (folder.path().join("data"), folder.path().join("shadow"));
        let layer = Arc::new(Shadow::open(&shadow, false).expect("opened"));
        let root = data.join(ENGINE_FOLDER);
        let open = || DiskEngine::open(&root, EngineOptions::default()).expect("opened");
        let mut engine = open().with_fault(Some(layer));
        let put = |key: u32| Batch {
            changes: vec![Change {
                table: Table::Current,
                key: Bytes::copy_from_slice(&key.to_be_bytes()),
                value: Some(Bytes::from(vec![1; 1000])),
            }],
        };
        // Enough for several tables, so that flushes and compactions run beside the copies.
        for key in 0..30_000u32 {
            engine.write(put(key)).expect("written");
            if key % 5_000 == 4_999 {
                engine.syncer()().expect("synced");
            }
        }
        for key in 30_000..30_100u32 {
            engine.write(put(key)).expect("written");
        }
        drop(engine);
        cut(&data, &shadow).expect("cut");
        let engine = open();
        let view = engine.reader().view().expect("a view");
        let present =
            |key: u32| view.read(Table::Current, &key.to_be_bytes()).expect("read").is_some();
        assert!((0..30_000).all(present), "what was synced is there");
        assert!(!(30_000..30_100).any(present), "what was not synced is gone");
    }
}
