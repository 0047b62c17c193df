//! The layer between a node and its disk and clock: what goes wrong at the moment, and what a power cut leaves.
//!
//! The layer itself is `disk_layer.c`, which the end-to-end tests of the binary use as well.

use crate::Result;
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The source of the layer.
const LAYER: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../quorate/tests/power/disk_layer.c"));

/// How many numbers the control file holds.
const CONTROL_COUNT: usize = 8;

/// What can be made to go wrong, by its place in the control file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// How many microseconds longer a sync takes.
    SyncDelay = 0,
    /// Whether syncs fail.
    SyncFails = 1,
    /// Whether no file grows.
    IsFull = 2,
    /// How many nanoseconds the wall clock is off.
    WallShift = 3,
    /// How many parts per million too fast it runs.
    WallRate = 4,
    /// Since when, in nanoseconds of the monotonic clock.
    WallSince = 5,
}

/// Builds the layer with the C compiler that building the product needs too.
pub(crate) fn build_layer(folder: &Path) -> Result<PathBuf> {
    let (source, library) = (folder.join("disk_layer.c"), folder.join("disk_layer.so"));
    fs::write(&source, LAYER).map_err(|error| format!("{}: {error}", source.display()))?;
    let output = Command::new("cc")
        .args(["-O2", "-Wall", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if output.status.success() {
        return Ok(library);
    }
    Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// One node's disk: the data folder, and beside it what the layer needs.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The data folder.
    pub(crate) root: PathBuf,
    /// The layer, if there is one.
    layer: Option<Layer>,
}

#[derive(Debug)]
struct Layer {
    /// The library.
    library: PathBuf,
    /// What of the data folder is synced; `None` when power is never cut.
    shadow: Option<PathBuf>,
    /// The control file.
    control: PathBuf,
    /// Whether syncs are taken out.
    ignores_sync: bool,
}

/// What a cut took away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loss {
    /// Bytes that were in files and not synced, or differed from what was.
    pub(crate) bytes: u64,
    /// Files whose name or whole content was never synced.
    pub(crate) files: u64,
}

impl Disk {
    /// An empty data folder under `folder`; `keeps_shadow` if its power is to be cut.
    pub(crate) fn new(
        folder: &Path,
        library: Option<&Path>,
        keeps_shadow: bool,
        ignores_sync: bool,
    ) -> io::Result<Disk> {
        let root = folder.join("data");
        fs::create_dir_all(&root)?;
        let folder = folder.canonicalize()?;
        let layer = library.map(|library| Layer {
            library: library.to_path_buf(),
            shadow: keeps_shadow.then(|| folder.join("shadow")),
            control: folder.join("control"),
            ignores_sync,
        });
        let disk = Disk { root: folder.join("data"), layer };
        if let Some(layer) = &disk.layer {
            fs::write(&layer.control, [0; CONTROL_COUNT * 8])?;
            disk.keep_all()?;
        }
        Ok(disk)
    }

    /// What a process needs in its environment to run on this disk.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let Some(layer) = &self.layer else { return Vec::new() };
        let mut variables = vec![
            ("LD_PRELOAD", layer.library.display().to_string()),
            ("QUORATE_DISK_ROOT", self.root.display().to_string()),
            ("QUORATE_DISK_CONTROL", layer.control.display().to_string()),
        ];
        if let Some(shadow) = &layer.shadow {
            variables.push(("QUORATE_DISK_SHADOW", shadow.display().to_string()));
        }
        if layer.ignores_sync {
            variables.push(("QUORATE_DISK_IGNORE_SYNC", "1".into()));
        }
        variables
    }

    /// Lets something go wrong, or right again with 0.
    pub(crate) fn set(&self, what: Control, value: i64) -> Result<()> {
        let Some(layer) = &self.layer else { return Err("there is no disk layer".into()) };
        let write = || {
            let file = fs::OpenOptions::new().write(true).open(&layer.control)?;
            file.write_all_at(&value.to_le_bytes(), 8 * what as u64)
        };
        write().map_err(|error| format!("{}: {error}", layer.control.display()))
    }

    /// Cuts the power: what was not synced is gone. No process may run on the folder.
    pub(crate) fn cut(&self) -> io::Result<Loss> {
        let Some(shadow) = self.shadow() else {
            return Err(io::Error::other("there is no disk layer that knows what is synced"));
        };
        let rebuilt = self.root.with_file_name("rebuilt");
        fs::create_dir_all(&rebuilt)?;
        let mut loss = Loss::default();
        let inode = fs::metadata(&self.root)?.ino();
        rebuild(shadow, &self.root, inode, &rebuilt, &mut loss)?;
        fs::remove_dir_all(&self.root)?;
        fs::rename(&rebuilt, &self.root)?;
        self.keep_all()?;
        Ok(loss)
    }

    fn shadow(&self) -> Option<&Path> {
        self.layer.as_ref()?.shadow.as_deref()
    }

    /// Begins again with everything in the folder synced.
    fn keep_all(&self) -> io::Result<()> {
        let Some(shadow) = self.shadow() else { return Ok(()) };
        if shadow.exists() {
            fs::remove_dir_all(shadow)?;
        }
        for kind in ["files", "dirs", "pins"] {
            fs::create_dir_all(shadow.join(kind))?;
        }
        keep(shadow, &self.root)
    }
}

/// Fills `to` with what is synced of the folder of this inode, which now stands at `live`.
fn rebuild(shadow: &Path, live: &Path, inode: u64, to: &Path, loss: &mut Loss) -> io::Result<()> {
    let synced = fs::read_to_string(shadow.join(format!("dirs/{inode}"))).unwrap_or_default();
    let mut names = BTreeSet::new();
    for line in synced.lines() {
        let mut fields = line.splitn(3, ' ');
        let (Some(inode), Some(kind), Some(name)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(io::Error::other(format!("a line of the disk layer: {line:?}")));
        };
        let inode: u64 = inode.parse().map_err(io::Error::other)?;
        names.insert(name.to_owned());
        let (live, to) = (live.join(name), to.join(name));
        if kind == "d" {
            fs::create_dir(&to)?;
            rebuild(shadow, &live, inode, &to, loss)?;
        } else {
            let content = fs::read(shadow.join(format!("files/{inode}"))).unwrap_or_default();
            let now = fs::read(&live).unwrap_or_default();
            let same = content.iter().zip(&now).filter(|(a, b)| a == b).count();
            loss.bytes += (content.len().max(now.len()) - same) as u64;
            fs::write(&to, content)?;
        }
    }
    for entry in fs::read_dir(live).into_iter().flatten().flatten() {
        loss.files += u64::from(!names.contains(&*entry.file_name().to_string_lossy()));
    }
    Ok(())
}

fn keep(shadow: &Path, folder: &Path) -> io::Result<()> {
    let mut lines = String::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let (path, metadata) = (entry.path(), entry.metadata()?);
        let kind = if metadata.is_dir() { 'd' } else { 'f' };
        let name = entry.file_name();
        lines.push_str(&format!("{} {kind} {}\n", metadata.ino(), name.to_string_lossy()));
        if metadata.is_dir() {
            keep(shadow, &path)?;
        } else {
            fs::copy(&path, shadow.join(format!("files/{}", metadata.ino())))?;
        }
    }
    fs::write(shadow.join(format!("dirs/{}", fs::metadata(folder)?.ino())), lines)
}
