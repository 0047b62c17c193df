//! One, then two, then three of three, in every order; and what a folder that is gone does to a formed cluster.

use crate::common::{Client, Cluster, wait_for};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// How many puts each cluster must keep.
const PUT_COUNT: usize = 10;

/// How long a node that must not commit is given the chance to.
const TEMPTATION: Duration = Duration::from_secs(3);

fn wait_until_forming(cluster: &Cluster, node: usize, missing: &[usize]) {
    let mut names: Vec<String> = missing.iter().map(|node| Cluster::name(*node)).collect();
    names.sort();
    wait_for(&format!("n{} to wait for {names:?}", node + 1), || {
        let status = cluster.status(node)?;
        let found: Vec<&str> =
            status["missing"].as_array()?.iter().filter_map(|name| name.as_str()).collect();
        (status["phase"] == "forming" && found == names).then_some(())
    });
}

/// Starts the nodes one after the other; gives what was acknowledged then.
fn form(cluster: &mut Cluster, order: [usize; 3]) -> BTreeMap<String, String> {
    for (place, node) in order.into_iter().enumerate() {
        cluster.start(node);
        if place < 2 {
            wait_until_forming(cluster, node, &order[place + 1..]);
        }
    }
    cluster.leader();
    let mut client = cluster.client();
    let pairs = (0..PUT_COUNT).map(|number| (format!("key/{number}"), format!("value {number}")));
    let pairs: BTreeMap<String, String> = pairs.collect();
    for (key, value) in &pairs {
        client.put(key, value);
    }
    pairs
}

/// Whether these nodes serve everything by linearizable reads, and go on.
fn check_kept(client: &mut Client, nodes: [usize; 2], pairs: &BTreeMap<String, String>) {
    client.put("further", "on");
    for node in nodes {
        for (key, value) in pairs {
            let found = wait_for("a linearizable read", || client.get_at(node, key, false).ok());
            assert_eq!(found.as_ref(), Some(value), "{key} on n{}", node + 1);
        }
    }
}

#[test]
fn every_order_forms_a_cluster_that_refuses_an_emptied_folder_and_keeps_everything() {
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for (number, order) in ORDERS.into_iter().enumerate() {
            scope.spawn(move || check_order(order, number.is_multiple_of(2)));
        }
    });
    println!("{} start orders, each with a folder deleted: {:?}", ORDERS.len(), begin.elapsed());
}

/// Forms a cluster, deletes the folder of the node that was started first and runs its command again, while the others
/// run or after all were stopped.
fn check_order(order: [usize; 3], others_run: bool) {
    let mut cluster = Cluster::new();
    let pairs = form(&mut cluster, order);
    let [victim, one, other] = order;
    match others_run {
        true => cluster.kill(victim),
        false => order.into_iter().for_each(|node| cluster.kill(node)),
    }
    std::fs::remove_dir_all(cluster.data_dir(victim)).expect("removed");
    if !others_run {
        cluster.start(one);
        cluster.start(other);
    }
    cluster.start(victim);
    let node = cluster.node(victim);
    let code = node.wait();
    let log = node.log();
    assert_eq!(code, Some(1), "{order:?}: {log}");
    for part in ["may not take part", "put the former data folder back", "must be replaced"] {
        assert!(log.contains(part), "{order:?}: `{part}` is not in {log}");
    }
    cluster.nodes[victim] = None;
    check_kept(&mut cluster.client(), [one, other], &pairs);
}

#[test]
fn two_emptied_folders_of_three_never_make_a_quorum_that_forgot() {
    let mut cluster = Cluster::new();
    let pairs = form(&mut cluster, [0, 1, 2]);
    let mut client = cluster.client();
    (0..3).for_each(|node| cluster.kill(node));
    let aside = |cluster: &Cluster, node: usize| cluster.scratch().join(format!("aside-{node}"));
    for emptied in [1, 2] {
        std::fs::rename(cluster.data_dir(emptied), aside(&cluster, emptied)).expect("renamed");
        cluster.start(emptied);
    }
    cluster.start(0);
    // The one that remembers refuses both; until it does, they may only wait.
    for emptied in [1, 2] {
        let node = cluster.node(emptied);
        let code = node.wait();
        assert_eq!(code, Some(1), "{}", node.log());
        assert!(node.log().contains("put the former data folder back"), "{}", node.log());
    }
    let refused = client.put_at(0, "forgotten", "1", TEMPTATION);
    refused.expect_err("one of three is no quorum");

    // What they were told to do helps.
    for emptied in [1, 2] {
        std::fs::remove_dir_all(cluster.data_dir(emptied)).expect("removed");
        std::fs::rename(aside(&cluster, emptied), cluster.data_dir(emptied)).expect("renamed");
        cluster.start(emptied);
    }
    cluster.leader();
    check_kept(&mut client, [0, 1], &pairs);
    check_kept(&mut client, [1, 2], &pairs);
}
