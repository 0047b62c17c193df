//! Linearizability of registers by search, without any witness.
//!
//! Wing and Gong 1993, with the memory of Lowe 2017 ("Testing for linearizability"): walk the list of calls and returns, try
//! to let each call that is under way take effect next, and never look twice at the same set of effects with the same
//! value. Registers are judged one by one, because linearizability is local (Herlihy and Wing 1990, theorem 1). A call
//! with an unknown outcome may take effect at any time after it, or never.

use super::Violation;
use crate::history::{Call, History, Key, Moment, Operation, Outcome, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The most steps of the search for one register: above it the history counts as rejected, because a judge that gives
/// up has not acquitted. Honest histories need about two steps an operation.
const STEP_COUNT_MAX: u64 = 5_000_000;

/// What a call does to one register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It holds this from now on, or nothing.
    Write(Option<Value>),
    /// It held something and holds nothing from now on. What it held may be what a call of unknown outcome wrote that is
    /// left out because nobody saw it: then it may seem to hold nothing.
    Empty(Excuse),
    /// It holds exactly this.
    Read(Option<Value>),
    /// It held the first and holds the second from now on.
    Swap(Option<Value>, Value),
    /// It held anything else than this.
    Differs(Option<Value>, Option<Value>),
}

/// Whether a delete of what seems to be nothing can be explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// No.
    None,
    /// By a write that was left out and began before the delete had ended.
    UnseenWrite,
}

/// One call as seen by one register.
#[derive(Clone, Copy, Debug)]
struct Step {
    /// What it does.
    action: Action,
    /// When it was called.
    called: Moment,
    /// When it returned; `None` when it may take effect at any later time, or never.
    returned: Option<Moment>,
}

impl Action {
    /// The value afterwards; `None` when the action is impossible on this value.
    fn apply(self, held: Option<Value>) -> Option<Option<Value>> {
        match self {
            Action::Write(value) => Some(value),
            Action::Empty(Excuse::None) => held.map(|_| None),
            Action::Empty(Excuse::UnseenWrite) => Some(None),
            Action::Read(expected) => (expected == held).then_some(held),
            Action::Swap(expected, value) => (expected == held).then_some(Some(value)),
            Action::Differs(expected, found) => (expected != held && found == held).then_some(held),
        }
    }
}

/// Checks every register of a history.
///
/// # Errors
/// When a register has no legal order, or none was found within the bound.
pub fn check(history: &History) -> Result<(), Violation> {
    let registers = split(history);
    registers.into_iter().try_for_each(|(key, steps)| check_register(key, steps))
}

fn violation(seen: String) -> Violation {
    Violation { promise: "linearizable", seen }
}

/// The calls of each register.
fn split(history: &History) -> BTreeMap<Key, Vec<Step>> {
    let seen = values_seen(history);
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for operation in &history.operations {
        match operation.call {
            Call::Put { key, .. } | Call::Delete { key } | Call::Get { key } => {
                keys.insert(key);
            }
            Call::Swap { key, also, .. } => {
                keys.insert(key);
                keys.extend(also.map(|(key, _)| key));
            }
            Call::Scan { .. } | Call::Compact { .. } => {}
        }
    }
    let mut registers: BTreeMap<Key, Vec<Step>> = BTreeMap::new();
    let mut left_out: BTreeMap<Key, Moment> = BTreeMap::new();
    for operation in &history.operations {
        for (key, action) in actions(operation, &keys) {
            let returned = (operation.outcome != Outcome::Unknown).then_some(operation.ended);
            // A write of unknown outcome that nobody ever saw may as well not have happened: leaving it out changes no
            // other answer, and each one left in can double the search.
            let unseen = match action {
                Action::Write(Some(value)) | Action::Swap(_, value) => !seen.contains(&value),
                Action::Write(None) | Action::Empty(_) | Action::Read(_) | Action::Differs(..) => {
                    false
                }
            };
            if returned.is_none() && unseen {
                let first = left_out.entry(key).or_insert(operation.called);
                *first = operation.called.min(*first);
                continue;
            }
            registers.entry(key).or_default().push(Step {
                action,
                called: operation.called,
                returned,
            });
        }
    }
    for (key, first) in left_out {
        for step in registers.get_mut(&key).into_iter().flatten() {
            if step.returned.is_some_and(|returned| returned > first)
                && let Action::Empty(excuse) = &mut step.action
            {
                *excuse = Excuse::UnseenWrite;
            }
        }
    }
    registers
}

