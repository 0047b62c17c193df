//! Ranges: which keys, in which order, how many, at which revision.

use crate::harness::*;
use bytes::Bytes;
use quorate_store::ReadError;
use quorate_store::engine::{Batch, Change, Direction, Engine, EngineReader, EngineView, Table};
use quorate_store::etcd::*;
use quorate_types::{ApplyFault, StateMachine};

fn fruits() -> Client {
    let mut client = Client::new();
    // Revisions 2 to 7.
    for (key, value) in [("c", "3"), ("a", "9"), ("b", "5"), ("a", "1"), ("d", "2"), ("c", "4")] {
        client.put(key, value);
    }
    client
}

#[test]
fn an_empty_store_is_at_revision_one_and_its_first_write_at_two() {
    let mut client = Client::new();
    assert_eq!(client.reader().revision(), (1, -1));
    let empty = client.reader().range(&range("a", "")).expect("readable");
    assert_eq!(empty, RangeResponse { revision: 1, ..RangeResponse::default() });
    assert_eq!(client.put("a", "1"), 2);
    assert_eq!(client.reader().revision(), (2, -1));
}

#[test]
fn a_range_end_names_one_key_a_range_or_all_from_the_key_on() {
    let client = fruits();
    let check = |key, end, expected: &str| {
        assert_eq!(client.show(key, end, 0), expected, "{key:?} {end:?}")
    };
    check("a", "", "a=1");
    check("aa", "", "");
    check("a", "c", "a=1 b=5");
    check("b", "z", "b=5 c=4 d=2");
    check("b", "\0", "b=5 c=4 d=2");
    check("\0", "\0", "a=1 b=5 c=4 d=2");
    check("c", "a", "");
    check("c", "c", "");
}

#[test]
fn a_key_counts_its_revisions_and_a_delete_starts_it_anew() {
    let mut client = fruits();
    let a = client.kv("a");
    assert_eq!((a.create_revision, a.mod_revision, a.version, a.lease), (3, 5, 2, 0));
    assert_eq!(client.delete("a", "").revision, 8);
    assert_eq!(client.put("a", "again"), 9);
    let a = client.kv("a");
    assert_eq!((a.create_revision, a.mod_revision, a.version), (9, 9, 1));
}

#[test]
fn a_read_at_an_old_revision_sees_the_old_state_and_the_current_header() {
    let mut client = fruits();
    client.delete("b", "");
    let all = [
        "c=3",
        "a=9 c=3",
        "a=9 b=5 c=3",
        "a=1 b=5 c=3",
        "a=1 b=5 c=3 d=2",
        "a=1 b=5 c=4 d=2",
        "a=1 c=4 d=2",
    ];
    for (revision, expected) in (2..).zip(all) {
        assert_eq!(client.show("\0", "\0", revision), expected, "at {revision}");
    }
    for (revision, expected) in [(3, ""), (4, "b=5"), (7, "b=5"), (8, "")] {
        assert_eq!(client.show("b", "", revision), expected, "at {revision}");
    }
    assert_eq!(client.show("a", "", 1), "");
    let old = RangeRequest { revision: 2, ..range("c", "") };
    assert_eq!(client.reader().range(&old).expect("readable").revision, 8);
    let future = RangeRequest { revision: 9, ..range("c", "") };
    let refused = Err(ReadError::Refused(KvError::FutureRevision));
    assert_eq!(client.reader().range(&future), refused);
    assert_eq!(client.show("\0", "\0", -1), "a=1 c=4 d=2");
}

#[test]
fn keys_with_zero_bytes_are_told_apart_at_old_revisions() {
    let mut client = Client::new();
    for key in ["a", "a\0", "a\0\0", "a\0b", "a\u{1}", "b"] {
        client.put(key, "x");
    }
    client.put("z", "later");
    let old = |key, end| client.show(key, end, 7).matches("=x").count();
    assert_eq!(old("a", ""), 1);
    assert_eq!(old("a", "a\0"), 1);
    assert_eq!(old("a", "a\0\0"), 2);
    assert_eq!(old("a\0", "a\u{1}"), 3);
    assert_eq!(old("a", "b"), 5);
    assert_eq!(old("a", "\0"), 6);
}

