//! The nodes under test: processes with folders, disks and places of their own.

use crate::Result;
use crate::clients::Addresses;
use crate::disk::Disk;
use crate::etcd;
use crate::space::Space;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;

/// How often a state is looked at that is waited for.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// How often memory is measured.
const MEMORY_INTERVAL: Duration = Duration::from_secs(1);

/// How many lines of its log are shown of a node that died.
const TAIL_LINE_COUNT: usize = 12;

/// How all nodes are run.
#[derive(Clone, Debug)]
pub(crate) struct Setting {
    /// The binary under test.
    pub(crate) binary: PathBuf,
    /// The folder of the run.
    pub(crate) folder: PathBuf,
    /// The layer between processes and disks, if it could be built.
    pub(crate) layer: Option<PathBuf>,
    /// Whether power is to be cut.
    pub(crate) keeps_shadow: bool,
    /// Whether disks forget what they acknowledged.
    pub(crate) ignores_sync: bool,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    /// Its name.
    pub(crate) name: String,
    /// Its disk.
    pub(crate) disk: Disk,
    /// How it is started the first time, and ever after: `--cluster …` or `--join …`.
    origin: [String; 2],
    process: Option<Child>,
    /// Whether it is stopped by a signal at the moment.
    pub(crate) is_paused: bool,
    /// Whether its end is what we wait for.
    pub(crate) may_end: bool,
    /// Whether it has left the cluster.
    pub(crate) is_retired: bool,
    /// The logs of all its lives.
    logs: Vec<PathBuf>,
    /// The most memory it held, in bytes.
    memory_peak: u64,
}

/// All nodes, those that have left as well.
pub(crate) struct Cluster {
    setting: Setting,
    /// Where they live.
    pub(crate) space: Space,
    /// By number from 0; numbers are never used again.
    pub(crate) nodes: Vec<Node>,
    /// Where clients reach the members.
    pub(crate) addresses: Addresses,
    /// For calls to nodes.
    runtime: Handle,
    /// Ends that nobody wanted.
    pub(crate) deaths: Vec<String>,
    memory_at: Instant,
}

impl Cluster {
    /// A cluster of so many nodes, none of which runs yet.
    pub(crate) fn new(
        setting: Setting,
        space: Space,
        count: usize,
        runtime: Handle,
    ) -> Result<Cluster> {
        let mut cluster = Cluster {
            setting,
            space,
            nodes: Vec::new(),
            addresses: Arc::new(RwLock::new(Vec::new())),
            runtime,
            deaths: Vec::new(),
            memory_at: Instant::now(),
        };
        let member = |node: usize| format!("n{}={}", node + 1, cluster.space.peer_address(node));
        let list = (0..count).map(member).collect::<Vec<_>>().join(",");
        for _ in 0..count {
            cluster.add(["--cluster".into(), list.clone()])?;
        }
        cluster.publish();
        Ok(cluster)
    }

    /// A node that is to join the members; gives its number. It is not started yet.
    pub(crate) fn add_joining(&mut self) -> Result<usize> {
        let contacts: Vec<_> =
            self.members().into_iter().map(|node| self.space.peer_address(node)).collect();
        self.add(["--join".into(), contacts.join(",")])
    }

    fn add(&mut self, origin: [String; 2]) -> Result<usize> {
        let node = self.nodes.len();
        let name = format!("n{}", node + 1);
        self.space.add_node()?;
        let Setting { folder, layer, keeps_shadow, ignores_sync, .. } = &self.setting;
        let disk = Disk::new(&folder.join(&name), layer.as_deref(), *keeps_shadow, *ignores_sync);
        let disk = disk.map_err(|error| format!("the folder of {name}: {error}"))?;
        self.nodes.push(Node {
            name,
            disk,
            origin,
            process: None,
            is_paused: false,
            may_end: false,
            is_retired: false,
            logs: Vec::new(),
            memory_peak: 0,
        });
        Ok(node)
    }

