//! What a node measures agrees with what a test causes and sees from outside: a steady state, 50 ms on one link, one kill.

use crate::common::{Client, Cluster, Metrics, Proxy, wait_for};
use serde_json::Value;
use std::time::{Duration, Instant};

/// What one link takes longer, in one direction: nodes send on the connections that they opened themselves.
const DELAY: Duration = Duration::from_millis(50);

/// How long the steady state is watched.
const STEADY: Duration = Duration::from_secs(3);

/// The pause between two puts: a light load, in which no put waits for the one before.
const PAUSE: Duration = Duration::from_millis(20);

/// What scheduling may add to a figure on a machine that is busy.
const SLACK: Duration = Duration::from_millis(500);

/// How long one attempt of the writer may take while there may be no leader.
const ATTEMPT: Duration = Duration::from_millis(250);

/// Three nodes, each reached by its peers through a proxy.
fn behind_proxies() -> (Cluster, [Proxy; 3]) {
    let mut cluster = Cluster::new();
    let proxies: [Proxy; 3] = std::array::from_fn(|node| Proxy::to(cluster.peer_port(node)));
    for (node, proxy) in proxies.iter().enumerate() {
        cluster.detour(node, proxy.port());
    }
    (0..3).for_each(|node| cluster.start(node));
    (cluster, proxies)
}

fn scrape(cluster: &Cluster, node: usize) -> Metrics {
    Metrics::scrape(&cluster.endpoint(node))
        .unwrap_or_else(|| panic!("n{} shows nothing", node + 1))
}

/// A figure of the system group, as `quorate status` shows it.
fn of_group(cluster: &Cluster, node: usize, field: &str) -> Value {
    let status = cluster.status(node).expect("it runs");
    status["groups"][0][field].clone()
}

fn epoch(cluster: &Cluster, node: usize) -> f64 {
    of_group(cluster, node, "epoch").as_f64().expect("a number")
}

fn term_changes(metrics: &Metrics) -> f64 {
    metrics.value("quorate_term_changes_total", &["group=\"0\""])
}

/// How often a leader became known, and how long that took altogether.
fn elections(metrics: &Metrics) -> (f64, f64) {
    metrics.histogram("quorate_leader_election_time_seconds", &["group=\"0\""])
}

/// How many commits a leader has measured, and how long they took altogether.
fn commits(metrics: &Metrics) -> (f64, f64) {
    metrics.histogram("quorate_commit_latency_seconds", &["group=\"0\""])
}

/// Waits until a leader's figures stand still for longer than a page may be old.
fn wait_until_quiet(cluster: &Cluster, leader: usize) {
    let mut last = (commits(&scrape(cluster, leader)), Instant::now());
    wait_for("the figures to stand still", || {
        let found = commits(&scrape(cluster, leader));
        if found != last.0 {
            last = (found, Instant::now());
        }
        (last.1.elapsed() > SLACK).then_some(())
    });
}

/// Puts a little for a while; gives how many, and the mean time of each.
fn write_steadily(client: &mut Client, member: usize) -> (u32, Duration) {
    let (begin, mut count, mut busy) = (Instant::now(), 0, Duration::ZERO);
    while begin.elapsed() < STEADY {
        let sent = Instant::now();
        let put = client.put_at(member, "steady", &count.to_string(), Duration::from_secs(5));
        put.expect("nothing is wrong");
        busy += sent.elapsed();
        count += 1;
        std::thread::sleep(PAUSE);
    }
    (count, busy / count)
}

/// The mean of what a histogram of a peer took in between two scrapes.
fn mean_between(before: &Metrics, after: &Metrics, name: &str, peer: usize) -> Duration {
    let label = format!("peer=\"{}\"", Cluster::name(peer));
    let (count_before, sum_before) = before.histogram(name, &["group=\"0\"", &label]);
    let (count, sum) = after.histogram(name, &["group=\"0\"", &label]);
    assert!(count > count_before, "{name} of {label} took nothing in");
    Duration::from_secs_f64((sum - sum_before) / (count - count_before))
}

