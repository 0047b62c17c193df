//! `cargo xtask sim`: runs seeds of the simulated world and says what broke.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_types,
    reason = "a command line tool speaks to its user and measures its own speed"
)]

mod checker_bench;
mod hunt;
mod spent;

use clap::Parser;
use quorate_sim::mutants::Mutant;
use quorate_sim::report::Summary;
use quorate_sim::trace::Verbosity;
use quorate_sim::{Options, Outcome, run};
use std::cell::Cell;
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A sixth of a run is asking for memory and giving it back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One seed in so many is run twice, and both runs must leave the same trace.
const REPEATED_EVERY: u64 = 20;

/// How often a long run says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Runs the production node, log and store in a simulated world that tries to break them.
#[derive(Parser)]
#[command(name = "quorate-sim", bin_name = "cargo xtask sim")]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed only.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// Print the trace of the seed.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Break this on purpose and run seeds until one notices; `all` tries every mutant in turn, `quick` those that die
    /// within seconds, `list` names them and their rules.
    #[arg(long, value_parser = parse_mutant)]
    mutant: Option<Broken>,
    /// How long clients work under faults in each seed, in virtual seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many seeds run at once; by default as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
    /// Leave out what was added to the world later: changes of members and of settings, lost hard states, short reigns. Seeds mean what they meant before.
    #[arg(long)]
    plain: bool,
    /// Measure how fast a long history is judged, and run nothing.
    #[arg(long, conflicts_with_all = ["seed", "mutant"])]
    checker_bench: bool,
    /// Go on after a seed failed.
    #[arg(long)]
    keep_going: bool,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug)]
enum Broken {
    /// One thing.
    One(Mutant),
    /// Each in turn.
    Each,
    /// Each of those that die within seconds.
    Quick,
    /// Nothing: the names are shown.
    List,
}

impl Arguments {
    /// How many seeds run at once.
    fn thread_count(&self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or_else(processors).max(1)
    }
}

impl Broken {
    fn one(self) -> Option<Mutant> {
        match self {
            Broken::One(mutant) => Some(mutant),
            Broken::Each | Broken::Quick | Broken::List => None,
        }
    }
}

fn parse_mutant(name: &str) -> Result<Broken, String> {
    match name {
        "all" => Ok(Broken::Each),
        "quick" => Ok(Broken::Quick),
        "list" => Ok(Broken::List),
        name => Mutant::from_name(name)
            .map(Broken::One)
            .ok_or_else(|| "no such mutant; `--mutant list` names them".to_owned()),
    }
}

