//! The on-disk engine keeps the rules that the store's engine trait states.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "what lies on a real disk is tested, in real time"
)]

use bytes::Bytes;
use quorate_runtime::{DiskEngine, EngineOptions};
use quorate_store::Store;
use quorate_store::engine::{
    Batch, Change, Direction, Engine, EngineError, EngineReader, EngineView, Table,
};
use quorate_store::etcd::{Command, CompactRequest, PutRequest, RangeRequest};
use quorate_types::{
    Committed, Entry, EntryKind, Epoch, GroupId, Index, NodeId, Origin, StateMachine, TransactionId,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn open(root: &Path) -> DiskEngine {
    DiskEngine::open(root, EngineOptions::default()).expect("the engine opens")
}

fn key(number: u32) -> Bytes {
    Bytes::copy_from_slice(&number.to_be_bytes())
}

fn change(table: Table, number: u32, value: Option<&str>) -> Change {
    let value = value.map(|value| Bytes::copy_from_slice(value.as_bytes()));
    Change { table, key: key(number), value }
}

/// One batch that leaves its number in every table.
fn everywhere(number: u32) -> Batch {
    let text = number.to_string();
    Batch { changes: Table::ALL.map(|table| change(table, number, Some(&text))).to_vec() }
}

fn numbers(view: &impl EngineView, table: Table) -> Vec<u32> {
    view.scan(table, &key(0), &key(u32::MAX), Direction::Forward)
        .map(|pair| {
            let (key, _) = pair.expect("readable");
            u32::from_be_bytes(key[..].try_into().expect("keys of four bytes"))
        })
        .collect()
}

#[test]
fn a_view_shows_its_moment_and_scans_in_both_directions() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    let reader = engine.reader();
    (1..=5).for_each(|number| engine.write(everywhere(number)).expect("written"));
    let before = reader.view().expect("a view");
    let changes = vec![
        change(Table::Current, 2, None),
        change(Table::Current, 3, Some("new")),
        change(Table::History, 3, None),
    ];
    engine.write(Batch { changes }).expect("written");
    let after = reader.view().expect("a view");

    assert_eq!(numbers(&before, Table::Current), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&after, Table::Current), [1, 3, 4, 5]);
    assert_eq!(numbers(&after, Table::History), [1, 2, 4, 5]);
    let read = |view: &<<DiskEngine as Engine>::Reader as EngineReader>::View, number| {
        view.read(Table::Current, &key(number)).expect("readable")
    };
    assert_eq!(read(&before, 3), Some(Bytes::from("3")));
    assert_eq!(read(&after, 3), Some(Bytes::from("new")));
    assert_eq!(read(&after, 2), None);

    let scan = |start, end, direction| -> Vec<Bytes> {
        before
            .scan(Table::State, &key(start), &key(end), direction)
            .map(|pair| pair.expect("readable").1)
            .collect()
    };
    assert_eq!(scan(2, 4, Direction::Forward), ["2", "3"]);
    assert_eq!(scan(2, 4, Direction::Backward), ["3", "2"]);
    assert_eq!(scan(4, 4, Direction::Forward), Vec::<Bytes>::new());
    assert_eq!(scan(4, 2, Direction::Backward), Vec::<Bytes>::new());
}

/// Copies every file below a folder.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("listed") {
        let path = entry.expect("listed").path();
        let target = to.join(path.file_name().expect("named"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            match std::fs::copy(&path, &target) {
                // A merge went on meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.expect("copied")),
            }
        }
    }
}

fn run_files(root: &Path) -> Vec<PathBuf> {
    let listing = std::fs::read_dir(root.join("gen-1/tables")).expect("listed");
    let mut files: Vec<_> = listing.map(|entry| entry.expect("listed").path()).collect();
    files.sort();
    files
}