#[test]
fn a_slow_link_shows_in_the_figures_of_its_peer_only_and_a_steady_state_changes_no_term() {
    let (cluster, proxies) = behind_proxies();
    let leader = cluster.leader();
    let [near, far] = [(leader + 1) % 3, (leader + 2) % 3];
    proxies[far].delay(DELAY);
    let mut client = cluster.client();
    // What was on the way without a delay is past once a value has come all the way with one.
    client.put("delayed", "1");
    wait_for("the delayed node to have it", || client.get_at(far, "delayed", true).ok()?);
    wait_until_quiet(&cluster, leader);
    let before: Vec<Metrics> = (0..3).map(|node| scrape(&cluster, node)).collect();
    let epochs: Vec<f64> = (0..3).map(|node| epoch(&cluster, node)).collect();
    let (count, put) = write_steadily(&mut client, leader);
    wait_until_quiet(&cluster, leader);
    let after: Vec<Metrics> = (0..3).map(|node| scrape(&cluster, node)).collect();

    for node in 0..3 {
        assert_eq!(epoch(&cluster, node), epochs[node], "the test saw an election");
        assert_eq!(term_changes(&after[node]), term_changes(&before[node]), "n{}", node + 1);
        assert_eq!(elections(&after[node]), elections(&before[node]), "n{}", node + 1);
        let term_changes = of_group(&cluster, node, "term_changes");
        assert_eq!(term_changes.as_f64(), Some(self::term_changes(&after[node])));
    }
    let mean = |name, peer| mean_between(&before[leader], &after[leader], name, peer);
    for name in ["quorate_log_replication_latency_seconds", "quorate_network_round_trips_seconds"] {
        let (undelayed, delayed) = (mean(name, near), mean(name, far));
        println!("{name}: {undelayed:?} undelayed, {delayed:?} with {DELAY:?} on the link");
        assert!(delayed >= DELAY, "{name} of the delayed peer is {delayed:?}");
        assert!(delayed < DELAY + SLACK, "{name} of the delayed peer is {delayed:?}");
        assert!(undelayed < delayed, "{name} of the undelayed peer is {undelayed:?}");
    }
    let replication = mean("quorate_log_replication_latency_seconds", near);
    let (count_before, sum_before) = commits(&before[leader]);
    let (commit_count, sum) = commits(&after[leader]);
    assert_eq!(
        commit_count - count_before,
        f64::from(count),
        "one commit for each put, one at a time"
    );
    let commit = Duration::from_secs_f64((sum - sum_before) / f64::from(count));
    println!(
        "{count} puts: mean {put:?} outside, {commit:?} to commit, {replication:?} to replicate"
    );
    assert!(commit <= put, "the commit is a part of what a client waits for");
}

#[test]
fn one_kill_shows_as_the_terms_and_the_one_election_that_it_caused() {
    let mut cluster = Cluster::formed();
    let leader = cluster.leader();
    let survivors = [(leader + 1) % 3, (leader + 2) % 3];
    let mut client = cluster.client();
    client.put("before", "1");
    let before = survivors.map(|node| scrape(&cluster, node));
    let epochs = survivors.map(|node| epoch(&cluster, node));
    assert_eq!(epochs[0], epochs[1]);

    let killed = Instant::now();
    cluster.kill(leader);
    let mut answered = None;
    while answered.is_none() && killed.elapsed() < Duration::from_secs(30) {
        for node in survivors {
            let put = client.put_at(node, "after", "2", ATTEMPT);
            answered = answered.or(put.is_ok().then(|| killed.elapsed()));
        }
    }
    let gap = answered.expect("two of three go on");
    let next = cluster.leader();
    assert!(survivors.contains(&next));
    let seen = wait_for("both survivors to be in one epoch", || {
        let [one, other] = survivors.map(|node| epoch(&cluster, node));
        (one == other).then_some(one)
    });
    for (place, node) in survivors.into_iter().enumerate() {
        let after = scrape(&cluster, node);
        let rose = term_changes(&after) - term_changes(&before[place]);
        assert_eq!(rose, seen - epochs[place], "n{} and its status disagree", node + 1);
        let (count_before, sum_before) = elections(&before[place]);
        let (count, sum) = elections(&after);
        assert_eq!(count - count_before, 1.0, "n{} saw one change of leader", node + 1);
        let election = Duration::from_secs_f64(sum - sum_before);
        println!(
            "n{}: {rose} term changes, an election of {election:?}; a client saw a gap of {gap:?}",
            node + 1
        );
        assert!(election > Duration::ZERO, "n{}", node + 1);
        assert!(election <= gap + SLACK, "n{}: {election:?}, the gap was {gap:?}", node + 1);
        assert!(gap <= election + 4 * ATTEMPT + 2 * SLACK, "n{}: {election:?}, {gap:?}", node + 1);
    }
}
