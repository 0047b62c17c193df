//! A disk that keeps live and durable bytes apart.

use quorate_types::{
    Bounds, Configuration, EntryKind, EpochRun, HardState, Index, LogSummary, Op, Position, Slot,
    SlotFault, WriteId,
};
use std::collections::{BTreeMap, VecDeque};

/// One group's log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    pub(crate) hard: Option<HardState>,
    pub(crate) purged: Position,
    pub(crate) slots: BTreeMap<Index, Slot>,
    pub(crate) faults: BTreeMap<Index, SlotFault>,
    /// The configuration in force at `purged`.
    base: Option<(Index, Configuration)>,
}

impl Log {
    fn change(&mut self, op: &Op) {
        match op {
            Op::HardState(hard) => self.hard = Some(*hard),
            Op::Write(slot) => {
                assert!(slot.index > self.purged.index, "{op} below {}", self.purged);
                self.faults.remove(&slot.index);
                self.slots.insert(slot.index, slot.clone());
            }
            Op::Truncate(from) => {
                self.slots.split_off(from);
                self.faults.split_off(from);
            }
            Op::Purge(position) => {
                let found = self.slots.get(&position.index).map(Slot::position);
                assert_eq!(found, Some(*position), "purge of a slot that is not there");
                self.base = Some((position.index, self.configuration_at(position.index)));
                self.slots = self.slots.split_off(&position.index.next());
                self.faults = self.faults.split_off(&position.index.next());
                self.purged = *position;
            }
            Op::Reset(position, configuration) => {
                self.slots.clear();
                self.faults.clear();
                self.purged = *position;
                self.base = Some((position.index, configuration.clone()));
            }
        }
    }

    fn configurations(&self) -> Vec<(Index, Configuration)> {
        let inside = self.slots.values().filter(|slot| {
            slot.entry.kind() == EntryKind::Configuration && !self.faults.contains_key(&slot.index)
        });
        let inside = inside.map(|slot| {
            let configuration = Configuration::decode(slot.entry.body().clone()).expect("ours");
            (slot.index, configuration)
        });
        self.base.iter().cloned().chain(inside).collect()
    }

    /// The configuration in force at `index`, and every later one.
    pub(crate) fn configurations_from(&self, index: Index) -> Vec<Configuration> {
        let all = self.configurations();
        let first = all.iter().rposition(|(at, _)| *at <= index).unwrap_or(0);
        all.into_iter().skip(first).map(|(_, configuration)| configuration).collect()
    }

    pub(crate) fn configuration_at(&self, index: Index) -> Configuration {
        let all = self.configurations();
        let below = all.into_iter().rev().find(|(at, _)| *at <= index);
        below.map(|(_, configuration)| configuration).unwrap_or_default()
    }

    pub(crate) fn last(&self) -> Index {
        self.slots.keys().next_back().copied().unwrap_or(self.purged.index)
    }

    pub(crate) fn summary(&self) -> LogSummary {
        let mut epochs: Vec<EpochRun> = Vec::new();
        for slot in self.slots.values() {
            let run = EpochRun {
                first: slot.index,
                created: slot.entry.created(),
                accepted: slot.accepted,
            };
            let same = |old: &EpochRun| old.created == run.created && old.accepted == run.accepted;
            let is_known = match self.faults.get(&slot.index) {
                None | Some(SlotFault::DamagedKnown(_)) => true,
                Some(SlotFault::Absent(_) | SlotFault::DamagedUnknown(_)) => false,
            };
            if is_known && !epochs.last().is_some_and(same) {
                epochs.push(run);
            }
        }
        LogSummary {
            hard_state: self.hard,
            bounds: Bounds { purged: self.purged, last: self.last() },
            epochs,
            faults: self.faults.values().copied().collect(),
            configurations: self.configurations(),
        }
    }
}

impl Log {
    /// Before the first slot that may be lost: a founder's first one says who the members are.
    pub(crate) fn start(&self) -> Index {
        self.purged.index.max(Index(u64::from(self.base.is_none())))
    }

    /// Whether an epoch begins at `index` and goes on after it.
    pub(crate) fn begins_epoch(&self, index: Index) -> bool {
        let epoch = |index| Some(self.slots.get(&index)?.entry.created());
        epoch(index.previous()) != epoch(index) && epoch(index) == epoch(index.next())
    }

    /// Loses the slots from `from` on without a trace.
    pub(crate) fn lose_end(&mut self, from: Index) {
        self.slots.split_off(&from);
        self.faults.split_off(&from);
    }

    /// Damages a slot; what it held stays known, or not.
    pub(crate) fn damage(&mut self, index: Index, is_known: bool) {
        let Some(slot) = self.slots.get(&index) else { return };
        let fault = match is_known {
            true => SlotFault::DamagedKnown(slot.position()),
            false => SlotFault::DamagedUnknown(index),
        };
        self.faults.insert(index, fault);
    }
}

/// The log as the process sees it, and as it would be after a power cut.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    pub(crate) live: Log,
    pub(crate) durable: Log,
    pub(crate) pending: VecDeque<(WriteId, Vec<Op>)>,
}

impl Disk {
    pub(crate) fn persist(&mut self, id: WriteId, ops: Vec<Op>) {
        ops.iter().for_each(|op| self.live.change(op));
        self.pending.push_back((id, ops));
    }

    /// The oldest write reaches the disk.
    pub(crate) fn complete(&mut self) -> Option<WriteId> {
        let (id, ops) = self.pending.pop_front()?;
        ops.iter().for_each(|op| self.durable.change(op));
        Some(id)
    }

    /// Power is cut: what is pending is lost, but for a prefix of `kept` writes.
    pub(crate) fn crash(&mut self, kept: usize) {
        for _ in 0..kept.min(self.pending.len()) {
            self.complete();
        }
        self.pending.clear();
        self.live = self.durable.clone();
    }
}
