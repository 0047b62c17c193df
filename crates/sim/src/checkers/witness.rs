//! Strict serializability with the store's revision as the witness: checked, not trusted.
//!
//! Every change names the revision that it became, every read the revision that it shows and the one that wrote what it
//! found. If that order explains all values and never runs against real time, it is a legal serial order; a witness that
//! lies does not pass, because each read is replayed against it, and each revision belongs to one call, whole and once.
//! (Herlihy and Wing 1990 for the definition; the witness in place of a search as in Jepsen's etcd tests; each origin at
//! most once, C8 of the common invariants.) Linear in the number of operations, up to sorting.

use super::Violation;
use crate::history::{
    Call, Change, Found, History, Key, Moment, Operation, Outcome, Revision, Value,
};
use std::collections::BTreeMap;

/// The revision of the first change: an empty store is at revision 1.
const FIRST_CHANGE: u64 = 2;

/// The order that the revisions claim.
struct Order<'a> {
    /// What was asked and answered.
    operations: &'a [Operation],
    /// Which call would write each value.
    by_value: BTreeMap<Value, usize>,
    /// As which revision each call took effect, where that is known.
    effects: Vec<Option<Revision>>,
    /// Which call each revision is.
    owners: BTreeMap<Revision, usize>,
    /// The changes of each register, in order; `None` where it was emptied.
    by_key: BTreeMap<Key, BTreeMap<Revision, Option<Value>>>,
    /// The highest revision anybody was shown.
    highest: Revision,
}

/// Checks a whole history.
///
/// # Errors
/// The first thing that no serial order allows.
pub fn check(history: &History) -> Result<(), Violation> {
    let mut order = Order::new(&history.operations)?;
    for number in 0..history.operations.len() {
        order.take_claims(number)?;
    }
    for recall in &history.recalls {
        if let Some(found) = recall.found {
            order.take_found(recall.key, found)?;
        }
    }
    for change in &history.changes {
        order.take_change(change)?;
    }
    order.sort_by_key();
    check_real_time(&order)?;
    order.check_gaps()?;
    for number in 0..history.operations.len() {
        order.check_reads(number)?;
    }
    for recall in &history.recalls {
        order.check_read(recall.key, recall.revision, recall.found, recall)?;
    }
    Ok(())
}

fn violation(seen: String) -> Violation {
    Violation { promise: "witness", seen }
}

