//! One run of one system under one workload, and what it cost.

use super::Workload;
use super::systems::{Cluster, System, http_get, metric, start};
use crate::command::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// What one run showed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// Operations that succeeded, per second.
    pub(crate) rate: f64,
    /// Latency percentiles in milliseconds.
    pub(crate) p50_ms: f64,
    /// The 99th.
    pub(crate) p99_ms: f64,
    /// The 99.9th.
    pub(crate) p999_ms: f64,
    /// Operations that failed.
    pub(crate) errors: f64,
    /// CPU time of the three servers per operation, in microseconds.
    pub(crate) cpu_us_per_op: f64,
    /// Syncs of the log per operation and node.
    pub(crate) syncs_per_op: f64,
    /// Leader changes seen during the run, over all nodes.
    pub(crate) leader_changes: f64,
    /// The longest time without a success, in milliseconds.
    pub(crate) longest_gap_ms: f64,
}

/// What the machine can do at best, as the binary's own probe says.
pub(crate) fn probe(generator: &Path) -> Result<Value> {
    println!("==> probe");
    let output = Command::new(generator)
        .args(["bench", "probe", "--json"])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    parse(&output.stdout, "bench probe")
}

/// Shows what consensus and log give by themselves, with files in `folder`.
pub(crate) fn engine(binary: &Path, folder: &Path) -> Result<()> {
    let status = Command::new(binary)
        .args(["bench", "engine", "--dir"])
        .arg(folder)
        .status()
        .map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("bench engine: {status}")) }
}

/// The same, as figures.
pub(crate) fn engine_results(binary: &Path, folder: &Path) -> Result<Value> {
    println!("==> engine");
    let output = Command::new(binary)
        .args(["bench", "engine", "--json", "--dir"])
        .arg(folder)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    parse(&output.stdout, "bench engine")
}

fn parse(bytes: &[u8], what: &str) -> Result<Value> {
    serde_json::from_slice(bytes)
        .map_err(|error| format!("{what}: {error}: {}", String::from_utf8_lossy(bytes)))
}

fn number(value: &Value, path: &str) -> Result<f64> {
    value
        .pointer(path)
        .and_then(Value::as_f64)
        .ok_or_else(|| format!("the generator's report lacks {path}"))
}

/// Runs the generator against these endpoints.
fn generate(generator: &Path, endpoints: &str, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(generator)
        .args([
            "bench",
            "etcd",
            "--json",
            "--endpoints",
            endpoints,
            "--value-size",
            "256",
            "--keys",
            "100000",
        ])
        .args(arguments)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    parse(&output.stdout, "bench etcd")
}

fn endpoints(cluster: &Cluster) -> String {
    cluster.clients.iter().map(|client| format!("http://{client}")).collect::<Vec<_>>().join(",")
}

/// One run with fresh data.
pub(crate) fn workload(
    generator: &Path,
    system: &System,
    workload: &Workload,
    seconds: u64,
    scratch: &Path,
) -> Result<Sample> {
    let cluster = start(system, &scratch.join("data"))?;
    let endpoints = endpoints(&cluster);
    let clients = workload.clients.to_string();
    // As many connections as the probe's echo has with as many clients: the generator's default.
    let shape = ["--clients", &clients];
    // Keys to read are written, and every path is warm, before anything is counted: what the servers spend is then all
    // for the operations that are.
    let warm_up = ["--op", workload.op, "--seconds", "3"];
    generate(generator, &endpoints, &[&warm_up[..], &shape].concat())?;
    let before = Counters::read_when_still(system, &cluster)?;
    let seconds = seconds.to_string();
    let measure = ["--op", workload.op, "--seconds", &seconds, "--warm-up", "0", "--no-fill"];
    let report = generate(generator, &endpoints, &[&measure[..], &shape].concat())?;
    let after = Counters::read(system, &cluster)?;
    let operations = number(&report, "/operations")?;
    Ok(Sample {
        rate: number(&report, "/rate")?,
        p50_ms: number(&report, "/latency_us/p50")? / 1e3,
        p99_ms: number(&report, "/latency_us/p99")? / 1e3,
        p999_ms: number(&report, "/latency_us/p99_9")? / 1e3,
        errors: number(&report, "/errors")?,
        longest_gap_ms: number(&report, "/longest_gap_ms")?,
        cpu_us_per_op: (after.cpu_seconds - before.cpu_seconds) * 1e6 / operations,
        syncs_per_op: (after.syncs - before.syncs) / operations / cluster.clients.len() as f64,
        leader_changes: after.leader_changes - before.leader_changes,
    })
}

