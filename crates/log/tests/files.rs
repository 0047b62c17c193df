//! What lies in the segment files, and which there are: standings and proofs where the format wants them, files that are
//! used up to their last page, kept, and given back.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]

mod common;

use common::*;
use quorate_log::{LogEvent, LogOptions, dump};
use quorate_types::{DiskOp, FileName, GroupId, HardState, Index, Op, Position, WriteId};
use std::collections::{BTreeMap, BTreeSet};

const G: GroupId = GroupId(0);

fn fresh(options: LogOptions) -> Runner {
    let (mut runner, _) = Runner::open(CrashDisk::default(), options).unwrap();
    runner.settle();
    runner
}

fn hard(number: u64) -> Op {
    let promised = epoch(number);
    Op::HardState(HardState { promised, voted_for: None, log_epoch: epoch(1) })
}

fn dump_current(runner: &Runner) -> String {
    let number = runner.log.status().segment.0;
    dump::file(&runner.disk, &FileName::new(format!("log/{number:016x}.seg"))).unwrap()
}

/// Rounds of writes; each fifth changes the hard state of `group_count` groups, and so every proof has their standings.
/// After each round the log has said that its last batch is synced, if a proof of that size always has room.
fn fill_segments(group_count: u64, proof_size: usize) {
    let mut runner = fresh(small_options());
    let mut random = Random::new(3);
    let (mut proofs_at_the_end, mut used_again) = (0, 0);
    let mut remains = BTreeMap::new();
    for round in 1..=300 {
        let groups = if round % 5 == 1 { group_count } else { 0 };
        for group in 1..=groups {
            runner.log.submit(GroupId(group), WriteId(1000 * round + group), vec![hard(round)]);
        }
        let size = usize::try_from(random.below(3000)).unwrap();
        runner.log.submit(G, WriteId(round), vec![write(round, 1, &vec![7; size])]);
        let purge = Op::Purge(Position::new(Index(round), epoch(1)));
        runner.log.submit(G, WriteId(1_000_000 + round), vec![purge]);
        runner.settle();
        let (dump, status) = (dump_current(&runner), runner.log.status());
        assert!(!dump.contains("DAMAGED"), "round {round}: {dump}");
        let is_proved = dump.contains(&format!(" proof of batch {}\n", status.batch_written));
        let page = usize::try_from(status.offset).unwrap().next_multiple_of(4096);
        let has_room = page + proof_size <= 64 * 1024 - 4096;
        assert_eq!(is_proved, has_room, "round {round}: {dump}");
        proofs_at_the_end += u32::from(page == 64 * 1024 - 2 * 4096);
        let is_used_again = dump.contains("what an earlier life");
        used_again += u32::from(is_used_again);
        let before = *remains.entry(status.segment).or_insert(is_used_again);
        assert_eq!(before, is_used_again, "round {round}: something lies over the remains");
    }
    assert!(proofs_at_the_end > 2, "{proofs_at_the_end} at the end");
    assert!(used_again > 200, "{used_again} in files that were used again");
}

#[test]
fn the_last_batch_is_proved_as_long_as_there_is_room() {
    // Up to a page there always is.
    fill_segments(1, 512);
    fill_segments(34, 4096);
    fill_segments(45, 5120);
}

#[test]
fn a_batch_that_fits_a_prepared_file_to_the_byte_goes_there() {
    let mut fitted = 0;
    // The directory takes more than seven sectors, so that head and tail are whole pages.
    for body_size in (44_000..=56_000).step_by(2048) {
        let mut runner = fresh(LogOptions { reserve_count: 0, ..small_options() });
        // The file that was prepared is used, and the next one is being made when the batch comes.
        runner.log.submit(G, WriteId(1), vec![write(1, 1, &[7; 50_000])]);
        runner.drain();
        let mut ops: Vec<Op> = (1..=72).map(hard).collect();
        ops.push(write(2, 1, &vec![8; body_size]));
        runner.log.submit(G, WriteId(2), ops);
        runner.settle();
        let what = format!("body of {body_size}");
        assert_eq!(runner.durable().len(), 2, "{what}: {:?}", runner.log.status());
        let proof = format!(" proof of batch {}\n", runner.log.status().batch_written);
        assert!(dump_current(&runner).contains(&proof), "{what}");
        // One page is left for the proof and one for the remains.
        fitted += u32::from(runner.log.status().offset == 64 * 1024 - 2 * 4096);
    }
    assert!(fitted > 0, "none fits to the byte");
}

