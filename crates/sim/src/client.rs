//! Clients: each has one call under way, writes values that nobody else writes, and never trusts silence.

use crate::dice::Dice;
use crate::history::{Call, ClientId, History, Key, Moment, Operation, Outcome, Value};
use crate::network::{Life, ProcessId};
use crate::swarm::Workload;
use std::collections::BTreeMap;

/// How many of the latest values of a register a client may expect in a swap.
const REMEMBERED_COUNT: usize = 4;

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
    /// The process that each prefers.
    favourite: Vec<ProcessId>,
    /// The next value to write.
    next_value: u64,
    /// Values that swaps may expect: recently written or seen.
    remembered: BTreeMap<Key, Vec<Value>>,
    /// What was asked and answered.
    history: History,
}

impl Clients {
    /// Clients that have not called yet; `extra_count` more than the workload has are for the probes at the end.
    #[must_use]
    pub fn new(workload: Workload, extra_count: usize) -> Clients {
        let count = workload.client_count + extra_count;
        Clients {
            workload,
            pending: vec![None; count],
            favourite: (0..count).map(|client| ProcessId(client % 3)).collect(),
            next_value: 1,
            remembered: BTreeMap::new(),
            history: History::default(),
        }
    }

    /// The call under way of a client.
    #[must_use]
    pub fn pending(&self, client: ClientId) -> Option<&Pending> {
        self.pending[client.0].as_ref()
    }

    /// A value that nobody has written yet.
    pub fn fresh_value(&mut self) -> Value {
        self.next_value += 1;
        Value(self.next_value - 1)
    }

    /// The next call of a client of the workload, and where it goes.
    pub fn draw(
        &mut self,
        client: ClientId,
        process_count: usize,
        dice: &mut Dice,
    ) -> (Call, ProcessId) {
        if dice.chance(100_000) {
            self.favourite[client.0] = ProcessId(dice.position(process_count));
        }
        let Workload { register_count, get, scan, swap, .. } = self.workload;
        let key = Key(u32::try_from(dice.below(register_count.into())).expect("below a u32"));
        let draw = u32::try_from(dice.below(1_000_000)).expect("below a million");
        let call = if draw < get {
            Call::Get { key }
        } else if draw < get + scan {
            Call::Scan
        } else if draw < get + scan + swap {
            let known = self.remembered.get(&key).map_or(&[][..], Vec::as_slice);
            let choice = dice.position(known.len() + 1);
            let expected = known.get(choice).copied();
            Call::Swap { key, expected, value: self.fresh_value() }
        } else {
            Call::Put { key, value: self.fresh_value() }
        };
        (call, self.favourite[client.0])
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
            self.favourite[client.0] = ProcessId((at.0.0 + 1) % 3);
        }
        let operation = Operation { client, call, called, ended: now, outcome };
        self.remember(&operation);
        self.history.operations.push(operation.clone());
        Some(operation)
    }

    fn remember(&mut self, operation: &Operation) {
        let seen = match (&operation.outcome, operation.call) {
            (Outcome::Written(_) | Outcome::Unknown, call) => call.write(),
            (
                Outcome::Got(_, Some(found)) | Outcome::NotWritten(_, Some(found)),
                Call::Get { key } | Call::Swap { key, .. },
            ) => Some((key, found.value)),
            (
                Outcome::Got(..)
                | Outcome::NotWritten(..)
                | Outcome::Scanned(..)
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
            let (call, process) = clients.draw(client, 3, &mut dice);
            let called = Moment(number * 2);
            clients.begin(client, Pending { call, called, at: (process, Life(1)) });
            if let Some((_, value)) = call.write() {
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
