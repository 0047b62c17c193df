//! How operators change who takes part, through the interfaces that they have: newcomers are started with `--join`, and a
//! target membership is asked for of any node, again and again, until it is what is committed.
//!
//! Each newcomer is a machine of its own with an empty folder, a new name and a new address; no machine comes back after it
//! left. One change is wanted at a time, as by people who look at the list of members before they go on. A change begins
//! only where every member is whole or lost for good, because what heals a log may need everybody's word; all other faults
//! strike as they like meanwhile.

use crate::dice::{Dice, PartsPerMillion};
use crate::faults::OPERATOR_REQUEST;
use crate::finale::Stage;
use crate::history::ClientId;
use crate::network::ProcessId;
use crate::process::{address, name, process_named};
use crate::world::{Event, World};
use quorate_consensus::{Control, plan};
use quorate_node::{Join, NodeInput, Request, RequestId};
use quorate_types::{Configuration, Entry, Incarnation, Index, Instant, Intent, Member, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;

/// How many machines a seed with changes has beside those that form the cluster.
pub(crate) const SPARE_COUNT: usize = 7;

/// The most voters that operators want.
const VOTERS_MAX: usize = 5;

/// The fewest.
const VOTERS_MIN: usize = 2;

/// How many operators would leave no more than two voters.
const SMALL: PartsPerMillion = 200_000;

/// How long after it asked an operator asks again.
const ASK_INTERVAL: Duration = Duration::from_millis(700);

/// After how long an operator may want newcomers of a change gone again that has not come to its end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Where a machine stands to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is switched off and empty.
    Spare,
    /// It takes part, or is to.
    Present,
    /// It has left.
    Left,
}

/// What an operator wants.
#[derive(Clone, Debug)]
struct Wish {
    /// Who is to be a member, and whether with a vote.
    members: BTreeMap<ProcessId, bool>,
    /// Since when.
    since: Instant,
    /// Whether it was given up already.
    is_given_up: bool,
}

/// The changes of a run.
pub(crate) struct Churn {
    /// Its own randomness.
    dice: Dice,
    /// The mean time from the end of a change to the next.
    interval: Option<Duration>,
    /// What is wanted, until it is so.
    wish: Option<Wish>,
}

impl Churn {
    pub(crate) fn new(seed: u64, interval: Option<Duration>) -> Churn {
        Churn { dice: Dice::new(seed, "churn"), interval, wish: None }
    }
}

impl World {
    /// Whether members change in this run.
    pub(crate) fn members_change(&self) -> bool {
        self.churn.interval.is_some()
    }

    /// The latest committed configuration, in runs whose members change.
    pub(crate) fn agreed_members(&self) -> Option<&Configuration> {
        self.configurations.latest().filter(|_| self.members_change())
    }

    /// Whether nobody wants other members, and no change is under way.
    pub(crate) fn are_members_settled(&self) -> bool {
        let is_settled = |it: &Configuration| *it == plan::aim(it) && !it.is_joint();
        self.churn.wish.is_none() && self.agreed_members().is_none_or(is_settled)
    }

    /// Whether a process is a member, with a vote if it must have one.
    pub(crate) fn is_member(&self, id: ProcessId, needs_vote: bool) -> bool {
        let name = name(id);
        self.agreed_members().is_none_or(|configuration| {
            let mut members = configuration.members.values();
            members.any(|member| member.name == name && (member.voter || !needs_vote))
        })
    }

    /// Whether a process leaves with the configuration after the one that is known to be agreed on: its peers may know that one
    /// to be committed before any of them has applied it.
    pub(crate) fn is_leaving(&self, id: ProcessId) -> bool {
        let name = name(id);
        self.agreed_members().is_some_and(|agreed| {
            let mut members = agreed.members.values();
            members.any(|it| it.name == name && it.outgoing_voter && !it.voter)
        })
    }

    /// How many vote.
    pub(crate) fn voter_count(&self) -> usize {
        self.agreed_members().map_or(self.processes.len(), |agreed| agreed.voters().count())
    }