/// One batch or proof of a dump: the groups whose standing it holds with where they begin and what lows they list, and
/// the groups that it changes.
#[derive(Default)]
struct Dumped {
    number: u64,
    opening: bool,
    standings: BTreeMap<String, (u64, Vec<u64>)>,
    changed: BTreeSet<String>,
}

fn parse(dump: &str) -> Vec<Dumped> {
    let mut batches: Vec<Dumped> = Vec::new();
    for line in dump.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [_, "batch", number, ..] => batches.push(Dumped {
                number: number.parse().unwrap(),
                opening: words.contains(&"opening"),
                ..Dumped::default()
            }),
            [place, "proof", ..] | [place, "end", ..] if place.contains("seg+") => break,
            [group, item, ..] if group.starts_with('g') && line.starts_with("  ") => {
                let batch = batches.last_mut().unwrap();
                if item.starts_with("standing") {
                    let at = words.iter().position(|word| word.starts_with("since=")).unwrap();
                    let since = words[at][6..].trim_end_matches(')').parse().unwrap();
                    let low = |word: &&str| word.split(':').next().unwrap().parse().unwrap();
                    let lows = words[at + 1..].iter().map(low).collect();
                    batch.standings.insert(group.to_string(), (since, lows));
                } else if !item.starts_with("checkpoint") {
                    batch.changed.insert(group.to_string());
                }
            }
            _ => {}
        }
    }
    batches
}

#[test]
fn every_batch_says_how_each_group_stood_that_it_or_the_five_before_touch() {
    let mut runner = fresh(small_options());
    let mut random = Random::new(5);
    for id in 1..=300 {
        for _ in 0..=random.below(3) {
            let group = GroupId(random.below(8));
            let op = if random.chance(30) { hard(id) } else { write(id, 1, &[7; 300]) };
            runner.log.submit(group, WriteId(id), vec![op]);
        }
        runner.settle();
    }
    let dumps = runner.disk.files.keys().map(|file| dump::file(&runner.disk, file).unwrap());
    let batches: Vec<Dumped> = dumps.flat_map(|dump| parse(&dump)).collect();
    assert!(batches.len() > 300);
    for (place, batch) in batches.iter().enumerate().filter(|(_, batch)| !batch.opening) {
        let recent = &batches[place.saturating_sub(5)..place];
        assert!(
            recent.iter().zip(batch.number - recent.len() as u64..).all(|(b, n)| b.number == n)
        );
        let touched = recent.iter().chain([batch]).flat_map(|batch| &batch.changed);
        let touched: BTreeSet<&String> = touched.collect();
        assert!(batch.standings.keys().eq(touched), "batch {}", batch.number);
        for (group, (since, lows)) in &batch.standings {
            assert_eq!(*since, batch.number - 1 - recent.len() as u64, "batch {}", batch.number);
            let changed = recent.iter().filter(|batch| batch.changed.contains(group));
            assert!(changed.map(|batch| batch.number).eq(lows.iter().copied()));
        }
    }
}

