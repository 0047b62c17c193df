//! Snapshots: what a replica gets that the log can no longer help.

use crate::harness::*;
use bytes::Bytes;
use quorate_store::Store;
use quorate_store::engine::MemoryDisk;
use quorate_store::etcd::*;
use quorate_types::*;

/// A store with history, tombstones, a compaction under way, members and several chunks.
fn busy() -> Client {
    let mut client = Client::new();
    let mut dice = Dice(42);
    let value = "v".repeat(400);
    for number in 0..3000 {
        let key = format!("key{:03}", dice.below(500));
        match dice.below(10) {
            0 => drop(client.delete(&key, "")),
            _ => drop(client.put(&key, &format!("{value}{number}"))),
        }
    }
    let urls = vec!["http://127.0.0.1:2379".to_owned()];
    for member in [NodeId(1), NodeId(2)] {
        let attributes =
            SetMemberAttributes { member, name: "n".into(), client_urls: urls.clone() };
        client.run(Command::SetMemberAttributes(attributes));
    }
    client.compact(1000).expect("above");
    client
}

fn small() -> Client {
    let mut client = Client::new();
    client.put("a", "1");
    client.put("b", "2");
    client.delete("a", "");
    client.run(Command::SetMemberAttributes(SetMemberAttributes {
        member: NodeId(1),
        name: "n1".into(),
        client_urls: vec!["http://n1".into()],
    }));
    client
}

fn same_answers(one: &Client, other: &Client) {
    assert_eq!(other.store.applied(), one.store.applied());
    assert_eq!(other.reader().applied(), one.reader().applied());
    assert_eq!(other.reader().revision(), one.reader().revision());
    assert_eq!(other.reader().members_attributes(), one.reader().members_attributes());
    let newest = one.reader().revision().0;
    for revision in (0..=newest).step_by(97).chain([newest]) {
        let request = RangeRequest { revision, ..range("\0", "\0") };
        assert_eq!(other.reader().range(&request), one.reader().range(&request), "at {revision}");
    }
}

#[test]
fn an_installed_snapshot_answers_as_its_source_and_goes_on_like_it() {
    let mut source = busy();
    let chunks = stream(&mut source.store);
    assert!(chunks.len() > 3, "{} chunks", chunks.len());
    let large = chunks.iter().map(Bytes::len).max().unwrap_or_default();
    assert!(large < SNAPSHOT_CHUNK_SIZE + 1024, "a chunk of {large} bytes");
    let mut copy = Client::new();
    copy.put("old", "state");
    let reader = copy.reader();
    let name = name_of(source.store.applied());
    assert_eq!(install(&mut copy.store, &name, &chunks), Ok(source.store.applied()));
    same_answers(&source, &copy);
    assert_eq!(reader.range(&range("old", "")).expect("readable").count, 0, "readers survive");
    copy.log.clone_from(&source.log);
    for number in 0..300 {
        let command = put(&format!("key{number:03}"), "new");
        assert_eq!(copy.run(command.clone()), source.run(command));
    }
    assert_eq!(stream(&mut copy.store), stream(&mut source.store));
    same_answers(&source, &copy);
}

#[test]
fn an_installed_snapshot_survives_a_crash_and_a_staged_one_does_not() {
    let mut source = busy();
    let (name, chunks) = (name_of(source.store.applied()), stream(&mut source.store));
    let mut copy = Client::new();
    copy.put("a", "1");
    (copy.store.syncer())().expect("memory does not fail");
    copy.store.stage_begin(&name).expect("memory does not fail");
    for chunk in &chunks {
        copy.store.stage_chunk(chunk.clone()).expect("its next chunk");
    }
    copy.store.stage_finish().expect("complete");
    assert_eq!(copy.show("a", "", 0), "a=1", "not live yet");
    copy.disk.crash(9);
    copy.store = open(&copy.disk);
    assert_eq!(copy.store.applied().position.index, Index(1));
    assert_eq!(copy.show("\0", "\0", 0), "a=1");
    install(&mut copy.store, &name, &chunks).expect("its own snapshot");
    copy.disk.crash(0);
    copy.store = open(&copy.disk);
    same_answers(&source, &copy);
}

#[test]
fn a_capture_is_not_disturbed_by_what_is_applied_after_it() {
    let mut source = busy();
    let expected = stream(&mut source.store);
    let mut capture = source.store.capture().expect("memory does not fail");
    let at = capture.applied();
    let mut chunks = vec![capture.next_chunk().expect("memory does not fail").expect("not empty")];
    source.delete("\0", "\0");
    let newest = source.reader().revision().0;
    source.compact(newest).expect("above");
    (source.store.syncer())().expect("memory does not fail");
    for _ in 0..50 {
        source.put("more", "x");
    }
    while let Some(chunk) = capture.next_chunk().expect("memory does not fail") {
        chunks.push(chunk);
    }
    assert_eq!(chunks, expected);
    assert_eq!(install(&mut Client::new().store, &name_of(at), &chunks), Ok(at));
}