#[test]
fn a_count_says_what_the_range_holds_whatever_limit_and_filters_say() {
    let mut client = fruits();
    // So that revision 7 is read by way of history.
    client.put("0", "later");
    let check = |request: RangeRequest, kvs: &str, more: bool, count: i64| {
        for revision in [0, 7] {
            let request = RangeRequest { revision, ..request.clone() };
            let response = client.reader().range(&request).expect("readable");
            let found = (texts(&response.kvs), response.more, response.count);
            assert_eq!(found, (kvs.to_owned(), more, count), "{request:?}");
        }
    };
    let all = range("a", "\0");
    check(RangeRequest { limit: 2, ..all.clone() }, "a=1 b=5", true, 4);
    check(RangeRequest { limit: 4, ..all.clone() }, "a=1 b=5 c=4 d=2", false, 4);
    check(RangeRequest { limit: -1, ..all.clone() }, "a=1 b=5 c=4 d=2", false, 4);
    check(RangeRequest { limit: i64::MAX, ..all.clone() }, "a=1 b=5 c=4 d=2", false, 4);
    check(RangeRequest { count_only: true, limit: 1, ..all.clone() }, "", false, 4);
    check(RangeRequest { keys_only: true, ..all.clone() }, "a= b= c= d=", false, 4);
    check(RangeRequest { min_mod_revision: 5, ..all.clone() }, "a=1 c=4 d=2", false, 4);
    check(RangeRequest { max_mod_revision: 5, ..all.clone() }, "a=1 b=5", false, 4);
    check(RangeRequest { min_create_revision: 4, ..all.clone() }, "b=5 d=2", false, 4);
    check(RangeRequest { max_create_revision: 3, ..all.clone() }, "a=1 c=4", false, 4);
    check(RangeRequest { min_mod_revision: 5, limit: 1, ..all.clone() }, "a=1", true, 4);
    check(RangeRequest { min_mod_revision: 6, limit: 2, ..all }, "c=4 d=2", false, 4);
}

#[test]
fn a_range_is_sorted_by_what_was_asked_for() {
    let client = fruits();
    let check = |sort_order, sort_target, expected: &str| {
        let request = RangeRequest { sort_order, sort_target, ..range("a", "\0") };
        let response = client.reader().range(&request).expect("readable");
        assert_eq!(texts(&response.kvs), expected, "{sort_order:?} {sort_target:?}");
    };
    use SortOrder::*;
    use SortTarget::*;
    check(None, Key, "a=1 b=5 c=4 d=2");
    check(Ascend, Key, "a=1 b=5 c=4 d=2");
    check(Descend, Key, "d=2 c=4 b=5 a=1");
    check(Ascend, Value, "a=1 d=2 c=4 b=5");
    check(Descend, Value, "b=5 c=4 d=2 a=1");
    check(Ascend, Create, "c=4 a=1 b=5 d=2");
    check(Descend, Create, "d=2 b=5 a=1 c=4");
    check(Ascend, Mod, "b=5 a=1 d=2 c=4");
    check(Descend, Version, "c=4 a=1 d=2 b=5");
    check(None, Mod, "b=5 a=1 d=2 c=4");
    // A limit applies after the sort that was asked for,
    let sorted = RangeRequest { sort_order: Descend, limit: 1, ..range("a", "\0") };
    let response = client.reader().range(&sorted).expect("readable");
    assert_eq!((texts(&response.kvs), response.more, response.count), ("d=2".to_owned(), true, 4));
    // but without an order it first cuts by key, one beyond the limit, as etcd does.
    for (sort_target, first) in [(Mod, "b=5"), (Create, "a=1")] {
        let unsorted = RangeRequest { sort_target, limit: 1, ..range("a", "\0") };
        let response = client.reader().range(&unsorted).expect("readable");
        let found = (texts(&response.kvs), response.more, response.count);
        assert_eq!(found, (first.to_owned(), true, 4), "{sort_target:?}");
    }
}

#[test]
fn a_range_without_a_key_is_refused() {
    let client = fruits();
    let request = RangeRequest { range_end: Bytes::from_static(b"\0"), ..RangeRequest::default() };
    let refused = Err(ReadError::Refused(KvError::EmptyKey));
    assert_eq!(client.reader().range(&request), refused);
}

#[test]
fn a_change_that_history_lacks_is_damage_unless_compaction_took_it() {
    let mut client = Client::new();
    for value in ["2", "3", "4"] {
        client.put("a", value);
    }
    client.compact(3).expect("above");
    while client.store.tend().expect("memory does not fail") {}
    let lost = {
        let view = client.disk.reader().view().expect("open");
        let mut pairs = view.scan(Table::History, &[], &[0xff], Direction::Forward);
        pairs.next().expect("the change of revision 3").expect("memory does not fail").0
    };
    let mut engine = client.disk.open();
    let remove = Change { table: Table::History, key: lost, value: None };
    engine.write(Batch { changes: vec![remove] }).expect("memory does not fail");
    let reader = open(&client.disk).reader();
    assert_eq!(reader.range(&range("a", "")).expect("the newest is there").count, 1);
    let old = reader.range(&RangeRequest { revision: 3, ..range("a", "") });
    assert!(matches!(old, Err(ReadError::Fault(ApplyFault::Damaged(_)))), "{old:?}");
}
