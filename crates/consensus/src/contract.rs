//! The contract that the four protocols share.

use crate::{Effect, Input, Status};
use quorate_types::{Applied, Index, Instant, LogSummary};

/// What a replica is opened with, beside its options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What the log says of itself; everything in it is durable.
    pub log: LogSummary,
    /// How far the state machine has come; this much is synced in its engine. Everything at or below it was
    /// committed.
    pub applied: Applied,
}

/// One replica of one group: a deterministic function from inputs to effects.
///
/// # How it is driven
/// 1. Call [`Protocol::handle`] with every input that waits.
/// 2. Call [`Protocol::poll`] until it gives `None`; do what each effect says, in any order, but send a
///    message that names a write only once the log has completed that very write.
/// 3. Wait for the next input, or until [`Protocol::next_deadline`], and begin again; a deadline that has passed is
///    told with [`Input::Tick`].
///
/// Effects are formed in `poll`: one wake-up gives at most one `Persist`, one append message a peer and one `Apply`,
/// however many inputs were handled before.
pub trait Protocol: Send {
    /// Takes an input in. Never blocks, never fails: bytes from peers were decoded before, and a message that
    /// contradicts local state is dropped with an [`crate::Event::Dropped`].
    fn handle(&mut self, now: Instant, input: Input);

    /// The next thing to do; `None` when all is said for now.
    fn poll(&mut self) -> Option<Effect>;

    /// When [`Input::Tick`] is due if nothing else happens; `None` when nothing is waited for.
    fn next_deadline(&self) -> Option<Instant>;

    /// What this replica knows and does, as plain data.
    fn status(&self, now: Instant) -> Status;

    /// The highest index known to be committed.
    fn committed(&self) -> Index;
}
