//! The one clock that a node reads.

use quorate_types::Instant;

/// The monotonic clock of this process, told as time since the clock was made.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What [`Instant::ZERO`] means.
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that begins now.
    #[must_use]
    pub fn start() -> Clock {
        Clock { origin: std::time::Instant::now() }
    }

    /// The present moment.
    #[must_use]
    pub fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    /// The same moment as the operating system names it, to wait for.
    #[must_use]
    pub fn at(&self, instant: Instant) -> std::time::Instant {
        let offset = instant.since(Instant::ZERO);
        self.origin.checked_add(offset).unwrap_or_else(|| {
            // Some five hundred years on: any moment that far away will do.
            self.origin + std::time::Duration::from_secs(1 << 32)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn moments_translate_both_ways() {
        let clock = Clock::start();
        let now = clock.now();
        assert!(clock.at(now) <= std::time::Instant::now());
        assert!(clock.at(now + Duration::from_secs(60)) > std::time::Instant::now());
        assert!(clock.at(Instant(u64::MAX)) > std::time::Instant::now());
    }
}
