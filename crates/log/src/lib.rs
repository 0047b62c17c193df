//! The durable log of all groups of a node, as a state machine over disk requests.
//!
//! [`Log`] takes what groups persist ([`Log::submit`]), asks for disk work ([`Log::poll`]), is told how it ended
//! ([`Log::handle`]) and says what became of it ([`LogEvent`]). It never waits, reads no clock and touches no file
//! itself; only [`Log::open`] reads synchronously, through the reader it is given.
//!
//! There is one ordered stream of batches. While a batch is written and synced, everything submitted forms the next
//! one. Each batch carries its directory twice, before and after the entries, so that no single damaged place hides
//! what a batch did; every segment begins with a checkpoint of all groups. `docs/format/log.md` draws every byte.
//!
//! Read [`Log`] first, then `format` and `item` (what is on disk), `scan` and `replay` (how it is read back). `remains`
//! is why a file may be used again without being emptied.

#[doc(hidden)]
pub mod fuzzing;

mod batch;
mod cache;
pub mod dump;
mod event;
mod fetch;
mod format;
mod group;
mod item;
mod log;
mod open;
mod options;
mod remains;
mod replay;
mod scan;
mod segments;
mod slots;
mod write;

pub use event::{
    Damage, DamageReport, DamageWhat, GroupStatus, LogEvent, LogStatus, OpenError, ReadId,
    Recovery, TornTail,
};
pub use format::FORMAT_VERSION;
pub use log::Log;
pub use options::LogOptions;
