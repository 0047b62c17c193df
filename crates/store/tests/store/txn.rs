//! Transactions: conditions, branches, one revision, no partial effect.

use crate::harness::*;
use bytes::Bytes;
use quorate_store::ReadError;
use quorate_store::etcd::*;
use quorate_types::StateMachine;

fn ops(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest { success, ..TxnRequest::default() }
}

fn put_op(key: &str, value: &str) -> RequestOp {
    RequestOp::Put(put_request(key, value))
}

fn delete_op(key: &str, range_end: &str) -> RequestOp {
    RequestOp::DeleteRange(delete_request(key, range_end))
}

fn range_op(key: &str, range_end: &str) -> RequestOp {
    RequestOp::Range(range(key, range_end))
}

#[test]
fn all_writes_of_a_transaction_have_one_revision() {
    let mut client = Client::new();
    let response = client.txn(ops(vec![
        put_op("a", "1"),
        put_op("b", "2"),
        delete_op("zz", ""),
        put_op("c", "3"),
    ]));
    assert_eq!((response.revision, response.succeeded), (2, true));
    for key in ["a", "b", "c"] {
        assert_eq!(client.kv(key).mod_revision, 2);
    }
    let revisions: Vec<i64> = response
        .responses
        .iter()
        .map(|response| match response {
            ResponseOp::Put(response) => response.revision,
            ResponseOp::DeleteRange(response) => response.revision,
            ResponseOp::Range(_) | ResponseOp::Txn(_) => panic!("{response:?}"),
        })
        .collect();
    assert_eq!(revisions, [2, 2, 2, 2]);
    assert_eq!(client.put("d", "4"), 3);
}

#[test]
fn what_changes_nothing_has_no_revision_of_its_own() {
    let mut client = Client::new();
    client.put("a", "1");
    let response = client.txn(ops(vec![range_op("a", ""), delete_op("x", "y")]));
    assert_eq!(response.revision, 2);
    let ResponseOp::DeleteRange(deleted) = &response.responses[1] else { panic!("{response:?}") };
    assert_eq!((deleted.revision, deleted.deleted), (2, 0));
    assert_eq!(client.delete("x", "").revision, 2);
    assert_eq!(client.delete("x", "\0").deleted, 0);
    assert_eq!(client.put("b", "1"), 3);
}

#[test]
fn a_delete_gives_back_what_it_deleted_when_asked() {
    let mut client = Client::new();
    for key in ["a", "b", "c"] {
        client.put(key, "v");
    }
    let request = DeleteRangeRequest { prev_kv: true, ..delete_request("b", "\0") };
    let Reply::DeleteRange(response) = client.run(Command::DeleteRange(request)) else { panic!() };
    assert_eq!((response.revision, response.deleted), (5, 2));
    assert_eq!(texts(&response.prev_kvs), "b=v c=v");
    assert_eq!(client.show("\0", "\0", 0), "a=v");
    assert_eq!(client.delete("a", "").prev_kvs, []);
}

#[test]
fn a_put_gives_back_and_keeps_what_it_is_asked_to() {
    let mut client = Client::new();
    let keep = PutRequest { ignore_value: true, prev_kv: true, ..put_request("a", "") };
    assert_eq!(client.refusal(Command::Put(keep.clone())), KvError::KeyNotFound);
    let lease = PutRequest { ignore_lease: true, ..put_request("a", "x") };
    assert_eq!(client.refusal(Command::Put(lease.clone())), KvError::KeyNotFound);
    client.put("a", "1");
    let Reply::Put(response) = client.run(Command::Put(keep)) else { panic!() };
    assert_eq!(response.prev_kv.map(|kv| (kv.version, text(&kv.value))), Some((1, "1".into())));
    assert_eq!((client.kv("a").version, text(&client.kv("a").value)), (2, "1".into()));
    let Reply::Put(response) = client.run(Command::Put(lease)) else { panic!() };
    assert_eq!((response.revision, response.prev_kv), (4, None));
    assert_eq!(client.show("a", "", 0), "a=x");
    let unknown = PutRequest { lease: 5, ..put_request("a", "y") };
    assert_eq!(client.refusal(Command::Put(unknown.clone())), KvError::LeaseNotFound);
    let txn = ops(vec![put_op("b", "1"), RequestOp::Put(unknown)]);
    assert_eq!(client.refusal(Command::Txn(txn)), KvError::LeaseNotFound);
    assert_eq!(client.show("\0", "\0", 0), "a=x");
}

