//! `quorate bench engine`: consensus and log by themselves. Three durable replicas in this process agree, over real
//! sockets and synced files, on entries that a state machine without work applies; no gRPC.

use super::allocations;
use super::cpu::{cpu_time, cpu_time_of_threads};
use super::noop_machine::NoopMachine;
use super::report::{Latency, latency_histogram, record};
use crate::exit::{Failure, Outcome};
use bytes::BytesMut;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};
use quorate_runtime::{DataFolder, NodeHandle, PeerListener, RequestError, RuntimeOptions};
use quorate_types::{EntryKind, GroupId};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// How many replicas there are.
const REPLICAS: usize = 3;

/// The group that is measured.
const GROUP: GroupId = GroupId(0);

/// How long the replicas may take to elect a leader.
const ELECTION_PATIENCE: Duration = Duration::from_secs(20);

/// The wait after a batch that was refused because too much is under way.
const BUSY_PAUSE: Duration = Duration::from_millis(1);

/// How long runs before it counts.
const WARM_UP: Duration = Duration::from_secs(1);

/// Measures consensus and log without gRPC and without a store.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where the replicas' files are; give the disk that will hold the data
    #[arg(long, default_value = ".", value_name = "FOLDER")]
    dir: PathBuf,
    /// Entries in a batch, several to be measured one after the other
    #[arg(long, value_delimiter = ',', default_value = "1,64,1024", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batches: Vec<u32>,
    /// Batches under way at one time; more than 4,096 entries are refused as too many
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pipeline: u32,
    /// The size of an entry's body in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    entry_size: u32,
    /// How long each is measured
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// What one size of batch gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct EngineResult {
    /// Entries in a batch.
    batch: u32,
    /// Entries agreed on, durable on a quorum and applied, a second.
    entries_per_second: f64,
    /// From proposing a batch to the reply of its last entry.
    latency_us: Latency,
    /// Batches proposed that were refused or not answered.
    failed_batches: u64,
    /// Processor time of the whole process for an entry, in microseconds.
    cpu_us_per_entry: Option<f64>,
    /// Allocations of the whole process for an entry; none in a build that does not count them.
    allocations_per_entry: Option<f64>,
    /// The part of one processor that each kind of thread took, all replicas together.
    busy_by_thread: BTreeMap<String, f64>,
    /// Syncs of the leader's log for each batch.
    leader_syncs_per_batch: f64,
    /// How long such a sync took, in microseconds.
    leader_sync_us: f64,
    /// The part of the time in which the leader's log was being synced.
    leader_sync_share: f64,
    /// What the run was bound by, as far as these figures tell.
    bound_by: String,
}

/// All sizes.
#[derive(Clone, Debug, Serialize)]
struct EngineReport {
    /// The size of a body in bytes.
    entry_size: u32,
    /// Batches under way at one time.
    pipeline: u32,
    /// One for each size of batch.
    results: Vec<EngineResult>,
}

impl fmt::Display for EngineReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "three durable replicas in one process, {} B entries, {} batches under way",
            self.entry_size, self.pipeline
        )?;
        for result in &self.results {
            write!(f, "\nbatch {}: {:.0} entries/s", result.batch, result.entries_per_second)?;
            write!(f, "\n  latency  {}", result.latency_us)?;
            if let Some(cpu) = result.cpu_us_per_entry {
                write!(f, "\n  cpu      {cpu:.2} µs an entry on all replicas together")?;
            }
            if let Some(allocations) = result.allocations_per_entry {
                write!(
                    f,
                    "\n  memory   {allocations:.2} allocations per entry in the whole process"
                )?;
            }
            let threads = result.busy_by_thread.iter();
            let threads: Vec<String> =
                threads.map(|(name, share)| format!("{name} {:.0} %", share * 100.0)).collect();
            write!(f, "\n  threads  {}", threads.join(", "))?;
            write!(
                f,
                "\n  syncs    {:.2} a batch on the leader, {:.0} µs each, {:.0} % of the time",
                result.leader_syncs_per_batch,
                result.leader_sync_us,
                result.leader_sync_share * 100.0
            )?;
            if result.failed_batches > 0 {
                write!(f, "\n  failed   {} batches", result.failed_batches)?;
            }
            write!(f, "\n  bound by {}", result.bound_by)?;
        }
        match allocations::count() {
            Some(_) => Ok(()),
            None => write!(
                f,
                "\nallocations are not counted: build with `--features count-allocations`, or run `cargo xtask bench engine`"
            ),
        }
    }
}