/// The values that somebody saw, or had to find for what somebody saw.
fn values_seen(history: &History) -> BTreeSet<Value> {
    let mut seen = BTreeSet::new();
    // What a swap of unknown outcome needs, by what it leaves.
    let mut needed: BTreeMap<Value, Value> = BTreeMap::new();
    for operation in &history.operations {
        let found = operation.outcome.found(operation.call);
        seen.extend(found.into_iter().map(|(_, found)| found.value));
        let Call::Swap { expected, value, also, .. } = operation.call else { continue };
        if matches!(operation.outcome, Outcome::Written(_)) {
            seen.extend(expected);
        } else if let (Outcome::Unknown, Some(expected)) = (&operation.outcome, expected) {
            let left = [value].into_iter().chain(also.map(|(_, value)| value));
            needed.extend(left.map(|value| (value, expected)));
        }
    }
    let mut open: Vec<Value> = seen.iter().copied().collect();
    while let Some(value) = open.pop() {
        if let Some(expected) = needed.get(&value)
            && seen.insert(*expected)
        {
            open.push(*expected);
        }
    }
    seen
}

/// What an operation does to each register. The parts of a transaction are judged one by one: that they happen at once is
/// for the witness to show.
fn actions(operation: &Operation, keys: &BTreeSet<Key>) -> Vec<(Key, Action)> {
    match (&operation.outcome, operation.call) {
        (Outcome::Written(_) | Outcome::Unknown, Call::Put { key, value }) => {
            vec![(key, Action::Write(Some(value)))]
        }
        (Outcome::Written(_) | Outcome::Unknown, Call::Swap { key, expected, value, also }) => {
            let also = also.map(|(key, value)| (key, Action::Write(Some(value))));
            [(key, Action::Swap(expected, value))].into_iter().chain(also).collect()
        }
        (Outcome::NotWritten(_, found), Call::Swap { key, expected, .. }) => {
            vec![(key, Action::Differs(expected, found.map(|found| found.value)))]
        }
        (Outcome::Unknown, Call::Delete { key }) => vec![(key, Action::Write(None))],
        (Outcome::Deleted(_, true), Call::Delete { key }) => {
            vec![(key, Action::Empty(Excuse::None))]
        }
        (Outcome::Deleted(_, false), Call::Delete { key }) => vec![(key, Action::Read(None))],
        (Outcome::Got(_, found), Call::Get { key }) => {
            vec![(key, Action::Read(found.map(|found| found.value)))]
        }
        (Outcome::Scanned(_, all), Call::Scan { first, end }) => keys
            .range(first..end)
            .map(|key| (*key, Action::Read(all.get(key).map(|found| found.value))))
            .collect(),
        (
            Outcome::Written(_)
            | Outcome::NotWritten(..)
            | Outcome::Deleted(..)
            | Outcome::Compacted(_)
            | Outcome::Got(..)
            | Outcome::Scanned(..)
            | Outcome::Refused
            | Outcome::Unknown,
            _,
        ) => Vec::new(),
    }
}

/// A place in the list of events: the call or the return of a step.
#[derive(Clone, Copy, Debug)]
struct Node {
    /// Which step.
    step: usize,
    /// Whether this is the return.
    is_return: bool,
    /// The place before, by position in the arena; the head is 0.
    previous: usize,
    /// The place after; 0 at the end.
    next: usize,
}

/// The events in order, as a list from which the two places of a step can be lifted and put back in constant time.
struct Events {
    /// The places; the first is the head.
    nodes: Vec<Node>,
    /// The places of call and return of each step; 0 where there is no return.
    places: Vec<(usize, usize)>,
}

impl Events {
    fn new(steps: &[Step]) -> Events {
        let mut order: Vec<(Moment, usize, bool)> = Vec::with_capacity(steps.len() * 2);
        for (number, step) in steps.iter().enumerate() {
            order.push((step.called, number, false));
            if let Some(returned) = step.returned {
                order.push((returned, number, true));
            }
        }
        order.sort_unstable();
        let mut nodes = vec![Node { step: usize::MAX, is_return: false, previous: 0, next: 0 }];
        let mut places = vec![(0, 0); steps.len()];
        for (_, step, is_return) in order {
            let place = nodes.len();
            nodes[place - 1].next = place;
            nodes.push(Node { step, is_return, previous: place - 1, next: 0 });
            if is_return {
                places[step].1 = place;
            } else {
                places[step].0 = place;
            }
        }
        Events { nodes, places }
    }

