//! Election safety: at most one leader an epoch.
//!
//! C1 of the common invariants (Ongaro 2014, figure 3.2). Kept for the whole run, crashes included.

use super::Violation;
use quorate_consensus::{Event, RoleName};
use quorate_types::{Epoch, GroupId, NodeId};
use std::collections::BTreeMap;

/// Who led which epoch.
#[derive(Debug, Default)]
pub struct Elections {
    /// The leader of each epoch number, by group.
    leaders: BTreeMap<(GroupId, u64), NodeId>,
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
}
