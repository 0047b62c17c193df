//! A map for keys that come in rising order and leave in about the same order: proposals, requests.

use std::collections::VecDeque;

/// Places of values that left are given up when there are this many more of them than of values.
const VACANT_MAX: usize = 64;

/// A map from numbers to values. While keys come in rising order and leave in about the same order, as those of waiting
/// requests do, no operation allocates or searches; in any other order it is still right, only slower.
///
/// # Invariants
/// 1. Keys rise from place to place.
/// 2. The first place holds a value, and `live` places do.
/// 3. There are at most `live + VACANT_MAX` vacant places.
#[derive(Clone, Debug)]
pub struct SequenceMap<V> {
    /// Keys with their values; a place whose value left stays until all before it have left.
    places: VecDeque<(u64, Option<V>)>,
    /// How many places hold a value.
    live: usize,
}

impl<V> Default for SequenceMap<V> {
    fn default() -> SequenceMap<V> {
        SequenceMap { places: VecDeque::new(), live: 0 }
    }
}

impl<V> SequenceMap<V> {
    /// How many values there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    /// The place of `key`, or where it belongs.
    fn place(&self, key: u64) -> Result<usize, usize> {
        let Some((first, _)) = self.places.front() else { return Err(0) };
        if self.places.back().is_some_and(|(last, _)| *last < key) {
            return Err(self.places.len());
        }
        let Some(distance) = key.checked_sub(*first) else { return Err(0) };
        if let Ok(guess) = usize::try_from(distance)
            && self.places.get(guess).is_some_and(|(found, _)| *found == key)
        {
            // No key is missing in between.
            return Ok(guess);
        }
        self.places.binary_search_by_key(&key, |(found, _)| *found)
    }

    /// Puts a value; gives the one that the key had.
    pub fn insert(&mut self, key: u64, value: V) -> Option<V> {
        let is_last = self.places.back().is_none_or(|(last, _)| *last < key);
        let old = if is_last {
            self.places.push_back((key, Some(value)));
            None
        } else {
            match self.place(key) {
                Ok(place) => self.places[place].1.replace(value),
                Err(place) => {
                    self.places.insert(place, (key, Some(value)));
                    None
                }
            }
        };
        self.live += usize::from(old.is_none());
        old
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: u64) -> Option<&V> {
        self.places[self.place(key).ok()?].1.as_ref()
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut V> {
        let place = self.place(key).ok()?;
        self.places[place].1.as_mut()
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: u64) -> Option<V> {
        let place = self.place(key).ok()?;
        let value = self.places[place].1.take()?;
        self.live -= 1;
        while self.places.front().is_some_and(|(_, value)| value.is_none()) {
            self.places.pop_front();
        }
        if self.places.len() > 2 * self.live + VACANT_MAX {
            self.places.retain(|(_, value)| value.is_some());
        }
        Some(value)
    }

    /// The lowest key.
    #[must_use]
    pub fn first_key(&self) -> Option<u64> {
        self.places.front().map(|(key, _)| *key)
    }

    /// All keys, rising.
    pub fn keys(&self) -> impl Iterator<Item = u64> {
        self.places.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key)
    }

    /// All values, in order of their keys.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.places.into_iter().filter_map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Against a plain map, over a fixed walk: mostly rising keys, some anywhere.
    #[test]
    fn it_equals_a_plain_map() {
        let mut state = 11u64;
        let mut draw = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for rounds in [50, 5000] {
            let (mut map, mut model) = (SequenceMap::default(), BTreeMap::new());
            let mut next = 1 << 40;
            for step in 0..rounds {
                let key = match draw(10) {
                    0..4 => {
                        next += 1 + draw(8) / 7;
                        next
                    }
                    4 => next.saturating_sub(draw(200)),
                    _ => *model.keys().nth(draw(30) as usize).unwrap_or(&next),
                };
                if draw(2) == 0 || key == next {
                    assert_eq!(map.insert(key, step), model.insert(key, step), "insert {key}");
                } else {
                    assert_eq!(map.remove(key), model.remove(&key), "remove {key}");
                }
                assert_eq!(map.len(), model.len());
                assert_eq!(map.is_empty(), model.is_empty());
                assert_eq!(map.first_key(), model.keys().next().copied());
                assert_eq!(map.get(key), model.get(&key));
                assert_eq!(map.get_mut(key + 1), model.get_mut(&(key + 1)));
                assert!(map.places.len() <= 2 * map.live + VACANT_MAX);
            }
            assert!(map.keys().eq(model.keys().copied()));
            assert!(map.into_values().eq(model.into_values()));
        }
    }

    #[test]
    fn one_that_stays_does_not_hold_the_places_of_those_that_left() {
        let mut map = SequenceMap::default();
        map.insert(0, ());
        for key in 1..10_000 {
            map.insert(key, ());
            assert_eq!(map.remove(key), Some(()));
        }
        assert!(map.places.len() <= VACANT_MAX + 2, "{} places", map.places.len());
    }
}
