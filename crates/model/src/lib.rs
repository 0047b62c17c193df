//! Exhaustive search over small configurations of the production consensus code: a second opinion beside the simulator,
//! which draws long histories at random.
//!
//! [`Cluster`] is a `stateright` model of a few replicas. What runs in it is `quorate_consensus::raft::Raft` itself, by
//! `handle` and `poll`; around it are a disk that completes writes in order, and loses any suffix of them at a crash, and a
//! network that delivers what it likes when it likes. [`Bounds`] say how much of what may happen in one history; within
//! them every history is looked at. [`Promise`] is what must hold in each.
//!
//! # Where the model is wider than reality
//! Time stands still, and every voter is always ready to have lost sight of its leader: a campaign may begin at any time.
//! So nothing here rests on clocks, and pre-votes and timeouts are not tested.
//!
//! # What it leaves out
//! Heartbeats, where no reads need them; snapshots, purges and damage: logs are a few entries long. Those are the
//! simulator's.
//!
//! Two states count as one when their replicas show the same under `Debug`, without measurements and the position of
//! the random stream, and everything around them is equal.

mod cluster;
mod past;
mod replica;
pub mod search;

pub use cluster::{Action, Bounds, Cluster, State};
pub use past::Promise;