#[test]
fn compares_relate_what_is_stored_to_what_is_given() {
    use CompareResult::*;
    use CompareTarget::*;
    let mut client = Client::new();
    client.put("a", "m");
    client.put("a", "n"); // create 2, mod 3, version 2
    let mut check = |key: &str, result, target: CompareTarget, expected| {
        let request = TxnRequest {
            compare: vec![compare(key, result, target.clone())],
            ..TxnRequest::default()
        };
        let written = client.txn(request.clone()).succeeded;
        let read = client.reader().txn(&request).expect("readable").succeeded;
        assert_eq!((written, read), (expected, expected), "{key} {result:?} {target:?}");
    };
    for (target_of, stored) in [(Version as fn(i64) -> _, 2), (Create, 2), (Mod, 3), (Lease, 0)] {
        for given in stored - 1..=stored + 1 {
            check("a", Equal, target_of(given), stored == given);
            check("a", NotEqual, target_of(given), stored != given);
            check("a", Greater, target_of(given), stored > given);
            check("a", Less, target_of(given), stored < given);
            check("none", Equal, target_of(given), given == 0);
            check("none", Less, target_of(given), 0 < given);
        }
    }
    for given in ["m", "n", "o", ""] {
        check("a", Equal, Value(bytes(given)), "n" == given);
        check("a", NotEqual, Value(bytes(given)), "n" != given);
        check("a", Greater, Value(bytes(given)), "n" > given);
        check("a", Less, Value(bytes(given)), "n" < given);
        for result in [Equal, NotEqual, Greater, Less] {
            check("none", result, Value(bytes(given)), false);
        }
    }
}

#[test]
fn compares_are_anded_and_over_a_range_hold_for_every_key() {
    let mut client = Client::new();
    client.put("a", "1");
    client.put("b", "1");
    client.put("b", "1");
    let over = |key, end, version| Compare {
        range_end: bytes(end),
        ..compare(key, CompareResult::Equal, CompareTarget::Version(version))
    };
    let mut check = |compare: Vec<Compare>, expected| {
        let request = TxnRequest { compare, ..TxnRequest::default() };
        assert_eq!(client.txn(request.clone()).succeeded, expected, "{request:?}");
    };
    check(vec![], true);
    check(vec![over("a", "", 1), over("b", "", 2)], true);
    check(vec![over("a", "", 1), over("b", "", 1)], false);
    check(vec![over("a", "b", 1)], true);
    check(vec![over("a", "c", 1)], false);
    check(vec![over("b", "\0", 2)], true);
    check(vec![over("\0", "\0", 2)], false);
    check(vec![over("x", "z", 0)], true);
    check(vec![over("x", "z", 1)], false);
}

#[test]
fn reads_inside_see_the_writes_before_them() {
    let mut client = Client::new();
    client.put("a", "old");
    client.put("b", "old");
    let old = RequestOp::Range(RangeRequest { revision: 3, ..range("a", "z") });
    let response = client.txn(ops(vec![
        range_op("a", "z"),
        put_op("a", "new"),
        range_op("a", "z"),
        delete_op("b", ""),
        put_op("c", "new"),
        range_op("a", "z"),
        old,
    ]));
    let reads: Vec<_> = response
        .responses
        .iter()
        .filter_map(|response| match response {
            ResponseOp::Range(response) => Some((response.revision, texts(&response.kvs))),
            ResponseOp::Put(_) | ResponseOp::DeleteRange(_) | ResponseOp::Txn(_) => None,
        })
        .collect();
    let expected = [(3, "a=old b=old"), (4, "a=new b=old"), (4, "a=new c=new"), (4, "a=old b=old")];
    assert_eq!(reads, expected.map(|(revision, kvs)| (revision, kvs.to_owned())));
}

