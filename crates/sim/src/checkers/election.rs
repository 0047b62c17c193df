//! Election safety: at most one leader an epoch, and one vote of each node.
//!
//! C1 of the common invariants and R7 of Raft's (Ongaro 2014, figures 3.1 and 3.2). Kept for the whole run, crashes included.

use super::Violation;
use quorate_consensus::{Event, RoleName};
use quorate_types::{Epoch, GroupId, NodeId};
use std::collections::BTreeMap;

/// Who led which epoch.
#[derive(Debug, Default)]
pub struct Elections {
    /// The leader of each epoch number, by group.
    leaders: BTreeMap<(GroupId, u64), NodeId>,
    /// Whom each node has voted for, by the number of the epoch.
    votes: BTreeMap<(NodeId, u64), NodeId>,
}

impl Elections {
    /// A node says what happened in one of its groups.
    ///
    /// # Errors
    /// When it leads an epoch that another node has led.
    pub fn on_event(
        &mut self,
        node: NodeId,
        group: GroupId,
        event: &Event,
    ) -> Result<(), Violation> {
        let Event::Role { role: RoleName::Leader, epoch } = event else { return Ok(()) };
        self.on_leader(node, group, *epoch)
    }

    fn on_leader(&mut self, node: NodeId, group: GroupId, epoch: Epoch) -> Result<(), Violation> {
        let leader = *self.leaders.entry((group, epoch.number)).or_insert(node);
        let owned = epoch.owner == NodeId(0) || epoch.owner == node;
        if leader == node && owned {
            return Ok(());
        }
        let seen = format!("{node} leads {group} in epoch {epoch}, which {leader} has led");
        Err(Violation { promise: "election", seen })
    }

    /// A node says that it votes for the owner of an epoch.
    ///
    /// # Errors
    /// When it has voted for another one in an epoch of that number, in this life or an earlier one.
    pub fn on_vote(&mut self, node: NodeId, epoch: Epoch) -> Result<(), Violation> {
        let voted = *self.votes.entry((node, epoch.number)).or_insert(epoch.owner);
        if voted == epoch.owner {
            return Ok(());
        }
        let seen =
            format!("{node} votes for {} in epoch {}, after {voted}", epoch.owner, epoch.number);
        Err(Violation { promise: "election", seen })
    }

    /// How often a group got a leader.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.leaders.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_leader_for_all_time() {
        let mut elections = Elections::default();
        let mut lead = |node, number| {
            let event =
                Event::Role { role: RoleName::Leader, epoch: Epoch::new(number, NodeId(node)) };
            elections.on_event(NodeId(node), GroupId(0), &event)
        };
        assert_eq!(lead(1, 1), Ok(()));
        assert_eq!(lead(2, 2), Ok(()));
        assert_eq!(lead(1, 1), Ok(()), "the same leader again");
        assert!(lead(3, 2).is_err());
        assert_eq!(elections.count(), 2);
    }

    #[test]
    fn a_node_votes_once_an_epoch_for_all_time() {
        let mut elections = Elections::default();
        let mut vote = |node, number, of| {
            elections.on_vote(NodeId(node), Epoch::new(number, NodeId(of))).is_ok()
        };
        assert!(vote(1, 4, 2));
        assert!(vote(1, 4, 2), "the same vote again");
        assert!(vote(3, 4, 3), "another node");
        assert!(!vote(1, 4, 3));
        assert!(vote(1, 5, 3));
    }
}