/// Files of runs get to the device in any order and length before the manifest that names them does.
#[test]
fn batches_survive_a_crash_whole_and_as_a_prefix() {
    let folder = tempfile::tempdir().expect("a folder");
    let (root, cut) = (folder.path().join("engine"), folder.path().join("cut"));
    let mut engine = open(&root);
    for number in 1..=30 {
        let before = std::fs::read(root.join("gen-1/current")).expect("a manifest");
        engine.write(everywhere(number)).expect("written");
        copy(&root, &cut);
        engine.syncer()().expect("synced");
        let newest = run_files(&root).pop().expect("a run");
        let content = std::fs::read(&newest).unwrap_or_default();
        for size in [0, content.len() / 2, content.len()] {
            // The manifest is still the one before the flush.
            std::fs::write(cut.join("gen-1/current"), &before).expect("written");
            let orphan = cut.join("gen-1/tables/4000000");
            std::fs::write(&orphan, &content[..size]).expect("written");
            let Ok(engine) = DiskEngine::open(&cut, EngineOptions::default()) else {
                // A merge went on while it was copied.
                continue;
            };
            let view = engine.reader().view().expect("a view");
            let expected: Vec<u32> = (1..number).collect();
            for table in Table::ALL {
                assert_eq!(numbers(&view, table), expected, "{}", table.name());
            }
            assert!(!orphan.exists(), "what no manifest names is removed");
        }
        std::fs::remove_dir_all(&cut).expect("removed");
    }
    let view = engine.reader().view().expect("a view");
    assert_eq!(numbers(&view, Table::State), (1..=30).collect::<Vec<_>>());
}

/// Reads everything, in every way.
fn read_all(root: &Path) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
    let engine = DiskEngine::open(root, EngineOptions::default())?;
    let view = engine.reader().view()?;
    let mut pairs = Vec::new();
    for table in Table::ALL {
        for pair in view.scan(table, &key(0), &key(u32::MAX), Direction::Forward) {
            let (key, value) = pair?;
            assert_eq!(view.read(table, &key)?.as_ref(), Some(&value), "a scan and a read agree");
            pairs.push((key, value));
        }
    }
    Ok(pairs)
}

#[test]
fn damage_is_told_and_never_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("engine");
    let mut engine = open(&root);
    for number in 1..=700 {
        engine.write(everywhere(number)).expect("written");
        if number % 300 == 0 {
            engine.syncer()().expect("synced");
        }
    }
    engine.syncer()().expect("synced");
    drop(engine);
    let whole = read_all(&root).expect("nothing is damaged");
    assert_eq!(whole.len(), 700 * Table::ALL.len());
    let check = |what: &str| match read_all(&root) {
        Err(EngineError::Damaged(_)) => {}
        Err(EngineError::Failed(reason)) => panic!("{what}: {reason}"),
        Ok(pairs) => panic!("{what} was not noticed; {} pairs, {}", pairs.len(), pairs == whole),
    };
    let files = run_files(&root);
    assert!(files.len() > 1, "there are a few files");
    for file in &files {
        let content = std::fs::read(file).expect("readable");
        for at in (0..content.len()).step_by(97) {
            let mut damaged = content.clone();
            damaged[at] ^= 1 << (at % 8);
            std::fs::write(file, damaged).expect("written");
            check(&format!("byte {at} of {}", file.display()));
        }
        std::fs::write(file, &content[..content.len() - 1]).expect("written");
        check("a cut file");
        std::fs::remove_file(file).expect("removed");
        check("a missing file");
        let other = files.iter().find(|other| *other != file).expect("several");
        std::fs::copy(other, file).expect("copied");
        check("a file in the place of another");
        std::fs::write(file, content).expect("written");
    }
    assert_eq!(read_all(&root).as_ref(), Ok(&whole));
    std::fs::remove_file(root.join("gen-1/current")).expect("removed");
    check("a missing manifest");
}

/// Small limits make layers full, flushes, merges and evictions happen all the time beside the views.
#[test]
fn views_agree_with_a_model_while_layers_are_flushed_and_runs_merged_beneath_them() {
    // `Current` and `State` are overwritten at random, `History` is mostly written in order.
    agrees_with_a_model(Table::Current, |_, random| random % 300);
    agrees_with_a_model(Table::State, |_, random| random % 20);
    agrees_with_a_model(Table::History, |step, random| step / 14 + random % 8);
}

