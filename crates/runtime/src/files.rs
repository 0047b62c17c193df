//! Carries out one disk request, on whichever thread asks.

use crate::folder::{disk_error, read_at};
use crate::metrics::Counters;
use bytes::Bytes;
use quorate_types::{DiskError, DiskOp, DiskOutput, FileName};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Files kept open: more than the segments that a log writes and reads at one time.
const OPEN_FILES_MAX: usize = 64;

/// Chunks are gathered up to this size, so that a batch of small records is one system call; larger chunks
/// are written from where they are.
const GATHER_SIZE_MAX: usize = 256 * 1024;

/// A chunk from this size on is not worth a copy.
const GATHER_CHUNK_SIZE_MAX: usize = 32 * 1024;

/// How much of a new file is zeroed between two syncs: small, so that a log sync that waits for the same
/// device waits for little.
const ZERO_SIZE: u64 = 2 * 1024 * 1024;

/// How much of it one system call zeroes. File systems keep what one call wrote as one piece in memory, and go through
/// all blocks of a piece for each small write into it: pieces of 2 MiB cost a log of small batches a fifth of its
/// processor time.
const ZERO_PIECE_SIZE: usize = 16 * 1024;

/// The files of a data folder.
#[derive(Debug)]
pub(crate) struct Files {
    root: PathBuf,
    /// Handles by name. A request that gives a name another file forgets the name before it is done.
    open: Mutex<BTreeMap<FileName, Arc<File>>>,
    counters: Arc<Counters>,
}

impl Files {
    pub(crate) fn new(root: &Path, counters: Arc<Counters>) -> Files {
        Files { root: root.to_owned(), open: Mutex::default(), counters }
    }

    /// Does what is asked; `gather` is scratch space that the calling thread keeps.
    pub(crate) fn execute(
        &self,
        op: &DiskOp,
        gather: &mut Vec<u8>,
    ) -> Result<DiskOutput, DiskError> {
        let done = |result: std::io::Result<()>, file: &FileName| match result {
            Ok(()) => Ok(DiskOutput::Done),
            Err(error) => Err(disk_error(file, &error)),
        };
        match op {
            DiskOp::Allocate { file, size } => done(self.allocate(file, *size), file),
            DiskOp::Write { file, offset, data, sync } => {
                done(self.write(file, *offset, data, *sync, gather), file)
            }
            DiskOp::Read { file, offset, size } => {
                let handle = self.handle(file).map_err(|error| disk_error(file, &error))?;
                read_at(&handle, file, *offset, *size).map(DiskOutput::Read)
            }
            DiskOp::Rename { from, to } => done(self.rename(from, to), from),
            DiskOp::Delete { file } => done(self.delete(file), file),
            DiskOp::Replace { file, data } => done(self.replace(file, data), file),
        }
    }

    fn path(&self, file: &FileName) -> PathBuf {
        self.root.join(file.as_str())
    }

    fn handle(&self, file: &FileName) -> std::io::Result<Arc<File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = open.get(file) {
            return Ok(Arc::clone(handle));
        }
        let handle = Arc::new(OpenOptions::new().read(true).write(true).open(self.path(file))?);
        if open.len() >= OPEN_FILES_MAX {
            open.pop_first();
        }
        open.insert(file.clone(), Arc::clone(&handle));
        Ok(handle)
    }

    fn forget(&self, file: &FileName) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(file);
    }

    fn allocate(&self, file: &FileName, size: u64) -> std::io::Result<()> {
        self.forget(file);
        let path = self.path(file);
        make_parent(&self.root, &path)?;
        let handle = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
        let zeros = [0; ZERO_PIECE_SIZE];
        let mut offset = 0;
        while offset < size {
            let left = usize::try_from(size - offset).unwrap_or(usize::MAX);
            handle.write_all_at(&zeros[..left.min(ZERO_PIECE_SIZE)], offset)?;
            offset += left.min(ZERO_PIECE_SIZE) as u64;
            if offset.is_multiple_of(ZERO_SIZE) {
                handle.sync_data()?;
            }
        }
        handle.sync_all()?;
        sync_parent(&path)?;
        Ok(())
    }

    fn write(
        &self,
        file: &FileName,
        offset: u64,
        data: &[Bytes],
        sync: bool,
        gather: &mut Vec<u8>,
    ) -> std::io::Result<()> {
        let handle = self.handle(file)?;
        let mut at = offset;
        let flush = |gather: &mut Vec<u8>, at: &mut u64| -> std::io::Result<()> {
            handle.write_all_at(gather, *at)?;
            *at += gather.len() as u64;
            gather.clear();
            Ok(())
        };
        gather.clear();
        for chunk in data {
            if chunk.len() < GATHER_CHUNK_SIZE_MAX {
                if gather.len() + chunk.len() > GATHER_SIZE_MAX {
                    flush(gather, &mut at)?;
                }
                gather.extend_from_slice(chunk);
            } else {
                flush(gather, &mut at)?;
                handle.write_all_at(chunk, at)?;
                at += chunk.len() as u64;
            }
        }
        flush(gather, &mut at)?;
        self.counters.log_written_size.add(usize::try_from(at - offset).unwrap_or(usize::MAX));
        if sync {
            let begin = Instant::now();
            handle.sync_data()?;
            self.counters.log_sync.observe(begin.elapsed());
        }
        Ok(())
    }

    fn rename(&self, from: &FileName, to: &FileName) -> std::io::Result<()> {
        self.forget(from);
        self.forget(to);
        let (from_path, to_path) = (self.path(from), self.path(to));
        make_parent(&self.root, &to_path)?;
        std::fs::rename(&from_path, &to_path)?;
        sync_parent(&to_path)?;
        if from_path.parent() != to_path.parent() {
            sync_parent(&from_path)?;
        }
        Ok(())
    }

    fn delete(&self, file: &FileName) -> std::io::Result<()> {
        self.forget(file);
        let path = self.path(file);
        match std::fs::remove_file(&path) {
            Ok(()) => sync_parent(&path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn replace(&self, file: &FileName, data: &[u8]) -> std::io::Result<()> {
        self.forget(file);
        let path = self.path(file);
        make_parent(&self.root, &path)?;
        replace_file(&path, data)?;
        Ok(())
    }
}

/// Makes the file hold exactly `data`, atomically and durably.
pub(crate) fn replace_file(path: &Path, data: &[u8]) -> std::io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    let handle = OpenOptions::new().write(true).create(true).truncate(true).open(&temporary)?;
    handle.write_all_at(data, 0)?;
    handle.sync_all()?;
    std::fs::rename(&temporary, path)?;
    sync_parent(path)
}

/// Makes the missing folders above `path`, each one durable in the one above it.
fn make_parent(root: &Path, path: &Path) -> std::io::Result<()> {
    let missing: Vec<&Path> = path
        .ancestors()
        .skip(1)
        .take_while(|folder| folder.starts_with(root) && !folder.exists())
        .collect();
    for folder in missing.iter().rev() {
        match std::fs::create_dir(folder) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        sync_parent(folder)?;
    }
    Ok(())
}

/// Makes the name of `path` durable.
pub(crate) fn sync_parent(path: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}
