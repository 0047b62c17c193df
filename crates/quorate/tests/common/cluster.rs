//! Nodes as processes of their own.

use super::{Client, Finished, finish, free_ports, quorate, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use tempfile::TempDir;

/// One process; killed when it goes out of scope.
pub(crate) struct Node {
    child: Child,
    log: PathBuf,
}

impl Node {
    /// The number of the process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).expect("its log can be read")
    }

    /// Waits until its log holds a text.
    pub(crate) fn wait_for_log(&mut self, text: &str) {
        wait_for(&format!("`{text}` in {}", self.log.display()), || {
            let log = self.log();
            if log.contains(text) {
                return Some(());
            }
            let ended = self.child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "it ended before it said `{text}`: {ended:?}\n{log}");
            None
        });
    }

    /// Ends it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).expect("it runs");
    }

    /// Its exit code, if it has ended.
    pub(crate) fn try_wait(&mut self) -> Option<Option<i32>> {
        self.child.try_wait().expect("it is our child").map(|status| status.code())
    }

    /// Waits until it has ended by itself; gives its exit code.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let log = self.log.clone();
        wait_for(&format!("the end of the process that logs to {}", log.display()), || {
            self.child.try_wait().expect("it is our child")
        })
        .code()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Three nodes with folders and ports of their own; none runs at first.
pub(crate) struct Cluster {
    folder: TempDir,
    peers: [u16; 3],
    /// Where the others are told to reach each node, when it is not where it listens.
    detours: [Option<u16>; 3],
    clients: [u16; 3],
    /// The processes, by number of the node from 0.
    pub(crate) nodes: [Option<Node>; 3],
    starts: usize,
}

impl Cluster {
    /// A cluster whose nodes are still to be started.
    pub(crate) fn new() -> Cluster {
        let [a, b, c, d, e, f] = free_ports();
        Cluster {
            folder: tempfile::tempdir().expect("a temporary folder"),
            peers: [a, b, c],
            detours: [None; 3],
            clients: [d, e, f],
            nodes: [None, None, None],
            starts: 0,
        }
    }

    /// A cluster that has formed and follows a leader.
    pub(crate) fn formed() -> Cluster {
        let mut cluster = Cluster::new();
        (0..3).for_each(|node| cluster.start(node));
        cluster.leader();
        cluster
    }

    /// The name of a node.
    pub(crate) fn name(node: usize) -> String {
        format!("n{}", node + 1)
    }

    /// The data folder of a node.
    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(Cluster::name(node))
    }

    /// A folder for anything else.
    pub(crate) fn scratch(&self) -> &Path {
        self.folder.path()
    }

    /// Where clients reach a node.
    pub(crate) fn endpoint(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.client_port(node))
    }

    /// Where clients reach all nodes, as a list for command lines.
    pub(crate) fn endpoints(&self) -> String {
        (0..3).map(|node| self.endpoint(node)).collect::<Vec<_>>().join(",")
    }

    /// A client of all nodes.
    pub(crate) fn client(&self) -> Client {
        let endpoints: Vec<String> = (0..3).map(|node| self.endpoint(node)).collect();
        Client::new(&endpoints)
    }

    /// The port where a node listens for its peers.
    pub(crate) fn peer_port(&self, node: usize) -> u16 {
        self.peers[node]
    }

    /// The port where a node listens for clients.
    pub(crate) fn client_port(&self, node: usize) -> u16 {
        self.clients[node]
    }

    /// Lets the others reach a node through another port, as `--cluster` says; to be chosen before any is started.
    pub(crate) fn detour(&mut self, node: usize, port: u16) {
        self.detours[node] = Some(port);
    }

    /// What `--cluster` says.
    pub(crate) fn member_list(&self) -> String {
        let member = |node: usize| {
            let port = self.detours[node].unwrap_or(self.peers[node]);
            format!("{}=127.0.0.1:{port}", Cluster::name(node))
        };
        (0..3).map(member).collect::<Vec<_>>().join(",")
    }

    /// The command line that starts a node.
    pub(crate) fn arguments(&self, node: usize) -> Vec<String> {
        let data_dir = self.data_dir(node).display().to_string();
        let pairs = [
            ("--name", Cluster::name(node)),
            ("--data-dir", data_dir),
            ("--cluster", self.member_list()),
            ("--listen-etcd", self.endpoint(node)),
        ];
        let own_port = format!("127.0.0.1:{}", self.peers[node]);
        let listen = self.detours[node].map(|_| ("--listen-peer", own_port));
        let words =
            pairs.into_iter().chain(listen).flat_map(|(flag, value)| [flag.to_owned(), value]);
        std::iter::once("start".to_owned()).chain(words).collect()
    }

    /// Starts a node.
    pub(crate) fn start(&mut self, node: usize) {
        self.launch(node, quorate());
    }

    /// Starts a node by a command that takes the arguments of the binary.
    pub(crate) fn launch(&mut self, node: usize, mut command: Command) {
        self.starts += 1;
        let log = self.folder.path().join(format!("{}.{}.log", Cluster::name(node), self.starts));
        let file = File::create(&log).expect("a log file");
        command.args(self.arguments(node)).stderr(file);
        let child = command.spawn().expect("the binary can be started");
        self.nodes[node] = Some(Node { child, log });
    }

    /// Starts a process beside the three.
    pub(crate) fn start_other(&mut self, name: &str, arguments: &[&str]) -> Node {
        self.starts += 1;
        let log = self.folder.path().join(format!("{name}.{}.log", self.starts));
        let file = File::create(&log).expect("a log file");
        let child = quorate().args(arguments).stderr(file).spawn();
        Node { child: child.expect("the binary can be started"), log }
    }

    /// Runs the command that starts a node, which is expected to end.
    pub(crate) fn start_in_vain(&self, node: usize) -> Finished {
        finish(quorate().args(self.arguments(node)))
    }

    /// The process of a node that runs.
    pub(crate) fn node(&mut self, node: usize) -> &mut Node {
        self.nodes[node].as_mut().expect("it was started")
    }

    /// Ends a node as `kill -9` does.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].take().expect("it was started").kill();
    }

    /// How much memory a node holds, in bytes.
    pub(crate) fn resident_size(&self, node: usize) -> u64 {
        let process = self.nodes[node].as_ref().expect("it was started").child.id();
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        size.expect("the kernel says it in kB") * 1024
    }

    /// What `quorate status` says of a node; none when it does not answer.
    pub(crate) fn status(&self, node: usize) -> Option<Value> {
        let said = super::run(&["status", "--json", "--endpoints", &self.endpoint(node)]);
        let reports: Value = serde_json::from_str(&said.stdout).expect("it prints JSON");
        Some(reports[0]["status"].clone()).filter(|status| !status.is_null())
    }

    /// Waits until all nodes that run follow one leader; gives its number.
    pub(crate) fn leader(&self) -> usize {
        wait_for("a leader that all follow", || {
            let running = (0..3).filter(|node| self.nodes[*node].is_some());
            let mut leaders: Vec<String> = Vec::new();
            for node in running {
                let status = self.status(node)?;
                leaders.push(status["groups"][0]["leader"].as_str()?.to_owned());
            }
            leaders.dedup();
            let number = |name: &String| (0..3).find(|node| Cluster::name(*node) == *name);
            let leader = (leaders.len() == 1).then(|| number(&leaders[0])).flatten()?;
            self.nodes[leader].is_some().then_some(leader)
        })
    }
}
