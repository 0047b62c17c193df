//! Bad input gets a clear sentence and the exit code that scripts rely on; good input is understood.

use crate::common::{Finished, finish, free_ports, quorate, run};
use std::net::TcpListener;

fn check(finished: &Finished, code: i32, part: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert!(finished.stderr.contains(part), "`{part}` is not in {}", finished.stderr);
}

/// `start` with a name, a folder that does not exist yet, and a cluster of one.
fn start(extra: &[&str]) -> Finished {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data_dir = folder.path().join("data").display().to_string();
    let [peer] = free_ports();
    let cluster = format!("n1=127.0.0.1:{peer}");
    let mut arguments = vec!["start", "--name", "n1", "--data-dir", &data_dir];
    if !extra.contains(&"--cluster") {
        arguments.extend(["--cluster", &cluster]);
    }
    arguments.extend(extra);
    run(&arguments)
}

#[test]
fn what_makes_no_sense_ends_with_code_2_and_says_why() {
    check(&run(&["start", "--bogus"]), 2, "--bogus");
    check(&run(&["frobnicate"]), 2, "frobnicate");
    check(&run(&["start"]), 2, "--name is missing");
    check(&start(&["--cluster", "n2=127.0.0.1:7201"]), 2, "does not name this node");
    check(&start(&["--cluster", "n1=127.0.0.1"]), 2, "there is no port");
    check(&start(&["--listen-etcd", "0.0.0.0:0"]), 2, "--insecure");
    check(&start(&["--log-level", "x=loud"]), 2, "log-level");
    check(&run(&["status", "--endpoints", "nowhere"]), 2, "not HOST:PORT");
    check(&run(&["bench", "etcd", "--clients", "0"]), 2, "--clients");
    check(&run(&["bench", "etcd", "--rate=-1"]), 2, "--rate");
    check(&run(&["dump"]), 2, "--data-dir");
    check(&run(&["dev", "--nodes", "0"]), 2, "--nodes");
}

#[test]
fn what_cannot_be_done_ends_with_code_1_and_says_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    check(&start(&["--listen-etcd", &address]), 1, &format!("--listen-etcd {address}"));
    let cluster = format!("n1={address}");
    let used = start(&["--cluster", &cluster, "--listen-etcd", "127.0.0.1:0"]);
    check(&used, 1, &format!("--listen-peer {address}"));
    check(&run(&["dump", "--data-dir", "/nowhere"]), 1, "/nowhere");
    drop(taken);
    let status = run(&["status", "--endpoints", &address]);
    assert_eq!(status.code, Some(1), "{status:?}");
    assert!(status.stdout.contains("unreachable"), "{status:?}");
    check(&run(&["bench", "etcd", "--endpoints", &address]), 1, "no endpoint answers");
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("quorate.toml");
    let text = "[start]\nname = \"n1\"\nlog-level = \"debug\"\nlisten-etcd = \"127.0.0.1:1\"\n\
                cluster = \"n1=127.0.0.1:7101\"\ndata-dir = \"data\"\n";
    std::fs::write(&file, text).expect("written");
    let mut command = quorate();
    command.arg("--config").arg(&file).args(["config", "print", "--listen-etcd", "127.0.0.1:3"]);
    command.env("QUORATE_LISTEN_ETCD", "127.0.0.1:2").env("QUORATE_LOG_LEVEL", "warn");
    let printed = finish(&mut command);
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let settings: toml::Table = printed.stdout.parse().expect("it prints TOML");
    let setting = |key: &str| settings["start"][key].as_str().map(str::to_owned);
    assert_eq!(setting("listen-etcd").as_deref(), Some("127.0.0.1:3"), "the flag");
    assert_eq!(setting("log-level").as_deref(), Some("warn"), "the variable");
    assert_eq!(setting("name").as_deref(), Some("n1"), "the file");
    assert_eq!(setting("log-format").as_deref(), Some("text"), "the default");

    let mut command = quorate();
    command.arg("--config").arg(&file).args(["config", "check"]);
    let good = finish(&mut command);
    assert_eq!(good.code, Some(0), "{good:?}");
    std::fs::write(&file, text.replace("name", "naem")).expect("written");
    check(&finish(&mut command), 2, "naem");
    std::fs::remove_file(&file).expect("removed");
    check(&finish(&mut command), 2, "quorate.toml");
}

#[test]
fn version_and_completion_are_printed() {
    let version = run(&["--version"]);
    assert_eq!(version.code, Some(0));
    for part in ["commit", "wire format", "log format", "snapshot format"] {
        assert!(version.stdout.contains(part), "{}", version.stdout);
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completion", shell]);
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains("listen-etcd"), "{shell}");
    }
}
