//! What goes wrong in a random run, and who comes and goes.

use super::{Happening, NODES_MAX, World};
use crate::replica::{Replica, member};
use quorate_consensus::plan::{aim, next_node, take_in};
use quorate_consensus::{Control, Input, RoleName};
use quorate_types::{Index, Intent, Member, NodeId, Position};

impl World {
    pub(super) fn fault(&mut self) {
        if self.healing {
            return;
        }
        let voters = self.voters.clone();
        let node = self.random.pick(&voters);
        if self.changing && self.random.chance(400) {
            self.change_members(node);
        }
        match self.random.below(10) {
            0..=2 => self.crash(node),
            3 => {
                let other = self.random.pick(&voters);
                self.cut.insert((node, other));
                if self.random.chance(500) {
                    self.cut.insert((other, node));
                }
            }
            4 => {
                for other in &voters {
                    self.cut.insert((node, *other));
                    self.cut.insert((*other, node));
                }
                if self.random.chance(500) {
                    self.links_of(node, false);
                }
            }
            5 | 6 => self.cut.clear(),
            7 if self.runs(node) => {
                self.marks.transfers += 1;
                let to = self.random.pick(&voters);
                self.tell(node, Input::Control(Control::Transfer(to)));
            }
            8 if self.runs(node) => self.tell(node, Input::Control(Control::Campaign)),
            9 => self.links_of(node, true),
            _ => {}
        }
        let wait = self.random.micros(1_000, 1_200_000);
        self.after(wait, Happening::Fault);
    }

    /// Somebody asks `node` for other members, as `node` knows them.
    fn change_members(&mut self, node: NodeId) {
        if !self.runs(node) {
            return;
        }
        let base = self.status(node).configuration;
        let mut target = aim(&base);
        let present: Vec<NodeId> = target.members.keys().copied().collect();
        if present.is_empty() {
            return;
        }
        let kind = self.random.below(5);
        if kind != 0 && present.len() > 1 {
            target.members.remove(&self.random.pick(&present));
        }
        if kind == 2 {
            // A learner may become a voter.
            target.members.values_mut().for_each(|member| member.voter = true);
        }
        if kind != 1 && self.replicas.len() < NODES_MAX && present.len() < 6 {
            // Each newcomer is another, also when somebody else was asked for one meanwhile.
            let highest = *self.voters.last().expect("is never empty");
            let newcomer = next_node(&base).max(NodeId(highest.0 + 1));
            let mut new = member(newcomer);
            new.voter = self.random.chance(800);
            target.members.insert(newcomer, new);
            let known = take_in(&base, &target, |_| true);
            if let Ok(known) = known {
                let replica = Replica::joining(newcomer, known, self.limits);
                self.replicas.insert(newcomer, replica);
                self.voters.push(newcomer);
                if self.fragile.is_none() && self.random.chance(300) {
                    self.fragile = Some(newcomer);
                }
                let wait = self.random.micros(0, 2_000_000);
                self.after(wait, Happening::Start { node: newcomer });
            }
        }
        self.tell(node, Input::Control(Control::TargetMembership { base, target }));
    }

    fn crash(&mut self, node: NodeId) {
        if !self.runs(node) {
            return;
        }
        self.marks.crashes += 1;
        let kept = usize::try_from(self.random.below(4)).expect("small");
        self.replica(node).crash(kept);
        self.reads.retain(|_, reading| reading.node != node);
        let may_damage = self.fragile == Some(node) && self.random.chance(500);
        if may_damage && (!self.changing || self.members_are_settled()) {
            // What heals it may need the word of others, who must not leave meanwhile.
            self.changing = false;
            self.damage(node);
        }
        if self.rotting && self.random.chance(500) {
            self.rot(node);
        }
        if self.random.chance(700) {
            self.links_of(node, false);
        }
        let wait = self.random.micros(1_000, 3_000_000);
        self.after(wait, Happening::Start { node });
    }

    /// Whether no change of members is under way, and they are enough to do without the word of one.
    fn members_are_settled(&self) -> bool {
        let running = self.voters.iter().filter(|node| self.runs(**node));
        let latest = running.map(|node| self.status(*node)).max_by_key(|status| status.epoch);
        latest.filter(|status| status.role == RoleName::Leader).is_some_and(|status| {
            let members = &status.configuration.members;
            let are_settled = members.values().all(|member| member.intent == Intent::Stay);
            !status.configuration.is_joint()
                && are_settled
                && status.configuration.voters().count() >= 3
        })
    }

    /// Rot: slots, or the hard state, of the one fragile node.
    fn damage(&mut self, node: NodeId) {
        self.marks.damaged += 1;
        let replica = self.replicas.get_mut(&node).expect("is a voter");
        let (log, applied) = (&mut replica.disk, replica.machine.index());
        if self.random.chance(200) {
            log.durable.hard = None;
            // What took it may have taken the end of the log without a trace.
            let kept = applied.max(log.durable.start());
            let lost = self.random.below(kept.distance_to(log.durable.last()) + 1);
            let from = Index(log.durable.last().0 - lost).next();
            let held = log.durable.slots.range(from..).map(|(at, slot)| (*at, slot.entry.hash().0));
            self.lost_ends.extend(held);
            log.durable.lose_end(from);
            self.marks.lost_ends += u64::from(lost > 0);
        }
        let indexes: Vec<Index> =
            log.durable.slots.keys().copied().filter(|index| index.0 > 1).collect();
        for index in indexes {
            // Where a term begins, neighbours do not tell what stood there.
            let begins = log.durable.begins_epoch(index);
            if self.random.chance(if begins { 500 } else { 100 }) {
                log.durable.damage(index, self.random.chance(500));
            }
        }
        log.live = log.durable.clone();
    }

    /// Rot of what only this node loses: each index is intact on all others that hold it. Where a term begins, it may not be
    /// known any more what stood there, if a quorum has what follows.
    fn rot(&mut self, node: NodeId) {
        let count = self.voters.len() as u64;
        let committed = self.agreed.keys().next_back().copied().unwrap_or_default();
        let per_mille = self.random.pick(&[50, 500, 1000]);
        let forgets = self.random.chance(500);
        let replica = self.replicas.get_mut(&node).expect("is a voter");
        if forgets && replica.disk.durable.purged == Position::ZERO {
            replica.lose_state();
        }
        let (log, applied) = (&mut replica.disk.durable, replica.machine.index());
        let own = |index: &Index| index.0 > 1 && index.0 % count == node.0 % count;
        let indexes: Vec<Index> = log.slots.keys().copied().filter(own).collect();
        for index in indexes {
            // What was applied last would be in doubt: a snapshot could have taken its place.
            let is_unknown =
                forgets && log.begins_epoch(index) && index < committed && index != applied;
            if is_unknown || self.random.chance(per_mille) {
                self.marks.rotten += 1;
                log.damage(index, !is_unknown);
            }
        }
        replica.disk.live = replica.disk.durable.clone();
    }

    /// A change under way has come to its end; from here on only members count.
    pub(super) fn check_members(&mut self) {
        let leading = |node: &&NodeId| self.status(**node).role == RoleName::Leader;
        let leader = self.voters.iter().find(leading);
        let Some(leader) = leader.copied() else { return };
        let configuration = self.status(leader).configuration;
        let is_settled = |member: &Member| member.intent == Intent::Stay;
        assert!(
            !configuration.is_joint() && configuration.members.values().all(is_settled),
            "{configuration} is no end of a change: {}",
            self.describe()
        );
        self.voters.retain(|node| configuration.members.contains_key(node));
    }
}
