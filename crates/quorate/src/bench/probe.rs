//! `quorate bench probe`: what this machine gives at best, so that a server's figures can be told from its own.

use super::disk_probe::{self, DiskResult};
use super::echo::EchoServer;
use super::generator::{self, Load, Operation};
use super::loopback_probe::{self, LoopbackResult};
use super::report::Report;
use crate::exit::{Failure, Outcome};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// How many clients call the echo.
const ECHO_CLIENTS: [usize; 3] = [1, 64, 256];

/// Measures the disk, the loopback network and a gRPC server that does nothing.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where files are written; give the disk that will hold the data
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    dir: PathBuf,
    /// How long each part takes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Connections to the echo, at most [default: as `bench etcd`]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// The size of a value in bytes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What the machine gives.
#[derive(Clone, Debug, Serialize)]
struct Probe {
    /// Overwriting and syncing.
    disk: Vec<DiskResult>,
    /// Messages there and back.
    loopback: LoopbackResult,
    /// Puts to a server that answers at once, by number of clients.
    grpc_echo: BTreeMap<usize, Report>,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.iter().try_for_each(|disk| writeln!(f, "{disk}"))?;
        write!(f, "{}", self.loopback)?;
        for (clients, report) in &self.grpc_echo {
            let Report { rate, latency_us, .. } = report;
            write!(f, "\ngRPC echo × {clients:<3}    {rate:>8.0} /s   {latency_us}")?;
        }
        Ok(())
    }
}

/// Runs all parts and prints what they gave.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let duration = Duration::from_secs(arguments.seconds);
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar.set_message("overwriting and syncing");
    let disk = disk_probe::probe(&arguments.dir, duration).map_err(Failure::Failed)?;
    bar.set_message("playing ping-pong over loopback");
    let loopback = loopback_probe::probe(duration).map_err(Failure::Failed)?;
    let server = EchoServer::start()?;
    let mut grpc_echo = BTreeMap::new();
    for clients in ECHO_CLIENTS {
        bar.set_message(format!("calling a gRPC echo with {clients} clients"));
        let load = echo_load(arguments, server.address(), clients, duration);
        grpc_echo.insert(clients, generator::run(load)?);
    }
    drop(server);
    bar.finish_and_clear();
    super::print(&Probe { disk, loopback, grpc_echo }, arguments.json)
}

fn echo_load(arguments: &Arguments, address: &str, clients: usize, duration: Duration) -> Load {
    let connections =
        arguments.connections.map_or(super::etcd::CONNECTIONS, |count| count as usize);
    Load {
        endpoints: vec![address.to_owned()],
        clients,
        connections: connections.min(clients),
        duration,
        warm_up: Duration::from_secs(1),
        value_size: arguments.value_size as usize,
        key_count: 100_000,
        operation: Operation::Put,
        rate: None,
        serializable: false,
        fill: false,
        attempt_timeout: Duration::from_secs(5),
        progress: false,
    }
}
