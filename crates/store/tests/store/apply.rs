//! Apply as a replica relies on it: origins, kinds, faults, the digest.

use crate::harness::*;
use quorate_store::etcd::*;
use quorate_store::{MemberAttributes, Store};
use quorate_types::*;
use std::collections::BTreeMap;

fn apply_one(store: &mut TestStore, committed: Committed) -> Option<Reply> {
    store.apply(&[committed]).expect("memory does not fail").pop().expect("one reply an entry")
}

#[test]
fn an_origin_is_applied_once() {
    let mut client = Client::new();
    client.put("a", "1");
    let again = Committed { index: Index(2), ..client.log[0].clone() };
    assert_eq!(apply_one(&mut client.store, again.clone()), None);
    assert_eq!(client.reader().revision().0, 2);
    assert_eq!(client.store.applied().position.index, Index(2));
    // Also inside one batch, after a restart, and on a replica that was given a snapshot.
    let other = Origin { node: NodeId(2), incarnation: Incarnation(9), sequence: 5 };
    let body = put("a", "2").encode();
    let twice = [3, 4].map(|index| committed(index, other, EntryKind::Command, body.clone()));
    let replies = client.store.apply(&twice).expect("memory does not fail");
    assert!(replies[0].is_some());
    assert_eq!(replies[1], None);
    (client.store.syncer())().expect("memory does not fail");
    client.disk.crash(0);
    let mut reopened = open(&client.disk);
    let third = committed(5, other, EntryKind::Command, body.clone());
    assert_eq!(apply_one(&mut reopened, third), None);
    let mut copy = Client::new();
    let name = name_of(reopened.applied());
    install(&mut copy.store, &name, &stream(&mut reopened)).expect("its own snapshot");
    assert_eq!(apply_one(&mut copy.store, committed(6, other, EntryKind::Command, body)), None);
    assert_eq!(copy.reader().revision().0, 3);
}

#[test]
fn an_incarnation_that_the_table_forgets_is_forgotten_in_the_engine_too() {
    let mut client = Client::new();
    for number in 1..=400_u64 {
        let origin = Origin { node: NodeId(1), incarnation: Incarnation(number), sequence: 1 };
        let command = put("k", &number.to_string()).encode();
        apply_one(&mut client.store, committed(number, origin, EntryKind::Command, command));
    }
    let chunks = stream(&mut client.store);
    (client.store.syncer())().expect("memory does not fail");
    client.disk.crash(0);
    assert_eq!(stream(&mut open(&client.disk)), chunks);
    let size: usize = chunks.iter().map(bytes::Bytes::len).sum();
    assert!(size < 256 * 600 + 400 * 100, "{size} bytes hold more than 256 windows");
}

#[test]
fn entries_that_are_no_commands_only_advance() {
    let mut client = Client::new();
    client.put("a", "1");
    let before = client.store.applied();
    let members = one_member("n7").encode();
    for (index, kind, body) in
        [(2, EntryKind::Noop, bytes("")), (3, EntryKind::Configuration, members)]
    {
        let committed = committed(index, Origin::NONE, kind, body);
        assert_eq!(apply_one(&mut client.store, committed), None);
    }
    let after = client.store.applied();
    assert_eq!(after.position, Position::new(Index(3), Epoch::new(3, NodeId(1))));
    assert_ne!(after.digest, before.digest);
    assert_eq!(client.reader().applied(), after);
    assert_eq!(client.reader().revision(), (2, -1));
}

fn one_member(name: &str) -> Configuration {
    let member = Member {
        incarnation: Incarnation(7),
        name: name.to_owned(),
        peer_address: format!("{name}:1"),
        voter: true,
        outgoing_voter: false,
        intent: Intent::Stay,
    };
    Configuration { members: BTreeMap::from([(NodeId(7), member)]), removed_max: NodeId(0) }
}

