//! Mistakes that production code can be told to make, to see that tests notice.
//!
//! A [`Mistake`] is made in one line of production code, where the rule is kept that it breaks. Without the feature
//! `mutants`, which only the simulator's and the model's mutant builds turn on, [`Mistake::is_made`] is the constant
//! `false` and nothing of it is left in a binary; the `quorate` binary refuses to compile with it.

use std::fmt;

macro_rules! mistakes {
    ($($(#[doc = $doc:literal])+ $mistake:ident = $name:literal, $rule:literal;)*) => {
        /// One rule of production code that can be broken on purpose.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Mistake {
            $($(#[doc = $doc])+ $mistake,)*
        }

        impl Mistake {
            /// Every mistake.
            pub const ALL: &[Mistake] = &[$(Mistake::$mistake),*];

            /// Its name on the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Mistake::$mistake => $name,)*
                }
            }

            /// The rule that it breaks.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Mistake::$mistake => $rule,)*
                }
            }
        }
    };
}

// F1 to F10 are mistakes that other consensus libraries are known to have made; S1 to S8 are those that the model
// checker SandTable found in real systems (Tang et al. 2024).
mistakes! {
    /// A leader counts its own entries before they are durable.
    OwnUndurableCounted = "own-undurable-counted", "F1: the own log counts only what is durable";
    /// What waits for a write leaves at once.
    AfterIgnored = "after-ignored", "contract: a promise waits for the write that makes it true";
    /// The completion of any write releases everything that waits, also for later writes.
    ReleasedByAnyWrite = "released-by-any-write", "contract: that very write's completion releases, no other";
    /// An acknowledgement leaves with the first write that reaches to its index, also where a later one changes it.
    DurableByIndex = "durable-by-index", "F2: an index says nothing of durability, only the write does";
    /// An acknowledgement that was meant for an earlier leadership counts for the present one.
    StaleAckCounted = "stale-ack", "F2: an answer counts only in the epoch that it answers";
    /// A round of reads ends without anybody's answer.
    ReadWithoutRound = "read-without-round", "F3, S4: a quorum confirms leadership after a read came in";
    /// A new leader serves reads before an entry of its own term is committed.
    ReadBeforeNoop = "read-before-noop", "F3: a leader's commit index counts once its own term has committed";
    /// A leader whose disk stands still leads on.
    StallIgnored = "stall-ignored", "F4: a leader with a stalled disk hands over";
    /// A configuration is changed before the leader has committed anything in its term.
    EarlyChange = "early-change", "F6: no change before an entry of the own term is committed";
    /// Voters are replaced without a joint configuration.
    JointSkipped = "joint-skipped", "F6: quorums of consecutive configurations meet";
    /// A replica does not ask its state machine for a change of members that its log has lost.
    MembersForgotten = "members-forgotten", "node: who has applied a change of members knows of it for good";
    /// A replica that lost its hard state takes part as if it had never had one.
    LossForgotten = "loss-forgotten", "F7: a lost hard state means no vote";
    /// Changes and the applied index go to the engine one after the other.
    AppliedApart = "applied-apart", "F8: state and applied index change in one engine batch";
    /// A proposal that was applied before is applied again.
    OriginsForgotten = "origins-forgotten", "store: each origin is applied at most once";
    /// A proposal that was settled before it came is applied all the same.
    SettledApplied = "settled-applied", "store: what never will be applied never is";
    /// A vote raises the term on disk, but is itself not written down.
    VoteUnrecorded = "vote-unrecorded", "F9: term and vote are one durable record";
    /// A candidate gets a vote however short its log is.
    VoteUnchecked = "vote-unchecked", "F9: only who holds all that may be committed is voted for";
    /// The window of bytes on their way to a peer has no bound.
    WindowIgnored = "window-ignored", "F10: windows of bytes are kept to";
    /// A replica votes twice in one term.
    VoteTwice = "vote-twice", "S1: two leaders in one term";
    /// An append replaces what it agrees with, and so erases what follows.
    LogErased = "log-erased", "S2: what an append agrees with stays, and so does what follows";
    /// What a peer is known to hold falls with an old acknowledgement.
    MatchRegress = "match-regress", "S3: what a peer holds never falls while one leads";
    /// Entries of earlier terms are committed by counting.
    OldTermCommit = "old-term-commit", "S5: only entries of the own term are committed by counting";
    /// A follower appends without comparing what stands before.
    PreviousUnchecked = "previous-unchecked", "S6: an append fits on what stands before it";
    /// A follower takes the leader's commit index for its whole log.
    CommitUnverified = "commit-unverified", "S7: committed is only what agrees with the leader";
    /// A follower goes back to the term of an old leader.
    TermRegress = "term-regress", "S8: the term never falls";
    /// Followers obey leaders of earlier terms, whomever they follow.
    OldLeaderObeyed = "old-leader-obeyed", "thesis 3.3: messages of an older term are refused";
    /// What is committed is applied before it is durable here.
    AppliedUndurable = "applied-undurable", "contract: only what is committed and locally durable is applied";
    /// The log is reset to a snapshot before the engine has taken it in.
    ResetBeforeInstall = "reset-before-install", "store: the new generation is synced, then the log is reset";
    /// The engine changes without the durable record that explains it.
    InstallUnrecorded = "install-unrecorded", "node: an install is recorded before the engine changes";
    /// A damaged slot is given up at the first word that somebody lacks it.
    GivenUpUnproved = "given-up-unproved", "repair: what may have been committed is never given up";
    /// Batches that are missing below the synced position are taken for a torn end: what follows them is cut away.
    HoleIsTorn = "hole-is-torn", "log: what was synced and cannot be read is damage, not a torn tail";
    /// A batch of which a part did not reach the disk is taken for whole.
    TornIsWhole = "torn-is-whole", "contract: a Persist survives whole or not at all";
    /// An older hard state is restored at open.
    OlderHardState = "older-hard-state", "log: the last durable hard state counts";
    /// A batch names itself as synced before it is.
    SyncedTooFar = "synced-too-far", "log: a batch names as synced only what was synced when it was written";
    /// What no later record proves synced is believed at open.
    TailNotRewritten = "tail-not-rewritten", "log: an unproven tail is written again before it counts";
    /// The oldest segment is recycled although something in it is live.
    LiveRecycled = "live-recycled", "log: a segment is recycled only when nothing live is in it";
    /// A segment is recycled before what replaces it is synced.
    RecycledEarly = "recycled-early", "log: a segment is recycled only after a synced later checkpoint";
    /// After a failed write or sync the log goes on.
    FailureForgotten = "failure-forgotten", "log: after a failed write or sync everything is refused";
}