#[test]
fn a_file_that_a_proof_is_on_its_way_to_is_not_used_again() {
    let mut runner = fresh(small_options());
    runner.log.submit(G, WriteId(1), vec![write(1, 1, b"first")]);
    runner.drain();
    while runner.durable().is_empty() {
        runner.complete(0);
    }
    runner.pass_time();
    let is_proof = |op: &DiskOp| matches!(op, DiskOp::Write { sync: false, .. });
    let proof = runner.queue.pop_front().expect("the proof");
    let DiskOp::Write { file: proved, .. } = &proof.op else { panic!("{}", proof.op) };
    assert!(is_proof(&proof.op) && runner.queue.is_empty());
    let mut index = 1;
    while runner.log.status().segment.0 < 6 {
        index += 1;
        let purge = Op::Purge(Position::new(Index(index - 1), epoch(1)));
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &[7; 5000]), purge]);
        runner.drain();
        while let Some(request) = runner.queue.front() {
            let touches = match &request.op {
                DiskOp::Rename { from, .. } => from == proved,
                DiskOp::Delete { file } => file == proved,
                DiskOp::Allocate { .. }
                | DiskOp::Write { .. }
                | DiskOp::Read { .. }
                | DiskOp::Replace { .. } => false,
            };
            assert!(!touches, "{} while a proof is written there", request.op);
            runner.complete(0);
        }
    }
    assert!(runner.disk.files.contains_key(proved));
    let proved = proved.clone();
    runner.queue.push_back(proof);
    runner.log.submit(G, WriteId(index + 1), vec![write(index + 1, 1, b"last")]);
    runner.settle();
    assert_eq!(runner.log.status().failed, None);
    assert!(!runner.disk.files.contains_key(&proved), "it serves again now");
}

#[test]
fn an_open_on_a_full_disk_gives_up_files_that_no_longer_matter() {
    let mut runner = fresh(small_options());
    runner.log.submit(G, WriteId(1), vec![write(1, 1, b"kept")]);
    runner.settle();
    let mut disk = runner.disk;
    // Segments of another size are wanted now, and there is no room for one beside the prepared files.
    disk.space = Some(disk.files.values().map(|file| file.live.len() as u64).sum::<u64>() + 1);
    let options = LogOptions { segment_size: 2 * 64 * 1024, reserve_count: 0, ..small_options() };
    let (mut runner, recovery) = Runner::open(disk, options).unwrap();
    assert_eq!(recovery.groups[&G].bounds.last, Index(1));
    runner.settle();
    assert!(runner.events.contains(&LogEvent::Recovered), "{:?}", runner.log.status());
    assert_eq!(runner.read_all(G, Index(1), Index(1)), [slot(1, 1, b"kept")]);
}

#[test]
fn what_a_purge_sets_free_is_kept_up_to_a_bound_and_only_in_one_size() {
    let mut runner = fresh(small_options());
    runner.log.submit(G, WriteId(1), vec![write(1, 1, &[7; 200_000])]);
    for index in 2..=300 {
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &[7; 5000])]);
        runner.settle();
    }
    assert!(runner.log.status().segment_count > 20);
    runner.log.submit(G, WriteId(301), vec![Op::Purge(Position::new(Index(300), epoch(1)))]);
    runner.settle();
    let status = runner.log.status();
    assert_eq!((status.segment_count, status.live_size), (1, 0), "{status:?}");
    assert_eq!(status.spare_count, 6, "one that comes next, one in reserve, and four");
    assert!(runner.disk.files.values().all(|file| file.live.len() == 64 * 1024));
    assert_eq!(runner.disk.files.len(), 7);
}

#[test]
fn files_that_are_to_be_emptied_first_wait_as_zeroes() {
    let mut runner = fresh(LogOptions { zero_recycled: true, ..small_options() });
    for index in 1..=300 {
        let purge = Op::Purge(Position::new(Index(index - 1), epoch(1)));
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &[7; 5000]), purge]);
        runner.settle();
    }
    let status = runner.log.status();
    let current = FileName::new(format!("log/{:016x}.seg", status.segment.0));
    let spares: Vec<_> = runner.disk.files.range(&current..).skip(1).collect();
    assert!(spares.len() == status.spare_count && spares.len() > 2, "{status:?}");
    assert!(spares.iter().all(|(_, file)| file.live.iter().all(|byte| *byte == 0)));
    assert!(status.segment.0 > 20);
}