#[test]
fn the_members_are_kept_with_the_applied_position() {
    let mut client = Client::new();
    assert_eq!(client.store.state().members, AppliedMembers::default());
    let change = |index, name| {
        committed(index, Origin::NONE, EntryKind::Configuration, one_member(name).encode())
    };
    let is_at = |store: &TestStore, index, name| {
        let expected = AppliedMembers { index: Index(index), configuration: one_member(name) };
        assert_eq!(store.state().members, expected);
    };
    // The last of a batch counts.
    client.store.apply(&[change(1, "a"), change(2, "b")]).expect("memory does not fail");
    is_at(&client.store, 2, "b");
    (client.store.syncer())().expect("memory does not fail");
    apply_one(&mut client.store, change(3, "c"));
    is_at(&client.store, 3, "c");
    // A crash takes both back.
    client.disk.crash(0);
    let mut reopened = open(&client.disk);
    assert_eq!(reopened.applied().position.index, Index(2));
    is_at(&reopened, 2, "b");
    apply_one(&mut reopened, change(3, "c"));
    apply_one(&mut reopened, entry(4, &put("a", "1")));
    is_at(&reopened, 3, "c");
    // A snapshot's name says who takes part.
    let mut copy = Client::new();
    let name = SnapshotName { configuration: one_member("c"), ..name_of(reopened.applied()) };
    install(&mut copy.store, &name, &stream(&mut reopened)).expect("its own snapshot");
    is_at(&copy.store, 4, "c");
    (copy.store.syncer())().expect("memory does not fail");
    copy.disk.crash(0);
    let mut copy = open(&copy.disk);
    is_at(&copy, 4, "c");
    // What cannot be read stops the replica.
    let broken = committed(5, Origin::NONE, EntryKind::Configuration, bytes("?"));
    assert!(matches!(copy.apply(&[broken]), Err(ApplyFault::Unsupported { .. })));
}

#[test]
fn only_wanted_replies_are_given() {
    let mut client = Client::new();
    let quiet = Committed { wanted: false, ..entry(1, &put("a", "1")) };
    let replies =
        client.store.apply(&[quiet, entry(2, &put("b", "1"))]).expect("memory does not fail");
    assert_eq!(replies[0], None);
    assert!(replies[1].is_some());
    assert_eq!(client.show("\0", "\0", 0), "a=1 b=1");
    assert_eq!(client.store.apply(&[]), Ok(vec![]));
}

#[test]
fn an_entry_of_a_later_version_stops_the_replica_before_its_batch() {
    let later = {
        let mut body = put("b", "2").encode().to_vec();
        body[0] = 99;
        committed(3, Origin::NONE, EntryKind::Command, body.into())
    };
    let write_set = committed(3, Origin::NONE, EntryKind::WriteSet, bytes("x"));
    for unknown in [later, write_set] {
        let mut client = Client::new();
        client.put("a", "1");
        let before = client.store.applied();
        let batch = [entry(2, &put("c", "1")), unknown];
        let fault = client.store.apply(&batch).expect_err("it cannot be applied");
        assert!(matches!(fault, ApplyFault::Unsupported { index: Index(3), .. }), "{fault}");
        assert_eq!(client.store.applied(), before);
        assert_eq!(client.show("\0", "\0", 0), "a=1");
        assert_eq!(client.store.apply(&[entry(2, &put("c", "1"))]), Err(fault));
    }
}

#[test]
fn a_failed_engine_stops_the_replica_and_a_restart_goes_on() {
    let mut client = Client::new();
    client.put("a", "1");
    (client.store.syncer())().expect("not failing yet");
    client.disk.fail("the device is gone");
    let batch = [entry(2, &put("a", "2"))];
    let fault = client.store.apply(&batch).expect_err("the device fails");
    assert_eq!(fault, ApplyFault::Engine("the device is gone".into()));
    assert!((client.store.syncer())().is_err());
    assert_eq!(client.store.applied().position.index, Index(1));
    assert_eq!(client.show("a", "", 0), "a=1");
    client.disk.crash(9);
    let mut store = open(&client.disk);
    assert_eq!(store.applied().position.index, Index(1));
    assert!(store.apply(&batch).is_ok());
}

