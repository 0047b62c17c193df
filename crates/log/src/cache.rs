//! Recent entries of all groups in memory: readable at submit, kept at least until they are durable.

use quorate_types::{GroupId, Index, Slot};
use std::collections::{BTreeMap, VecDeque};

/// A slot and the submission that brought it.
#[derive(Clone, Debug)]
struct Cached {
    slot: Slot,
    /// Which submission: what an older one brought must not evict it.
    submission: u64,
}

/// What one submission brought, in order, for eviction.
#[derive(Clone, Copy, Debug)]
struct Insertion {
    group: GroupId,
    first: Index,
    count: u64,
    submission: u64,
}

/// Consecutive slots by the first's index.
type Runs = BTreeMap<Index, VecDeque<Cached>>;

/// The cache of a log.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The slots of each group.
    groups: BTreeMap<GroupId, Runs>,
    /// Oldest first.
    insertions: VecDeque<Insertion>,
    /// The bytes of all slots held.
    size: usize,
}

/// What a slot counts for: its encoding, and about as much again for its bookkeeping.
fn weight(slot: &Slot) -> usize {
    slot.entry.encoded_size() + std::mem::size_of::<Cached>()
}

fn end_of(first: Index, run: &VecDeque<Cached>) -> Index {
    Index(first.0 + run.len() as u64)
}

impl Cache {
    /// The bytes held.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Puts consecutive or scattered slots of one submission.
    pub(crate) fn put(&mut self, group: GroupId, slot: Slot, submission: u64) {
        let index = slot.index;
        self.size += weight(&slot);
        match self.insertions.back_mut() {
            Some(last)
                if last.submission == submission
                    && last.group == group
                    && last.first.0 + last.count == index.0 =>
            {
                last.count += 1;
            }
            _ => self.insertions.push_back(Insertion { group, first: index, count: 1, submission }),
        }
        let runs = self.groups.entry(group).or_default();
        let cached = Cached { slot, submission };
        if let Some((first, run)) = runs.range_mut(..=index).next_back() {
            let place = usize::try_from(index.0 - first.0).expect("an offset fits in memory");
            if place == run.len() {
                run.push_back(cached);
                return;
            }
            if let Some(old) = run.get_mut(place) {
                self.size -= weight(&old.slot);
                *old = cached;
                return;
            }
        }
        runs.insert(index, VecDeque::from([cached]));
    }

    /// Slots from `first` to at most `last`, while they fit in `budget` (at least one). `None` when the first is
    /// not here.
    pub(crate) fn read(
        &self,
        group: GroupId,
        first: Index,
        last: Index,
        budget: usize,
    ) -> Option<Vec<Slot>> {
        if first > last {
            return None;
        }
        let runs = self.groups.get(&group)?;
        let mut slots: Vec<Slot> = Vec::new();
        let mut size = 0;
        let mut index = first;
        let from = runs.range(..=first).next_back().map(|(key, _)| *key)?;
        'runs: for (start, run) in runs.range(from..) {
            let skip = usize::try_from(index.0.checked_sub(start.0).unwrap_or(u64::MAX));
            let Ok(skip) = skip else { break };
            for cached in run.iter().skip(skip) {
                size += cached.slot.entry.encoded_size();
                if index > last || (!slots.is_empty() && size > budget) {
                    break 'runs;
                }
                slots.push(cached.slot.clone());
                index = index.next();
            }
            if end_of(*start, run) != index {
                break;
            }
        }
        (!slots.is_empty()).then_some(slots)
    }

    /// Empties `first..end` of a group.
    pub(crate) fn remove(&mut self, group: GroupId, first: Index, end: Index) {
        for (_, run) in self.take(group, first, end) {
            self.size -= run.iter().map(|cached| weight(&cached.slot)).sum::<usize>();
        }
    }

    /// Takes the runs of `first..end` out, still counted in `size`.
    fn take(&mut self, group: GroupId, first: Index, end: Index) -> Vec<(Index, VecDeque<Cached>)> {
        let Some(runs) = self.groups.get_mut(&group) else { return Vec::new() };
        split_at(runs, first);
        split_at(runs, end);
        let mut taken = Vec::new();
        while let Some((&key, _)) = (first < end).then(|| runs.range(first..end).next()).flatten() {
            taken.push((key, runs.remove(&key).expect("the key was just seen")));
        }
        taken
    }

    /// Evicts the oldest slots above `size_max`, as far as their submissions are durable.
    pub(crate) fn evict(&mut self, size_max: usize, durable: u64) {
        while self.size > size_max {
            let Some(&oldest) = self.insertions.front() else { return };
            if oldest.submission > durable {
                return;
            }
            self.insertions.pop_front();
            let end = Index(oldest.first.0 + oldest.count);
            for (start, run) in self.take(oldest.group, oldest.first, end) {
                for (cached, index) in run.into_iter().zip(start.0..) {
                    self.size -= weight(&cached.slot);
                    if cached.submission > oldest.submission {
                        self.put_back(oldest.group, Index(index), cached);
                    }
                }
            }
        }
    }

    /// Keeps a slot that a later submission brought to an index whose first holder is evicted.
    fn put_back(&mut self, group: GroupId, index: Index, cached: Cached) {
        self.size += weight(&cached.slot);
        let runs = self.groups.entry(group).or_default();
        match runs.range_mut(..index).next_back() {
            Some((first, run)) if end_of(*first, run) == index => run.push_back(cached),
            _ => {
                runs.insert(index, VecDeque::from([cached]));
            }
        }
    }

    /// Forgets the order of insertions whose slots are gone, so that the list is bounded by what is held.
    pub(crate) fn trim(&mut self) {
        while let Some(oldest) = self.insertions.front() {
            let held = self.groups.get(&oldest.group).is_some_and(|runs| {
                let end = Index(oldest.first.0 + oldest.count);
                runs.range(..end)
                    .next_back()
                    .is_some_and(|(first, run)| end_of(*first, run) > oldest.first)
            });
            if held {
                return;
            }
            self.insertions.pop_front();
        }
    }
}