    /// Whether a replica knows the members that are agreed on.
    pub(crate) fn knows_members(&self, id: ProcessId) -> bool {
        let Some(agreed) = self.agreed_members() else { return true };
        self.group_status(id).is_some_and(|status| status.configuration == *agreed)
    }

    /// The id of a process's node, as far as it has one.
    pub(crate) fn node_of(&self, id: ProcessId) -> Option<NodeId> {
        if id.0 < self.mix.process_count {
            return Some(NodeId(id.0 as u64 + 1));
        }
        let process = &self.processes[id.0];
        process.running.as_ref().map_or(process.node, |running| running.status(self.now).node)
    }

    /// How a newcomer is told to join; `None` for those who form the cluster.
    pub(crate) fn join_of(&self, id: ProcessId) -> Option<Join> {
        if id.0 < self.mix.process_count {
            return None;
        }
        let members = self.agreed_members().map(|agreed| agreed.members.values());
        let others = members.into_iter().flatten().filter(|member| member.name != name(id));
        let contacts = others.map(|member| member.peer_address.clone()).collect();
        Some(Join { contacts, address: address(id) })
    }

    /// A client whose machine is off asks another one the next time, where machines come and go.
    pub(crate) fn find_another(&mut self, client: ClientId) {
        if self.members_change() {
            let ids: Vec<ProcessId> = self.ids().collect();
            let process = ids[self.churn.dice.position(ids.len())];
            self.clients.prefer(client, process);
        }
    }

    /// Plans the first look of an operator.
    pub(crate) fn begin_churn(&mut self) {
        if let Some(interval) = self.churn.interval {
            let wait = self.churn.dice.duration(Duration::ZERO, interval * 2);
            self.plan_in(wait, Event::Operate);
        }
    }

    /// An operator looks at the members.
    pub(crate) fn operate(&mut self) {
        let Some(interval) = self.churn.interval else { return };
        let is_time = self.stage == Stage::Working || self.churn.wish.is_some();
        if !is_time {
            return;
        }
        self.check_wish();
        if self.churn.wish.is_none() && self.stage == Stage::Working {
            self.wish();
        }
        let wait = if self.churn.wish.is_some() {
            self.ask();
            self.churn.dice.duration(ASK_INTERVAL / 2, ASK_INTERVAL)
        } else {
            self.churn.dice.duration(Duration::ZERO, interval * 2)
        };
        self.plan_in(wait, Event::Operate);
    }

    /// An entry is committed: who left by it is gone for good.
    pub(crate) fn note_committed(&mut self, index: Index, entry: &Entry) {
        let result = self.fates.on_apply(index, entry);
        self.accuse(result);
        match self.configurations.on_apply(index, entry) {
            Ok(true) => self.on_members(),
            Ok(false) => {}
            Err(violation) => self.accuse(Err(violation)),
        }
    }

    fn on_members(&mut self) {
        let Some(agreed) = self.agreed_members().cloned() else { return };
        self.trace.step(self.now, "members", &[agreed.members.len() as u64], |f| {
            write!(f, "{agreed} is committed")
        });
        let has_left = |world: &World, id: ProcessId| {
            // One whose folder was lost has forgotten which node it was, and does not come back as another.
            let is_gone = match world.node_of(id) {
                Some(node) => world.configurations.is_dropped(node),
                None => world.is_present(id) && world.processes[id.0].is_exiled,
            };
            is_gone && agreed.members.values().all(|member| member.name != name(id))
        };
        let left: Vec<ProcessId> = self.ids().filter(|id| has_left(self, *id)).collect();
        for id in left {
            self.retire(id);
        }
        self.check_wish();
    }

    /// What is wanted may be so by now: whoever was to be a member and is not is switched off.
    fn check_wish(&mut self) {
        let Some(agreed) = self.agreed_members().cloned() else { return };
        let Some(wish) = &self.churn.wish else { return };
        let is_settled = agreed == plan::aim(&agreed) && !agreed.is_joint();
        let is_named = |(id, votes): (&ProcessId, &bool)| {
            let mut members = agreed.members.values();
            members.any(|member| {
                let is_bound = member.incarnation != Incarnation::UNBOUND;
                member.name == name(*id) && member.voter == *votes && is_bound
            })
        };
        let mut wanted = wish.members.iter().filter(|(id, _)| self.is_present(**id));
        let are_all = wanted.clone().count() == agreed.members.len() && wanted.all(is_named);
        if !is_settled || !are_all {
            return;
        }
        self.churn.wish = None;
        self.counts.change_count += 1;
        let ids: Vec<ProcessId> = self.ids().filter(|id| !self.is_member(*id, false)).collect();
        ids.into_iter().for_each(|id| self.retire(id));
    }