/// What the servers have used since they were started, over all three.
struct Counters {
    cpu_seconds: f64,
    syncs: f64,
    leader_changes: f64,
}

/// How long the counters of a system may take to become still after its members are healthy.
const STILL_PATIENCE: Duration = Duration::from_secs(30);

/// How long they must be.
const STILL_TIME: Duration = Duration::from_secs(1);

impl Counters {
    /// Reads them once every member is healthy and sees no leader change any more: a member that joins late counts its
    /// first leader late.
    fn read_when_still(system: &System, cluster: &Cluster) -> Result<Counters> {
        let deadline = Instant::now() + STILL_PATIENCE;
        let mut before = None;
        loop {
            let healthy =
                |client| http_get(client, "/health").is_ok_and(|body| body.contains("\"true\""));
            let all_healthy = cluster.clients.iter().all(|client| healthy(*client));
            let counters = Counters::read(system, cluster)?;
            if all_healthy && before == Some(counters.leader_changes) {
                return Ok(counters);
            }
            if Instant::now() > deadline {
                return Err(format!("{} does not come to rest", system.label()));
            }
            before = all_healthy.then_some(counters.leader_changes);
            std::thread::sleep(STILL_TIME);
        }
    }

    fn read(system: &System, cluster: &Cluster) -> Result<Counters> {
        let mut counters = Counters { cpu_seconds: 0.0, syncs: 0.0, leader_changes: 0.0 };
        for (process, client) in cluster.processes.iter().zip(&cluster.clients) {
            counters.cpu_seconds += cpu_seconds(process.id())?;
            counters.syncs += metric(*client, system.sync_count_metric())?;
            counters.leader_changes += metric(*client, "etcd_server_leader_changes_seen_total")?;
        }
        Ok(counters)
    }
}

/// User and system time of a process, in seconds; the kernel counts in hundredths.
fn cpu_seconds(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))
        .map_err(|error| error.to_string())?;
    let rest = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<f64> =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    Ok(fields.iter().sum::<f64>() / 100.0)
}

/// Resident memory of a process, in MiB.
fn resident_mib(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status"))
        .map_err(|error| error.to_string())?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: f64 =
        line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("VmRSS {line:?}"))?;
    Ok(kib / 1024.0)
}

/// The sum of the three resident sizes after the same 200,000 puts, in MiB.
pub(crate) fn memory(generator: &Path, system: &System, scratch: &Path) -> Result<f64> {
    let cluster = start(system, &scratch.join("data"))?;
    let shape = ["--clients", "64", "--connections", "16", "--rate", "4000", "--seconds", "50"];
    let report =
        generate(generator, &endpoints(&cluster), &[&["--op", "put"][..], &shape].concat())?;
    let mut sum = 0.0;
    for process in &cluster.processes {
        sum += resident_mib(process.id())?;
    }
    println!(
        "memory: {}: {sum:.0} MiB after {:.0} puts",
        system.label(),
        number(&report, "/operations")?
    );
    Ok(sum)
}

/// The longest gap of writers on the survivors after `kill -9` of the leader, in milliseconds.
pub(crate) fn gap(generator: &Path, system: &System, scratch: &Path) -> Result<f64> {
    let mut cluster = start(system, &scratch.join("data"))?;
    let mut leader = None;
    for (node, client) in cluster.clients.iter().enumerate() {
        if metric(*client, "etcd_server_is_leader")? >= 1.0 {
            leader = Some(node);
        }
    }
    let leader = leader.ok_or("no node says that it leads")?;
    let survivors: Vec<_> = (0..cluster.clients.len()).filter(|node| *node != leader).collect();
    let list = survivors
        .iter()
        .map(|node| format!("http://{}", cluster.clients[*node]))
        .collect::<Vec<_>>()
        .join(",");
    let process = &mut cluster.processes[leader];
    let arguments = ["--op", "put", "--clients", "16", "--connections", "4", "--seconds", "8"];
    let report = std::thread::scope(|scope| {
        let writers = scope.spawn(|| generate(generator, &list, &arguments));
        std::thread::sleep(Duration::from_secs(3));
        let killed = process.kill().map_err(|error| error.to_string());
        let report = writers.join().map_err(|_| "the generator's thread panicked".to_owned())?;
        killed.and(report)
    })?;
    let healthy = http_get(cluster.clients[survivors[0]], "/health")?;
    if !healthy.contains("\"true\"") {
        return Err(format!(
            "{} is not healthy five seconds after its leader was killed",
            system.label()
        ));
    }
    number(&report, "/longest_gap_ms")
}
