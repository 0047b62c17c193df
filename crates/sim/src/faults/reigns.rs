//! Short reigns: for a while whoever comes to lead falls silent or dies within moments.
//!
//! ```text
//! a leads, writes its first entry, falls silent and dies      a: 1·2      b: 1        c: 1
//! b leads, writes its own in the same slot, and dies          a: 1·2      b: 1·3      c: 1
//! a leads again, copies its old entry to c, and dies          a: 1·2·4    b: 1·3      c: 1·2
//! b leads again and puts its own in place of the old one      a: 1·2·4    b: 1·3·5    c: 1·3·5
//! ```
//! This is figure 8 of Raft's paper: an entry of an earlier term is on a quorum and not committed. Leaders that live for
//! long commit their first entry, and never come there. What only a dead leader holds is also what its peers can prove
//! to have never been committed, should it be damaged.

use crate::dice::PartsPerMillion;
use crate::faults::links::links_where;
use crate::network::{Life, ProcessId};
use crate::process::{LogFound, read_log};
use crate::world::{Event, World};
use quorate_consensus::Message;
use quorate_consensus::raft::Message as Raft;
use quorate_types::SlotFault;
use std::time::Duration;

/// For how long reigns are short, at least and at most.
const LASTS: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(12));

/// How many reigns are left alone even then: somebody must get something done.
const SPARED: PartsPerMillion = 200_000;

/// After how many messages with entries a leader falls silent, at most. With three nodes and an entry a message figure 8
/// takes none, none, then two or three.
const APPENDS_MAX: u64 = 5;

/// How many leaders die at a moment of their own instead, soon after their election.
const UNHEEDED: PartsPerMillion = 150_000;

/// How long one that has fallen silent lives on, at most.
const SILENT_MAX: Duration = Duration::from_millis(200);

/// How many die by a loss of power.
const POWER_LOST: PartsPerMillion = 500_000;

/// How many of them find the last entry of their log damaged, where that can be made up for.
const DAMAGED: PartsPerMillion = 300_000;

/// How often the end of a log is damaged anew, until it is an entry that is lost and nothing else.
const TRIES_MAX: usize = 20;

/// From how many of the last bytes of a file those are chosen.
const END_SIZE: u64 = 4 * 1024;

impl World {
    /// From now on reigns are short for a while, beginning with the present one.
    pub(super) fn shorten_reigns(&mut self) {
        self.reigns_short_until = self.dice.faults.moment(self.now, LASTS.0, LASTS.1);
        if let Some(leader) = self.leader() {
            self.plan(self.now, Event::EndReign(leader, self.processes[leader.0].life));
        }
    }

    /// A process leads from now on.
    pub(crate) fn on_reign(&mut self, id: ProcessId) {
        let is_short = self.now < self.reigns_short_until && self.faults_go_on();
        if !is_short || self.dice.faults.chance(SPARED) {
            return;
        }
        if self.dice.faults.chance(UNHEEDED) {
            // About as long as an entry takes to reach somebody and be acknowledged.
            let round = (self.mix.weather.latency_max + self.mix.disk.latency_max) * 2;
            let wait = self.dice.faults.duration(Duration::ZERO, round);
            return self.plan_in(wait, Event::EndReign(id, self.processes[id.0].life));
        }
        let count = self.dice.faults.between(0, APPENDS_MAX);
        if let Some(running) = &mut self.processes[id.0].running {
            running.appends_left = Some(count);
        }
    }

    /// A process is about to send this: a leader whose last message it would be has sent it before, and falls silent now.
    pub(crate) fn count_append(&mut self, id: ProcessId, message: &Message) {
        let Message::Raft(Raft::Append { entries, .. }) = message else { return };
        let Some(running) = &mut self.processes[id.0].running else { return };
        let Some(left) = running.appends_left.filter(|_| !entries.is_empty()) else { return };
        running.appends_left = left.checked_sub(1);
        if left == 0 && self.faults_go_on() {
            self.silence(id);
        }
    }

    /// Nobody hears a process any more, until after it has died, which it soon does.
    fn silence(&mut self, id: ProcessId) {
        self.trace.step(self.now, "silence", &[id.0 as u64], |f| write!(f, "n{}", id.0 + 1));
        let links = links_where(self.processes.len(), |from, _| from == id.0);
        for (from, to) in &links {
            self.network.set_cut(*from, *to, true);
        }
        let wait = self.dice.faults.duration(Duration::ZERO, SILENT_MAX);
        self.plan_in(wait, Event::EndReign(id, self.processes[id.0].life));
        let wait = SILENT_MAX + self.dice.faults.duration(Duration::ZERO, SILENT_MAX);
        self.plan_in(wait, Event::Mend(links));
    }

    /// A leader dies, and is started again.
    pub(crate) fn end_reign(&mut self, id: ProcessId, life: Life) {
        let process = &self.processes[id.0];
        let is_alive = process.life == life && process.running.is_some();
        if !is_alive || !self.faults_go_on() {
            return;
        }
        self.trace.step(self.now, "end of reign", &[id.0 as u64], |f| write!(f, "n{}", id.0 + 1));
        if self.dice.faults.chance(POWER_LOST) {
            self.lose_power(id);
        } else {
            self.kill(id);
        }
        if self.dice.faults.chance(DAMAGED) && self.may_harm_log(id) {
            self.damage_last_entry(id);
        }
        self.reopen_later(id);
    }

    /// Damages the end of a log until the last entry of it cannot be read, and everything else can.
    fn damage_last_entry(&mut self, id: ProcessId) {
        let group = self.group();
        let used = self.processes[id.0].disk.used("log");
        for _ in 0..TRIES_MAX {
            let mut disk = self.processes[id.0].disk.clone();
            let Some((file, size)) = used.last() else { return };
            let from_end = 1 + self.dice.faults.below(END_SIZE.min(*size));
            disk.rot(file, size - from_end, 1, 1 << self.dice.faults.position(8));
            let found = read_log(&disk.durable(), self.mix.log(id), group);
            if found.is_ok_and(|found| has_lost_only_its_last_entry(&found)) {
                self.trace.step(self.now, "damage", &[id.0 as u64], |f| {
                    write!(f, "n{} loses its last entry", id.0 + 1)
                });
                self.processes[id.0].disk = disk;
                self.wound(id);
                return;
            }
        }
    }
}

fn has_lost_only_its_last_entry(LogFound { log, .. }: &LogFound) -> bool {
    let is_last = match log.faults.as_slice() {
        [SlotFault::DamagedKnown(at)] => at.index == log.bounds.last,
        _ => false,
    };
    is_last && log.hard_state.is_some()
}
