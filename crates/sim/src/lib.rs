//! A simulated world that drives the production node, log and store.
//!
//! [`run()`] turns a seed into an [`Outcome`]: three or five production nodes with their stores in one thread, under a virtual clock,
//! a network that loses, reorders and repeats ([`network`]), disks that know live bytes from durable ones ([`disk`]) and
//! engines that lose unsynced batches. In some seeds members come and go (`churn`). Each seed draws its own mix of faults ([`swarm`]); clients work on registers
//! ([`client`]); at the end everything is healed and progress is demanded. What must hold is in [`checkers`], one
//! promise a file; what is broken on purpose to see that they notice, in [`mutants`].
//!
//! A failing seed is replayed with `cargo xtask sim --seed N --trace`.

mod answers;
mod atlas;
mod calls;
pub mod checkers;
mod churn;
pub mod client;
pub mod clock;
mod core;
pub mod dice;
pub mod disk;
mod engine;
pub mod fault_kind;
mod faults;
mod finale;
pub mod history;
mod machine;
pub mod made_history;
pub mod marks;
pub mod mutants;
pub mod network;
mod process;
mod recall;
pub mod report;
mod run;
mod settling;
mod streams;
pub mod swarm;
pub mod trace;
mod world;

pub use run::{Outcome, run};
pub use world::{Options, World};
