//! Reads from disk while the log goes on: every fetch is answered with what was there, wherever it has moved to since.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]

mod common;

use common::*;
use quorate_log::{LogEvent, LogOptions, ReadId};
use quorate_types::{DiskOp, GroupId, Index, Op, Position, Slot, WriteId};
use std::collections::{BTreeMap, BTreeSet};

/// Gives every group's entries back from disk once they are durable, and uses many segments.
fn no_cache() -> LogOptions {
    LogOptions { segment_size: 32 * 1024, cache_size_max: 0, ..LogOptions::default() }
}

/// A fetch that is not answered yet.
struct Asked {
    group: GroupId,
    first: Index,
    last: Index,
    budget: usize,
    /// The slots that were there when it was asked, or were written since.
    allowed: BTreeMap<Index, Vec<Slot>>,
    /// Those that were changed since.
    changed: BTreeSet<Index>,
}

/// Two groups: one that writes, cuts and purges all the time, and one that stays as it is.
struct World {
    runner: Runner,
    random: Random,
    groups: BTreeMap<GroupId, BTreeMap<Index, Slot>>,
    asked: BTreeMap<ReadId, Asked>,
    epoch: u64,
    next: u64,
    answer_count: usize,
}

const BUSY: GroupId = GroupId(0);
const QUIET: GroupId = GroupId(7);

impl World {
    fn submit(&mut self, group: GroupId, ops: Vec<Op>) {
        let slots = self.groups.entry(group).or_default();
        for op in &ops {
            let (gone, put): (Vec<Index>, Option<&Slot>) = match op {
                Op::Write(slot) => (vec![slot.index], Some(slot)),
                Op::Truncate(from) => (slots.range(*from..).map(|(i, _)| *i).collect(), None),
                Op::Purge(to) => (slots.range(..=to.index).map(|(i, _)| *i).collect(), None),
                Op::HardState(_) | Op::Reset(_, _) => unreachable!("not drawn here"),
            };
            gone.iter().for_each(|index| drop(slots.remove(index)));
            slots.extend(put.map(|slot| (slot.index, slot.clone())));
            for asked in self.asked.values_mut().filter(|asked| asked.group == group) {
                asked.changed.extend(&gone);
                if let Some(slot) = put {
                    asked.allowed.entry(slot.index).or_default().push(slot.clone());
                }
            }
        }
        self.next += 1;
        self.runner.log.submit(group, WriteId(self.next), ops);
    }

    fn write_more(&mut self) {
        let slots = self.groups.entry(BUSY).or_default();
        let last = slots.keys().next_back().map_or(0, |index| index.0);
        let mut ops = Vec::new();
        let mut from = last + 1;
        if self.random.chance(15) && slots.len() > 3 {
            from = last - 1;
            self.epoch += 1;
            ops.push(Op::Truncate(Index(from)));
        }
        let again = slots.values().nth(usize::try_from(self.random.below(40)).unwrap());
        if let Some(slot) = again.filter(|slot| slot.index.0 < from).cloned() {
            self.epoch += 1;
            ops.push(Op::Write(Slot { accepted: epoch(self.epoch), ..slot }));
        }
        for index in from..=from + self.random.below(3) {
            let body = vec![7; usize::try_from(self.random.below(5000)).unwrap()];
            ops.push(write(index, self.epoch, &body));
        }
        if self.random.chance(20) && last > 12 {
            ops.push(Op::Purge(Position::new(Index(last - 12), epoch(1))));
        }
        self.submit(BUSY, ops);
    }

    fn fetch(&mut self) {
        let group = if self.random.chance(40) { QUIET } else { BUSY };
        let slots = self.groups.entry(group).or_default();
        let Some(lowest) = slots.keys().next() else { return };
        let first = Index(lowest.0 + self.random.below(slots.len() as u64 + 1));
        let last = Index(first.0 + self.random.below(4));
        let budget = usize::try_from(self.random.below(3) * 4000).unwrap();
        let there = slots.range(first..=last);
        let allowed = there.map(|(index, slot)| (*index, vec![slot.clone()])).collect();
        let changed = BTreeSet::new();
        self.next += 1;
        let read = ReadId(self.next);
        self.asked.insert(read, Asked { group, first, last, budget, allowed, changed });
        self.runner.log.fetch(group, read, first, last, budget);
    }

