//! Numbers of one run, and of many.

use crate::fault_kind::FaultKind;
use crate::marks;
use crate::network::NetworkCounts;
use std::collections::BTreeMap;
use std::fmt;

/// What happened in one run, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// How long it took in virtual time.
    pub virtual_nanos: u64,
    /// Steps of the trace.
    pub step_count: u64,
    /// Calls that clients made.
    pub operation_count: u64,
    /// Of these, calls whose outcome is known and was no refusal.
    pub completed_count: u64,
    /// How many epochs had a leader.
    pub leader_count: u64,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<FaultKind, u64>,
    /// Crashes of a process, power losses among them.
    pub crash_count: u64,
    /// Power losses while bytes of the log were not synced.
    pub unsynced_crash_count: u64,
    /// Writes of which a part survived a power loss.
    pub torn_count: u64,
    /// Batches of the engine that crashes took back.
    pub lost_batch_count: u64,
    /// Snapshots that took the place of a log.
    pub snapshot_count: u64,
    /// Starts of a node whose state was lost and that its log could not give back.
    pub stateless_start_count: u64,
    /// Claims that were compared with the durable half of the disk when they were sent.
    pub claim_count: u64,
    /// Runs in which a core got on while others kept what ailed them.
    pub core_count: u64,
    /// Hard states that disks lost.
    pub lost_hard_state_count: u64,
    /// Changes of members that came to their end.
    pub change_count: u64,
    /// How often each rare branch was taken.
    pub marks: BTreeMap<&'static str, u64>,
    /// What became of frames.
    pub frames: NetworkCounts,
}

/// The numbers of many runs.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Those of each run.
    runs: Vec<Counts>,
}

impl Summary {
    /// Adds a run.
    pub fn add(&mut self, counts: Counts) {
        self.runs.push(counts);
    }

    /// How many runs there were.
    #[must_use]
    pub fn run_count(&self) -> usize {
        self.runs.len()
    }

    /// The marks that no run has hit, where there were enough runs to demand them.
    #[must_use]
    pub fn missed_marks(&self) -> Vec<&'static str> {
        if self.runs.len() < marks::SEED_COUNT_MIN {
            return Vec::new();
        }
        let is_missed = |mark: &&str| !self.runs.iter().any(|run| run.marks.contains_key(mark));
        marks::ALL.into_iter().filter(is_missed).collect()
    }

    /// All virtual time.
    #[must_use]
    pub fn virtual_nanos(&self) -> u64 {
        self.runs.iter().map(|run| run.virtual_nanos).sum()
    }

    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        of: impl Fn(&Counts) -> u64,
    ) -> fmt::Result {
        let mut values: Vec<u64> = self.runs.iter().map(of).collect();
        values.sort_unstable();
        let at = |percent: usize| values[(values.len() - 1) * percent / 100];
        let sum: u64 = values.iter().sum();
        let with = values.iter().filter(|value| **value > 0).count();
        writeln!(
            f,
            "  {name:<36} {sum:>10} {:>8} {:>8} {:>8} {:>8} {with:>8}",
            at(0),
            at(50),
            at(90),
            at(100)
        )
    }
}

/// What a run needs to be counted: it lasted, it worked, and more than one thing went wrong.
const COUNTED_SECONDS: u64 = 60;
const COUNTED_CALLS: u64 = 300;
const COUNTED_KINDS: usize = 3;

impl Counts {
    /// Whether this run is one of those that figures speak of.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        self.virtual_nanos >= COUNTED_SECONDS * 1_000_000_000
            && self.completed_count >= COUNTED_CALLS
            && self.faults.len() >= COUNTED_KINDS
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs.is_empty() {
            return f.write_str("no seed was run\n");
        }
        let heads = ["sum", "min", "median", "p90", "max", "seeds"];
        write!(f, "  {:<36}", "per seed")?;
        for (number, head) in heads.iter().enumerate() {
            let width = if number == 0 { 10 } else { 8 };
            write!(f, " {head:>width$}")?;
        }
        writeln!(f)?;
        self.row(f, "virtual seconds", |run| run.virtual_nanos / 1_000_000_000)?;
        self.row(f, "calls", |run| run.operation_count)?;
        self.row(f, "completed calls", |run| run.completed_count)?;
        self.row(f, "kinds of fault", |run| run.faults.len() as u64)?;
        self.row(f, "faults", |run| run.faults.values().sum())?;
        for kind in FaultKind::ALL {
            let name = format!("- {}", kind.name());
            self.row(f, &name, |run| run.faults.get(kind).copied().unwrap_or(0))?;
        }
        self.row(f, "leaders", |run| run.leader_count)?;
        self.row(f, "crashes", |run| run.crash_count)?;
        self.row(f, "crashes with unsynced bytes", |run| run.unsynced_crash_count)?;
        self.row(f, "torn writes", |run| run.torn_count)?;
        self.row(f, "engine batches lost", |run| run.lost_batch_count)?;
        self.row(f, "snapshots installed", |run| run.snapshot_count)?;
        self.row(f, "starts without a state", |run| run.stateless_start_count)?;
        self.row(f, "cores that got on alone", |run| run.core_count)?;
        self.row(f, "hard states lost", |run| run.lost_hard_state_count)?;
        self.row(f, "changes of members", |run| run.change_count)?;
        self.row(f, "frames", |run| run.frames.sent)?;
        self.row(f, "- lost", |run| run.frames.lost)?;
        self.row(f, "- twice", |run| run.frames.duplicated)?;
        self.row(f, "- late", |run| run.frames.delayed)?;
        self.row(f, "- replayed", |run| run.frames.replayed)?;
        self.row(f, "claims checked on disk", |run| run.claim_count)?;
        self.row(f, "steps", |run| run.step_count)?;
        for mark in marks::ALL {
            let name = format!("+ {mark}");
            self.row(f, &name, |run| run.marks.get(mark).copied().unwrap_or(0))?;
        }
        let counted = self.runs.iter().filter(|run| run.is_counted()).count();
        writeln!(
            f,
            "{counted} of {} seeds count: ≥ {COUNTED_SECONDS} virtual s, ≥ {COUNTED_CALLS} completed calls, \
             ≥ {COUNTED_KINDS} kinds of fault",
            self.runs.len()
        )
    }
}
