//! Raft, after Diego Ongaro's thesis "Consensus: Bridging Theory and Practice" (Stanford, 2014).
//!
//! One leader at a time orders the entries; it leads for a *term*, the number of an [`quorate_types::Epoch`].
//! [`Raft`] is one replica. Its parts, in reading order:
//!
//! - [`Message`]: what replicas say to each other.
//! - `replica`: the state, its numbered invariants, and how inputs become effects; `check` asserts the numbers.
//! - `election`: timeouts and votes (3.4), the restriction on who may win (3.6.1), pre-votes (9.6), and how a live
//!   leader is protected from those who merely lost sight of it (4.2.3).
//! - `leader`: replication (3.5) in windows of bytes, sent optimistically and in parallel with the own disk
//!   (10.2.1, 10.2.2); commitment by counting entries of the own term only (3.6.2); stepping down without a
//!   quorum (6.2); hand-over (3.10).
//! - `append`: the consistency check and conflict hints on the other side (3.5, 5.3 of the shorter paper).
//! - `propose`: taking proposals in and sending them on (6.2). `read`: linearizable reads without an entry (6.4).
//! - `snapshot`: purging and installing (5). `membership`: the configuration in force is the last one in the log
//!   (4.1); `change`: how it changes (4.2, 4.3). `digest`: comparing states.
//! - `damage`, `repair`, `survey`: damaged logs and lost hard states, which the thesis does not treat.
//!
//! # Where it goes beyond the thesis
//! - Nothing waits for the disk. An acknowledgement names the write that makes it true; the own log counts only up to
//!   what was completed; which write was completed matters, not which index (`crate::writes`).
//! - A vote request waits for the candidate's own vote, so that a voter's lost hard state can be made up for
//!   (`repair`).
//! - A closed link to the leader begins a pre-vote within milliseconds; it raises no term by itself, so a link that
//!   flaps deposes nobody.
//! - A leader whose disk completes nothing for one and a half election timeouts hands over.
//!
//! # What is left out
//! A voter cannot become a learner. Leases (6.4.1): reads never rest on a clock. Client sessions (6.3) are the state
//! machine's matter, by the origins of entries. Witnesses, priorities and flexible quorums.

mod append;
mod change;
mod check;
mod damage;
mod digest;
mod election;
mod identify;
mod leader;
mod membership;
mod message;
mod propose;
mod read;
mod repair;
mod replica;
mod snapshot;
mod status;
mod survey;

pub use message::{AppendOutcome, Message, Verdict};
pub use replica::Raft;
