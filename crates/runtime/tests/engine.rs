//! The on-disk engine keeps the rules that the store's engine trait states.

#![expect(clippy::disallowed_methods, reason = "what lies on a real disk is tested")]

use bytes::Bytes;
use quorate_runtime::{EngineOptions, FjallEngine};
use quorate_store::engine::{
    Batch, Change, Direction, Engine, EngineError, EngineReader, EngineView, Table,
};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

fn open(root: &Path) -> FjallEngine {
    FjallEngine::open(root, EngineOptions::default()).expect("the engine opens")
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
    let read = |view: &<<FjallEngine as Engine>::Reader as EngineReader>::View, number| {
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

#[test]
fn batches_survive_a_torn_journal_whole_and_as_a_prefix() {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("engine");
    let mut engine = open(&root);
    const COUNT: u32 = 50;
    for number in 1..=COUNT {
        engine.write(everywhere(number)).expect("written");
        engine.syncer()().expect("synced");
    }
    drop(engine);
    let journal = std::fs::read_dir(root.join("gen-1"))
        .expect("listed")
        .map(|entry| entry.expect("listed").path())
        .find(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .expect("a journal");
    let content = std::fs::read(&journal).expect("readable");
    let used = content.iter().rposition(|byte| *byte != 0).expect("something was written") + 1;

    let mut lengths = Vec::new();
    for cut in [used, used - 1, used - 40, used / 2, used / 3 + 7, used / 10] {
        let mut torn = content.clone();
        torn[cut..].fill(0);
        std::fs::write(&journal, &torn).expect("written");
        let engine = open(&root);
        let view = engine.reader().view().expect("a view");
        let found = numbers(&view, Table::Current);
        let prefix: Vec<u32> = (1..=u32::try_from(found.len()).expect("few")).collect();
        for table in Table::ALL {
            assert_eq!(numbers(&view, table), prefix, "{} cut at {cut} of {used}", table.name());
        }
        lengths.push(found.len());
    }
    assert_eq!(lengths[0], COUNT as usize, "the whole journal gives every batch");
    assert!(lengths.is_sorted_by(|a, b| a >= b), "a shorter journal gives fewer: {lengths:?}");
    assert!(lengths[5] < COUNT as usize / 2, "a tenth of the journal is not half of it");
}

/// Small limits make layers full, flushes and evictions happen all the time beside the views.
#[test]
fn views_agree_with_a_model_while_layers_are_flushed_beneath_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let options = EngineOptions {
        row_cache_size: 20_000,
        layer_size: 10_000,
        memtable_size: 64 * 1024,
        ..EngineOptions::default()
    };
    let mut engine = FjallEngine::open(folder.path(), options).expect("opened");
    let reader = engine.reader();
    let mut model = BTreeMap::new();
    let mut held = VecDeque::new();
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((state >> 33) % below).expect("small")
    };
    for step in 0..4_000 {
        let mut changes = BTreeMap::new();
        for _ in 0..=random(6) {
            let value =
                (random(4) > 0).then(|| format!("{step}-{}", "x".repeat(random(80) as usize)));
            changes.insert(random(300), value);
        }
        for (number, value) in &changes {
            match value {
                Some(value) => drop(model.insert(*number, value.clone())),
                None => drop(model.remove(number)),
            }
        }
        let changes =
            changes.iter().map(|(number, value)| change(Table::Current, *number, value.as_deref()));
        engine.write(Batch { changes: changes.collect() }).expect("written");
        if random(100) == 0 {
            engine.syncer()().expect("synced");
        }
        held.push_back((reader.view().expect("a view"), model.clone()));
        if held.len() > 40 {
            held.pop_front();
        }
        let (view, model) = &held[random(held.len() as u64) as usize];
        for _ in 0..3 {
            let number = random(300);
            let found = view.read(Table::Current, &key(number)).expect("readable");
            assert_eq!(found.as_deref(), model.get(&number).map(String::as_bytes), "at {step}");
        }
        let (start, end) = (key(random(300)), key(random(301)));
        let direction = if step % 2 == 0 { Direction::Forward } else { Direction::Backward };
        let found = view.scan(Table::Current, &start, &end, direction);
        let found: Vec<Bytes> = found.map(|pair| pair.expect("readable").1).collect();
        let mut expected: Vec<&String> = model
            .iter()
            .filter(|(number, _)| start <= key(**number) && key(**number) < end)
            .map(|pair| pair.1)
            .collect();
        if direction == Direction::Backward {
            expected.reverse();
        }
        assert_eq!(found, expected, "{start:?}..{end:?} at {step}");
    }
    engine.syncer()().expect("synced");
    held.clear();
    drop((engine, reader));
    let view = open(folder.path()).reader().view().expect("a view");
    assert_eq!(numbers(&view, Table::Current), model.keys().copied().collect::<Vec<_>>());
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
    let reopened = FjallEngine::open(folder.path(), EngineOptions::default());
    assert!(reopened.is_err(), "a reader that lives on keeps the database locked");
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
fn a_marker_that_names_nothing_is_damage() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()));
    for content in ["gen-9\n", "", "gen-0\n", "rubbish"] {
        std::fs::write(folder.path().join("LIVE"), content).expect("written");
        let opened = FjallEngine::open(folder.path(), EngineOptions::default());
        assert!(matches!(opened.err(), Some(EngineError::Damaged(_))), "{content:?}");
    }
}
