//! The engine of a node is lost or damaged: it takes its state from a peer, and serves nothing wrong meanwhile.

use crate::common::{Client, Cluster, Metrics, wait_for};
use quorate_etcd::proto::etcdserverpb::PutRequest;
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_log::{Log, LogOptions};
use quorate_runtime::FileReader;
use quorate_types::GroupId;
use rustix::process::Signal;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tonic::Code;
use tonic::transport::Endpoint;

/// How many puts it takes until every log has been purged: what is retained for laggards, and one purge more.
const PUT_COUNT: usize = 17_000;

/// How many of them are under way at a time.
const WRITER_COUNT: usize = 64;

/// How many keys they go to.
const KEY_COUNT: usize = 3_000;

/// A file of an engine that is more than a list of others.
const LARGE_SIZE: u64 = 64 * 1024;

/// How often bytes of an engine are changed.
const DAMAGE_COUNT: u64 = 6;

fn key(number: usize) -> String {
    format!("key/{:05}", number % KEY_COUNT)
}

/// The value that the last put of a key leaves.
fn last_value(key_number: usize) -> String {
    let rounds = (PUT_COUNT - 1 - key_number) / KEY_COUNT;
    value(key_number + rounds * KEY_COUNT)
}

fn value(number: usize) -> String {
    format!("value {number:06} {}", "x".repeat(number % 200))
}

/// Puts every key several times, in order for each key.
fn fill(cluster: &Cluster) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", cluster.endpoint(0)));
        let channel = endpoint.expect("an address").connect().await.expect("it serves");
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITER_COUNT {
            let mut kv = KvClient::new(channel.clone());
            writers.spawn(async move {
                // All puts of a key are one writer's.
                let own =
                    (0..PUT_COUNT).filter(|number| number % KEY_COUNT % WRITER_COUNT == writer);
                for number in own {
                    let (key, value) = (key(number).into(), value(number).into());
                    let put = PutRequest { key, value, ..PutRequest::default() };
                    kv.put(put).await.expect("a healthy cluster takes it");
                }
            });
        }
        writers.join_all().await;
    });
}

/// The first index that the log of a stopped node still holds, less one.
fn purged(data_dir: &Path) -> u64 {
    let opened = Log::open(&FileReader::new(data_dir), LogOptions::default());
    let (_, recovery) = opened.expect("the log is sound");
    recovery.groups[&GroupId(0)].bounds.purged.index.0
}

/// Lets a node leave, and waits for it.
fn leave(cluster: &mut Cluster, node: usize) {
    cluster.node(node).signal(Signal::TERM);
    assert_eq!(cluster.node(node).wait(), Some(0), "{}", cluster.node(node).log());
    cluster.nodes[node] = None;
}

/// A cluster whose members have purged what their engines hold.
fn purged_cluster() -> Cluster {
    let cluster = Cluster::formed();
    fill(&cluster);
    wait_for("every engine to be synced and the log behind it purged", || {
        let synced = |node| cluster.status(node)?["groups"][0]["synced"].as_u64();
        (0..3)
            .all(|node| synced(node).is_some_and(|synced| synced > PUT_COUNT as u64))
            .then_some(())
    });
    cluster
}

/// Reads every key at one node: each value is the last one, or the read is refused.
fn check_all(client: &mut Client, node: usize) -> Result<(), tonic::Status> {
    for number in 0..KEY_COUNT {
        let found = client.get_at(node, &key(number), true)?;
        assert_eq!(found, Some(last_value(number)), "n{}: {}", node + 1, key(number));
    }
    Ok(())
}

fn is_awaiting(cluster: &Cluster, node: usize) -> Option<bool> {
    let metrics = Metrics::scrape(&cluster.endpoint(node))?;
    let gauge = metrics.find("quorate_awaiting_snapshot", &["group=\"0\""])?;
    Some(gauge == 1.0)
}