/// Makes `index` the first of its run, if it lies inside one.
fn split_at(runs: &mut Runs, index: Index) {
    let Some((first, run)) = runs.range_mut(..index).next_back() else { return };
    if end_of(*first, run) <= index {
        return;
    }
    let at = usize::try_from(index.0 - first.0).expect("runs fit in memory");
    let rest = if at < run.len() / 2 {
        let head: VecDeque<Cached> = run.drain(..at).collect();
        std::mem::replace(run, head)
    } else {
        run.split_off(at)
    };
    runs.insert(index, rest);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_types::{Entry, EntryKind, Epoch, NodeId, Origin, TransactionId};

    const GROUP: GroupId = GroupId(0);

    fn slot(index: u64, epoch: u64) -> Slot {
        sized_slot(index, epoch, 4)
    }

    fn sized_slot(index: u64, epoch: u64, size: u64) -> Slot {
        let created = Epoch::new(epoch, NodeId(1));
        let body = Bytes::from(vec![7; usize::try_from(size).expect("small")]);
        let entry = Entry::new(created, EntryKind::Command, Origin::NONE, TransactionId(0), body);
        Slot { index: Index(index), accepted: created, entry }
    }

    fn read(cache: &Cache, first: u64, last: u64, budget: usize) -> Vec<(u64, u64)> {
        let slots = cache.read(GROUP, Index(first), Index(last), budget).unwrap_or_default();
        slots.iter().map(|slot| (slot.index.0, slot.accepted.number)).collect()
    }

    #[test]
    fn a_read_takes_what_fits_and_at_least_one() {
        let mut cache = Cache::default();
        (1..=5).for_each(|index| cache.put(GROUP, slot(index, 1), 1));
        assert_eq!(read(&cache, 2, 9, usize::MAX), [(2, 1), (3, 1), (4, 1), (5, 1)]);
        assert_eq!(read(&cache, 2, 3, usize::MAX), [(2, 1), (3, 1)]);
        assert_eq!(read(&cache, 2, 9, 0), [(2, 1)]);
        assert_eq!(read(&cache, 2, 9, 140), [(2, 1), (3, 1)]);
        assert_eq!(read(&cache, 6, 9, 140), []);
        assert_eq!(read(&cache, 0, 9, 140), []);
    }

    #[test]
    fn filled_gaps_read_through() {
        let mut cache = Cache::default();
        for index in [1, 2, 5, 6, 4, 3] {
            cache.put(GROUP, slot(index, 1), 1);
        }
        let indexes: Vec<u64> = read(&cache, 1, 9, usize::MAX).iter().map(|s| s.0).collect();
        assert_eq!(indexes, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn eviction_spares_what_a_later_submission_brought() {
        let mut cache = Cache::default();
        (1..=4).for_each(|index| cache.put(GROUP, slot(index, 1), 1));
        cache.remove(GROUP, Index(3), Index(u64::MAX));
        (3..=4).for_each(|index| cache.put(GROUP, slot(index, 2), 2));
        cache.evict(0, 1);
        assert_eq!(read(&cache, 3, 9, usize::MAX), [(3, 2), (4, 2)]);
        assert_eq!(read(&cache, 1, 9, usize::MAX), []);
        cache.evict(0, 2);
        assert_eq!(cache.size(), 0);
        assert!(cache.insertions.is_empty());
    }

    /// The same cache as plainly as can be: every slot and the submission that brought it.
    type Model = BTreeMap<(GroupId, Index), (Slot, u64)>;

    /// Whatever is put, removed and evicted: what is read is what a plain map holds, and all of it is counted.
    fn check(cache: &Cache, model: &Model, step: u64) {
        let least: usize = model.values().map(|(slot, _)| slot.entry.encoded_size()).sum();
        let most = least + model.len() * 128;
        assert!((least..=most).contains(&cache.size()), "{} at step {step}", cache.size());
        for group in (0..2).map(GroupId) {
            for (first, budget) in (0..30).flat_map(|first| [(first, 0), (first, 250)]) {
                for last in [first, first + 1, first + 20] {
                    let mut size = 0;
                    let held = (first..=last).map_while(|index| model.get(&(group, Index(index))));
                    let slots: Vec<Slot> = held.map(|(slot, _)| slot.clone()).collect();
                    let fit = slots.iter().take_while(|slot| {
                        size += slot.entry.encoded_size();
                        size <= budget
                    });
                    let count = fit.count().max(1).min(slots.len());
                    let expected = (count > 0).then(|| slots[..count].to_vec());
                    let found = cache.read(group, Index(first), Index(last), budget);
                    assert_eq!(found, expected, "{group} {first}..={last} at step {step}");
                }
            }
        }
    }

    /// The oldest are evicted first, no more than needed, and nothing that is not durable.
    fn evict(cache: &mut Cache, model: &mut Model, size_max: usize, durable: u64) {
        let before = cache.size();
        cache.evict(size_max, durable);
        let (kept, gone): (Model, Model) = std::mem::take(model)
            .into_iter()
            .partition(|(at, _)| cache.read(at.0, at.1, at.1, 0).is_some());
        let newest_gone = gone.values().map(|(_, submission)| *submission).max();
        let oldest_kept = kept.values().map(|(_, submission)| *submission).min();
        assert!(newest_gone.is_none_or(|newest| newest <= durable));
        assert!(newest_gone.zip(oldest_kept).is_none_or(|(newest, oldest)| newest <= oldest));
        assert!(before > size_max || gone.is_empty());
        let insertion_size_max = 4 * 400;
        assert!(gone.is_empty() || cache.size() + insertion_size_max > size_max);
        assert!(cache.size() <= size_max || oldest_kept.is_some_and(|oldest| oldest > durable));
        *model = kept;
    }

    #[test]
    fn a_cache_equals_a_plain_map() {
        let mut cache = Cache::default();
        let mut model = Model::new();
        let mut state = 7u64;
        let mut draw = |limit: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % limit
        };
        for step in 1..3000u64 {
            let (group, first) = (GroupId(draw(2)), draw(25));
            let durable = step.saturating_sub(draw(12));
            match draw(12) {
                0..3 => {
                    let end = Index(first + draw(8));
                    cache.remove(group, Index(first), end);
                    model.retain(|(of, at), _| *of != group || *at < Index(first) || *at >= end);
                }
                3 => {
                    let size_max =
                        cache.size().saturating_sub(usize::try_from(draw(600)).expect("small"));
                    evict(&mut cache, &mut model, size_max, durable);
                }
                4 => evict(&mut cache, &mut model, 0, durable.saturating_sub(20)),
                _ => {
                    for index in first..first + 1 + draw(4) {
                        let slot = sized_slot(index, step, draw(200));
                        cache.put(group, slot.clone(), step);
                        model.insert((group, slot.index), (slot, step));
                    }
                }
            }
            cache.trim();
            let of_use = cache.insertions.front().is_none_or(|oldest| {
                let held = |at: u64| model.contains_key(&(oldest.group, Index(at)));
                (oldest.first.0..oldest.first.0 + oldest.count).any(held)
            });
            assert!(of_use, "{:?} is remembered at step {step}", cache.insertions.front());
            check(&cache, &model, step);
        }
        evict(&mut cache, &mut model, 0, u64::MAX);
        assert_eq!((cache.size(), cache.insertions.len()), (0, 0));
    }

    #[test]
    fn what_one_submission_brought_is_remembered_as_one() {
        let mut cache = Cache::default();
        let mut put = |group, index, submission| {
            cache.put(GroupId(group), slot(index, 1), submission);
            cache.insertions.len()
        };
        let counts = [put(0, 1, 1), put(0, 2, 1), put(0, 3, 1), put(0, 4, 2), put(1, 5, 2)];
        assert_eq!(counts, [1, 1, 1, 2, 3]);
        assert_eq!([put(1, 6, 2), put(1, 8, 2)], [3, 4]);
    }
}
