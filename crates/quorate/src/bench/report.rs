//! What a load run found, as a page for people and as JSON for programs.

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The longest latency that is told from longer ones, in microseconds: ten minutes.
const LATENCY_MAX: u64 = 600_000_000;

/// An empty histogram of microseconds, to three digits.
pub(crate) fn latency_histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX, 3).expect("the bounds and digits are constants")
}

/// Adds one latency to a histogram.
pub(crate) fn record(histogram: &mut Histogram<u64>, latency: Duration) {
    let microseconds = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_MAX);
    histogram.saturating_record(microseconds.clamp(1, LATENCY_MAX));
}

/// Latencies of one kind of operation, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How many were measured.
    pub(crate) count: u64,
    /// Their mean.
    pub(crate) mean: f64,
    /// The median.
    pub(crate) p50: u64,
    /// The 99th percentile.
    pub(crate) p99: u64,
    /// The 99.9th percentile.
    pub(crate) p99_9: u64,
    /// The longest.
    pub(crate) max: u64,
}

impl Latency {
    /// The figures of a histogram of microseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Latency {
        Latency {
            count: histogram.len(),
            mean: (histogram.mean() * 10.0).round() / 10.0,
            p50: histogram.value_at_quantile(0.5),
            p99: histogram.value_at_quantile(0.99),
            p99_9: histogram.value_at_quantile(0.999),
            max: histogram.max(),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ["p50", "p99", "p99.9", "max"];
        let values = [self.p50, self.p99, self.p99_9, self.max];
        for (name, value) in names.iter().zip(values) {
            write!(f, "{name} {}  ", Microseconds(value))?;
        }
        write!(f, "({} measured)", self.count)
    }
}

/// A time in microseconds, shown in the unit that suits its size.
struct Microseconds(u64);

impl fmt::Display for Microseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..1_000 => write!(f, "{} µs", self.0),
            1_000..1_000_000 => write!(f, "{:.2} ms", self.0 as f64 / 1e3),
            1_000_000.. => write!(f, "{:.2} s", self.0 as f64 / 1e6),
        }
    }
}

/// How often one status code came back instead of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ErrorCount {
    /// How often.
    pub(crate) count: u64,
    /// The text that came with the first.
    pub(crate) first: String,
}

/// What a load run found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Report {
    /// `put`, `get` or `mixed`.
    pub(crate) operation: String,
    /// Whether gets were serializable instead of linearizable.
    pub(crate) serializable: bool,
    /// Whom it ran against.
    pub(crate) endpoints: Vec<String>,
    /// Logical clients, each with one request under way.
    pub(crate) clients: usize,
    /// Connections they shared.
    pub(crate) connections: usize,
    /// How long was measured, in seconds.
    pub(crate) seconds: f64,
    /// The size of a value in bytes.
    pub(crate) value_size: usize,
    /// How many keys there are.
    pub(crate) keys: u64,
    /// The intended rate of an open loop; none for a closed one.
    pub(crate) target_rate: Option<f64>,
    /// Operations that succeeded while it was measured.
    pub(crate) operations: u64,
    /// The same for each second.
    pub(crate) rate: f64,
    /// Latencies of all operations that began while it was measured: from the intended start under a rate, and over
    /// all attempts until success.
    pub(crate) latency_us: Latency,
    /// The same of puts alone, in a mixed run.
    pub(crate) put_latency_us: Option<Latency>,
    /// The same of gets alone, in a mixed run.
    pub(crate) get_latency_us: Option<Latency>,
    /// Attempts that failed; each was made again on another endpoint.
    pub(crate) errors: u64,
    /// The same by gRPC code.
    pub(crate) errors_by_code: BTreeMap<String, ErrorCount>,
    /// Operations begun and never answered.
    pub(crate) unfinished: u64,
    /// Starts of an open loop that were due and not made, since all clients waited.
    pub(crate) not_started: u64,
    /// The longest time without any success, in milliseconds.
    pub(crate) longest_gap_ms: f64,
    /// Where that gap began, in seconds from the beginning of the measurement.
    pub(crate) longest_gap_at_s: f64,
    /// Successes in each whole second.
    pub(crate) per_second: Vec<u64>,
    /// Processor time of the generator while it measured, in seconds.
    pub(crate) generator_cpu_s: Option<f64>,
    /// The same for each operation, in microseconds.
    pub(crate) generator_cpu_us_per_operation: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let consistency = match (self.operation.as_str(), self.serializable) {
            ("put", _) => "",
            (_, true) => " (serializable)",
            (_, false) => " (linearizable)",
        };
        writeln!(
            f,
            "{}{consistency}: {} clients over {} connections to {} endpoints, {} B values, {} keys, {:.1} s",
            self.operation,
            self.clients,
            self.connections,
            self.endpoints.len(),
            self.value_size,
            self.keys,
            self.seconds
        )?;
        write!(f, "  rate       {:.0} /s ({} operations", self.rate, self.operations)?;
        match self.target_rate {
            Some(rate) => writeln!(f, ", {rate:.0} /s intended)")?,
            None => writeln!(f, ")")?,
        }
        writeln!(f, "  latency    {}", self.latency_us)?;
        if let Some(latency) = &self.put_latency_us {
            writeln!(f, "    of puts  {latency}")?;
        }
        if let Some(latency) = &self.get_latency_us {
            writeln!(f, "    of gets  {latency}")?;
        }
        self.fmt_errors(f)?;
        writeln!(
            f,
            "  gap        {:.1} ms at most between successes, {:.1} s into the run",
            self.longest_gap_ms, self.longest_gap_at_s
        )?;
        match (self.generator_cpu_s, self.generator_cpu_us_per_operation) {
            (Some(total), Some(each)) => write!(
                f,
                "  generator  {each:.1} µs of processor an operation, {:.0} % of a core",
                100.0 * total / self.seconds
            ),
            (_, _) => f.write_str("  generator  processor time unknown on this system"),
        }
    }
}

impl Report {
    fn fmt_errors(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.errors == 0 {
            writeln!(f, "  errors     none")?;
        }
        for (code, error) in &self.errors_by_code {
            writeln!(f, "  errors     {} × {code}: {}", error.count, error.first)?;
        }
        if self.unfinished > 0 {
            writeln!(f, "  unfinished {} operations had no answer at the end", self.unfinished)?;
        }
        if self.not_started > 0 {
            writeln!(f, "  not begun  {} operations: all clients were waiting", self.not_started)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_come_from_all_latencies() {
        let mut histogram = latency_histogram();
        for microseconds in 1..=1000 {
            record(&mut histogram, Duration::from_micros(microseconds));
        }
        record(&mut histogram, Duration::from_secs(3600));
        let latency = Latency::of(&histogram);
        assert_eq!(latency.count, 1001);
        assert!((500..=502).contains(&latency.p50), "{latency:?}");
        assert!(latency.max >= LATENCY_MAX, "an hour counts as the longest: {latency:?}");
    }

    #[test]
    fn times_are_shown_in_a_fitting_unit() {
        let check = |microseconds, text: &str| {
            assert_eq!(Microseconds(microseconds).to_string(), text);
        };
        check(999, "999 µs");
        check(1_500, "1.50 ms");
        check(2_000_000, "2.00 s");
    }
}
