//! The power fails on all nodes at once: what was acknowledged is there afterwards, on every node, at its
//! revision. Without syncs the same check must fail, or it would prove nothing.
#![cfg(feature = "fault-injection")]

mod common;

use common::{Cluster, Faults, PATIENCE, Running, name, put_body};
use quorate_store::etcd::{RangeRequest, Reply};
use quorate_types::{EntryKind, GroupId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const GROUP: GroupId = GroupId(0);
const WRITERS: usize = 16;
const CUTS: usize = 4;

/// Acknowledged puts: the revision of each key and value, which are the same text.
type Acknowledged = Arc<Mutex<BTreeMap<String, i64>>>;

/// Puts new keys until the node is gone.
async fn write(node: Running, writer: usize, round: usize, acknowledged: Acknowledged) {
    for number in 0.. {
        let key = format!("r{round}w{writer}k{number}");
        let body = put_body(&key, key.as_bytes());
        let Ok(reply) = node.handle.propose(GROUP, EntryKind::Command, body, None).await else {
            return;
        };
        let Reply::Put(put) = reply else { panic!("a put was answered with {reply:?}") };
        acknowledged.lock().expect("whole").insert(key, put.revision);
    }
}

/// What of the acknowledged a node does not hold at its revision.
fn lost(node: &Running, acknowledged: &BTreeMap<String, i64>) -> Vec<String> {
    let holds = |key: &str, revision: i64| {
        let key = bytes::Bytes::copy_from_slice(key.as_bytes());
        let range = RangeRequest { key: key.clone(), revision, ..RangeRequest::default() };
        node.reader.range(&range).is_ok_and(|found| {
            found.kvs.iter().any(|pair| pair.mod_revision == revision && pair.value == key)
        })
    };
    acknowledged
        .iter()
        .filter(|(key, revision)| !holds(key, **revision))
        .map(|(key, _)| key.clone())
        .collect()
}

async fn write_and_cut(cluster: &mut Cluster, round: usize, acknowledged: &Acknowledged) {
    let before = acknowledged.lock().expect("whole").len();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let node = cluster.node(writer % 3).share();
        writers.spawn(write(node, writer, round, Arc::clone(acknowledged)));
    }
    // A different moment each time, once there is something to lose.
    common::eventually("acknowledged puts", async || {
        (acknowledged.lock().expect("whole").len() > before + 50 + round * 97).then_some(())
    })
    .await;
    cluster.kill_all().await;
    writers.join_all().await;
    cluster.cut_power();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_on_all_nodes_loses_nothing_acknowledged() {
    let mut cluster = Cluster::start_with(Faults::PowerCut);
    cluster.leader().await;
    let acknowledged = Acknowledged::default();
    for round in 0..CUTS {
        write_and_cut(&mut cluster, round, &acknowledged).await;
        (0..3).for_each(|number| cluster.restart(number));
        cluster.leader().await;
        let acknowledged = acknowledged.lock().expect("whole").clone();
        for (number, node) in cluster.running() {
            node.handle.read_barrier(GROUP, Some(PATIENCE)).await.expect("all nodes are up");
            assert_eq!(lost(node, &acknowledged), Vec::<String>::new(), "{}", name(number));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_power_cut_loses_what_was_acknowledged() {
    let mut cluster = Cluster::start_with(Faults::PowerCutWithoutSync);
    cluster.leader().await;
    let acknowledged = Acknowledged::default();
    write_and_cut(&mut cluster, 0, &acknowledged).await;
    let acknowledged = acknowledged.lock().expect("whole").clone();
    // The folders hold no synced record any more: each node refuses to start, or has lost what it had.
    for number in 0..3 {
        if let Ok(node) = cluster.try_restart(number) {
            let barrier = node.handle.read_barrier(GROUP, Some(Duration::from_secs(3))).await;
            assert!(
                barrier.is_err() || !lost(&node, &acknowledged).is_empty(),
                "{} should have lost something",
                name(number)
            );
        }
    }
}
