//! What happened and why, for logs, the monitor and the doctor.

use crate::RoleName;
use quorate_types::{Configuration, Digest, Epoch, Index, NodeId, Position};
use std::fmt;
use std::time::Duration;

/// Why a replica began to campaign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionCause {
    /// Nothing was heard from a leader for an election timeout.
    Timeout,
    /// The stream to the leader was closed.
    LinkClosed,
    /// The leader handed over.
    Transfer,
    /// An operator asked.
    Asked,
}

/// Why a leader stopped leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDownReason {
    /// A message of a higher epoch came.
    HigherEpoch,
    /// No quorum was heard from for an election timeout (CheckQuorum).
    NoQuorum,
    /// It is no voter any more.
    Removed,
    /// Its disk has not completed a write for long.
    Stalled,
    /// A slot of its log was found damaged.
    Damaged,
}

/// Why a message was dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Its sender is no member.
    NotMember,
    /// It contradicts local state; the text says how.
    Contradiction(String),
}

/// How a damaged slot was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mending {
    /// A peer gave its entry.
    From(NodeId),
    /// It was still in memory, and is written again.
    FromMemory,
    /// It was proved that it was never committed; it was cut away with all that follows.
    GivenUp,
}

/// Something worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The role changed.
    Role {
        /// The new role.
        role: RoleName,
        /// The epoch it holds in.
        epoch: Epoch,
    },
    /// The epoch rose (a term change).
    EpochChanged {
        /// The new epoch.
        epoch: Epoch,
    },
    /// A leader became known, or unknown.
    Leader {
        /// Who, if known.
        leader: Option<NodeId>,
        /// The epoch.
        epoch: Epoch,
        /// How long this replica had known no leader.
        leaderless: Duration,
    },
    /// A campaign began.
    Campaign {
        /// The epoch it is for.
        epoch: Epoch,
        /// Why.
        cause: ElectionCause,
    },
    /// A leader stopped leading.
    SteppedDown {
        /// The epoch it led.
        epoch: Epoch,
        /// Why.
        reason: StepDownReason,
    },
    /// A configuration is in force from here on; what was told of higher indexes is not any more.
    Configuration {
        /// The index of its entry.
        index: Index,
        /// The members.
        configuration: Configuration,
    },
    /// A message was dropped.
    Dropped {
        /// Who sent it.
        from: NodeId,
        /// Why it was dropped.
        reason: DropReason,
    },
    /// A peer needs a snapshot: what it lacks is purged here.
    SnapshotNeeded {
        /// Who.
        peer: NodeId,
    },
    /// A snapshot took the place of the log.
    SnapshotInstalled {
        /// What it covers.
        position: Position,
    },
    /// The same index has two digests: a replica's state has diverged.
    Diverged {
        /// Who differs from this replica.
        peer: NodeId,
        /// Where.
        index: Index,
        /// This replica's digest.
        ours: Digest,
        /// The peer's digest.
        theirs: Digest,
    },
    /// A damaged slot was mended.
    Mended {
        /// What stood there.
        position: Position,
        /// How.
        how: Mending,
    },
    /// A target membership that this replica was asked for was taken in, or refused with this reason.
    MembershipAnswer {
        /// Why not, if it was refused.
        refusal: Option<String>,
    },
    /// Something of the local log keeps this replica from taking part; the text says what would mend it.
    NotReady {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Role { role, epoch } => write!(f, "{role}@{epoch}"),
            Event::EpochChanged { epoch } => write!(f, "epoch {epoch}"),
            Event::Leader { leader: Some(node), epoch, leaderless } => {
                write!(f, "leader {node}@{epoch} after {}ms", leaderless.as_millis())
            }
            Event::Leader { leader: None, epoch, .. } => write!(f, "no leader @{epoch}"),
            Event::Campaign { epoch, cause } => write!(f, "campaign @{epoch} {cause:?}"),
            Event::SteppedDown { epoch, reason } => write!(f, "stepped down @{epoch} {reason:?}"),
            Event::Configuration { index, configuration } => {
                write!(f, "configuration {index} {configuration}")
            }
            Event::Dropped { from, reason: DropReason::NotMember } => {
                write!(f, "dropped from {from}: not a member")
            }
            Event::Dropped { from, reason: DropReason::Contradiction(text) } => {
                write!(f, "dropped from {from}: {text}")
            }
            Event::SnapshotNeeded { peer } => write!(f, "{peer} needs a snapshot"),
            Event::SnapshotInstalled { position } => write!(f, "snapshot installed at {position}"),
            Event::Diverged { peer, index, ours, theirs } => {
                write!(f, "{peer} diverged at {index}: {ours} here, {theirs} there")
            }
            Event::Mended { position, how: Mending::From(peer) } => {
                write!(f, "damaged slot {position} refilled from {peer}")
            }
            Event::Mended { position, how: Mending::FromMemory } => {
                write!(f, "damaged slot {position} is written again from memory")
            }
            Event::Mended { position, how: Mending::GivenUp } => {
                write!(f, "damaged slot {position} was never committed and is given up")
            }
            Event::MembershipAnswer { refusal: None } => f.write_str("membership: taken in"),
            Event::MembershipAnswer { refusal: Some(text) } => {
                write!(f, "membership: refused: {text}")
            }
            Event::NotReady { reason } => write!(f, "not ready: {reason}"),
        }
    }
}