impl<'a> Order<'a> {
    fn new(operations: &'a [Operation]) -> Result<Order<'a>, Violation> {
        let mut by_value = BTreeMap::new();
        for (number, operation) in operations.iter().enumerate() {
            for value in operation.call.writes().into_iter().filter_map(|(_, value)| value) {
                if by_value.insert(value, number).is_some() {
                    let seen = format!("two calls write {value}: the workload is wrong");
                    return Err(violation(seen));
                }
            }
        }
        Ok(Order {
            operations,
            by_value,
            effects: vec![None; operations.len()],
            owners: BTreeMap::new(),
            by_key: BTreeMap::new(),
            highest: Revision::default(),
        })
    }

    /// Takes in what an operation says was written, by itself or by others.
    fn take_claims(&mut self, number: usize) -> Result<(), Violation> {
        let operation = &self.operations[number];
        self.highest = self.highest.max(operation.outcome.revision().unwrap_or_default());
        if !fits(operation) {
            return Err(violation(format!("an answer to another question: {operation}")));
        }
        if let Outcome::Written(revision) | Outcome::Deleted(revision, true) = operation.outcome {
            self.claim(number, revision)?;
        }
        for (key, found) in operation.outcome.found(operation.call) {
            self.take_found(key, found)?;
        }
        Ok(())
    }

    /// A call took effect as this revision.
    fn claim(&mut self, number: usize, revision: Revision) -> Result<(), Violation> {
        let operation = &self.operations[number];
        if let Some(other) = self.effects[number].replace(revision).filter(|r| *r != revision) {
            return Err(violation(format!("{operation} took effect at {other} and {revision}")));
        }
        let owner = *self.owners.entry(revision).or_insert(number);
        if owner != number {
            let other = &self.operations[owner];
            return Err(violation(format!("{revision} is both {other} and {operation}")));
        }
        Ok(())
    }

    /// Takes in that this value stands in this register, written by this revision.
    fn take_found(&mut self, key: Key, found: Found) -> Result<(), Violation> {
        let Found { value, written_at } = found;
        let Some(number) = self.by_value.get(&value).copied() else {
            return Err(violation(format!("{key} holds {value}, which nobody wrote")));
        };
        let operation = &self.operations[number];
        if !operation.call.writes().contains(&(key, Some(value))) {
            return Err(violation(format!("{key} holds {value}, written elsewhere: {operation}")));
        }
        if matches!(operation.outcome, Outcome::Refused | Outcome::NotWritten(..)) {
            return Err(violation(format!("{key} holds {value}, which was denied: {operation}")));
        }
        self.claim(number, written_at)
    }

    /// Takes in what a revision did that no client was told of: it must be a call of unknown outcome, whole.
    fn take_change(&mut self, change: &Change) -> Result<(), Violation> {
        let Change { revision, writes } = change;
        let values = writes.iter().find_map(|(_, value)| *value);
        let unknown = |operation: &Operation| operation.outcome == Outcome::Unknown;
        let number = match values {
            Some(value) => self.by_value.get(&value).copied(),
            // Which of several deletes it was makes no difference: the one called first leaves most room.
            None => (0..self.operations.len())
                .filter(|number| {
                    let Call::Delete { key } = self.operations[*number].call else { return false };
                    self.effects[*number].is_none()
                        && unknown(&self.operations[*number])
                        && writes.contains_key(&key)
                })
                .min_by_key(|number| self.operations[*number].called),
        };
        let found = number.map(|number| &self.operations[number]);
        let is_whole = found.is_some_and(|operation| {
            let expected: BTreeMap<Key, Option<Value>> =
                operation.call.writes().into_iter().collect();
            unknown(operation) && expected == *writes
        });
        let Some(number) = number.filter(|_| is_whole) else {
            return Err(violation(format!("{revision} wrote {writes:?}, which nobody asked for")));
        };
        self.claim(number, *revision)
    }

    fn sort_by_key(&mut self) {
        for (revision, number) in &self.owners {
            for (key, value) in self.operations[*number].call.writes() {
                self.by_key.entry(key).or_default().insert(*revision, value);
            }
        }
    }

    /// When an operation took effect.
    fn effect(&self, number: usize) -> Option<Revision> {
        self.effects[number].or_else(|| self.operations[number].outcome.revision())
    }

    /// Replays what an operation read.
    fn check_reads(&self, number: usize) -> Result<(), Violation> {
        let operation = &self.operations[number];
        match (&operation.outcome, operation.call) {
            (Outcome::Got(revision, found), Call::Get { key }) => {
                self.check_read(key, *revision, *found, operation)?;
            }
            (Outcome::NotWritten(revision, found), Call::Swap { key, expected, .. }) => {
                self.check_read(key, *revision, *found, operation)?;
                if expected == found.map(|found| found.value) {
                    return Err(violation(format!("a swap that must have written: {operation}")));
                }
            }
            (Outcome::Scanned(revision, all), Call::Scan { first, end }) => {
                for (key, _) in self.by_key.range(first..end) {
                    self.check_read(*key, *revision, all.get(key).copied(), operation)?;
                }
            }
            (Outcome::Deleted(revision, false), Call::Delete { key }) => {
                self.check_read(key, *revision, None, operation)?;
            }
            (_, Call::Swap { key, expected, .. }) => {
                // The revision just before the swap's own must show what the swap expected.
                let Some(revision) = self.effects[number] else { return Ok(()) };
                let before = self.at(key, Revision(revision.0.saturating_sub(1)));
                let held = before.map(|found| found.value);
                if held != expected && !self.may_hold_before(key, expected, revision) {
                    let seen = format!("a swap wrote over what it did not expect: {operation}");
                    return Err(violation(seen));
                }
            }
            (_, Call::Delete { key }) => {
                let Some(revision) = self.effects[number] else { return Ok(()) };
                let before = self.at(key, Revision(revision.0.saturating_sub(1)));
                if before.is_none() && !self.is_room_for(key, revision, |value| value.is_some()) {
                    let seen = format!("a delete of a register that was empty: {operation}");
                    return Err(violation(seen));
                }
            }
            (_, Call::Put { .. } | Call::Get { .. } | Call::Scan { .. } | Call::Compact { .. }) => {
            }
        }
        Ok(())
    }

    /// Whether a register may have held this before `revision` by a call of which no revision is known.
    fn may_hold_before(&self, key: Key, held: Option<Value>, revision: Revision) -> bool {
        self.is_room_for(key, revision, |value| value == held)
    }

    /// Whether a call of unknown outcome, that no revision is known of, would leave a register so, and a revision between
    /// what is known to have stood there before `revision` and that revision is nobody's.
    fn is_room_for(
        &self,
        key: Key,
        revision: Revision,
        leaves: impl Fn(Option<Value>) -> bool,
    ) -> bool {
        let changes = self.by_key.get(&key);
        let last = changes.and_then(|changes| changes.range(..revision).next_back());
        let first = last.map_or(FIRST_CHANGE, |(last, _)| last.0 + 1);
        let claimed = self.owners.range(Revision(first.min(revision.0))..revision).count() as u64;
        if claimed >= revision.0.saturating_sub(first) {
            return false;
        }
        self.unplaced().any(|operation| {
            operation.call.writes().into_iter().any(|(at, value)| at == key && leaves(value))
        })
    }

    /// The writes of unknown outcome that no revision is known of.
    fn unplaced(&self) -> impl Iterator<Item = &Operation> {
        let pairs = self.operations.iter().zip(&self.effects);
        let unplaced = pairs.filter(|(operation, effect)| {
            effect.is_none() && operation.outcome == Outcome::Unknown && operation.call.is_write()
        });
        unplaced.map(|(operation, _)| operation)
    }

    fn check_read(
        &self,
        key: Key,
        revision: Revision,
        found: Option<Found>,
        reader: &dyn std::fmt::Display,
    ) -> Result<(), Violation> {
        let expected = self.at(key, revision);
        let after = Revision(revision.0 + 1);
        if expected == found
            || found.is_none() && self.is_room_for(key, after, |value| value.is_none())
        {
            return Ok(());
        }
        let expected = expected.map_or("nothing".to_owned(), |found| {
            format!("{} of {}", found.value, found.written_at)
        });
        Err(violation(format!("{key} held {expected} at {revision}, but: {reader}")))
    }

    /// What the claimed order puts into a register at a revision.
    fn at(&self, key: Key, revision: Revision) -> Option<Found> {
        let changes = self.by_key.get(&key)?;
        let (written_at, value) = changes.range(..=revision).next_back()?;
        value.map(|value| Found { value, written_at: *written_at })
    }

    /// Each revision that nobody claims must be a change whose outcome is unknown.
    fn check_gaps(&self) -> Result<(), Violation> {
        let unplaced_count = self.unplaced().count() as u64;
        let change_count = (self.highest.0 + 1).saturating_sub(FIRST_CHANGE);
        let highest = self.highest.max(Revision(FIRST_CHANGE));
        let claimed = self.owners.range(Revision(FIRST_CHANGE)..=highest).count() as u64;
        let gap_count = change_count.saturating_sub(claimed);
        if gap_count > unplaced_count {
            return Err(violation(format!(
                "{gap_count} of the revisions up to {} were written by nobody, but only \
                 {unplaced_count} writes have an unknown outcome",
                self.highest
            )));
        }
        Ok(())
    }
}

/// Whether an outcome answers the call.
fn fits(operation: &Operation) -> bool {
    match (&operation.outcome, operation.call) {
        (Outcome::Refused | Outcome::Unknown, _)
        | (Outcome::Written(_), Call::Put { .. } | Call::Swap { .. })
        | (Outcome::NotWritten(..), Call::Swap { .. })
        | (Outcome::Deleted(..), Call::Delete { .. })
        | (Outcome::Compacted(_), Call::Compact { .. })
        | (Outcome::Got(..), Call::Get { .. })
        | (Outcome::Scanned(..), Call::Scan { .. }) => true,
        (
            Outcome::Written(_)
            | Outcome::NotWritten(..)
            | Outcome::Deleted(..)
            | Outcome::Compacted(_)
            | Outcome::Got(..)
            | Outcome::Scanned(..),
            _,
        ) => false,
    }
}

/// An operation that began after another had ended must take effect after it.
fn check_real_time(order: &Order<'_>) -> Result<(), Violation> {
    let operations = order.operations;
    let mut ends: Vec<(Moment, Revision, usize)> = Vec::new();
    let mut calls: Vec<usize> = (0..operations.len()).collect();
    for number in calls.iter().copied() {
        let is_known = operations[number].outcome != Outcome::Unknown;
        if let Some(effect) = order.effect(number).filter(|_| is_known) {
            ends.push((operations[number].ended, effect, number));
        }
    }
    ends.sort_unstable();
    calls.sort_by_key(|number| operations[*number].called);
    let mut ends = ends.into_iter().peekable();
    let mut floor: Option<(Revision, usize)> = None;
    for number in calls {
        let operation = &operations[number];
        while let Some((_, effect, ended)) = ends.next_if(|(ended, ..)| *ended < operation.called) {
            if floor.is_none_or(|(highest, _)| effect > highest) {
                floor = Some((effect, ended));
            }
        }
        let (Some(effect), Some((highest, earlier))) = (order.effect(number), floor) else {
            continue;
        };
        let writes = order.effects[number].is_some();
        if effect < highest || (writes && effect == highest) {
            let earlier = &operations[earlier];
            return Err(violation(format!(
                "{operation} took effect at {effect}, but earlier: {earlier}"
            )));
        }
    }
    Ok(())
}
