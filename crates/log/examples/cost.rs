//! What the log itself costs for each entry: `cargo run --release -p quorate-log --example cost`.
//!
//! Entries of 128 bytes in submissions of 1, 64 and 1,024; the disk answers at once and does nothing, so that only
//! the log's own work is measured: encoding, checksums, cache, index, events.

#![expect(clippy::disallowed_types, clippy::print_stdout, reason = "a measurement on a terminal")]

use bytes::Bytes;
use quorate_log::{Log, LogEvent, LogOptions};
use quorate_types::{
    DiskDone, DiskError, DiskOutput, DiskReader, Entry, EntryKind, Epoch, FileName, GroupId, Index,
    NodeId, Op, Origin, Position, Slot, TransactionId, WriteId,
};
use std::time::{Duration, Instant};

/// A data folder without files.
struct Empty;

impl DiskReader for Empty {
    fn list(&self, _: &str) -> Result<Vec<(FileName, u64)>, DiskError> {
        Ok(Vec::new())
    }

    fn read(&self, file: &FileName, _: u64, _: u64) -> Result<Bytes, DiskError> {
        Err(DiskError::NotFound(file.clone()))
    }
}

/// Answers every request at once; gives how many writes became durable.
fn settle(log: &mut Log) -> u64 {
    while let Some(request) = log.poll() {
        let done = DiskDone { id: request.id, result: Ok(DiskOutput::Done) };
        log.handle(quorate_types::Instant::ZERO, done);
    }
    let mut durable = 0;
    while let Some(event) = log.poll_event() {
        durable += u64::from(matches!(event, LogEvent::Durable { .. }));
    }
    durable
}

fn ops(first: u64, count: u64, body: &Bytes) -> Vec<Op> {
    let epoch = Epoch::new(1, NodeId(1));
    let entry = |_| {
        let kind = EntryKind::Command;
        Entry::new(epoch, kind, Origin::NONE, TransactionId(0), body.clone())
    };
    let slot =
        |index| Op::Write(Slot { index: Index(index), accepted: epoch, entry: entry(index) });
    (first..first + count).map(slot).collect()
}

fn main() {
    let body = Bytes::from(vec![7; 128]);
    for size in [1, 64, 1024] {
        let (mut log, _) = Log::open(&Empty, LogOptions::default()).expect("an empty folder");
        settle(&mut log);
        let (mut spent, mut next, total) = (Duration::ZERO, 1, 20_000 * size.max(15));
        let mut write = WriteId(0);
        while next <= total {
            let mut ops = ops(next, size, &body);
            next += size;
            write = write.next();
            if next % 50_000 < size {
                let purged = Index(next.saturating_sub(100_000).max(1) - 1);
                ops.push(Op::Purge(Position::new(purged, Epoch::new(1, NodeId(1)))));
            }
            let start = Instant::now();
            log.submit(GroupId(0), write, ops);
            let durable = settle(&mut log);
            spent += start.elapsed();
            assert_eq!(durable, 1, "every write becomes durable");
        }
        let per_entry = spent.as_nanos() as f64 / total as f64;
        println!("submissions of {size:>4}: {per_entry:>7.1} ns an entry");
    }
}
