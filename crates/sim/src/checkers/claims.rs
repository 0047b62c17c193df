//! Claims: nothing is sent before what it claims is durable.
//!
//! C7 of the common invariants. What a node says to its peers is read off the wire; whether it is true is read off the
//! durable half of its disk, through a log opened on it, at the moment of sending (a sample of the sends, because
//! opening a log is work) and after every crash.

use super::Violation;
use quorate_consensus::Message;
use quorate_consensus::raft::{AppendOutcome, Message as Raft};
use quorate_types::{Epoch, Index, LogSummary, NodeId};
use std::cmp::Ordering;
use std::fmt;

/// What a message says of its sender's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Its vote of this term went to the owner of the epoch.
    Voted(Epoch),
    /// It holds everything up to here as the leader of this epoch has it.
    Holds(Epoch, Index),
}

impl Claim {
    /// What a message claims; `None` when it promises nothing.
    #[must_use]
    pub fn of(message: &Message) -> Option<Claim> {
        let Message::Raft(message) = message;
        match message {
            Raft::Vote { epoch, .. } | Raft::VoteReply { epoch, granted: true } => {
                Some(Claim::Voted(*epoch))
            }
            Raft::AppendReply { epoch, outcome: AppendOutcome::Matched(index), .. } => {
                Some(Claim::Holds(*epoch, *index))
            }
            Raft::VoteReply { granted: false, .. }
            | Raft::AppendReply { outcome: AppendOutcome::Rejected { .. }, .. }
            | Raft::PreVote { .. }
            | Raft::PreVoteReply { .. }
            | Raft::Append { .. }
            | Raft::Commit { .. }
            | Raft::Heartbeat { .. }
            | Raft::HeartbeatReply { .. }
            | Raft::Stale { .. }
            | Raft::TimeoutNow { .. }
            | Raft::Propose { .. }
            | Raft::Refuse { .. }
            | Raft::Read { .. }
            | Raft::ReadReply { .. }
            | Raft::Survey { .. }
            | Raft::SurveyReply { .. }
            | Raft::Repair { .. }
            | Raft::RepairReply { .. }
            | Raft::Identify { .. }
            | Raft::Identified { .. }
            | Raft::Change { .. }
            | Raft::ChangeReply { .. } => None,
        }
    }

    /// Whether a log bears the claim out. A log of a later epoch neither does nor does not: what was claimed may have
    /// been replaced by then.
    fn holds(self, log: &LogSummary) -> bool {
        let Some(hard_state) = log.hard_state else { return false };
        match self {
            Claim::Voted(epoch) => match hard_state.promised.number.cmp(&epoch.number) {
                Ordering::Less => false,
                Ordering::Equal => hard_state.voted_for == Some(epoch.owner),
                Ordering::Greater => true,
            },
            Claim::Holds(epoch, index) => {
                match seen_in(log).max(hard_state.promised.number).cmp(&epoch.number) {
                    Ordering::Less => false,
                    Ordering::Equal => log.bounds.last >= index,
                    Ordering::Greater => true,
                }
            }
        }
    }
}

/// The highest epoch that the log itself gives away: an entry of it, or a snapshot that took its place, promises as much
/// as the hard state does, for a replica that opens on it knows that epoch.
fn seen_in(log: &LogSummary) -> u64 {
    let latest = log.epochs.last().map_or(0, |run| run.accepted.number.max(run.created.number));
    latest.max(log.bounds.purged.epoch.number)
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Claim::Voted(epoch) => write!(f, "voted {epoch}"),
            Claim::Holds(epoch, index) => write!(f, "holds {index} of {epoch}"),
        }
    }
}

/// What one data folder's node has claimed.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The latest vote claimed.
    vote: Option<Epoch>,
    /// The latest holding claimed: of the highest epoch, the highest index.
    holding: Option<(Epoch, Index)>,
}

impl Claims {
    /// The node says this.
    pub fn on_send(&mut self, claim: Claim) {
        match claim {
            Claim::Voted(epoch) => self.vote = self.vote.max(Some(epoch)),
            Claim::Holds(epoch, index) => self.holding = self.holding.max(Some((epoch, index))),
        }
    }

