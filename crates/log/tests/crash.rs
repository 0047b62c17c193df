//! Random work of several groups, cut off at random points by kills and power cuts, against a plain model: what is
//! there after reopening is the model after a prefix of the writes that contains every acknowledged one.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]

mod common;

use common::*;
use quorate_log::{LogEvent, LogOptions, Recovery};
use quorate_types::{
    Bounds, Configuration, EpochRun, GroupId, HardState, Index, LogSummary, NodeId, Op, Position,
    Slot, SlotFault, WriteId,
};
use std::collections::BTreeMap;

/// One group, as plainly as can be.
#[derive(Clone, Debug, Default)]
struct Model {
    hard: Option<HardState>,
    purged: Position,
    slots: BTreeMap<Index, Slot>,
    configurations: BTreeMap<Index, Configuration>,
}

impl Model {
    fn last(&self) -> Index {
        self.slots.keys().next_back().copied().unwrap_or_default().max(self.purged.index)
    }

    fn apply(&mut self, op: &Op) {
        match op {
            Op::HardState(state) => self.hard = Some(*state),
            Op::Write(slot) => {
                self.configurations.remove(&slot.index);
                if slot.entry.kind() == quorate_types::EntryKind::Configuration {
                    let found = Configuration::decode(slot.entry.body().clone()).unwrap();
                    self.configurations.insert(slot.index, found);
                }
                self.slots.insert(slot.index, slot.clone());
            }
            Op::Truncate(index) => {
                self.slots.retain(|found, _| found < index);
                let purged = self.purged.index;
                self.configurations.retain(|found, _| found < index || *found <= purged);
            }
            Op::Purge(position) => {
                self.slots.retain(|found, _| *found > position.index);
                self.purged = *position;
                let in_force = self.configurations.range(..=position.index).next_back();
                if let Some(in_force) = in_force.map(|(index, _)| *index) {
                    self.configurations.retain(|found, _| *found >= in_force);
                }
            }
            Op::Reset(position, configuration) => {
                self.slots.clear();
                self.purged = *position;
                self.configurations = BTreeMap::from([(position.index, configuration.clone())]);
            }
        }
    }

    fn summary(&self) -> LogSummary {
        let bounds = Bounds { purged: self.purged, last: self.last() };
        let unset = (bounds == Bounds::default()).then(HardState::default);
        let mut epochs: Vec<EpochRun> = Vec::new();
        for slot in self.slots.values() {
            let (created, accepted) = (slot.entry.created(), slot.accepted);
            let run = EpochRun { first: slot.index, created, accepted };
            if epochs.last().is_none_or(|last| (last.created, last.accepted) != (created, accepted))
            {
                epochs.push(run);
            }
        }
        let indexes = (self.purged.index.0 + 1..=self.last().0).map(Index);
        let absent = indexes.filter(|index| !self.slots.contains_key(index));
        LogSummary {
            hard_state: self.hard.or(unset),
            bounds,
            epochs,
            faults: absent.map(SlotFault::Absent).collect(),
            configurations: self.configurations.iter().map(|(i, c)| (*i, c.clone())).collect(),
        }
    }
}

type World = BTreeMap<GroupId, Model>;

