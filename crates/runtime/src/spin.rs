//! Waiting awake for what comes soon.
//!
//! Between a request and its answer lie a dozen hand-overs from thread to thread. Each one that finds the next thread
//! asleep costs tens of microseconds until a halted processor runs again, more than most of the waits are long. So a
//! thread that has nothing to do offers its processor to others and looks again for a moment, before it sleeps. Under load
//! that is also when more comes together, and one wake-up does more.
//!
//! What does not pay off is given up: a thread whose waits end in sleep goes to sleep at once, and only now and then tries
//! again.

use std::time::{Duration, Instant};

/// So many waits in a row that ended in sleep are enough to give it up.
const MISSES_MAX: u32 = 4;

/// It is tried again every so many waits.
const RETRY_INTERVAL: u32 = 16;

/// How one thread waits awake.
#[derive(Clone, Debug)]
pub(crate) struct Spin {
    /// How long; zero for never.
    limit: Duration,
    /// How many waits in a row ended in sleep.
    misses: u32,
}

impl Spin {
    /// Waits for at most `limit`.
    pub(crate) fn new(limit: Duration) -> Spin {
        Spin { limit, misses: 0 }
    }

    /// Sleeps at once.
    pub(crate) fn never() -> Spin {
        Spin::new(Duration::ZERO)
    }

    /// Looks until `is_ready`; false when it gives up and the thread should sleep. One that never waits awake does not look.
    pub(crate) fn until(&mut self, mut is_ready: impl FnMut() -> bool) -> bool {
        if self.limit.is_zero() {
            return false;
        }
        if is_ready() {
            return true;
        }
        if !self.is_worth_it() {
            return false;
        }
        let begin = Instant::now();
        while begin.elapsed() < self.limit {
            std::thread::yield_now();
            if is_ready() {
                self.misses = 0;
                return true;
            }
        }
        false
    }

    /// Whether to wait awake this time; counted as a miss until it is found not to be one.
    fn is_worth_it(&mut self) -> bool {
        self.misses = self.misses.wrapping_add(1);
        self.misses <= MISSES_MAX || self.misses.is_multiple_of(RETRY_INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a wait looks that ends in sleep, or after `looks` of them.
    fn looks(spin: &mut Spin, until: u32) -> (bool, u32) {
        let mut looks = 0;
        let found = spin.until(|| {
            looks += 1;
            looks == until
        });
        (found, looks)
    }

    #[test]
    fn it_ends_when_something_comes_or_when_it_has_taken_too_long() {
        let mut spin = Spin::new(Duration::from_secs(3_600));
        assert_eq!(looks(&mut spin, 1), (true, 1));
        assert_eq!(looks(&mut spin, 50), (true, 50));
        let mut spin = Spin::new(Duration::from_nanos(1));
        let begin = Instant::now();
        assert!(!looks(&mut spin, u32::MAX).0);
        assert!(begin.elapsed() < Duration::from_secs(10));
        assert_eq!(looks(&mut Spin::never(), 2), (false, 0));
    }

    #[test]
    fn it_is_given_up_where_it_does_not_pay_off_and_tried_again() {
        let mut spin = Spin::new(Duration::from_micros(1));
        for _ in 0..MISSES_MAX {
            spin.until(|| false);
        }
        let tried = (0..4 * RETRY_INTERVAL).filter(|_| looks(&mut spin, 2).0).count();
        assert_eq!(tried, 1 + usize::try_from(3 * RETRY_INTERVAL).expect("small") + 4);
    }
}
