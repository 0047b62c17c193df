//! Hunting mutants: seeds are run until one notices what is broken on purpose.

use crate::{Arguments, replay_line, run_seed, spent};
use quorate_sim::Options;
use quorate_sim::checkers::Violation;
use quorate_sim::mutants::Mutant;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// How one hunt ended.
struct Hunt {
    /// What was hunted.
    mutant: Mutant,
    /// The seed that killed it, and what it saw.
    killed: Option<(u64, Violation)>,
    /// The processor time that it took, in seconds, where the system tells.
    spent: Option<f64>,
}

/// Runs seeds until one kills the mutant. A seed that fails without the mutant as well kills nothing.
fn hunt(mutant: Mutant, arguments: &Arguments, options: Options) -> Hunt {
    let began = spent::by_thread();
    let broken = Options { mutant: Some(mutant), ..options };
    let unbroken = Options { mutant: None, ..options };
    let mut seeds = arguments.first..arguments.first + arguments.seeds;
    let killed = seeds.find_map(|seed| {
        let violation = run_seed(seed, broken).violation?;
        run_seed(seed, unbroken).violation.is_none().then_some((seed, violation))
    });
    let spent = spent::by_thread().zip(began).map(|(ended, began)| ended - began);
    Hunt { mutant, killed, spent }
}

/// Hunts one mutant; its survival is a failure.
pub(crate) fn one(mutant: Mutant, arguments: &Arguments, options: Options) -> ExitCode {
    if !mutant.is_possible() {
        println!(
            "{mutant} needs a build with the feature `mutants`, which `cargo xtask sim` makes"
        );
        return ExitCode::FAILURE;
    }
    let hunt = hunt(mutant, arguments, options);
    let Some((seed, violation)) = hunt.killed else {
        println!("{mutant} survives {} seeds", arguments.seeds);
        return ExitCode::FAILURE;
    };
    let spent = hunt.spent.map_or(String::new(), |spent| format!(" in {spent:.1} s"));
    println!("{mutant} is killed by seed {seed}{spent}: {violation}");
    println!("{}", replay_line(seed, Some(mutant)));
    ExitCode::SUCCESS
}

/// Hunts some mutants, a few at once; one that survives is a failure, and so is hunting none.
pub(crate) fn many(mutants: &[Mutant], arguments: &Arguments, options: Options) -> ExitCode {
    let next = AtomicUsize::new(0);
    let ended = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..arguments.thread_count() {
            scope.spawn(|| {
                while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let hunt = hunt(*mutant, arguments, options);
                    println!("{}", row(&hunt, arguments.seeds));
                    ended.lock().expect("no thread panics with it").push(hunt);
                }
            });
        }
    });
    let ended = ended.into_inner().expect("no thread panicked");
    let killed_count = ended.iter().filter(|hunt| hunt.killed.is_some()).count();
    let spent: f64 = ended.iter().filter_map(|hunt| hunt.spent).sum();
    let (count, seeds) = (mutants.len(), arguments.seeds);
    println!("{killed_count} of {count} mutants are dead, each hunted by {seeds} seeds at most");
    println!("{spent:.1} s of processor time");
    let is_proof = count > 0 && killed_count == count;
    if is_proof { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(hunt: &Hunt, seeds: u64) -> String {
    let spent = hunt.spent.unwrap_or_default();
    let name = hunt.mutant.name();
    match &hunt.killed {
        Some((seed, violation)) => {
            let seen = violation.seen.lines().next().unwrap_or_default();
            let seen: String = seen.chars().take(100).collect();
            format!("{name:23} seed {seed:<5} {spent:6.1} s  {:12} {seen}", violation.promise)
        }
        None => format!("{name:23} survives {seeds} seeds, {spent:.1} s"),
    }
}

/// Shows every mutant and the rule that it breaks.
pub(crate) fn list() -> ExitCode {
    for mutant in Mutant::all() {
        let kind = if matches!(mutant, Mutant::Makes(_)) { "mistake" } else { "lie" };
        println!("{:23} {kind:8} {}", mutant.name(), mutant.rule());
    }
    ExitCode::SUCCESS
}
