//! One seed, from its number to its verdict.

use crate::checkers::Violation;
use crate::report::Counts;
use crate::swarm::Mix;
use crate::world::{Options, World};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which run.
    pub seed: u64,
    /// What it was made of.
    pub mix: Mix,
    /// Covers every step: equal for equal seeds and code.
    pub trace_hash: u64,
    /// What happened, in numbers.
    pub counts: Counts,
    /// The broken promise, if one was.
    pub violation: Option<Violation>,
    /// The text of the trace, as much as was asked for.
    pub lines: Vec<String>,
}

/// Runs a seed. A panic in production code is a broken promise like others.
#[must_use]
pub fn run(seed: u64, options: Options) -> Outcome {
    let mut world = World::new(seed, options);
    make_mistake(options);
    let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
    let mix = world.mix.clone();
    let counts = world.counts().clone();
    let violation = match ended {
        Ok(()) => world.violation().cloned(),
        Err(panic) => Some(Violation { promise: "panic", seen: panic_text(panic.as_ref()) }),
    };
    let trace = world.into_trace();
    let trace_hash = trace.hash();
    Outcome { seed, mix, trace_hash, counts, violation, lines: trace.into_lines() }
}

/// Production code makes the mistake of the mutant, if it has one; and none for the next run of this thread.
fn make_mistake(options: Options) {
    #[cfg(feature = "mutants")]
    quorate_types::Mistake::make(match options.mutant {
        Some(crate::mutants::Mutant::Makes(mistake)) => Some(mistake),
        Some(_) | None => None,
    });
    let impossible = options.mutant.filter(|mutant| !mutant.is_possible());
    assert_eq!(impossible, None, "this build makes no mistakes: turn on the feature `mutants`");
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no text").to_owned()
}
