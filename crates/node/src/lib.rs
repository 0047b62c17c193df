//! One node: joins a consensus protocol, the log and a state machine, and decides all that is not protocol, disk
//! format or state: identity, formation, who may speak as whom, origins, retries, deadlines, snapshots in transit.
//!
//! Start with [`Node`], [`NodeInput`] and [`NodeEffect`]: a node is a deterministic function from one to the other, like
//! everything below it. Whoever drives it (the runtime with real devices, the simulator with modelled ones) executes
//! the effects and reports completions; the node itself does no I/O and reads no clock.
//!
//! `node` opens the data folder and routes what it is told; `formation` makes one cluster of the listed members;
//! `hello` decides who may speak; `group` joins one replica's protocol, log and state machine; `waiters` holds the
//! clients; `transfer` moves snapshots.

#[doc(hidden)]
pub mod fuzzing;

mod agenda;
mod formation;
mod group;
mod hello;
mod identity;
mod install;
mod interface;
mod later;
mod machine;
mod node;
mod peers;
mod roster;
mod sealed;
mod status;
mod transfer;
mod waiters;

pub use interface::{
    Answer, CommittedFor, Join, MachineDone, MachineRequest, NodeEffect, NodeInput, NodeOptions,
    Request, RequestId, StopReason, StreamDirection, StreamId, StreamPurpose,
};
pub use node::{Node, OpenError};
pub use sealed::SealError;
pub use status::{NodeStatus, PeerReach, Phase};
pub use transfer::piece_of;
