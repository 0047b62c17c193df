//! Warnings that bytes from outside cause: whoever can reach a port can cause as many as it likes, so few are written, and
//! how many were not.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many may be written in a row: the members of a cluster that is set up wrongly all have their say.
const BURST_COUNT: u32 = 64;

/// After that, one in this time.
const INTERVAL: Duration = Duration::from_secs(5);

/// The limit of this process.
static LIMIT: Mutex<Limit> = Mutex::new(Limit::new());

/// Writes a warning whose cause came from outside, unless there were too many.
pub fn warn_outside(text: impl Display) {
    let admitted = LIMIT.lock().unwrap_or_else(PoisonError::into_inner).admit(Instant::now());
    match admitted {
        None => {}
        Some(0) => tracing::warn!("{text}"),
        Some(suppressed) => tracing::warn!(suppressed, "{text}"),
    }
}

/// A bucket that fills by one every [`INTERVAL`].
#[derive(Debug)]
struct Limit {
    /// How many may be written now.
    left: u32,
    /// When the bucket was last seen to fill; never while it is full.
    filled: Option<Instant>,
    /// How many were not written since the last that was.
    suppressed: u64,
}

impl Limit {
    const fn new() -> Limit {
        Limit { left: BURST_COUNT, filled: None, suppressed: 0 }
    }

    /// Whether a line may be written now; if so, how many before it were not.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let filled = *self.filled.get_or_insert(now);
        let intervals = now.saturating_duration_since(filled).as_secs() / INTERVAL.as_secs();
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(intervals).min(BURST_COUNT);
        self.filled =
            Some(if self.left == BURST_COUNT { now } else { filled + INTERVAL * intervals });
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_then_little_and_what_was_not_is_counted() {
        let begin = Instant::now();
        let mut limit = Limit::new();
        let burst = (0..1_000).filter(|_| limit.admit(begin) == Some(0)).count();
        assert_eq!(burst, BURST_COUNT as usize);
        assert_eq!(limit.admit(begin + INTERVAL / 2), None);
        assert_eq!(limit.admit(begin + INTERVAL), Some(1_000 - u64::from(BURST_COUNT) + 1));
        assert_eq!(limit.admit(begin + INTERVAL), None);
        let minute = (1..=60).map(|second| begin + Duration::from_secs(60 + second));
        let written = minute.filter(|at| limit.admit(*at).is_some()).count();
        assert!((20..=24).contains(&written), "{written} of a minute, and of the one before");
        let quiet = begin + INTERVAL * (BURST_COUNT + 100);
        let burst = (0..1_000).filter(|_| limit.admit(quiet).is_some()).count();
        assert_eq!(burst, BURST_COUNT as usize, "it never holds more");
    }
}
