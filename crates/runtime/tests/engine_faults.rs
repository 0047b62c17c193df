//! What the on-disk engine does when something else goes wrong, and that it agrees with a model in all its tables.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what threads of the engine do is waited for, in real time"
)]

use bytes::Bytes;
use quorate_runtime::{DiskEngine, EngineOptions};
use quorate_store::engine::{
    Batch, Change, Direction, Engine, EngineError, EngineReader, EngineView, Table,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn open(root: &Path) -> DiskEngine {
    DiskEngine::open(root, EngineOptions::default()).expect("the engine opens")
}

/// One batch that leaves a text at one key in every table.
fn everywhere(key: &str, text: &str) -> Batch {
    let change = |table| Change {
        table,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
    };
    Batch { changes: Table::ALL.map(change).to_vec() }
}

fn keys(engine: &DiskEngine, table: Table) -> Vec<String> {
    let view = engine.reader().view().expect("a view");
    view.scan(table, b"", b"~", Direction::Forward)
        .map(|pair| String::from_utf8(pair.expect("readable").0.to_vec()).expect("text"))
        .collect()
}

#[test]
fn a_second_engine_in_one_folder_is_refused_and_touches_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    engine.write(everywhere("a", "old")).expect("written");
    engine.begin_generation().expect("begun");
    engine.write_generation(everywhere("b", "new")).expect("staged");
    engine.sync_generation().expect("synced");
    let second = DiskEngine::open(folder.path(), EngineOptions::default());
    assert!(matches!(second.err(), Some(EngineError::Failed(_))));
    engine.commit_generation().expect("committed");
    drop(engine);
    assert_eq!(keys(&open(folder.path()), Table::Current), ["b"]);
}

#[test]
fn after_a_flush_that_failed_everything_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    engine.write(everywhere("a", "1")).expect("written");
    let (tables, aside) = (folder.path().join("gen-1/tables"), folder.path().join("aside"));
    std::fs::rename(&tables, &aside).expect("moved");
    assert!(engine.syncer()().is_err(), "no file can be made");
    std::fs::rename(&aside, &tables).expect("moved");
    assert!(engine.syncer()().is_err(), "what failed once is not tried again");
    assert!(engine.write(everywhere("b", "2")).is_err(), "nothing is written behind a failure");
    assert!(engine.syncer()().is_err());
    drop(engine);
    assert!(keys(&open(folder.path()), Table::Current).is_empty());
}

#[test]
fn after_a_commit_that_failed_everything_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    engine.begin_generation().expect("begun");
    engine.write_generation(everywhere("b", "new")).expect("staged");
    engine.sync_generation().expect("synced");
    let temporary = folder.path().join("LIVE.tmp");
    std::fs::create_dir(&temporary).expect("made");
    assert!(engine.commit_generation().is_err());
    // Nobody knows which generation the next open finds.
    assert!(engine.write(everywhere("a", "old")).is_err());
    assert!(engine.syncer()().is_err());
    std::fs::remove_dir(&temporary).expect("removed");
    drop(engine);
    assert!(keys(&open(folder.path()), Table::Current).is_empty());
}

/// A merge needs as much space again as what it merges; what is there stays as good as it was.
#[test]
fn a_merge_without_space_is_put_off() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    let merged = folder.path().join("gen-1/tables/5");
    for number in 1..=4 {
        if number == 4 {
            std::os::unix::fs::symlink("/dev/full", &merged).expect("made");
        }
        engine.write(everywhere(&number.to_string(), "x")).expect("written");
        engine.syncer()().expect("synced");
    }
    let begin = Instant::now();
    while merged.is_symlink() {
        assert!(begin.elapsed() < Duration::from_secs(60), "four runs are merged");
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(100));
    engine.write(everywhere("5", "x")).expect("the engine goes on");
    engine.syncer()().expect("the engine goes on");
    drop(engine);
    assert_eq!(keys(&open(folder.path()), Table::Current), ["1", "2", "3", "4", "5"]);
}

