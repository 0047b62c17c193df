//! What happened, as a hash that two runs of a seed must share and, when asked for, as text in the shared notation.

use quorate_types::Instant;
use std::collections::VecDeque;
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// How many of the latest lines are kept for the report of a failing run.
const RECENT_COUNT_MAX: usize = 80;

/// How much text a trace makes. The hash does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// None: the hash only.
    #[default]
    Quiet,
    /// The latest lines are kept for the report of a failure.
    Recent,
    /// Every line is kept.
    Full,
}

/// The record of one run.
pub struct Trace {
    /// Covers every step: its time, its kind and its numbers.
    hasher: Xxh3,
    /// How many steps there were.
    step_count: u64,
    /// How much text is made.
    verbosity: Verbosity,
    /// The text made.
    lines: VecDeque<String>,
}

impl Trace {
    /// An empty trace.
    #[must_use]
    pub fn new(verbosity: Verbosity) -> Trace {
        Trace { hasher: Xxh3::new(), step_count: 0, verbosity, lines: VecDeque::new() }
    }

    /// Records a step: `kind` and `numbers` go into the hash, `text` is only made where somebody will read it.
    pub fn step(
        &mut self,
        now: Instant,
        kind: &'static str,
        numbers: &[u64],
        text: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result,
    ) {
        self.step_count += 1;
        self.hasher.update(&now.0.to_le_bytes());
        self.hasher.update(kind.as_bytes());
        for number in numbers {
            self.hasher.update(&number.to_le_bytes());
        }
        if self.verbosity == Verbosity::Quiet {
            return;
        }
        if self.verbosity == Verbosity::Recent && self.lines.len() >= RECENT_COUNT_MAX {
            self.lines.pop_front();
        }
        let mut line = format!("{now} {kind} ");
        text(&mut line).expect("writing into a string does not fail");
        self.lines.push_back(line);
    }

    /// The hash of all steps so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hasher.digest()
    }

    /// How many steps there were.
    #[must_use]
    pub fn step_count(&self) -> u64 {
        self.step_count
    }

    /// Takes the text out.
    #[must_use]
    pub fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(verbosity: Verbosity, last: u64) -> Trace {
        let mut trace = Trace::new(verbosity);
        for number in 0..100 {
            trace.step(Instant(number), "tick", &[number], |f| write!(f, "{number}"));
        }
        trace.step(Instant(100), "end", &[last], |f| write!(f, "{last}"));
        trace
    }

    #[test]
    fn the_hash_depends_on_what_happened_and_not_on_who_reads_it() {
        let quiet = sample(Verbosity::Quiet, 1);
        assert_eq!(quiet.hash(), sample(Verbosity::Full, 1).hash());
        assert_ne!(quiet.hash(), sample(Verbosity::Quiet, 2).hash());
        assert_eq!(quiet.step_count(), 101);
    }

    #[test]
    fn recent_lines_are_bounded_and_full_ones_are_not() {
        assert_eq!(sample(Verbosity::Quiet, 1).into_lines().len(), 0);
        let recent = sample(Verbosity::Recent, 1).into_lines();
        assert_eq!(recent.len(), RECENT_COUNT_MAX);
        assert_eq!(recent.last().map(String::as_str), Some("0.000000s end 1"));
        assert_eq!(sample(Verbosity::Full, 1).into_lines().len(), 101);
    }
}
