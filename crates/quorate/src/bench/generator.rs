//! A load generator for anything that speaks etcd's KV service: many logical clients on few connections.
//!
//! A closed loop (no rate) begins an operation when the one before has ended. An open loop begins them when they
//! are due, and counts latency from that moment whether or not a client was free: a stall shows in every operation
//! that it delayed, not in one (no coordinated omission). All runs on one thread: the machine that is measured
//! is shared with the servers.

use super::channel::Endpoint;
use super::cpu::cpu_time;
use super::links::{Link, links};
use super::recorder::{Kind, Recorder};
use super::report::Report;
use super::wire::PutRequest;
use crate::exit::Failure;
use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tonic::Status;

/// Keys in one transaction while keys are filled in; etcd allows 128.
const FILL_BATCH_COUNT: u64 = 64;

/// Transactions under way while keys are filled in: enough to share syncs, few enough for any server's queue.
const FILL_CLIENTS: usize = 32;

/// How long filling may go without a success before it is given up.
const FILL_PATIENCE: Duration = Duration::from_secs(30);

/// The wait after a failed attempt, which keeps a dead cluster from eating the processor.
const RETRY_PAUSE: Duration = Duration::from_millis(5);

/// Random bytes that values are cut from: more than a value, so that values differ.
const VALUE_VARIETY: usize = 4096;

/// What is asked of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Operation {
    /// Puts of random keys.
    Put,
    /// Gets of random keys, which are filled in first.
    Get,
    /// Puts and gets in equal parts.
    Mixed,
}

impl Operation {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Get => "get",
            Operation::Mixed => "mixed",
        }
    }
}

/// One load run.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// Whom to ask.
    pub(crate) endpoints: Vec<String>,
    /// Logical clients, each with one request under way.
    pub(crate) clients: usize,
    /// Connections that they share.
    pub(crate) connections: usize,
    /// How long to measure.
    pub(crate) duration: Duration,
    /// How long to run before that.
    pub(crate) warm_up: Duration,
    /// The size of a value in bytes.
    pub(crate) value_size: usize,
    /// How many keys there are.
    pub(crate) key_count: u64,
    /// What is asked.
    pub(crate) operation: Operation,
    /// Operations begun a second; as fast as they go without.
    pub(crate) rate: Option<f64>,
    /// Whether gets may be answered from what a member has.
    pub(crate) serializable: bool,
    /// Whether keys are filled in before gets.
    pub(crate) fill: bool,
    /// How long one attempt may take.
    pub(crate) attempt_timeout: Duration,
    /// Whether a progress bar is drawn.
    pub(crate) progress: bool,
}

/// What all clients of a run share.
struct Shared {
    /// What is run.
    load: Load,
    /// Random bytes that values are cut from.
    noise: Bytes,
    /// What happened so far.
    recorder: Mutex<Recorder>,
    /// When operations stop being begun.
    end: Instant,
    /// Starts that are due, in an open loop.
    due: Semaphore,
    /// How many starts were taken from `due`.
    taken: AtomicU64,
    /// The first intended start.
    start: Instant,
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().expect("no client panics while it counts")
    }

    /// When the next operation should begin, once that moment has come.
    async fn next_start(&self) -> Option<Instant> {
        let Some(rate) = self.load.rate else {
            let now = Instant::now();
            return (now < self.end).then_some(now);
        };
        self.due.acquire().await.ok()?.forget();
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        let intended = self.start + Duration::from_secs_f64(number as f64 / rate);
        (Instant::now() < self.end).then_some(intended)
    }
}

/// Runs a load on a runtime of its own.
///
/// # Errors
/// When no endpoint answers, or nothing succeeded.
pub(crate) fn run(load: Load) -> Result<Report, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start the generator: {error}")))?
        .block_on(drive(load))
}

async fn drive(load: Load) -> Result<Report, Failure> {
    let endpoints = load.endpoints.iter().map(|text| Endpoint::parse(text));
    let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_, _>>().map_err(Failure::Usage)?;
    reach(&load, &endpoints).await?;
    let links = links(&endpoints, load.connections, load.attempt_timeout);
    let noise = noise(load.value_size + VALUE_VARIETY);
    if load.fill && load.operation != Operation::Put {
        fill(&load, &links, &noise).await?;
    }
    let start = Instant::now();
    let begin = start + load.warm_up;
    let end = begin + load.duration;
    let shared = Arc::new(Shared {
        noise,
        recorder: Mutex::new(Recorder::new(begin, end)),
        end,
        due: Semaphore::new(0),
        taken: AtomicU64::new(0),
        start,
        load,
    });
    let pacer = shared.load.rate.map(|rate| pace(shared.clone(), rate));
    let mut clients = JoinSet::new();
    for number in 0..shared.load.clients {
        let link = links[number % links.len()].clone();
        clients.spawn(client(shared.clone(), link, number as u64));
    }
    let cpu = watch(&shared, begin, end).await;
    shared.due.close();
    let grace = shared.load.attempt_timeout + Duration::from_secs(1);
    let _ =
        tokio::time::timeout(grace, async { while clients.join_next().await.is_some() {} }).await;
    clients.shutdown().await;
    if let Some(pacer) = pacer {
        pacer.join().map_err(|_| Failure::Failed("the pacing thread failed".into()))?;
    }
    report(shared, cpu)
}

