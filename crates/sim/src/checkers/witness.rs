//! Strict serializability with the store's revision as the witness: checked, not trusted.
//!
//! Every change names the revision that it became, every read the revision that it shows and the one that wrote what it
//! found. If that order explains all values and never runs against real time, it is a legal serial order; a witness that
//! lies does not pass, because each read is replayed against it. (Herlihy and Wing 1990 for the definition; the witness in
//! place of a search as in Jepsen's etcd tests.) Linear in the number of operations, up to sorting.

use super::Violation;
use crate::history::{Call, Found, History, Key, Moment, Operation, Outcome, Revision, Value};
use std::collections::BTreeMap;

/// The order that the revisions claim.
#[derive(Debug, Default)]
struct Order {
    /// What each revision wrote.
    written: BTreeMap<Revision, (Key, Value)>,
    /// The changes of each register, in order.
    by_key: BTreeMap<Key, BTreeMap<Revision, Value>>,
    /// Which revision wrote each value.
    by_value: BTreeMap<Value, Revision>,
    /// The highest revision anybody was shown.
    highest: Revision,
}

/// Checks a whole history.
///
/// # Errors
/// The first thing that no serial order allows.
pub fn check(history: &History) -> Result<(), Violation> {
    let calls = calls_by_value(history)?;
    let mut order = Order::default();
    for operation in &history.operations {
        order.take_claims(operation, &calls)?;
    }
    for recall in &history.recalls {
        if let Some(found) = recall.found {
            order.take_found(recall.key, found, &calls)?;
        }
    }
    check_real_time(history, &order)?;
    check_gaps(history, &order)?;
    for operation in &history.operations {
        order.check_reads(operation, &calls)?;
    }
    for recall in &history.recalls {
        order.check_read(recall.key, recall.revision, recall.found, recall)?;
    }
    Ok(())
}

fn violation(seen: String) -> Violation {
    Violation { promise: "witness", seen }
}

/// Which call would write each value.
fn calls_by_value(history: &History) -> Result<BTreeMap<Value, &Operation>, Violation> {
    let mut calls = BTreeMap::new();
    for operation in &history.operations {
        let Some((_, value)) = operation.call.write() else { continue };
        if calls.insert(value, operation).is_some() {
            return Err(violation(format!("two calls write {value}: the workload is wrong")));
        }
    }
    Ok(calls)
}

impl Order {
    /// Takes in what an operation says was written, by itself or by others.
    fn take_claims(
        &mut self,
        operation: &Operation,
        calls: &BTreeMap<Value, &Operation>,
    ) -> Result<(), Violation> {
        match (&operation.outcome, operation.call) {
            (Outcome::Written(revision), Call::Put { key, value })
            | (Outcome::Written(revision), Call::Swap { key, expected: _, value }) => {
                self.take_found(key, Found { value, written_at: *revision }, calls)?;
                self.highest = self.highest.max(*revision);
            }
            (Outcome::NotWritten(revision, found), Call::Swap { key, .. })
            | (Outcome::Got(revision, found), Call::Get { key }) => {
                if let Some(found) = found {
                    self.take_found(key, *found, calls)?;
                }
                self.highest = self.highest.max(*revision);
            }
            (Outcome::Scanned(revision, all), Call::Scan) => {
                for (key, found) in all {
                    self.take_found(*key, *found, calls)?;
                }
                self.highest = self.highest.max(*revision);
            }
            (Outcome::Refused | Outcome::Unknown, _) => {}
            (
                Outcome::Written(_)
                | Outcome::NotWritten(..)
                | Outcome::Got(..)
                | Outcome::Scanned(..),
                _,
            ) => {
                return Err(violation(format!("an answer to another question: {operation}")));
            }
        }
        Ok(())
    }

    /// Takes in that this value stands in this register, written by this revision.
    fn take_found(
        &mut self,
        key: Key,
        found: Found,
        calls: &BTreeMap<Value, &Operation>,
    ) -> Result<(), Violation> {
        let Found { value, written_at } = found;
        let Some(call) = calls.get(&value) else {
            return Err(violation(format!("{key} holds {value}, which nobody wrote")));
        };
        if call.call.write() != Some((key, value)) {
            return Err(violation(format!("{key} holds {value}, written elsewhere by {call}")));
        }
        if matches!(call.outcome, Outcome::Refused | Outcome::NotWritten(..)) {
            return Err(violation(format!("{key} holds {value}, which was denied: {call}")));
        }
        if let Some(other) = self.by_value.insert(value, written_at).filter(|r| *r != written_at) {
            return Err(violation(format!("{value} was written at {other} and at {written_at}")));
        }
        if let Some((other_key, other)) = self.written.insert(written_at, (key, value))
            && (other_key, other) != (key, value)
        {
            return Err(violation(format!(
                "{written_at} wrote {other_key}={other} and {key}={value}"
            )));
        }
        self.by_key.entry(key).or_default().insert(written_at, value);
        Ok(())
    }

    /// When an operation took effect.
    fn effect(&self, operation: &Operation) -> Option<Revision> {
        match &operation.outcome {
            Outcome::Written(revision)
            | Outcome::NotWritten(revision, _)
            | Outcome::Got(revision, _)
            | Outcome::Scanned(revision, _) => Some(*revision),
            Outcome::Refused => None,
            Outcome::Unknown => {
                let (_, value) = operation.call.write()?;
                self.by_value.get(&value).copied()
            }
        }
    }

