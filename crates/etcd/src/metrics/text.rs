//! Prometheus' text format, as far as it is needed.

use quorate_types::{HISTOGRAM_BOUNDS, Histogram};
use std::fmt::Write as _;

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// The text so far. A family is announced once and its samples follow.
#[derive(Debug)]
pub(super) struct Text {
    /// What is written.
    out: String,
    /// The family that samples now belong to.
    family: &'static str,
}

impl Text {
    pub(super) fn new() -> Text {
        Text { out: String::with_capacity(32 * 1024), family: "" }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    /// Begins a family.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.family = name;
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One sample.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        self.named("", labels, None, format_args!("{value}"));
    }

    /// One sample in seconds.
    pub(super) fn seconds(&mut self, labels: &[(&str, &str)], nanos: u64) {
        self.named("", labels, None, format_args!("{}", seconds(nanos)));
    }

    /// The samples of one histogram: cumulative counts, sum and count.
    pub(super) fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) {
        let mut total = 0;
        for (count, bound) in histogram.counts.iter().zip(HISTOGRAM_BOUNDS) {
            total += count;
            let bound = seconds(bound).to_string();
            self.named("_bucket", labels, Some(&bound), format_args!("{total}"));
        }
        let count = histogram.count;
        self.named("_bucket", labels, Some("+Inf"), format_args!("{count}"));
        self.named("_sum", labels, None, format_args!("{}", seconds(histogram.sum)));
        self.named("_count", labels, None, format_args!("{count}"));
    }

    fn named(
        &mut self,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<&str>,
        value: std::fmt::Arguments<'_>,
    ) {
        self.out.push_str(self.family);
        self.out.push_str(suffix);
        let bound = bound.map(|bound| ("le", bound));
        for (count, (name, value)) in labels.iter().copied().chain(bound).enumerate() {
            self.out.push(if count == 0 { '{' } else { ',' });
            self.out.push_str(name);
            self.out.push_str("=\"");
            escape(value, &mut self.out);
            self.out.push('"');
        }
        if !labels.is_empty() || bound.is_some() {
            self.out.push('}');
        }
        self.line(format_args!(" {value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.out, "{line}").expect("text in memory takes everything");
    }
}

/// Nanoseconds as seconds. Figures of monitoring need no more digits than a float has.
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// Appends a label's value; operators choose node names, so anything may be in it.
fn escape(value: &str, out: &mut String) {
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            _ => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn samples_are_written_as_prometheus_reads_them() {
        let mut text = Text::new();
        text.family("a_total", Kind::Counter, "What it is.");
        text.sample(&[], 3);
        text.sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 4);
        text.family("b_seconds", Kind::Gauge, "Time.");
        text.seconds(&[], 1_500_000_000);
        let expected = "# HELP a_total What it is.\n# TYPE a_total counter\na_total 3\n\
            a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 4\n\
            # HELP b_seconds Time.\n# TYPE b_seconds gauge\nb_seconds 1.5\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let mut histogram = Histogram::default();
        for micros in [40, 90, 90, 20_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = Text::new();
        text.family("h", Kind::Histogram, "Sizes.");
        text.histogram(&[("peer", "n2")], &histogram);
        let text = text.finish();
        let check = |line: &str| assert!(text.contains(&format!("\n{line}\n")), "{line}\n{text}");
        check("h_bucket{peer=\"n2\",le=\"0.00005\"} 1");
        check("h_bucket{peer=\"n2\",le=\"0.0001\"} 3");
        check("h_bucket{peer=\"n2\",le=\"10\"} 3");
        check("h_bucket{peer=\"n2\",le=\"+Inf\"} 4");
        check("h_sum{peer=\"n2\"} 20.00022");
        check("h_count{peer=\"n2\"} 4");
    }
}