/// Connects to each endpoint once, so that a wrong address is told from a slow server.
async fn reach(load: &Load, endpoints: &[Endpoint]) -> Result<(), Failure> {
    let mut missing = Vec::new();
    for (name, endpoint) in load.endpoints.iter().zip(endpoints) {
        if let Err(error) = endpoint.connect().await {
            missing.push(format!("{name}: {error}"));
        }
    }
    if missing.len() == endpoints.len() {
        return Err(Failure::Failed(format!("no endpoint answers: {}", missing.join("; "))));
    }
    for line in missing {
        eprintln!("warning: {line}");
    }
    Ok(())
}

/// Releases starts when they are due. A thread of its own, since the timers of the runtime are as coarse as a
/// millisecond, which would be most of what a fast server is measured at.
fn pace(shared: Arc<Shared>, rate: f64) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut released = 0_u64;
        loop {
            let now = Instant::now();
            if now >= shared.end {
                return;
            }
            let due = ((now - shared.start).as_secs_f64() * rate) as u64 + 1;
            let fresh = usize::try_from(due.saturating_sub(released)).unwrap_or(usize::MAX);
            shared.due.add_permits(fresh.min(Semaphore::MAX_PERMITS / 2));
            released = released.max(due);
            let next = shared.start + Duration::from_secs_f64(released as f64 / rate);
            let pause = next.min(shared.end).saturating_duration_since(Instant::now());
            std::thread::sleep(pause.max(Duration::from_micros(100)));
        }
    })
}

/// Waits until the end, draws the progress bar, and gives the processor time of the measurement.
async fn watch(shared: &Shared, begin: Instant, end: Instant) -> Option<Duration> {
    let process = std::process::id();
    tokio::time::sleep_until(begin.into()).await;
    let cpu_before = cpu_time(process);
    let bar = match shared.load.progress {
        true => ProgressBar::new(shared.load.duration.as_millis().try_into().unwrap_or(u64::MAX)),
        false => ProgressBar::hidden(),
    };
    let style = ProgressStyle::with_template("{bar:32} {percent:>3} %  {msg}");
    bar.set_style(style.expect("the template is a constant"));
    let mut before = 0;
    while Instant::now() < end {
        let next = end.min(Instant::now() + Duration::from_millis(500));
        let since = Instant::now();
        tokio::time::sleep_until(next.into()).await;
        let operations = shared.recorder().operations();
        let rate = (operations - before) as f64 / since.elapsed().as_secs_f64();
        before = operations;
        bar.set_position((Instant::now() - begin).as_millis().try_into().unwrap_or(u64::MAX));
        bar.set_message(format!("{rate:.0} /s"));
    }
    bar.finish_and_clear();
    cpu_time(process)?.checked_sub(cpu_before?)
}

