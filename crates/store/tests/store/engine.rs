//! The engine in memory against a list of states: what views show, and what crashes take back.

use crate::harness::*;
use bytes::Bytes;
use quorate_store::engine::*;
use std::collections::BTreeMap;

type State = BTreeMap<Bytes, Bytes>;

/// The device, and what it must hold.
struct Twin {
    disk: MemoryDisk,
    engine: MemoryEngine,
    /// The state after each batch since the last one that no crash can take back.
    states: Vec<State>,
    /// Views, and what they must go on to show.
    views: Vec<(MemoryView, State)>,
}

fn changes(dice: &mut Dice) -> Vec<Change> {
    let mut changes: BTreeMap<Bytes, Option<Bytes>> = BTreeMap::new();
    for _ in 0..=dice.below(3) {
        let value = (dice.below(3) > 0).then(|| bytes(&dice.below(1_000).to_string()));
        changes.insert(bytes(&format!("k{}", dice.below(5))), value);
    }
    let change = |(key, value)| Change { table: Table::Current, key, value };
    changes.into_iter().map(change).collect()
}

fn changed(mut state: State, changes: &[Change]) -> State {
    for Change { key, value, .. } in changes {
        match value {
            Some(value) => drop(state.insert(key.clone(), value.clone())),
            None => drop(state.remove(key)),
        }
    }
    state
}

fn check(view: &MemoryView, state: &State, at: u64) {
    for (direction, from, to) in [
        (Direction::Forward, "", "~"),
        (Direction::Backward, "", "~"),
        (Direction::Forward, "k1", "k3"),
        (Direction::Backward, "k1", "k3"),
        (Direction::Forward, "k3", "k1"),
    ] {
        let (start, end) = (bytes(from), bytes(to));
        let found = view.scan(Table::Current, &start, &end, direction);
        let found: Vec<_> = found.map(|pair| pair.expect("memory does not fail")).collect();
        let mut expected: Vec<_> = state.clone().into_iter().collect();
        expected.retain(|(key, _)| start <= *key && *key < end);
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(found, expected, "{direction:?} {from}..{to} at {at}");
    }
    for key in (0..6).map(|number| bytes(&format!("k{number}"))) {
        assert_eq!(view.read(Table::Current, &key), Ok(state.get(&key).cloned()), "at {at}");
    }
}

impl Twin {
    fn new() -> Twin {
        let disk = MemoryDisk::new();
        let engine = disk.open();
        Twin { disk, engine, states: vec![State::new()], views: Vec::new() }
    }

    fn newest(&self) -> &State {
        self.states.last().expect("there is always one")
    }

    fn crash(&mut self, keep: u64) {
        self.views.clear();
        self.disk.crash(keep);
        let mut former = std::mem::replace(&mut self.engine, self.disk.open());
        assert!(former.write(Batch::default()).is_err(), "it died with the crash");
        self.states.truncate(keep as usize + 1);
        self.states.drain(..self.states.len() - 1);
    }

    fn step(&mut self, dice: &mut Dice) {
        match dice.below(16) {
            0..8 => {
                let changes = changes(dice);
                self.states.push(changed(self.newest().clone(), &changes));
                self.engine.write(Batch { changes }).expect("open");
            }
            8 => {
                (self.engine.syncer())().expect("open");
                self.states.drain(..self.states.len() - 1);
            }
            9 => {
                // A sync that ends late makes durable what was written when it began, and what a crash took back never.
                let unsynced = self.states.len() as u64 - 1;
                let count = dice.below(unsynced + 2);
                self.disk.sync_up_to(self.engine.disk().written() - unsynced + count);
                self.states.drain(..count.min(unsynced) as usize);
            }
            10..12 => {
                let view = self.engine.reader().view().expect("open");
                self.views.push((view, self.newest().clone()));
            }
            12..14 if !self.views.is_empty() => {
                self.views.swap_remove(dice.below(self.views.len() as u64) as usize);
            }
            14 => self.crash(dice.below(4)),
            _ => {
                self.engine.begin_generation().expect("open");
                let changes = changes(dice);
                let state = changed(State::new(), &changes);
                self.engine.write_generation(Batch { changes }).expect("staged");
                if dice.below(2) == 0 {
                    self.engine.sync_generation().expect("staged");
                    self.engine.commit_generation().expect("synced");
                    self.states = vec![state];
                } else {
                    self.engine.drop_generation().expect("open");
                    assert!(self.engine.sync_generation().is_err(), "nothing is staged");
                }
            }
        }
    }
}

#[test]
fn views_and_crashes_show_what_was_written() {
    for seed in 0..40 {
        let (mut dice, mut twin) = (Dice(seed), Twin::new());
        for at in 0..150 {
            twin.step(&mut dice);
            assert_eq!(twin.disk.unsynced_batches(), twin.states.len() as u64 - 1);
            let view = twin.disk.reader().view().expect("open");
            check(&view, twin.newest(), at);
            twin.views.iter().for_each(|(view, state)| check(view, state, at));
        }
        // What is removed is given back once nothing can ask for it.
        twin.views.clear();
        let keys = (0..5).map(|number| bytes(&format!("k{number}")));
        let remove = |key| Change { table: Table::Current, key, value: None };
        twin.engine.write(Batch { changes: keys.map(remove).collect() }).expect("open");
        (twin.engine.syncer())().expect("open");
        twin.engine.write(Batch::default()).expect("open");
        assert_eq!(twin.engine.reader().size(), 0, "with seed {seed}");
    }
}

#[test]
fn an_engine_that_was_opened_again_elsewhere_is_dead() {
    let disk = MemoryDisk::new();
    let (mut former, reader) = (disk.open(), disk.reader());
    let mut engine = disk.open();
    assert!(former.write(Batch::default()).is_err());
    assert!(reader.view().is_err());
    assert!(engine.write(Batch::default()).is_ok());
}
