//! What the store costs on its engine, in processor time of all its threads:
//! `cargo run --release -p quorate-runtime --example engine_cost -- [puts] [batch,batch,...] [folder]`.
//!
//! Puts 256 B values over 100,000 keys in batches as the log would give them, with a sync after each second,
//! then reads. What is left to do in the background is waited for and counted.

#![expect(clippy::print_stdout, reason = "it prints what it measures")]
#![expect(clippy::disallowed_types, reason = "it measures with the operating system's clock")]

mod measure;

use bytes::Bytes;
use measure::resident;
use quorate_runtime::{DiskEngine, EngineOptions};
use quorate_store::etcd::{Command, PutRequest, RangeRequest};
use quorate_store::{Store, StoreReader};
use quorate_types::{
    Committed, Entry, EntryKind, Epoch, GroupId, Incarnation, Index, NodeId, Origin, StateMachine,
    TransactionId,
};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The size of each value in bytes.
const VALUE_SIZE: usize = 256;

/// How many batches are made before they are put: looking at what that took costs a little, too.
const BATCHES_AT_ONCE: usize = 64;

/// How many keys are put in turn.
const KEY_COUNT: usize = 100_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let puts = arguments.next().map_or(200_000, |text| text.parse().expect("a number of puts"));
    let batches = arguments.next().unwrap_or_else(|| "64,8,1".to_owned());
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = arguments.next().map_or(temporary.path().to_owned(), Into::into);
    let mut runs = Run::open(&folder);
    for batch in batches.split(',') {
        runs.puts(puts, batch.parse().expect("a size of batches"));
    }
    runs.gets(puts, 1_000, "hot");
    runs.gets(puts, KEY_COUNT, "any");
    runs.ranges(puts / 100);
    println!("resident {}", resident());
    drop(runs);
    let begin = Instant::now();
    drop(Run::open(&folder));
    println!("opened again in {:?}", begin.elapsed());
}

struct Run {
    store: Store<DiskEngine>,
    reader: StoreReader<DiskEngine>,
    index: u64,
}

impl Run {
    fn open(folder: &Path) -> Run {
        let engine = DiskEngine::open(folder, EngineOptions::default()).expect("it opens");
        let store = Store::open(engine, GroupId(0)).expect("it opens");
        let index = store.applied().position.index.0;
        Run { reader: store.reader(), store, index }
    }

    fn entry(&mut self) -> Committed {
        self.index += 1;
        let number = random(self.index as usize) % KEY_COUNT;
        let put = PutRequest {
            key: key(number),
            value: Bytes::from(vec![b'v'; VALUE_SIZE]),
            ..PutRequest::default()
        };
        let origin = Origin {
            node: NodeId(1 + self.index % 3),
            incarnation: Incarnation(7),
            sequence: self.index / 3 + 1,
        };
        let epoch = Epoch::new(1, NodeId(1));
        let body = Command::Put(put).encode();
        let entry = Entry::new(epoch, EntryKind::Command, origin, TransactionId::default(), body);
        Committed { index: Index(self.index), entry, wanted: true }
    }

    fn puts(&mut self, count: usize, batch: usize) {
        let syncs = Syncs::start(self.store.syncer());
        let mut slowest = Duration::ZERO;
        let before = Used::now();
        let begin = Instant::now();
        let mut made = Duration::ZERO;
        let batches = count.div_ceil(batch);
        for first in (0..batches).step_by(BATCHES_AT_ONCE) {
            let begin = Used::own();
            let batches: Vec<Vec<Committed>> = (first..batches.min(first + BATCHES_AT_ONCE))
                .map(|_| (0..batch).map(|_| self.entry()).collect())
                .collect();
            made += Used::own() - begin;
            for entries in batches {
                let begin = Instant::now();
                self.store.apply(&entries).expect("applied");
                slowest = slowest.max(begin.elapsed());
            }
        }
        let elapsed = begin.elapsed();
        let (syncs, syncing) = syncs.stop();
        let used = Used::settled();
        println!(
            "put  batch {batch:3}: apply {:5.2} us, background {:5.2} us of a core each; {:6.2} us elapsed, \
             slowest batch {slowest:?}, {syncs}",
            each((used.own - before.own).saturating_sub(made), count),
            each((used.others + syncing).saturating_sub(before.others), count),
            each(elapsed, count),
        );
    }