/// One logical client: begins an operation when one is due, and tries until it succeeds or the run is over.
async fn client(shared: Arc<Shared>, mut link: Link, number: u64) {
    let mut random = Random::new(number);
    while let Some(begun) = shared.next_start().await {
        let kind = match shared.load.operation {
            Operation::Put => Kind::Put,
            Operation::Get => Kind::Get,
            Operation::Mixed if random.below(2) == 0 => Kind::Put,
            Operation::Mixed => Kind::Get,
        };
        let key = key(random.below(shared.load.key_count));
        let value = cut(&shared.noise, shared.load.value_size, &mut random);
        loop {
            let result = match kind {
                Kind::Put => link.put(key.clone(), value.clone()).await,
                Kind::Get => link.get(key.clone(), shared.load.serializable).await,
            };
            let now = Instant::now();
            let Err(status) = result else {
                shared.recorder().on_success(kind, begun, now);
                break;
            };
            shared.recorder().on_error(&format!("{:?}", status.code()), status.message(), now);
            if now >= shared.end {
                shared.recorder().on_unfinished(kind, begun, now);
                return;
            }
            link.advance();
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// Puts every key once, in transactions.
async fn fill(load: &Load, links: &[Link], noise: &Bytes) -> Result<(), Failure> {
    let bar = if load.progress { ProgressBar::new(load.key_count) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:32} filling in {pos} of {len} keys");
    bar.set_style(style.expect("the template is a constant"));
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks: JoinSet<Result<(), Status>> = JoinSet::new();
    for number in 0..FILL_CLIENTS {
        let (next, bar, noise) = (next.clone(), bar.clone(), noise.clone());
        let (key_count, value_size) = (load.key_count, load.value_size);
        let mut link = links[number % links.len()].clone();
        tasks.spawn(async move {
            let mut random = Random::new(number as u64 + 1_000_000);
            loop {
                let first = next.fetch_add(FILL_BATCH_COUNT, Ordering::Relaxed);
                if first >= key_count {
                    return Ok(());
                }
                let last = key_count.min(first + FILL_BATCH_COUNT);
                let one =
                    |at| PutRequest { key: key(at), value: cut(&noise, value_size, &mut random) };
                let puts: Vec<PutRequest> = (first..last).map(one).collect();
                fill_some(&mut link, puts).await?;
                bar.inc(last - first);
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        let result =
            result.map_err(|error| Failure::Failed(format!("filling keys in: {error}")))?;
        result.map_err(|status| Failure::Failed(format!("cannot fill the keys in: {status}")))?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// One transaction of the fill, tried until it succeeds or patience ends.
async fn fill_some(link: &mut Link, puts: Vec<PutRequest>) -> Result<(), Status> {
    let begin = Instant::now();
    loop {
        match link.put_all(puts.clone()).await {
            Ok(()) => return Ok(()),
            Err(status) if begin.elapsed() > FILL_PATIENCE => return Err(status),
            Err(_) => {
                link.advance();
                tokio::time::sleep(RETRY_PAUSE * 20).await;
            }
        }
    }
}

fn report(shared: Arc<Shared>, cpu: Option<Duration>) -> Result<Report, Failure> {
    let taken = shared.taken.load(Ordering::Relaxed);
    let shared = Arc::into_inner(shared).expect("every client and the pacer have ended");
    let recorder = shared.recorder.into_inner().expect("no client panics while it counts");
    let counts = recorder.finish();
    let load = shared.load;
    let seconds = load.duration.as_secs_f64();
    let intended = |rate: f64| ((seconds + load.warm_up.as_secs_f64()) * rate) as u64;
    if counts.operations == 0 {
        let errors = counts.errors.iter().map(|(code, error)| format!("{code}: {}", error.first));
        let errors: Vec<String> = errors.collect();
        let text = if errors.is_empty() { "no answer came".into() } else { errors.join("; ") };
        return Err(Failure::Failed(format!("no operation succeeded: {text}")));
    }
    let each = |cpu: Duration| cpu.as_secs_f64() * 1e6 / counts.operations as f64;
    let round = |value: f64| (value * 100.0).round() / 100.0;
    Ok(Report {
        operation: load.operation.name().into(),
        serializable: load.serializable,
        endpoints: load.endpoints,
        clients: load.clients,
        connections: load.connections,
        seconds,
        value_size: load.value_size,
        keys: load.key_count,
        target_rate: load.rate,
        operations: counts.operations,
        rate: round(counts.operations as f64 / seconds),
        latency_us: counts.latency,
        put_latency_us: counts.put_latency,
        get_latency_us: counts.get_latency,
        errors: counts.errors.values().map(|error| error.count).sum(),
        errors_by_code: counts.errors,
        unfinished: counts.unfinished,
        not_started: load.rate.map_or(0, |rate| intended(rate).saturating_sub(taken)),
        longest_gap_ms: round(counts.longest_gap.as_secs_f64() * 1e3),
        longest_gap_at_s: round(counts.longest_gap_at.as_secs_f64()),
        per_second: counts.per_second,
        generator_cpu_s: cpu.map(|cpu| round(cpu.as_secs_f64())),
        generator_cpu_us_per_operation: cpu.map(|cpu| round(each(cpu))),
    })
}

/// The key of a number.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("bench/{number:010}"))
}

/// A value: some slice of the noise, shared instead of copied.
fn cut(noise: &Bytes, size: usize, random: &mut Random) -> Bytes {
    let at = usize::try_from(random.below(VALUE_VARIETY as u64)).expect("the variety is small");
    noise.slice(at..at + size)
}

/// Bytes that no compression makes smaller.
fn noise(size: usize) -> Bytes {
    let mut random = Random::new(42);
    let words = (0..size.div_ceil(8)).flat_map(|_| random.next().to_le_bytes());
    let mut bytes: Vec<u8> = words.collect();
    bytes.truncate(size);
    Bytes::from(bytes)
}

/// SplitMix64 (Steele, Lea and Flood 2014): small, seeded and good enough to pick keys.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0xa076_1d64_78bd_642f) ^ 0xe703_7ed1_a0b4_28db)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`; the bias of the remainder does not matter for keys.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        let noise = noise(256 + VALUE_VARIETY);
        let mut random = Random::new(1);
        let values: std::collections::BTreeSet<Bytes> =
            (0..100).map(|_| cut(&noise, 256, &mut random)).collect();
        assert!(values.iter().all(|value| value.len() == 256));
        assert!(values.len() > 90, "only {} of 100 values differ", values.len());
    }

    #[test]
    fn keys_are_spread_over_their_range() {
        let mut random = Random::new(7);
        let mut counts = [0_u32; 10];
        (0..10_000).for_each(|_| {
            counts[usize::try_from(random.below(10)).expect("below ten")] += 1;
        });
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(key(7), "bench/0000000007");
    }
}
