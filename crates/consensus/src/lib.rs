//! Consensus protocols as pure state machines under one contract.
//!
//! Start with [`Protocol`], the contract, and its two closed vocabularies, [`Input`] and [`Effect`]. One instance is
//! one replica of one group: it is opened with what its log and state machine say of themselves
//! ([`Opening`]), after that it never reads the log, a clock or a random source. [`raft::Raft`] is the first
//! protocol under it; `docs/design/protocols.md` says how Multi-Paxos, Zab and Viewstamped Replication use each
//! input, effect and op.

mod contract;
mod effect;
mod event;
mod input;
mod message;
mod options;
mod status;

#[doc(hidden)]
pub mod fuzzing;

pub mod raft;

pub mod plan;

mod barrier;
mod progress;
mod quorum;
mod tail;
mod writes;

pub use contract::{Opening, Protocol};
pub use effect::{Effect, RefuseReason, SnapshotEffect};
pub use event::{DropReason, ElectionCause, Event, Mending, StepDownReason};
pub use input::{Control, FetchId, Input, Proposal, ReadId, SnapshotInput, SnapshotOutcome};
pub use message::Message;
pub use options::{Limits, Options, Timing};
pub use status::{Metrics, PeerStatus, RoleName, Status};
