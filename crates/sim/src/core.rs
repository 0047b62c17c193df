//! The core: a quorum that is healed while the others keep what ails them. It must get on without them.
//!
//! Every member of the core can reach a quorum of all machines directly. A core in which only one can, and that one lacks
//! entries, may stay without a leader: no Raft elects there (Ng et al. 2023, "Omni-Paxos", the constrained election).

use crate::faults::links::links_where;
use crate::network::{ProcessId, Weather};
use crate::world::{Event, World};
use quorate_types::Instant;
use std::time::Duration;

/// How many runs demand progress of a core before everything is healed.
const CORE_CHANCE: u32 = 500_000;

/// Later than any run ends.
pub(crate) const FOR_EVER: Instant = Instant(u64::MAX / 4);

/// What ails a machine outside the core, until everything is healed.
#[derive(Clone, Copy, Debug)]
enum Ailment {
    /// It is down.
    Down,
    /// It stands still.
    Paused,
    /// It is cut off.
    Isolated,
    /// It hears nobody.
    Deaf,
    /// It is heard by nobody.
    Mute,
    /// Its disk stands still.
    Stalled,
}

impl Ailment {
    const ALL: [Ailment; 6] = [
        Ailment::Down,
        Ailment::Paused,
        Ailment::Isolated,
        Ailment::Deaf,
        Ailment::Mute,
        Ailment::Stalled,
    ];
}

impl World {
    /// Draws a core, if this run is to have one and enough machines are sound.
    pub(crate) fn draw_core(&mut self) -> Option<Vec<ProcessId>> {
        if !self.dice.faults.chance(CORE_CHANCE) {
            return None;
        }
        let order = self.places();
        let mut sound: Vec<ProcessId> = order.into_iter().map(ProcessId).collect();
        sound.retain(|id| self.is_member(*id, true) && !self.is_impaired(*id));
        let quorum = self.voter_count() / 2 + 1;
        if sound.len() < quorum || !self.are_members_settled() {
            return None;
        }
        let spare = sound.len() - quorum;
        sound.truncate(quorum + self.dice.faults.position(spare + 1));
        sound.sort_unstable();
        Some(sound)
    }

    /// Heals the core and leaves the others with what ails them.
    pub(crate) fn freeze_around(&mut self, core: Vec<ProcessId>) {
        self.network.set_weather(Weather::fair());
        self.network.mend_all();
        for id in self.ids() {
            if core.contains(&id) {
                self.heal_process(id);
            } else if !self.processes[id.0].is_exiled {
                let drawn = Ailment::ALL[self.dice.faults.position(Ailment::ALL.len())];
                // Nobody writes until there is a leader in the core, and a leader only misses its disk when it writes.
                let keeps_leading = matches!(drawn, Ailment::Stalled) && self.leads(id);
                // A lost hard state that is made up for costs the leader its place.
                let keeps_asking =
                    matches!(drawn, Ailment::Stalled) && self.processes[id.0].is_forgetful;
                let ailment = if keeps_leading || keeps_asking { Ailment::Paused } else { drawn };
                self.trace.step(self.now, "ailment", &[id.0 as u64], |f| {
                    write!(f, "n{} {ailment:?}", id.0 + 1)
                });
                self.afflict(id, ailment);
            }
        }
        self.shape_core(&core);
        self.core = core;
    }

    fn afflict(&mut self, id: ProcessId, ailment: Ailment) {
        let count = self.processes.len();
        match ailment {
            Ailment::Down => {
                self.processes[id.0].is_frozen = true;
                self.kill(id);
            }
            Ailment::Paused => {
                let process = &mut self.processes[id.0];
                match &mut process.running {
                    Some(running) => running.paused_until = FOR_EVER,
                    // Nobody starts it either: otherwise it would come back with nothing ailing it, and lead.
                    None => process.is_frozen = true,
                }
            }
            Ailment::Isolated => {
                self.set_cuts(&links_where(count, |from, to| from == id.0 || to == id.0));
            }
            Ailment::Deaf => self.set_cuts(&links_where(count, |_, to| to == id.0)),
            Ailment::Mute => self.set_cuts(&links_where(count, |from, _| from == id.0)),
            Ailment::Stalled => self.processes[id.0].disk_stalled_until = FOR_EVER,
        }
    }

    /// Five machines that are all in the core may form a ring or two halves with a bridge: each still sees a quorum.
    fn shape_core(&mut self, core: &[ProcessId]) {
        if core.len() < 5 || self.members_change() {
            return;
        }
        let place = self.places();
        let last = core.len() - 1;
        let links = match self.dice.faults.position(3) {
            0 => links_where(core.len(), |from, to| {
                let distance = place[from].abs_diff(place[to]);
                distance > 1 && distance < last
            }),
            1 => links_where(core.len(), |from, to| {
                let middle = core.len() / 2;
                place[from].min(place[to]) < middle && place[from].max(place[to]) > middle
            }),
            _ => return,
        };
        self.set_cuts(&links);
    }

    /// Ends what ails one machine, and starts its process if that is down.
    pub(crate) fn heal_process(&mut self, id: ProcessId) {
        for peer in self.ids().filter(|peer| *peer != id) {
            self.break_streams(id, peer);
        }
        let now = self.now;
        let process = &mut self.processes[id.0];
        process.sabotage = None;
        process.is_frozen = false;
        process.disk_slow_until = Instant::ZERO;
        process.disk.set_full(false);
        self.end_stall(id);
        let process = &mut self.processes[id.0];
        if let Some(running) = &mut process.running {
            running.paused_until = now;
            running.slow_until = Instant::ZERO;
            self.wake_soon(id);
        } else if !process.is_exiled {
            let life = process.life;
            self.plan_in(Duration::from_millis(1), Event::Open(id, life));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Life;
    use crate::world::Options;

    #[test]
    fn who_is_down_when_it_is_to_stand_still_stays_down_until_it_is_healed() {
        let mut world = World::new(0, Options::default());
        let id = ProcessId(0);
        world.afflict(id, Ailment::Paused);
        world.open(id, Life(0));
        assert!(world.processes[id.0].running.is_none(), "it is well while it should stand still");
        world.heal_process(id);
        world.open(id, Life(0));
        assert!(world.processes[id.0].running.is_some(), "it stays down after it was healed");
    }
}
