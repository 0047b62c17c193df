//! Where nodes and clients meet: a network namespace for each node around one bridge, or the loopback interface.
//!
//! The program starts itself again inside a namespace of its own and builds the bridge there, so nothing of it is visible
//! outside and nothing is left when it ends. Each node's namespace is held open by a process that ends with its input.
//!
//! ```text
//!   clients 10.77.0.254 ── bridge ─┬─ veth ── eth0 10.77.0.1 (namespace of n1)
//!                                  ├─ veth ── eth0 10.77.0.2 (namespace of n2)
//!                                  └─ …
//! ```
//!
//! A link is cut in one direction by telling the sender a hardware address that nobody has: the packets leave and reach
//! no one, without any error that a process could notice. It needs no packet filter.

use crate::Result;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// The hardware address that nobody has.
const NOWHERE: &str = "02:de:ad:00:00:00";

/// The port where nodes serve clients, in namespaces.
const CLIENT_PORT: u16 = 2379;

/// The port where nodes serve peers, in namespaces.
const PEER_PORT: u16 = 2380;

/// The most nodes that a run can start: one address each.
pub(crate) const NODE_COUNT_MAX: usize = 250;

/// How the nodes' network is made.
#[derive(Debug)]
pub(crate) enum Space {
    /// One namespace a node; the processes that hold them open, by number of the node from 0.
    Namespaces(Vec<Child>),
    /// All on 127.0.0.1, with ports from this one.
    Loopback(u16),
}