/// Writes keys that `pick` picks from a step and a random number; keys are below 300.
fn agrees_with_a_model(table: Table, pick: fn(u32, u32) -> u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        EngineOptions { row_cache_size: 20_000, layer_size: 10_000, ..EngineOptions::default() };
    let mut engine = DiskEngine::open(folder.path(), options).expect("opened");
    let reader = engine.reader();
    let mut model = BTreeMap::new();
    let mut held = VecDeque::new();
    let mut state = 1_u64;
    let mut random = |below: u32| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 33).expect("31 bits") % below
    };
    for step in 0..4_000 {
        let mut changes = BTreeMap::new();
        for _ in 0..=random(6) {
            let value =
                (random(4) > 0).then(|| format!("{step}-{}", "x".repeat(random(80) as usize)));
            changes.insert(pick(step, random(1 << 30)), value);
        }
        for (number, value) in &changes {
            match value {
                Some(value) => drop(model.insert(*number, value.clone())),
                None => drop(model.remove(number)),
            }
        }
        let changes =
            changes.iter().map(|(number, value)| change(table, *number, value.as_deref()));
        engine.write(Batch { changes: changes.collect() }).expect("written");
        if random(100) == 0 {
            engine.syncer()().expect("synced");
        }
        held.push_back((reader.view().expect("a view"), model.clone()));
        if held.len() > 40 {
            held.pop_front();
        }
        let (view, model) = &held[random(u32::try_from(held.len()).expect("few")) as usize];
        for _ in 0..3 {
            let number = random(300);
            let found = view.read(table, &key(number)).expect("readable");
            assert_eq!(found.as_deref(), model.get(&number).map(String::as_bytes), "at {step}");
        }
        let (start, end) = (key(random(300)), key(random(301)));
        let direction = if step % 2 == 0 { Direction::Forward } else { Direction::Backward };
        let found = view.scan(table, &start, &end, direction);
        let found: Vec<Bytes> = found.map(|pair| pair.expect("readable").1).collect();
        let mut expected: Vec<&String> = model
            .iter()
            .filter(|(number, _)| start <= key(**number) && key(**number) < end)
            .map(|pair| pair.1)
            .collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(found, expected, "{start:?}..{end:?} of {} at {step}", table.name());
    }
    engine.syncer()().expect("synced");
    held.clear();
    drop((engine, reader));
    let view = open(folder.path()).reader().view().expect("a view");
    assert_eq!(numbers(&view, table), model.keys().copied().collect::<Vec<_>>());
}

#[test]
fn a_staged_generation_is_invisible_until_it_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    let reader = engine.reader();
    engine.write(everywhere(1)).expect("written");
    let old = reader.view().expect("a view");

    engine.begin_generation().expect("begun");
    engine.write_generation(everywhere(7)).expect("staged");
    assert!(engine.commit_generation().is_err(), "it is not synced");
    engine.sync_generation().expect("synced");
    assert_eq!(numbers(&reader.view().expect("a view"), Table::Current), [1]);
    engine.commit_generation().expect("committed");
    assert_eq!(numbers(&reader.view().expect("a view"), Table::Current), [7]);
    assert_eq!(numbers(&old, Table::Current), [1], "an older view stays as it is");
    engine.write(everywhere(8)).expect("written");
    engine.syncer()().expect("synced");
    drop((old, engine, reader));

    let mut engine = open(folder.path());
    assert_eq!(numbers(&engine.reader().view().expect("a view"), Table::State), [7, 8]);
    assert!(!folder.path().join("gen-1").exists(), "the old generation is gone");

    engine.begin_generation().expect("begun");
    engine.write_generation(everywhere(9)).expect("staged");
    engine.sync_generation().expect("synced");
    std::mem::forget(engine.reader());
    drop(engine);
    let reopened = DiskEngine::open(folder.path(), EngineOptions::default());
    assert!(reopened.is_err(), "a reader that lives on keeps the generation locked");
}

#[test]
fn a_generation_that_was_not_committed_is_removed_at_open() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut engine = open(folder.path());
    engine.write(everywhere(1)).expect("written");
    engine.syncer()().expect("synced");
    engine.begin_generation().expect("begun");
    engine.write_generation(everywhere(9)).expect("staged");
    engine.sync_generation().expect("synced");
    drop(engine);
    let engine = open(folder.path());
    assert_eq!(numbers(&engine.reader().view().expect("a view"), Table::Current), [1]);
    assert!(!folder.path().join("gen-2").exists());
}