/// Measures all sizes and prints what they gave.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let folder = tempfile::Builder::new().prefix("quorate-engine-").tempdir_in(&arguments.dir);
    let folder = folder.map_err(|error| {
        Failure::Failed(format!("no folder for files in {}: {error}", arguments.dir.display()))
    })?;
    let runtime = crate::runtime()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let results = runtime.block_on(measure_all(arguments, folder.path()))?;
    let report =
        EngineReport { entry_size: arguments.entry_size, pipeline: arguments.pipeline, results };
    super::print(&report, arguments.json)
}

async fn measure_all(arguments: &Arguments, folder: &Path) -> Result<Vec<EngineResult>, Failure> {
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("{spinner} {msg}").expect("a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut results = Vec::new();
    for batch in &arguments.batches {
        bar.set_message(format!("batches of {batch}"));
        // Fresh files each time: no run inherits the segments of another.
        let replicas = start(&folder.join(format!("batch-{batch}")))?;
        let leader = leader(&replicas).await?;
        results.push(measure(&replicas, leader, *batch, arguments).await?);
        for replica in &replicas {
            replica.shutdown().await;
        }
    }
    bar.finish_and_clear();
    Ok(results)
}

/// Three replicas that know each other.
fn start(folder: &Path) -> Result<Vec<NodeHandle<()>>, Failure> {
    let failed = |error: &dyn fmt::Display| Failure::Failed(format!("a replica: {error}"));
    let listeners = (0..REPLICAS).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners: Vec<TcpListener> =
        listeners.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    let mut members = Vec::new();
    for (number, listener) in listeners.iter().enumerate() {
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        members.push((format!("n{}", number + 1), address.to_string()));
    }
    let mut replicas = Vec::new();
    for (listener, (name, _)) in listeners.into_iter().zip(&members) {
        let locked = DataFolder::lock(&folder.join(name), name).map_err(|error| failed(&error))?;
        let listener = PeerListener::Bound(listener);
        let options = RuntimeOptions::new(name.as_str(), members.clone(), locked, listener);
        let replica = quorate_runtime::start(options, NoopMachine::default());
        replicas.push(replica.map_err(|error| failed(&error))?);
    }
    Ok(replicas)
}

/// The replica that leads, once all know it.
async fn leader(replicas: &[NodeHandle<()>]) -> Result<usize, Failure> {
    let begin = Instant::now();
    while begin.elapsed() < ELECTION_PATIENCE {
        let leader = replicas[0].leader();
        let agreed = replicas.iter().all(|replica| replica.leader() == leader);
        let number = replicas.iter().position(|replica| replica.node_id() == leader);
        if let (true, true, Some(number)) = (leader.is_some(), agreed, number) {
            return Ok(number);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Failure::Failed("the replicas elected no leader".into()))
}

/// Counts of one run.
#[derive(Default)]
struct Tally {
    /// Batches that were applied whole.
    batches: u64,
    /// Batches that were not.
    failed: u64,
}

async fn measure(
    replicas: &[NodeHandle<()>],
    leader: usize,
    batch: u32,
    arguments: &Arguments,
) -> Result<EngineResult, Failure> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + Duration::from_secs(arguments.seconds);
    let entry_size = arguments.entry_size as usize;
    let mut proposers = JoinSet::new();
    for _ in 0..arguments.pipeline {
        let replica = replicas[leader].clone();
        proposers.spawn(propose(replica, entry_size, batch as usize, begin, end));
    }
    tokio::time::sleep_until(begin.into()).await;
    let process = std::process::id();
    let before = (cpu_time(process), cpu_time_of_threads(process), replicas[leader].metrics());
    let allocations_before = allocations::count();
    tokio::time::sleep_until(end.into()).await;
    let allocations_after = allocations::count();
    let after = (cpu_time(process), cpu_time_of_threads(process), replicas[leader].metrics());
    let mut all = latency_histogram();
    let mut tally = Tally::default();
    while let Some(joined) = proposers.join_next().await {
        let (latencies, own) = joined.map_err(|error| Failure::Failed(error.to_string()))?;
        all.add(latencies).expect("all histograms have the same bounds");
        tally.batches += own.batches;
        tally.failed += own.failed;
    }
    if tally.batches == 0 {
        return Err(Failure::Failed(format!("no batch of {batch} entries was applied")));
    }
    let seconds = (end - begin).as_secs_f64();
    let entries = (tally.batches * u64::from(batch)) as f64;
    let cpu = after.0.zip(before.0).map(|(after, before)| after.saturating_sub(before));
    let syncs = after.2.log_sync.count - before.2.log_sync.count;
    let sync_seconds = (after.2.log_sync.sum - before.2.log_sync.sum) as f64 / 1e9;
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let mut result = EngineResult {
        batch,
        entries_per_second: (entries / seconds).round(),
        latency_us: Latency::of(&all),
        failed_batches: tally.failed,
        cpu_us_per_entry: cpu.map(|cpu| round(cpu.as_secs_f64() * 1e6 / entries)),
        allocations_per_entry: allocations_after
            .zip(allocations_before)
            .map(|(after, before)| round((after - before) as f64 / entries)),
        busy_by_thread: busy(&before.1, &after.1, seconds),
        leader_syncs_per_batch: round(syncs as f64 / tally.batches as f64),
        leader_sync_us: round(sync_seconds * 1e6 / syncs.max(1) as f64),
        leader_sync_share: round(sync_seconds / seconds),
        bound_by: String::new(),
    };
    result.bound_by = bound_by(&result, cpu.map(|cpu| cpu.as_secs_f64() / seconds));
    Ok(result)
}

/// One proposer: the next batch when the one before is applied.
async fn propose(
    replica: NodeHandle<()>,
    entry_size: usize,
    batch: usize,
    begin: Instant,
    end: Instant,
) -> (Histogram<u64>, Tally) {
    let mut latencies = latency_histogram();
    let mut tally = Tally::default();
    loop {
        let begun = Instant::now();
        if begun >= end {
            return (latencies, tally);
        }
        // As a client's request would bring them: all bodies of a batch in one piece of memory, none shared.
        let mut piece = BytesMut::new();
        piece.resize(entry_size * batch, 0xa5);
        let mut piece = piece.freeze();
        let bodies = (0..batch).map(|_| piece.split_to(entry_size)).collect();
        let results: Vec<Result<(), RequestError>> =
            replica.propose_batch(GROUP, EntryKind::Command, bodies, None).await;
        let now = Instant::now();
        let counts = now >= begin && now < end;
        if results.iter().all(Result::is_ok) {
            if counts {
                tally.batches += 1;
                record(&mut latencies, now - begun);
            }
        } else {
            tally.failed += u64::from(counts);
            tokio::time::sleep(BUSY_PAUSE).await;
        }
    }
}

/// The part of a processor that each kind of thread took: `n1-log`, `n2-log` and `n3-log` count together as `log`.
fn busy(
    before: &BTreeMap<String, Duration>,
    after: &BTreeMap<String, Duration>,
    seconds: f64,
) -> BTreeMap<String, f64> {
    let mut busy = BTreeMap::new();
    for (name, time) in after {
        let spent = time.saturating_sub(before.get(name).copied().unwrap_or_default());
        let kind = name.split_once('-').filter(|(node, _)| node.starts_with('n'));
        let kind = kind.map_or(name.as_str(), |(_, kind)| kind);
        *busy.entry(kind.to_owned()).or_default() += spent.as_secs_f64() / seconds;
    }
    busy.retain(|_, share| *share >= 0.005);
    busy
}

/// What the figures point at: the disk when the leader's log is synced most of the time, the processors when
/// all are busy, else waiting for one another.
fn bound_by(result: &EngineResult, busy_cores: Option<f64>) -> String {
    let cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    match busy_cores {
        Some(busy) if busy > 0.9 * cores => {
            format!("the processors: {busy:.1} of {cores:.0} are busy")
        }
        Some(_) | None if result.leader_sync_share > 0.7 => "syncs of the log".into(),
        Some(busy) => format!(
            "latency: processors ({busy:.1} of {cores:.0} busy) and disk ({:.0} % syncing) wait for each other; a longer pipeline would fill them",
            result.leader_sync_share * 100.0
        ),
        None => "unknown: the system does not tell processor time".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_of_one_kind_count_together() {
        let times = |milliseconds: u64| {
            let names = ["n1-log", "n2-log", "tokio-rt-worker"];
            names.map(|name| (name.to_owned(), Duration::from_millis(milliseconds))).into()
        };
        let busy = busy(&times(100), &times(600), 1.0);
        assert_eq!(busy["log"], 1.0);
        assert_eq!(busy["tokio-rt-worker"], 0.5);
    }
}
