//! A histogram with fixed bounds: plain data that a pure core can fill and a monitor can subtract.

use std::time::Duration;

/// Upper bounds of the buckets in nanoseconds; the last bucket, above them all, is open. They run
/// from 50 µs to 10 s in steps of about two.
pub const HISTOGRAM_BOUNDS: [u64; 17] = [
    50_000,
    100_000,
    200_000,
    400_000,
    800_000,
    1_600_000,
    3_200_000,
    6_400_000,
    12_800_000,
    25_600_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    10_000_000_000,
];

/// Counts of durations by size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// How many observations fell into each bucket, not cumulative; the last is open.
    pub counts: [u64; HISTOGRAM_BOUNDS.len() + 1],
    /// The sum of all observations in nanoseconds.
    pub sum: u64,
    /// How many observations there were.
    pub count: u64,
    /// The latest observation in nanoseconds.
    pub latest: u64,
}

impl Histogram {
    /// Adds one observation.
    pub fn observe(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let bucket = HISTOGRAM_BOUNDS.partition_point(|bound| *bound < nanos);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.count += 1;
        self.latest = nanos;
    }

    /// The mean in nanoseconds; 0 without observations.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.sum.checked_div(self.count).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut histogram = Histogram::default();
        histogram.observe(Duration::from_nanos(50_000));
        histogram.observe(Duration::from_nanos(50_001));
        histogram.observe(Duration::from_secs(60));
        assert_eq!(histogram.counts[0], 1);
        assert_eq!(histogram.counts[1], 1);
        assert_eq!(histogram.counts[HISTOGRAM_BOUNDS.len()], 1);
        assert_eq!(histogram.count, 3);
    }
}