#[test]
fn a_marker_that_is_missing_is_damage_unless_nothing_was_written() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    let marker = folder.path().join("LIVE");
    std::fs::remove_file(&marker).expect("removed");
    let mut engine = open(folder.path());
    engine.write(everywhere(1)).expect("written");
    engine.syncer()().expect("synced");
    drop(engine);
    std::fs::remove_file(&marker).expect("removed");
    let opened = DiskEngine::open(folder.path(), EngineOptions::default());
    assert!(matches!(opened.err(), Some(EngineError::Damaged(_))));
    std::fs::write(&marker, "gen-1\n").expect("written");
    let engine = open(folder.path());
    assert_eq!(
        numbers(&engine.reader().view().expect("a view"), Table::Current),
        [1],
        "it is kept"
    );
}

#[test]
fn a_marker_that_names_nothing_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    for content in [&b"gen-9\n"[..], b"", b"gen-0\n", b"rubbish", b"\xff\xfe"] {
        std::fs::write(folder.path().join("LIVE"), content).expect("written");
        let opened = DiskEngine::open(folder.path(), EngineOptions::default());
        assert!(matches!(opened.err(), Some(EngineError::Damaged(_))), "{content:?}");
    }
}

/// A store whose keys were each put many times, on a device of its own.
#[test]
fn what_was_compacted_gives_its_space_back_though_nothing_more_is_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let options =
        EngineOptions { layer_age: Duration::from_millis(50), ..EngineOptions::default() };
    let engine = DiskEngine::open(folder.path(), options).expect("opened");
    let mut store = Store::open(engine, GroupId(0)).expect("opened");
    let mut index = 0;
    let mut apply = |store: &mut Store<DiskEngine>, command: Command| {
        index += 1;
        let (epoch, body) = (Epoch::new(1, NodeId(1)), command.encode());
        let entry =
            Entry::new(epoch, EntryKind::Command, Origin::NONE, TransactionId::default(), body);
        let committed = Committed { index: Index(index), entry, wanted: false };
        store.apply(&[committed]).expect("applied");
    };
    for number in 0..20_000 {
        let key = format!("key{}", number % 100).into();
        let put = PutRequest { key, value: vec![7; 256].into(), ..PutRequest::default() };
        apply(&mut store, Command::Put(put));
        if number % 5_000 == 0 {
            store.syncer()().expect("synced");
        }
    }
    let reader = store.reader();
    let (before, revision) = (reader.size(), reader.revision().0);
    apply(&mut store, Command::Compact(CompactRequest { revision }));
    while store.tend().expect("swept") {}
    assert!(reader.is_swept(revision));
    let deadline = Instant::now() + Duration::from_secs(30);
    while reader.size() > before / 20 {
        assert!(Instant::now() < deadline, "{} of {before} bytes are left", reader.size());
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let request = RangeRequest { key: "key".into(), range_end: "l".into(), ..Default::default() };
    assert_eq!(reader.range(&request).expect("read").count, 100);
}

/// A manifest and a file of runs as version 1 writes them, in hexadecimal (`docs/format/engine.md`): a change here is a
/// new version.
const SAMPLE: &str = include_str!("samples/engine-v1.txt");

fn sample(name: &str) -> Vec<u8> {
    let line = SAMPLE.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.expect("it is one of the samples");
    let byte = |at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

#[test]
fn files_of_version_one_are_read_and_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("engine");
    let mut engine = open(&root);
    let mut changes = everywhere(1).changes;
    for number in 2..=5 {
        let value = (number < 5).then_some("value");
        changes.insert(number as usize - 1, change(Table::Current, number, value));
    }
    engine.write(Batch { changes }).expect("written");
    engine.syncer()().expect("synced");
    drop(engine);
    let (manifest, runs) = (root.join("gen-1/current"), root.join("gen-1/tables/1"));
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let written = |path: &Path| hex(&std::fs::read(path).expect("readable"));
    assert_eq!(written(&runs), hex(&sample("runs")));
    assert_eq!(written(&manifest), hex(&sample("manifest")));
    std::fs::write(&manifest, sample("manifest")).expect("written");
    std::fs::write(&runs, sample("runs")).expect("written");
    let view = open(&root).reader().view().expect("a view");
    assert_eq!(numbers(&view, Table::Current), [1, 2, 3, 4]);
    assert_eq!((numbers(&view, Table::History), numbers(&view, Table::State)), (vec![1], vec![1]));
    assert_eq!(view.read(Table::Current, &key(5)).expect("readable"), None);
}