#[test]
fn a_node_whose_engine_is_gone_serves_nothing_until_it_has_a_peers_state() {
    let mut cluster = purged_cluster();
    let mut client = cluster.client();
    let victim = (cluster.leader() + 1) % 3;
    let others = [(victim + 1) % 3, (victim + 2) % 3];
    for node in [victim, others[0], others[1]] {
        leave(&mut cluster, node);
    }
    let purged = purged(&cluster.data_dir(victim));
    assert!(purged > 0, "the log reaches back to the first entry: nothing is shown");
    std::fs::remove_dir_all(cluster.data_dir(victim).join("engine")).expect("removed");

    cluster.start(victim);
    cluster.node(victim).wait_for_log("A snapshot of a peer will take its place");
    wait_for("the metric", || is_awaiting(&cluster, victim).filter(|awaiting| *awaiting));
    let refused = client.get_at(victim, &key(7), true).expect_err("it has nothing to read");
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "etcdserver: unhealthy cluster")
    );
    let status = cluster.status(victim).expect("it answers");
    let why_not = status["groups"][0]["why_not"].as_str().unwrap_or_default();
    assert!(why_not.contains("a snapshot of a peer must take its place"), "{status}");

    others.into_iter().for_each(|node| cluster.start(node));
    wait_for("the state of a peer", || is_awaiting(&cluster, victim).filter(|awaiting| !awaiting));
    check_all(&mut client, victim).expect("it serves");
    client.put("after", "1");
    wait_for("what is written after", || client.get_at(victim, "after", true).ok()?);
    assert!(cluster.status(victim).expect("it answers")["groups"][0]["why_not"].is_null());
}

/// The files of an engine and what they hold.
fn engine_files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file")) {
        let path = entry.path();
        if path.is_dir() {
            files.extend(engine_files(&path));
        } else {
            let size = entry.metadata().expect("it is there").len();
            files.extend((size > 0).then_some((path, size)));
        }
    }
    files.sort();
    files
}

/// Changes a byte in every file of an engine, or in the large ones only, and there in every 64 KiB.
fn flip_bytes(folder: &Path, seed: u64, size_min: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for (path, size) in engine_files(folder).into_iter().filter(|(_, size)| *size >= size_min) {
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("opened");
        for _ in 0..1 + size / 65_536 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (random >> 33) % size;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("inside the file");
            file.write_all_at(&[byte[0] ^ 0x5a], at).expect("written");
        }
    }
}

#[test]
fn a_node_whose_engine_is_damaged_keeps_it_aside_and_takes_its_state_from_a_peer() {
    let mut cluster = purged_cluster();
    let mut client = cluster.client();
    let victim = (cluster.leader() + 1) % 3;
    for round in 1..=DAMAGE_COUNT {
        leave(&mut cluster, victim);
        // What tells of itself at open, or only what is met when it is read.
        let size_min = if round % 2 == 0 { LARGE_SIZE } else { 0 };
        flip_bytes(&cluster.data_dir(victim).join("engine"), round, size_min);
        cluster.start(victim);
        let mut stops = 0;
        wait_for("every key", || {
            let checked = check_all(&mut client, victim);
            let node = cluster.node(victim);
            if let Some(code) = node.try_wait() {
                // What is read late is found late: the node stops, and heeds it at its next start.
                let log = node.log();
                assert_eq!(code, Some(1), "{log}");
                assert!(log.contains("start this node again"), "{log}");
                stops += 1;
                assert!(stops < 3, "it does not get over it: {log}");
                cluster.start(victim);
            }
            checked.ok()
        });
        let log = cluster.node(victim).log();
        let was_found = log.contains("It is kept aside in");
        println!("round {round}: found after {stops} stops, {was_found}");
        assert!(was_found, "every file was damaged, and nothing was found: {log}");
    }
    assert_eq!(client.put("after", "1"), client.put("after", "2") - 1);
}
