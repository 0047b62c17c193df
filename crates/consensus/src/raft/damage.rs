//! What of the log or the hard state cannot be relied on.
//!
//! A damaged slot is *known* when it is certain which position stood there: its entry's created epoch is still legible,
//! or follows from its neighbours, because terms never fall along a log. A position belongs to one entry only (a
//! leader of a term writes each index once), so a known slot has lost bytes but no meaning: the replica can still
//! tell how far its log reaches and what it contradicts, and the same position of any other log gives the bytes
//! back. An *unknown* slot could have held anything.

use super::survey::Survey;
use crate::tail::Tail;
use quorate_types::{Epoch, Index, Instant, LogSummary, Mistake, NodeId, Position, SlotFault};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The damage of one replica.
#[derive(Clone, Debug)]
pub(super) struct Damage {
    /// Slots that cannot be served.
    faults: BTreeMap<Index, SlotFault>,
    /// A leader has put entries into unknown slots, or the end of the log is uncertain, and no leader has proved the log
    /// whole since: what follows a refilled slot may be of another history.
    pub(super) mixed: bool,
    /// Slots, from the first to the last, that were not looked at since one before them was found damaged. What took that
    /// one, a lost write or a bad page, may have taken them as well.
    suspects: Option<(Index, Index)>,
    /// Set while the hard state is lost.
    pub(super) survey: Option<Survey>,
}

impl Damage {
    /// What the log says of its damage at open; `context` names a survey, should one be needed.
    pub(super) fn open(
        log: &LogSummary,
        tail: &mut Tail,
        node: NodeId,
        applied: Position,
        context: u64,
    ) -> Damage {
        let is_forgotten = log.hard_state.is_none() && !Mistake::LossForgotten.is_made();
        let hard = log.hard_state.unwrap_or_default();
        let faults = log.faults.iter().map(|fault| (fault.index(), *fault)).collect();
        let survey = is_forgotten.then(|| Survey::new(context));
        // Where hard states were lost, so may have been the end of the log.
        let mixed = is_forgotten || hard.log_epoch == suspicion(node);
        let mut damage = Damage { faults, mixed, suspects: None, survey };
        if !mixed {
            damage.name_applied(tail, applied);
            damage.identify(tail, hard.log_epoch);
            // An unknown slot at the applied index itself may hide that a snapshot took its place just before a crash.
            damage.mixed = damage.is_unknown(applied.index) && applied.index < tail.last();
        }
        damage
    }

    /// Makes the slot at an applied position known, if what follows it is of the same epoch: that leader has created both
    /// entries in the one log that it had, so whoever holds the later one held the earlier.
    pub(super) fn name_applied(&mut self, tail: &mut Tail, applied: Position) {
        let next = self.first_known(applied.index);
        if next > applied.index && tail.epoch_at(next) == Some(applied.epoch) {
            self.name(tail, applied);
        }
    }

    /// Makes unknown slots known that lie between two of one epoch. After the last known slot nothing can be of a
    /// later epoch than `log_epoch`, the last leadership that the log took anything from.
    pub(super) fn identify(&mut self, tail: &mut Tail, log_epoch: Epoch) {
        let unknown: Vec<Index> =
            self.faults.keys().copied().filter(|index| self.is_unknown(*index)).collect();
        for first in unknown {
            let before = first.previous();
            let Some(epoch) = tail.epoch_at(before).filter(|_| !self.is_unknown(before)) else {
                continue;
            };
            let after = self.first_known(first.next());
            let bound = if after > tail.last() { Some(log_epoch) } else { tail.epoch_at(after) };
            if bound == Some(epoch) {
                self.name(tail, Position::new(first, epoch));
            }
        }
    }

    /// Whether the hard state is lost.
    pub(super) fn is_forgetful(&self) -> bool {
        self.survey.is_some()
    }

