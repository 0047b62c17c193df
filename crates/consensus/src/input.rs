//! What a replica is told.

use crate::Message;
use bytes::Bytes;
use quorate_types::{
    Configuration, Digest, EntryKind, Incarnation, Index, NodeId, Origin, Position, Slot,
    SlotFault, TransactionId, WriteId,
};
use std::fmt;

/// One thing to be agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Whose it is; never [`Origin::NONE`].
    pub origin: Origin,
    /// What the body means: a command or a write set.
    pub kind: EntryKind,
    /// The transaction it belongs to.
    pub transaction: TransactionId,
    /// What it says; at most [`quorate_types::BODY_SIZE_MAX`] bytes.
    pub body: Bytes,
}

/// Names one read barrier of this replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReadId(pub u64);

/// Names one [`crate::Effect::Fetch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FetchId(pub u64);

/// How the sending of a snapshot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The peer has the whole of it, verified and staged.
    Delivered,
    /// The stream broke or the capture failed; it may be tried again.
    Failed,
}

/// Progress of snapshots, whose bytes travel outside the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotInput {
    /// A snapshot that [`crate::SnapshotEffect::Send`] asked for has ended.
    Sent {
        /// To whom.
        to: NodeId,
        /// What it covered; [`Position::ZERO`] when it failed before it had a name.
        position: Position,
        /// How it ended.
        outcome: SnapshotOutcome,
    },
    /// A peer's snapshot is complete, verified and staged: install it or discard it.
    Staged {
        /// From whom.
        from: NodeId,
        /// The sender's epoch when it began.
        epoch: quorate_types::Epoch,
        /// What it covers.
        position: Position,
        /// The configuration in force there.
        configuration: Configuration,
    },
    /// An install that [`crate::SnapshotEffect::Install`] asked for is durable in the engine.
    Installed {
        /// What it covers.
        position: Position,
        /// The configuration in force there.
        configuration: Configuration,
    },
    /// An install failed; the live state is as before.
    InstallFailed {
        /// What it would have covered.
        position: Position,
    },
}

/// What an operator or the monitor asks of a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Campaign now, as if the election timeout had passed.
    Campaign,
    /// Hand leadership to this voter, once it has the whole log.
    Transfer(NodeId),
    /// Make these the members, by steps that the engine plans (see [`crate::plan`]). Answered by
    /// [`crate::Event::MembershipAnswer`].
    TargetMembership {
        /// The configuration in force as the asker knows it: another one refuses the target.
        base: Configuration,
        /// Who is to be a member and who is to vote; whatever a change under way has come to does not matter in it.
        target: Configuration,
    },
}

/// Everything that a replica can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time has come to the last deadline named, or past it.
    Tick,
    /// A peer, known by its hello to be this node under the incarnation that the configuration names, says this.
    Message {
        /// Who.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A stream to or from a peer was opened (after the hello) or closed. A hint that speeds detection up, never
    /// evidence.
    Link {
        /// Which peer.
        peer: NodeId,
        /// Under which incarnation it spoke.
        incarnation: Incarnation,
        /// Whether it can be reached now.
        up: bool,
    },
    /// Agree on these. Each ends by its apply, by `Refused`, or unknown.
    Propose(Vec<Proposal>),
    /// Find an index such that a read at or above it is linearizable with respect to now.
    Read(ReadId),
    /// The log has made this write durable, and with it every earlier one.
    Durable(WriteId),
    /// The state machine has applied up to `index`.
    Applied {
        /// The last index applied.
        index: Index,
        /// The last index that the engine has made durable: at most `index`.
        synced: Index,
        /// The digest chain at `index`, where an apply ended there.
        digest: Option<Digest>,
    },
    /// A slot of the log was found unreadable after open.
    Damaged(SlotFault),
    /// The answer to a [`crate::Effect::Fetch`]: consecutive slots from its first index on, as many as the
    /// budget allows; none when the first one cannot be read.
    Fetched {
        /// Which fetch.
        id: FetchId,
        /// What was read.
        slots: Vec<Slot>,
    },
    /// Progress of a snapshot.
    Snapshot(SnapshotInput),
    /// A request of an operator or the monitor.
    Control(Control),
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Tick => f.write_str("tick"),
            Input::Message { from, message } => write!(f, "{from} says {message}"),
            Input::Link { peer, up, .. } => {
                write!(f, "link {peer} {}", if *up { "up" } else { "down" })
            }
            Input::Propose(proposals) => {
                f.write_str("propose")?;
                proposals.iter().try_for_each(|proposal| write!(f, " {}", proposal.origin))
            }
            Input::Read(id) => write!(f, "read r{}", id.0),
            Input::Durable(write) => write!(f, "durable {write}"),
            Input::Applied { index, synced, .. } => write!(f, "applied {index} synced {synced}"),
            Input::Damaged(fault) => write!(f, "damaged {fault:?}"),
            Input::Fetched { id, slots } => {
                write!(f, "fetched f{}", id.0)?;
                slots.iter().try_for_each(|slot| write!(f, " {}", slot.position()))
            }
            Input::Snapshot(snapshot) => write!(f, "snapshot {snapshot:?}"),
            Input::Control(control) => write!(f, "control {control:?}"),
        }
    }
}