#[test]
fn every_compare_is_decided_before_anything_is_written() {
    let mut client = Client::new();
    let missing = compare("a", CompareResult::Equal, CompareTarget::Create(0));
    let inner = TxnRequest {
        compare: vec![missing],
        success: vec![put_op("b", "a was missing")],
        failure: vec![put_op("b", "a was there")],
    };
    let response = client.txn(ops(vec![put_op("a", "1"), RequestOp::Txn(inner)]));
    assert_eq!(client.show("\0", "\0", 0), "a=1 b=a was missing");
    let ResponseOp::Txn(inner) = &response.responses[1] else { panic!("{response:?}") };
    assert!(inner.succeeded);
    assert_eq!(response.revision, 2);
}

#[test]
fn nested_transactions_take_their_own_branches() {
    let mut client = Client::new();
    let exists = |key| compare(key, CompareResult::Greater, CompareTarget::Create(0));
    client.put("there", "1");
    let leaf = |name: &str, key| {
        RequestOp::Txn(TxnRequest {
            compare: vec![exists(key)],
            success: vec![put_op(name, "yes")],
            failure: vec![put_op(name, "no")],
        })
    };
    let response = client.txn(TxnRequest {
        compare: vec![exists("missing")],
        success: vec![put_op("wrong", "x")],
        failure: vec![
            leaf("first", "there"),
            RequestOp::Txn(ops(vec![leaf("second", "missing"), leaf("third", "there")])),
            leaf("fourth", "missing"),
        ],
    });
    assert!(!response.succeeded);
    assert_eq!(client.show("a", "there", 0), "first=yes fourth=no second=no");
    assert_eq!(client.show("third", "", 0), "third=yes");
    assert_eq!(client.show("wrong", "", 0), "");
}

#[test]
fn a_refused_transaction_changes_nothing() {
    let mut client = Client::new();
    client.put("a", "1");
    let at = |revision| RequestOp::Range(RangeRequest { revision, ..range("a", "") });
    let needed = PutRequest { ignore_value: true, ..put_request("b", "") };
    let cases = [
        (ops(vec![put_op("b", "2"), at(3)]), KvError::FutureRevision),
        (ops(vec![put_op("b", "2"), RequestOp::Txn(ops(vec![at(9)]))]), KvError::FutureRevision),
        (ops(vec![put_op("c", "2"), RequestOp::Put(needed)]), KvError::KeyNotFound),
        (ops(vec![put_op("b", "2"), put_op("b", "3")]), KvError::DuplicateKey),
        (ops(vec![put_op("b", "2"), put_op("", "3")]), KvError::EmptyKey),
        (ops(vec![range_op("a", ""); 129]), KvError::TooManyOps),
    ];
    let before = client.store.applied();
    for (txn, expected) in cases {
        assert_eq!(client.refusal(Command::Txn(txn)), expected);
    }
    assert_eq!(client.reader().revision(), (2, -1));
    assert_eq!(client.show("\0", "\0", 0), "a=1");
    assert_eq!(client.store.applied().position.index.0, before.position.index.0 + 6);
    // The branch not taken is not checked against the state.
    let not_taken = TxnRequest { failure: vec![at(9)], ..TxnRequest::default() };
    assert!(client.txn(not_taken).succeeded);
}

