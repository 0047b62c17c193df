//! What a group's state machine is asked to apply and sync, and how far it has come.

use crate::interface::RequestId;
use quorate_log::ReadId;
use quorate_types::{Applied, Digest, Index, Instant, Slot};
use std::collections::VecDeque;
use std::time::Duration;

/// The most entries handed over and not yet applied: enough to hide the hand-over, few enough that a read waits little.
const IN_FLIGHT_COUNT_MAX: usize = 4_096;

/// The most bytes of them.
const IN_FLIGHT_SIZE_MAX: usize = 16 * 1024 * 1024;

/// About how many bytes of entries one request holds.
pub(crate) const APPLY_SIZE_MAX: usize = 4 * 1024 * 1024;

/// Sync the engine when this many bytes of entries were applied since the last sync...
const SYNC_SIZE: usize = 32 * 1024 * 1024;

/// ...or when the oldest of them was applied this long ago.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait before reading again what the log could not serve.
const READ_RETRY: Duration = Duration::from_millis(100);

/// One request that was handed over.
#[derive(Clone, Debug)]
struct InFlight {
    /// Its last index.
    last: Index,
    /// How many entries it has.
    count: usize,
    /// Their bytes.
    size: usize,
    /// The local requests that wait for one of them.
    requests: Vec<RequestId>,
}

/// What a request that was applied leaves to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The local requests that waited for an entry of it.
    pub(crate) requests: Vec<RequestId>,
}

/// The state of one group's state machine as the node knows it.
///
/// # Invariants
/// 1. `synced <= applied.position.index < next <= target + 1`, but that `next` runs ahead of `applied` by what is in
///    flight.
/// 2. While a snapshot is being installed, nothing new is handed over.
#[derive(Debug)]
pub(crate) struct Machine {
    /// How far it has come.
    applied: Applied,
    /// How far it has come durably.
    synced: Index,
    /// The next index to hand over.
    next: Index,
    /// The last index that the protocol allows.
    target: Index,
    /// Requests handed over, in order.
    in_flight: VecDeque<InFlight>,
    /// Entries in them.
    in_flight_count: usize,
    /// Bytes in them.
    in_flight_size: usize,
    /// The read of the log that must come back before more can be handed over.
    reading: Option<ReadId>,
    /// When to read again what the log could not serve.
    retry_at: Option<Instant>,
    /// Whether a snapshot is being installed.
    installing: bool,
    /// Bytes applied since the last sync was asked for.
    dirty_size: usize,
    /// When the first of them was applied.
    dirty_since: Option<Instant>,
    /// Whether a sync is under way.
    syncing: bool,
    /// Requests never cross a multiple of this, so that the digest there becomes known.
    digest_interval: u64,
}

/// Entries to be handed over, or to be read first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The first index.
    pub(crate) first: Index,
    /// The last.
    pub(crate) last: Index,
}

impl Machine {
    /// A state machine that has come this far durably.
    pub(crate) fn new(applied: Applied, digest_interval: u64) -> Machine {
        let index = applied.position.index;
        Machine {
            applied,
            synced: index,
            next: index.next(),
            target: index,
            in_flight: VecDeque::new(),
            in_flight_count: 0,
            in_flight_size: 0,
            reading: None,
            retry_at: None,
            installing: false,
            dirty_size: 0,
            dirty_since: None,
            syncing: false,
            digest_interval: digest_interval.max(1),
        }
    }

    /// How far it has come.
    pub(crate) fn applied(&self) -> Applied {
        self.applied
    }

    /// How far it has come durably.
    pub(crate) fn synced(&self) -> Index {
        self.synced
    }

    /// The digest, as the protocol is told it.
    pub(crate) fn digest(&self) -> Option<Digest> {
        (self.applied.position.index > Index::ZERO).then_some(self.applied.digest)
    }

    /// The protocol allows everything up to `last`.
    pub(crate) fn allow(&mut self, last: Index) {
        self.target = self.target.max(last);
    }

