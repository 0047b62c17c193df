//! Matches: a leader believes of its peers only what they told it.
//!
//! Part of C5 of the common invariants ("matchIndex rises while one leads", Ongaro 2014, figure 3.1; the row "match regress"
//! of SandTable, Tang et al. 2024). What a leader holds for certain of a peer was acknowledged by that very peer in that very
//! epoch, and never falls unless the peer said that it lost slots. Read off the leader's status and off the wire.

use super::Violation;
use quorate_consensus::raft::{AppendOutcome, Message as Raft};
use quorate_consensus::{Message, RoleName, Status};
use quorate_types::{Epoch, Index, NodeId};
use std::collections::BTreeMap;

/// What nodes told their leaders, and what those made of it.
#[derive(Clone, Debug, Default)]
pub struct Matches {
    /// The highest index that each node has acknowledged, and in which leader's epoch: the latest one.
    acknowledged: BTreeMap<NodeId, (Epoch, Index)>,
    /// The latest epoch in which each node said that it lost slots.
    lost: BTreeMap<NodeId, Epoch>,
    /// What each leader was last seen to believe of each peer, and in which epoch.
    believed: BTreeMap<(NodeId, NodeId), (Epoch, Index)>,
}

impl Matches {
    /// A node says something.
    pub fn on_send(&mut self, node: NodeId, message: &Message) {
        let Message::Raft(message) = message;
        let Raft::AppendReply { epoch, outcome, digest: _ } = message else { return };
        match outcome {
            AppendOutcome::Matched(index) => {
                let latest = self.acknowledged.entry(node).or_default();
                *latest = (*latest).max((*epoch, *index));
            }
            AppendOutcome::Rejected { lost: true, .. } => {
                self.lost.insert(node, *epoch);
            }
            AppendOutcome::Rejected { lost: false, .. } => {}
        }
    }

    /// A node shows its status.
    ///
    /// # Errors
    /// When it leads and believes what nobody told it, or no longer what somebody did.
    pub fn on_status(&mut self, status: &Status) -> Result<(), Violation> {
        if status.role != RoleName::Leader {
            return Ok(());
        }
        let (leader, epoch) = (status.node, status.epoch);
        for (peer, state) in &status.peers {
            let told = self.acknowledged.get(peer).copied().unwrap_or_default();
            // Whoever has gone on to a later leader has told this one something before, or not.
            let is_known = told.0 <= epoch;
            let is_true = told.0 == epoch && state.matched <= told.1;
            if is_known && !is_true && state.matched > Index::ZERO {
                let (of, index) = told;
                return Err(violation(format!(
                    "{leader} believes in {epoch} that {peer} holds {}, which told it {index} in {of}",
                    state.matched
                )));
            }
            let before = self.believed.insert((leader, *peer), (epoch, state.matched));
            let Some((of, index)) = before else { continue };
            let may_fall = self.lost.get(peer).is_some_and(|lost| *lost >= epoch);
            if of == epoch && state.matched < index && !may_fall {
                return Err(violation(format!(
                    "{leader} believed in {epoch} that {peer} holds {index}, now {}",
                    state.matched
                )));
            }
        }
        Ok(())
    }
}

fn violation(seen: String) -> Violation {
    Violation { promise: "matches", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_consensus::{Metrics, PeerStatus};
    use quorate_types::{Configuration, GroupId, Position};

    fn status(number: u64, matched: u64) -> Status {
        let epoch = Epoch::new(number, NodeId(1));
        let peer = PeerStatus {
            matched: Index(matched),
            next: Index(matched + 1),
            in_flight_size: 0,
            snapshot: false,
            last_contact: None,
            link_up: true,
        };
        Status {
            group: GroupId(0),
            node: NodeId(1),
            role: RoleName::Leader,
            epoch,
            leader: Some(NodeId(1)),
            last: Position::new(Index(9), epoch),
            durable: Index(9),
            committed: Index::ZERO,
            applied: Index::ZERO,
            synced: Index::ZERO,
            configuration: Configuration::default(),
            peers: [(NodeId(2), peer)].into_iter().collect(),
            why_not: None,
            metrics: Metrics::default(),
        }
    }

    fn reply(number: u64, outcome: AppendOutcome) -> Message {
        let epoch = Epoch::new(number, NodeId(1));
        Message::Raft(Raft::AppendReply { epoch, outcome, digest: None })
    }

    #[test]
    fn a_leader_believes_what_it_was_told_in_its_epoch() {
        let mut matches = Matches::default();
        assert!(matches.on_status(&status(3, 0)).is_ok());
        assert!(matches.clone().on_status(&status(3, 5)).is_err(), "nobody said so");
        matches.on_send(NodeId(2), &reply(3, AppendOutcome::Matched(Index(5))));
        assert!(matches.on_status(&status(3, 5)).is_ok());
        assert!(matches.clone().on_status(&status(3, 6)).is_err(), "more than was said");
        assert!(matches.clone().on_status(&status(3, 4)).is_err(), "less than before");
        assert!(matches.clone().on_status(&status(4, 5)).is_err(), "said to an earlier leader");
        let (previous, hint) = (Index(5), Position::new(Index(2), Epoch::ZERO));
        let lost = AppendOutcome::Rejected { previous, hint, lost: true };
        matches.on_send(NodeId(2), &reply(3, lost));
        assert!(matches.on_status(&status(3, 2)).is_ok(), "it said that it lost them");
        matches.on_send(NodeId(2), &reply(7, AppendOutcome::Matched(Index(9))));
        assert!(matches.on_status(&status(3, 5)).is_ok(), "it may have said so before it went on");
    }
}
