//! A batch while it is filled: ops are encoded as they come, so that nothing is left to do when the disk is free.

use crate::format::SegmentNumber;
use crate::item::{EntryMark, Item, WriteRun};
use crate::slots::Location;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    Configuration, ENTRY_HEADER_SIZE, Entry, EntryKind, GroupId, Index, Op, Slot, WriteId,
};

/// Bodies at or above this size in bytes go to disk as they are; smaller ones are gathered.
const COPIED_BODY_SIZE_MAX: usize = 4096;

/// What several submissions wait for.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// What it changes, in order.
    pub(crate) items: Vec<Item>,
    /// Configurations among the entries: the position of their item, and their place.
    pub(crate) configurations: Vec<(usize, GroupId, Index, Configuration)>,
    /// Encoded entries that are complete chunks.
    chunks: Vec<Bytes>,
    /// Encoded entries after the last chunk.
    gathered: BytesMut,
    /// The size of all encoded entries in bytes.
    pub(crate) bodies_size: usize,
    /// About how many bytes the directory takes.
    items_size: usize,
    /// Who waits.
    pub(crate) writes: Vec<(GroupId, WriteId)>,
    /// The last submission in it, as the cache counts them.
    pub(crate) submission: u64,
}

impl Batch {
    /// An empty batch with room for about `size` bytes of small entries.
    pub(crate) fn with_capacity(size: usize) -> Batch {
        Batch { gathered: BytesMut::with_capacity(size), ..Batch::default() }
    }

    /// About how many bytes it takes on disk.
    pub(crate) fn size(&self) -> usize {
        self.bodies_size + 2 * self.items_size
    }

    /// Makes room for the entries among `ops`, so that it does not grow with each of them.
    pub(crate) fn reserve(&mut self, ops: &[Op]) {
        let size_of = |op: &Op| match op {
            Op::Write(slot) if slot.entry.body().len() < COPIED_BODY_SIZE_MAX => {
                slot.entry.encoded_size()
            }
            Op::Write(_) => ENTRY_HEADER_SIZE,
            Op::HardState(_) | Op::Truncate(_) | Op::Purge(_) | Op::Reset(_, _) => 0,
        };
        self.gathered.reserve(ops.iter().map(size_of).sum());
    }

    /// Adds an op other than an entry.
    pub(crate) fn push_item(&mut self, item: Item) {
        self.items_size += 128;
        self.items.push(item);
    }

    /// Adds an entry.
    pub(crate) fn push_slot(&mut self, group: GroupId, slot: &Slot) {
        let offset = u32::try_from(self.bodies_size).expect("one batch is below 4 GiB");
        let created = slot.entry.created();
        if slot.entry.kind() == EntryKind::Configuration
            && let Ok(configuration) = Configuration::decode(slot.entry.body().clone())
        {
            let item = match self.continued_run(group, slot) {
                Some(_) => self.items.len() - 1,
                None => self.items.len(),
            };
            self.configurations.push((item, group, slot.index, configuration));
        }
        let mark = EntryMark {
            size: u32::try_from(slot.entry.encoded_size()).expect("bodies are limited"),
            check: check_of(&slot.entry),
        };
        self.items_size += 8;
        match self.continued_run(group, slot) {
            Some(run) => run.entries.push(mark),
            None => {
                let accepted = slot.accepted;
                let entries = vec![mark];
                let run = WriteRun { group, first: slot.index, created, accepted, offset, entries };
                self.push_item(Item::Write(run));
            }
        }
        self.push_entry(&slot.entry);
    }

    /// The run that the slot continues, if the last item is one.
    fn continued_run(&mut self, group: GroupId, slot: &Slot) -> Option<&mut WriteRun> {
        match self.items.last_mut() {
            Some(Item::Write(run))
                if run.group == group
                    && run.first.0 + run.entries.len() as u64 == slot.index.0
                    && run.created == slot.entry.created()
                    && run.accepted == slot.accepted =>
            {
                Some(run)
            }
            _ => None,
        }
    }

    fn push_entry(&mut self, entry: &Entry) {
        self.bodies_size += entry.encoded_size();
        self.gathered.put_slice(&entry.encoded_header());
        if entry.body().len() < COPIED_BODY_SIZE_MAX {
            self.gathered.put_slice(entry.body());
        } else {
            self.chunks.push(self.gathered.split().freeze());
            self.chunks.push(entry.body().clone());
        }
    }