#[test]
fn a_view_shows_the_same_batch_in_every_table_while_runs_are_merged() {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        EngineOptions { row_cache_size: 3_000, layer_size: 3_000, ..EngineOptions::default() };
    let mut engine = DiskEngine::open(folder.path(), options).expect("opened");
    engine.write(everywhere("key", "0")).expect("written");
    let (reader, done) = (engine.reader(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut last = 0;
                while !done.load(Ordering::Relaxed) {
                    let view = reader.view().expect("a view");
                    let read = |table| {
                        let value = view.read(table, b"key").expect("readable").expect("there");
                        String::from_utf8(value.to_vec()).expect("text").parse::<u32>()
                    };
                    let current = read(Table::Current).expect("a number");
                    assert_eq!(read(Table::History), Ok(current));
                    assert_eq!(read(Table::State), Ok(current));
                    let pair = view.scan(Table::Current, b"k", b"l", Direction::Backward).next();
                    let value = pair.expect("there").expect("readable").1;
                    assert_eq!(value, current.to_string());
                    assert!(current >= last, "views go forward");
                    last = current;
                }
            });
        }
        for number in 1..6_000_u32 {
            engine.write(everywhere("key", &number.to_string())).expect("written");
            if number % 97 == 0 {
                engine.syncer()().expect("synced");
            }
            if number % 1_500 == 0 {
                engine.begin_generation().expect("begun");
                engine.write_generation(everywhere("key", &number.to_string())).expect("staged");
                engine.sync_generation().expect("synced");
                engine.commit_generation().expect("committed");
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

type Model = [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()];

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }

    /// Keys of all lengths, many with a common beginning and with zeros.
    fn key(&mut self) -> Vec<u8> {
        let prefix: &[u8] = [&b""[..], b"aaaaaaaaaa", b"\0\0", b"\xff"][self.below(4)];
        let size = self.below(4);
        let mut key = prefix.to_vec();
        key.extend((0..size).map(|_| [0, 1, b'a', 0xff][self.below(4)]));
        key
    }

    fn batch(&mut self, step: usize, model: &mut Model) -> Batch {
        let mut changes = Vec::new();
        for table in Table::ALL {
            let mut keys = BTreeMap::new();
            for _ in 0..self.below(5) {
                let key = if table == Table::History && self.below(3) > 0 {
                    let mut key = b"h".to_vec();
                    key.extend(u32::try_from(step).expect("small").to_be_bytes());
                    key
                } else {
                    self.key()
                };
                let size = if self.below(60) == 0 { 9_000 } else { self.below(60) };
                let value = format!("{step}{}", "x".repeat(size)).into_bytes();
                keys.insert(key, (self.below(3) > 0).then_some(value));
            }
            for (key, value) in keys {
                let pairs = &mut model[table as usize];
                match &value {
                    Some(value) => drop(pairs.insert(key.clone(), value.clone())),
                    None => drop(pairs.remove(&key)),
                }
                changes.push(Change { table, key: key.into(), value: value.map(Bytes::from) });
            }
        }
        Batch { changes }
    }

    /// Reads a little in every way.
    fn check(&mut self, view: &impl EngineView, model: &Model) {
        for table in Table::ALL {
            let pairs = &model[table as usize];
            for _ in 0..3 {
                let key = self.key();
                let found = view.read(table, &key).expect("readable");
                assert_eq!(found.as_deref(), pairs.get(&key).map(|value| &value[..]), "{key:?}");
            }
            let (start, end) = (self.key(), self.key());
            let limit = if self.below(2) == 0 { usize::MAX } else { self.below(5) };
            for direction in [Direction::Forward, Direction::Backward] {
                let found = view.scan(table, &start, &end, direction).take(limit);
                let found: Vec<_> = found.map(|pair| pair.expect("readable")).collect();
                let inside = pairs.iter().filter(|(key, _)| start <= **key && **key < end);
                let mut expected: Vec<_> = inside
                    .map(|(key, value)| (Bytes::from(key.clone()), Bytes::from(value.clone())))
                    .collect();
                if direction == Direction::Backward {
                    expected.reverse();
                }
                expected.truncate(limit);
                assert!(found == expected, "{table:?} {start:?}..{end:?} {direction:?}");
            }
        }
    }
}

/// Flushes and merges go on beneath the views; the engine is closed and opened again.
#[test]
fn every_table_agrees_with_a_model() {
    for seed in 1..=2 {
        let folder = tempfile::tempdir().expect("a folder");
        let mut random = Random(seed);
        let mut model = Model::default();
        for _ in 0..5 {
            let options = EngineOptions {
                cache_size: 50_000,
                row_cache_size: 5_000,
                layer_size: [2_000, 10_000, 40_000][random.below(3)],
                ..EngineOptions::default()
            };
            let mut engine = DiskEngine::open(folder.path(), options).expect("opened");
            let reader = engine.reader();
            random.check(&reader.view().expect("a view"), &model);
            let mut held = VecDeque::new();
            for step in 0..300 {
                engine.write(random.batch(step, &mut model)).expect("written");
                if random.below(20) == 0 {
                    engine.syncer()().expect("synced");
                }
                held.push_back((reader.view().expect("a view"), model.clone()));
                if held.len() > 15 {
                    held.remove(random.below(15));
                }
                let (view, model) = &held[random.below(held.len())];
                random.check(view, model);
            }
            engine.syncer()().expect("synced");
            for (view, model) in &held {
                random.check(view, model);
            }
        }
    }
}
