//! A node that lags far behind is brought up over a slow link, and nothing urgent queues behind what it is sent.

use crate::common::{Client, Cluster, Metrics, Proxy, wait_for};
use std::time::{Duration, Instant};

/// What each connection to the node that lags takes: what is on its way to it at most would take a second.
const RATE: u64 = 8 * 1024 * 1024;

/// How large a value is, and how many are missed.
const VALUE_SIZE: usize = 1024 * 1024;
const VALUE_COUNT: usize = 100;

/// Far less than what is on its way takes, and more than a busy machine does.
const ROUND_TRIP_MAX: Duration = Duration::from_millis(100);

/// How many heartbeats a node has answered, and how long they took altogether.
fn round_trips(cluster: &Cluster, leader: usize, peer: usize) -> (f64, f64) {
    let metrics = Metrics::scrape(&cluster.endpoint(leader)).expect("it serves");
    let label = format!("peer=\"{}\"", Cluster::name(peer));
    metrics.histogram("quorate_network_round_trips_seconds", &[&label])
}

fn applied(cluster: &Cluster, node: usize) -> Option<u64> {
    cluster.status(node)?["groups"][0]["applied"].as_u64()
}

#[test]
fn heartbeats_do_not_wait_behind_a_hundred_megabytes_of_catch_up() {
    let mut cluster = Cluster::new();
    let proxies: [Proxy; 3] = std::array::from_fn(|node| Proxy::to(cluster.peer_port(node)));
    (0..3).for_each(|node| cluster.detour(node, proxies[node].port()));
    (0..3).for_each(|node| cluster.start(node));
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    let mut client = Client::new(&[cluster.endpoint(leader)]);
    cluster.kill(victim);
    for number in 0..VALUE_COUNT {
        client.put(&format!("large/{number}"), &"x".repeat(VALUE_SIZE));
    }
    let target = applied(&cluster, leader).expect("it answers");

    proxies[victim].rate(RATE);
    let begin = Instant::now();
    let (count_before, sum_before) = round_trips(&cluster, leader, victim);
    cluster.start(victim);
    wait_for("the node that lags to have it all", || {
        applied(&cluster, victim).filter(|applied| *applied >= target)
    });
    let elapsed = begin.elapsed();
    let (count, sum) = round_trips(&cluster, leader, victim);
    let least = Duration::from_secs((VALUE_COUNT * VALUE_SIZE) as u64 / RATE / 2);
    assert!(elapsed > least, "it took only {elapsed:?}: the link is not slow");
    assert_eq!(cluster.leader(), leader, "nobody lost sight of the leader");
    let count = count - count_before;
    let mean = Duration::from_secs_f64((sum - sum_before) / count.max(1.0));
    println!("{VALUE_COUNT} MiB in {elapsed:?}; {count} heartbeats of {mean:?}");
    assert!(count >= 20.0, "only {count} heartbeats were answered");
    assert!(mean < ROUND_TRIP_MAX, "heartbeats took {mean:?}");
}