    /// When the search for a lost term goes on.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.survey.as_ref().map(|survey| survey.due)
    }

    /// Whether this log is one that a Raft replica once held, as far as it is known: no term and no later entry was
    /// lost, and nothing was put into it on trust.
    pub(super) fn is_genuine(&self) -> bool {
        !self.mixed && self.survey.is_none()
    }

    /// The lowest damaged slot above `index`.
    pub(super) fn first_fault_above(&self, index: Index) -> Option<Index> {
        self.faults_above(index).next().map(|(index, _)| index)
    }

    /// Whether an unknown slot lies above `index`.
    pub(super) fn has_unknown_above(&self, index: Index) -> bool {
        self.faults_above(index).any(|(_, fault)| !matches!(fault, SlotFault::DamagedKnown(_)))
    }

    /// Runs of unknown slots above `index`: the first of each, and what follows the run. The end of the log has nothing that
    /// follows.
    pub(super) fn gaps_above(&self, index: Index, tail: &Tail) -> Vec<(Index, Position)> {
        let mut runs: Vec<(Index, Index)> = Vec::new();
        for (index, fault) in self.faults_above(index) {
            match (fault, runs.last_mut()) {
                (SlotFault::DamagedKnown(_), _) => {}
                (_, Some((_, next))) if *next == index => *next = index.next(),
                (_, Some(_) | None) => runs.push((index, index.next())),
            }
        }
        let position = |(first, next)| Some((first, Position::new(next, tail.epoch_at(next)?)));
        runs.into_iter().filter_map(position).collect()
    }

    /// The positions of the known damaged slots above `index`, in order.
    pub(super) fn known_above(&self, index: Index) -> impl Iterator<Item = Position> + '_ {
        self.faults_above(index).filter_map(|(_, fault)| match fault {
            SlotFault::DamagedKnown(position) => Some(position),
            SlotFault::Absent(_) | SlotFault::DamagedUnknown(_) => None,
        })
    }

    fn faults_above(&self, index: Index) -> impl Iterator<Item = (Index, SlotFault)> + '_ {
        let above = (Bound::Excluded(index), Bound::Unbounded);
        // A range of an empty map is not free, and most maps are empty.
        let faults = (!self.faults.is_empty()).then(|| self.faults.range(above));
        faults.into_iter().flatten().map(|(index, fault)| (*index, *fault))
    }

    /// Whether the slot at `index` is damaged.
    pub(super) fn has_fault(&self, index: Index) -> bool {
        !self.faults.is_empty() && self.faults.contains_key(&index)
    }

    /// Whether the slot at `index` is damaged and could have held anything.
    pub(super) fn is_unknown(&self, index: Index) -> bool {
        match self.faults.get(&index) {
            None | Some(SlotFault::DamagedKnown(_)) => false,
            Some(SlotFault::Absent(_) | SlotFault::DamagedUnknown(_)) => true,
        }
    }

    /// It is known now what stood in an unknown slot.
    pub(super) fn name(&mut self, tail: &mut Tail, position: Position) {
        tail.name(position);
        self.faults.insert(position.index, SlotFault::DamagedKnown(position));
    }

    /// The first index from `index` on at which it is not unknown what stood there.
    pub(super) fn first_known(&self, index: Index) -> Index {
        let mut known = index;
        while self.is_unknown(known) {
            known = known.next();
        }
        known
    }

    /// Adds a slot that was found damaged.
    pub(super) fn add(&mut self, fault: SlotFault) {
        self.faults.insert(fault.index(), fault);
    }

    /// A slot was found damaged by a read: those behind it, up to `last`, are suspected of the same.
    pub(super) fn suspect_after(&mut self, index: Index, last: Index) {
        self.suspects = Some((index.next(), last));
    }

    /// Whether the slot at `index` is suspected of being damaged.
    pub(super) fn is_suspect(&self, index: Index) -> bool {
        self.suspects.is_some_and(|(first, last)| first <= index && index <= last)
    }

    pub(super) fn refilled(&mut self, index: Index) {
        self.faults.remove(&index);
        if let Some((first, last)) = self.suspects.filter(|(first, _)| *first == index) {
            self.suspects = (first < last).then_some((first.next(), last));
        }
    }

    pub(super) fn truncated(&mut self, from: Index) {
        if !self.faults.is_empty() {
            self.faults.split_off(&from);
        }
    }

    pub(super) fn purged(&mut self, index: Index) {
        if !self.faults.is_empty() {
            self.faults = self.faults.split_off(&index.next());
        }
    }

    /// The first slot of a known position at or above every damaged one of `purged < i <= synced`, if there is one up to `synced`.
    pub(super) fn known_past_faults(&self, purged: Index, synced: Index) -> Option<Index> {
        if self.faults.is_empty() || purged >= synced {
            return None;
        }
        let inside = (Bound::Excluded(purged), Bound::Included(synced));
        let (highest, _) = self.faults.range(inside).next_back()?;
        let known = if self.is_unknown(*highest) { highest.next() } else { *highest };
        (known <= synced).then_some(known)
    }
}

