//! The loss of a hard state, at the moment when it matters most.
//!
//! ```text
//! leader    --x--  laggards      entries reach the leader and its followers, which acknowledge them
//!    \____ followers
//! then: the links are mended; one follower crashes and its disk has lost the hard state and the end of the log;
//! the leader crashes and stays away for a while
//! ```
//! The laggards and the forgetful one are a quorum by number, and must not elect anybody by themselves: what was
//! acknowledged may be nowhere but with the leader (`docs/design/lost-hard-state.md`).

use crate::network::ProcessId;
use crate::process::{LogFound, name, read_log};
use crate::world::{Event, World};
use quorate_types::Index;
use std::time::Duration;

/// How often bytes at the end of a log are damaged anew, until the hard state is among what is lost.
const TRIES_MAX: usize = 30;

/// From how many of the last bytes of a file those are chosen.
const END_SIZE: u64 = 16 * 1024;

impl World {
    /// Cuts laggards off from a leader, so that a follower soon knows what they do not.
    pub(super) fn set_up_loss(&mut self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let mut others: Vec<ProcessId> =
            self.ids().filter(|id| *id != leader && self.is_member(*id, true)).collect();
        if others.len() < 2 {
            return false;
        }
        let victim = others.swap_remove(self.dice.faults.position(others.len()));
        if !self.all_are_sound() || !self.may_harm_log(victim) {
            return false;
        }
        // The leader, the victim and whom they need for a quorum stay together.
        let laggard_count = self.voter_count() - (self.voter_count() / 2 + 1);
        others.truncate(laggard_count);
        let links: Vec<_> = others.iter().flat_map(|id| [(leader, *id), (*id, leader)]).collect();
        self.set_cuts(&links);
        let wait =
            self.dice.faults.duration(Duration::from_millis(100), Duration::from_millis(450));
        self.plan_in(wait, Event::Forget(victim, leader));
        self.plan_in(wait, Event::Mend(links));
        true
    }

    /// The follower and the leader crash, and the follower loses its hard state.
    pub(crate) fn forget(&mut self, victim: ProcessId, leader: ProcessId) {
        let are_up = [victim, leader].iter().all(|id| self.processes[id.0].running.is_some());
        let may_lose = self.all_are_sound() && self.may_harm_log(victim);
        if !self.faults_go_on() || !are_up || !may_lose {
            return;
        }
        self.kill(victim);
        let is_lost = self.lose_hard_state(victim);
        self.trace.step(self.now, "forget", &[victim.0 as u64, u64::from(is_lost)], |f| {
            let what = if is_lost { "loses its hard state" } else { "only crashes" };
            write!(f, "{} {what}", name(victim))
        });
        let wait = self.dice.faults.duration(Duration::from_millis(1), Duration::from_millis(50));
        let life = self.processes[victim.0].life;
        self.plan_in(wait, Event::Open(victim, life));
        self.kill(leader);
        let wait = self.dice.faults.duration(Duration::from_millis(500), Duration::from_secs(5));
        let life = self.processes[leader.0].life;
        self.plan_in(wait, Event::Open(leader, life));
    }

    /// Damages the end of a log until what is left tells no hard state, and perhaps not who the members are.
    fn lose_hard_state(&mut self, victim: ProcessId) -> bool {
        let group = self.group();
        let process = &self.processes[victim.0];
        let used = process.disk.used("log");
        if used.is_empty() {
            return false;
        }
        for _ in 0..TRIES_MAX {
            let mut disk = self.processes[victim.0].disk.clone();
            let (file, size) = &used[self.dice.faults.position(used.len())];
            let from_end = 1 + self.dice.faults.below(END_SIZE.min(*size));
            let length = [512, 4_096, 16_384][self.dice.faults.position(3)];
            disk.rot(file, size - from_end, length, 1 << self.dice.faults.position(8));
            let left = read_log(&disk.durable(), self.mix.log(victim), group);
            let is_lost = left.is_ok_and(|LogFound { log, .. }| {
                let is_begun = log.bounds.last > Index::ZERO || !log.configurations.is_empty();
                log.hard_state.is_none() && is_begun
            });
            if is_lost {
                self.processes[victim.0].disk = disk;
                self.wound(victim);
                self.processes[victim.0].is_forgetful = true;
                self.counts.lost_hard_state_count += 1;
                return true;
            }
        }
        false
    }
}
