//! What clients asked and what they were told: all that a judge of consistency may look at.

use std::collections::BTreeMap;
use std::fmt;

/// One of the registers that clients read and write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// A value that is written at most once in a run, so that whoever sees it knows which call wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u64);

/// A revision of the store: how many changes came before, and one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A moment in the order of events of a run; no two events share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub u64);

/// One of the clients. It has at most one call under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub usize);

/// A value as found in a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The value.
    pub value: Value,
    /// The revision that is said to have written it.
    pub written_at: Revision,
}

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Write the register.
    Put {
        /// Which.
        key: Key,
        /// What.
        value: Value,
    },
    /// Write the register if it holds what is expected; read it otherwise.
    Swap {
        /// Which.
        key: Key,
        /// What it must hold; `None` when it must be empty.
        expected: Option<Value>,
        /// What to write.
        value: Value,
    },
    /// Read the register.
    Get {
        /// Which.
        key: Key,
    },
    /// Read all registers at once.
    Scan,
}

impl Call {
    /// What the call would write, and where.
    #[must_use]
    pub fn write(&self) -> Option<(Key, Value)> {
        match *self {
            Call::Put { key, value } | Call::Swap { key, expected: _, value } => Some((key, value)),
            Call::Get { .. } | Call::Scan => None,
        }
    }
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The put or the swap wrote, as this revision.
    Written(Revision),
    /// The swap did not write, because the register held this at this revision.
    NotWritten(Revision, Option<Found>),
    /// The register held this at this revision.
    Got(Revision, Option<Found>),
    /// The registers that held anything at this revision.
    Scanned(Revision, BTreeMap<Key, Found>),
    /// It has not happened and never will.
    Refused,
    /// Nobody knows: it may have happened, may happen later, or never.
    Unknown,
}

/// One call and its outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose call.
    pub client: ClientId,
    /// What was asked.
    pub call: Call,
    /// When.
    pub called: Moment,
    /// When the outcome came. Of an unknown outcome, when the client stopped waiting.
    pub ended: Moment,
    /// What it was.
    pub outcome: Outcome,
}

/// What one replica showed at an old revision when asked at the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recall {
    /// Of which register.
    pub key: Key,
    /// At which revision.
    pub revision: Revision,
    /// What it held there.
    pub found: Option<Found>,
}

/// Everything that clients saw in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The calls, in order of their ends.
    pub operations: Vec<Operation>,
    /// What replicas showed of the past at the end.
    pub recalls: Vec<Recall>,
}

impl History {
    /// How many calls have a known outcome other than a refusal.
    #[must_use]
    pub fn completed_count(&self) -> u64 {
        let completed = |operation: &&Operation| {
            !matches!(operation.outcome, Outcome::Refused | Outcome::Unknown)
        };
        self.operations.iter().filter(completed).count() as u64
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}", self.0)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c{}", self.0)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Call::Put { key, value } => write!(f, "put({key}={value})"),
            Call::Swap { key, expected: None, value } => write!(f, "swap({key} nothing→{value})"),
            Call::Swap { key, expected: Some(expected), value } => {
                write!(f, "swap({key} {expected}→{value})")
            }
            Call::Get { key } => write!(f, "get({key})"),
            Call::Scan => f.write_str("scan"),
        }
    }
}

/// Shows what a register held.
struct Shown<'a>(&'a Option<Found>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("nothing"),
            Some(found) => write!(f, "{}@{}", found.value, found.written_at),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Written(revision) => write!(f, "written {revision}"),
            Outcome::NotWritten(revision, found) => {
                write!(f, "not written, {} at {revision}", Shown(found))
            }
            Outcome::Got(revision, found) => write!(f, "{} at {revision}", Shown(found)),
            Outcome::Scanned(revision, all) => {
                for (key, found) in all {
                    write!(f, "{key}={}@{} ", found.value, found.written_at)?;
                }
                write!(f, "at {revision}")
            }
            Outcome::Refused => f.write_str("refused"),
            Outcome::Unknown => f.write_str("unknown"),
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Operation { client, call, called, ended, outcome } = self;
        write!(f, "{client} {call} {called}..{ended} {outcome}")
    }
}

impl fmt::Display for Recall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "recall {} at {}: {}", self.key, self.revision, Shown(&self.found))
    }
}