    fn gets(&mut self, count: usize, keys: usize, name: &str) {
        let (before, begin) = (Used::own(), Instant::now());
        for number in 0..count {
            let key = key(random(number) % keys);
            let request = RangeRequest { key, ..RangeRequest::default() };
            let found = self.reader.range(&request).expect("read");
            assert!(found.count <= 1, "one key was asked for");
        }
        let (elapsed, used) = (begin.elapsed(), Used::own() - before);
        let (used, elapsed) = (each(used, count), each(elapsed, count));
        println!("get  {name}: {used:6.2} us of a core each, {elapsed:6.2} us elapsed");
    }

    fn ranges(&mut self, count: usize) {
        let (before, begin) = (Used::own(), Instant::now());
        for number in 0..count {
            let first = random(number) % (KEY_COUNT - 100);
            let request =
                RangeRequest { key: key(first), range_end: key(first + 100), ..Default::default() };
            let found = self.reader.range(&request).expect("read");
            assert!(found.count > 50, "most keys were put");
        }
        let (elapsed, used) = (begin.elapsed(), Used::own() - before);
        let (used, elapsed) = (each(used, count), each(elapsed, count));
        println!("range of 100: {used:6.2} us of a core each, {elapsed:6.2} us elapsed");
    }
}

/// The same numbers in every run, without an order.
fn random(number: usize) -> usize {
    let mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as usize
}

fn key(number: usize) -> Bytes {
    Bytes::from(format!("key{number:010}"))
}

/// A thread that syncs each second, as a node asks for.
struct Syncs {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<(String, Duration)>,
}

impl Syncs {
    fn start(syncer: quorate_types::Syncer) -> Syncs {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        #[expect(clippy::disallowed_methods, reason = "it measures what a thread beside does")]
        let thread = std::thread::spawn(move || {
            let (mut count, mut slowest) = (0, Duration::ZERO);
            while !ends.load(Ordering::Relaxed) {
                std::thread::park_timeout(Duration::from_secs(1));
                let begin = Instant::now();
                syncer().expect("synced");
                slowest = slowest.max(begin.elapsed());
                count += 1;
            }
            (format!("{count} syncs of at most {slowest:?}"), Used::own())
        });
        Syncs { stop, thread }
    }

    /// What there is to say of them, and what they used of the processors.
    fn stop(self) -> (String, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        self.thread.join().expect("it ends")
    }
}

fn each(duration: Duration, count: usize) -> f64 {
    duration.as_secs_f64() * 1e6 / count as f64
}

/// What the processors did for this process so far.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Used {
    /// For the thread that asks.
    own: Duration,
    /// For all others.
    others: Duration,
}

impl Used {
    fn of(path: &Path) -> Option<Duration> {
        let text = std::fs::read_to_string(path.join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
    }

    fn own() -> Duration {
        Used::of(Path::new("/proc/thread-self")).expect("this is Linux")
    }

    fn now() -> Used {
        let own = Used::own();
        let threads = std::fs::read_dir("/proc/self/task").expect("this is Linux");
        let all: Duration =
            threads.filter_map(|thread| Used::of(&thread.expect("listed").path())).sum();
        Used { own, others: all.saturating_sub(own) }
    }

    /// Once nothing goes on in the background any more.
    #[expect(clippy::disallowed_methods, reason = "there is no event for nothing happening")]
    fn settled() -> Used {
        loop {
            let before = Used::now();
            std::thread::sleep(Duration::from_millis(300));
            let now = Used::now();
            if now.others.saturating_sub(before.others) < Duration::from_millis(1) {
                return before;
            }
        }
    }
}
