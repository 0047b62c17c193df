//! Clients: each has one call under way, writes values that nobody else writes, and never trusts silence.

use crate::dice::Dice;
use crate::history::{Call, ClientId, History, Key, Moment, Operation, Outcome, Revision, Value};
use crate::network::{Life, ProcessId};
use crate::swarm::Workload;
use std::collections::BTreeMap;

/// How many of the latest values of a register a client may expect in a swap.
const REMEMBERED_COUNT: usize = 4;

/// How far before the highest revision known a compaction reaches, at most.
const COMPACT_MARGIN: u64 = 50;

/// A call under way.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    /// What was asked.
    pub call: Call,
    /// When.
    pub called: Moment,
    /// Of which process, in which of its lives.
    pub at: (ProcessId, Life),
}

/// All clients of a run.
#[derive(Debug)]
pub struct Clients {
    /// What they do.
    workload: Workload,
    /// Their calls under way.
    pending: Vec<Option<Pending>>,
    /// How many processes there are.
    process_count: usize,
    /// The process that each prefers.
    favourite: Vec<ProcessId>,
    /// The next value to write.
    next_value: u64,
    /// The highest revision that anybody was told.
    highest: Revision,
    /// Values that swaps may expect: recently written or seen.
    remembered: BTreeMap<Key, Vec<Value>>,
    /// What was asked and answered.
    history: History,
}

impl Clients {
    /// Clients that have not called yet: those of the workload, and one a process for the probes at the end.
    #[must_use]
    pub fn new(workload: Workload, process_count: usize) -> Clients {
        let count = workload.client_count + process_count;
        Clients {
            workload,
            pending: vec![None; count],
            process_count,
            favourite: (0..count).map(|client| ProcessId(client % process_count)).collect(),
            next_value: 1,
            highest: Revision::default(),
            remembered: BTreeMap::new(),
            history: History::default(),
        }
    }

    /// The call under way of a client.
    #[must_use]
    pub fn pending(&self, client: ClientId) -> Option<&Pending> {
        self.pending[client.0].as_ref()
    }

    /// A client prefers this process from now on.
    pub fn prefer(&mut self, client: ClientId, process: ProcessId) {
        self.favourite[client.0] = process;
    }

    /// A value that nobody has written yet.
    pub fn fresh_value(&mut self) -> Value {
        self.next_value += 1;
        Value(self.next_value - 1)
    }

    /// The next call of a client of the workload, and where it goes.
    pub fn draw(&mut self, client: ClientId, dice: &mut Dice) -> (Call, ProcessId) {
        if dice.chance(100_000) {
            self.favourite[client.0] = ProcessId(dice.position(self.process_count));
        }
        let Workload { get, scan, swap, delete, compact, .. } = self.workload;
        let key = self.draw_key(dice);
        let draw = u32::try_from(dice.below(1_000_000)).expect("below a million");
        let call = if draw < get {
            Call::Get { key }
        } else if draw < get + scan {
            let (one, two) = (key.0, self.draw_key(dice).0);
            Call::Scan { first: Key(one.min(two)), end: Key(one.max(two) + 1) }
        } else if draw < get + scan + swap {
            let known = self.remembered.get(&key).map_or(&[][..], Vec::as_slice);
            let choice = dice.position(known.len() + 1);
            let expected = known.get(choice).copied();
            let value = self.fresh_value();
            let other = Some(self.draw_key(dice)).filter(|other| *other != key);
            let also = other.map(|other| (other, self.fresh_value()));
            Call::Swap { key, expected, value, also }
        } else if draw < get + scan + swap + delete {
            Call::Delete { key }
        } else if draw < get + scan + swap + delete + compact && self.highest.0 > 2 {
            let revision =
                Revision(self.highest.0 - dice.below(self.highest.0.min(COMPACT_MARGIN)));
            Call::Compact { revision }
        } else {
            Call::Put { key, value: self.fresh_value() }
        };
        (call, self.favourite[client.0])
    }

    fn draw_key(&self, dice: &mut Dice) -> Key {
        let count = u64::from(self.workload.register_count);
        Key(u32::try_from(dice.below(count)).expect("below a u32"))
    }

    /// A client calls.
    pub fn begin(&mut self, client: ClientId, pending: Pending) {
        let before = self.pending[client.0].replace(pending);
        assert!(before.is_none(), "{client} has a call under way already");
    }

    /// A client's call has ended. Gives what it was, `None` when it had ended before.
    pub fn end(&mut self, client: ClientId, now: Moment, outcome: Outcome) -> Option<Operation> {
        let Pending { call, called, at } = self.pending[client.0].take()?;
        if matches!(outcome, Outcome::Refused | Outcome::Unknown) {
            self.favourite[client.0] = ProcessId((at.0.0 + 1) % self.process_count);
        }
        let operation = Operation { client, call, called, ended: now, outcome };
        self.remember(&operation);
        self.history.operations.push(operation.clone());
        Some(operation)
    }

    /// A client that did not know what became of a call is told that it has not happened and never will: from now on nobody
    /// may see what it would have done.
    pub fn deny(&mut self, number: usize) {
        let outcome = &mut self.history.operations[number].outcome;
        // The canary's lies are left as they are.
        if *outcome == Outcome::Unknown {
            *outcome = Outcome::Refused;
        }
    }

    fn remember(&mut self, operation: &Operation) {
        self.highest = self.highest.max(operation.outcome.revision().unwrap_or_default());
        let seen = match (&operation.outcome, operation.call) {
            (Outcome::Written(_) | Outcome::Unknown, call) => {
                let written = call.writes().into_iter().next();
                written.and_then(|(key, value)| Some((key, value?)))
            }
            (
                Outcome::Got(_, Some(found)) | Outcome::NotWritten(_, Some(found)),
                Call::Get { key } | Call::Swap { key, .. },
            ) => Some((key, found.value)),
            (
                Outcome::Got(..)
                | Outcome::NotWritten(..)
                | Outcome::Scanned(..)
                | Outcome::Deleted(..)
                | Outcome::Compacted(_)
                | Outcome::Refused,
                _,
            ) => None,
        };
        let Some((key, value)) = seen else { return };
        let values = self.remembered.entry(key).or_default();
        values.retain(|known| *known != value);
        values.push(value);
        if values.len() > REMEMBERED_COUNT {
            values.remove(0);
        }
    }

    /// What was asked and answered so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// For what replicas show of the past at the end.
    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swarm::Mix;

    #[test]
    fn values_are_unique_and_outcomes_are_recorded_once() {
        let mut clients = Clients::new(Mix::draw(1).workload, 1);
        let mut dice = Dice::new(1, "clients");
        let mut values = std::collections::BTreeSet::new();
        let client = ClientId(0);
        for number in 0..100 {
            let (call, process) = clients.draw(client, &mut dice);
            let called = Moment(number * 2);
            clients.begin(client, Pending { call, called, at: (process, Life(1)) });
            for value in call.writes().into_iter().filter_map(|(_, value)| value) {
                assert!(values.insert(value), "{value} is written twice");
            }
            let ended = Moment(number * 2 + 1);
            assert!(clients.end(client, ended, Outcome::Unknown).is_some());
            assert!(clients.end(client, ended, Outcome::Refused).is_none());
        }
        assert_eq!(clients.history().operations.len(), 100);
        assert!(values.len() > 10);
    }
}
