//! `quorate dump`: the log files of a stopped node, a line a record.

use crate::exit::{Failure, Outcome, show};
use bytes::Bytes;
use quorate_log::dump;
use quorate_runtime::{DataFolder, FileReader};
use quorate_types::{DiskError, DiskReader, FileName};
use std::path::{Path, PathBuf};

/// Prints log files of a stopped node.
#[derive(Clone, Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["data_dir", "files"])))]
pub(crate) struct Arguments {
    /// Print all log files of this data folder
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Log files to print, in a data folder or copied from one
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

/// Prints them.
///
/// # Errors
/// When a node runs on the folder, or a file is none of a log.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    match &arguments.data_dir {
        Some(folder) => dump_folder(folder),
        None => arguments.files.iter().try_for_each(|file| dump_file(file)),
    }
}

fn dump_folder(folder: &Path) -> Outcome {
    if !folder.is_dir() {
        return Err(Failure::Failed(format!("{} is no folder", folder.display())));
    }
    let _lock = lock(folder)?;
    let reader = FileReader::new(folder);
    let failed = |error| Failure::Failed(format!("{}: {error}", folder.display()));
    let files = dump::files(&reader).map_err(failed)?;
    if files.is_empty() {
        return Err(Failure::Failed(format!("{} holds no log files", folder.display())));
    }
    for file in files {
        show(&dump::file(&reader, &file).map_err(failed)?);
    }
    Ok(())
}

/// A file alone, or a copy of one; where it lies in a data folder, no node may run on that.
fn dump_file(path: &Path) -> Outcome {
    let failed = |text: String| Failure::Failed(format!("{}: {text}", path.display()));
    let path = path.canonicalize().map_err(|error| failed(error.to_string()))?;
    let root = path.parent().and_then(Path::parent).filter(|root| root.join("LOCK").exists());
    let _lock = root.map(lock).transpose()?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or_else(|| failed("it has no plain name".into()))?;
    let content = std::fs::read(&path).map_err(|error| failed(error.to_string()))?;
    let reader = OneFile { name: FileName::new(format!("log/{name}")), content: content.into() };
    show(&dump::file(&reader, &reader.name).map_err(|error| failed(error.to_string()))?);
    Ok(())
}

/// A disk that holds one file, wherever that lies in truth.
struct OneFile {
    /// As it would be called in a data folder.
    name: FileName,
    /// All of it.
    content: Bytes,
}

impl DiskReader for OneFile {
    fn list(&self, _folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(vec![(self.name.clone(), self.content.len() as u64)])
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        if *file != self.name {
            return Err(DiskError::NotFound(file.clone()));
        }
        let at = |position: u64| usize::try_from(position).unwrap_or(usize::MAX);
        let begin = at(offset).min(self.content.len());
        let end = at(offset.saturating_add(size)).min(self.content.len());
        Ok(self.content.slice(begin..end))
    }
}

/// Keeps a node from starting while its files are read, and finds out that none runs.
fn lock(folder: &Path) -> Result<DataFolder, Failure> {
    DataFolder::lock(folder, "quorate dump").map_err(|error| Failure::Failed(error.to_string()))
}