/// The `log_epoch` of a replica whose log is mixed: in line with nobody. It stays on disk over refills and restarts,
/// since a refilled slot may for a while stand before slots of another history.
pub(super) fn suspicion(node: NodeId) -> Epoch {
    Epoch::new(0, node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Bounds, EpochRun, HardState};

    fn epoch(number: u64) -> Epoch {
        Epoch::new(number, NodeId(1))
    }

    /// `log` has an epoch a slot, 0 where it is unknown; gives the epochs of the slots that are known or sound.
    fn check(log: &[u64], log_epoch: u64, expected: &[u64]) {
        check_applied(log, log_epoch, Position::ZERO, expected);
    }

    /// The same where the engine stands at `applied`.
    fn check_applied(log: &[u64], log_epoch: u64, applied: Position, expected: &[u64]) {
        let mut epochs = Vec::new();
        let mut faults = Vec::new();
        for (index, number) in (1..).map(Index).zip(log) {
            match number {
                0 => faults.push(SlotFault::DamagedUnknown(index)),
                _ => {
                    let run = epoch(*number);
                    epochs.push(EpochRun { first: index, created: run, accepted: run });
                }
            }
        }
        let bounds = Bounds { purged: Position::ZERO, last: Index(log.len() as u64) };
        let hard_state = HardState { log_epoch: epoch(log_epoch), ..HardState::default() };
        let hard_state = Some(hard_state);
        let configurations = Vec::new();
        let summary = LogSummary { hard_state, bounds, epochs, faults, configurations };
        let mut tail = Tail::open(summary.bounds, &summary.epochs);
        let damage = Damage::open(&summary, &mut tail, NodeId(1), applied, 0);
        let found: Vec<u64> = (1..=log.len() as u64)
            .map(Index)
            .map(|index| match damage.is_unknown(index) {
                true => 0,
                false => tail.epoch_at(index).expect("lies inside").number,
            })
            .collect();
        assert_eq!(found, expected, "{log:?} at {log_epoch}");
    }

    #[test]
    fn a_slot_between_two_of_one_epoch_is_of_that_epoch() {
        check(&[2, 0, 0, 2, 3], 3, &[2, 2, 2, 2, 3]);
        check(&[2, 0, 0, 3, 3], 3, &[2, 0, 0, 3, 3]);
        check(&[2, 3, 0, 0], 3, &[2, 3, 3, 3]);
        check(&[2, 3, 0, 0], 4, &[2, 3, 0, 0]);
        check(&[0, 2, 0, 2], 2, &[0, 2, 2, 2]);
    }

    #[test]
    fn a_slot_that_was_applied_is_known_by_what_follows() {
        let applied = |index, number| Position::new(Index(index), epoch(number));
        check_applied(&[2, 0, 0, 0, 3], 3, applied(3, 3), &[2, 0, 3, 3, 3]);
        // What follows is of another epoch, or nothing follows.
        check_applied(&[2, 0, 0, 0, 3], 3, applied(3, 2), &[2, 0, 0, 0, 3]);
        check_applied(&[2, 3, 0], 4, applied(3, 3), &[2, 3, 0]);
        check_applied(&[2, 3, 3], 3, applied(2, 3), &[2, 3, 3]);
    }
}
