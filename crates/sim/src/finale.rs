//! The stages of a run: form a cluster, work under faults, then heal everything and demand what must be possible again.

use crate::checkers::{linearizable, witness};
use crate::history::{Call, ClientId, Key, Operation, Outcome};
use crate::network::{ProcessId, Weather};
use crate::world::{Event, World};
use quorate_consensus::Status;
use quorate_node::Phase;
use quorate_types::{Applied, GroupId, StateMachine};
use std::time::Duration;

/// How often a run looks whether its stage is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a cluster may take to form without faults.
const FORMATION_MAX: Duration = Duration::from_secs(10);

/// How long it may take under faults.
const EARLY_FORMATION_MAX: Duration = Duration::from_secs(120);

/// How long after everything is healed a leader, then answers, then equal replicas may take: ten of the longest election
/// timeouts each, where one or two are expected.
const PROGRESS_MAX: Duration = Duration::from_secs(10);

/// For how long a core must keep its leader: ten of the longest election timeouts.
const HOLD: Duration = Duration::from_secs(10);

/// The first register of the probes, above those of the workload.
const PROBE_KEY: u32 = 1_000_000;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// The cluster is being formed.
    Forming,
    /// Clients work, faults strike.
    Working,
    /// A core is healed, the others keep what ails them: a leader in the core is demanded.
    Core,
    /// Every node of the core must take a write and a read.
    CoreProbing,
    /// The core is left alone: nothing may change its leader.
    CoreHolding,
    /// Everything is healed: a leader is demanded.
    Healed,
    /// Every node must take a write and a read.
    Probing,
    /// Nobody calls any more: all replicas must become equal.
    Settling,
    /// The run is over.
    Over,
}

impl World {
    /// Plans the first events.
    pub(crate) fn begin(&mut self) {
        for id in self.ids() {
            let wait = self.dice.faults.duration(Duration::from_millis(1), Duration::from_secs(1));
            let life = self.processes[id.0].life;
            self.plan_in(wait, Event::Open(id, life));
        }
        if self.mix.early {
            self.unleash();
        }
        self.enter(Stage::Forming);
        self.plan_in(LOOK_INTERVAL, Event::Look);
    }

    fn enter(&mut self, stage: Stage) {
        self.trace.step(self.now, "stage", &[], |f| write!(f, "{stage:?}"));
        self.stage = stage;
        self.stage_began = self.now;
    }

    /// Looks whether the stage is over.
    pub(crate) fn look(&mut self) {
        match self.stage {
            Stage::Forming => {
                let bound = if self.mix.early { EARLY_FORMATION_MAX } else { FORMATION_MAX };
                if self.all_run(&self.citizens()) {
                    self.begin_work();
                } else {
                    self.demand(bound, "every node to take part");
                }
            }
            Stage::Working => {
                if self.now.since(self.stage_began) >= self.options.work {
                    self.end_work();
                }
            }
            Stage::Core => {
                let led = self.led_core();
                if self.all_run(&self.core) && !led.is_empty() {
                    self.enter(Stage::CoreProbing);
                    self.probe_core(led);
                } else {
                    self.demand(PROGRESS_MAX, "a leader that the core knows");
                }
            }
            Stage::CoreProbing => {
                // What the time of faults has left behind may still cost the leader its place, once: those who follow the
                // next one are asked then.
                let led = self.led_core();
                let is_led = !led.is_empty();
                if is_led && led != self.core_led {
                    self.probes.fill(None);
                    self.probe_core(led);
                }
                self.probe_again();
                if is_led && self.probes.iter().all(Option::is_none) {
                    self.counts.core_count += 1;
                    self.core_epoch = self.highest_core_epoch();
                    self.enter(Stage::CoreHolding);
                } else {
                    self.demand(PROGRESS_MAX, "every node of the core to take a write and a read");
                }
            }
            Stage::CoreHolding => {
                let epoch = self.highest_core_epoch();
                if epoch != self.core_epoch {
                    let before = self.core_epoch;
                    let seen =
                        format!("a core that nothing befalls left epoch {before} for {epoch}");
                    self.fail("liveness", seen);
                } else if self.now.since(self.stage_began) >= HOLD {
                    self.heal();
                }
            }
            Stage::Healed => {
                let citizens = self.citizens();
                let are_ready = self.all_run(&citizens) && self.agree_on_leader(&citizens);
                if are_ready && self.are_members_settled() {
                    self.enter(Stage::Probing);
                    self.probe_all(citizens);
                } else {
                    // Who has only just come takes the whole log first.
                    let count = if self.are_members_settled() { 1 } else { 2 };
                    self.demand(PROGRESS_MAX * count, "a leader that all nodes know");
                }
            }
            Stage::Probing => {
                self.probe_again();
                if self.probes.iter().all(Option::is_none) {
                    self.enter(Stage::Settling);
                } else {
                    self.demand(PROGRESS_MAX, "every node to take a write and a read");
                }
            }
            Stage::Settling => {
                if self.all_equal() {
                    self.judge();
                    self.enter(Stage::Over);
                } else {
                    self.demand(PROGRESS_MAX, "equal replicas");
                }
            }
            Stage::Over => {}
        }
        self.plan_in(LOOK_INTERVAL, Event::Look);
    }

