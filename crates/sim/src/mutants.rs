//! What is broken on purpose, to see that the checkers notice.
//!
//! Most mutants are a [`Mistake`] of production code, made in one line there in builds with the feature `mutants`; the
//! others are lies of the simulated surroundings (disk, network, state machine, operator) that have the effect of a
//! mistake, and need no such build. Each names the rule that it breaks. F1 to F10 are mistakes that other consensus
//! libraries are known to have made, S1 to S8 those that the model checker SandTable found in real systems.

use crate::history::{Found, Outcome, Value};
use quorate_consensus::Message;
use quorate_consensus::raft::{AppendOutcome, Message as Raft};
use quorate_types::{Index, Mistake};
use std::fmt;

macro_rules! lies {
    ($($(#[doc = $doc:literal])+ $lie:ident = $name:literal, $rule:literal;)*) => {
        /// One thing broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mutant {
            $($(#[doc = $doc])+ $lie,)*
            /// Production code makes this mistake.
            Makes(Mistake),
        }

        /// Every mutant that is a lie of the surroundings.
        const LIES: &[Mutant] = &[$(Mutant::$lie),*];

        impl Mutant {
            /// Its name on the command line.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Mutant::$lie => $name,)*
                    Mutant::Makes(mistake) => mistake.name(),
                }
            }

            /// The rule that it breaks.
            #[must_use]
            pub fn rule(self) -> &'static str {
                match self {
                    $(Mutant::$lie => $rule,)*
                    Mutant::Makes(mistake) => mistake.rule(),
                }
            }
        }
    };
}

lies! {
    /// One client in a while is told of a value that it did not read. A run that bears it proves nothing.
    Canary = "canary", "the canary: a checker that bears this checks nothing";
    /// Writes of the log are reported durable as soon as they are written: whatever is released by durability, such as
    /// acknowledgements to a leader and its own count, is released before the sync.
    AckBeforeSync = "ack-before-sync", "F1: nothing is acknowledged before it is synced";
    /// Reads are answered from the local replica without a barrier.
    StaleRead = "stale-read", "F3, S4: a read waits for a barrier";
    /// A leader answers the barrier of another replica with an index from long before.
    ReadIndexEarly = "read-index-early", "F3: a barrier's index is what was committed when it began";
    /// Who still hears a leader says yes to every pre-vote, so that who does not depose leaders for ever.
    PreVoteAlways = "pre-vote-always", "F5: who has a live leader grants no pre-vote";
    /// A folder that was rolled back keeps its newest identity, so that its amnesia goes unnoticed.
    Amnesia = "amnesia", "F7: a rolled-back folder is refused";
    /// What one replica applies is now and then not what was agreed on.
    ApplyDiffers = "apply-differs", "F8: apply is a function of the entry and the replicated state";
    /// A vote is reported durable before it is synced.
    VoteBeforeSync = "vote-before-sync", "F9: a vote is durable before it is given";
    /// A vote that was refused counts as granted.
    VoteAlways = "vote-always", "F9: only a granted vote counts";
    /// Followers take everything that they are sent for committed.
    CommitUnacknowledged = "commit-unacknowledged", "S7: only what a quorum holds is committed";
    /// A leader takes a rejected append for a match.
    RejectionAsMatch = "rejection-as-match", "S6: a rejected append matches nothing";
    /// A failed sync is tried again, and the good end of the second one is believed.
    SyncRetried = "sync-retried", "log: a sync after a failed one proves nothing";
    /// The engine's sync is reported done with every apply, and never happens.
    PurgePastSynced = "purge-past-synced", "contract: a purge never passes what the engine has synced";
    /// A door proposes a write again under another origin when the answer takes long.
    ProposedTwice = "proposed-twice", "contract: a proposal keeps its origin when it is sent again";
}

impl Mutant {
    /// Every mutant.
    #[must_use]
    pub fn all() -> Vec<Mutant> {
        let mistakes = Mistake::ALL.iter().map(|mistake| Mutant::Makes(*mistake));
        LIES.iter().copied().chain(mistakes).collect()
    }

    /// The mutant of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mutant> {
        Mutant::all().into_iter().find(|mutant| mutant.name() == name)
    }

    /// Whether this build can do it.
    #[must_use]
    pub fn is_possible(self) -> bool {
        Mistake::CAN_BE_MADE || !matches!(self, Mutant::Makes(_))
    }

    /// Whether it dies within seconds of processor time.
    #[must_use]
    pub fn is_quick(self) -> bool {
        let slow = [
            Mutant::Amnesia,
            Mutant::Makes(Mistake::ResetBeforeInstall),
            Mutant::Makes(Mistake::GivenUpUnproved),
            Mutant::Makes(Mistake::RecycledEarly),
            Mutant::Makes(Mistake::OldTermCommit),
            Mutant::Makes(Mistake::OldLeaderObeyed),
            Mutant::Makes(Mistake::SettledApplied),
            Mutant::Makes(Mistake::InstallUnrecorded),
            Mutant::Makes(Mistake::DurableByIndex),
            Mutant::Makes(Mistake::MembersForgotten),
        ];
        !slow.contains(&self)
    }

    /// What a message becomes on its way to a replica; `None` when it stays what it is.
    #[must_use]
    pub(crate) fn distort(self, message: &Message) -> Option<Message> {
        let Message::Raft(message) = message;
        let distorted = match (self, message) {
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
                | Mutant::StaleRead
                | Mutant::ReadIndexEarly
                | Mutant::PreVoteAlways
                | Mutant::Amnesia
                | Mutant::ApplyDiffers
                | Mutant::VoteBeforeSync
                | Mutant::VoteAlways
                | Mutant::CommitUnacknowledged
                | Mutant::RejectionAsMatch
                | Mutant::SyncRetried
                | Mutant::PurgePastSynced
                | Mutant::ProposedTwice
                | Mutant::Makes(_),
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
