//! Three real nodes over loopback: they form, agree, answer, and survive the loss of one.

#![expect(clippy::disallowed_types, reason = "a real clock is what is tested")]

mod common;

use common::{Cluster, PATIENCE, eventually};
use quorate_runtime::RequestError;
use quorate_types::{Fate, GroupId, Index};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const GROUP: GroupId = GroupId(0);

/// Puts `count` keys with 64 proposers through one node; gives the revisions acknowledged.
async fn put_many(cluster: &Cluster, through: usize, prefix: &str, count: usize) -> Vec<i64> {
    let node = cluster.node(through);
    let next = Arc::new(AtomicUsize::new(0));
    let mut proposers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let (next, prefix) = (Arc::clone(&next), prefix.to_owned());
        let node = node.share();
        proposers.spawn(async move {
            let mut revisions = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return revisions;
                }
                let key = format!("{prefix}{number}");
                let put = node.put(&key, key.as_bytes()).await;
                revisions.push(put.expect("a quorum is up"));
            }
        });
    }
    proposers.join_all().await.concat()
}

fn holds_all(node: &common::Running, prefix: &str, count: usize) -> bool {
    (0..count).all(|number| {
        let key = format!("{prefix}{number}");
        node.local(&key).is_some_and(|value| value == key)
    })
}

async fn barrier(node: &common::Running) -> Index {
    node.handle.read_barrier(GROUP, Some(PATIENCE)).await.expect("a quorum is up")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_form_agree_and_survive_the_loss_of_one() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;

    let revisions = put_many(&cluster, leader, "a", 500).await;
    let more = put_many(&cluster, follower, "b", 500).await;
    let distinct: BTreeSet<i64> = revisions.iter().chain(&more).copied().collect();
    assert_eq!(distinct.len(), 1000, "every put has a revision of its own");

    for (number, node) in cluster.running() {
        barrier(node).await;
        assert!(holds_all(node, "a", 500), "n{} after its barrier", number + 1);
        assert!(holds_all(node, "b", 500), "n{} after its barrier", number + 1);
    }
    let clusters: BTreeSet<_> =
        cluster.running().map(|(_, node)| node.handle.cluster_id()).collect();
    assert_eq!(clusters.len(), 1);
    assert!(!clusters.contains(&None));

    let metrics = cluster.node(leader).handle.metrics();
    assert!(metrics.log_sync.count > 0, "{metrics:?}");
    assert!(metrics.applied_count >= 1000, "{metrics:?}");
    assert!(metrics.received_count > 0, "{metrics:?}");
    assert_eq!(metrics.waiting_count, 0, "{metrics:?}");

    cluster.kill(leader).await;
    let second = cluster.leader().await;
    assert_ne!(second, leader);
    put_many(&cluster, second, "c", 500).await;

    cluster.restart(leader);
    let returned = cluster.node(leader);
    eventually("a node that caught up", async || {
        (holds_all(returned, "a", 500) && holds_all(returned, "c", 500)).then_some(())
    })
    .await;
    barrier(returned).await;
    let started = returned.handle.status().await.expect("it runs").start;
    assert_eq!(started.0, 2, "it opened the folder it had");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_requests_end_in_time_and_the_status_answers() {
    let mut cluster = Cluster::start();
    let leader = cluster.leader().await;
    cluster.node(leader).put("k", b"v").await.expect("a quorum is up");
    cluster.kill((leader + 1) % 3).await;
    cluster.kill((leader + 2) % 3).await;
    let node = cluster.node(leader);
    let timeout = std::time::Duration::from_millis(300);
    let begin = std::time::Instant::now();
    let body = common::put_body("k", b"w");
    let kind = quorate_types::EntryKind::Command;
    let put = node.handle.propose(GROUP, kind, body, Some(timeout)).await;
    let read = node.handle.read_barrier(GROUP, Some(timeout)).await;
    assert!(begin.elapsed() < PATIENCE / 4, "{:?}", begin.elapsed());
    assert!(put.is_err(), "{put:?}");
    assert!(read.is_err(), "{read:?}");
    let status = node.handle.status().await.expect("it runs");
    assert_eq!(status.name, common::name(leader));
    assert!(node.local("k").is_some(), "a local read needs nobody");

    // What became of the put can be found out once there is a quorum again.
    let Err(RequestError::Unknown { origin: Some(origin), .. }) = put else {
        panic!("the put ended as {put:?}");
    };
    cluster.restart((leader + 1) % 3);
    cluster.leader().await;
    let node = cluster.node(leader);
    let fate = node.handle.settle(GROUP, origin, Some(PATIENCE)).await;
    barrier(node).await;
    let value = node.local("k").expect("it was put");
    match fate {
        Ok(Fate::Applied) => assert_eq!(value, b"w"[..]),
        Ok(Fate::Never) => assert_eq!(value, b"v"[..]),
        other => panic!("its fate is {other:?}"),
    }

    node.handle.shutdown().await;
    let late = node.put("k", b"x").await;
    assert!(matches!(late, Err(RequestError::Stopped(_))), "{late:?}");
    assert!(node.handle.status().await.is_none());
}
