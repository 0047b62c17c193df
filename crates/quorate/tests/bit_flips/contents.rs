//! What a log serves when it is opened as a node does it, and the verdict on a damaged one.

use quorate_log::{DamageReport, Log, LogEvent, LogOptions, ReadId};
use quorate_runtime::FileReader;
use quorate_types::{
    DiskDone, DiskOp, DiskOutput, DiskReader, GroupId, Index, LogSummary, Slot, SlotFault,
};
use std::collections::BTreeMap;
use std::path::Path;

/// The group of the store.
const GROUP: GroupId = GroupId(0);

/// Everything that a log says and serves of the store's group.
#[derive(Clone, Debug)]
pub(super) struct Contents {
    /// What it says of itself.
    pub(super) summary: LogSummary,
    /// What it serves.
    pub(super) slots: BTreeMap<Index, Slot>,
    /// What it reports.
    pub(super) reports: Vec<DamageReport>,
}

impl Contents {
    /// Opens the log of a data folder and reads every slot. Nothing is written.
    pub(super) fn read(data_dir: &Path) -> Result<Contents, String> {
        let reader = FileReader::new(data_dir);
        let opened = Log::open(&reader, LogOptions::default());
        let (mut log, recovery) = opened.map_err(|error| error.to_string())?;
        let summary = recovery.groups.get(&GROUP).cloned().ok_or("the group is gone")?;
        let (mut slots, mut reports) = (BTreeMap::new(), recovery.reports);
        let last = summary.bounds.last;
        let mut next = summary.bounds.purged.index.next();
        while next <= last {
            let (found, report) = fetch(&mut log, &reader, next, last);
            next = found.last().map_or(next, |slot| slot.index).next();
            slots.extend(found.into_iter().map(|slot| (slot.index, slot)));
            reports.extend(report);
        }
        Ok(Contents { summary, slots, reports })
    }

    /// Whether `found`, read from the same log after some bytes of it were changed, is true: what it serves is what
    /// was written, what it does not serve it calls damaged and reports, and it ends where it ended.
    pub(super) fn check(&self, found: &Contents) -> Result<(), String> {
        let (summary, whole) = (&found.summary, &self.summary);
        if summary.hard_state.is_some() && summary.hard_state != whole.hard_state {
            return Err(format!("another hard state: {:?}", summary.hard_state));
        }
        if summary.hard_state.is_none() && found.reports.is_empty() {
            return Err("the hard state is lost without a word".into());
        }
        if summary.bounds.last < whole.bounds.last {
            return Err(format!("cut at {} of {}", summary.bounds.last, whole.bounds.last));
        }
        for (index, slot) in &found.slots {
            if self.slots.get(index) != Some(slot) {
                return Err(format!("slot {index} is served and was never written: {slot:?}"));
            }
        }
        for (index, slot) in self.slots.iter().filter(|(index, _)| !found.slots.contains_key(index))
        {
            let fault = summary.faults.iter().find(|fault| fault.index() == *index);
            match fault {
                Some(SlotFault::DamagedKnown(position)) if *position == slot.position() => {}
                Some(SlotFault::DamagedUnknown(_)) => {}
                None if found.fetched_as_damaged(*index) => {}
                other => return Err(format!("slot {index} is not served, but {other:?}")),
            }
            if !found.names(*index) {
                return Err(format!("slot {index} is lost without a word: {:?}", found.reports));
            }
        }
        Ok(())
    }

    /// Whether the damage of this very slot was found when it was fetched.
    fn fetched_as_damaged(&self, index: Index) -> bool {
        self.reports.iter().any(|report| report.index == Some(index))
    }

    /// Whether a report names the group and this slot, or one before from which on slots are lost.
    fn names(&self, index: Index) -> bool {
        let names = |report: &DamageReport| {
            report.group == Some(GROUP) && report.index.is_some_and(|first| first <= index)
        };
        self.reports.iter().any(names)
    }
}

/// One fetch, driven to its end; what the log asks the disk to write meanwhile is left undone.
fn fetch(
    log: &mut Log,
    reader: &FileReader,
    first: Index,
    last: Index,
) -> (Vec<Slot>, Option<DamageReport>) {
    log.fetch(GROUP, ReadId(first.0), first, last, usize::MAX);
    loop {
        while let Some(event) = log.poll_event() {
            if let LogEvent::Fetched { slots, damaged, .. } = event {
                return (slots, damaged.map(|damage| damage.report));
            }
        }
        let request = log.poll().expect("a fetch is answered or reads");
        if let DiskOp::Read { file, offset, size } = &request.op {
            let result = reader.read(file, *offset, *size).map(DiskOutput::Read);
            log.handle(quorate_types::Instant::ZERO, DiskDone { id: request.id, result });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_log::DamageWhat;
    use quorate_types::{
        Bounds, Entry, EntryKind, Epoch, FileName, HardState, NodeId, Origin, Position,
        TransactionId,
    };

    fn slot(index: u64, body: &'static str) -> Slot {
        let epoch = Epoch::new(1, NodeId(1));
        let body = bytes::Bytes::from_static(body.as_bytes());
        let entry = Entry::new(epoch, EntryKind::Command, Origin::NONE, TransactionId(0), body);
        Slot { index: Index(index), accepted: epoch, entry }
    }

    fn contents() -> Contents {
        let bounds = Bounds { last: Index(2), ..Bounds::default() };
        let hard_state = Some(HardState::default());
        let summary = LogSummary { hard_state, bounds, ..LogSummary::default() };
        let slots = [slot(1, "one"), slot(2, "two")].map(|slot| (slot.index, slot));
        Contents { summary, slots: slots.into(), reports: Vec::new() }
    }

    /// The same without its second slot, which is called damaged but not reported.
    fn lossy() -> Contents {
        let mut found = contents();
        let slot = found.slots.remove(&Index(2)).expect("it has two");
        found.summary.faults.push(SlotFault::DamagedKnown(slot.position()));
        found
    }

    fn report() -> DamageReport {
        DamageReport {
            file: FileName::new("log/1.seg"),
            offset: 512,
            group: Some(GROUP),
            index: Some(Index(2)),
            what: DamageWhat::Missing,
        }
    }

    #[test]
    fn a_loss_that_is_told_is_accepted_and_nothing_else() {
        assert_eq!(contents().check(&contents()), Ok(()));
        let told = Contents { reports: vec![report()], ..lossy() };
        assert_eq!(contents().check(&told), Ok(()));
        let check = |found: &Contents, part: &str| {
            let error = contents().check(found).expect_err(part);
            assert!(error.contains(part), "{error}");
        };
        check(&lossy(), "lost without a word");
        let elsewhere = DamageReport { index: Some(Index(3)), ..report() };
        check(&Contents { reports: vec![elsewhere], ..lossy() }, "lost without a word");
        let mut wrong = contents();
        wrong.slots.insert(Index(2), slot(2, "too"));
        check(&wrong, "never written");
        let mut cut = contents();
        cut.slots.remove(&Index(2));
        check(&cut, "is not served");
        cut.summary.bounds.last = Index(1);
        check(&cut, "cut at 1 of 2");
        let mut misnamed = told;
        let position = Position::new(Index(2), Epoch::new(9, NodeId(1)));
        misnamed.summary.faults = vec![SlotFault::DamagedKnown(position)];
        check(&misnamed, "is not served");
    }
}
