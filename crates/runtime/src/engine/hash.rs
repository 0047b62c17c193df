//! Hashing of keys in memory: XXH3, several times as fast on short keys as what the standard library's maps use.

use std::hash::{BuildHasher, Hasher, RandomState};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Makes hashers of one seed, which nobody outside knows.
#[derive(Clone)]
pub(super) struct KeyHash {
    seed: u64,
}

impl Default for KeyHash {
    fn default() -> KeyHash {
        KeyHash { seed: RandomState::new().hash_one(0_u64) }
    }
}

impl KeyHash {
    /// The hash of a key by itself.
    pub(super) fn of(&self, key: &[u8]) -> u64 {
        xxh3_64_with_seed(key, self.seed)
    }
}

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(self.seed)
    }
}

/// Hashes one key.
pub(super) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_usize(&mut self, length: usize) {
        self.0 = self.0.wrapping_add(length as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Takes numbers that are hashes already as they are.
#[derive(Clone, Default)]
pub(super) struct Hashed;

impl BuildHasher for Hashed {
    type Hasher = HashedHasher;

    fn build_hasher(&self) -> HashedHasher {
        HashedHasher(0)
    }
}

/// Takes one number.
pub(super) struct HashedHasher(u64);

impl Hasher for HashedHasher {
    fn write(&mut self, bytes: &[u8]) {
        // Only numbers are expected; anything else is hashed all the same.
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