    /// What to hand over next, if anything may be.
    pub(crate) fn wanted(&self) -> Option<Wanted> {
        let is_full = self.in_flight_count >= IN_FLIGHT_COUNT_MAX
            || self.in_flight_size >= IN_FLIGHT_SIZE_MAX;
        if self.next > self.target
            || is_full
            || self.installing
            || self.reading.is_some()
            || self.retry_at.is_some()
        {
            return None;
        }
        let first = self.next;
        let room = (IN_FLIGHT_COUNT_MAX - self.in_flight_count) as u64;
        let boundary = first.0.next_multiple_of(self.digest_interval);
        let last = self.target.0.min(boundary).min(first.0 + room - 1);
        Some(Wanted { first, last: Index(last) })
    }

    /// Whether entries that may be applied wait for earlier ones to be.
    pub(crate) fn is_held_up(&self) -> bool {
        self.next <= self.target
    }

    /// What is wanted is being read.
    pub(crate) fn reading(&mut self, read: ReadId) {
        self.reading = Some(read);
    }

    /// Whether this read was for the state machine; it is over now.
    pub(crate) fn take_read(&mut self, read: ReadId) -> bool {
        let is_ours = self.reading == Some(read);
        if is_ours {
            self.reading = None;
        }
        is_ours
    }

    /// The log cannot serve the next entry for now.
    pub(crate) fn stall(&mut self, now: Instant) {
        self.retry_at = Some(now + READ_RETRY);
    }

    /// Those of the slots read that are next, without a gap and within what is allowed.
    pub(crate) fn usable(&self, slots: Vec<Slot>) -> Vec<Slot> {
        if self.installing {
            return Vec::new();
        }
        let mut expected = self.next;
        let fits = |slot: &Slot| {
            let fits = slot.index == expected && slot.index <= self.target;
            expected = expected.next();
            fits
        };
        slots.into_iter().take_while(fits).collect()
    }

    /// These were handed over; `requests` wait for some of them.
    pub(crate) fn handed_over(&mut self, slots: &[Slot], requests: Vec<RequestId>) {
        let Some(last) = slots.last() else { return };
        assert!(slots[0].index == self.next, "entries are handed over without a gap");
        let size = slots.iter().map(|slot| slot.entry.encoded_size()).sum();
        self.next = last.index.next();
        self.in_flight_count += slots.len();
        self.in_flight_size += size;
        let in_flight = InFlight { last: last.index, count: slots.len(), size, requests };
        self.in_flight.push_back(in_flight);
    }

    /// The oldest request handed over was applied. An error when that is not what the completion says.
    pub(crate) fn on_applied(&mut self, now: Instant, applied: Applied) -> Result<Outcome, String> {
        let Some(done) = self.in_flight.pop_front() else {
            return Err(format!("applied {} without being asked", applied.position));
        };
        if done.last != applied.position.index {
            return Err(format!("applied up to {}, asked for {}", applied.position, done.last));
        }
        self.in_flight_count -= done.count;
        self.in_flight_size -= done.size;
        self.applied = applied;
        self.dirty_size += done.size;
        self.dirty_since.get_or_insert(now);
        Ok(Outcome { requests: done.requests })
    }

    /// Whether a sync is to be asked for now; it then counts as asked for.
    pub(crate) fn take_sync(&mut self, now: Instant) -> bool {
        let is_due = self.dirty_size >= SYNC_SIZE
            || self.dirty_since.is_some_and(|since| since + SYNC_INTERVAL <= now);
        is_due && self.take_sync_now()
    }

    /// Whether a sync can be asked for now; it then counts as asked for.
    pub(crate) fn take_sync_now(&mut self) -> bool {
        if self.syncing || self.installing {
            return false;
        }
        self.dirty_size = 0;
        self.dirty_since = None;
        self.syncing = true;
        true
    }

    /// What was applied up to here is durable.
    pub(crate) fn on_synced(&mut self, applied: Applied) {
        self.syncing = false;
        self.synced = self.synced.max(applied.position.index.min(self.applied.position.index));
    }

    /// A snapshot is about to be installed.
    pub(crate) fn begin_install(&mut self) {
        self.installing = true;
        self.reading = None;
    }

