//! What a load run counts while it goes on.

use super::report::{ErrorCount, Latency, latency_histogram, record};
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What one operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It wrote a key.
    Put,
    /// It read a key.
    Get,
}

/// Counts of one run. Nothing before `begin` counts, so that a warm-up does not show.
pub(crate) struct Recorder {
    /// When the measurement begins.
    begin: Instant,
    /// When it ends.
    end: Instant,
    /// Latencies of puts.
    puts: Histogram<u64>,
    /// Latencies of gets.
    gets: Histogram<u64>,
    /// Successes within the time.
    operations: u64,
    /// Successes in each whole second of the time.
    per_second: Vec<u64>,
    /// Failed attempts by code.
    errors: BTreeMap<String, ErrorCount>,
    /// Operations begun and never answered.
    unfinished: u64,
    /// The last success, or the beginning.
    last_success: Instant,
    /// The longest time without a success, and when it began.
    longest_gap: (Duration, Instant),
}

impl Recorder {
    /// Counts from `begin` to `end`.
    pub(crate) fn new(begin: Instant, end: Instant) -> Recorder {
        let seconds = usize::try_from((end - begin).as_secs()).unwrap_or(usize::MAX);
        Recorder {
            begin,
            end,
            puts: latency_histogram(),
            gets: latency_histogram(),
            operations: 0,
            per_second: vec![0; seconds],
            errors: BTreeMap::new(),
            unfinished: 0,
            last_success: begin,
            longest_gap: (Duration::ZERO, begin),
        }
    }

    /// An operation that should have begun at `begun` succeeded at `now`.
    pub(crate) fn on_success(&mut self, kind: Kind, begun: Instant, now: Instant) {
        if begun >= self.begin && begun < self.end {
            record(self.histogram(kind), now.saturating_duration_since(begun));
        }
        if now < self.begin || now >= self.end {
            return;
        }
        self.operations += 1;
        let second = (now - self.begin).as_secs();
        if let Some(count) = usize::try_from(second).ok().and_then(|at| self.per_second.get_mut(at))
        {
            *count += 1;
        }
        self.close_gap(now);
    }

    /// An attempt failed.
    pub(crate) fn on_error(&mut self, code: &str, text: &str, now: Instant) {
        if now < self.begin || now >= self.end {
            return;
        }
        let error = self.errors.entry(code.to_owned()).or_default();
        if error.count == 0 {
            text.clone_into(&mut error.first);
        }
        error.count += 1;
    }

    /// An operation was given up. Its latency so far counts: it is a lower bound, and leaving it out would flatter.
    pub(crate) fn on_unfinished(&mut self, kind: Kind, begun: Instant, now: Instant) {
        if begun >= self.begin && begun < self.end {
            self.unfinished += 1;
            record(self.histogram(kind), now.saturating_duration_since(begun));
        }
    }

    /// Successes so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Takes the results at the end.
    pub(crate) fn finish(mut self) -> Counts {
        self.close_gap(self.end);
        let mut all = self.puts.clone();
        all.add(&self.gets).expect("both histograms have the same bounds");
        let mixed = !self.puts.is_empty() && !self.gets.is_empty();
        Counts {
            operations: self.operations,
            latency: Latency::of(&all),
            put_latency: mixed.then(|| Latency::of(&self.puts)),
            get_latency: mixed.then(|| Latency::of(&self.gets)),
            errors: self.errors,
            unfinished: self.unfinished,
            longest_gap: self.longest_gap.0,
            longest_gap_at: self.longest_gap.1.saturating_duration_since(self.begin),
            per_second: self.per_second,
        }
    }

    fn histogram(&mut self, kind: Kind) -> &mut Histogram<u64> {
        match kind {
            Kind::Put => &mut self.puts,
            Kind::Get => &mut self.gets,
        }
    }

    fn close_gap(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_success);
        if gap > self.longest_gap.0 {
            self.longest_gap = (gap, self.last_success);
        }
        self.last_success = now;
    }
}

/// The results of a [`Recorder`].
pub(crate) struct Counts {
    /// Successes within the time.
    pub(crate) operations: u64,
    /// Latencies of all operations.
    pub(crate) latency: Latency,
    /// Of puts alone, when there were gets too.
    pub(crate) put_latency: Option<Latency>,
    /// Of gets alone, when there were puts too.
    pub(crate) get_latency: Option<Latency>,
    /// Failed attempts by code.
    pub(crate) errors: BTreeMap<String, ErrorCount>,
    /// Operations never answered.
    pub(crate) unfinished: u64,
    /// The longest time without a success.
    pub(crate) longest_gap: Duration,
    /// Where it began, from the beginning.
    pub(crate) longest_gap_at: Duration,
    /// Successes in each whole second.
    pub(crate) per_second: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn only_what_happens_within_the_time_counts() {
        let begin = Instant::now();
        let mut recorder = Recorder::new(begin + ms(1000), begin + ms(3000));
        recorder.on_success(Kind::Put, begin, begin + ms(10));
        recorder.on_success(Kind::Put, begin + ms(990), begin + ms(1010));
        recorder.on_success(Kind::Put, begin + ms(1500), begin + ms(1600));
        recorder.on_error("Unavailable", "gone", begin + ms(1700));
        recorder.on_error("Unavailable", "too late", begin + ms(3700));
        recorder.on_success(Kind::Put, begin + ms(2990), begin + ms(3010));
        let counts = recorder.finish();
        assert_eq!(counts.operations, 2, "two answers came within the time");
        assert_eq!(counts.latency.count, 2, "two operations began within the time");
        assert_eq!(counts.per_second, [2, 0]);
        assert_eq!(counts.errors["Unavailable"], ErrorCount { count: 1, first: "gone".into() });
    }

    #[test]
    fn the_longest_gap_may_reach_to_the_end() {
        let begin = Instant::now();
        let mut recorder = Recorder::new(begin, begin + ms(1000));
        recorder.on_success(Kind::Get, begin, begin + ms(100));
        recorder.on_success(Kind::Get, begin, begin + ms(350));
        let counts = recorder.finish();
        assert_eq!(counts.longest_gap, ms(650));
        assert_eq!(counts.longest_gap_at, ms(350));
    }

    #[test]
    fn an_operation_without_an_answer_counts_with_the_time_it_waited() {
        let begin = Instant::now();
        let mut recorder = Recorder::new(begin, begin + ms(1000));
        recorder.on_unfinished(Kind::Put, begin, begin + ms(900));
        let counts = recorder.finish();
        assert_eq!((counts.unfinished, counts.operations), (1, 0));
        assert!(counts.latency.max >= 899_000);
    }
}
