//! Processes, ports and clients for tests. Everything that waits has a deadline.

mod client;
mod cluster;
mod metrics;
mod newcomer;
mod proxy;
mod pulse;

pub(crate) use client::Client;
pub(crate) use cluster::{Cluster, Node};
pub(crate) use metrics::Metrics;
pub(crate) use newcomer::Newcomer;
pub(crate) use proxy::Proxy;
pub(crate) use pulse::Pulse;

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a state may take to come about: far more than it takes, for machines that are busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The binary.
pub(crate) fn quorate() -> Command {
    plain(Command::new(env!("CARGO_BIN_EXE_quorate")))
}

/// A command without input and without settings of ours in its environment.
pub(crate) fn plain(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("QUORATE_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Finished {
    finish(quorate().args(arguments))
}

/// Runs a command to its end.
pub(crate) fn finish(command: &mut Command) -> Finished {
    let output = command.output().expect("the command can be started");
    Finished::from(output)
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; none when a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it wrote.
    pub(crate) stdout: String,
    /// What it complained of.
    pub(crate) stderr: String,
}

impl From<Output> for Finished {
    fn from(output: Output) -> Finished {
        Finished {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Looks again and again until there is something to see.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ports that were free a moment ago. They lie below those that the system gives to outgoing connections, which could
/// otherwise take one before its node listens; and none is given twice within a run.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 400).expect("below 400") * 50;
    std::array::from_fn(|_| {
        let candidates = std::iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed));
        let mut ports =
            candidates.take(10_000).map(|next| 10_000 + (base - 10_000 + next) % 22_000);
        ports
            .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
            .expect("there is a free port")
    })
}
