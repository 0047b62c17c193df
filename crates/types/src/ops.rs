//! What a group asks its log to make durable, and what the log says of itself when it is opened.

use crate::{Configuration, Epoch, Index, NodeId, Position, Slot};
use std::fmt;

/// What a replica has promised; one record, always written whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The highest epoch this replica has seen: nothing of a lower one is accepted.
    pub promised: Epoch,
    /// Whom it voted for in `promised.number`.
    pub voted_for: Option<NodeId>,
    /// The epoch of the leadership that the log was last brought in line with.
    pub log_epoch: Epoch,
}

impl fmt::Display for HardState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "promised={}", self.promised)?;
        if let Some(node) = self.voted_for {
            write!(f, " voted={node}")?;
        }
        write!(f, " log={}", self.log_epoch)
    }
}

/// One change to the durable state of a group. A `Persist` holds a list of these and is atomic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Replaces the hard state.
    HardState(HardState),
    /// Puts an entry at any index above the purged position; gaps and overwrites are legal.
    Write(Slot),
    /// Empties every slot at or above this index.
    Truncate(Index),
    /// Empties every slot at or below this position, whose entry must be present or already purged.
    Purge(Position),
    /// Empties the whole log, which then begins after this position: a snapshot took its place. The
    /// configuration is the one in force there.
    Reset(Position, Configuration),
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::HardState(state) => write!(f, "hard({state})"),
            Op::Write(slot) => write!(f, "write({slot})"),
            Op::Truncate(index) => write!(f, "truncate({index}..)"),
            Op::Purge(position) => write!(f, "purge(..={position})"),
            Op::Reset(position, configuration) => write!(f, "reset({position} {configuration})"),
        }
    }
}

/// Where a group's log begins and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The last position that was purged; [`Position::ZERO`] when none was.
    pub purged: Position,
    /// The highest index that holds an entry, or `purged.index` when none does.
    pub last: Index,
}

/// A run of consecutive slots whose entries share their epochs: from `first` to the one before the next
/// run, or to the last slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochRun {
    /// The first index of the run.
    pub first: Index,
    /// The created epoch of its entries.
    pub created: Epoch,
    /// The epoch in which they were accepted.
    pub accepted: Epoch,
}

/// A slot between the bounds that cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotFault {
    /// Nothing was ever written there.
    Absent(Index),
    /// Its record is readable enough to know what it held, the body is not.
    DamagedKnown(Position),
    /// Something was there; what, is unknown.
    DamagedUnknown(Index),
}

impl SlotFault {
    /// The slot in question.
    #[must_use]
    pub fn index(&self) -> Index {
        match self {
            SlotFault::Absent(index) | SlotFault::DamagedUnknown(index) => *index,
            SlotFault::DamagedKnown(position) => position.index,
        }
    }
}

/// What a replica needs to know of its log when it is opened; afterwards it keeps its own account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSummary {
    /// The hard state; `None` when its record is damaged, or missing from a log that must have held one: then this
    /// replica neither votes nor denies anything until it is repaired. A log that never held one has the default.
    pub hard_state: Option<HardState>,
    /// Where the log begins and ends.
    pub bounds: Bounds,
    /// The epochs of the slots, in runs of rising `first`.
    pub epochs: Vec<EpochRun>,
    /// Slots between the bounds that cannot be served, in order.
    pub faults: Vec<SlotFault>,
    /// The configuration in force at `bounds.purged`, if the log was ever purged or reset, then every
    /// configuration entry above it, in order.
    pub configurations: Vec<(Index, Configuration)>,
}
