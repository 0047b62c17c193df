//! What was measured so far, kept in a file beside the build so that a run that was cut off can go on.

use super::run::Sample;
use crate::command::{Result, root};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

/// A long run under full load.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Soak {
    /// How long it lasted.
    pub(crate) minutes: u64,
    /// How many clients wrote.
    pub(crate) clients: usize,
    /// What it showed.
    pub(crate) sample: Sample,
}

/// Everything that a page shows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// The systems, ours first; all lists below are in this order.
    pub(crate) systems: Vec<String>,
    /// How many runs of each system and workload are intended.
    pub(crate) pairs: usize,
    /// How long each lasts, in seconds.
    pub(crate) seconds: u64,
    /// How many kills of a leader are intended.
    pub(crate) kills: usize,
    /// Of which commits the figures are.
    pub(crate) commits: BTreeSet<String>,
    /// What the machine gives at best.
    pub(crate) probe: Option<Value>,
    /// Runs by workload and system.
    pub(crate) samples: BTreeMap<String, Vec<Vec<Sample>>>,
    /// Resident memory in MiB.
    pub(crate) memory: Vec<f64>,
    /// Gaps after kills of a leader, in milliseconds.
    pub(crate) gaps: Vec<Vec<f64>>,
    /// What consensus and log gave by themselves.
    pub(crate) engine: Option<Value>,
    /// The long run.
    pub(crate) soak: Option<Soak>,
}

impl Measured {
    /// Nothing yet.
    pub(crate) fn new(systems: Vec<String>, pairs: usize, seconds: u64, kills: usize) -> Measured {
        Measured {
            gaps: vec![Vec::new(); systems.len()],
            systems,
            pairs,
            seconds,
            kills,
            commits: BTreeSet::new(),
            probe: None,
            samples: BTreeMap::new(),
            memory: Vec::new(),
            engine: None,
            soak: None,
        }
    }

    fn path() -> PathBuf {
        let target = std::env::var_os("CARGO_TARGET_DIR");
        target.map_or_else(|| root().join("target"), PathBuf::from).join("bench.json")
    }

    /// What an earlier run left, if it measured the same systems in the same way as `wanted`.
    pub(crate) fn load(wanted: &Measured) -> Result<Option<Measured>> {
        let path = Measured::path();
        let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
        let kept: Measured = serde_json::from_str(&text)
            .map_err(|error| format!("{}: {error}: delete it", path.display()))?;
        let is_alike = kept.systems == wanted.systems
            && (kept.samples.is_empty() || kept.seconds == wanted.seconds);
        if !is_alike {
            println!("{} is of other systems or another time; it is replaced", path.display());
            return Ok(None);
        }
        Ok(Some(Measured { pairs: wanted.pairs, kills: wanted.kills, ..kept }))
    }

    /// Keeps it.
    pub(crate) fn save(&self) -> Result<()> {
        let path = Measured::path();
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Remembers which commit is measured.
    pub(crate) fn note_commit(&mut self) -> Result<()> {
        let output = Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .current_dir(root())
            .output()
            .map_err(|error| format!("git: {error}"))?;
        self.commits.insert(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Ok(())
    }

    /// The runs of one workload and system.
    pub(crate) fn samples(&self, workload: &str, system: usize) -> &[Sample] {
        self.samples.get(workload).map_or(&[], |rows| &rows[system])
    }

    /// Adds a run.
    pub(crate) fn add(&mut self, workload: &str, system: usize, sample: Sample) {
        let rows = self.samples.entry(workload.to_owned()).or_default();
        rows.resize(self.systems.len(), Vec::new());
        rows[system].push(sample);
    }
}