    /// The install failed; the live state is as before.
    pub(crate) fn install_failed(&mut self) {
        self.installing = false;
    }

    /// A snapshot is the live state, durably.
    pub(crate) fn installed(&mut self, applied: Applied) {
        self.installing = false;
        self.applied = applied;
        self.synced = applied.position.index;
        self.next = applied.position.index.next();
        self.target = self.target.max(applied.position.index);
        self.dirty_size = 0;
        self.dirty_since = None;
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
        }
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let sync = self.dirty_since.filter(|_| !self.syncing && !self.installing);
        [sync.map(|since| since + SYNC_INTERVAL), self.retry_at].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_types::{Entry, EntryKind, Epoch, NodeId, Origin, Position, TransactionId};
    use std::ops::RangeInclusive;

    const EPOCH: Epoch = Epoch::new(1, NodeId(1));

    fn at(index: u64) -> Applied {
        let position = if index == 0 { Position::ZERO } else { Position::new(Index(index), EPOCH) };
        Applied { position, digest: Digest(index) }
    }

    fn machine(target: u64) -> Machine {
        let mut machine = Machine::new(at(0), u64::MAX);
        machine.allow(Index(target));
        machine
    }

    fn seconds(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn slots(indices: RangeInclusive<u64>, size: usize) -> Vec<Slot> {
        let (kind, body) = (EntryKind::Command, Bytes::from(vec![0; size]));
        let entry = Entry::new(EPOCH, kind, Origin::NONE, TransactionId(0), body);
        let slot = |index| Slot { index: Index(index), accepted: EPOCH, entry: entry.clone() };
        indices.map(slot).collect()
    }

    fn wanted(machine: &Machine) -> Option<RangeInclusive<u64>> {
        machine.wanted().map(|wanted| wanted.first.0..=wanted.last.0)
    }

    #[test]
    fn the_digest_is_known_once_something_is_applied() {
        assert_eq!(Machine::new(at(0), 1).digest(), None);
        assert_eq!(Machine::new(at(7), 1).digest(), Some(Digest(7)));
    }

    #[test]
    fn entries_in_flight_are_bounded_in_number() {
        let mut machine = machine(10_000);
        assert_eq!(wanted(&machine), Some(1..=4_096));
        machine.handed_over(&slots(1..=4_000, 0), Vec::new());
        assert_eq!(wanted(&machine), Some(4_001..=4_096));
        machine.handed_over(&slots(4_001..=4_096, 0), Vec::new());
        assert_eq!(wanted(&machine), None);
        assert!(machine.is_held_up());
        machine.on_applied(seconds(0), at(4_000)).expect("it was asked for");
        assert_eq!(wanted(&machine), Some(4_097..=8_096));
        machine.on_applied(seconds(0), at(4_096)).expect("it was asked for");
        assert_eq!(wanted(&machine), Some(4_097..=8_192));
        machine.handed_over(&slots(4_097..=8_192, 0), Vec::new());
        machine.on_applied(seconds(0), at(8_192)).expect("it was asked for");
        machine.handed_over(&slots(8_193..=10_000, 0), Vec::new());
        assert_eq!(wanted(&machine), None);
        assert!(!machine.is_held_up(), "nothing more is allowed");
    }

    #[test]
    fn entries_in_flight_are_bounded_in_size() {
        const MEBIBYTE: usize = 1024 * 1024;
        let mut machine = machine(100);
        for index in 1..=16 {
            assert_eq!(wanted(&machine), Some(index..=100));
            machine.handed_over(&slots(index..=index, MEBIBYTE), Vec::new());
        }
        assert_eq!(wanted(&machine), None);
        for index in 1..=2 {
            machine.on_applied(seconds(0), at(index)).expect("it was asked for");
        }
        assert_eq!(wanted(&machine), Some(17..=100));
        for index in 17..=18 {
            machine.handed_over(&slots(index..=index, MEBIBYTE), Vec::new());
        }
        assert_eq!(wanted(&machine), None);
    }

    #[test]
    fn a_read_an_install_and_a_stall_each_hold_up_what_is_wanted() {
        let mut reading = machine(5);
        reading.reading(ReadId(3));
        assert_eq!(wanted(&reading), None);
        assert!(!reading.take_read(ReadId(2)));
        assert!(reading.take_read(ReadId(3)));
        assert_eq!(wanted(&reading), Some(1..=5));

        let mut installing = machine(5);
        installing.begin_install();
        assert_eq!(wanted(&installing), None);
        assert!(installing.usable(slots(1..=5, 0)).is_empty());
        assert!(!installing.take_sync_now());
        installing.install_failed();
        assert_eq!(wanted(&installing), Some(1..=5));
        installing.begin_install();
        installing.installed(at(3));
        assert_eq!(wanted(&installing), Some(4..=5));

        let mut stalled = machine(5);
        stalled.stall(seconds(1));
        assert_eq!(wanted(&stalled), None);
        assert_eq!(stalled.next_deadline(), Some(seconds(1) + READ_RETRY));
        stalled.on_time(seconds(1));
        assert_eq!(wanted(&stalled), None);
        stalled.on_time(seconds(2));
        assert_eq!(wanted(&stalled), Some(1..=5));
        assert_eq!(stalled.next_deadline(), None);
    }

    #[test]
    fn of_what_was_read_only_what_is_next_and_allowed_is_of_use() {
        let mut machine = machine(4);
        let usable = |machine: &Machine, slots| {
            machine.usable(slots).iter().map(|slot| slot.index.0).collect::<Vec<_>>()
        };
        assert_eq!(usable(&machine, slots(1..=6, 0)), [1, 2, 3, 4]);
        assert_eq!(usable(&machine, slots(2..=3, 0)), [0; 0]);
        let gap = [slots(1..=2, 0), slots(4..=4, 0)].concat();
        assert_eq!(usable(&machine, gap), [1, 2]);
        machine.handed_over(&slots(1..=2, 0), Vec::new());
        assert_eq!(usable(&machine, slots(3..=9, 0)), [3, 4]);
    }

    #[test]
    fn a_sync_is_asked_for_after_so_many_bytes_or_so_much_time_and_one_at_a_time() {
        let mut machine = machine(1_000);
        let mut next = 1;
        let mut apply = |machine: &mut Machine, now, size| {
            machine.handed_over(&slots(next..=next, size), Vec::new());
            machine.on_applied(now, at(next)).expect("it was asked for");
            next += 1;
        };
        assert!(!machine.take_sync(seconds(9)));
        assert_eq!(machine.next_deadline(), None);
        for _ in 0..2 {
            apply(&mut machine, seconds(10), 10);
        }
        assert_eq!(machine.next_deadline(), Some(seconds(11)));
        assert!(!machine.take_sync(seconds(10)));
        assert!(machine.take_sync(seconds(11)));
        assert_eq!(machine.next_deadline(), None);
        apply(&mut machine, seconds(11), 10);
        assert!(!machine.take_sync(seconds(20)), "one is under way");
        assert_eq!(machine.next_deadline(), None);
        assert_eq!(machine.synced(), Index(0));
        machine.on_synced(at(2));
        assert_eq!(machine.synced(), Index(2));
        assert!(machine.take_sync(seconds(20)));
        machine.on_synced(at(3));
        for count in 1..=32 {
            assert!(!machine.take_sync(seconds(30)), "{count}");
            apply(&mut machine, seconds(30), 1024 * 1024);
        }
        assert!(machine.take_sync(seconds(30)));
    }

    #[test]
    fn an_apply_that_was_not_asked_for_is_an_error() {
        let mut machine = machine(9);
        assert!(machine.on_applied(seconds(0), at(1)).is_err());
        machine.handed_over(&slots(1..=3, 0), vec![RequestId(5)]);
        let outcome = machine.on_applied(seconds(0), at(3));
        assert_eq!(outcome, Ok(Outcome { requests: vec![RequestId(5)] }));
        machine.handed_over(&slots(4..=6, 0), Vec::new());
        assert!(machine.on_applied(seconds(0), at(5)).is_err());
    }
}
