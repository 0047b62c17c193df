//! Nodes are killed; what was acknowledged stays, and what cannot be done is said in time.

use crate::common::{Cluster, run, wait_for};
use std::time::{Duration, Instant};
use tonic::Code;

#[test]
fn writes_go_on_after_the_leader_is_killed_and_it_catches_up_when_it_returns() {
    let mut cluster = Cluster::formed();
    let mut client = cluster.client();
    client.put("before", "1");
    let leader = cluster.leader();
    cluster.kill(leader);
    let begin = Instant::now();
    client.put("after", "2");
    let gap = begin.elapsed();
    assert!(gap < Duration::from_secs(10), "a new leader took {gap:?}");
    cluster.start(leader);
    wait_for("the killed leader to catch up", || {
        let value = client.get_at(leader, "after", true).ok()??;
        (value == "2").then_some(())
    });
    assert_eq!(client.get_at(leader, "before", true).expect("it serves").as_deref(), Some("1"));
}

#[test]
fn without_a_quorum_a_put_fails_in_time_and_status_still_answers() {
    let mut cluster = Cluster::formed();
    let mut client = cluster.client();
    client.put("kept", "1");
    let leader = cluster.leader();
    let [other, third] = [(leader + 1) % 3, (leader + 2) % 3];
    wait_for("the key on a follower", || client.get_at(other, "kept", true).ok()?);
    cluster.kill(leader);
    cluster.kill(third);
    let begin = Instant::now();
    let refused = client.put_at(other, "lost", "2", None::<Duration>);
    let status = refused.expect_err("one of three is no quorum");
    let waited = begin.elapsed();
    assert!(waited < Duration::from_secs(12), "it took {waited:?}: {status:?}");
    assert!(matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded), "{status:?}");
    assert!(status.message().starts_with("etcdserver: "), "{status:?}");
    let kept = client.get_at(other, "kept", true).expect("serializable reads need no quorum");
    assert_eq!(kept.as_deref(), Some("1"));

    let said = run(&["status", "--endpoints", &cluster.endpoints()]);
    assert_eq!(said.code, Some(1), "two do not answer: {said:?}");
    assert_eq!(said.stdout.matches("unreachable").count(), 2, "{}", said.stdout);
    let name = Cluster::name(third);
    assert!(said.stdout.contains(&format!("-x-{name}")), "{}", said.stdout);
}

#[test]
fn a_new_folder_in_a_formed_cluster_is_refused_with_what_to_do() {
    let mut cluster = Cluster::formed();
    let mut client = cluster.client();
    let revision = client.put("kept", "1");
    let leader = cluster.leader();
    let victim = (leader + 1) % 3;
    cluster.kill(victim);
    std::fs::remove_dir_all(cluster.data_dir(victim)).expect("removed");
    cluster.start(victim);
    let node = cluster.node(victim);
    let code = node.wait();
    let log = node.log();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("may not take part"), "{log}");
    assert!(log.contains("replace"), "it says what to do: {log}");
    cluster.nodes[victim] = None;
    assert!(client.put("more", "2") > revision, "the others go on");
}
