//! Which keys a run surely does not have: a Bloom filter in blocks of a cache line, so that asking costs one
//! access to memory.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// How many bits there are for each key: about one key in a hundred that is not there is looked for in vain.
const BITS_PER_KEY: usize = 10;

/// The bytes of a block: a cache line.
const BLOCK_SIZE: usize = 64;

/// How many bits each key sets in its block: nine bits of the hash name each.
const PROBES: u32 = 6;

/// A filter under construction.
pub(super) struct FilterBuilder(BytesMut);

/// A finished filter; an empty one excludes nothing.
pub(super) struct Filter(Bytes);

/// Where a key's bits are: its block, and the bits in it.
fn places(key: &[u8], block_count: usize) -> (usize, impl Iterator<Item = (usize, u8)>) {
    let hash = xxh3_64(key);
    // The high half picks the block, without a division; the rest, mixed again, the bits.
    let block = (((hash >> 32) * block_count as u64) >> 32) as usize;
    let bits = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let probes = (0..PROBES).map(move |probe| {
        let bit = (bits >> (9 * probe) & 511) as usize;
        (bit / 8, 1 << (bit % 8))
    });
    (block * BLOCK_SIZE, probes)
}

impl FilterBuilder {
    /// A filter for at most so many keys.
    pub(super) fn new(count: usize) -> FilterBuilder {
        let blocks = (count * BITS_PER_KEY).div_ceil(BLOCK_SIZE * 8).max(1);
        FilterBuilder(BytesMut::zeroed(blocks * BLOCK_SIZE))
    }

    pub(super) fn add(&mut self, key: &[u8]) {
        let (block, probes) = places(key, self.0.len() / BLOCK_SIZE);
        let block = &mut self.0[block..block + BLOCK_SIZE];
        probes.for_each(|(byte, mask)| block[byte] |= mask);
    }

    pub(super) fn append_to(&self, buffer: &mut Vec<u8>) {
        buffer.put_slice(&self.0);
    }
}

impl Filter {
    /// A filter from its bytes; `None` when they cannot be one.
    pub(super) fn new(bytes: Bytes) -> Option<Filter> {
        bytes.len().is_multiple_of(BLOCK_SIZE).then_some(Filter(bytes))
    }

    /// Whether the key may be there.
    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let (block, mut probes) = places(key, self.0.len() / BLOCK_SIZE);
        let block = &self.0[block..block + BLOCK_SIZE];
        probes.all(|(byte, mask)| block[byte] & mask != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_may_be_there_and_most_else_is_not() {
        let mut builder = FilterBuilder::new(10_000);
        (0..10_000_u32).for_each(|number| builder.add(&number.to_be_bytes()));
        let mut bytes = Vec::new();
        builder.append_to(&mut bytes);
        let filter = Filter::new(bytes.into()).expect("whole blocks");
        assert!((0..10_000_u32).all(|number| filter.may_have(&number.to_be_bytes())));
        let wrong = (10_000..110_000_u32).filter(|number| filter.may_have(&number.to_be_bytes()));
        let wrong = wrong.count();
        assert!(wrong < 2_500, "{wrong} of 100,000 that are not there");
        assert!(Filter::new(Bytes::new()).expect("empty").may_have(b"anything"));
        assert!(Filter::new(Bytes::from_static(&[0; 65])).is_none());
    }
}
