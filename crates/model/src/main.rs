//! `cargo xtask model`: looks at every history of small configurations, and says what broke.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "a command line tool speaks to its user and measures its own speed"
)]

use clap::{Parser, ValueEnum};
use quorate_model::search::{Configuration, Size, Verdict, configurations, search, trap};
use quorate_types::Mistake;
use std::process::ExitCode;
use std::time::Instant;

/// Looks at every history of small configurations of the production consensus code.
#[derive(Parser)]
#[command(name = "quorate-model", bin_name = "cargo xtask model")]
struct Arguments {
    /// How much happens in a history.
    #[arg(long, value_enum, default_value_t = Bound::Normal, env = "QUORATE_MODEL_SIZE")]
    size: Bound,
    /// Search this configuration only.
    #[arg(long)]
    only: Option<String>,
    /// Production code makes this mistake, and the search must find it; `all` tries each that the model can show.
    #[arg(long)]
    mutant: Option<String>,
    /// How many threads search; by default as many as there are processors.
    #[arg(long)]
    threads: Option<usize>,
}

/// How much happens in a history.
#[derive(Clone, Copy, ValueEnum)]
enum Bound {
    /// Some seconds for all configurations.
    Small,
    /// About a minute for all.
    Normal,
    /// As far as patience and memory go.
    Large,
}

impl Bound {
    fn size(self) -> Size {
        match self {
            Bound::Small => Size::Small,
            Bound::Normal => Size::Normal,
            Bound::Large => Size::Large,
        }
    }
}

fn main() -> ExitCode {
    // A broken invariant of production code is a finding like others, told by the verdict.
    std::panic::set_hook(Box::new(|_| {}));
    let arguments = Arguments::parse();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or_else(processors).max(1);
    let passed = match &arguments.mutant {
        Some(name) => hunt(name, threads),
        None => search_all(&arguments, threads),
    };
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Searches every configuration; none is a failure.
fn search_all(arguments: &Arguments, threads: usize) -> bool {
    let mut chosen = configurations(arguments.size.size());
    chosen.retain(|one| arguments.only.as_ref().is_none_or(|only| one.name == only));
    let mut passed = !chosen.is_empty();
    for Configuration { name, about, bounds } in chosen {
        let began = Instant::now();
        let verdict = search(bounds, threads, None);
        println!("{name}: {about}\n  {}", shown(&verdict, began));
        passed &= verdict.broken.is_none() && verdict.missed.is_empty();
    }
    println!("{}", if passed { "no promise was broken" } else { "that is no proof" });
    passed
}

/// Searches for mistakes; one that is not found is a failure.
fn hunt(name: &str, threads: usize) -> bool {
    let is_meant = |mistake: &&Mistake| name == "all" || mistake.name() == name;
    let traps = Mistake::ALL.iter().filter(is_meant).filter_map(|one| Some((*one, trap(*one)?)));
    let traps: Vec<_> = traps.collect();
    if traps.is_empty() {
        println!("no such mistake, or none that shows in this model: {name}");
    }
    let mut passed = !traps.is_empty();
    for (mistake, bounds) in traps {
        let began = Instant::now();
        let verdict = search(bounds, threads, Some(mistake));
        println!("{mistake}: {}\n  {}", mistake.rule(), shown(&verdict, began));
        passed &= verdict.broken.is_some();
    }
    passed
}

fn shown(verdict: &Verdict, began: Instant) -> String {
    let Verdict { state_count, depth, broken, missed } = verdict;
    let seconds = began.elapsed().as_secs_f64();
    let mut text =
        format!("{state_count} states, histories of up to {depth} steps, {seconds:.1} s");
    if let Some((promise, history)) = broken {
        text.push_str(&format!("\n  broken: {promise}, by {} steps: {history:?}", history.len()));
    }
    for missed in missed.iter().filter(|_| broken.is_none()) {
        text.push_str(&format!("\n  never seen: {missed}"));
    }
    text
}