    fn take_events(&mut self) {
        while let Some(event) = self.runner.events.pop_front() {
            let LogEvent::Fetched { group, read, slots, damaged } = event else {
                assert!(!matches!(event, LogEvent::Failed { .. }), "{event}");
                continue;
            };
            let asked = self.asked.remove(&read).expect("answered once");
            assert_eq!((group, damaged), (asked.group, None), "{read}");
            self.answer_count += slots.len();
            let size: usize = slots.iter().map(|slot| slot.entry.encoded_size()).sum();
            assert!(slots.len() <= 1 || size <= asked.budget, "{read} keeps to its budget");
            for (slot, index) in slots.iter().zip(asked.first.0..) {
                assert!(slot.index == Index(index) && index <= asked.last.0, "{read}: {slot}");
                let allowed = &asked.allowed[&slot.index];
                assert!(allowed.contains(slot), "{read}: {slot} was not there");
            }
            let first = asked.allowed.get(&asked.first);
            if first.is_some() && !asked.changed.contains(&asked.first) {
                assert!(!slots.is_empty(), "{read}: {group} {} is there", asked.first);
            }
        }
    }

    fn step(&mut self) {
        match self.random.below(10) {
            0..2 => self.write_more(),
            2..5 => self.fetch(),
            5 if self.random.chance(30) => self.runner.pass_time(),
            _ if !self.runner.queue.is_empty() => {
                let place = self.random.below(self.runner.queue.len() as u64);
                self.runner.complete(usize::try_from(place).unwrap());
            }
            _ => {}
        }
        self.runner.drain();
        self.take_events();
        let is_read = |op: &DiskOp| matches!(op, DiskOp::Read { .. });
        let is_quiet = self.runner.log.status().pending_count == 0
            && self.runner.queue.iter().all(|request| is_read(&request.op));
        let is_idle = self.runner.log.is_idle();
        assert!(is_quiet || !is_idle, "idle with {:?}", self.runner.queue);
        assert!(is_idle || !is_quiet || !self.runner.queue.is_empty(), "nothing is under way");
    }
}

#[test]
fn every_fetch_is_answered_with_what_is_there_while_everything_moves() {
    for seed in 1..=12 {
        let (mut runner, _) = Runner::open(CrashDisk::default(), no_cache()).unwrap();
        assert!(!runner.log.is_idle(), "what was found is to be written again");
        runner.settle();
        let (groups, asked) = (BTreeMap::new(), BTreeMap::new());
        let random = Random::new(seed);
        let mut world = World { runner, random, groups, asked, epoch: 1, next: 0, answer_count: 0 };
        world.submit(QUIET, (1..=3).map(|index| write(index, 1, b"quiet")).collect());
        (0..3000).for_each(|_| world.step());
        world.runner.settle();
        world.take_events();
        assert!(world.asked.is_empty(), "seed {seed}: {} fetches wait", world.asked.len());
        assert!(world.answer_count > 300, "seed {seed}: {} slots", world.answer_count);
        let last = *world.groups[&BUSY].keys().next_back().unwrap();
        world.submit(BUSY, vec![Op::Purge(Position::new(last, epoch(world.epoch)))]);
        world.runner.settle();
        let status = world.runner.log.status();
        assert!(status.segment.0 > 20, "seed {seed}: {status:?}");
        assert!(status.segment_count <= 4, "seed {seed}: reads keep files: {status:?}");
        let live = world.groups[&QUIET].values().map(|slot| slot.entry.encoded_size() as u64);
        assert_eq!(status.live_size, live.sum::<u64>(), "seed {seed}");
        let pinned = status.groups[&QUIET].pinned_segment_count;
        assert!(pinned <= 4, "seed {seed}: {pinned} segments behind the quiet group");
    }
}