    /// Replays what an operation read.
    fn check_reads(
        &self,
        operation: &Operation,
        calls: &BTreeMap<Value, &Operation>,
    ) -> Result<(), Violation> {
        match (&operation.outcome, operation.call) {
            (Outcome::Got(revision, found), Call::Get { key })
            | (Outcome::NotWritten(revision, found), Call::Swap { key, .. }) => {
                self.check_read(key, *revision, *found, operation)?;
                if let (Outcome::NotWritten(..), Call::Swap { expected, .. }) =
                    (&operation.outcome, operation.call)
                    && expected == found.map(|found| found.value)
                {
                    return Err(violation(format!("a swap that must have written: {operation}")));
                }
            }
            (Outcome::Scanned(revision, all), _) => {
                for key in self.by_key.keys() {
                    self.check_read(*key, *revision, all.get(key).copied(), operation)?;
                }
            }
            (Outcome::Written(_) | Outcome::Unknown, Call::Swap { key, expected, .. }) => {
                // The revision just before the swap's own must show what the swap expected.
                let Some(revision) = self.effect(operation) else { return Ok(()) };
                let before = self.at(key, Revision(revision.0.saturating_sub(1)));
                if before.map(|found| found.value) != expected
                    && !self.fits_before(key, expected, before, revision, calls)
                {
                    return Err(violation(format!(
                        "a swap wrote over what it did not expect: {operation}"
                    )));
                }
            }
            (
                Outcome::Written(_)
                | Outcome::NotWritten(..)
                | Outcome::Got(..)
                | Outcome::Refused
                | Outcome::Unknown,
                _,
            ) => {}
        }
        Ok(())
    }

    /// Whether a value of which no revision is known may have been written between what is known to have stood in a
    /// register before `revision` and that revision: its call has an unknown outcome, and a revision there is nobody's.
    fn fits_before(
        &self,
        key: Key,
        expected: Option<Value>,
        before: Option<Found>,
        revision: Revision,
        calls: &BTreeMap<Value, &Operation>,
    ) -> bool {
        let Some(value) = expected.filter(|value| !self.by_value.contains_key(value)) else {
            return false;
        };
        let is_possible = calls.get(&value).is_some_and(|call| {
            call.outcome == Outcome::Unknown && call.call.write() == Some((key, value))
        });
        let first = before.map_or(FIRST_CHANGE, |found| found.written_at.0 + 1);
        let claimed = self.written.range(Revision(first)..revision).count() as u64;
        is_possible && claimed < revision.0 - first
    }

    fn check_read(
        &self,
        key: Key,
        revision: Revision,
        found: Option<Found>,
        reader: &dyn std::fmt::Display,
    ) -> Result<(), Violation> {
        let expected = self.at(key, revision);
        if expected == found {
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
        Some(Found { value: *value, written_at: *written_at })
    }
}

/// An operation that began after another had ended must take effect after it.
fn check_real_time(history: &History, order: &Order) -> Result<(), Violation> {
    let mut ends: Vec<(Moment, Revision, &Operation)> = Vec::new();
    for operation in &history.operations {
        if operation.outcome == Outcome::Unknown {
            continue;
        }
        if let Some(effect) = order.effect(operation) {
            ends.push((operation.ended, effect, operation));
        }
    }
    ends.sort_by_key(|(ended, _, _)| *ended);
    let mut calls: Vec<&Operation> = history.operations.iter().collect();
    calls.sort_by_key(|operation| operation.called);
    let mut ends = ends.into_iter().peekable();
    let mut floor: Option<(Revision, &Operation)> = None;
    for operation in calls {
        while let Some((_, effect, ended)) = ends.next_if(|(ended, ..)| *ended < operation.called) {
            if floor.is_none_or(|(highest, _)| effect > highest) {
                floor = Some((effect, ended));
            }
        }
        let (Some(effect), Some((highest, earlier))) = (order.effect(operation), floor) else {
            continue;
        };
        let writes = order.written.get(&effect).map(|(_, value)| *value)
            == operation.call.write().map(|(_, value)| value)
            && operation.call.write().is_some();
        if effect < highest || (writes && effect == highest) {
            return Err(violation(format!(
                "{operation} took effect at {effect}, but earlier: {earlier}"
            )));
        }
    }
    Ok(())
}

/// The revision of the first change: an empty store is at revision 1.
const FIRST_CHANGE: u64 = 2;

/// Each revision that nobody claims must be a change whose outcome is unknown.
fn check_gaps(history: &History, order: &Order) -> Result<(), Violation> {
    let unclaimed = history.operations.iter().filter(|operation| {
        operation.outcome == Outcome::Unknown
            && operation.call.write().is_some_and(|(_, value)| !order.by_value.contains_key(&value))
    });
    let unclaimed_count = unclaimed.count() as u64;
    let change_count = (order.highest.0 + 1).saturating_sub(FIRST_CHANGE);
    let claimed =
        order.written.range(Revision(FIRST_CHANGE)..=order.highest.max(Revision(FIRST_CHANGE)));
    let gap_count = change_count.saturating_sub(claimed.count() as u64);
    if gap_count > unclaimed_count {
        return Err(violation(format!(
            "{gap_count} of the revisions up to {} were written by nobody, but only \
             {unclaimed_count} writes have an unknown outcome",
            order.highest
        )));
    }
    Ok(())
}
