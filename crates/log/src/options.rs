//! What can be chosen about a log.

use crate::format::PAGE_SIZE;
use std::time::Duration;

/// The smallest segment: room for an opening batch, some entries and the proof page.
const SEGMENT_SIZE_MIN: u64 = 32 * 1024;

/// The largest segment: offsets inside a file are kept in 32 bits.
const SEGMENT_SIZE_MAX: u64 = 1024 * 1024 * 1024;

/// Sizes and bounds of a log. The values may change from one start to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// The size of one segment file in bytes; rounded up to whole pages.
    pub segment_size: u64,
    /// How many bytes of recent entries stay readable in memory. Entries that are not durable yet stay beyond it.
    pub cache_size_max: usize,
    /// The most bytes that one [`crate::Log::fetch`] reads from disk, whatever its budget.
    pub read_size_max: usize,
    /// Above how many bytes a batch takes no further submission; a single larger one is still written whole.
    pub batch_size_max: usize,
    /// How many zero-written segments are kept beyond the one that comes next: they carry control entries and
    /// deletes when the disk is full.
    pub reserve_count: usize,
    /// How long nothing is written until the idle log says on disk that its last batch is synced. Long enough that a
    /// client who writes one thing after the other never waits for more than its own batches; short enough that hardly
    /// any power cut finds a last batch of which nobody knows whether it was acknowledged.
    pub prove_after: Duration,
    /// Whether a recycled segment is zero-written again before its next life, instead of keeping the checksums of what is
    /// in it. Either way a batch torn by a power cut shows as such; zeroes cost a second write of every byte.
    pub zero_recycled: bool,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_size: 16 * 1024 * 1024,
            cache_size_max: 16 * 1024 * 1024,
            read_size_max: 4 * 1024 * 1024,
            batch_size_max: 4 * 1024 * 1024,
            reserve_count: 1,
            prove_after: Duration::from_millis(100),
            zero_recycled: false,
        }
    }
}

impl LogOptions {
    /// The same options with every value inside its limits.
    pub(crate) fn checked(mut self) -> LogOptions {
        self.segment_size =
            self.segment_size.clamp(SEGMENT_SIZE_MIN, SEGMENT_SIZE_MAX).next_multiple_of(PAGE_SIZE);
        let share = usize::try_from(self.segment_size / 4).expect("a segment is at most 1 GiB");
        self.batch_size_max = self.batch_size_max.clamp(1, share);
        self.read_size_max = self.read_size_max.max(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_brought_inside_its_limits() {
        let check = |segment_size, batch_size_max, expected: (u64, usize)| {
            let options = LogOptions { segment_size, batch_size_max, ..LogOptions::default() };
            let checked = options.checked();
            let found = (checked.segment_size, checked.batch_size_max);
            assert_eq!(found, expected, "{segment_size} {batch_size_max}");
        };
        check(0, 0, (32_768, 1));
        check(32_769, 9000, (36_864, 9000));
        check(65_536, 16_385, (65_536, 16_384));
        check(u64::MAX, usize::MAX, (1 << 30, 1 << 28));
        let nothing = LogOptions { read_size_max: 0, ..LogOptions::default() };
        assert_eq!(nothing.checked().read_size_max, 1);
        let default = LogOptions::default();
        assert_eq!(default.clone().checked(), default);
    }
}
