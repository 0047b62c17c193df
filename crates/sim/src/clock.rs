//! The clock of one process: it starts anywhere, runs too fast or too slow, and leaps forward as after a suspended machine.
//! It never runs backwards, because what a node is told is the monotonic clock.

use quorate_types::Instant;
use std::time::Duration;

/// Drift is given in parts per million, so that the same seed computes the same everywhere.
const MILLION: i128 = 1_000_000;

/// A clock that is right at one moment and drifts from there.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// A moment of the world.
    anchor: Instant,
    /// What the clock shows then.
    shown: Instant,
    /// How much faster than the world it runs, in parts per million.
    drift: i32,
}

impl Clock {
    /// A clock that shows `shown` when the world is at `now`.
    #[must_use]
    pub fn new(now: Instant, shown: Instant) -> Clock {
        Clock { anchor: now, shown, drift: 0 }
    }

    /// What it shows at a moment of the world.
    #[must_use]
    pub fn local(&self, now: Instant) -> Instant {
        if self.drift == 0 {
            return Instant(self.shown.0 + now.0.saturating_sub(self.anchor.0));
        }
        let passed = i128::from(now.0.saturating_sub(self.anchor.0));
        let shown = passed * (MILLION + i128::from(self.drift)) / MILLION;
        Instant(self.shown.0 + u64::try_from(shown).expect("drift is below a million"))
    }

    /// The first moment of the world at which it shows at least this.
    #[must_use]
    pub fn global(&self, local: Instant) -> Instant {
        if self.drift == 0 {
            return Instant(self.anchor.0 + local.0.saturating_sub(self.shown.0));
        }
        let shown = i128::from(local.0.saturating_sub(self.shown.0)) * MILLION;
        let rate = MILLION + i128::from(self.drift);
        let passed = (shown + rate - 1) / rate;
        Instant(self.anchor.0 + u64::try_from(passed).expect("simulated times fit in 64 bits"))
    }

    /// From now on it runs faster than the world by this, in parts per million.
    pub fn set_drift(&mut self, now: Instant, drift: i32) {
        *self = Clock { anchor: now, shown: self.local(now), drift };
    }

    /// It leaps forward.
    pub fn leap(&mut self, now: Instant, by: Duration) {
        *self = Clock { anchor: now, shown: self.local(now) + by, drift: self.drift };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_never_runs_backwards_and_shows_what_it_says_it_will() {
        for drift in [-200_000, -1, 0, 1, 50_000] {
            let mut clock = Clock::new(Instant(1_000), Instant(77));
            clock.set_drift(Instant(2_000), drift);
            let mut before = Instant::ZERO;
            for now in (2_000..9_000).step_by(7).map(Instant) {
                let shown = clock.local(now);
                assert!(shown >= before, "{drift}: {shown} after {before}");
                before = shown;
                let at = clock.global(shown);
                assert!(clock.local(at) >= shown, "{drift}: {at} is too early for {shown}");
                assert!(at <= now, "{drift}: {at} is too late for {shown}, shown at {now}");
            }
            clock.leap(Instant(9_000), Duration::from_nanos(500));
            assert!(clock.local(Instant(9_000)) >= before + Duration::from_nanos(500));
        }
    }
}
