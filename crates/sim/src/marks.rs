//! Marks on rare branches: what must happen somewhere in a long run, because nothing that never happens is tested.

use quorate_consensus::raft::{AppendOutcome, Message as Raft, Verdict};
use quorate_consensus::{ElectionCause, Event, Mending, Message, Metrics, StepDownReason};

/// Every mark that a long run must hit.
pub const ALL: [&str; 29] = [
    "campaign after a timeout",
    "campaign after a closed link",
    "leadership handed over",
    "campaign of an operator",
    "leader deposed by a higher epoch",
    "leader without a quorum",
    "leader with a stalled disk",
    "leader with a damaged slot",
    "joint configuration",
    "snapshot needed",
    "snapshot installed",
    "damaged slot refilled",
    "damaged slot given up by proof",
    "not ready",
    "append rejected",
    "append rejected after a loss",
    "vote refused",
    "stale sender told",
    "repair asked for",
    "repair answered with an entry",
    "repair answered with a verdict",
    "unknown slots asked for",
    "unknown slots told",
    "terms asked for after a loss",
    SNAPSHOT_GOES_ON,
    "log truncated",
    "acknowledgement of another leadership",
    TOLD_APPLIED,
    TOLD_NEVER,
];

/// A client found out that a call of unknown outcome had been applied.
pub const TOLD_APPLIED: &str = "unknown outcome: applied";

/// A client found out that it never will be.
pub const TOLD_NEVER: &str = "unknown outcome: never";

/// A transfer went on, from the first piece that was not acknowledged.
pub const SNAPSHOT_GOES_ON: &str = "snapshot piece sent again";

/// From so many seeds on, a run that misses a mark has failed.
pub const SEED_COUNT_MIN: usize = 1_000;

/// The mark that an event hits.
#[must_use]
pub fn of_event(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Campaign { cause: ElectionCause::Timeout, .. } => "campaign after a timeout",
        Event::Campaign { cause: ElectionCause::LinkClosed, .. } => "campaign after a closed link",
        Event::Campaign { cause: ElectionCause::Asked, .. } => "campaign of an operator",
        Event::SteppedDown { reason, .. } => match reason {
            StepDownReason::HigherEpoch => "leader deposed by a higher epoch",
            StepDownReason::NoQuorum => "leader without a quorum",
            StepDownReason::Stalled => "leader with a stalled disk",
            StepDownReason::Damaged => "leader with a damaged slot",
            StepDownReason::Removed => return None,
        },
        Event::Configuration { configuration, .. } if configuration.is_joint() => {
            "joint configuration"
        }
        Event::SnapshotNeeded { .. } => "snapshot needed",
        Event::SnapshotInstalled { .. } => "snapshot installed",
        Event::Mended { how: Mending::From(_), .. } => "damaged slot refilled",
        Event::Mended { how: Mending::FromMemory, .. } => "damaged slot written again",
        Event::Mended { how: Mending::GivenUp, .. } => "damaged slot given up by proof",
        Event::NotReady { .. } => "not ready",
        Event::Role { .. }
        | Event::EpochChanged { .. }
        | Event::Leader { .. }
        | Event::Configuration { .. }
        | Event::Campaign { cause: ElectionCause::Transfer, .. }
        | Event::Dropped { .. }
        | Event::Diverged { .. }
        | Event::MembershipAnswer { .. } => return None,
    })
}

/// The marks that a replica's own counters hit, and how often at least.
pub fn of_metrics(metrics: &Metrics) -> impl Iterator<Item = (&'static str, u64)> {
    let counted = [
        ("log truncated", metrics.truncated_count),
        ("acknowledgement of another leadership", metrics.stale_count),
    ];
    counted.into_iter().filter(|(_, count)| *count > 0)
}

/// The mark that a message hits when it is sent.
#[must_use]
pub fn of_message(message: &Message) -> Option<&'static str> {
    let Message::Raft(message) = message;
    Some(match message {
        Raft::AppendReply { outcome: AppendOutcome::Rejected { lost: true, .. }, .. } => {
            "append rejected after a loss"
        }
        Raft::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. } => "append rejected",
        Raft::VoteReply { granted: false, .. } => "vote refused",
        Raft::Stale { .. } => "stale sender told",
        Raft::TimeoutNow { .. } => "leadership handed over",
        Raft::Survey { .. } => "terms asked for after a loss",
        Raft::Repair { .. } => "repair asked for",
        Raft::Identify { .. } => "unknown slots asked for",
        Raft::Identified { .. } => "unknown slots told",
        Raft::RepairReply { entries, .. } if !entries.is_empty() => "repair answered with an entry",
        Raft::RepairReply { verdicts, .. } if verdicts.iter().any(|(_, v)| is_telling(*v)) => {
            "repair answered with a verdict"
        }
        Raft::PreVote { .. }
        | Raft::PreVoteReply { .. }
        | Raft::Vote { .. }
        | Raft::VoteReply { .. }
        | Raft::Append { .. }
        | Raft::AppendReply { .. }
        | Raft::Heartbeat { .. }
        | Raft::HeartbeatReply { .. }
        | Raft::Commit { .. }
        | Raft::Propose { .. }
        | Raft::Refuse { .. }
        | Raft::Read { .. }
        | Raft::ReadReply { .. }
        | Raft::SurveyReply { .. }
        | Raft::RepairReply { .. }
        | Raft::Change { .. }
        | Raft::ChangeReply { .. } => return None,
    })
}

fn is_telling(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Absent | Verdict::Damaged | Verdict::Applied => true,
        Verdict::Unsure => false,
    }
}
