//! A cluster forms in whatever order its members are started, and says whom it waits for.

use crate::common::{Cluster, wait_for};

/// The phase of a node and whom it misses, once it misses exactly these.
fn wait_until_missing(cluster: &Cluster, node: usize, expected: &[&str]) {
    wait_for(&format!("n{} to miss {expected:?}", node + 1), || {
        let status = cluster.status(node)?;
        let missing: Vec<&str> =
            status["missing"].as_array()?.iter().filter_map(|name| name.as_str()).collect();
        (status["phase"] == "forming" && missing == expected).then_some(())
    });
}

#[test]
fn three_nodes_form_a_cluster_in_an_odd_order_and_name_who_is_missing() {
    let mut cluster = Cluster::new();
    cluster.start(2);
    cluster.node(2).wait_for_log("waiting for n1, n2");
    wait_until_missing(&cluster, 2, &["n1", "n2"]);
    cluster.start(0);
    wait_until_missing(&cluster, 2, &["n2"]);
    wait_until_missing(&cluster, 0, &["n2"]);
    cluster.start(1);
    let leader = cluster.leader();
    assert!((0..3).contains(&leader));
    let clusters: Vec<String> = (0..3)
        .map(|node| {
            let status = cluster.status(node).expect("it runs");
            assert_eq!(status["phase"], "running");
            status["cluster"].as_str().expect("it is formed").to_owned()
        })
        .collect();
    assert!(clusters.iter().all(|one| *one == clusters[0]), "{clusters:?}");
    assert!(cluster.client().put("greeting", "hello") > 1);
}
