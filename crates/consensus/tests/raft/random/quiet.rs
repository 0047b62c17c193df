//! A world in which nothing goes wrong but what is asked for, and what can be seen of it.

use super::{Happening, World};
use crate::replica::Replica;
use quorate_consensus::{Control, Input, Limits, RoleName};
use quorate_types::{Epoch, HardState, Index, Instant, NodeId, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What is asked for, and measured.
#[derive(Default)]
pub(super) struct Asked {
    /// A node whose syncs take a second each, and whose links lose every second message.
    pub(super) gray: Option<NodeId>,
    /// Whether clients ask for far more than the group takes.
    pub(super) pressed: bool,
    /// Nodes that stand still, and until when: what reaches them waits.
    pub(super) stopped: BTreeMap<NodeId, Instant>,
    /// When each proposal was made.
    pub(super) proposed: BTreeMap<Origin, Instant>,
    /// From where, and how long, acknowledged proposals took.
    latencies: Vec<(NodeId, Duration)>,
}

impl Asked {
    pub(super) fn acknowledge(&mut self, origin: Origin, now: Instant) {
        if let Some(proposed) = self.proposed.remove(&origin) {
            self.latencies.push((origin.node, now.since(proposed)));
        }
    }
}

impl World {
    /// A world without faults but those that are asked for.
    pub(crate) fn quiet(seed: u64, count: u64) -> World {
        let (retained_count, purge_count_min) = (50, 10);
        let limits =
            Limits { digest_interval: 4, retained_count, purge_count_min, ..Limits::default() };
        World::quiet_within(seed, count, limits)
    }

    /// The same with little room for what is under way, and clients that ask for much more than fits.
    pub(crate) fn pressed(seed: u64, count: u64) -> World {
        let limits = Limits {
            digest_interval: 4,
            retained_count: 50,
            purge_count_min: 10,
            window_size_max: 2_000,
            append_size_max: 1_000,
            uncommitted_size_max: 1_000,
            ..Limits::default()
        };
        let mut world = World::quiet_within(seed, count, limits);
        world.asked.pressed = true;
        world
    }

    /// One whose logs reach back to their beginnings.
    pub(crate) fn unpurged(seed: u64, count: u64) -> World {
        let limits = Limits { digest_interval: 4, retained_count: u64::MAX, ..Limits::default() };
        World::quiet_within(seed, count, limits)
    }

    /// One of five whose logs have parted: a leader of term 2 told nobody of its last entries, one of term 3 only the fragile one,
    /// which does not know any more what stood in one of its slots. Messages carry one entry, nobody proposes by himself.
    pub(crate) fn parted(seed: u64) -> World {
        let limits = Limits { digest_interval: 4, append_size_max: 1, ..Limits::default() };
        let mut world = World::quiet_within(seed, 5, limits);
        (world.paused, world.sync_chance) = (true, 300);
        world.queue.clear();
        let [first, second, fragile] = [1, 2, 5].map(NodeId);
        world.fragile = Some(fragile);
        let common = 1 + world.random.below(2);
        let (old, new) = (1 + world.random.below(2), 2 + world.random.below(2));
        for node in world.voters.clone() {
            let mut epochs = vec![Epoch::new(2, first); usize::try_from(common).expect("small")];
            let is_new = node == second || node == fragile;
            let (count, epoch) = match node {
                _ if node == first => (old, Epoch::new(2, first)),
                _ if is_new => (new, Epoch::new(3, second)),
                _ => (0, Epoch::ZERO),
            };
            epochs.extend((0..count).map(|_| epoch));
            let promised = Epoch::new(if node == first { 2 } else { 3 }, NodeId(0));
            let log_epoch = *epochs.last().expect("is not empty");
            world
                .replica(node)
                .begin_with(&epochs, HardState { promised, voted_for: None, log_epoch });
        }
        let last = world.replicas[&fragile].disk.durable.last();
        let lost = Index(2 + world.random.below(last.0 - 2));
        let disk = &mut world.replica(fragile).disk;
        disk.durable.damage(lost, false);
        disk.live = disk.durable.clone();
        world
    }

    /// Somebody campaigns, and perhaps leads for a moment; then it may die, and the fragile one with it. Who was down may be back.
    pub(crate) fn reign(&mut self) {
        for node in self.voters.clone() {
            if !self.runs(node) && self.random.chance(600) {
                self.after(Duration::ZERO, Happening::Start { node });
            }
        }
        let wait = self.random.micros(500_000, 900_000);
        self.now += wait;
        self.run_until(self.now + Duration::from_micros(1));
        // Mostly one of the two that have parted.
        let leader = NodeId(self.random.pick(&[1, 1, 2, 2, 3]));
        if self.runs(leader) {
            self.tell(leader, Input::Control(Control::Campaign));
        }
        for _ in 0..150 {
            self.run_until(self.now + Duration::from_micros(100));
            if !self.runs(leader) || self.role(leader) == RoleName::Leader {
                break;
            }
        }
        let time = self.random.micros(500, 8_000);
        self.run_until(self.now + time);
        for node in [leader, self.fragile.expect("there is one")] {
            if self.runs(node) && self.random.chance(700) {
                self.replica(node).crash(0);
                if self.random.chance(500) {
                    self.links_of(node, false);
                }
            }
        }
    }

    fn quiet_within(seed: u64, count: u64, limits: Limits) -> World {
        let mut world = World::new(seed);
        world.voters = (1..=count).map(NodeId).collect();
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

    /// What happens to a node that stands still happens when it goes on.
    pub(super) fn unless_stopped(&mut self, happening: Happening) -> Option<Happening> {
        let node = match &happening {
            Happening::Deliver { to, .. } | Happening::Snapshot { to, .. } => *to,
            Happening::WriteDone { node, .. }
            | Happening::ApplyDone { node, .. }
            | Happening::Fetched { node, .. }
            | Happening::Installed { node, .. }
            | Happening::Start { node } => *node,
            Happening::Client | Happening::Fault => return Some(happening),
        };
        let Some(until) = self.asked.stopped.get(&node) else { return Some(happening) };
        let wait = until.since(self.now);
        self.after(wait, happening);
        None
    }

    /// Stops a node's process for a while: SIGSTOP, then SIGCONT. The first that it hears of after it is a read.
    pub(crate) fn stop_for(&mut self, node: NodeId, time: Duration) {
        self.asked.stopped.insert(node, self.now + time);
        self.run_for(time - Duration::from_nanos(1));
        self.asked.stopped.remove(&node);
        self.read(node);
    }

    /// Cuts power of a node, for good; its peers see their links closed, or nothing at all.
    pub(crate) fn kill(&mut self, node: NodeId, links_close: bool) {
        self.replica(node).crash(0);
        if links_close {
            self.links_of(node, false);
        }
    }

    /// The leader gives leadership to somebody else.
    pub(crate) fn hand_over(&mut self) {
        let Some(leader) = self.leader() else { return };
        let others: Vec<NodeId> = self.nodes().into_iter().filter(|node| *node != leader).collect();
        let to = self.random.pick(&others);
        self.tell(leader, Input::Control(Control::Transfer(to)));
    }

    /// While all nodes are down, loses their state machines, and each slot that all logs hold on one of them; how many of these
    /// beyond knowledge.
    pub(crate) fn damage_each_slot_somewhere(&mut self) -> u64 {
        let last = self.replicas.values().map(|replica| replica.disk.durable.last()).min();
        let mut unknown = 0;
        for index in (2..last.unwrap_or_default().0).map(Index) {
            let (node, is_known) = (self.random.pick(&self.voters), self.random.chance(500));
            self.replica(node).disk.durable.damage(index, is_known);
            unknown += u64::from(!is_known);
        }
        for replica in self.replicas.values_mut() {
            replica.lose_state();
            replica.disk.live = replica.disk.durable.clone();
        }
        unknown
    }

    /// How often somebody told what stood in slots that were damaged beyond knowledge.
    pub(crate) fn identified_count(&self) -> u64 {
        self.marks.identified
    }

    /// Starts a node that was killed.
    pub(crate) fn restart(&mut self, node: NodeId) {
        self.after(Duration::ZERO, Happening::Start { node });
    }

    /// How many proposals were made, and how many of them acknowledged.
    pub(crate) fn load(&self) -> (usize, usize) {
        (self.proposed.len(), self.acknowledged.len())
    }

    /// How many snapshots were installed.
    pub(crate) fn snapshot_count(&self) -> u64 {
        self.marks.snapshots
    }

    /// How many entries a node has still to apply of what anybody knows to be committed.
    pub(crate) fn backlog(&self, node: NodeId) -> u64 {
        if !self.runs(node) {
            return u64::MAX;
        }
        self.status(node).applied.distance_to(self.committed())
    }

    /// Makes a node slow and its links lossy.
    pub(crate) fn make_gray(&mut self, node: NodeId) {
        self.asked.gray = Some(node);
    }

    /// The latencies of proposals acknowledged since the last time, in order, but for those made at `but`.
    pub(crate) fn take_latencies(&mut self, but: Option<NodeId>) -> Vec<Duration> {
        let taken = std::mem::take(&mut self.asked.latencies).into_iter();
        let mut latencies: Vec<Duration> =
            taken.filter(|(node, _)| Some(*node) != but).map(|(_, latency)| latency).collect();
        latencies.sort();
        latencies
    }

    /// Lets time pass, in steps, until somebody leads and more is committed than `before`, at most `limit`; how long it
    /// took.
    pub(crate) fn until_committed(&mut self, before: Index, limit: Duration) -> Option<Duration> {
        let begin = self.now;
        while self.now.since(begin) < limit {
            self.run_for(Duration::from_millis(1));
            if self.committed() > before {
                return Some(self.now.since(begin));
            }
        }
        None
    }

    /// A number below `bound`, drawn from the world's own source.
    pub(crate) fn draw(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.below(bound as u64)).expect("small")
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
        let leads = |node: &NodeId| self.runs(*node) && self.role(*node) == RoleName::Leader;
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
        let running = self.voters.iter().filter(|node| self.runs(**node));
        running.map(|node| self.status(*node).epoch.number).max().unwrap_or(0)
    }

    /// The highest index that anybody knows to be committed.
    pub(crate) fn committed(&self) -> Index {
        let running = self.voters.iter().filter(|node| self.runs(**node));
        running.map(|node| self.status(*node).committed).max().unwrap_or_default()
    }
}
