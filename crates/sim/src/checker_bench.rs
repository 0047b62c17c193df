//! How fast the judges of consistency are.

use quorate_sim::checkers::{Violation, linearizable, witness};
use quorate_sim::history::History;
use quorate_sim::made_history::{Recipe, make};
use std::process::ExitCode;
use std::time::Instant;

/// What is promised, in operations a minute.
const WITNESSED_RATE_MIN: f64 = 1e6;

/// What both judge.
const RECIPE: Recipe =
    Recipe { operation_count: 1_000_000, client_count: 16, register_count: 1_000, unknown: 50_000 };

/// Judges a long history by its witness, and without it by search; slower than promised is a failure.
pub(crate) fn run() -> ExitCode {
    let history = make(1, RECIPE);
    let Recipe { operation_count, client_count, unknown, .. } = RECIPE;
    println!(
        "{operation_count} operations of {client_count} clients, {} % of unknown outcome",
        f64::from(unknown) / 1e4
    );
    let witnessed = measure("by the witness", &history, witness::check);
    let searched = measure("by search", &history, linearizable::check);
    match (witnessed, searched) {
        (Some(rate), Some(_)) if rate >= WITNESSED_RATE_MIN => ExitCode::SUCCESS,
        (Some(_) | None, Some(_) | None) => ExitCode::FAILURE,
    }
}

fn measure(
    name: &str,
    history: &History,
    check: impl Fn(&History) -> Result<(), Violation>,
) -> Option<f64> {
    let began = Instant::now();
    if let Err(violation) = check(history) {
        println!("{name}: a legal history is rejected: {violation}");
        return None;
    }
    let seconds = began.elapsed().as_secs_f64();
    let rate = history.operations.len() as f64 / seconds * 60.0;
    println!("{name}: {seconds:.2} s, {rate:.0} operations a minute");
    Some(rate)
}
