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
    /// Write the register if it holds what is expected, and another one with it; read it otherwise.
    Swap {
        /// Which.
        key: Key,
        /// What it must hold; `None` when it must be empty.
        expected: Option<Value>,
        /// What to write.
        value: Value,
        /// What to write into another register in the same transaction.
        also: Option<(Key, Value)>,
    },
    /// Empty the register.
    Delete {
        /// Which.
        key: Key,
    },
    /// Read the register.
    Get {
        /// Which.
        key: Key,
    },
    /// Read a range of registers at once.
    Scan {
        /// The first.
        first: Key,
        /// The one after the last.
        end: Key,
    },
    /// Forget what was before a revision.
    Compact {
        /// The lowest that stays readable.
        revision: Revision,
    },
}

impl Call {
    /// A read of all registers.
    pub const SCAN_ALL: Call = Call::Scan { first: Key(0), end: Key(u32::MAX) };

    /// What the call would put into which registers; `None` empties one.
    #[must_use]
    pub fn writes(&self) -> Vec<(Key, Option<Value>)> {
        match *self {
            Call::Put { key, value } => vec![(key, Some(value))],
            Call::Swap { key, value, also, .. } => {
                let also = also.map(|(key, value)| (key, Some(value)));
                [(key, Some(value))].into_iter().chain(also).collect()
            }
            Call::Delete { key } => vec![(key, None)],
            Call::Get { .. } | Call::Scan { .. } | Call::Compact { .. } => Vec::new(),
        }
    }

    /// Whether the call may change anything that clients see.
    #[must_use]
    pub fn is_write(&self) -> bool {
        match self {
            Call::Put { .. } | Call::Swap { .. } | Call::Delete { .. } => true,
            Call::Get { .. } | Call::Scan { .. } | Call::Compact { .. } => false,
        }
    }

    /// Whether the call is answered from a replica's state, without an entry of its own.
    #[must_use]
    pub fn is_read(&self) -> bool {
        match self {
            Call::Get { .. } | Call::Scan { .. } => true,
            Call::Put { .. } | Call::Swap { .. } | Call::Delete { .. } | Call::Compact { .. } => {
                false
            }
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
    /// The delete emptied the register, as this revision; or found it empty at this revision.
    Deleted(Revision, bool),
    /// The revision at the time of the compaction.
    Compacted(Revision),
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

/// What replicas showed at the end of a revision that no client was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub revision: Revision,
    /// What it wrote; `None` where it emptied a register.
    pub writes: BTreeMap<Key, Option<Value>>,
}

/// Everything that clients saw in one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The calls, in order of their ends.
    pub operations: Vec<Operation>,
    /// What replicas showed of the past at the end.
    pub recalls: Vec<Recall>,
    /// What replicas showed of revisions that no client was told of.
    pub changes: Vec<Change>,
}

impl Outcome {
    /// The revision that the client was told, if any.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Outcome::Written(revision)
            | Outcome::NotWritten(revision, _)
            | Outcome::Deleted(revision, _)
            | Outcome::Compacted(revision)
            | Outcome::Got(revision, _)
            | Outcome::Scanned(revision, _) => Some(*revision),
            Outcome::Refused | Outcome::Unknown => None,
        }
    }

    /// What the client was shown of registers.
    #[must_use]
    pub fn found(&self, call: Call) -> Vec<(Key, Found)> {
        match (self, call) {
            (Outcome::NotWritten(_, found), Call::Swap { key, .. })
            | (Outcome::Got(_, found), Call::Get { key }) => {
                found.iter().map(|found| (key, *found)).collect()
            }
            (Outcome::Scanned(_, all), _) => {
                all.iter().map(|(key, found)| (*key, *found)).collect()
            }
            (
                Outcome::Written(_)
                | Outcome::NotWritten(..)
                | Outcome::Deleted(..)
                | Outcome::Compacted(_)
                | Outcome::Got(..)
                | Outcome::Refused
                | Outcome::Unknown,
                _,
            ) => Vec::new(),
        }
    }
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
            Call::Swap { key, expected, value, also } => {
                match expected {
                    None => write!(f, "swap({key} nothing→{value}")?,
                    Some(expected) => write!(f, "swap({key} {expected}→{value}")?,
                }
                also.map_or(Ok(()), |(key, value)| write!(f, " {key}={value}"))?;
                f.write_str(")")
            }
            Call::Delete { key } => write!(f, "delete({key})"),
            Call::Get { key } => write!(f, "get({key})"),
            Call::Scan { first, end } => write!(f, "scan({first}..{end})"),
            Call::Compact { revision } => write!(f, "compact({revision})"),
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
            Outcome::Deleted(revision, true) => write!(f, "deleted {revision}"),
            Outcome::Deleted(revision, false) => write!(f, "nothing to delete at {revision}"),
            Outcome::Compacted(revision) => write!(f, "compacted at {revision}"),
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