/// Tries to install; it must be refused for its content and leave the live state alone.
fn refused(name: &SnapshotName, chunks: &[Bytes], what: &str) {
    let mut copy = Client::new();
    copy.put("mine", "1");
    let before = copy.store.applied();
    match install(&mut copy.store, name, chunks) {
        Err(InstallFault::Content(_)) => {}
        other => panic!("{what}: {other:?}"),
    }
    assert!(copy.store.install().is_err(), "{what}: nothing stays staged");
    assert_eq!(copy.store.applied(), before);
    assert_eq!(copy.show("\0", "\0", 0), "mine=1");
    assert_eq!(copy.put("mine", "2"), 3);
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused() {
    let mut source = small();
    let (name, chunks) = (name_of(source.store.applied()), stream(&mut source.store));
    assert_eq!(chunks.len(), 1);
    let whole = &chunks[0];
    for size in 0..whole.len() {
        refused(&name, &[whole.slice(..size)], &format!("cut at {size}"));
    }
    for bit in 0..whole.len() * 8 {
        let mut damaged = whole.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        refused(&name, &[damaged.into()], &format!("bit {bit}"));
    }
    let longer = [&whole[..], b"x"].concat();
    refused(&name, &[longer.into()], "a byte more");
}

#[test]
fn chunks_that_are_missing_out_of_order_or_of_another_snapshot_are_refused() {
    let mut source = busy();
    let (name, chunks) = (name_of(source.store.applied()), stream(&mut source.store));
    refused(&name, &[], "no chunks");
    refused(&name, &chunks[..chunks.len() - 1], "the last chunk missing");
    refused(&name, &chunks[1..], "the first chunk missing");
    let mut swapped = chunks.clone();
    swapped.swap(1, 2);
    refused(&name, &swapped, "two chunks swapped");
    let mut without = chunks.clone();
    without.remove(2);
    refused(&name, &without, "a chunk missing");
    let mut twice = chunks.clone();
    twice.insert(2, chunks[1].clone());
    refused(&name, &twice, "a chunk twice");
    let longer = [&chunks[..], &chunks[..1]].concat();
    refused(&name, &longer, "chunks behind the end");
    source.put("one", "more");
    let later = stream(&mut source.store);
    refused(&name, &later, "another snapshot");
    refused(&name_of(source.store.applied()), &chunks, "under another name");
    let mixed = [&chunks[..2], &later[2..]].concat();
    refused(&name, &mixed, "two snapshots mixed");
    let elsewhere = Position::new(Index(7), name.position.epoch);
    refused(&SnapshotName { position: elsewhere, ..name }, &chunks, "at another position");
}

#[test]
fn a_snapshot_of_before_what_is_applied_is_refused() {
    let mut source = small();
    let (name, chunks) = (name_of(source.store.applied()), stream(&mut source.store));
    source.put("a", "later");
    let fault = install(&mut source.store, &name, &chunks);
    assert!(matches!(fault, Err(InstallFault::Content(_))), "{fault:?}");
    assert_eq!(source.show("a", "", 0), "a=later");
}

#[test]
fn a_new_attempt_replaces_a_half_one() {
    let mut source = busy();
    let (name, chunks) = (name_of(source.store.applied()), stream(&mut source.store));
    let mut copy = Client::new();
    copy.store.stage_begin(&name).expect("memory does not fail");
    copy.store.stage_chunk(chunks[0].clone()).expect("its first chunk");
    assert!(copy.store.install().is_err(), "half a snapshot is none");
    copy.store.stage_begin(&name).expect("memory does not fail");
    copy.store.stage_chunk(chunks[0].clone()).expect("its first chunk");
    assert_eq!(install(&mut copy.store, &name, &chunks), Ok(source.store.applied()));
    same_answers(&source, &copy);
}

#[test]
fn an_empty_store_has_a_snapshot_too() {
    let mut source = Client::new();
    let chunks = stream(&mut source.store);
    let mut copy = Client::new();
    let name = name_of(Applied::default());
    assert_eq!(install(&mut copy.store, &name, &chunks), Ok(Applied::default()));
    same_answers(&source, &copy);
}

#[test]
fn a_snapshot_holds_nothing_of_another_group_in_the_engine() {
    let other = small();
    let streams = [MemoryDisk::new(), other.disk.clone()].map(|disk| {
        let mut store = Store::open(disk.open(), GroupId(1)).expect("an empty group");
        store.apply(&other.log).expect("memory does not fail");
        stream(&mut store)
    });
    assert_eq!(streams[0], streams[1]);
}

#[test]
fn a_chunk_that_is_just_full_is_followed_by_the_rest() {
    /// The bytes of the last record.
    const END_SIZE: usize = 9;
    let source = |size: usize| {
        let mut client = Client::new();
        client.put("a", &"x".repeat(size));
        client
    };
    let rest = stream(&mut source(0).store)[0].len() - END_SIZE;
    for (missing, sizes) in [(1, 1), (0, 2)] {
        let mut source = source(SNAPSHOT_CHUNK_SIZE - rest - missing);
        let chunks = stream(&mut source.store);
        assert_eq!(chunks.len(), sizes);
        let name = name_of(source.store.applied());
        let mut copy = Client::new();
        assert_eq!(install(&mut copy.store, &name, &chunks), Ok(source.store.applied()));
    }
}