    /// Fails the run when the stage has lasted longer than it may.
    fn demand(&mut self, bound: Duration, what: &str) {
        if self.now.since(self.stage_began) <= bound {
            return;
        }
        let mut seen = format!("waited {bound:?} for {what}:");
        if !self.core.is_empty() && self.stage < Stage::Healed {
            seen.push_str(" core");
            self.core.iter().for_each(|id| seen.push_str(&format!(" n{}", id.0 + 1)));
        }
        for id in self.ids() {
            let state = match self.phase(id) {
                None => "down".to_owned(),
                Some(Phase::Running) => match self.group_status(id) {
                    Some(group) => {
                        let why_not = group.why_not.clone().unwrap_or_default();
                        format!("{group} {why_not}")
                    }
                    None => "running without the group".to_owned(),
                },
                Some(phase) => format!("{phase:?}"),
            };
            seen.push_str(&format!(" [n{}: {state}]", id.0 + 1));
        }
        if !self.are_members_settled() {
            let agreed = self.agreed_members().map(ToString::to_string).unwrap_or_default();
            seen.push_str(&format!(" the members change: {agreed}"));
        }
        self.fail("liveness", seen);
    }

    fn begin_work(&mut self) {
        self.enter(Stage::Working);
        self.network.set_weather(self.mix.weather);
        if !self.mix.early {
            self.unleash();
        }
        self.begin_churn();
        for client in 0..self.mix.workload.client_count {
            self.plan_in(Duration::from_millis(client as u64), Event::Call(ClientId(client)));
        }
    }

    /// The time of faults is over: a core is healed, or everything.
    fn end_work(&mut self) {
        match self.draw_core() {
            Some(core) => {
                self.enter(Stage::Core);
                self.freeze_around(core);
            }
            None => self.heal(),
        }
    }

    /// Ends all faults, and starts every process that is down.
    fn heal(&mut self) {
        self.enter(Stage::Healed);
        self.network.set_weather(Weather::fair());
        self.network.mend_all();
        for id in self.ids() {
            self.heal_process(id);
        }
    }

    fn phase(&self, id: ProcessId) -> Option<Phase> {
        let running = self.processes[id.0].running.as_ref()?;
        Some(running)
            .filter(|running| !running.leaving)
            .map(|running| running.status(self.now).phase)
    }

    /// What the replica of a process says of itself, if it has one.
    pub(crate) fn group_status(&self, id: ProcessId) -> Option<Status> {
        let running = self.processes[id.0].running.as_ref()?;
        running.status(self.now).groups.remove(&GroupId(0))
    }

    fn all_run(&self, ids: &[ProcessId]) -> bool {
        ids.iter().all(|id| self.phase(*id) == Some(Phase::Running))
    }

    /// Whether all of these know the same one of them as the leader.
    fn agree_on_leader(&self, ids: &[ProcessId]) -> bool {
        let leader = |id: &ProcessId| self.group_status(*id).and_then(|status| status.leader);
        let first = ids.first().and_then(leader);
        let is_one = |id: &ProcessId| first.is_some() && self.node_of(*id) == first;
        ids.iter().any(is_one) && ids.iter().all(|id| leader(id) == first)
    }

