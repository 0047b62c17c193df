//! The data folder of a node: who owns it, and the synchronous reads at open.

use bytes::Bytes;
use quorate_types::{DiskError, DiskReader, FileName};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The file whose lock says that a process uses the folder; it names the process.
const LOCK_FILE: &str = "LOCK";

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataFolderError {
    /// Another process, or another node of this one, uses it.
    #[error(
        "the data folder {path} is in use by {owner}: stop that node first, or give this one another folder"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// Who says to use it.
        owner: String,
    },
    /// It cannot be made or opened.
    #[error("the data folder {path} cannot be used: {source}")]
    Io {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A data folder under an exclusive lock, which ends with this value or with the process.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    /// Holds the lock while it is open.
    _lock: File,
}

impl DataFolder {
    /// Makes the folder where it is missing and locks it; `owner` is what the next one who tries is told.
    ///
    /// # Errors
    /// See [`DataFolderError`].
    pub fn lock(path: &Path, owner: &str) -> Result<DataFolder, DataFolderError> {
        let io = |source| DataFolderError::Io { path: path.to_owned(), source };
        std::fs::create_dir_all(path).map_err(io)?;
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                lock.read_to_string(&mut owner).map_err(io)?;
                let owner = match owner.trim() {
                    "" => "another process".to_owned(),
                    owner => owner.to_owned(),
                };
                return Err(DataFolderError::InUse { path: path.to_owned(), owner });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        lock.set_len(0).map_err(io)?;
        lock.rewind().map_err(io)?;
        writeln!(lock, "process {} ({owner})", std::process::id()).map_err(io)?;
        Ok(DataFolder { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the scan at open reads through.
    #[must_use]
    pub fn reader(&self) -> FileReader {
        FileReader::new(&self.path)
    }
}

/// Reads the files of a data folder.
#[derive(Clone, Debug)]
pub struct FileReader {
    root: PathBuf,
}

impl FileReader {
    /// A reader of the files under `root`.
    #[must_use]
    pub fn new(root: &Path) -> FileReader {
        FileReader { root: root.to_owned() }
    }
}

impl DiskReader for FileReader {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        let failed = |error: std::io::Error| DiskError::Io {
            file: FileName::new(if folder.is_empty() { "data" } else { folder }),
            reason: error.to_string(),
        };
        let path = self.root.join(folder);
        let listing = match std::fs::read_dir(&path) {
            Ok(listing) => listing,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut files = Vec::new();
        for entry in listing {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            // Only names that we could have made ourselves: others are none of our files.
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| is_plain(name)) else { continue };
            if metadata.is_file() && !(folder.is_empty() && name == LOCK_FILE) {
                let name =
                    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
                files.push((FileName::new(name), metadata.len()));
            }
        }
        files.sort();
        Ok(files)
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let handle =
            File::open(self.root.join(file.as_str())).map_err(|error| disk_error(file, &error))?;
        read_at(&handle, file, offset, size)
    }
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Reads `size` bytes from `offset`, fewer at the end of the file. What is reserved is bounded by the file.
pub(crate) fn read_at(
    handle: &File,
    file: &FileName,
    offset: u64,
    size: u64,
) -> Result<Bytes, DiskError> {
    let failed = |error: std::io::Error| disk_error(file, &error);
    let present = handle.metadata().map_err(failed)?.len().saturating_sub(offset);
    let size = usize::try_from(size.min(present)).map_err(|_| DiskError::Io {
        file: file.clone(),
        reason: format!("{size} bytes do not fit in memory"),
    })?;
    let mut buffer = vec![0; size];
    let mut filled = 0;
    while filled < size {
        match handle.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    buffer.truncate(filled);
    Ok(Bytes::from(buffer))
}

/// What the system said of a file, in our words.
pub(crate) fn disk_error(file: &FileName, error: &std::io::Error) -> DiskError {
    let kind = error.kind();
    if kind == ErrorKind::NotFound {
        DiskError::NotFound(file.clone())
    } else if matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
        DiskError::NoSpace(file.clone())
    } else {
        DiskError::Io { file: file.clone(), reason: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_and_the_next_is_told_who() {
        let parent = tempfile::tempdir().expect("a folder");
        let path = parent.path().join("n1");
        let folder = DataFolder::lock(&path, "node n1").expect("free");
        let refused = DataFolder::lock(&path, "node n2").expect_err("taken");
        let text = refused.to_string();
        assert!(text.contains(&format!("process {} (node n1)", std::process::id())), "{text}");
        drop(folder);
        DataFolder::lock(&path, "node n2").expect("free again");
    }

    #[test]
    fn a_listing_is_ordered_and_holds_only_our_files() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = DataFolder::lock(parent.path(), "node n1").expect("free");
        std::fs::create_dir(parent.path().join("log")).expect("made");
        for (name, size) in [("log/b", 2), ("log/a", 1), ("log/not ours", 3), ("identity", 4)] {
            std::fs::write(parent.path().join(name), vec![0; size]).expect("written");
        }
        let reader = folder.reader();
        let log = reader.list("log").expect("listed");
        assert_eq!(log, [(FileName::new("log/a"), 1), (FileName::new("log/b"), 2)]);
        assert_eq!(reader.list("").expect("listed"), [(FileName::new("identity"), 4)]);
        assert_eq!(reader.list("nowhere").expect("listed"), []);
    }

    #[test]
    fn a_read_ends_with_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("a"), b"abcdef").expect("written");
        let reader = FileReader::new(folder.path());
        let name = FileName::new("a");
        assert_eq!(reader.read(&name, 4, 1 << 60).expect("read"), "ef");
        assert_eq!(reader.read(&name, 9, 1).expect("read"), "");
        let missing = FileName::new("b");
        assert_eq!(reader.read(&missing, 0, 1), Err(DiskError::NotFound(missing.clone())));
    }
}
