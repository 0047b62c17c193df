//! What a replica asks for.

use crate::{Event, FetchId, Message, ReadId};
use quorate_types::{Index, NodeId, Op, Origin, Position, WriteId};
use std::fmt;

/// Why a proposal or read was not taken. Definite: this sending of it will never be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefuseReason {
    /// No leader is known.
    NoLeader,
    /// This replica does not lead and does not forward (the hint names who leads, if known).
    NotLeader,
    /// Too many bytes are uncommitted or unapplied.
    Busy,
    /// The body is above the limit.
    TooLarge,
    /// Leadership is being handed over.
    Transferring,
    /// This replica may take no part: its log is damaged, or it is no member.
    NotReady,
}

/// Steps of a snapshot. Consensus decides which goes to whom; the bytes travel on the bulk stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotEffect {
    /// Capture the state machine, stream it to a peer, and say how it ended.
    Send {
        /// To whom.
        to: NodeId,
        /// This replica's epoch, which the receiver is told.
        epoch: quorate_types::Epoch,
    },
    /// Make the staged snapshot the live state.
    Install {
        /// From whom.
        from: NodeId,
        /// What it covers.
        position: Position,
    },
    /// Drop the staged snapshot.
    Discard {
        /// From whom.
        from: NodeId,
        /// What it covers.
        position: Position,
    },
}

/// Everything that a replica can ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make these changes durable, all or none, after every earlier `Persist`.
    Persist {
        /// Named again by [`crate::Input::Durable`].
        id: WriteId,
        /// The changes, in order.
        ops: Vec<Op>,
    },
    /// Say this to a peer. What it promises is true once `after` is durable: that very write's completion
    /// releases it, and nothing else does.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
        /// The write that makes it true; `None` when it promises nothing new.
        after: Option<WriteId>,
    },
    /// Say this to a peer on the bulk stream, so that nothing urgent queues behind it: entries for one who lags. It
    /// promises nothing new. What is said on the other stream may overtake it.
    SendBulk {
        /// To whom.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Apply these slots: all are committed and locally durable. Ranges are consecutive and never overlap.
    Apply {
        /// The first index.
        first: Index,
        /// The last index.
        last: Index,
    },
    /// A proposal was not taken.
    Refused {
        /// Whose.
        origin: Origin,
        /// Why.
        reason: RefuseReason,
        /// Who may know better.
        hint: Option<NodeId>,
    },
    /// A read at or above this index is linearizable.
    ReadReady {
        /// Which.
        id: ReadId,
        /// Apply at least this far, then read.
        index: Index,
    },
    /// A read barrier was not reached.
    ReadFailed {
        /// Which.
        id: ReadId,
        /// Why.
        reason: RefuseReason,
    },
    /// Read slots from the log.
    Fetch {
        /// Named again by [`crate::Input::Fetched`].
        id: FetchId,
        /// The first index.
        first: Index,
        /// The last index.
        last: Index,
        /// About how many bytes at most; one slot is always given.
        budget: usize,
    },
    /// A step of a snapshot.
    Snapshot(SnapshotEffect),
    /// Something that people and the monitor want to know.
    Event(Event),
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Persist { id, ops } => {
                write!(f, "persist {id}")?;
                ops.iter().try_for_each(|op| write!(f, " {op}"))
            }
            Effect::Send { to, message, after: None } => write!(f, "send {to} {message}"),
            Effect::Send { to, message, after: Some(write) } => {
                write!(f, "send {to} {message} after {write}")
            }
            Effect::SendBulk { to, message } => write!(f, "send {to} by bulk {message}"),
            Effect::Apply { first, last } => write!(f, "apply {first}..={last}"),
            Effect::Refused { origin, reason, hint } => {
                write!(f, "refused {origin} {reason:?}")?;
                hint.map_or(Ok(()), |node| write!(f, " hint {node}"))
            }
            Effect::ReadReady { id, index } => write!(f, "read r{} ready at {index}", id.0),
            Effect::ReadFailed { id, reason } => write!(f, "read r{} failed {reason:?}", id.0),
            Effect::Fetch { id, first, last, budget } => {
                write!(f, "fetch f{} {first}..={last} {budget}B", id.0)
            }
            Effect::Snapshot(snapshot) => write!(f, "snapshot {snapshot:?}"),
            Effect::Event(event) => write!(f, "event {event}"),
        }
    }
}
