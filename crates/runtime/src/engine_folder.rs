//! The folder of an engine as a whole: what is damaged is kept aside, and an empty engine begins in its place.
//!
//! An empty engine is no loss where there are peers, or where the log reaches back to the first entry: the node fills it
//! from there, and serves nothing before. So damage never keeps a node down, and nothing is deleted that somebody may still
//! want to look at.
//! ```text
//!   engine/DAMAGED        what a running node found out; the next open heeds it
//!   engine-damaged-1/     kept aside; the newest have the highest numbers
//! ```

use crate::files::{replace_file, sync_parent};
use quorate_types::ApplyFault;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file that says that the engine beside it must not be used.
const DAMAGED_FILE: &str = "DAMAGED";

/// How many damaged engines are kept: a disk that damages again and again must not fill itself with them.
const KEPT_MAX: usize = 3;

/// A damaged engine that was kept aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// What is wrong with it.
    pub reason: String,
    /// Where it is now.
    pub kept: PathBuf,
}

impl fmt::Display for SetAside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SetAside { reason, kept } = self;
        write!(
            f,
            "the engine is damaged: {reason}. It is kept aside in {} and may be deleted; an empty one takes its place \
             and is filled from the log or from a peer",
            kept.display()
        )
    }
}

/// Opens the engine in `folder`, and what is built on it. When that is damaged, or a former run said so, the folder is kept
/// aside and an empty one is opened in its place.
///
/// # Errors
/// What `open` says where that is no damage, and when the folder cannot be moved.
pub fn open_or_set_aside<S>(
    folder: &Path,
    open: impl Fn() -> Result<S, ApplyFault>,
) -> Result<(S, Option<SetAside>), ApplyFault> {
    let reason = match condemned(folder)? {
        Some(reason) => reason,
        None => match open() {
            Ok(opened) => return Ok((opened, None)),
            Err(ApplyFault::Damaged(reason)) => reason,
            Err(fault @ (ApplyFault::Engine(_) | ApplyFault::Unsupported { .. })) => {
                return Err(fault);
            }
        },
    };
    let kept = set_aside(folder).map_err(|error| failed(folder, &error))?;
    Ok((open()?, Some(SetAside { reason, kept })))
}

/// Says durably that the engine in `folder` is damaged, as a node found out while it ran: what it read may not be read
/// again before much later.
///
/// # Errors
/// When the device fails. The damage is then found out anew.
pub fn condemn(folder: &Path, reason: &str) -> std::io::Result<()> {
    let file = folder.join(DAMAGED_FILE);
    replace_file(&file, reason.as_bytes())?;
    sync_parent(&file)
}

/// What a former run found wrong with the engine.
fn condemned(folder: &Path) -> Result<Option<String>, ApplyFault> {
    match std::fs::read(folder.join(DAMAGED_FILE)) {
        Ok(reason) => Ok(Some(String::from_utf8_lossy(&reason).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(folder, &error)),
    }
}

fn set_aside(folder: &Path) -> std::io::Result<PathBuf> {
    let kept = kept(folder)?;
    let number = kept.last().map_or(1, |(number, _)| number + 1);
    let spare = (kept.len() + 1).saturating_sub(KEPT_MAX);
    for (_, oldest) in kept.into_iter().take(spare) {
        std::fs::remove_dir_all(oldest)?;
    }
    let mut name = prefix(folder);
    name.push(number.to_string());
    let target = folder.with_file_name(name);
    std::fs::rename(folder, &target)?;
    sync_parent(folder)?;
    Ok(target)
}

/// What the names of kept folders begin with.
fn prefix(folder: &Path) -> OsString {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-damaged-");
    name
}

/// The damaged engines kept so far, the oldest first.
fn kept(folder: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let prefix = prefix(folder).to_string_lossy().into_owned();
    let parent = folder.parent().unwrap_or(Path::new("."));
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(number) = name.strip_prefix(&prefix).and_then(|rest| rest.parse().ok()) {
            kept.push((number, entry.path()));
        }
    }
    kept.sort();
    Ok(kept)
}

fn failed(folder: &Path, error: &std::io::Error) -> ApplyFault {
    ApplyFault::Engine(format!("{}: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens a folder in which one file says whether it is sound.
    fn open(folder: &Path) -> Result<String, ApplyFault> {
        std::fs::create_dir_all(folder).expect("made");
        let file = folder.join("content");
        if !file.exists() {
            std::fs::write(&file, "empty").expect("written");
        }
        match std::fs::read_to_string(&file).expect("read").as_str() {
            "rot" => Err(ApplyFault::Damaged("a checksum differs".into())),
            "no device" => Err(ApplyFault::Engine("the device is gone".into())),
            content => Ok(content.to_owned()),
        }
    }

    #[test]
    fn a_damaged_engine_is_kept_aside_and_a_sound_one_is_left_alone() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("engine");
        let opened = || open_or_set_aside(&folder, || open(&folder));
        assert_eq!(opened(), Ok(("empty".into(), None)));
        std::fs::write(folder.join("content"), "full").expect("written");
        assert_eq!(opened(), Ok(("full".into(), None)));
        std::fs::write(folder.join("content"), "no device").expect("written");
        assert!(opened().is_err(), "a device that fails is no damage");

        std::fs::write(folder.join("content"), "rot").expect("written");
        let (content, set_aside) = opened().expect("another takes its place");
        let set_aside = set_aside.expect("it is damaged");
        assert_eq!((content.as_str(), set_aside.reason.as_str()), ("empty", "a checksum differs"));
        assert_eq!(set_aside.kept, parent.path().join("engine-damaged-1"));
        assert_eq!(std::fs::read_to_string(set_aside.kept.join("content")).expect("kept"), "rot");
        assert_eq!(opened(), Ok(("empty".into(), None)));
    }

    #[test]
    fn what_a_run_found_out_is_heeded_once_and_few_are_kept() {
        let parent = tempfile::tempdir().expect("a folder");
        let folder = parent.path().join("engine");
        let opened = || open_or_set_aside(&folder, || open(&folder)).expect("it opens");
        opened();
        for number in 1..=5 {
            condemn(&folder, "a row is unreadable").expect("written");
            let (_, set_aside) = opened();
            let set_aside = set_aside.expect("it was condemned");
            assert_eq!(set_aside.reason, "a row is unreadable");
            assert!(set_aside.kept.ends_with(format!("engine-damaged-{number}")));
            assert_eq!(opened().1, None);
        }
        let kept: Vec<u64> = kept(&folder).expect("listed").into_iter().map(|(n, _)| n).collect();
        assert_eq!(kept, [3, 4, 5]);
    }
}
