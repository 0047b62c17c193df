//! Frozen files of format version 1: they open, serve and print the same for ever.
//!
//! `QUORATE_FREEZE_LOG_SAMPLES=v1` writes those of this name anew, for a new format version only: the files of a version
//! that was released never change.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]
#![expect(clippy::disallowed_methods, reason = "the samples are files beside this test")]

mod common;

use common::*;
use quorate_log::{LogOptions, dump};
use quorate_types::{
    Bounds, EpochRun, FileName, GroupId, HardState, Index, LogSummary, NodeId, Op, Position, Slot,
    SlotFault, WriteId,
};
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}

/// Trailing zeroes are not kept in the repository; they come back from the size of a segment.
const SEGMENT_SIZE: usize = 64 * 1024;

/// That of the files that were used more than once.
const SMALL_SEGMENT_SIZE: usize = 32 * 1024;

fn used_disk() -> CrashDisk {
    let options = LogOptions { segment_size: SEGMENT_SIZE as u64, ..LogOptions::default() };
    let (mut runner, _) = Runner::open(CrashDisk::default(), options).unwrap();
    runner.settle();
    let mut next = WriteId(0);
    let mut submit = |runner: &mut Runner, group, ops| {
        next = next.next();
        runner.log.submit(GroupId(group), next, ops);
        runner.settle();
    };
    let hard = |number, voted_for| HardState {
        promised: epoch(number),
        voted_for,
        log_epoch: epoch(number),
    };
    let first = vec![
        Op::HardState(hard(1, Some(NodeId(1)))),
        Op::Write(configuration_slot(1, 1, 3)),
        write(2, 1, b"a command"),
        write(3, 1, b""),
    ];
    submit(&mut runner, 0, first);
    submit(&mut runner, 7, vec![Op::HardState(hard(4, None)), write(1, 4, b"another group")]);
    submit(&mut runner, 0, vec![Op::Truncate(Index(3)), write(3, 2, b"in a later epoch")]);
    let held = slot(3, 2, b"in a later epoch").entry;
    let again = Slot { index: Index(3), accepted: epoch(5), entry: held };
    submit(&mut runner, 0, vec![Op::Write(again), write(6, 5, b"after a gap")]);
    submit(&mut runner, 0, vec![Op::Purge(Position::new(Index(2), epoch(1)))]);
    submit(&mut runner, 9, vec![Op::Reset(Position::new(Index(40), epoch(3)), configuration(2))]);
    submit(&mut runner, 9, vec![write(41, 3, &[b'x'; 9000])]);
    let large = (42..=48).map(|index| write(index, 3, &[b'y'; 7000])).collect();
    submit(&mut runner, 9, large);
    runner.disk
}

/// A log that has used its files more than once.
fn recycled_disk() -> CrashDisk {
    let options = LogOptions { segment_size: SMALL_SEGMENT_SIZE as u64, ..LogOptions::default() };
    let (mut runner, _) = Runner::open(CrashDisk::default(), options).unwrap();
    runner.settle();
    for index in 1..=60 {
        let purge = Op::Purge(Position::new(Index(index - 1), epoch(1)));
        runner.log.submit(GroupId(0), WriteId(index), vec![write(index, 1, &[b'z'; 3000]), purge]);
        runner.settle();
    }
    runner.disk
}

fn frozen_disk(name: &str, segment_size: usize) -> CrashDisk {
    let mut disk = CrashDisk::default();
    let mut entries: Vec<_> =
        std::fs::read_dir(folder(name)).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".seg") {
            let mut live = std::fs::read(entry.path()).unwrap();
            live.resize(segment_size, 0);
            let file = File { durable: live.clone(), live };
            disk.files.insert(FileName::new(format!("log/{name}")), file);
        }
    }
    disk
}

fn dump_all(disk: &CrashDisk) -> String {
    let names = dump::files(disk).unwrap();
    names.iter().map(|name| dump::file(disk, name).unwrap()).collect()
}

fn freeze(name: &str, disk: &CrashDisk) {
    if std::env::var("QUORATE_FREEZE_LOG_SAMPLES").as_deref() != Ok(name) {
        return;
    }
    std::fs::create_dir_all(folder(name)).unwrap();
    for (file, content) in &disk.files {
        let used = content.live.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let path = folder(name).join(file.as_str().strip_prefix("log/").unwrap());
        std::fs::write(path, &content.live[..used]).unwrap();
    }
    std::fs::write(folder(name).join("dump.txt"), dump_all(disk)).unwrap();
}

#[test]
fn version_1_prints_the_same_for_ever() {
    freeze("v1", &used_disk());
    freeze("v1-recycled", &recycled_disk());
    for (name, segment_size) in [("v1", SEGMENT_SIZE), ("v1-recycled", SMALL_SEGMENT_SIZE)] {
        let expected = std::fs::read(folder(name).join("dump.txt")).unwrap();
        let found = dump_all(&frozen_disk(name, segment_size));
        assert_eq!(found, String::from_utf8(expected).unwrap(), "{name}");
    }
}

#[test]
fn version_1_serves_from_files_that_were_used_more_than_once() {
    let options = LogOptions { segment_size: SMALL_SEGMENT_SIZE as u64, ..LogOptions::default() };
    let (mut runner, recovery) =
        Runner::open(frozen_disk("v1-recycled", SMALL_SEGMENT_SIZE), options).unwrap();
    runner.settle();
    assert_eq!(recovery.reports, []);
    let bounds = Bounds { purged: Position::new(Index(59), epoch(1)), last: Index(60) };
    assert_eq!(recovery.groups[&GroupId(0)].bounds, bounds);
    let served = runner.read_all(GroupId(0), Index(60), Index(60));
    assert_eq!(served, [slot(60, 1, &[b'z'; 3000])]);
    assert_eq!(runner.allocated, 0, "the files that were prepared serve");
}

#[test]
fn version_1_opens_and_serves_the_same_for_ever() {
    let options = LogOptions { segment_size: SEGMENT_SIZE as u64, ..LogOptions::default() };
    let (mut runner, recovery) = Runner::open(frozen_disk("v1", SEGMENT_SIZE), options).unwrap();
    runner.settle();
    assert_eq!(recovery.reports, []);
    let run = |first, created, accepted| EpochRun {
        first: Index(first),
        created: epoch(created),
        accepted: epoch(accepted),
    };
    let expected = LogSummary {
        hard_state: Some(HardState {
            promised: epoch(1),
            voted_for: Some(NodeId(1)),
            log_epoch: epoch(1),
        }),
        bounds: Bounds { purged: Position::new(Index(2), epoch(1)), last: Index(6) },
        epochs: vec![run(3, 2, 5), run(6, 5, 5)],
        faults: vec![SlotFault::Absent(Index(4)), SlotFault::Absent(Index(5))],
        configurations: vec![(Index(1), configuration(3))],
    };
    assert_eq!(recovery.groups[&GroupId(0)], expected);
    let served = runner.read_all(GroupId(7), Index(1), Index(1));
    assert_eq!(served, [slot(1, 4, b"another group")]);
    let served = runner.read_all(GroupId(9), Index(41), Index(48));
    assert_eq!(served.len(), 8);
    assert_eq!(served[0], slot(41, 3, &[b'x'; 9000]));
    assert_eq!(recovery.groups[&GroupId(9)].configurations, [(Index(40), configuration(2))]);
}