#[test]
fn a_read_only_transaction_needs_no_entry() {
    let mut client = Client::new();
    client.put("a", "1");
    let request = TxnRequest {
        compare: vec![compare("a", CompareResult::Equal, CompareTarget::Value(bytes("1")))],
        success: vec![range_op("a", ""), RequestOp::Txn(ops(vec![range_op("b", "")]))],
        failure: vec![],
    };
    assert!(request.is_read_only());
    assert!(!ops(vec![RequestOp::Txn(ops(vec![put_op("a", "")]))]).is_read_only());
    let response = client.reader().txn(&request).expect("readable");
    assert_eq!((response.revision, response.succeeded), (2, true));
    assert_eq!(response, client.txn(request));
    let empty = ops(vec![range_op("", "")]);
    assert_eq!(client.reader().txn(&empty), Err(ReadError::Refused(KvError::EmptyKey)));
    let bad = TxnRequest {
        compare: vec![Compare {
            key: Bytes::new(),
            ..compare("", CompareResult::Equal, CompareTarget::Mod(0))
        }],
        ..TxnRequest::default()
    };
    assert_eq!(client.reader().txn(&bad), Err(ReadError::Refused(KvError::EmptyKey)));
}

#[test]
fn a_key_put_and_then_deleted_by_a_later_inner_transaction_is_gone() {
    let mut client = Client::new();
    client.put("a", "0");
    let inner = |op| RequestOp::Txn(ops(vec![op]));
    let response = client.txn(ops(vec![inner(put_op("a", "1")), inner(delete_op("a", ""))]));
    assert_eq!(response.revision, 3);
    assert_eq!(client.show("a", "", 0), "");
    client.put("b", "later");
    assert_eq!(client.show("a", "", 3), "");
    assert_eq!(client.show("a", "b", 3), "");
    assert_eq!(client.show("a", "b", 2), "a=0");
}

#[test]
fn a_transaction_reads_from_the_compacted_revision_on() {
    let mut client = Client::new();
    for value in ["2", "3", "4"] {
        client.put("a", value);
    }
    client.compact(3).expect("above");
    let at = |revision| RequestOp::Range(RangeRequest { revision, ..range("a", "") });
    for (revision, expected) in [(0, "a=4"), (-1, "a=4"), (3, "a=3"), (4, "a=4")] {
        let request = ops(vec![at(revision)]);
        let response = client.reader().txn(&request).expect("readable");
        assert_eq!(client.txn(request), response);
        let [ResponseOp::Range(response)] = &response.responses[..] else { panic!() };
        assert_eq!(texts(&response.kvs), expected, "at {revision}");
    }
    assert_eq!(client.refusal(Command::Txn(ops(vec![at(2)]))), KvError::Compacted);
    assert_eq!(client.refusal(Command::Txn(ops(vec![at(5)]))), KvError::FutureRevision);
}

#[test]
fn only_what_may_put_grows() {
    let inner = |op| RequestOp::Txn(ops(vec![op]));
    let failing = TxnRequest { failure: vec![put_op("a", "")], ..TxnRequest::default() };
    let compact = Command::Compact(CompactRequest { revision: 2 });
    for (command, grows) in [
        (put("a", ""), true),
        (delete("a", ""), false),
        (compact, false),
        (Command::SetMemberAttributes(SetMemberAttributes::default()), false),
        (Command::Txn(ops(vec![])), false),
        (Command::Txn(ops(vec![range_op("a", ""), delete_op("a", "")])), false),
        (Command::Txn(ops(vec![range_op("a", ""), put_op("a", "")])), true),
        (Command::Txn(ops(vec![inner(delete_op("a", ""))])), false),
        (Command::Txn(ops(vec![inner(put_op("a", ""))])), true),
        (Command::Txn(failing), true),
    ] {
        assert_eq!(command.grows(), grows, "{command:?}");
    }
}

#[test]
fn a_transaction_that_nobody_could_decode_is_not_encoded() {
    let nested = |depth: usize| {
        let wrap = |inner, _| ops(vec![RequestOp::Txn(inner)]);
        Command::Txn((1..depth).fold(ops(vec![]), wrap))
    };
    let deepest = nested(TXN_OPS_MAX);
    assert_eq!(Command::decode(deepest.encode()), Ok(deepest));
    assert!(std::panic::catch_unwind(|| nested(TXN_OPS_MAX + 1).encode()).is_err());
}
