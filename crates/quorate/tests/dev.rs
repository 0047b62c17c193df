//! `quorate dev`: a cluster for a laptop.

use crate::common::{Client, PATIENCE, quorate};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Ends the process with the test.
struct Dev(Child);

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first line that holds a text.
fn line_with(lines: &Receiver<String>, text: &str) -> String {
    loop {
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no line with `{text}`"));
        if line.contains(text) {
            return line;
        }
    }
}

#[test]
fn dev_serves_clients_and_leaves_nothing_behind() {
    let mut command = quorate();
    command.args(["dev"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut dev = Dev(command.spawn().expect("it can be started"));
    let stdout = dev.0.stdout.take().expect("piped");
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let folder = line_with(&lines, "data in");
    let folder = folder.split_whitespace().nth(2).expect("a path").to_owned();
    assert!(std::path::Path::new(&folder).is_dir(), "{folder}");
    let line = line_with(&lines, "ETCDCTL_ENDPOINTS=");
    let (_, endpoints) = line.split_once("ETCDCTL_ENDPOINTS=").expect("found above");
    let endpoints: Vec<String> = endpoints.trim().split(',').map(str::to_owned).collect();
    assert_eq!(endpoints.len(), 3, "{line}");
    line_with(&lines, "leads, all nodes follow");
    let mut client = Client::new(&endpoints);
    client.put("greeting", "hello");
    for member in 0..3 {
        let value = client.get_at(member, "greeting", false).expect("it serves");
        assert_eq!(value.as_deref(), Some("hello"));
    }
    kill_process(Pid::from_child(&dev.0), Signal::INT).expect("it runs");
    line_with(&lines, "all nodes have left");
    let code = dev.0.wait().expect("it is our child").code();
    assert_eq!(code, Some(0));
    assert!(!std::path::Path::new(&folder).exists(), "{folder} is still there");
}
