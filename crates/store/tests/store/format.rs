//! Frozen samples of what stands on disks and wires (`docs/format/store.md`): a change here is a
//! new format version.

use crate::harness::*;
use bytes::Bytes;
use quorate_store::engine::{Direction, EngineReader, EngineView, Table};
use quorate_store::etcd::*;
use quorate_types::{NodeId, StateMachine};

/// One line for each sample: its name and its bytes in hexadecimal.
const SAMPLES: &str = include_str!("../samples/store-v2.txt");

fn commands() -> Vec<(&'static str, Command)> {
    let put = PutRequest {
        key: bytes("key\0"),
        value: bytes("value"),
        lease: 0,
        prev_kv: true,
        ignore_value: false,
        ignore_lease: false,
    };
    let delete = DeleteRangeRequest { key: bytes("a"), range_end: bytes("b"), prev_kv: true };
    let range = RangeRequest {
        limit: 7,
        revision: 2,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::Mod,
        keys_only: true,
        min_mod_revision: 1,
        ..range("key", "\0")
    };
    let compare = vec![
        compare("a", CompareResult::Equal, CompareTarget::Version(0)),
        compare("key\0", CompareResult::NotEqual, CompareTarget::Value(bytes("other"))),
    ];
    let inner = TxnRequest { failure: vec![RequestOp::Put(put.clone())], ..TxnRequest::default() };
    let success = vec![RequestOp::Range(range), RequestOp::Txn(inner)];
    let txn =
        TxnRequest { compare, success, failure: vec![RequestOp::DeleteRange(delete.clone())] };
    let attributes = SetMemberAttributes {
        member: NodeId(3),
        name: "n3".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
    };
    vec![
        ("put", Command::Put(put)),
        ("delete-range", Command::DeleteRange(delete)),
        ("txn", Command::Txn(txn)),
        ("compact", Command::Compact(CompactRequest { revision: 2 })),
        ("set-member-attributes", Command::SetMemberAttributes(attributes)),
    ]
}

fn sample(name: &str) -> Bytes {
    let line = SAMPLES.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let digits = line.unwrap_or_else(|| panic!("no sample {name}")).as_bytes();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).expect("digits"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A store that applied every sample command once more after two puts.
fn source() -> Client {
    let mut client = Client::new();
    client.put("a", "1");
    client.put("key\0", "2");
    commands().into_iter().for_each(|(_, command)| drop(client.run(command)));
    client
}

#[test]
fn commands_of_version_one_are_read_and_written() {
    for (name, command) in commands() {
        assert_eq!(hex(&command.encode()), hex(&sample(name)), "{name}");
        assert_eq!(Command::decode(sample(name)), Ok(command), "{name}");
    }
}

/// Every pair of every table: table, key, value.
fn tables(client: &Client) -> String {
    let view = client.disk.reader().view().expect("open");
    let mut lines = String::new();
    for table in Table::ALL {
        for pair in view.scan(table, &[], &[0xff], Direction::Forward) {
            let (key, value) = pair.expect("memory does not fail");
            lines += &format!("{} {} {}\n", table.name(), hex(&key), hex(&value));
        }
    }
    lines
}

#[test]
fn tables_of_version_two_are_written() {
    let expected = include_str!("../samples/store-v2-tables.txt");
    assert_eq!(tables(&source()), expected);
}

#[test]
fn a_snapshot_of_version_two_is_read_and_written() {
    let mut source = source();
    let chunks = stream(&mut source.store);
    assert_eq!(hex(&chunks.concat()), hex(&sample("snapshot")));
    assert_eq!(source.store.applied().digest.to_string(), hex(&sample("digest")));
    let mut copy = Client::new();
    let name = name_of(source.store.applied());
    assert_eq!(install(&mut copy.store, &name, &[sample("snapshot")]), Ok(source.store.applied()));
    assert_eq!(copy.show("\0", "\0", 0), "key\0=value");
}