    /// Takes the encoded entries out, in order.
    pub(crate) fn take_bodies(&mut self) -> Vec<Bytes> {
        let mut chunks = std::mem::take(&mut self.chunks);
        if !self.gathered.is_empty() {
            chunks.push(self.gathered.split().freeze());
        }
        chunks
    }
}

/// What ties an entry to its slot.
pub(crate) fn check_of(entry: &Entry) -> u32 {
    u32::try_from(entry.hash().0 & u64::from(u32::MAX)).expect("the low half has 32 bits")
}

/// Where the entries of a run lie, once the batch has its place.
pub(crate) fn locations(
    run: &WriteRun,
    segment: SegmentNumber,
    bodies_offset: u64,
) -> impl ExactSizeIterator<Item = Location> {
    let mut offset = bodies_offset + u64::from(run.offset);
    run.entries.iter().map(move |mark| {
        let location = Location::new(segment, offset, mark.size, mark.check);
        offset += u64::from(mark.size);
        location
    })
}

/// The items and slots of an op; the one place where ops become what is on disk.
pub(crate) fn push_op(batch: &mut Batch, group: GroupId, op: Op) -> Option<Slot> {
    match op {
        Op::Write(slot) => {
            batch.push_slot(group, &slot);
            return Some(slot);
        }
        Op::HardState(state) => batch.push_item(Item::HardState(group, state)),
        Op::Truncate(index) => batch.push_item(Item::Truncate(group, index)),
        Op::Purge(position) => batch.push_item(Item::Purge(group, position)),
        Op::Reset(position, configuration) => {
            batch.push_item(Item::Reset(group, position, configuration));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Epoch, NodeId, Origin, TransactionId};

    fn slot(index: u64, created: u64, accepted: u64, body: &Bytes) -> Slot {
        let epoch = |number| Epoch::new(number, NodeId(1));
        let (kind, origin) = (EntryKind::Command, Origin::NONE);
        let entry = Entry::new(epoch(created), kind, origin, TransactionId(0), body.clone());
        Slot { index: Index(index), accepted: epoch(accepted), entry }
    }

    #[test]
    fn slots_that_follow_each_other_in_everything_are_one_run() {
        let pushed = [
            [0, 5, 1, 1],
            [0, 6, 1, 1],
            [0, 7, 1, 1],
            [0, 9, 1, 1],
            [0, 8, 1, 1],
            [0, 9, 1, 1],
            [0, 9, 1, 1],
            [0, 10, 1, 2],
            [0, 11, 2, 2],
            [1, 12, 2, 2],
        ];
        let mut batch = Batch::default();
        for [group, index, created, accepted] in pushed {
            let body = Bytes::from(vec![7; 100]);
            batch.push_slot(GroupId(group), &slot(index, created, accepted, &body));
        }
        let run = |item: &Item| {
            let Item::Write(run) = item else { return None };
            Some((run.group.0, run.first.0, run.entries.len(), run.offset))
        };
        let runs: Vec<_> = batch.items.iter().filter_map(run).collect();
        let expected = [
            (0, 5, 3, 0),
            (0, 9, 1, 3 * 164),
            (0, 8, 2, 4 * 164),
            (0, 9, 1, 6 * 164),
            (0, 10, 1, 7 * 164),
            (0, 11, 1, 8 * 164),
            (1, 12, 1, 9 * 164),
        ];
        assert_eq!(runs, expected);
    }

    #[test]
    fn large_bodies_go_to_disk_without_a_copy_and_small_ones_gathered() {
        let body = |size| Bytes::from(vec![7; size]);
        let (small, large) = (body(COPIED_BODY_SIZE_MAX - 1), body(COPIED_BODY_SIZE_MAX));
        let mut batch = Batch::default();
        let bodies = [&small, &large, &small, &small];
        let slots = bodies.iter().zip(1..).map(|(body, index)| slot(index, 1, 1, body));
        let mut encoded = Vec::new();
        for slot in slots {
            batch.push_slot(GroupId(0), &slot);
            encoded.extend_from_slice(&slot.entry.encoded_header());
            encoded.extend_from_slice(slot.entry.body());
        }
        let chunks = batch.take_bodies();
        assert_eq!(chunks.len(), 3);
        assert_eq!(chunks[1].as_ptr(), large.as_ptr());
        assert_eq!(chunks.concat(), encoded);
    }
}
