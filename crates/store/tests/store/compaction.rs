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
    assert_eq!((count(&client, Table::History), count(&client, Table::Current)), (151, 3));
    client.compact(newest).expect("not compacted yet");
    idle(&mut client, 60);
    // Two living keys; the tombstone stays while a watch may begin at its revision.
    assert_eq!((count(&client, Table::History), count(&client, Table::Current)), (3, 3));
    assert_eq!(client.show("\0", "\0", newest), "a=49 c=49");
    client.put("d", "x");
    client.compact(newest + 1).expect("above");
    idle(&mut client, 3);
    assert_eq!((count(&client, Table::History), count(&client, Table::Current)), (3, 3));
    assert_eq!(client.show("\0", "\0", 0), "a=49 c=49 d=x");
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
        assert_eq!((count(&client, Table::History), count(&client, Table::Current)), (1, 1));
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

/// Work that no entry waits for.
fn tend(client: &mut Client) {
    while client.store.tend().expect("memory does not fail") {}
}

#[test]
fn an_idle_store_gives_back_what_compaction_left() {
    let mut client = Client::new();
    for round in 0..3_000 {
        client.put(&format!("k{}", round % 7), &round.to_string());
    }
    assert!(client.reader().is_swept(-1), "nothing was compacted");
    assert!(!client.reader().is_swept(2_000), "that was not asked for yet");
    client.compact(2_000).expect("above");
    assert!(!client.reader().is_swept(2_000));
    let digest = client.store.applied();
    tend(&mut client);
    assert!(client.reader().is_swept(2_000));
    assert_eq!(client.store.applied(), digest);
    // What is above the compacted revision, and the newest versions at it, are 1,001 and 7 less one.
    assert_eq!(count(&client, Table::History), 1_008);
    assert_eq!(client.show("k3", "", 2_000), "k3=1998");
    let reopened = open(&client.disk);
    assert!(reopened.reader().is_swept(2_000), "how far it came is kept");
}

#[test]
fn how_far_a_replica_has_swept_shows_nowhere() {
    let (mut eager, mut lazy) = (Client::new(), Client::new());
    let mut dice = Dice(3);
    for step in 0..3_000 {
        let key = format!("k{}", dice.below(9));
        let command = match dice.below(20) {
            0..6 => delete(&key, ""),
            6 => Command::Compact(CompactRequest { revision: 1 + step / 2 }),
            _ => put(&key, &step.to_string()),
        };
        assert_eq!(eager.run(command.clone()), lazy.run(command), "at {step}");
        tend(&mut eager);
        if step % 100 == 0 {
            assert_eq!(stream(&mut eager.store), stream(&mut lazy.store), "at {step}");
            let (newest, compacted) = lazy.reader().revision();
            for revision in compacted.max(1)..=newest {
                let shown = lazy.show("\0", "\0", revision);
                assert_eq!(eager.show("\0", "\0", revision), shown, "{revision} at {step}");
            }
        }
    }
    assert_eq!(eager.store.applied(), lazy.store.applied());
}

#[test]
fn old_versions_of_a_key_with_many_are_found() {
    let mut client = Client::new();
    for number in 2..=1_500 {
        match number % 97 {
            0 => drop(client.delete("a", "")),
            _ => drop(client.put("a", &number.to_string())),
        }
    }
    for compacted in [1, 700, 1_400] {
        client.compact(compacted).expect("above");
        tend(&mut client);
        for revision in compacted.max(2)..=1_500 {
            let expected = if revision % 97 == 0 { String::new() } else { format!("a={revision}") };
            assert_eq!(client.show("a", "", revision), expected);
        }
    }
}

#[test]
fn every_change_of_the_compacted_revision_stays_for_a_watch_that_begins_there() {
    let mut client = Client::new();
    client.put("a", "old");
    let inner = |op| RequestOp::Txn(TxnRequest { success: vec![op], ..TxnRequest::default() });
    let both = vec![
        inner(RequestOp::Put(put_request("a", "new"))),
        inner(RequestOp::DeleteRange(delete_request("a", ""))),
    ];
    let response = client.txn(TxnRequest { success: both, ..TxnRequest::default() });
    client.put("z", "later");
    assert_eq!(count(&client, Table::History), 4);
    client.compact(response.revision).expect("above");
    tend(&mut client);
    // Only the one before it is gone.
    assert_eq!(count(&client, Table::History), 3);
    client.compact(response.revision + 1).expect("above");
    tend(&mut client);
    assert_eq!(count(&client, Table::History), 1);
}

#[test]
fn an_apply_of_nothing_leaves_what_is_to_be_removed() {
    let mut client = Client::new();
    for number in 0..50 {
        client.put("a", &number.to_string());
    }
    client.compact(51).expect("above");
    assert_eq!(client.store.apply(&[]), Ok(vec![]));
    assert!(!client.reader().is_swept(51));
    tend(&mut client);
    assert_eq!(count(&client, Table::History), 1);
}

#[test]
fn a_batch_sweeps_for_each_of_its_entries() {
    let mut client = Client::new();
    for number in 0..300 {
        client.put("a", &number.to_string());
    }
    client.compact(301).expect("above");
    let noop = |index| committed(index, Origin::NONE, EntryKind::Noop, bytes(""));
    let next = client.log.len() as u64 + 1;
    let batch: Vec<_> = (next..next + 100).map(noop).collect();
    client.store.apply(&batch).expect("memory does not fail");
    assert!(client.reader().is_swept(301));
    assert_eq!(count(&client, Table::History), 1);
}