    fn is_present(&self, id: ProcessId) -> bool {
        self.processes[id.0].standing == Standing::Present
    }

    /// A machine has left: some are switched off at once, the others hear that they are not wanted any more.
    fn retire(&mut self, id: ProcessId) {
        self.processes[id.0].standing = Standing::Left;
        self.trace.step(self.now, "left", &[id.0 as u64], |f| f.write_str(&name(id)));
        if self.churn.dice.chance(300_000) {
            self.kill(id);
        }
        if self.processes[id.0].is_exiled {
            // Emptied folders of all founders would form another cluster among themselves.
            self.kill(id);
            self.processes[id.0].is_barred = true;
        }
    }

    /// An operator thinks of a change, where one is possible.
    fn wish(&mut self) {
        let ids: Vec<ProcessId> = self.ids().collect();
        let is_whole = |world: &mut World, id: ProcessId| {
            world.processes[id.0].is_exiled || !world.is_impaired(id)
        };
        let are_whole = ids.into_iter().all(|id| is_whole(self, id));
        let Some(agreed) = self.agreed_members().cloned() else { return };
        if !are_whole || agreed != plan::aim(&agreed) || agreed.is_joint() {
            return;
        }
        let of = |member: &Member| Some((process_named(&member.name)?, member.voter));
        let mut members: BTreeMap<ProcessId, bool> =
            agreed.members.values().filter_map(of).collect();
        self.draw_change(&mut members);
        if members == agreed.members.values().filter_map(of).collect() {
            return;
        }
        self.trace.step(self.now, "wish", &[members.len() as u64], |f| {
            members.iter().try_for_each(|(id, votes)| {
                write!(f, "{}{} ", name(*id), if *votes { "" } else { " (learns)" })
            })
        });
        self.churn.wish = Some(Wish { members, since: self.now, is_given_up: false });
    }

    /// Draws what is to change.
    fn draw_change(&mut self, members: &mut BTreeMap<ProcessId, bool>) {
        let lost: Vec<ProcessId> =
            members.keys().copied().filter(|id| self.processes[id.0].is_exiled).collect();
        let learners: Vec<ProcessId> =
            members.iter().filter(|(_, votes)| !**votes).map(|(id, _)| *id).collect();
        let voters: Vec<ProcessId> =
            members.iter().filter(|(_, votes)| **votes).map(|(id, _)| *id).collect();
        if !lost.is_empty() {
            // Whose folder is lost is replaced.
            members.retain(|id, _| !lost.contains(id));
            lost.iter().for_each(|_| self.add(members, true));
            return;
        }
        let voters_min = if self.churn.dice.chance(SMALL) { VOTERS_MIN } else { VOTERS_MIN + 1 };
        match self.churn.dice.position(6) {
            0 if learners.is_empty() => self.add(members, false),
            0 | 1 if !learners.is_empty() && voters.len() < VOTERS_MAX => {
                members.insert(learners[0], true);
            }
            1 | 2 if voters.len() < VOTERS_MAX => self.add(members, true),
            2 | 3 if voters.len() > voters_min => {
                let leaver = self.leaver(&voters);
                members.remove(&leaver);
            }
            _ if voters.len() > 1 => {
                let count = 1 + self.churn.dice.position(voters.len() - 1);
                let mut voters = voters;
                for _ in 0..count.min(self.spare_count()) {
                    let leaver = self.leaver(&voters);
                    voters.retain(|id| *id != leaver);
                    members.remove(&leaver);
                    self.add(members, true);
                }
            }
            _ => {}
        }
    }

