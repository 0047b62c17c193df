//! What a user of the log sees: durability, reads, space, failure.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]

mod common;

use common::*;
use quorate_log::{LogEvent, LogOptions};
use quorate_types::{DiskOp, GroupId, HardState, Index, NodeId, Op, Position, WriteId};

const G: GroupId = GroupId(0);

fn hard(number: u64) -> HardState {
    HardState { promised: epoch(number), voted_for: Some(NodeId(2)), log_epoch: epoch(number) }
}

fn fresh(options: LogOptions) -> Runner {
    let (mut runner, recovery) = Runner::open(CrashDisk::default(), options).unwrap();
    assert_eq!(recovery, Default::default());
    runner.settle();
    assert_eq!(runner.events.pop_front(), Some(LogEvent::Recovered));
    runner
}

fn reopen(runner: Runner, options: LogOptions) -> (Runner, quorate_log::Recovery) {
    let (mut runner, recovery) = Runner::open(runner.disk, options).unwrap();
    runner.settle();
    assert_eq!(runner.events.pop_front(), Some(LogEvent::Recovered));
    (runner, recovery)
}

#[test]
fn what_is_durable_is_there_after_reopening() {
    let mut runner = fresh(LogOptions::default());
    let ops = vec![
        Op::HardState(hard(1)),
        Op::Write(configuration_slot(1, 1, 3)),
        write(2, 1, b"two"),
        write(3, 1, b"three"),
    ];
    runner.log.submit(G, WriteId(1), ops);
    let cached = runner.log.cached(G, Index(1), Index(9), usize::MAX).expect("readable at submit");
    assert_eq!(cached.len(), 3);
    runner.drain();
    assert_eq!(runner.durable(), [], "not before the sync");
    runner.settle();
    assert_eq!(runner.durable(), [WriteId(1)]);
    let (mut runner, recovery) = reopen(runner, LogOptions::default());
    let summary = &recovery.groups[&G];
    assert_eq!(summary.hard_state, Some(hard(1)));
    assert_eq!(summary.bounds.last, Index(3));
    assert_eq!(summary.epochs.len(), 1);
    assert_eq!(summary.faults, []);
    assert_eq!(summary.configurations, [(Index(1), configuration(3))]);
    assert_eq!(recovery.reports, []);
    let slots = runner.read_all(G, Index(1), Index(3));
    assert_eq!(slots, [configuration_slot(1, 1, 3), slot(2, 1, b"two"), slot(3, 1, b"three")]);
}

#[test]
fn what_nothing_proves_synced_is_rewritten_at_open_and_nothing_else() {
    let mut runner = fresh(LogOptions::default());
    let ops = vec![Op::HardState(hard(1)), write(1, 1, b"one"), write(2, 1, b"two")];
    runner.log.submit(G, WriteId(1), ops);
    runner.drain();
    while runner.durable().is_empty() {
        runner.complete(0);
    }
    // Nothing came after that batch, and no time in which the log proves that it is the last.
    let (runner, recovery) = reopen(runner, LogOptions::default());
    assert_eq!(recovery.rewritten_count, 2);
    let (mut runner, recovery) = reopen(runner, LogOptions::default());
    assert_eq!(recovery.rewritten_count, 0, "they were rewritten, and proved since");
    assert_eq!(recovery.groups[&G].hard_state, Some(hard(1)));
    let slots = runner.read_all(G, Index(1), Index(2));
    assert_eq!(slots, [slot(1, 1, b"one"), slot(2, 1, b"two")]);
}

