//! Clients that want to know for certain what became of a call whose outcome was unknown.

use crate::dice::{Dice, PartsPerMillion};
use crate::finale::Stage;
use crate::history::{Call, ClientId};
use crate::marks;
use crate::network::ProcessId;
use crate::world::{Event, World};
use quorate_node::{Answer, NodeInput, Request, RequestId};
use quorate_types::{Fate, Origin};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often somebody asks before it is given up: processes that were asked may have crashed.
const ASKED_MAX: u32 = 8;

/// How many ask one process at a time: under some settings a cluster makes its way one entry at a time.
const ASKING_MAX: usize = 3;

/// How long to wait for an answer before another process is asked.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many calls are given up so soon that they may still be on their way.
const IMPATIENT: PartsPerMillion = 50_000;

/// How soon at the least.
const IMPATIENCE_MIN: Duration = Duration::from_millis(5);

/// How soon at the most.
const IMPATIENCE_MAX: Duration = Duration::from_millis(60);

/// The dice of those who ask.
#[derive(Clone, Debug)]
pub(crate) struct Settling {
    /// When and whom they ask.
    dice: Dice,
    /// Of what they know by now.
    told: BTreeSet<Origin>,
    /// Which operation of the history each of the others was.
    operations: BTreeMap<Origin, usize>,
}

impl Settling {
    pub(crate) fn new(seed: u64) -> Settling {
        Settling {
            dice: Dice::new(seed, "settling"),
            told: BTreeSet::new(),
            operations: BTreeMap::new(),
        }
    }
}

impl World {
    /// How long a client waits that gives up while its call is still on its way.
    pub(crate) fn impatience(&mut self, client: ClientId, call: Call) -> Option<Duration> {
        let is_probe = client.0 >= self.mix.workload.client_count;
        if !self.mix.settles || is_probe || call.is_read() {
            return None;
        }
        let dice = &mut self.settling.dice;
        dice.chance(IMPATIENT).then(|| dice.duration(IMPATIENCE_MIN, IMPATIENCE_MAX))
    }

    /// The call that ended last has no known outcome.
    pub(crate) fn on_unknown(&mut self, origin: Option<Origin>) {
        let Some(origin) = origin.filter(|_| self.mix.settles) else { return };
        let number = self.clients.history().operations.len() - 1;
        self.settling.operations.insert(origin, number);
        let dice = &mut self.settling.dice;
        let wait_max = if dice.chance(500_000) { IMPATIENCE_MAX } else { Duration::from_secs(2) };
        let wait = dice.duration(Duration::ZERO, wait_max);
        self.plan_in(wait, Event::Settle(origin, 1));
    }

    /// Somebody asks a process that runs; if no answer comes, another one later.
    pub(crate) fn settle(&mut self, origin: Origin, asked_count: u32) {
        // Once the world is healed, nothing is added to what it has to catch up with.
        if self.settling.told.contains(&origin) || self.stage != Stage::Working {
            return;
        }
        if asked_count < ASKED_MAX {
            self.plan_in(PATIENCE, Event::Settle(origin, asked_count + 1));
        }
        let ids: Vec<ProcessId> = self.ids().collect();
        let id = ids[self.settling.dice.position(ids.len())];
        let group = self.group();
        let running = self.processes[id.0].running.as_mut();
        let Some(running) = running.filter(|it| it.settling.len() < ASKING_MAX) else { return };
        running.next_request += 1;
        let request_id = RequestId(running.next_request);
        running.settling.insert(request_id, origin);
        let request = Request::Settle { group, origin, deadline: None };
        self.tell(id, NodeInput::Request { id: request_id, request });
    }

    /// Whether an answer was to somebody who asked so; what it says must be true.
    pub(crate) fn on_settled(
        &mut self,
        id: ProcessId,
        request: RequestId,
        answer: &Answer,
    ) -> bool {
        let Some(running) = &mut self.processes[id.0].running else { return false };
        let Some(origin) = running.settling.remove(&request) else { return false };
        if let Answer::Settled(fate) = answer {
            self.settling.told.insert(origin);
            let operation = self.settling.operations.remove(&origin);
            if let (Some(number), Fate::Never) = (operation, fate) {
                self.clients.deny(number);
            }
            let mark = match fate {
                Fate::Applied => Some(marks::TOLD_APPLIED),
                Fate::Never => Some(marks::TOLD_NEVER),
                Fate::Open | Fate::Forgotten => None,
            };
            mark.into_iter().for_each(|mark| *self.counts.marks.entry(mark).or_default() += 1);
            let result = self.fates.on_told(origin, *fate);
            self.accuse(result);
        }
        true
    }
}
