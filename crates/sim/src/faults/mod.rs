//! What strikes, whom, and for how long.

use crate::disk::Ending;
use crate::finale::Stage;
use crate::network::ProcessId;
use crate::swarm::{FaultKind, FaultRate};
use crate::world::{Event, PROCESS_COUNT, World};
use quorate_consensus::Control;
use quorate_node::{NodeInput, Phase, Request, RequestId};
use quorate_store::engine::MemoryDisk;
use quorate_types::{GroupId, NodeId};
use std::time::Duration;

/// Requests of operators are numbered from here on, far above those of clients.
const OPERATOR_REQUEST: u64 = 1 << 40;

impl World {
    /// Plans the first strike of every fault of the mix.
    pub(crate) fn unleash(&mut self) {
        for number in 0..self.mix.faults.len() {
            self.plan_strike(number);
        }
    }

    fn plan_strike(&mut self, number: usize) {
        let interval = self.mix.faults[number].interval;
        let wait = self.dice.faults.duration(Duration::ZERO, interval * 2);
        self.plan_in(wait, Event::Strike(number));
    }

    /// One fault of the mix strikes, unless the time of faults is over.
    pub(crate) fn strike(&mut self, number: usize) {
        if !matches!(self.stage, Stage::Forming | Stage::Working) {
            return;
        }
        let FaultRate { kind, .. } = self.mix.faults[number];
        let victim = self.victim();
        self.trace.step(self.now, "fault", &[number as u64, victim.0 as u64], |f| {
            write!(f, "{} on n{}", kind.name(), victim.0 + 1)
        });
        if self.inflict(kind, victim) {
            *self.counts.faults.entry(kind).or_default() += 1;
        }
        self.plan_strike(number);
    }

    /// Half of the faults meet the leader, if anybody knows who that is.
    fn victim(&mut self) -> ProcessId {
        let random = ProcessId(self.dice.faults.position(PROCESS_COUNT));
        if !self.dice.faults.chance(500_000) {
            return random;
        }
        self.leader().unwrap_or(random)
    }

    /// A process whose node says that it leads.
    pub(crate) fn leader(&self) -> Option<ProcessId> {
        let leads = |id: &ProcessId| {
            let Some(group) = self.group_status(*id) else { return false };
            group.role == quorate_consensus::RoleName::Leader
        };
        (0..PROCESS_COUNT).map(ProcessId).find(leads)
    }

    /// Does it; false when there is nothing to do it to.
    fn inflict(&mut self, kind: FaultKind, victim: ProcessId) -> bool {
        let runs = self.processes[victim.0].running.is_some();
        match kind {
            FaultKind::Kill if runs => {
                self.kill(victim);
                self.reopen_later(victim);
            }
            FaultKind::PowerLoss if runs => {
                self.lose_power(victim);
                self.reopen_later(victim);
            }
            FaultKind::Blackout => {
                for id in (0..PROCESS_COUNT).map(ProcessId) {
                    let was_running = self.processes[id.0].running.is_some();
                    self.lose_power(id);
                    if was_running {
                        self.reopen_later(id);
                    }
                }
            }
            FaultKind::Restart if runs => {
                let running = self.processes[victim.0].running.as_mut().expect("it runs");
                running.leaving = true;
                self.tell(victim, NodeInput::Shutdown);
            }
            FaultKind::Pause if runs => {
                let pause =
                    self.dice.faults.duration(Duration::from_millis(10), Duration::from_secs(3));
                let until = self.now + pause;
                let running = self.processes[victim.0].running.as_mut().expect("it runs");
                running.paused_until = running.paused_until.max(until);
            }
            FaultKind::Isolation => self.isolate(victim),
            FaultKind::OneWayCut => {
                let peer = self.peer_of(victim);
                let link =
                    if self.dice.faults.chance(500_000) { (victim, peer) } else { (peer, victim) };
                self.cut(vec![link]);
            }
            FaultKind::BrokenStreams => {
                let peer = self.peer_of(victim);
                self.break_streams(victim, peer);
            }
            FaultKind::WriteError => {
                self.processes[victim.0].sabotage = Some(Ending::WriteFailed);
            }
            FaultKind::SyncError => {
                self.processes[victim.0].sabotage = Some(Ending::SyncFailed);
            }
            FaultKind::DiskStall => {
                let until = self.dice.faults.moment(
                    self.now,
                    Duration::from_millis(20),
                    Duration::from_secs(3),
                );
                self.processes[victim.0].disk_stalled_until = until;
            }
            FaultKind::EngineLoss if runs && self.all_others_are_whole(victim) => {
                self.kill(victim);
                let process = &mut self.processes[victim.0];
                process.engine = MemoryDisk::new();
                process.order.on_engine_lost();
                self.reopen_later(victim);
            }
            FaultKind::Transfer if runs => {
                let target = NodeId(self.dice.faults.between(1, PROCESS_COUNT as u64));
                self.control(victim, Control::Transfer(target));
            }
            FaultKind::Campaign if runs => self.control(victim, Control::Campaign),
            FaultKind::Kill
            | FaultKind::PowerLoss
            | FaultKind::Restart
            | FaultKind::Pause
            | FaultKind::EngineLoss
            | FaultKind::Transfer
            | FaultKind::Campaign => return false,
        }
        true
    }

