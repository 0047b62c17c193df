//! Engine keys as fjall keeps them: shorter, in the same order.
//!
//! The store's keys begin with a group number of eight bytes, nearly always zero. fjall compares keys where they
//! lie only up to 20 bytes; longer ones cost a walk to the heap at each of the many steps of a search. So the
//! leading zeros are counted instead of kept:
//!
//! ```text
//!   k zeros and nothing else, k < 8    ->  k
//!   z zeros (at most 8) and the rest   ->  16 - z, rest
//! ```
//! A key of fewer zeros is the larger one and gets the larger first byte; a key that is nothing but zeros is below
//! every key that begins with it.

/// How many leading zeros are counted; further ones belong to the rest.
const ZEROS_MAX: usize = 8;

/// What the first byte is when there are no leading zeros.
const NO_ZEROS: u8 = 16;

/// The key that fjall is given.
pub(crate) fn pack(key: &[u8]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(1 + key.len());
    pack_into(key, &mut packed);
    packed
}

/// Makes `packed` the key that fjall is given.
pub(crate) fn pack_into(key: &[u8], packed: &mut Vec<u8>) {
    packed.clear();
    let zeros = key.iter().take(ZEROS_MAX).take_while(|byte| **byte == 0).count();
    let count = u8::try_from(zeros).expect("at most eight are counted");
    let is_short = zeros == key.len() && zeros < ZEROS_MAX;
    packed.push(if is_short { count } else { NO_ZEROS - count });
    packed.extend_from_slice(&key[zeros..]);
}

/// The key that [`pack`] was given; `None` when it gives no such key.
pub(crate) fn unpack(packed: &[u8]) -> Option<Vec<u8>> {
    let (first, rest) = packed.split_first()?;
    let zeros = match *first {
        count @ 0..8 if rest.is_empty() => usize::from(count),
        count @ 8..=NO_ZEROS => usize::from(NO_ZEROS - count),
        _ => return None,
    };
    let mut key = vec![0; zeros];
    key.extend_from_slice(rest);
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_keeps_every_key_and_the_order_of_all() {
        // Every key of up to eleven bytes that are 0 or 1.
        let mut keys: Vec<Vec<u8>> = (0..=11usize)
            .flat_map(|size| {
                (0..1u32 << size)
                    .map(move |bits| (0..size).map(|at| (bits >> at & 1) as u8).collect())
            })
            .collect();
        keys.sort_unstable();
        for key in &keys {
            assert_eq!(unpack(&pack(key)).as_ref(), Some(key));
        }
        for pair in keys.windows(2) {
            assert!(pack(&pair[0]) < pack(&pair[1]), "{pair:?}");
        }
    }

    #[test]
    fn what_was_never_packed_is_not_unpacked() {
        for packed in [&[][..], &[17], &[3, 1], &[255, 0]] {
            assert_eq!(unpack(packed), None, "{packed:?}");
        }
    }
}
