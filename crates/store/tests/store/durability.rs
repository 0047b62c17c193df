//! What a crash may take back, and what it may not.

use crate::harness::*;
use quorate_types::{Index, StateMachine};

#[test]
fn what_was_synced_before_a_crash_stays() {
    for keep in 0..=5 {
        let mut client = Client::new();
        for number in 0..5 {
            client.put("a", &number.to_string());
        }
        (client.store.syncer())().expect("memory does not fail");
        for number in 5..10 {
            client.put("a", &number.to_string());
        }
        let applied = client.store.applied();
        client.disk.crash(keep);
        let mut store = open(&client.disk);
        let at = store.applied().position.index;
        assert_eq!(at, Index(5 + keep));
        let rest = &client.log[at.0 as usize..];
        store.apply(rest).expect("memory does not fail");
        assert_eq!(store.applied(), applied);
        assert_eq!(store.reader().range(&range("a", "")).expect("readable").kvs[0].version, 10);
    }
}

#[test]
fn a_batch_survives_whole_or_not_at_all() {
    let mut client = Client::new();
    let batch: Vec<_> = (1..=6).map(|index| entry(index, &put("a", &index.to_string()))).collect();
    client.store.apply(&batch[..3]).expect("memory does not fail");
    client.store.apply(&batch[3..]).expect("memory does not fail");
    assert_eq!(client.disk.unsynced_batches(), 2, "one engine batch for one call");
    client.disk.crash(1);
    let store = open(&client.disk);
    assert_eq!(store.applied().position.index, Index(3));
    assert_eq!(store.reader().revision().0, 4);
    assert_eq!(texts(&store.reader().range(&range("a", "")).expect("readable").kvs), "a=3");
}

#[test]
fn a_reader_of_before_a_crash_gets_an_error_and_no_answer() {
    let mut client = Client::new();
    client.put("a", "1");
    let reader = client.reader();
    client.disk.crash(0);
    assert!(reader.range(&range("a", "")).is_err());
}