    fn unlink(&mut self, place: usize) {
        let Node { previous, next, .. } = self.nodes[place];
        self.nodes[previous].next = next;
        if next != 0 {
            self.nodes[next].previous = previous;
        }
    }

    fn relink(&mut self, place: usize) {
        let Node { previous, next, .. } = self.nodes[place];
        self.nodes[previous].next = place;
        if next != 0 {
            self.nodes[next].previous = place;
        }
    }

    fn lift(&mut self, step: usize) {
        let (call, returned) = self.places[step];
        self.unlink(call);
        if returned != 0 {
            self.unlink(returned);
        }
    }

    fn put_back(&mut self, step: usize) {
        let (call, returned) = self.places[step];
        if returned != 0 {
            self.relink(returned);
        }
        self.relink(call);
    }
}

/// Which steps have taken effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Effects(Vec<u64>);

impl Effects {
    fn flip(&mut self, step: usize) {
        self.0[step / 64] ^= 1 << (step % 64);
    }

    fn has(&self, step: usize) -> bool {
        self.0[step / 64] & (1 << (step % 64)) != 0
    }
}

/// For each delete of unknown outcome the one called before it.
///
/// They are all alike and may take effect at any time after their calls, so where one is taken the earliest would do, and no
/// order needs them in another.
fn earlier_deletes(steps: &[Step]) -> Vec<Option<usize>> {
    let is_loose = |step: &Step| step.returned.is_none() && step.action == Action::Write(None);
    let mut deletes: Vec<usize> = (0..steps.len()).filter(|at| is_loose(&steps[*at])).collect();
    deletes.sort_by_key(|at| steps[*at].called);
    let mut earlier = vec![None; steps.len()];
    for pair in deletes.windows(2) {
        earlier[pair[1]] = Some(pair[0]);
    }
    earlier
}

/// What the search has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Reached {
    /// Which steps have taken effect.
    effects: Effects,
    /// What the register holds.
    held: Option<Value>,
    /// Whether the last effect is of unknown outcome. Then a plain write does not come next: nobody would have seen the
    /// effect, and without it the order is as good.
    is_guess: bool,
}

impl Reached {
    /// Where one more step leads, if it is possible and worth a look; `earlier` is to be taken before it.
    fn after(&self, step: usize, steps: &[Step], earlier: Option<usize>) -> Option<Reached> {
        let Step { action, returned, .. } = steps[step];
        let is_unseen = self.is_guess && matches!(action, Action::Write(_));
        if is_unseen || earlier.is_some_and(|earlier| !self.effects.has(earlier)) {
            return None;
        }
        let held = action.apply(self.held)?;
        let mut effects = self.effects.clone();
        effects.flip(step);
        Some(Reached { effects, held, is_guess: returned.is_none() })
    }
}

fn check_register(key: Key, steps: Vec<Step>) -> Result<(), Violation> {
    let mut events = Events::new(&steps);
    let earlier = earlier_deletes(&steps);
    let effects = Effects(vec![0; steps.len().div_ceil(64)]);
    let mut reached = Reached { effects, ..Reached::default() };
    let mut seen: BTreeSet<Reached> = BTreeSet::new();
    let mut taken: Vec<(usize, Option<Value>, bool)> = Vec::new();
    let mut waiting = steps.iter().filter(|step| step.returned.is_some()).count();
    let mut place = events.nodes[0].next;
    let mut deepest = 0;
    for _ in 0..STEP_COUNT_MAX {
        if waiting == 0 {
            return Ok(());
        }
        let node = events.nodes[place];
        if place != 0 && !node.is_return {
            if let Some(next) = reached.after(node.step, &steps, earlier[node.step])
                && seen.insert(next.clone())
            {
                taken.push((node.step, reached.held, reached.is_guess));
                reached = next;
                waiting -= usize::from(steps[node.step].returned.is_some());
                events.lift(node.step);
                deepest = deepest.max(taken.len());
                place = events.nodes[0].next;
                continue;
            }
            place = node.next;
            continue;
        }
        // A return whose call has not taken effect, or the end: the last effect was a wrong choice.
        let Some((step, held, is_guess)) = taken.pop() else {
            let count = steps.len();
            return Err(violation(format!(
                "{key} has no legal order: of {count} calls at most {deepest} fit together"
            )));
        };
        (reached.held, reached.is_guess) = (held, is_guess);
        reached.effects.flip(step);
        waiting += usize::from(steps[step].returned.is_some());
        events.put_back(step);
        place = events.nodes[events.places[step].0].next;
    }
    Err(violation(format!("{key}: no legal order was found in {STEP_COUNT_MAX} steps")))
}
