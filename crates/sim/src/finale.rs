//! The stages of a run: form a cluster, work under faults, then heal everything and demand what must be possible again.

use crate::checkers::{linearizable, witness};
use crate::engine;
use crate::history::{Call, ClientId, Key, Operation, Outcome, Recall};
use crate::network::{ProcessId, Weather};
use crate::world::{Event, PROCESS_COUNT, World};
use quorate_consensus::Status;
use quorate_node::Phase;
use quorate_types::{Applied, GroupId, Instant, StateMachine};
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

/// The first register of the probes, above those of the workload.
const PROBE_KEY: u32 = 1_000_000;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The cluster is being formed.
    Forming,
    /// Clients work, faults strike.
    Working,
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
        for id in (0..PROCESS_COUNT).map(ProcessId) {
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
                if self.all_run() {
                    self.begin_work();
                } else {
                    self.demand(bound, "every node to take part");
                }
            }
            Stage::Working => {
                if self.now.since(self.stage_began) >= self.options.work {
                    self.heal();
                }
            }
            Stage::Healed => {
                if self.all_run() && self.agree_on_leader() {
                    self.enter(Stage::Probing);
                    self.probe_all();
                } else {
                    self.demand(PROGRESS_MAX, "a leader that all nodes know");
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
        for id in (0..PROCESS_COUNT).map(ProcessId) {
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
        self.fail("liveness", seen);
    }

    fn begin_work(&mut self) {
        self.enter(Stage::Working);
        self.network.set_weather(self.mix.weather);
        if !self.mix.early {
            self.unleash();
        }
        for client in 0..self.mix.workload.client_count {
            self.plan_in(Duration::from_millis(client as u64), Event::Call(ClientId(client)));
        }
    }

    /// Ends all faults, and starts every process that is down.
    fn heal(&mut self) {
        self.enter(Stage::Healed);
        self.network.set_weather(Weather::fair());
        self.network.mend_all();
        for id in (0..PROCESS_COUNT).map(ProcessId) {
            for peer in (0..id.0).map(ProcessId) {
                self.break_streams(id, peer);
            }
            let now = self.now;
            let process = &mut self.processes[id.0];
            process.sabotage = None;
            process.disk_stalled_until = Instant::ZERO;
            if let Some(running) = &mut process.running {
                running.paused_until = now;
            } else {
                let life = process.life;
                self.plan_in(Duration::from_millis(1), Event::Open(id, life));
            }
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

    fn all_run(&self) -> bool {
        (0..PROCESS_COUNT).all(|id| self.phase(ProcessId(id)) == Some(Phase::Running))
    }

    fn agree_on_leader(&self) -> bool {
        let leader = |id| self.group_status(ProcessId(id)).and_then(|status| status.leader);
        let first = leader(0);
        first.is_some() && (1..PROCESS_COUNT).all(|id| leader(id) == first)
    }

    fn probe_all(&mut self) {
        for id in 0..PROCESS_COUNT {
            let key = Key(PROBE_KEY + u32::try_from(id).expect("few processes"));
            self.probes[id] = Some(Call::Put { key, value: self.clients.fresh_value() });
        }
        self.probe_again();
    }

    /// Makes every probe that has not succeeded and is not under way.
    fn probe_again(&mut self) {
        for id in 0..PROCESS_COUNT {
            let client = ClientId(self.mix.workload.client_count + id);
            if let (Some(call), None) = (self.probes[id], self.clients.pending(client)) {
                self.send_call(client, call, ProcessId(id));
            }
        }
    }

    /// A write that succeeded is followed by a read; what failed is tried again.
    pub(crate) fn on_probe_ended(&mut self, operation: &Operation) {
        let id = operation.client.0 - self.mix.workload.client_count;
        self.probes[id] = match (&operation.outcome, operation.call) {
            (Outcome::Written(_), _) => Some(Call::Scan),
            (Outcome::Refused | Outcome::Unknown, Call::Put { key, .. }) => {
                Some(Call::Put { key, value: self.clients.fresh_value() })
            }
            (Outcome::Refused | Outcome::Unknown, call) => Some(call),
            (Outcome::NotWritten(..) | Outcome::Got(..) | Outcome::Scanned(..), _) => None,
        };
    }

    fn applied(&self, id: usize) -> Option<Applied> {
        Some(self.processes[id].running.as_ref()?.machine.store.applied())
    }

    /// Whether no client waits and all replicas have applied the same.
    fn all_equal(&self) -> bool {
        let idle = (0..self.mix.workload.client_count)
            .all(|client| self.clients.pending(ClientId(client)).is_none());
        let first = self.applied(0);
        let equal = first.is_some() && (1..PROCESS_COUNT).all(|id| self.applied(id) == first);
        let highest = self.agreement.highest();
        idle && equal && first.is_some_and(|applied| applied.position.index >= highest)
    }

    /// Judges the whole: what clients saw, and what each replica remembers of every acknowledged write.
    fn judge(&mut self) {
        for id in 0..PROCESS_COUNT {
            self.look_at_status(ProcessId(id));
            if let Err(reason) = self.recall(id) {
                self.fail("durability", format!("n{}: {reason}", id + 1));
            }
        }
        let result = witness::check(self.clients.history());
        self.accuse(result);
        let result = linearizable::check(self.clients.history());
        self.accuse(result);
    }

    /// Asks a replica for each acknowledged write at its revision.
    fn recall(&mut self, id: usize) -> Result<(), String> {
        let running = self.processes[id].running.as_ref().expect("all replicas are equal");
        let mut recalls = Vec::new();
        for operation in &self.clients.history().operations {
            let (Outcome::Written(revision), Some((key, _))) =
                (&operation.outcome, operation.call.write())
            else {
                continue;
            };
            let (_, found) = engine::read(&running.machine.reader, Some(key), Some(*revision))?;
            let found = found.get(&key).copied();
            recalls.push(Recall { key, revision: *revision, found });
        }
        self.clients.history_mut().recalls.extend(recalls);
        Ok(())
    }
}