    /// A claim was sent while the durable half of the sender's disk held this log.
    ///
    /// # Errors
    /// When the log does not bear it out.
    pub fn check_sent(node: NodeId, claim: Claim, log: &LogSummary) -> Result<(), Violation> {
        if claim.holds(log) {
            return Ok(());
        }
        Err(violation(node, claim, log, "is sent"))
    }

    /// After a crash the log is this.
    ///
    /// # Errors
    /// When it does not bear out what was claimed before.
    pub fn check_opened(&self, node: NodeId, log: &LogSummary) -> Result<(), Violation> {
        let vote = self.vote.map(Claim::Voted);
        let holding = self.holding.map(|(epoch, index)| Claim::Holds(epoch, index));
        match vote.into_iter().chain(holding).find(|claim| !claim.holds(log)) {
            None => Ok(()),
            Some(claim) => Err(violation(node, claim, log, "was sent before the crash")),
        }
    }
}

fn violation(node: NodeId, claim: Claim, log: &LogSummary, when: &str) -> Violation {
    let hard_state = log.hard_state.map_or("no hard state".to_owned(), |state| state.to_string());
    let last = log.bounds.last;
    let seen = format!("{node} \"{claim}\" {when}, but durable is: {hard_state} last={last}");
    Violation { promise: "claims", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bounds, HardState, Position};

    fn log(number: u64, voted_for: Option<u64>, last: u64) -> LogSummary {
        let promised = Epoch::new(number, NodeId(0));
        let voted_for = voted_for.map(NodeId);
        LogSummary {
            hard_state: Some(HardState { promised, voted_for, log_epoch: Epoch::ZERO }),
            bounds: Bounds { purged: Position::ZERO, last: Index(last) },
            ..LogSummary::default()
        }
    }

    #[test]
    fn a_claim_is_judged_by_the_durable_log() {
        let check = |claim, log: LogSummary, legal: bool| {
            assert_eq!(
                Claims::check_sent(NodeId(1), claim, &log).is_ok(),
                legal,
                "{claim} {log:?}"
            );
        };
        let vote = Claim::Voted(Epoch::new(3, NodeId(2)));
        check(vote, log(3, Some(2), 0), true);
        check(vote, log(4, None, 0), true);
        check(vote, log(3, Some(1), 0), false);
        check(vote, log(3, None, 0), false);
        check(vote, log(2, Some(2), 0), false);
        let holding = Claim::Holds(Epoch::new(3, NodeId(2)), Index(7));
        check(holding, log(3, None, 7), true);
        check(holding, log(3, None, 6), false);
        check(holding, log(2, None, 9), false);
        check(holding, log(4, None, 0), true);
        check(holding, LogSummary::default(), false);
        let purged = Position::new(Index(7), Epoch::new(3, NodeId(2)));
        let bounds = Bounds { purged, last: Index(7) };
        check(holding, LogSummary { bounds, ..log(2, None, 7) }, true);
        check(vote, LogSummary { bounds, ..log(2, None, 7) }, false);
    }

    #[test]
    fn claims_outlive_a_crash() {
        let mut claims = Claims::default();
        assert!(claims.check_opened(NodeId(1), &LogSummary::default()).is_ok());
        claims.on_send(Claim::Voted(Epoch::new(3, NodeId(2))));
        claims.on_send(Claim::Holds(Epoch::new(3, NodeId(2)), Index(7)));
        claims.on_send(Claim::Holds(Epoch::new(3, NodeId(2)), Index(5)));
        assert!(claims.check_opened(NodeId(1), &log(3, Some(2), 7)).is_ok());
        assert!(claims.check_opened(NodeId(1), &log(3, Some(2), 6)).is_err());
        assert!(claims.check_opened(NodeId(1), &log(3, Some(1), 7)).is_err());
        assert!(claims.check_opened(NodeId(1), &log(2, Some(2), 7)).is_err());
    }
}
