//! How anything reaches a disk: requests with completions. Only the scan at open reads synchronously,
//! through a [`DiskReader`].

use bytes::Bytes;
use std::fmt;

/// A file of a data folder: a relative path of ASCII letters, digits, `-`, `_`, `.`, with `/` between folders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileName(String);

impl FileName {
    /// A name of a file.
    ///
    /// # Panics
    /// When it is not of the stated form: names are made by our own code only.
    #[must_use]
    pub fn new(name: impl Into<String>) -> FileName {
        let name = name.into();
        let plain = |part: &str| {
            !part.is_empty()
                && part != "."
                && part != ".."
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        assert!(name.split('/').all(plain), "{name:?} is no file name");
        FileName(name)
    }

    /// The relative path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one request, so that its completion finds its way back. Chosen by whoever asks; unique among
/// that asker's requests in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskId(pub u64);

/// Something to do on a disk. Requests may complete in any order; an order that matters is kept by not
/// asking for the second before the first is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskRequest {
    /// Which request.
    pub id: DiskId,
    /// What to do.
    pub op: DiskOp,
}

/// What can be asked of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Creates the file (and its folder), writes `size` zero bytes, syncs the file and its folder. Done means
    /// that later writes inside change no metadata.
    Allocate {
        /// A file that does not exist, or whose content no longer matters.
        file: FileName,
        /// How many zero bytes.
        size: u64,
    },
    /// Writes the chunks one after the other from `offset` on. With `sync`, done means that they and all
    /// earlier completed writes to this file are durable.
    Write {
        /// An existing file.
        file: FileName,
        /// Where the first chunk begins, in bytes.
        offset: u64,
        /// The bytes, in order.
        data: Vec<Bytes>,
        /// Whether to sync the file's data afterwards.
        sync: bool,
    },
    /// Reads `size` bytes from `offset`; fewer at the end of the file.
    Read {
        /// An existing file.
        file: FileName,
        /// Where to begin, in bytes.
        offset: u64,
        /// How many bytes.
        size: u64,
    },
    /// Renames and syncs the folder; an existing target is replaced.
    Rename {
        /// An existing file.
        from: FileName,
        /// Its new name.
        to: FileName,
    },
    /// Deletes and syncs the folder; a missing file is no error.
    Delete {
        /// The file.
        file: FileName,
    },
    /// Makes the file hold exactly this, atomically: a temporary file, its sync, a rename, the folder's sync.
    Replace {
        /// The file, which need not exist.
        file: FileName,
        /// Its whole content.
        data: Bytes,
    },
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DiskOp::Allocate { file, size } => write!(f, "allocate({file} {size}B)"),
            DiskOp::Write { file, offset, data, sync } => {
                let size: usize = data.iter().map(Bytes::len).sum();
                let sync = if *sync { " sync" } else { "" };
                write!(f, "write({file}+{offset} {size}B{sync})")
            }
            DiskOp::Read { file, offset, size } => write!(f, "read({file}+{offset} {size}B)"),
            DiskOp::Rename { from, to } => write!(f, "rename({from} {to})"),
            DiskOp::Delete { file } => write!(f, "delete({file})"),
            DiskOp::Replace { file, data } => write!(f, "replace({file} {}B)", data.len()),
        }
    }
}

/// The completion of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDone {
    /// Which request.
    pub id: DiskId,
    /// How it ended.
    pub result: Result<DiskOutput, DiskError>,
}

/// What a request that succeeded gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiskOutput {
    /// Nothing but the fact.
    Done,
    /// What was read.
    Read(Bytes),
}

/// Why a request failed. A failed write or sync leaves the file's durable content unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// There is no such file.
    #[error("{0} does not exist")]
    NotFound(FileName),
    /// The device or quota is full.
    #[error("no space left for {0}")]
    NoSpace(FileName),
    /// The device failed.
    #[error("{file}: {reason}")]
    Io {
        /// The file concerned.
        file: FileName,
        /// What the system said.
        reason: String,
    },
}

/// The one synchronous way to a disk: the scan at open.
pub trait DiskReader {
    /// The files under a folder of the data folder (`""` for the top), not in sub-folders, with their sizes
    /// in bytes, in order of name. A missing folder is empty.
    ///
    /// # Errors
    /// When the device fails.
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError>;

    /// Reads `size` bytes from `offset`; fewer at the end of the file.
    ///
    /// # Errors
    /// `NotFound`, or `Io` when the device cannot read them.
    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError>;
}