impl Mistake {
    /// The mistake of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Mistake> {
        Mistake::ALL.iter().copied().find(|mistake| mistake.name() == name)
    }

    /// Whether this build can make mistakes at all.
    pub const CAN_BE_MADE: bool = cfg!(feature = "mutants");

    /// Whether this mistake is to be made here and now.
    #[cfg(not(feature = "mutants"))]
    #[must_use]
    #[inline(always)]
    pub const fn is_made(self) -> bool {
        false
    }

    /// Whether this mistake is to be made here and now.
    #[cfg(feature = "mutants")]
    #[must_use]
    pub fn is_made(self) -> bool {
        present::PRESENT.get() == Some(self)
    }

    /// From now on this thread makes this mistake, or none.
    #[cfg(feature = "mutants")]
    pub fn make(mistake: Option<Mistake>) {
        present::PRESENT.set(mistake);
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(feature = "mutants")]
mod present {
    use super::Mistake;
    use std::cell::Cell;

    thread_local! {
        /// The mistake that this thread makes. The environment tells unit tests, which know nothing of mistakes.
        pub(super) static PRESENT: Cell<Option<Mistake>> = Cell::new(from_environment());
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "only mutant builds have it: it asks whether unit tests notice a mistake"
    )]
    fn from_environment() -> Option<Mistake> {
        std::env::var("QUORATE_MISTAKE").ok().and_then(|name| Mistake::from_name(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_known_by_its_name() {
        for mistake in Mistake::ALL {
            assert_eq!(Mistake::from_name(mistake.name()), Some(*mistake));
            assert!(!mistake.rule().is_empty());
        }
        assert_eq!(Mistake::from_name("none"), None);
    }

    #[cfg(not(feature = "mutants"))]
    #[test]
    fn no_mistake_is_made_in_a_build_without_them() {
        assert!(Mistake::ALL.iter().all(|mistake| !mistake.is_made()));
    }
}