/// Draws the ops of one write.
fn draw_ops(model: &Model, newest: &mut u64, random: &mut Random) -> Vec<Op> {
    let mut model = model.clone();
    let mut ops = Vec::new();
    for _ in 0..1 + random.below(3) {
        let last = model.last().0;
        let number = *newest;
        let fill = u8::try_from(1 + random.below(255)).unwrap();
        let size = match random.below(20) {
            0 => 5000,
            1 => 17_000,
            _ => random.below(300),
        };
        let body = vec![fill; usize::try_from(size).unwrap()];
        let mut drawn = match random.below(20) {
            0..9 => (1..=1 + random.below(4)).map(|i| write(last + i, number, &body)).collect(),
            9..12 => {
                let from = model.purged.index.0 + 1 + random.below(last - model.purged.index.0 + 1);
                let truncate = Op::Truncate(Index(from));
                *newest += 1 + random.below(2);
                let next = *newest;
                vec![truncate, write(from, next, &body), write(from + 1, next, &body)]
            }
            12 => vec![write(last + 2 + random.below(3), number, &body)],
            13 => {
                *newest += 5;
                let accepted = epoch(*newest);
                let index = Index(last.max(model.purged.index.0 + 1));
                let held = model.slots.get(&index).map(|slot| slot.entry.clone());
                let entry = held.unwrap_or_else(|| slot(index.0, *newest, &body).entry);
                vec![Op::Write(Slot { index, accepted, entry })]
            }
            14..17 => {
                let promised = epoch(number + random.below(4));
                let voted_for = random.chance(50).then_some(NodeId(random.below(3) + 1));
                vec![Op::HardState(HardState { promised, voted_for, log_epoch: epoch(number) })]
            }
            17 => {
                let voters = 1 + random.below(5);
                vec![Op::Write(configuration_slot(last + 1, number, voters))]
            }
            18 => {
                let many = usize::try_from(random.below(1 + model.slots.len() as u64)).unwrap();
                let slots = model.slots.values().take(many).last();
                slots.map(|slot| Op::Purge(slot.position())).into_iter().collect()
            }
            _ if random.chance(20) => {
                *newest += 1;
                let position = Position::new(Index(last + random.below(5) + 1), epoch(number));
                vec![Op::Reset(position, configuration(3))]
            }
            _ => Vec::new(),
        };
        drawn.iter().for_each(|op| model.apply(op));
        ops.append(&mut drawn);
    }
    ops
}

/// The run of one seed.
struct Run {
    random: Random,
    options: LogOptions,
    /// The world after each write that may still be there; the first is certain.
    history: Vec<World>,
    /// How many entries of `history` are acknowledged, after the first.
    acknowledged: usize,
    /// The newest epoch; after a truncation and after a crash a new one begins, so that an index and an epoch name
    /// one entry for ever.
    epoch: u64,
    next_write: WriteId,
    first_write: WriteId,
    crashes: usize,
    torn: usize,
}

impl Run {
    fn take_events(&mut self, runner: &mut Runner) {
        while let Some(event) = runner.events.pop_front() {
            match event {
                LogEvent::Durable { write, .. } => {
                    let place = usize::try_from(write.0 - self.first_write.0).unwrap() + 1;
                    assert!(place > self.acknowledged, "{write} is acknowledged in order");
                    self.acknowledged = place;
                }
                LogEvent::Recovered => {}
                event @ (LogEvent::Fetched { .. }
                | LogEvent::Space { .. }
                | LogEvent::Failed { .. }) => {
                    panic!("unexpected {event}")
                }
            }
        }
    }

    fn submit(&mut self, runner: &mut Runner) {
        let group = GroupId(self.random.below(3));
        let mut world = self.history.last().unwrap().clone();
        let model = world.get(&group).cloned().unwrap_or_default();
        let ops = draw_ops(&model, &mut self.epoch, &mut self.random);
        if !ops.is_empty() {
            let model = world.entry(group).or_default();
            ops.iter().for_each(|op| model.apply(op));
        }
        runner.log.submit(group, self.next_write, ops);
        self.next_write = self.next_write.next();
        self.history.push(world);
    }

    fn work(&mut self, runner: &mut Runner) {
        for _ in 0..self.random.below(60) {
            match self.random.below(10) {
                0..4 => self.submit(runner),
                4 => runner.drain(),
                5 if self.random.chance(30) => runner.pass_time(),
                _ if !runner.queue.is_empty() => {
                    let place = self.random.below(runner.queue.len() as u64);
                    runner.complete(usize::try_from(place).unwrap());
                }
                _ => runner.drain(),
            }
            self.take_events(runner);
        }
    }