#[test]
fn everything_submitted_during_a_sync_shares_the_next_one() {
    let mut runner = fresh(LogOptions::default());
    runner.log.submit(G, WriteId(1), vec![write(1, 1, b"a")]);
    runner.drain();
    for index in 2..=100 {
        runner.log.submit(G, WriteId(index), vec![write(index, 1, b"a")]);
        runner.drain();
    }
    let status = runner.log.status();
    let syncs = status.sync_count;
    assert_eq!(status.pending_count, 100);
    assert_eq!(status.batch_written.0, status.batch_synced.0 + 1);
    runner.settle();
    assert_eq!(runner.log.status().batch_written, runner.log.status().batch_synced);
    assert_eq!(runner.log.status().sync_count, syncs + 2);
    assert_eq!(runner.durable().len(), 100);
    assert_eq!((runner.log.status().pending_count, runner.log.status().write_count), (0, 100));
}

#[test]
fn a_failed_sync_poisons_the_log_for_ever() {
    let mut runner = fresh(LogOptions::default());
    runner.disk.fail_sync = true;
    runner.log.submit(G, WriteId(1), vec![write(1, 1, b"a")]);
    runner.settle();
    assert!(matches!(runner.events.pop_back(), Some(LogEvent::Failed { .. })));
    runner.log.submit(G, WriteId(2), vec![write(2, 1, b"b")]);
    runner.log.fetch(G, quorate_log::ReadId(1), Index(1), Index(1), 1);
    runner.log.retry_space();
    runner.settle();
    assert_eq!(runner.durable(), []);
    assert!(runner.log.poll().is_none());
    assert!(runner.log.status().failed.is_some());
}

#[test]
fn segments_are_recycled_once_purged_and_the_disk_stays_bounded() {
    let mut runner = fresh(small_options());
    let body = vec![7; 1000];
    for index in 1..=2000 {
        let mut ops = vec![write(index, 1, &body)];
        if index % 50 == 0 {
            ops.push(Op::Purge(Position::new(Index(index - 10), epoch(1))));
        }
        runner.log.submit(G, WriteId(index), ops);
        runner.settle();
        assert!(runner.log.status().disk_size <= 12 * 64 * 1024, "{:?}", runner.log.status());
    }
    assert!(runner.log.status().segment.0 > 30, "{:?}", runner.log.status());
    let (made, used) = (runner.allocated as u64, runner.log.status().segment.0);
    assert!(made * 3 < used, "{made} of {used} files were made, and emptied");
    let (mut runner, recovery) = reopen(runner, small_options());
    let disk_size = runner.disk.files.values().map(|file| file.live.len() as u64).sum();
    assert_eq!(runner.log.status().disk_size, disk_size, "what was there before counts");
    assert_eq!(recovery.reports, []);
    assert_eq!(recovery.groups[&G].bounds.last, Index(2000));
    assert_eq!(recovery.groups[&G].bounds.purged.index, Index(1990));
    assert_eq!(runner.read_all(G, Index(1991), Index(2000)).len(), 10);
}

#[test]
fn quiet_groups_are_copied_forward_instead_of_keeping_segments() {
    let mut runner = fresh(small_options());
    let quiet = |index: u64| GroupId(index / 100 + 1);
    let body = vec![7; 1000];
    for index in 1..=1000 {
        if index % 100 == 0 {
            let ops = vec![Op::HardState(hard(4)), write(1, 4, b"quiet")];
            runner.log.submit(quiet(index), WriteId(10_000 + index), ops);
        }
        let purge = Op::Purge(Position::new(Index(index - 1), epoch(1)));
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body), purge]);
        runner.settle();
        assert!(runner.log.status().segment_count < 4, "{:?}", runner.log.status());
    }
    assert!(runner.log.status().segment.0 > 10, "{:?}", runner.log.status());
    let (mut runner, recovery) = reopen(runner, small_options());
    assert_eq!(recovery.reports, []);
    for group in (100..=1000).step_by(100).map(quiet) {
        assert_eq!(recovery.groups[&group].hard_state, Some(hard(4)));
        assert_eq!(runner.read_all(group, Index(1), Index(1)), [slot(1, 4, b"quiet")]);
    }
}