    /// Whether every other process runs on a state of its own.
    fn all_others_are_whole(&self, victim: ProcessId) -> bool {
        let is_whole = |id: ProcessId| {
            let status = self.processes[id.0].running.as_ref().map(|it| it.status(self.now));
            status.is_some_and(|status| {
                status.phase == Phase::Running && status.awaiting_snapshot.is_empty()
            })
        };
        (0..PROCESS_COUNT).map(ProcessId).filter(|id| *id != victim).all(is_whole)
    }

    fn control(&mut self, id: ProcessId, control: Control) {
        let number = OPERATOR_REQUEST + self.dice.faults.below(1 << 40);
        let request = Request::Control { group: GroupId(0), control };
        self.tell(id, NodeInput::Request { id: RequestId(number), request });
    }

    fn peer_of(&mut self, victim: ProcessId) -> ProcessId {
        let step = 1 + self.dice.faults.position(PROCESS_COUNT - 1);
        ProcessId((victim.0 + step) % PROCESS_COUNT)
    }

    fn isolate(&mut self, victim: ProcessId) {
        let peers = (0..PROCESS_COUNT).map(ProcessId).filter(|peer| *peer != victim);
        let links = peers.flat_map(|peer| [(victim, peer), (peer, victim)]).collect();
        self.cut(links);
    }

    fn cut(&mut self, links: Vec<(ProcessId, ProcessId)>) {
        for (from, to) in &links {
            self.network.set_cut(*from, *to, true);
        }
        // Some cuts are noticed because streams break, some are only silence.
        if self.dice.faults.chance(400_000) {
            for (from, to) in &links {
                self.break_streams(*from, *to);
            }
        }
        let wait = self.dice.faults.duration(Duration::from_millis(50), Duration::from_secs(6));
        self.plan_in(wait, Event::Mend(links));
    }

    /// Links that were cut carry frames again. A link that two faults cut is mended by the first that ends.
    pub(crate) fn mend(&mut self, links: &[(ProcessId, ProcessId)]) {
        for (from, to) in links {
            self.trace.step(self.now, "mend", &[from.0 as u64, to.0 as u64], |f| {
                write!(f, "n{}→n{}", from.0 + 1, to.0 + 1)
            });
            self.network.set_cut(*from, *to, false);
            for end in self.network.break_hung(*from, *to) {
                self.notice_broken(end, *from, *to);
            }
        }
    }

    /// Breaks every stream between two processes; both ends notice.
    pub(crate) fn break_streams(&mut self, one: ProcessId, two: ProcessId) {
        for end in self.network.break_between(one, two) {
            self.notice_broken(end, one, two);
        }
    }

    fn notice_broken(&mut self, end: crate::network::End, one: ProcessId, two: ProcessId) {
        let peer = if end.process == one { two } else { one };
        let wait = self.dice.network.duration(Duration::from_micros(50), Duration::from_millis(20));
        self.plan_in(wait, Event::Closed(end, peer));
    }
}