    /// The members of the core that follow a leader in it: all that can hear it, when a quorum can.
    fn led_core(&self) -> Vec<ProcessId> {
        let leader = |id: ProcessId| self.group_status(id).and_then(|status| status.leader);
        let follows = |leading: ProcessId| {
            let ids = self.core.iter().copied();
            let near = ids.filter(|id| {
                !self.network.is_cut(leading, *id) && !self.network.is_cut(*id, leading)
            });
            let near: Vec<ProcessId> = near.collect();
            let node = self.node_of(leading).filter(|_| !near.is_empty());
            let agreed = node.is_some() && near.iter().all(|id| leader(*id) == node);
            let is_quorum = near.len() > self.voter_count() / 2;
            (agreed && is_quorum).then_some(near)
        };
        self.core.iter().find_map(|id| follows(*id)).unwrap_or_default()
    }

    fn highest_core_epoch(&self) -> u64 {
        let statuses = self.core.iter().filter_map(|id| self.group_status(*id));
        statuses.map(|status| status.epoch.number).max().unwrap_or(0)
    }

    fn probe_core(&mut self, led: Vec<ProcessId>) {
        self.core_led.clone_from(&led);
        self.probe_all(led);
    }

    fn probe_all(&mut self, ids: Vec<ProcessId>) {
        for ProcessId(id) in ids {
            let key = Key(PROBE_KEY + u32::try_from(id).expect("few processes"));
            self.probes[id] = Some(Call::Put { key, value: self.clients.fresh_value() });
        }
        self.probe_again();
    }

    /// Makes every probe that has not succeeded and is not under way.
    fn probe_again(&mut self) {
        for id in 0..self.processes.len() {
            let client = ClientId(self.mix.workload.client_count + id);
            if let (Some(call), None) = (self.probes[id], self.clients.pending(client)) {
                self.send_call(client, call, ProcessId(id));
            }
        }
    }

    /// A write that succeeded is followed by a read; what failed is tried again.
    pub(crate) fn on_probe_ended(&mut self, operation: &Operation) {
        let id = operation.client.0 - self.mix.workload.client_count;
        if self.probes[id].is_none() {
            return;
        }
        self.probes[id] = match (&operation.outcome, operation.call) {
            (Outcome::Written(_), _) => Some(Call::SCAN_ALL),
            (Outcome::Refused | Outcome::Unknown, Call::Put { key, .. }) => {
                Some(Call::Put { key, value: self.clients.fresh_value() })
            }
            (Outcome::Refused | Outcome::Unknown, call) => Some(call),
            (
                Outcome::NotWritten(..)
                | Outcome::Deleted(..)
                | Outcome::Compacted(_)
                | Outcome::Got(..)
                | Outcome::Scanned(..),
                _,
            ) => None,
        };
    }

    fn applied(&self, id: usize) -> Option<Applied> {
        Some(self.processes[id].running.as_ref()?.machine.store.applied())
    }

    /// Whether no client waits and all replicas have applied the same.
    fn all_equal(&self) -> bool {
        let idle = (0..self.mix.workload.client_count)
            .all(|client| self.clients.pending(ClientId(client)).is_none());
        let citizens = self.citizens();
        let first = citizens.first().and_then(|id| self.applied(id.0));
        let equal = first.is_some() && citizens.iter().all(|id| self.applied(id.0) == first);
        let highest = self.agreement.highest();
        idle && equal && first.is_some_and(|applied| applied.position.index >= highest)
    }

    /// Judges the whole: what clients saw, and what each replica remembers.
    fn judge(&mut self) {
        let citizens = self.citizens();
        for id in &citizens {
            self.look_at_status(*id);
            if let Err(reason) = self.recall(id.0) {
                self.fail("durability", format!("n{}: {reason}", id.0 + 1));
            }
        }
        if let Some(first) = citizens.first()
            && let Err(reason) = self.explain(first.0)
        {
            self.fail("durability", reason);
        }
        let result = witness::check(self.clients.history());
        self.accuse(result);
        let result = linearizable::check(self.clients.history());
        self.accuse(result);
    }
}
