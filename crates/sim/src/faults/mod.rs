//! What strikes, whom, and for how long.

pub(crate) mod devices;
pub(crate) mod links;
mod loss;
mod reigns;
mod scatter;

use crate::disk::Ending;
use crate::fault_kind::FaultKind;
use crate::finale::Stage;
use crate::network::ProcessId;
use crate::swarm::FaultRate;
use crate::world::{Event, World};
use quorate_consensus::{Control, RoleName};
use quorate_node::{NodeInput, Request, RequestId};
use quorate_types::{GroupId, NodeId};
use std::time::Duration;

/// Requests of operators are numbered from here on, far above those of clients.
pub(crate) const OPERATOR_REQUEST: u64 = 1 << 40;

/// How often helical damage takes what is known of the slots as well.
const BEYOND_KNOWLEDGE: u32 = 500_000;

/// The most that a clock drifts, in parts per million: one second in twenty.
const DRIFT_MAX: u64 = 50_000;

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

    /// Whether new faults may still begin, and old ones end by themselves.
    pub(crate) fn faults_go_on(&self) -> bool {
        matches!(self.stage, Stage::Forming | Stage::Working)
    }

    /// One fault of the mix strikes, unless the time of faults is over.
    pub(crate) fn strike(&mut self, number: usize) {
        if !self.faults_go_on() {
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
        let ids: Vec<ProcessId> = self.ids().collect();
        let random = ids[self.dice.faults.position(ids.len())];
        if !self.dice.faults.chance(500_000) {
            return random;
        }
        self.leader().unwrap_or(random)
    }

    /// A process whose node says that it leads.
    pub(crate) fn leader(&self) -> Option<ProcessId> {
        self.ids().find(|id| self.leads(*id))
    }

    /// Whether the node of this process says that it leads.
    pub(crate) fn leads(&self, id: ProcessId) -> bool {
        self.group_status(id).is_some_and(|group| group.role == RoleName::Leader)
    }

    /// Does it; false when there is nothing to do it to, or it would take what cannot be given back.
    fn inflict(&mut self, kind: FaultKind, victim: ProcessId) -> bool {
        let runs = self.processes[victim.0].running.is_some();
        let works = self.stage == Stage::Working;
        match kind {
            FaultKind::Kill if runs => {
                self.kill(victim);
                self.reopen_later(victim);
            }
            FaultKind::PowerLoss if runs => {
                self.lose_power(victim);
                self.reopen_later(victim);
            }
            FaultKind::Blackout => self.black_out(),
            FaultKind::Restart if runs => {
                let running = self.processes[victim.0].running.as_mut().expect("it runs");
                running.leaving = true;
                self.tell(victim, NodeInput::Shutdown);
            }
            FaultKind::Pause if runs => self.pause(victim),
            FaultKind::Slow if runs => self.slow(victim),
            FaultKind::ClockLeap if runs => self.leap(victim),
            FaultKind::ClockDrift if runs => self.drift(victim),
            FaultKind::Isolation => self.isolate(victim),
            FaultKind::OneWayCut => self.one_way_cut(victim),
            FaultKind::Deaf => self.deafen(victim),
            FaultKind::Mute => self.mute(victim),
            FaultKind::Split => self.split(),
            FaultKind::Bridge => self.bridge(),
            FaultKind::Star => self.star(victim),
            FaultKind::Chain => self.chain(),
            FaultKind::Ring => return self.ring(),
            FaultKind::Clog => self.clog(victim),
            FaultKind::SwizzleClog => self.swizzle_clog(),
            FaultKind::BrokenStreams => {
                let peer = self.peer_of(victim);
                self.break_streams(victim, peer);
            }
            FaultKind::WriteError => self.fail_next_write(victim, Ending::WriteFailed),
            FaultKind::SyncError => self.fail_next_write(victim, Ending::SyncFailed),
            FaultKind::EngineError if runs => self.fail_engine(victim),
            FaultKind::DiskStall => self.stall_disk(victim),
            FaultKind::DiskSlow => self.slow_disk(victim),
            FaultKind::DiskFull => self.fill_disk(victim),
            FaultKind::Rot if works && self.may_harm_log(victim) => return self.rot(victim),
            FaultKind::ReadError if works && self.may_harm_log(victim) => {
                return self.lose_page(victim);
            }
            FaultKind::LostWrite if works && self.may_harm_log(victim) => {
                return self.lose_write(victim);
            }
            FaultKind::MisdirectedWrite if works && self.may_harm_log(victim) => {
                return self.misdirect_write(victim);
            }
            FaultKind::HelicalRot if works && self.all_are_sound() => {
                if self.dice.faults.chance(BEYOND_KNOWLEDGE) {
                    self.scatter_losses();
                } else {
                    return self.helical_rot();
                }
            }
            FaultKind::EngineLoss
                if runs && self.all_others_are_whole(victim) && self.may_harm(victim) =>
            {
                self.lose_engine(victim);
            }
            FaultKind::HardStateLoss if works => return self.set_up_loss(),
            FaultKind::ShortReigns => self.shorten_reigns(),
            FaultKind::Wipe if works && runs && self.may_exile(victim) => {
                self.wipe(victim);
            }
            FaultKind::RollBack if works && runs => return self.roll_back(victim),
            FaultKind::Transfer if runs => {
                let count = self.processes.len() as u64;
                let target = NodeId(self.dice.faults.between(1, count));
                self.control(victim, Control::Transfer(target));
            }
            FaultKind::Campaign if runs => self.control(victim, Control::Campaign),
            FaultKind::Kill
            | FaultKind::PowerLoss
            | FaultKind::Restart
            | FaultKind::Pause
            | FaultKind::Slow
            | FaultKind::ClockLeap
            | FaultKind::ClockDrift
            | FaultKind::EngineError
            | FaultKind::Rot
            | FaultKind::ReadError
            | FaultKind::LostWrite
            | FaultKind::MisdirectedWrite
            | FaultKind::HelicalRot
            | FaultKind::EngineLoss
            | FaultKind::HardStateLoss
            | FaultKind::Wipe
            | FaultKind::RollBack
            | FaultKind::Transfer
            | FaultKind::Campaign => return false,
        }
        true
    }

    fn black_out(&mut self) {
        for id in self.ids() {
            let was_running = self.processes[id.0].running.is_some();
            self.lose_power(id);
            if was_running {
                self.reopen_later(id);
            }
        }
    }

    fn pause(&mut self, victim: ProcessId) {
        let pause = self.dice.faults.duration(Duration::from_millis(10), Duration::from_secs(3));
        let until = self.now + pause;
        let running = self.processes[victim.0].running.as_mut().expect("it runs");
        running.paused_until = running.paused_until.max(until);
    }

    fn slow(&mut self, victim: ProcessId) {
        let longest = Duration::from_secs(10);
        let until = self.dice.faults.moment(self.now, Duration::from_secs(1), longest);
        let running = self.processes[victim.0].running.as_mut().expect("it runs");
        running.slow_until = until;
    }

    fn leap(&mut self, victim: ProcessId) {
        let longest = [1, 60, 7_200][self.dice.faults.position(3)];
        let longest = Duration::from_secs(longest);
        let by = self.dice.faults.duration(Duration::from_millis(1), longest);
        let now = self.now;
        let running = self.processes[victim.0].running.as_mut().expect("it runs");
        running.clock.leap(now, by);
        self.wake_soon(victim);
    }

    fn drift(&mut self, victim: ProcessId) {
        let drift = self.dice.faults.below(2 * DRIFT_MAX + 1);
        let drift = i32::try_from(drift).expect("small") - i32::try_from(DRIFT_MAX).expect("small");
        let now = self.now;
        let running = self.processes[victim.0].running.as_mut().expect("it runs");
        running.clock.set_drift(now, drift);
        self.wake_soon(victim);
    }

    fn control(&mut self, id: ProcessId, control: Control) {
        let number = OPERATOR_REQUEST + self.dice.faults.below(1 << 40);
        let request = Request::Control { group: GroupId(0), control };
        self.tell(id, NodeInput::Request { id: RequestId(number), request });
    }
}
