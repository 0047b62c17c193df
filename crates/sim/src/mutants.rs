//! What is broken on purpose, to see that the checkers notice. Each mutant is a lie of the simulated surroundings that has
//! exactly the effect of a mistake in production code; no production code knows of them.

use std::fmt;

/// One thing broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mutant {
    /// Writes of the log are reported durable as soon as they are written: whatever is released by durability, such as
    /// acknowledgements to a leader and its own count, is released before the sync.
    AckBeforeSync,
    /// The same, but only for writes that answer a request for a vote.
    VoteBeforeSync,
    /// The engine's sync is reported done with every apply, and never happens: the log is purged past the synced index.
    PurgePastSynced,
    /// Reads are answered from the local replica without a barrier.
    StaleRead,
}

impl Mutant {
    /// Every mutant.
    pub const ALL: [Mutant; 4] =
        [Mutant::AckBeforeSync, Mutant::VoteBeforeSync, Mutant::PurgePastSynced, Mutant::StaleRead];

    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Mutant::AckBeforeSync => "ack-before-sync",
            Mutant::VoteBeforeSync => "vote-before-sync",
            Mutant::PurgePastSynced => "purge-past-synced",
            Mutant::StaleRead => "stale-read",
        }
    }

    /// The mutant of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::ALL.into_iter().find(|mutant| mutant.name() == name)
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
