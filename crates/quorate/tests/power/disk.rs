//! A data folder on a disk that loses what was never synced: builds the layer (`disk_layer.c`), and cuts the
//! folder back to what a power cut would leave.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One data folder under the layer.
pub(crate) struct Disk {
    /// The data folder.
    pub(crate) root: PathBuf,
    /// What of it is synced.
    shadow: PathBuf,
    /// Whether syncs are taken out.
    ignore_sync: bool,
}

/// What a cut took away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loss {
    /// Bytes that were in files and not synced, or differed from what was.
    pub(crate) bytes: u64,
    /// Files whose name or whole content was never synced.
    pub(crate) files: u64,
}

/// Builds the layer with the C compiler that building the product needs too.
pub(crate) fn build_layer(folder: &Path) -> PathBuf {
    let library = folder.join("disk_layer.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/disk_layer.c");
    let status = Command::new("cc")
        .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("a C compiler is there");
    assert!(status.success(), "the disk layer does not compile");
    library
}

impl Disk {
    /// An empty data folder under `folder`.
    pub(crate) fn new(folder: &Path, ignore_sync: bool) -> Disk {
        let folder = folder.canonicalize().expect("the test's own folder");
        let disk = Disk { root: folder.join("data"), shadow: folder.join("shadow"), ignore_sync };
        fs::create_dir_all(&disk.root).expect("a folder of the test");
        disk.keep_all().expect("an empty folder");
        disk
    }

    /// What a process needs in its environment to run on this disk.
    pub(crate) fn environment(&self, library: &Path) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("LD_PRELOAD", library.display().to_string()),
            ("QUORATE_DISK_ROOT", self.root.display().to_string()),
            ("QUORATE_DISK_SHADOW", self.shadow.display().to_string()),
        ];
        if self.ignore_sync {
            variables.push(("QUORATE_DISK_IGNORE_SYNC", "1".into()));
        }
        variables
    }

    /// Cuts the power: what was not synced is gone. No process may run on the folder.
    pub(crate) fn cut(&self) -> io::Result<Loss> {
        let rebuilt = self.root.with_file_name("rebuilt");
        fs::create_dir_all(&rebuilt)?;
        let mut loss = Loss::default();
        self.rebuild(&self.root, fs::metadata(&self.root)?.ino(), &rebuilt, &mut loss)?;
        fs::remove_dir_all(&self.root)?;
        fs::rename(&rebuilt, &self.root)?;
        self.keep_all()?;
        Ok(loss)
    }

    /// Fills `to` with what is synced of the folder of this inode, which now stands at `live`.
    fn rebuild(&self, live: &Path, inode: u64, to: &Path, loss: &mut Loss) -> io::Result<()> {
        let synced =
            fs::read_to_string(self.shadow.join(format!("dirs/{inode}"))).unwrap_or_default();
        let mut names = BTreeSet::new();
        for line in synced.lines() {
            let mut fields = line.splitn(3, ' ');
            let (Some(inode), Some(kind), Some(name)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return Err(io::Error::other(format!("a line of the disk layer: {line:?}")));
            };
            let inode: u64 = inode.parse().map_err(io::Error::other)?;
            names.insert(name.to_owned());
            let (live, to) = (live.join(name), to.join(name));
            if kind == "d" {
                fs::create_dir(&to)?;
                self.rebuild(&live, inode, &to, loss)?;
            } else {
                let content =
                    fs::read(self.shadow.join(format!("files/{inode}"))).unwrap_or_default();
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

    /// Begins again with everything in the folder synced.
    fn keep_all(&self) -> io::Result<()> {
        if self.shadow.exists() {
            fs::remove_dir_all(&self.shadow)?;
        }
        for kind in ["files", "dirs", "pins"] {
            fs::create_dir_all(self.shadow.join(kind))?;
        }
        self.keep(&self.root)
    }

    fn keep(&self, folder: &Path) -> io::Result<()> {
        let mut lines = String::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, metadata) = (entry.path(), entry.metadata()?);
            let kind = if metadata.is_dir() { 'd' } else { 'f' };
            lines.push_str(&format!(
                "{} {kind} {}\n",
                metadata.ino(),
                entry.file_name().to_string_lossy()
            ));
            if metadata.is_dir() {
                self.keep(&path)?;
            } else {
                fs::copy(&path, self.shadow.join(format!("files/{}", metadata.ino())))?;
            }
        }
        fs::write(self.shadow.join(format!("dirs/{}", fs::metadata(folder)?.ino())), lines)
    }
}