#[test]
fn the_digest_tells_states_apart() {
    let run = |commands: &[Command]| {
        let mut client = Client::new();
        commands.iter().for_each(|command| drop(client.run(command.clone())));
        client.store.applied().digest
    };
    let members = |url: &str| {
        let client_urls = vec![url.to_owned()];
        let attributes = SetMemberAttributes { member: NodeId(1), name: "n1".into(), client_urls };
        Command::SetMemberAttributes(attributes)
    };
    let compact = |revision| Command::Compact(CompactRequest { revision });
    let base = [put("a", "1"), put("b", "1"), put("c", "1")];
    assert_eq!(run(&base), run(&base));
    let last_of = |command| run(&[base[0].clone(), base[1].clone(), command]);
    let digests = [
        run(&base),
        last_of(put("c", "2")),
        last_of(put("d", "1")),
        last_of(delete("a", "")),
        last_of(delete("b", "")),
        last_of(delete("x", "")),
        last_of(compact(2)),
        last_of(compact(3)),
        last_of(members("http://one")),
        last_of(members("http://two")),
    ];
    let distinct: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(distinct.len(), digests.len());
}

#[test]
fn member_attributes_are_kept_by_member_and_change_no_revision() {
    let mut client = Client::new();
    let of = |member, url: &str| SetMemberAttributes {
        member: NodeId(member),
        name: format!("n{member}"),
        client_urls: vec![url.to_owned()],
    };
    for attributes in [of(2, "http://b"), of(1, "http://a"), of(2, "http://c")] {
        let reply = client.run(Command::SetMemberAttributes(attributes));
        assert_eq!(reply, Reply::SetMemberAttributes);
    }
    let expected = [(1, "http://a"), (2, "http://c")].map(|(member, url)| {
        let SetMemberAttributes { member, name, client_urls } = of(member, url);
        (member, MemberAttributes { name, client_urls })
    });
    assert_eq!(client.reader().members_attributes(), Ok(BTreeMap::from(expected)));
    assert_eq!(client.reader().revision(), (1, -1));
}

#[test]
fn readers_on_other_threads_see_whole_entries() {
    let mut client = Client::new();
    let both = |value: &str| TxnRequest {
        success: vec![
            RequestOp::Put(put_request("a", value)),
            RequestOp::Put(put_request("b", value)),
        ],
        ..TxnRequest::default()
    };
    client.txn(both("0"));
    let reader = client.reader();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let reader = reader.clone();
                scope.spawn(move || {
                    let mut last = 0;
                    while last < 300 {
                        let response = reader.range(&range("a", "z")).expect("readable");
                        let [a, b] = &response.kvs[..] else { panic!("{response:?}") };
                        assert_eq!((&a.value, a.mod_revision), (&b.value, b.mod_revision));
                        assert_eq!(a.mod_revision, response.revision);
                        assert!(response.revision >= last);
                        last = response.revision;
                    }
                })
            })
            .collect();
        for number in 1..=400 {
            client.txn(both(&number.to_string()));
        }
        for reader in readers {
            reader.join().expect("no torn read");
        }
    });
}

#[test]
fn groups_in_one_engine_do_not_meet() {
    let mut client = Client::new();
    client.put("a", "1");
    let mut other = Store::open(client.disk.open(), GroupId(1)).expect("an empty group");
    assert_eq!(other.applied(), Applied::default());
    assert!(apply_one(&mut other, entry(1, &delete("\0", "\0"))).is_some());
    let store = open(&client.disk);
    assert_eq!(store.reader().range(&range("a", "")).expect("readable").count, 1);
}
