//! What people do with a cluster that runs: etcdctl, status, bench.

use crate::common::{Cluster, finish, run};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};

#[test]
fn etcdctl_puts_gets_deletes_compares_and_lists() {
    if Command::new("etcdctl").arg("version").output().is_err() {
        println!("skipped: etcdctl is not installed");
        return;
    }
    let cluster = Cluster::formed();
    let endpoints = cluster.endpoints();
    let etcdctl = |arguments: &[&str]| {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints]).args(arguments);
        let said = finish(&mut command);
        assert_eq!(said.code, Some(0), "etcdctl {arguments:?}: {said:?}");
        said.stdout
    };
    assert_eq!(etcdctl(&["put", "a/1", "one"]), "OK\n");
    assert_eq!(etcdctl(&["put", "a/2", "two"]), "OK\n");
    assert_eq!(etcdctl(&["get", "--prefix", "a/"]), "a/1\none\na/2\ntwo\n");
    assert_eq!(etcdctl(&["del", "a/1"]), "1\n");
    assert_eq!(etcdctl(&["get", "a/1"]), "");
    let members = etcdctl(&["member", "list"]);
    for node in 0..3 {
        assert!(members.contains(&cluster.endpoint(node)), "{members}");
        assert!(members.contains(&Cluster::name(node)), "{members}");
    }
    let table = etcdctl(&["endpoint", "status", "-w", "table"]);
    assert_eq!(table.matches("true").count(), 1, "one leads:\n{table}");
    let health = etcdctl(&["endpoint", "health"]);
    assert!(!health.contains("unhealthy"), "{health}");

    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints, "txn"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it was started before");
    let script = "value(\"a/2\") = \"two\"\n\nput a/3 three\n\nput a/4 four\n\n";
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("SUCCESS"), "{output:?}");
    assert_eq!(etcdctl(&["get", "a/3"]), "a/3\nthree\n");
    let compacted = etcdctl(&["compaction", "3"]);
    assert!(compacted.contains("compacted revision 3"), "{compacted}");
}

#[test]
fn status_shows_who_leads_and_how_far_each_is() {
    let cluster = Cluster::formed();
    let leader = Cluster::name(cluster.leader());
    cluster.client().put("greeting", "hello");
    let said = run(&["status", "--endpoints", &cluster.endpoints()]);
    assert_eq!(said.code, Some(0), "{said:?}");
    let rows: Vec<Vec<&str>> =
        said.stdout.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.len() >= 3, "{}", said.stdout);
    for row in &rows[..3] {
        assert_eq!(row[2], "running", "{}", said.stdout);
        assert_eq!(row[3] == "leader", row[1] == leader, "{}", said.stdout);
        assert_eq!(row[5], leader, "{}", said.stdout);
        assert!(said.stdout.contains(&format!("<->{}", row[1])), "{}", said.stdout);
    }
}

#[test]
fn bench_measures_puts_gets_and_both() {
    let cluster = Cluster::formed();
    for (operation, rate) in [("put", None), ("get", None), ("mixed", Some("200"))] {
        let endpoints = cluster.endpoints();
        let mut arguments = vec!["bench", "etcd", "--json", "--endpoints", &endpoints];
        arguments.extend(["--seconds", "1", "--warm-up", "0.2", "--clients", "4"]);
        arguments.extend(["--connections", "2", "--keys", "100", "--op", operation]);
        arguments.extend(rate.iter().flat_map(|rate| ["--rate", rate]));
        let said = run(&arguments);
        assert_eq!(said.code, Some(0), "{said:?}");
        let report: Value = serde_json::from_str(&said.stdout).expect("it prints JSON");
        let number = |path: &str| report.pointer(path).and_then(Value::as_f64).expect("a number");
        assert!(number("/operations") > 0.0, "{report}");
        assert_eq!(number("/errors"), 0.0, "{report}");
        assert!(number("/latency_us/p50") <= number("/latency_us/p99"), "{report}");
        assert!(number("/latency_us/p99_9") <= number("/latency_us/max"), "{report}");
        assert_eq!(report["put_latency_us"].is_null(), operation != "mixed", "{report}");
    }
}
