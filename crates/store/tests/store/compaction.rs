//! Compaction: what becomes unreadable, what stays, and what is given back.

use crate::harness::*;
use quorate_store::engine::{Direction, EngineReader, EngineView, Table};
use quorate_store::etcd::*;
use quorate_types::{EntryKind, Origin, StateMachine};

/// How many pairs the engine holds in a table.
fn count(client: &Client, table: Table) -> usize {
    let engine = client.disk.reader();
    let view = engine.view().expect("open");
    view.scan(table, &[], &[0xff], Direction::Forward).count()
}

/// Applies entries that change nothing until sweeping is done.
fn idle(client: &mut Client, entries: u64) {
    for _ in 0..entries {
        let index = client.log.len() as u64 + 1;
        let noop = committed(index, Origin::NONE, EntryKind::Noop, bytes(""));
        client.log.push(noop.clone());
        assert_eq!(client.store.apply(&[noop]), Ok(vec![None]));
    }
}

#[test]
fn revisions_below_are_refused_and_the_compacted_one_is_readable() {
    let mut client = Client::new();
    for value in ["2", "3", "4", "5"] {
        client.put("a", value);
    }
    assert_eq!(client.compact(4), Ok(5));
    assert_eq!(client.reader().revision(), (5, 4));
    for settle in [0, 10] {
        idle(&mut client, settle);
        assert_eq!(client.show("a", "", 3), KvError::Compacted.to_string());
        assert_eq!(client.show("a", "", 4), "a=4");
        assert_eq!(client.show("\0", "\0", 4), "a=4");
        assert_eq!(client.show("a", "", 5), "a=5");
    }
    let old = RequestOp::Range(RangeRequest { revision: 3, ..range("a", "") });
    let txn = TxnRequest {
        success: vec![RequestOp::Put(put_request("b", "x")), old],
        ..TxnRequest::default()
    };
    assert_eq!(client.refusal(Command::Txn(txn)), KvError::Compacted);
    assert_eq!(client.show("b", "", 0), "");
}

#[test]
fn a_compaction_below_or_ahead_is_refused() {
    let mut client = Client::new();
    client.put("a", "2");
    client.put("a", "3");
    assert_eq!(client.compact(4), Err(KvError::FutureRevision));
    assert_eq!(client.compact(-1), Err(KvError::Compacted));
    assert_eq!(client.compact(0), Ok(3));
    assert_eq!(client.compact(0), Err(KvError::Compacted));
    assert_eq!(client.compact(3), Ok(3));
    assert_eq!(client.compact(3), Err(KvError::Compacted));
    assert_eq!(client.compact(2), Err(KvError::Compacted));
    assert_eq!(client.show("a", "", 0), "a=3");
}

#[test]
fn what_no_read_can_reach_is_given_back() {
    let mut client = Client::new();
    for round in 0..50 {
        for key in ["a", "b", "c"] {
            client.put(key, &round.to_string());
        }
    }
    client.delete("b", "");
    let newest = client.reader().revision().0;
    assert_eq!((count(&client, Table::History), count(&client, Table::Versions)), (151, 151));
    client.compact(newest).expect("not compacted yet");
    idle(&mut client, 60);
    // Two living keys; the tombstone stays while a watch may begin at its revision.
    assert_eq!((count(&client, Table::History), count(&client, Table::Versions)), (3, 3));
    assert_eq!(client.show("\0", "\0", newest), "a=49 c=49");
    client.put("d", "x");
    client.compact(newest + 1).expect("above");
    idle(&mut client, 3);
    assert_eq!((count(&client, Table::History), count(&client, Table::Versions)), (3, 3));
    assert_eq!(client.show("\0", "\0", 0), "a=49 c=49 d=x");
    assert_eq!(count(&client, Table::Current), 3);
}

#[test]
fn a_compaction_during_the_removal_of_another_loses_nothing_and_leaves_nothing() {
    for pause in 0..40 {
        let mut client = Client::new();
        for round in 0..20 {
            for key in ["a", "b", "c"] {
                client.put(key, &round.to_string());
            }
            client.delete("\0", "b");
            let txn = TxnRequest {
                success: vec![RequestOp::DeleteRange(delete_request("b", "\0"))],
                ..TxnRequest::default()
            };
            client.txn(txn);
        }
        client.put("a", "last");
        client.compact(50).expect("above");
        idle(&mut client, pause);
        client.compact(80).expect("above");
        idle(&mut client, 80 - pause);
        let newest = client.reader().revision().0;
        assert_eq!(client.show("\0", "\0", newest), "a=last");
        client.put("a", "more");
        client.compact(newest + 1).expect("above");
        idle(&mut client, 80);
        assert_eq!(client.show("\0", "\0", 0), "a=more", "with a pause of {pause}");
        assert_eq!((count(&client, Table::History), count(&client, Table::Versions)), (1, 1));
    }
}

#[test]
fn a_great_delete_is_swept_in_steps() {
    let mut client = Client::new();
    for number in 0..100 {
        client.put(&format!("k{number:03}"), "x");
    }
    client.delete("\0", "\0");
    let newest = client.reader().revision().0;
    client.compact(newest).expect("above");
    let before = count(&client, Table::History);
    assert!(before > 180, "one step removes few changes, {before} are left of 200");
    idle(&mut client, 200);
    assert_eq!(
        count(&client, Table::History),
        100,
        "the tombstones of the compacted revision stay"
    );
    client.put("z", "x");
    client.compact(newest + 1).expect("above");
    idle(&mut client, 200);
    assert_eq!(count(&client, Table::History), 1);
}
