//! What is broken on purpose, to see that the checkers notice. Each mutant is a lie of the simulated surroundings (disk,
//! network, state machine, operator) that has the effect of a mistake in production code; no production code knows of them.
//! F1 to F10 are the mistakes that other consensus libraries are known to have made.

use crate::history::{Found, Outcome, Value};
use quorate_consensus::Message;
use quorate_consensus::raft::{AppendOutcome, Message as Raft};
use quorate_types::{Epoch, Index};
use std::fmt;

macro_rules! mutants {
    ($($(#[doc = $doc:literal])+ $mutant:ident = $name:literal;)*) => {
        /// One thing broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $mutant,)*
        }

        impl Mutant {
            /// Every mutant.
            pub const ALL: &[Mutant] = &[$(Mutant::$mutant),*];

            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$mutant => $name,)*
                }
            }
        }
    };
}

mutants! {
    /// The canary: one client in a while is told of a value that it did not read. A run that bears it proves nothing.
    Canary = "canary";
    /// F1: writes of the log are reported durable as soon as they are written: whatever is released by durability, such as
    /// acknowledgements to a leader and its own count, is released before the sync.
    AckBeforeSync = "ack-before-sync";
    /// F2: an acknowledgement that was meant for an earlier leadership counts for the present one.
    StaleAck = "stale-ack";
    /// F3: reads are answered from the local replica without a barrier.
    StaleRead = "stale-read";
    /// F3: a leader answers the barrier of another replica with an index from long before.
    ReadIndexEarly = "read-index-early";
    /// F5: who still hears a leader says yes to every pre-vote, so that who does not depose leaders for ever.
    PreVoteAlways = "pre-vote-always";
    /// F7: a folder that was rolled back keeps its newest identity, so that its amnesia goes unnoticed.
    Amnesia = "amnesia";
    /// F8: what one replica applies is now and then not what was agreed on.
    ApplyDiffers = "apply-differs";
    /// F9: a vote is reported durable before it is synced.
    VoteBeforeSync = "vote-before-sync";
    /// F9: a vote that was refused counts as granted.
    VoteAlways = "vote-always";
    /// F10: nodes keep a hundred times the window that they were given.
    WindowIgnored = "window-ignored";
    /// Followers take everything that they are sent for committed.
    CommitUnacknowledged = "commit-unacknowledged";
    /// Followers obey leaders of earlier terms.
    OldLeaderObeyed = "old-leader-obeyed";
    /// A leader takes a rejected append for a match.
    RejectionAsMatch = "rejection-as-match";
    /// A failed sync is tried again, and the good end of the second one is believed.
    SyncRetried = "sync-retried";
    /// The engine's sync is reported done with every apply, and never happens: the log is purged past the synced index.
    PurgePastSynced = "purge-past-synced";
    /// A door proposes a write again under another origin when the answer takes long.
    ProposedTwice = "proposed-twice";
}

impl Mutant {
    /// The mutant of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }

    /// What a message becomes on its way to a replica that is in this epoch; `None` when it stays what it is.
    #[must_use]
    pub(crate) fn distort(self, message: &Message, own: Epoch) -> Option<Message> {
        let Message::Raft(message) = message;
        let distorted = match (self, message) {
            (
                Mutant::StaleAck,
                Raft::AppendReply { epoch, outcome: outcome @ AppendOutcome::Matched(_), digest },
            ) if epoch.number < own.number => {
                Raft::AppendReply { epoch: own, outcome: *outcome, digest: *digest }
            }
            (Mutant::ReadIndexEarly, Raft::ReadReply { epoch, context, index: Some(index) }) => {
                let index = Some(Index(index.0.saturating_sub(20).max(1)));
                Raft::ReadReply { epoch: *epoch, context: *context, index }
            }
            (Mutant::PreVoteAlways, Raft::PreVoteReply { epoch, context, granted: false }) => {
                Raft::PreVoteReply { epoch: *epoch, context: *context, granted: true }
            }
            (Mutant::VoteAlways, Raft::VoteReply { epoch, granted: false }) => {
                Raft::VoteReply { epoch: *epoch, granted: true }
            }
            (Mutant::CommitUnacknowledged, Raft::Append { epoch, previous, entries, .. }) => {
                let committed = Index(previous.index.0 + entries.len() as u64);
                let (epoch, previous, entries) = (*epoch, *previous, entries.clone());
                Raft::Append { epoch, previous, committed, entries }
            }
            (Mutant::OldLeaderObeyed, Raft::Append { epoch, previous, committed, entries })
                if epoch.number < own.number =>
            {
                let epoch = Epoch::new(own.number, epoch.owner);
                let (previous, committed, entries) = (*previous, *committed, entries.clone());
                Raft::Append { epoch, previous, committed, entries }
            }
            (
                Mutant::RejectionAsMatch,
                Raft::AppendReply {
                    epoch,
                    outcome: AppendOutcome::Rejected { previous, .. },
                    digest,
                },
            ) => {
                let outcome = AppendOutcome::Matched(*previous);
                Raft::AppendReply { epoch: *epoch, outcome, digest: *digest }
            }
            (
                Mutant::Canary
                | Mutant::AckBeforeSync
                | Mutant::StaleAck
                | Mutant::StaleRead
                | Mutant::ReadIndexEarly
                | Mutant::PreVoteAlways
                | Mutant::Amnesia
                | Mutant::ApplyDiffers
                | Mutant::VoteBeforeSync
                | Mutant::VoteAlways
                | Mutant::WindowIgnored
                | Mutant::CommitUnacknowledged
                | Mutant::OldLeaderObeyed
                | Mutant::RejectionAsMatch
                | Mutant::SyncRetried
                | Mutant::PurgePastSynced
                | Mutant::ProposedTwice,
                _,
            ) => return None,
        };
        Some(Message::Raft(distorted))
    }
}

/// What the canary sings instead of what a client read.
pub(crate) fn sing(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Got(revision, Some(Found { value, written_at })) if value.0.is_multiple_of(7) => {
            Outcome::Got(revision, Some(Found { value: Value(value.0 + 1), written_at }))
        }
        Outcome::Written(_)
        | Outcome::NotWritten(..)
        | Outcome::Deleted(..)
        | Outcome::Compacted(_)
        | Outcome::Got(..)
        | Outcome::Scanned(..)
        | Outcome::Refused
        | Outcome::Unknown => outcome,
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