    /// The nodes that take part.
    pub(crate) fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !self.nodes[*node].is_retired).collect()
    }

    /// Those that run and are not stopped by a signal.
    pub(crate) fn active(&self) -> Vec<usize> {
        let mut members = self.members();
        members.retain(|node| self.nodes[*node].process.is_some() && !self.nodes[*node].is_paused);
        members
    }

    /// Tells the clients where the members are.
    pub(crate) fn publish(&self) {
        let addresses = self.members().into_iter().map(|node| self.space.client_address(node));
        *self.addresses.write().expect("no reader panics") = addresses.collect();
    }

    /// Starts a node.
    pub(crate) fn start(&mut self, node: usize) -> Result<()> {
        let log = self.setting.folder.join(format!(
            "{}.{}.log",
            self.nodes[node].name,
            self.nodes[node].logs.len() + 1
        ));
        let file = File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        let one = &self.nodes[node];
        let mut command = self.space.command(node, &self.setting.binary);
        command
            .args(["start", "--name", &one.name, "--insecure", "--data-dir"])
            .arg(&one.disk.root)
            .args(&one.origin)
            .args(["--listen-peer", &self.space.peer_address(node)])
            .args(["--listen-etcd", &self.space.client_address(node)]);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("QUORATE_") {
                command.env_remove(name);
            }
        }
        command.envs(one.disk.environment());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let one = &mut self.nodes[node];
        one.process = Some(child);
        one.may_end = false;
        one.logs.push(log);
        Ok(())
    }

    /// Starts every member that does not run.
    pub(crate) fn start_missing(&mut self) -> Result<()> {
        let mut members = self.members();
        members.retain(|node| self.nodes[*node].process.is_none());
        members.into_iter().try_for_each(|node| self.start(node))
    }

    /// Sends a signal to a node that runs. One that has ended by itself, and is waited for by whoever expects it, is none: it
    /// ends between two looks at it.
    pub(crate) fn signal(&mut self, node: usize, signal: Signal) -> Result<()> {
        let one = &self.nodes[node];
        let Some(child) = &one.process else { return Ok(()) };
        match kill_process(Pid::from_child(child), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(format!("a signal to {}: {error}", one.name)),
        }
    }

    /// `kill -9`, as close together as one thread can.
    pub(crate) fn kill(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.nodes[*node].may_end = true;
            // One that has ended by itself cannot be killed; it is waited for all the same.
            let _ = self.signal(*node, Signal::KILL);
        }
        for node in nodes {
            self.nodes[*node].is_paused = false;
            if let Some(mut child) = self.nodes[*node].process.take() {
                let _ = child.wait();
            }
        }
    }

    /// Waits until a process has ended by itself; `None` when it has not in time.
    pub(crate) fn wait_end(&mut self, node: usize, patience: Duration) -> Option<ExitStatus> {
        let begin = Instant::now();
        while begin.elapsed() < patience && self.nodes[node].process.is_some() {
            if let Some(status) = self.take_ended(node) {
                return Some(status);
            }
            self.watch();
            std::thread::sleep(LOOK_INTERVAL);
        }
        None
    }

    /// Takes a process away that has ended by itself; `None` while it runs.
    pub(crate) fn take_ended(&mut self, node: usize) -> Option<ExitStatus> {
        let status = self.nodes[node].process.as_mut()?.try_wait().ok()??;
        self.nodes[node].process = None;
        Some(status)
    }

    /// Looks after all processes: who has ended without being asked to, and how much memory they hold.
    pub(crate) fn watch(&mut self) {
        for node in 0..self.nodes.len() {
            let one = &mut self.nodes[node];
            let Some(child) = &mut one.process else { continue };
            let Ok(Some(status)) = child.try_wait() else { continue };
            if one.may_end {
                // Kept until whoever expects it takes it away.
                continue;
            }
            one.process = None;
            let tail = self.log_tail(node);
            let name = &self.nodes[node].name;
            self.deaths.push(format!("{name} ended by itself ({status}):\n{tail}"));
        }
        if self.memory_at.elapsed() >= MEMORY_INTERVAL {
            self.memory_at = Instant::now();
            for one in &mut self.nodes {
                let size = one.process.as_ref().and_then(|child| resident_size(child.id()));
                one.memory_peak = one.memory_peak.max(size.unwrap_or(0));
            }
        }
    }

    /// Waits for a while, looking after the processes.
    pub(crate) fn wait(&mut self, span: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < span {
            self.watch();
            std::thread::sleep(LOOK_INTERVAL.min(span));
        }
    }

    /// The member that leads, as the nodes say themselves.
    pub(crate) fn leader(&self) -> Option<usize> {
        let mut best = None;
        for node in self.active() {
            let status = self.runtime.block_on(etcd::status(&self.space.client_address(node)));
            let Ok(status) = status else { continue };
            let own = status.header.map_or(0, |header| header.member_id);
            if own != 0 && own == status.leader {
                best = best.max(Some((status.raft_term, node)));
            }
        }
        best.map(|(_, node)| node)
    }

    /// Waits until the member that leads is known.
    pub(crate) fn wait_leader(&mut self, patience: Duration) -> Option<usize> {
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if let Some(leader) = self.leader() {
                return Some(leader);
            }
            self.wait(LOOK_INTERVAL);
        }
        None
    }

    /// Runs a command of the binary to its end.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String> {
        ask(&self.setting.binary, arguments)
    }

    /// The binary under test.
    pub(crate) fn binary(&self) -> &Path {
        &self.setting.binary
    }

    /// The most memory that any node held, in bytes, and which.
    pub(crate) fn memory_peak(&self) -> (u64, &str) {
        let peaks = self.nodes.iter().map(|node| (node.memory_peak, node.name.as_str()));
        peaks.max().unwrap_or((0, "none"))
    }

    /// Lines of logs that tell of a broken program.
    pub(crate) fn panics(&self) -> Vec<String> {
        let mut found = Vec::new();
        for log in self.nodes.iter().flat_map(|node| &node.logs) {
            let text = fs::read(log).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let bad = text.lines().filter(|line| is_panic(line));
            found.extend(bad.map(|line| format!("{}: {line}", log.display())));
        }
        found
    }

    /// What a node said last.
    pub(crate) fn log_tail(&self, node: usize) -> String {
        let Some(log) = self.nodes[node].logs.last() else { return String::new() };
        let text = fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINE_COUNT)..].join("\n")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.kill(&all);
    }
}

/// Runs a command of the binary to its end.
pub(crate) fn ask(binary: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(binary).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{}: {error}", binary.display()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
}

fn is_panic(line: &str) -> bool {
    ["panicked at", "fatal runtime error", "stack overflow", "memory allocation of"]
        .iter()
        .any(|text| line.contains(text))
}

fn resident_size(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_from_other_lines() {
        assert!(is_panic("thread 'n1-node' panicked at crates/log/src/write.rs:12:5:"));
        assert!(is_panic("memory allocation of 9 bytes failed"));
        assert!(!is_panic("WARN n1: the peer closed the connection"));
    }
}
