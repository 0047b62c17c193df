//! The manifest: which runs a generation consists of.
//!
//! ```text
//!  0       4         8        16
//!  +-------+---------+--------+------------------------------------------+----------+
//!  |"QMAN" | version | next   | for each table: count (4), then for each | checksum |
//!  |       |  = 1    | number | run, newest first: file (8) end (8)      |          |
//!  +-------+---------+--------+------------------------------------------+----------+
//! ```
//! Little-endian; the checksum is XXH3-64 over all before it. The file is replaced atomically, once what it names
//! is durable: that makes a flush, which may have runs in several tables, take effect whole or not at all.

use super::io_error;
use super::run::{Run, RunFile};
use crate::files::replace_file;
use bytes::{Buf, BufMut};
use quorate_store::engine::{EngineError, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// The name of the manifest in its generation's folder.
pub(super) const MANIFEST_FILE: &str = "current";

/// The folder of the runs in their generation's folder.
pub(super) const RUNS_FOLDER: &str = "tables";

/// The version of the layout that this code writes.
const MANIFEST_VERSION: u32 = 1;

/// What is wrong with a manifest that is whole, and of another program.
const UNKNOWN: &str = "the manifest is of a version that is not known";

const MAGIC: u32 = u32::from_le_bytes(*b"QMAN");

/// The runs of every table, newest first: what an earlier run of a list says of a key hides what a later one says.
#[derive(Clone, Default)]
pub(super) struct Runs(pub(super) [Vec<Arc<Run>>; Table::ALL.len()]);

impl Runs {
    pub(super) fn of(&self, table: Table) -> &[Arc<Run>] {
        &self.0[table as usize]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.0.iter().flatten()
    }

    /// The numbers of the files that they stand in.
    pub(super) fn files(&self) -> BTreeSet<u64> {
        self.all().map(|run| run.name().0).collect()
    }

    /// Makes them what the folder's generation consists of.
    pub(super) fn publish(&self, folder: &Path, next: u64) -> Result<(), EngineError> {
        let mut bytes = Vec::new();
        bytes.put_u32_le(MAGIC);
        bytes.put_u32_le(MANIFEST_VERSION);
        bytes.put_u64_le(next);
        for runs in &self.0 {
            bytes.put_u32_le(u32::try_from(runs.len()).expect("runs are few"));
            for (number, end) in runs.iter().map(|run| run.name()) {
                bytes.put_u64_le(number);
                bytes.put_u64_le(end);
            }
        }
        bytes.put_u64_le(xxh3_64(&bytes));
        replace_file(&folder.join(MANIFEST_FILE), &bytes).map_err(io_error)
    }

    /// Opens what the folder's manifest names, and removes the files that it does not; also the number of the
    /// next file.
    pub(super) fn open(folder: &Path) -> Result<(Runs, u64), EngineError> {
        let path = folder.join(MANIFEST_FILE);
        let damaged = |what: &str| EngineError::Damaged(format!("{}: {what}", path.display()));
        let bytes = std::fs::read(&path).map_err(|error| {
            let is_missing = error.kind() == ErrorKind::NotFound;
            if is_missing { damaged("the manifest is missing") } else { io_error(error) }
        })?;
        let (next, names) = parse(&bytes).map_err(|what| match damaged(what) {
            EngineError::Damaged(reason) if what == UNKNOWN => EngineError::Failed(reason),
            error @ (EngineError::Damaged(_) | EngineError::Failed(_)) => error,
        })?;
        let runs_folder = folder.join(RUNS_FOLDER);
        let mut files = BTreeMap::new();
        let mut runs = Runs::default();
        for (table, names) in Table::ALL.into_iter().zip(names) {
            for (number, end) in names {
                let file = match files.get(&number) {
                    Some(file) => Arc::clone(file),
                    None => RunFile::open(&runs_folder, number)?,
                };
                files.insert(number, Arc::clone(&file));
                runs.0[table as usize].push(Arc::new(Run::open(file, table, end)?));
            }
        }
        remove_others(&runs_folder, &runs.files())?;
        Ok((runs, next))
    }
}

/// The names of the runs of every table.
pub(super) type Names = [Vec<(u64, u64)>; Table::ALL.len()];

pub(super) fn parse(bytes: &[u8]) -> Result<(u64, Names), &'static str> {
    let (mut rest, checksum) = bytes.split_last_chunk::<8>().ok_or("the manifest is cut")?;
    if xxh3_64(rest) != u64::from_le_bytes(*checksum) {
        return Err("the manifest does not match its checksum");
    }
    let header = rest.try_get_u32_le().and_then(|magic| Ok((magic, rest.try_get_u32_le()?)));
    if header.ok() != Some((MAGIC, MANIFEST_VERSION)) {
        return Err(UNKNOWN);
    }
    let cut = |_| "the manifest is malformed";
    let next = rest.try_get_u64_le().map_err(cut)?;
    let mut names = Names::default();
    for names in &mut names {
        for _ in 0..rest.try_get_u32_le().map_err(cut)? {
            let number = rest.try_get_u64_le().map_err(cut)?;
            names.push((number, rest.try_get_u64_le().map_err(cut)?));
        }
    }
    if rest.is_empty() { Ok((next, names)) } else { Err("the manifest is too long") }
}

/// Removes the files of runs that a crash left behind before they were named.
fn remove_others(folder: &Path, named: &BTreeSet<u64>) -> Result<(), EngineError> {
    for entry in std::fs::read_dir(folder).map_err(io_error)? {
        let path = entry.map_err(io_error)?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if number.is_none_or(|number| !named.contains(&number)) {
            std::fs::remove_file(&path).map_err(io_error)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_manifest_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(RUNS_FOLDER)).expect("made");
        Runs::default().publish(folder.path(), 7).expect("published");
        assert!(matches!(Runs::open(folder.path()), Ok((_, 7))));
        let path = folder.path().join(MANIFEST_FILE);
        let whole = std::fs::read(&path).expect("there");
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, damaged).expect("written");
            let opened = Runs::open(folder.path());
            assert!(matches!(opened.err(), Some(EngineError::Damaged(_))), "bit {bit}");
        }
        let mut newer = whole[..whole.len() - 8].to_vec();
        newer[4] += 1;
        newer.put_u64_le(xxh3_64(&newer));
        std::fs::write(&path, newer).expect("written");
        let opened = Runs::open(folder.path());
        assert!(matches!(opened.err(), Some(EngineError::Failed(_))), "whole, and not ours");
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(Runs::open(folder.path()).err(), Some(EngineError::Damaged(_))));
    }
}