    /// What is there must be the world after some write from the last acknowledged on.
    fn check(&mut self, recovery: &Recovery) -> usize {
        let summaries = |world: &World| -> BTreeMap<GroupId, LogSummary> {
            world.iter().map(|(id, model)| (*id, model.summary())).collect()
        };
        assert!(recovery.reports.is_empty(), "{:?}", recovery.reports);
        let candidates = (self.acknowledged..self.history.len()).rev();
        let found = candidates
            .into_iter()
            .find(|place| summaries(&self.history[*place]) == recovery.groups);
        found.unwrap_or_else(|| {
            let expected = summaries(&self.history[self.acknowledged]);
            let differs = |id: &&GroupId| recovery.groups.get(id) != expected.get(id);
            let group = recovery.groups.keys().chain(expected.keys()).find(differs);
            let pair = group.map(|id| (recovery.groups.get(id), expected.get(id)));
            panic!(
                "no prefix from {} to {} matches; {group:?} found and acknowledged: {pair:#?}",
                self.acknowledged,
                self.history.len() - 1
            )
        })
    }

    fn crash(&mut self, runner: Runner) -> Runner {
        self.crashes += 1;
        self.epoch += 1;
        let mut disk = runner.disk;
        let pending: Vec<_> = runner.queue.into_iter().collect();
        if self.random.chance(50) {
            disk.kill(&pending, &mut self.random);
        } else {
            disk.lose_power(&pending, &mut self.random);
        }
        let (runner, recovery) = Runner::open(disk, self.options.clone()).unwrap();
        self.torn += usize::from(recovery.torn.is_some());
        let place = self.check(&recovery);
        if self.random.chance(30) {
            return self.crash_again(runner, place);
        }
        self.resume(runner, place)
    }

    /// Another crash while the rewrite is under way: nothing acknowledged may depend on it.
    fn crash_again(&mut self, mut runner: Runner, place: usize) -> Runner {
        runner.drain();
        for _ in 0..self.random.below(3) {
            if !runner.queue.is_empty() {
                runner.complete(0);
            }
        }
        if runner.events.contains(&LogEvent::Recovered) {
            self.acknowledged = place;
        }
        self.crash(runner)
    }

    fn resume(&mut self, mut runner: Runner, place: usize) -> Runner {
        runner.settle();
        assert_eq!(runner.events.pop_front(), Some(LogEvent::Recovered));
        let world = self.history.swap_remove(place);
        for (id, model) in &world {
            let first = model.purged.index.next();
            let slots = runner.read_all(*id, first, model.last());
            assert!(slots.iter().eq(model.slots.values()), "{id} serves what was written");
        }
        self.history = vec![world];
        self.acknowledged = 0;
        self.first_write = self.next_write;
        runner
    }
}

fn run(seed: u64, options: LogOptions) -> (usize, usize) {
    let mut run = Run {
        random: Random::new(seed),
        options: options.clone(),
        history: vec![World::new()],
        acknowledged: 0,
        epoch: 1,
        next_write: WriteId(1),
        first_write: WriteId(1),
        crashes: 0,
        torn: 0,
    };
    let (mut runner, _) = Runner::open(CrashDisk::default(), options).unwrap();
    for _ in 0..12 {
        run.work(&mut runner);
        runner = run.crash(runner);
    }
    (run.crashes, run.torn)
}

#[test]
fn every_crash_leaves_a_prefix_that_holds_every_acknowledged_write() {
    let (mut crashes, mut torn) = (0, 0);
    for seed in 1..=100 {
        let (more, cut) = std::panic::catch_unwind(|| run(seed, small_options()))
            .unwrap_or_else(|_| panic!("seed {seed} failed"));
        crashes += more;
        torn += cut;
    }
    assert!(crashes > 1200 && torn > 100, "{crashes} crashes, {torn} torn tails");
}

#[test]
fn a_torn_end_shows_in_files_that_are_emptied_first_as_well() {
    let options = LogOptions { zero_recycled: true, ..small_options() };
    for seed in 1..=40 {
        std::panic::catch_unwind(|| run(seed, options.clone()))
            .unwrap_or_else(|_| panic!("seed {seed} failed"));
    }
}
