//! Which segment files there are, what is live in them, and which come next.

use crate::format::SegmentNumber;
use crate::remains::remains_offset;
use crate::slots::Location;
use quorate_types::Mistake;
use std::collections::{BTreeMap, VecDeque};

/// A segment with content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The size of its file in bytes.
    pub(crate) size: u64,
    /// Where the stream left it, or stands in it, in bytes.
    pub(crate) end: u64,
    /// The bytes of live entries in it.
    pub(crate) live_size: u64,
    /// How many live entries.
    pub(crate) live_count: u64,
    /// Reads under way: a file is not recycled while it is read.
    pub(crate) read_count: u64,
}

/// All segment files of a log.
///
/// # Invariants
/// 1. Segments with content have lower numbers than spares, and spares stand in order of number.
/// 2. `current` is the highest segment with content, once there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Segments {
    /// Those with content.
    pub(crate) used: BTreeMap<SegmentNumber, Segment>,
    /// Prepared ones, in order of use, with their sizes.
    pub(crate) spares: VecDeque<(SegmentNumber, u64)>,
    /// Files that no longer matter, with their sizes: left over from before the last open.
    pub(crate) leftovers: BTreeMap<SegmentNumber, u64>,
    /// The segment written to; 0 before the first.
    pub(crate) current: SegmentNumber,
    /// The highest number ever given to a file.
    pub(crate) highest: SegmentNumber,
}

impl Segment {
    /// Where batches and proofs end in it, in bytes.
    pub(crate) fn limit(&self) -> u64 {
        remains_offset(self.size)
    }
}

impl Segments {
    /// A number for a new file.
    pub(crate) fn next_number(&mut self) -> SegmentNumber {
        self.highest = self.highest.next();
        self.highest
    }

    /// An entry became live.
    pub(crate) fn hold(&mut self, segment: SegmentNumber, size: u32) {
        let segment = self.used.get_mut(&segment).expect("entries lie in segments in use");
        segment.live_count += 1;
        segment.live_size += u64::from(size);
    }

    /// Entries of one segment became live.
    pub(crate) fn hold_many(&mut self, segment: SegmentNumber, count: u64, size: u64) {
        let segment = self.used.get_mut(&segment).expect("entries lie in segments in use");
        segment.live_count += count;
        segment.live_size += size;
    }

    /// Entries are no longer live.
    pub(crate) fn release(&mut self, freed: &[Location]) {
        for location in freed {
            let Some(number) = location.segment() else { continue };
            let segment = self.used.get_mut(&number).expect("entries lie in segments in use");
            segment.live_count -= 1;
            segment.live_size -= u64::from(location.size);
        }
    }

    /// The oldest segment before the current one in which nothing is live and nothing is read.
    pub(crate) fn dead(&self) -> Option<(SegmentNumber, u64)> {
        self.used
            .range(..self.current)
            .find(|(_, segment)| {
                let is_live = segment.live_count > 0 && !Mistake::LiveRecycled.is_made();
                !is_live && segment.read_count == 0
            })
            .map(|(number, segment)| (*number, segment.size))
    }

    /// How many bytes of batches and proofs the spare that comes next has room for; 0 without one.
    pub(crate) fn spare_room(&self) -> u64 {
        self.spares.front().map_or(0, |(_, size)| remains_offset(*size))
    }

    /// The bytes of all files.
    pub(crate) fn disk_size(&self) -> u64 {
        self.used.values().map(|segment| segment.size).sum::<u64>()
            + self.spares.iter().map(|(_, size)| size).sum::<u64>()
            + self.leftovers.values().sum::<u64>()
    }
}