/// What becomes of fetches of slot 2 while a batch that empties it waits behind another.
fn fetch_while_emptied(empty: Op) {
    let (mut runner, _) = Runner::open(CrashDisk::default(), no_cache()).unwrap();
    runner.log.submit(BUSY, WriteId(1), vec![write(1, 1, b"one"), write(2, 1, b"two")]);
    runner.log.submit(QUIET, WriteId(2), vec![write(2, 1, b"quiet")]);
    runner.settle();
    runner.events.clear();
    // One fetch reads it already; the next is asked then.
    runner.log.submit(BUSY, WriteId(3), vec![write(3, 1, b"three")]);
    runner.drain();
    runner.log.fetch(BUSY, ReadId(1), Index(2), Index(2), 100);
    runner.drain();
    assert_eq!(runner.queue.len(), 2, "the third is written, the second is read");
    runner.log.submit(BUSY, WriteId(4), vec![empty]);
    runner.complete(1);
    runner.log.fetch(BUSY, ReadId(2), Index(2), Index(2), 100);
    runner.drain();
    assert_eq!(runner.queue.len(), 1, "what nobody may get is not read");
    for read in [ReadId(1), ReadId(2)] {
        let (group, slots, damaged) = (BUSY, Vec::new(), None);
        let answer = LogEvent::Fetched { group, read, slots, damaged };
        assert_eq!(runner.events.pop_front(), Some(answer));
    }
    runner.log.fetch(QUIET, ReadId(3), Index(2), Index(2), 100);
    runner.drain();
    runner.complete(1);
    let (group, read, slots, damaged) = (QUIET, ReadId(3), vec![slot(2, 1, b"quiet")], None);
    let answer = LogEvent::Fetched { group, read, slots, damaged };
    assert_eq!(runner.events.pop_front(), Some(answer), "another group keeps what it has");
}

#[test]
fn a_slot_that_is_being_emptied_is_not_served_from_disk() {
    fetch_while_emptied(Op::Truncate(Index(2)));
    fetch_while_emptied(Op::Purge(Position::new(Index(2), epoch(1))));
    fetch_while_emptied(Op::Reset(Position::new(Index(9), epoch(1)), configuration(3)));
}

#[test]
fn a_slot_that_was_copied_forward_while_it_was_read_is_read_where_it_is_now() {
    let (mut runner, _) = Runner::open(CrashDisk::default(), no_cache()).unwrap();
    runner.settle();
    runner.log.submit(QUIET, WriteId(1), vec![write(1, 1, b"quiet")]);
    runner.settle();
    let old = runner.log.status().segment;
    runner.log.fetch(QUIET, ReadId(1), Index(1), Index(1), 100);
    runner.drain();
    let read = runner.queue.pop_front().expect("it is not in memory");
    assert!(matches!(read.op, DiskOp::Read { .. }) && runner.queue.is_empty(), "{}", read.op);
    let mut index = 1;
    let pinned = |runner: &Runner| runner.log.status().groups[&QUIET].pinned_segment_count;
    // The slots of the busy group keep every file but the first.
    while pinned(&runner) == runner.log.status().segment.0 - old.0 {
        index += 1;
        let mut ops = vec![write(index, 1, &[7; 3000])];
        if runner.log.status().segment == old {
            ops.push(Op::Purge(Position::new(Index(index), epoch(1))));
        }
        runner.log.submit(BUSY, WriteId(index), ops);
        runner.settle();
        assert!(index < 200, "{:?}", runner.log.status());
    }
    runner.events.clear();
    runner.queue.push_back(read);
    runner.settle();
    let (group, read, slots, damaged) = (QUIET, ReadId(1), vec![slot(1, 1, b"quiet")], None);
    assert_eq!(runner.events.pop_front(), Some(LogEvent::Fetched { group, read, slots, damaged }));
}