thread_local! {
    /// The seed that this thread runs, for the last words of a panic.
    static SEED: Cell<u64> = const { Cell::new(0) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mutant = arguments.mutant.and_then(Broken::one);
    std::panic::set_hook(Box::new(move |panic| {
        // Where a panic unwinds, the run reports it; where it aborts, these are the last words.
        if cfg!(panic = "abort") {
            let seed = SEED.get();
            eprintln!("seed {seed} failed: {panic}\n{}", replay_line(seed, mutant));
        }
    }));
    if arguments.checker_bench {
        return checker_bench::run();
    }
    match (arguments.seed, arguments.mutant) {
        (Some(seed), _) => run_one(seed, &arguments),
        (None, Some(Broken::One(mutant))) => {
            hunt::one(mutant, &arguments, options(&arguments, Verbosity::Quiet))
        }
        (None, Some(Broken::Each)) => hunt_all(&arguments, |_| true),
        (None, Some(Broken::Quick)) => hunt_all(&arguments, Mutant::is_quick),
        (None, Some(Broken::List)) => hunt::list(),
        (None, None) => run_many(&arguments),
    }
}

fn options(arguments: &Arguments, verbosity: Verbosity) -> Options {
    let work = Duration::from_secs(arguments.seconds);
    Options {
        work,
        verbosity,
        plain: arguments.plain,
        mutant: arguments.mutant.and_then(Broken::one),
    }
}

fn run_seed(seed: u64, options: Options) -> Outcome {
    SEED.set(seed);
    run(seed, options)
}

fn run_one(seed: u64, arguments: &Arguments) -> ExitCode {
    let verbosity = if arguments.trace { Verbosity::Full } else { Verbosity::Recent };
    let outcome = run_seed(seed, options(arguments, verbosity));
    if arguments.trace {
        outcome.lines.iter().for_each(|line| println!("{line}"));
    }
    println!("seed {seed}: {}", outcome.mix);
    println!("trace {:016x}, {} steps", outcome.trace_hash, outcome.counts.step_count);
    let failed = outcome.violation.is_some();
    if failed && !arguments.trace {
        outcome.lines.iter().for_each(|line| println!("{line}"));
    }
    if let Some(violation) = &outcome.violation {
        println!("seed {seed} failed: {violation}");
    }
    let mut summary = Summary::default();
    summary.add(outcome.counts);
    print!("{summary}");
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What the threads of a run share.
struct Progress {
    /// The next seed.
    next: AtomicU64,
    /// Whether a seed failed, so that no other is begun.
    stop: AtomicBool,
    /// What came of the seeds so far.
    results: Mutex<Results>,
}

/// What came of the seeds so far.
#[derive(Default)]
struct Results {
    /// Their numbers.
    summary: Summary,
    /// Those that failed.
    failed: Vec<Outcome>,
    /// The virtual time of second runs, which the numbers of the summary leave out.
    repeated_nanos: u64,
    /// Seeds whose second run left another trace.
    unstable: Vec<u64>,
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let began = Instant::now();
    let progress = Progress {
        next: AtomicU64::new(arguments.first),
        stop: AtomicBool::new(false),
        results: Mutex::new(Results::default()),
    };
    std::thread::scope(|scope| {
        for _ in 0..arguments.thread_count() {
            scope.spawn(|| work(arguments, &progress, began));
        }
    });
    let results = progress.results.into_inner().expect("no thread panicked");
    report(&results, began.elapsed())
}

fn work(arguments: &Arguments, progress: &Progress, began: Instant) {
    let end = arguments.first + arguments.seeds;
    let options = options(arguments, Verbosity::Quiet);
    let mut spoke = Instant::now();
    loop {
        let seed = progress.next.fetch_add(1, Ordering::Relaxed);
        if seed >= end || progress.stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = run_seed(seed, options);
        let repeated = seed.is_multiple_of(REPEATED_EVERY).then(|| run_seed(seed, options));
        let mut results = progress.results.lock().expect("no thread panics with it");
        results.repeated_nanos += repeated.as_ref().map_or(0, |again| again.counts.virtual_nanos);
        if repeated.is_some_and(|again| again.trace_hash != outcome.trace_hash) {
            results.unstable.push(seed);
        }
        results.summary.add(outcome.counts.clone());
        if let Some(violation) = &outcome.violation {
            eprintln!("seed {seed} failed: {violation}");
            progress.stop.fetch_or(!arguments.keep_going, Ordering::Relaxed);
            results.failed.push(outcome);
        }
        let done = results.summary.run_count();
        drop(results);
        if spoke.elapsed() >= PROGRESS_INTERVAL {
            spoke = Instant::now();
            let seconds = began.elapsed().as_secs();
            eprintln!("{done} of {} seeds in {seconds} s", arguments.seeds);
        }
    }
}

fn report(results: &Results, elapsed: Duration) -> ExitCode {
    print!("{}", results.summary);
    let (seed_count, elapsed) = (results.summary.run_count(), elapsed.as_secs_f64());
    let virtual_nanos = results.summary.virtual_nanos() + results.repeated_nanos;
    let virtual_seconds = virtual_nanos as f64 / 1e9;
    let speed = virtual_seconds / elapsed.max(1e-3);
    println!("{seed_count} seeds in {elapsed:.1} s, {speed:.0} × real time");
    if let Some(spent) = spent::by_process() {
        let (each, speed) = (spent / seed_count.max(1) as f64, virtual_seconds / spent.max(1e-3));
        println!(
            "{spent:.1} s of processor time, {each:.3} s a seed, {speed:.0} × real time on one"
        );
    }
    for seed in &results.unstable {
        println!("seed {seed} left two different traces: something in it is not deterministic");
    }
    for outcome in &results.failed {
        let violation = outcome.violation.as_ref().expect("it failed");
        println!("seed {} failed: {violation}\n  mix: {}", outcome.seed, outcome.mix);
        println!("  {}", replay_line(outcome.seed, None));
    }
    if seed_count == 0 {
        println!("no seed was run: that proves nothing");
    }
    let missed = results.summary.missed_marks();
    for mark in &missed {
        println!("no seed has hit the mark \"{mark}\": something rare is not tested any more");
    }
    let is_whole = missed.is_empty() && results.unstable.is_empty();
    if seed_count == 0 || !results.failed.is_empty() || !is_whole {
        return ExitCode::FAILURE;
    }
    println!("no promise was broken");
    ExitCode::SUCCESS
}

/// Hunts every mutant of some that this build can make.
fn hunt_all(arguments: &Arguments, is_meant: impl Fn(Mutant) -> bool) -> ExitCode {
    let mut mutants = Mutant::all();
    mutants.retain(|mutant| mutant.is_possible() && is_meant(*mutant));
    hunt::many(&mutants, arguments, options(arguments, Verbosity::Quiet))
}

fn replay_line(seed: u64, mutant: Option<Mutant>) -> String {
    let commit = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok();
    let commit = commit.and_then(|output| String::from_utf8(output.stdout).ok());
    let commit = commit.as_deref().map_or("unknown", str::trim);
    let mutant = mutant.map_or(String::new(), |mutant| format!(" --mutant {mutant}"));
    format!("commit {commit}, replay: cargo xtask sim --seed {seed}{mutant} --trace")
}
