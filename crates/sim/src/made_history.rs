//! Legal histories of any length, made without a cluster: what judges of consistency must accept, and how fast they do.

use crate::dice::{Dice, PartsPerMillion};
use crate::history::{
    Call, Change, ClientId, Found, History, Key, Moment, Operation, Outcome, Revision, Value,
};
use std::collections::{BTreeMap, BTreeSet};

/// What a history is made of.
#[derive(Clone, Copy, Debug)]
pub struct Recipe {
    /// How many calls are made.
    pub operation_count: usize,
    /// How many clients make them, each one at a time.
    pub client_count: usize,
    /// How many registers they share.
    pub register_count: u32,
    /// How many calls end with an unknown outcome; half of those have taken effect.
    pub unknown: PartsPerMillion,
}

/// A call under way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    /// What was asked.
    call: Call,
    /// When.
    called: Moment,
}

/// The registers while a history is made.
struct Maker {
    /// What happens by chance.
    dice: Dice,
    /// What each register holds.
    registers: BTreeMap<Key, Found>,
    /// The revision of the last change.
    revision: Revision,
    /// The last value that a call has named.
    value: u64,
    /// The calls that were made.
    made: usize,
    /// The history so far.
    history: History,
    /// What revisions did that the client who asked for it does not know of.
    untold: BTreeMap<Revision, BTreeMap<Key, Option<Value>>>,
}

/// Makes a history: a serial one, of which clients see the calls begin before and end after they take effect.
#[must_use]
pub fn make(seed: u64, recipe: Recipe) -> History {
    let mut maker = Maker {
        dice: Dice::new(seed, "history"),
        registers: BTreeMap::new(),
        revision: Revision(1),
        value: 0,
        made: 0,
        history: History::default(),
        untold: BTreeMap::new(),
    };
    let mut pending: Vec<Option<Pending>> = vec![None; recipe.client_count];
    let mut ended: Vec<Option<(Pending, Outcome)>> = vec![None; recipe.client_count];
    let mut moment = 0;
    while maker.history.operations.len() < recipe.operation_count {
        let client = maker.dice.position(recipe.client_count);
        moment += 1;
        if let Some((Pending { call, called }, outcome)) = ended[client].take() {
            let (client, ended) = (ClientId(client), Moment(moment));
            maker.history.operations.push(Operation { client, call, called, ended, outcome });
        } else if let Some(begun) = pending[client].take() {
            ended[client] = Some((begun, maker.take_effect(begun.call, recipe.unknown)));
        } else if maker.made < recipe.operation_count {
            maker.made += 1;
            let call = maker.draw(recipe.register_count);
            pending[client] = Some(Pending { call, called: Moment(moment) });
        }
    }
    maker.finish()
}

impl Maker {
    fn draw(&mut self, register_count: u32) -> Call {
        let key = Key(u32::try_from(self.dice.below(register_count.into())).expect("it is below"));
        self.value += 1;
        let value = Value(self.value);
        match self.dice.below(100) {
            0..40 => Call::Put { key, value },
            40..50 => {
                let held = self.registers.get(&key).map(|found| found.value);
                let expected = held.filter(|_| self.dice.chance(800_000));
                Call::Swap { key, expected, value, also: None }
            }
            50..53 => Call::Delete { key },
            53..56 => Call::Scan { first: key, end: Key(key.0 + 5) },
            _ => Call::Get { key },
        }
    }

    fn take_effect(&mut self, call: Call, unknown: PartsPerMillion) -> Outcome {
        let is_unknown = self.dice.chance(unknown);
        if is_unknown && self.dice.chance(500_000) {
            return Outcome::Unknown;
        }
        let outcome = self.carry_out(call);
        if !is_unknown {
            return outcome;
        }
        if let Outcome::Written(revision) | Outcome::Deleted(revision, true) = outcome {
            self.untold.insert(revision, call.writes().into_iter().collect());
        }
        Outcome::Unknown
    }

    fn carry_out(&mut self, call: Call) -> Outcome {
        match call {
            Call::Put { key, value } => self.write(key, value),
            Call::Swap { key, expected, value, also: _ } => {
                let held = self.registers.get(&key).copied();
                match held.map(|found| found.value) == expected {
                    true => self.write(key, value),
                    false => Outcome::NotWritten(self.revision, held),
                }
            }
            Call::Delete { key } => {
                let is_there = self.registers.remove(&key).is_some();
                self.revision.0 += u64::from(is_there);
                Outcome::Deleted(self.revision, is_there)
            }
            Call::Get { key } => Outcome::Got(self.revision, self.registers.get(&key).copied()),
            Call::Scan { first, end } => {
                let range = self.registers.range(first..end);
                let all = range.map(|(key, found)| (*key, *found)).collect();
                Outcome::Scanned(self.revision, all)
            }
            Call::Compact { revision: _ } => Outcome::Compacted(self.revision),
        }
    }

    fn write(&mut self, key: Key, value: Value) -> Outcome {
        self.revision.0 += 1;
        self.registers.insert(key, Found { value, written_at: self.revision });
        Outcome::Written(self.revision)
    }

    /// Adds what replicas would show of the revisions that nobody was told of.
    fn finish(mut self) -> History {
        let found = self.history.operations.iter();
        let found = found.flat_map(|operation| operation.outcome.found(operation.call));
        let shown: BTreeSet<Revision> = found.map(|(_, found)| found.written_at).collect();
        let untold = self.untold.into_iter().filter(|(revision, _)| !shown.contains(revision));
        let changes = untold.map(|(revision, writes)| Change { revision, writes });
        self.history.changes = changes.collect();
        self.history
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::{linearizable, witness};

    const RECIPE: Recipe =
        Recipe { operation_count: 3_000, client_count: 16, register_count: 20, unknown: 50_000 };

    #[test]
    fn both_judges_accept_what_was_made() {
        for seed in 0..5 {
            let history = make(seed, RECIPE);
            assert_eq!(history.operations.len(), RECIPE.operation_count);
            assert_eq!(witness::check(&history), Ok(()), "seed {seed}");
            assert_eq!(linearizable::check(&history), Ok(()), "seed {seed}");
        }
    }

    #[test]
    fn one_wrong_read_among_thousands_is_noticed() {
        let mut history = make(7, RECIPE);
        let shown = |operation: &Operation| {
            let Outcome::Got(_, Some(found)) = &operation.outcome else { return None };
            Some(found.value)
        };
        let first = history.operations.iter().find_map(shown).expect("something was read");
        let late = history
            .operations
            .iter()
            .rposition(|operation| shown(operation).is_some_and(|value| value != first));
        let late = late.expect("something else was read later");
        let Outcome::Got(_, Some(found)) = &mut history.operations[late].outcome else {
            unreachable!("it was just seen")
        };
        found.value = first;
        assert!(witness::check(&history).is_err());
        assert!(linearizable::check(&history).is_err());
    }
}