/// Starts this program again inside a network namespace and gives how it ended; `Err` says why that cannot be done here.
pub(crate) fn start_inside(arguments: &[String]) -> Result<ExitStatus> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut reasons = Vec::new();
    // As root at once, as anybody else inside a user namespace, where that is allowed.
    for flags in [&["--net"][..], &["--net", "--map-root-user"]] {
        match probe(flags) {
            Ok(()) => {
                return Command::new("unshare")
                    .args(flags)
                    .arg("--")
                    .arg(program)
                    .args(arguments)
                    .arg("--inside")
                    .status()
                    .map_err(|error| format!("unshare: {error}"));
            }
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// Whether everything that a namespace needs can be made.
fn probe(flags: &[&str]) -> Result<()> {
    let script = "ip link add q0 type bridge && ip link add q1 type veth peer name q2 && \
                  unshare --net true && setpriv --pdeathsig KILL true";
    run(Command::new("unshare").args(flags).args(["--", "sh", "-c", script]))
}

/// Runs a command to its end.
fn run(command: &mut Command) -> Result<()> {
    let what = format!("{command:?}").replace('"', "");
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{what}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{what}: {} ({})", said.trim(), output.status))
}

/// Runs `ip` with several commands at once, in the namespace of a process, or in our own.
fn ip(holder: Option<u32>, lines: &[String]) -> Result<()> {
    let mut command = match holder {
        Some(process) => {
            let mut command = Command::new("nsenter");
            command.args([&format!("--net=/proc/{process}/ns/net"), "--", "ip"]);
            command
        }
        None => Command::new("ip"),
    };
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("ip: {error}"))?;
    let mut input = child.stdin.take().expect("it is piped");
    let text = lines.join("\n") + "\n";
    input.write_all(text.as_bytes()).map_err(|error| format!("ip: {error}"))?;
    drop(input);
    let output = child.wait_with_output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip: {}: {}", text.trim(), String::from_utf8_lossy(&output.stderr).trim()))
}

fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

fn hardware(node: usize) -> String {
    format!("02:00:00:00:00:{:02x}", node + 1)
}

impl Space {
    /// The bridge, inside the namespace that the program runs in.
    pub(crate) fn namespaces() -> Result<Space> {
        let lines = [
            "link set lo up",
            "link add bridge type bridge",
            "link set bridge up",
            "addr add 10.77.0.254/24 dev bridge",
        ];
        ip(None, &lines.map(str::to_owned))?;
        Ok(Space::Namespaces(Vec::new()))
    }

    /// Makes room for the next node.
    pub(crate) fn add_node(&mut self) -> Result<()> {
        let Space::Namespaces(holders) = self else { return Ok(()) };
        let node = holders.len();
        if node >= NODE_COUNT_MAX {
            return Err(format!("more than {NODE_COUNT_MAX} nodes"));
        }
        // It runs until its input ends, which it does with us.
        let holder = Command::new("unshare")
            .args(["--net", "--", "sh", "-c", "echo && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut holder = holder.map_err(|error| format!("unshare: {error}"))?;
        let process = holder.id();
        // Its first line says that it is inside its namespace.
        let mut byte = [0];
        let said = holder.stdout.as_mut().expect("it is piped");
        std::io::Read::read_exact(said, &mut byte).map_err(|error| format!("unshare: {error}"))?;
        holders.push(holder);
        ip(
            None,
            &[
                format!(
                    "link add v{node} type veth peer name eth0 address {} netns {process}",
                    hardware(node)
                ),
                format!("link set v{node} master bridge up"),
            ],
        )?;
        let lines = [
            "link set lo up".to_owned(),
            "link set eth0 up".to_owned(),
            format!("addr add {}/24 dev eth0", address(node)),
        ];
        ip(Some(process), &lines)
    }

    /// Where a node serves clients.
    pub(crate) fn client_address(&self, node: usize) -> String {
        match self {
            Space::Namespaces(_) => format!("{}:{CLIENT_PORT}", address(node)),
            Space::Loopback(base) => format!("127.0.0.1:{}", usize::from(*base) + 2 * node),
        }
    }

    /// Where a node serves peers.
    pub(crate) fn peer_address(&self, node: usize) -> String {
        match self {
            Space::Namespaces(_) => format!("{}:{PEER_PORT}", address(node)),
            Space::Loopback(base) => format!("127.0.0.1:{}", usize::from(*base) + 2 * node + 1),
        }
    }

    /// A command that runs a program where a node lives, and that ends when we do.
    pub(crate) fn command(&self, node: usize, program: &Path) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        if let Space::Namespaces(holders) = self {
            let process = holders[node].id();
            command.args(["nsenter", &format!("--net=/proc/{process}/ns/net"), "--"]);
        }
        command.arg(program);
        command
    }

    /// Cuts what one node sends to others.
    pub(crate) fn cut(&self, from: usize, to: &[usize]) -> Result<()> {
        self.tell_hardware(from, to, |_| NOWHERE.to_owned())
    }

    /// Lets what one node sends reach others again.
    pub(crate) fn mend(&self, from: usize, to: &[usize]) -> Result<()> {
        self.tell_hardware(from, to, hardware)
    }

    fn tell_hardware(
        &self,
        from: usize,
        to: &[usize],
        hardware: impl Fn(usize) -> String,
    ) -> Result<()> {
        let Space::Namespaces(holders) = self else {
            return Err("links cannot be cut on the loopback interface".into());
        };
        let line = |to: &usize| {
            let (address, hardware) = (address(*to), hardware(*to));
            format!("neigh replace {address} lladdr {hardware} dev eth0 nud permanent")
        };
        let lines: Vec<String> = to.iter().map(line).collect();
        ip(Some(holders[from].id()), &lines)
    }

    /// Squeezes what a node sends to this many kilobits a second; `None` lifts it.
    pub(crate) fn squeeze(&self, node: usize, kilobits: Option<u32>) -> Result<()> {
        let Space::Namespaces(holders) = self else {
            return Err("links cannot be squeezed on the loopback interface".into());
        };
        let mut command = Command::new("nsenter");
        command.args([&format!("--net=/proc/{}/ns/net", holders[node].id()), "--", "tc", "qdisc"]);
        match kilobits {
            Some(kilobits) => command
                .args(["replace", "dev", "eth0", "root", "tbf", "rate"])
                .arg(format!("{kilobits}kbit"))
                .args(["burst", "8kb", "latency", "500ms"]),
            None => command.args(["del", "dev", "eth0", "root"]),
        };
        run(&mut command)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let Space::Namespaces(holders) = self else { return };
        for holder in holders {
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}
