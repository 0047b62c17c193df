//! Seeded randomness: one stream a purpose, so that a new draw in one part does not shift the draws of another.

use quorate_types::Instant;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::time::Duration;

/// Probabilities are in parts per million: integers, so that the same seed draws the same on every machine.
pub type PartsPerMillion = u32;

/// One stream of random numbers.
#[derive(Clone, Debug)]
pub struct Dice {
    /// The generator; its stream is fixed for ever.
    rng: ChaCha8Rng,
}

impl Dice {
    /// The stream of `purpose` under `seed`.
    #[must_use]
    pub fn new(seed: u64, purpose: &str) -> Dice {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        bytes[8..16].copy_from_slice(&xxhash_rust::xxh3::xxh3_64(purpose.as_bytes()).to_le_bytes());
        Dice { rng: ChaCha8Rng::from_seed(bytes) }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.rng.next_u64()
    }

    /// A number below `bound`, which must be above 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "a die needs at least one side");
        // The high half of a wide product: close enough to uniform for faults, and free of divisions.
        ((u128::from(self.rng.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A position in a list of `count` things, which must not be empty.
    pub fn position(&mut self, count: usize) -> usize {
        usize::try_from(self.below(count as u64)).expect("below a usize")
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the range {low}..={high} is empty");
        low + self.below(high - low + 1)
    }

    /// A duration between two others.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |duration: Duration| {
            u64::try_from(duration.as_nanos()).expect("simulated times fit in 64 bits")
        };
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// A moment between `now + low` and `now + high`.
    pub fn moment(&mut self, now: Instant, low: Duration, high: Duration) -> Instant {
        now + self.duration(low, high)
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: PartsPerMillion) -> bool {
        probability > 0 && self.below(1_000_000) < u64::from(probability)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let draw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            [dice.bits(), dice.bits()]
        };
        assert_eq!(draw(7, "disk"), draw(7, "disk"));
        assert_ne!(draw(7, "disk"), draw(7, "network"));
        assert_ne!(draw(7, "disk"), draw(8, "disk"));
    }

    #[test]
    fn every_side_of_a_die_comes_up() {
        let mut dice = Dice::new(1, "test");
        let mut seen = [0_u32; 6];
        (0..600).for_each(|_| seen[dice.position(6)] += 1);
        assert!(seen.iter().all(|count| (60..140).contains(count)), "{seen:?}");
        assert!(!dice.chance(0));
        assert!(dice.chance(1_000_000));
    }
}
