//! A world in which nothing goes wrong but what is asked for, and what can be seen of it.

use super::{Happening, World};
use crate::replica::Replica;
use quorate_consensus::{Limits, RoleName};
use quorate_types::{Index, NodeId};
use std::collections::BTreeSet;
use std::time::Duration;

impl World {
    /// A world without faults but those that are asked for.
    pub(crate) fn quiet(seed: u64, count: u64) -> World {
        let mut world = World::new(seed);
        world.voters = (1..=count).map(NodeId).collect();
        let (retained_count, purge_count_min) = (50, 10);
        let limits =
            Limits { digest_interval: 4, retained_count, purge_count_min, ..Limits::default() };
        let replica = |node: &NodeId| (*node, Replica::new(*node, &world.voters, limits));
        world.replicas = world.voters.iter().map(replica).collect();
        (world.fragile, world.rotting, world.changing) = (None, false, false);
        (world.loss, world.limits) = (0, limits);
        world.queue.clear();
        for node in world.voters.clone() {
            world.after(Duration::ZERO, Happening::Start { node });
        }
        world.after(Duration::from_millis(1), Happening::Client);
        world
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.voters.clone()
    }

    pub(crate) fn cut(&mut self, ways: BTreeSet<(NodeId, NodeId)>) {
        self.cut = ways;
    }

    pub(crate) fn pause_clients(&mut self) {
        self.paused = true;
    }

    pub(crate) fn resume_clients(&mut self) {
        self.paused = false;
    }

    pub(crate) fn role(&self, node: NodeId) -> RoleName {
        self.status(node).role
    }

    /// Who leads, if just one does.
    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &NodeId| self.role(*node) == RoleName::Leader;
        let leaders: Vec<NodeId> = self.voters.iter().copied().filter(leads).collect();
        (leaders.len() == 1).then(|| leaders[0])
    }

    /// Who leads and reaches a quorum both ways, where `cuts` carry nothing.
    pub(crate) fn leader_with_quorum(&self, cuts: &BTreeSet<(NodeId, NodeId)>) -> Option<NodeId> {
        let reaches = |one: NodeId, other: NodeId| {
            !cuts.contains(&(one, other)) && !cuts.contains(&(other, one))
        };
        let has_quorum = |node: NodeId| {
            2 * self.voters.iter().filter(|other| reaches(node, **other)).count()
                > self.voters.len()
        };
        let leads = |node: &NodeId| self.role(*node) == RoleName::Leader && has_quorum(*node);
        self.voters.iter().copied().find(leads)
    }

    /// The highest term of all.
    pub(crate) fn term(&self) -> u64 {
        self.voters.iter().map(|node| self.status(*node).epoch.number).max().unwrap_or(0)
    }

    /// The highest index that anybody knows to be committed.
    pub(crate) fn committed(&self) -> Index {
        let indexes = self.voters.iter().map(|node| self.status(*node).committed);
        indexes.max().unwrap_or_default()
    }
}