    /// Often the leader.
    fn leaver(&mut self, voters: &[ProcessId]) -> ProcessId {
        let leader = self.leader().filter(|leader| voters.contains(leader));
        match leader {
            Some(leader) if self.churn.dice.chance(400_000) => leader,
            Some(_) | None => voters[self.churn.dice.position(voters.len())],
        }
    }

    fn spare_count(&self) -> usize {
        self.processes.iter().filter(|process| process.standing == Standing::Spare).count()
    }

    /// Starts the next spare machine, which is to be a member.
    fn add(&mut self, members: &mut BTreeMap<ProcessId, bool>, votes: bool) {
        let spare = self.processes.iter().position(|it| it.standing == Standing::Spare);
        let Some(id) = spare.map(ProcessId) else { return };
        self.processes[id.0].standing = Standing::Present;
        members.insert(id, votes);
        let wait = self.churn.dice.duration(Duration::ZERO, Duration::from_secs(3));
        let life = self.processes[id.0].life;
        self.plan_in(wait, Event::Open(id, life));
    }

    /// Asks some node for what is wanted, on the ground of the members that this node knows.
    fn ask(&mut self) {
        self.maybe_give_up();
        let Some(wish) = self.churn.wish.clone() else { return };
        let ids: Vec<ProcessId> =
            self.ids().filter(|id| self.group_status(*id).is_some()).collect();
        if ids.is_empty() {
            return;
        }
        let at = ids[self.churn.dice.position(ids.len())];
        let Some(base) = self.group_status(at).map(|status| status.configuration) else { return };
        let mut target = plan::aim(&base);
        let is_wanted = |member: &Member| {
            process_named(&member.name).is_some_and(|id| wish.members.contains_key(&id))
        };
        target.members.retain(|_, member| is_wanted(member));
        for (id, votes) in &wish.members {
            // Who was to leave by a change that was given up stays.
            let staying = base.members.iter().find(|(_, member)| member.name == name(*id));
            if let Some((node, member)) = staying.filter(|_| !base.is_joint()) {
                let stays = Member { intent: Intent::Stay, ..member.clone() };
                target.members.entry(*node).or_insert(stays);
            }
            let known = target.members.values_mut().find(|member| member.name == name(*id));
            match known {
                Some(member) => member.voter |= *votes,
                // Whoever was a member once does not come back.
                None if self.node_of(*id).is_some() || !self.is_present(*id) => {}
                None => {
                    let member = Member {
                        incarnation: Incarnation::UNBOUND,
                        name: name(*id),
                        peer_address: address(*id),
                        voter: *votes,
                        outgoing_voter: false,
                        intent: Intent::Stay,
                    };
                    let highest = target.members.keys().next_back().copied().unwrap_or_default();
                    let next = plan::next_node(&base).max(NodeId(highest.0 + 1));
                    target.members.insert(next, member);
                }
            }
        }
        let number = OPERATOR_REQUEST + self.churn.dice.below(1 << 40);
        self.trace.step(self.now, "target", &[at.0 as u64, number], |f| {
            write!(f, "{} is asked for {target}", name(at))
        });
        let control = Control::TargetMembership { base, target };
        let request = Request::Control { group: self.group(), control };
        self.tell(at, NodeInput::Request { id: RequestId(number), request });
    }

    /// A change that takes long may be given up, once: its newcomers are not wanted any more.
    fn maybe_give_up(&mut self) {
        let (now, works) = (self.now, self.stage == Stage::Working);
        let gives_up = self.churn.dice.chance(100_000);
        let Some(wish) = &self.churn.wish else { return };
        let is_late = now.since(wish.since) > PATIENCE && !wish.is_given_up;
        if !works || !is_late || !gives_up {
            return;
        }
        let Some(agreed) = self.agreed_members() else { return };
        if agreed.is_joint() {
            return;
        }
        let stays = |member: &&Member| member.voter || member.intent == Intent::Stay;
        let of = |member: &Member| Some((process_named(&member.name)?, member.voter));
        let members = agreed.members.values().filter(stays).filter_map(of).collect();
        self.trace.step(self.now, "give-up", &[], |f| f.write_str("the change"));
        self.churn.wish = Some(Wish { members, since: now, is_given_up: true });
    }
}
