//! Opens that meet damage at the beginning of a file, behind an interrupted open, and between two reads.

#![expect(clippy::unwrap_used, reason = "a failed expectation of a test is a failed test")]

mod common;

use bytes::Bytes;
use common::*;
use quorate_log::{DamageWhat, Log};
use quorate_types::{
    DiskError, DiskOp, DiskReader, FileName, GroupId, Index, Position, SlotFault, WriteId,
};

#[test]
fn a_log_whose_beginning_or_whose_batches_are_gone_is_no_foreign_file() {
    let options = small_options();
    let (mut runner, _) = Runner::open(CrashDisk::default(), options.clone()).unwrap();
    let ops = [1, 2].map(|index| vec![write(index, 1, &[7; 150])]);
    for (ops, id) in ops.into_iter().zip(1..) {
        runner.log.submit(GroupId(0), WriteId(id), ops);
        runner.drain();
        while !runner.durable().contains(&WriteId(id)) {
            runner.complete(0);
        }
    }
    let name = FileName::new("log/0000000000000001.seg");
    let spoil = |runner: &Runner, end: usize| {
        let mut disk = runner.disk.clone();
        disk.files.get_mut(&name).unwrap().live[..end].fill(0x5A);
        let (_, recovery) = Runner::open(disk, options.clone()).unwrap();
        recovery
    };
    // No proof is there yet, and a batch that follows.
    let recovery = spoil(&runner, 8);
    assert_eq!(recovery.groups[&GroupId(0)].bounds.last, Index(2));
    runner.settle();
    let end = usize::try_from(runner.log.status().offset).unwrap();
    let recovery = spoil(&runner, end);
    assert!(matches!(recovery.reports[0].what, DamageWhat::Hole { .. }), "only the proof is left");
    assert_eq!(recovery.groups[&GroupId(0)].faults.len(), 2);
}

/// The proof of a batch that was lost bounds what it may have changed, also when an open that was interrupted has said
/// that its segment ends before the proof.
#[test]
fn an_open_after_an_interrupted_one_finds_no_more_damage() {
    let options = small_options();
    let (mut runner, _) = Runner::open(CrashDisk::default(), options.clone()).unwrap();
    runner.settle();
    let mut start = 0;
    for index in 1..=5 {
        start = usize::try_from(runner.log.status().offset).unwrap();
        runner.log.submit(GroupId(0), WriteId(index), vec![write(index, 1, &[7; 150])]);
        runner.settle();
    }
    let end = usize::try_from(runner.log.status().offset).unwrap();
    let name = FileName::new("log/0000000000000001.seg");
    runner.disk.files.get_mut(&name).unwrap().live[start..end].fill(0x5A);
    let (mut runner, first) = Runner::open(runner.disk, options.clone()).unwrap();
    assert_eq!(first.groups[&GroupId(0)].faults, [SlotFault::DamagedUnknown(Index(5))]);
    // Its first batch is torn behind the directory.
    runner.log.submit(GroupId(0), WriteId(9), vec![write(6, 1, &[7; 20_000])]);
    runner.drain();
    let Some(DiskOp::Write { file, offset: 0, data, .. }) = runner.queue.pop_front().map(|r| r.op)
    else {
        panic!("it is written into the file that was prepared")
    };
    runner.disk.files.get_mut(&file).unwrap().live[..4096].copy_from_slice(&data.concat()[..4096]);
    let (_, second) = Runner::open(runner.disk, options).unwrap();
    assert!(second.torn.is_some());
    assert_eq!(second.groups, first.groups);
}

/// A device on which what was read once can no longer be read: everything but the whole files.
struct RotsLater(CrashDisk);

impl DiskReader for RotsLater {
    fn list(&self, folder: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        self.0.list(folder)
    }

    fn read(&self, file: &FileName, offset: u64, size: u64) -> Result<Bytes, DiskError> {
        let mut bytes = self.0.read(file, offset, size)?.to_vec();
        if offset > 0 {
            bytes.iter_mut().for_each(|byte| *byte ^= 1);
        }
        Ok(bytes.into())
    }
}

#[test]
fn an_entry_that_rots_between_two_reads_of_one_open_is_lost_and_told() {
    let (mut runner, _) = Runner::open(CrashDisk::default(), small_options()).unwrap();
    runner.log.submit(GroupId(0), WriteId(1), vec![write(1, 1, &[7; 150]), write(2, 1, b"two")]);
    runner.drain();
    while runner.durable().is_empty() {
        runner.complete(0);
    }
    let (_, recovery) = Log::open(&RotsLater(runner.disk), small_options()).unwrap();
    let lost = |index| SlotFault::DamagedKnown(Position::new(Index(index), epoch(1)));
    assert_eq!(recovery.groups[&GroupId(0)].faults, [lost(1), lost(2)]);
    assert_eq!(recovery.reports.len(), 2, "{:?}", recovery.reports);
}
