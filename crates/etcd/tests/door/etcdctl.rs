//! The real `etcdctl`, where it is installed, against the door.

use crate::double::Server;
use std::process::Command;

/// What `etcdctl` says to these arguments, or its complaint.
pub(crate) async fn etcdctl(address: &str, arguments: &[&str]) -> Result<String, String> {
    let endpoint = format!("--endpoints={address}");
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    let run = move || {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(endpoint).args(arguments).output()
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic").expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    if output.status.success() {
        // `endpoint health` speaks on the error stream.
        Ok(text(output.stdout) + &text(output.stderr))
    } else {
        Err(text(output.stderr))
    }
}

/// Whether `etcdctl` is installed; without it there is nothing to test here.
#[expect(
    clippy::print_stdout,
    reason = "whoever reads the test's output must see what was not tested"
)]
pub(crate) fn installed() -> bool {
    let found = Command::new("etcdctl").env("ETCDCTL_API", "3").arg("version").output().is_ok();
    if !found {
        println!("skipped: no etcdctl on this machine");
    }
    found
}

#[tokio::test]
async fn keys_by_etcdctl() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let check = async |arguments: &[&str], expected: &str| {
        let said = etcdctl(&server.address, arguments).await.expect("it works");
        assert_eq!(said, expected, "{arguments:?}");
    };
    check(&["put", "app/1", "one"], "OK\n").await;
    check(&["put", "app/2", "two"], "OK\n").await;
    check(&["get", "--prefix", "app/"], "app/1\none\napp/2\ntwo\n").await;
    check(&["get", "--prefix", "--keys-only", "app/"], "app/1\n\napp/2\n\n").await;
    check(&["get", "app/", "--prefix", "--order=DESCEND", "--limit=1"], "app/2\ntwo\n").await;
    check(&["put", "--prev-kv", "app/1", "uno"], "OK\napp/1\none\n").await;
    check(&["get", "--rev=2", "app/1"], "app/1\none\n").await;
    check(&["del", "app/2"], "1\n").await;
    check(&["del", "app/2"], "0\n").await;
    check(&["compact", "4"], "compacted revision 4\n").await;
    let error =
        etcdctl(&server.address, &["get", "--rev=2", "app/1"]).await.expect_err("compacted");
    assert!(error.contains("etcdserver: mvcc: required revision has been compacted"), "{error}");
    let error = etcdctl(&server.address, &["compact", "4"]).await.expect_err("compacted before");
    assert!(error.contains("etcdserver: mvcc: required revision has been compacted"), "{error}");
    server.stop().await;
}

/// The text form of a transaction: comparisons, then what to do, then what to do otherwise.
#[tokio::test]
async fn a_transaction_by_etcdctl() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    etcdctl(&server.address, &["put", "k", "1"]).await.expect("put");
    let endpoint = format!("--endpoints={}", server.address);
    let run = move || {
        let script = "value(\"k\") = \"1\"\n\nput k 2\nget k\n\nget k\n\n";
        let mut command = Command::new("sh");
        command.env("ETCDCTL_API", "3").env("SCRIPT", script).env("ENDPOINT", endpoint);
        command.args(["-c", "printf '%s' \"$SCRIPT\" | etcdctl \"$ENDPOINT\" txn"]);
        command.output().expect("it starts")
    };
    let output = tokio::task::spawn_blocking(run).await.expect("no panic");
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(said, "SUCCESS\n\nOK\n\nk\n2\n");
    server.stop().await;
}

#[tokio::test]
async fn the_cluster_by_etcdctl() {
    if !installed() {
        return;
    }
    let server = Server::start().await;
    let url = format!("http://{}", server.address);
    server.door.publish("n1".into(), vec![url.clone()]).await;
    let members = etcdctl(&server.address, &["member", "list"]).await.expect("members");
    let first = format!("1, started, n1, http://127.0.0.1:7101, {url}, false");
    assert!(members.lines().any(|line| line == first), "{members}");
    assert!(members.contains("2, unstarted, , http://127.0.0.1:7102, , false"), "{members}");
    let table =
        etcdctl(&server.address, &["endpoint", "status", "-w", "table"]).await.expect("status");
    assert!(table.contains("3.6.0 |") && table.contains(&server.address), "{table}");
    let health = etcdctl(&server.address, &["endpoint", "health"]).await.expect("health");
    assert!(health.contains("is healthy: successfully committed proposal"), "{health}");
    server.replica.lose_leader();
    let arguments = ["--command-timeout=2s", "endpoint", "health"];
    let error = etcdctl(&server.address, &arguments).await.expect_err("nobody leads");
    assert!(error.contains("is unhealthy"), "{error}");
    let table =
        etcdctl(&server.address, &["endpoint", "status", "-w", "table"]).await.expect("status");
    assert!(table.contains("etcdserver: no leader"), "{table}");
    server.stop().await;
}