#[test]
fn a_write_larger_than_a_segment_is_written_whole() {
    let mut runner = fresh(small_options());
    let body = vec![9; 50_000];
    let ops: Vec<Op> = (1..=8).map(|index| write(index, 1, &body)).collect();
    runner.log.submit(G, WriteId(1), ops);
    runner.settle();
    runner.log.submit(G, WriteId(2), vec![write(9, 1, b"after")]);
    runner.settle();
    assert_eq!(runner.durable(), [WriteId(1), WriteId(2)]);
    for (file, content) in &runner.disk.files {
        let dump = quorate_log::dump::file(&runner.disk, file).unwrap();
        let end = format!(", {} bytes in the file\n", content.live.len());
        assert!(dump.ends_with(&end), "{dump}");
    }
    let (mut runner, recovery) = reopen(runner, small_options());
    assert_eq!(recovery.reports, []);
    assert_eq!(runner.read_all(G, Index(1), Index(9)).len(), 9);
}

#[test]
fn a_full_disk_is_told_the_reserve_still_writes_and_space_is_taken_again() {
    let disk = CrashDisk { space: Some(3 * 64 * 1024 + 100), ..CrashDisk::default() };
    let (mut runner, _) = Runner::open(disk, small_options()).unwrap();
    runner.settle();
    runner.events.clear();
    let body = vec![7; 1000];
    let mut index = 0;
    while !runner.log.status().full {
        index += 1;
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    assert!(runner.events.contains(&LogEvent::Space { full: true }));
    assert_eq!(runner.log.status().spare_count, 1, "the reserve is kept");
    for _ in 0..20 {
        index += 1;
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    assert_eq!(runner.durable().len() as u64, index, "the reserve takes writes");
    runner.events.clear();
    let purge = Op::Purge(Position::new(Index(index), epoch(1)));
    runner.log.submit(G, WriteId(index + 1), vec![purge]);
    runner.settle();
    runner.disk.space = None;
    runner.log.retry_space();
    runner.settle();
    assert!(runner.events.contains(&LogEvent::Space { full: false }), "{:?}", runner.events);
    assert!(!runner.log.status().full);
}

#[test]
fn space_that_came_back_by_recycling_does_not_leave_an_old_refusal_in_the_way() {
    let disk = CrashDisk { space: Some(3 * 64 * 1024 + 100), ..CrashDisk::default() };
    let (mut runner, _) = Runner::open(disk, small_options()).unwrap();
    runner.settle();
    let body = vec![7; 1000];
    let mut index = 0;
    while !runner.log.status().full {
        index += 1;
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    // What is purged frees segments, and they end the shortage: nobody is to ask for space any more.
    while runner.log.status().full {
        let purge = Op::Purge(Position::new(Index(index), epoch(1)));
        index += 1;
        runner.log.submit(G, WriteId(index), vec![purge, write(index, 1, &body)]);
        runner.settle();
        assert!(index < 1000, "{:?}", runner.log.status());
    }
    runner.disk.space = None;
    for _ in 0..300 {
        index += 1;
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    assert_eq!(runner.durable().len() as u64, index, "{:?}", runner.log.status());
}

#[test]
fn the_disk_counts_as_full_until_more_than_the_reserve_is_there() {
    let disk = CrashDisk { space: Some(4 * 64 * 1024 + 100), ..CrashDisk::default() };
    let (mut runner, _) = Runner::open(disk, small_options()).unwrap();
    runner.settle();
    let body = vec![7; 1000];
    let mut index = 0;
    while runner.log.status().spare_count > 0 {
        index += 1;
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    // One file after the other is set free: the first is the reserve.
    let mut purged = 0;
    for (spare_count, full) in [(1, true), (2, false)] {
        while runner.log.status().spare_count < spare_count {
            assert!(runner.log.status().full);
            purged += 1;
            let purge = Op::Purge(Position::new(Index(purged), epoch(1)));
            runner.log.submit(G, WriteId(1000 + purged), vec![purge]);
            runner.settle();
            assert!(purged < index, "{:?}", runner.log.status());
        }
        let status = runner.log.status();
        assert_eq!((status.spare_count, status.full), (spare_count, full), "{status:?}");
        let is_told = runner.events.contains(&LogEvent::Space { full: false });
        assert_eq!(is_told, !full, "{spare_count} spare files");
    }
}

#[test]
fn writes_wait_when_even_the_reserve_is_used_up_and_go_on_when_space_returns() {
    let disk = CrashDisk { space: Some(2 * 64 * 1024), ..CrashDisk::default() };
    let (mut runner, _) = Runner::open(disk, small_options()).unwrap();
    runner.settle();
    let body = vec![7; 1000];
    for index in 1..=200 {
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    let durable = runner.durable().len();
    assert!(durable < 200, "the disk is full");
    assert!(runner.log.status().failed.is_none());
    runner.disk.space = None;
    runner.log.retry_space();
    runner.settle();
    assert_eq!(runner.durable().len(), 200);
    assert_eq!(runner.read_all(G, Index(1), Index(200)).len(), 200);
}

#[test]
fn entries_evicted_from_memory_come_back_from_disk() {
    let options = LogOptions { cache_size_max: 0, ..LogOptions::default() };
    let mut runner = fresh(options.clone());
    for index in 1..=50 {
        runner.log.submit(G, WriteId(index), vec![write(index, 1, b"body")]);
    }
    runner.drain();
    assert!(runner.log.cached(G, Index(1), Index(1), 1).is_some(), "kept until durable");
    runner.settle();
    assert!(runner.log.cached(G, Index(1), Index(1), 1).is_none());
    let slots = runner.read_all(G, Index(1), Index(60));
    assert_eq!(slots.len(), 50);
    assert!(slots.iter().zip(1..).all(|(found, index)| *found == slot(index, 1, b"body")));
}

#[test]
fn the_steady_state_is_one_synced_write_a_batch() {
    let mut runner = fresh(LogOptions::default());
    runner.log.submit(G, WriteId(1), vec![write(1, 1, b"a")]);
    runner.drain();
    assert_eq!(runner.queue.len(), 1);
    assert!(matches!(&runner.queue[0].op, DiskOp::Write { sync: true, .. }));
    runner.log.submit(G, WriteId(2), vec![write(2, 1, b"b")]);
    runner.complete(0);
    assert_eq!(runner.queue.len(), 1, "no proof while writes wait");
    runner.complete(0);
    assert!(runner.queue.is_empty(), "no proof between the writes of one busy client");
    let due = runner.log.next_deadline().expect("an idle log proves its last batch");
    runner.log.submit(G, WriteId(3), vec![write(3, 1, b"c")]);
    runner.drain();
    assert_eq!(runner.log.next_deadline(), None, "not while it writes");
    runner.now = due;
    runner.complete(0);
    assert!(runner.log.next_deadline().is_some_and(|later| later > due), "the time begins anew");
    runner.pass_time();
    assert!(matches!(&runner.queue[0].op, DiskOp::Write { sync: false, .. }), "the idle proof");
    runner.complete(0);
    assert_eq!(runner.log.next_deadline(), None, "one proof a batch");
    assert_eq!(runner.log.status().sync_count, 4, "the opening and three writes");
    assert_eq!(runner.log.status().written_size, runner.written_size);
}

#[test]
fn the_status_tells_how_many_segments_a_group_pins() {
    let mut runner = fresh(small_options());
    let body = vec![7; 3000];
    runner.log.submit(G, WriteId(1), vec![write(1, 1, &body)]);
    runner.settle();
    let first = runner.log.status().segment.0;
    for index in 2..=100 {
        runner.log.submit(G, WriteId(index), vec![write(index, 1, &body)]);
        runner.settle();
    }
    let status = runner.log.status();
    let group = &status.groups[&G];
    assert_eq!((group.bounds.last, group.fault_count), (Index(100), 0));
    assert_eq!(group.pinned_segment_count, status.segment.0 - first);
    assert!(group.pinned_segment_count > 3, "{status:?}");
}
