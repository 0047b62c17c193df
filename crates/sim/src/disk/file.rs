//! One file: what reads see, what is durable, and what ails the device beneath.

use crate::dice::Dice;
use std::collections::BTreeSet;

/// The unit that a device writes whole or not at all.
const SECTOR_SIZE: usize = 512;

/// The unit that a device cannot read, when it cannot.
pub(super) const PAGE_SIZE: usize = 4096;

/// A write that reached the file and was not synced.
#[derive(Clone, Debug)]
pub(super) struct Unsynced {
    /// Where it begins.
    offset: usize,
    /// What was written.
    data: Vec<u8>,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct SimFile {
    /// What reads see.
    pub(super) live: Vec<u8>,
    /// What is left after a power loss that takes all it can.
    pub(super) durable: Vec<u8>,
    /// What a sync would make durable, in order.
    unsynced: Vec<Unsynced>,
    /// Pages that cannot be read until something is written to them.
    unreadable: BTreeSet<usize>,
    /// Pages with what belongs elsewhere, until something is written to them.
    stray: BTreeSet<usize>,
}

impl SimFile {
    pub(super) fn whole(content: Vec<u8>) -> SimFile {
        SimFile { durable: content.clone(), live: content, ..SimFile::default() }
    }

    /// The file as a power loss would leave it that takes all it can.
    pub(super) fn durable_half(&self) -> SimFile {
        let (unreadable, stray) = (self.unreadable.clone(), self.stray.clone());
        SimFile { unreadable, stray, ..SimFile::whole(self.durable.clone()) }
    }

    pub(super) fn write(&mut self, offset: usize, data: Vec<u8>) {
        if self.is_ailing() {
            let last = (offset + data.len()).div_ceil(PAGE_SIZE);
            let written = offset / PAGE_SIZE..last;
            self.unreadable.retain(|page| !written.contains(page));
            self.stray.retain(|page| !written.contains(page));
        }
        overwrite(&mut self.live, offset, &data);
        self.unsynced.push(Unsynced { offset, data });
    }

    pub(super) fn sync(&mut self) {
        for write in self.unsynced.drain(..) {
            overwrite(&mut self.durable, write.offset, &write.data);
        }
    }

    /// A sync failed: the pages are marked clean, and no later sync writes them.
    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    /// What a sync would still have to make durable, in bytes.
    pub(super) fn unsynced_size(&self) -> usize {
        self.unsynced.iter().map(|write| write.data.len()).sum()
    }

    /// Power fails: unsynced bytes go, but any sector and any prefix of them may have reached the device. Gives how many
    /// bytes were unsynced, and of how many writes a part survived.
    pub(super) fn lose_power(&mut self, dice: &mut Dice) -> (u64, u64) {
        let (mut unsynced_size, mut torn_count) = (0, 0);
        for write in std::mem::take(&mut self.unsynced) {
            unsynced_size += write.data.len() as u64;
            torn_count += u64::from(tear(&mut self.durable, &write, dice));
        }
        self.live.clone_from(&self.durable);
        (unsynced_size, torn_count)
    }

    /// Changes bytes that are at rest, for reads now and after a crash alike.
    pub(super) fn rot(&mut self, offset: usize, size: usize, mask: u8) {
        for content in [&mut self.live, &mut self.durable] {
            let end = (offset + size).min(content.len());
            for byte in content.get_mut(offset..end).into_iter().flatten() {
                *byte ^= mask;
            }
        }
    }

    /// Puts bytes into the file behind the back of whoever wrote it.
    pub(super) fn overwrite_at_rest(&mut self, offset: usize, data: &[u8]) {
        for content in [&mut self.live, &mut self.durable] {
            let size = data.len().min(content.len().saturating_sub(offset));
            overwrite(content, offset, &data[..size]);
        }
    }

    /// A write lands here that belongs elsewhere.
    pub(super) fn stray(&mut self, offset: usize, data: &[u8]) {
        self.overwrite_at_rest(offset, data);
        self.stray.extend(offset / PAGE_SIZE..(offset + data.len()).div_ceil(PAGE_SIZE));
    }

    /// Whether a page cannot be read, or holds what belongs elsewhere.
    pub(super) fn is_ailing(&self) -> bool {
        !self.unreadable.is_empty() || !self.stray.is_empty()
    }

    /// Makes the page at an offset unreadable.
    pub(super) fn lose_page(&mut self, offset: usize) {
        self.unreadable.insert(offset / PAGE_SIZE);
    }

    /// Whether these bytes can be read.
    pub(super) fn is_readable(&self, start: usize, end: usize) -> bool {
        self.unreadable.is_empty()
            || self.unreadable.range(start / PAGE_SIZE..end.div_ceil(PAGE_SIZE)).next().is_none()
    }

    /// How far the durable content reaches before only zeroes follow, in bytes.
    pub(super) fn used_size(&self) -> usize {
        self.durable.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    /// Every place where the durable content holds exactly this.
    pub(super) fn find(&self, wanted: &[u8]) -> Vec<usize> {
        let (Some(first), size) = (wanted.first(), wanted.len()) else { return Vec::new() };
        let places = 0..(self.durable.len() + 1).saturating_sub(size);
        let holds =
            |at: &usize| self.durable[*at] == *first && self.durable[*at..].starts_with(wanted);
        places.filter(holds).collect()
    }
}

pub(super) fn overwrite(content: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[offset..end].copy_from_slice(data);
}

/// Puts a random part of an unsynced write onto the device: nothing, all, a prefix of bytes, or any of its sectors.
/// True when it was torn.
fn tear(durable: &mut Vec<u8>, write: &Unsynced, dice: &mut Dice) -> bool {
    match dice.below(4) {
        0 => false,
        1 => {
            overwrite(durable, write.offset, &write.data);
            false
        }
        2 => {
            let size = dice.position(write.data.len() + 1);
            overwrite(durable, write.offset, &write.data[..size]);
            size > 0 && size < write.data.len()
        }
        _ => {
            let mut start = 0;
            let mut kept = 0;
            while start < write.data.len() {
                let sector_end = (write.offset + start) / SECTOR_SIZE * SECTOR_SIZE + SECTOR_SIZE;
                let end = (sector_end - write.offset).min(write.data.len());
                if dice.chance(500_000) {
                    overwrite(durable, write.offset + start, &write.data[start..end]);
                    kept += end - start;
                }
                start = end;
            }
            kept > 0 && kept < write.data.len()
        }
    }
}
