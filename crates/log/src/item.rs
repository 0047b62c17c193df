//! The items of a batch's directory: what a batch changes, and how groups stood before it.

use crate::format::{BatchNumber, SegmentNumber};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    Configuration, DecodeError, Epoch, GroupId, HardState, Index, NodeId, Position, Reader, Writer,
};
use std::fmt;

/// What the log knows of a group's hard state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HardRecord {
    /// None was ever persisted.
    #[default]
    Unset,
    /// This one.
    Known(HardState),
    /// One was, but it is lost.
    Damaged,
}

/// Stands for the lowest slot of a batch that changed none.
pub(crate) const NO_SLOT: Index = Index(u64::MAX);

/// How a group stood before a batch: what a reader of the log falls back to when batches before are unreadable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Which group.
    pub(crate) group: GroupId,
    /// The batch after which `lows` is complete.
    pub(crate) since: BatchNumber,
    /// The batches after `since` and before this one that touched the group, in order, each with the lowest slot
    /// that it changed; [`NO_SLOT`] when it changed none.
    pub(crate) lows: Vec<(BatchNumber, Index)>,
    /// The hard state.
    pub(crate) hard: HardRecord,
    /// The purged position.
    pub(crate) purged: Position,
    /// The last index, as in [`quorate_types::Bounds`].
    pub(crate) last: Index,
}

/// Consecutive slots of the same epochs in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first slot.
    pub(crate) first: Index,
    /// How many.
    pub(crate) count: u64,
    /// The created epoch of their entries.
    pub(crate) created: Epoch,
    /// Their accepted epoch.
    pub(crate) accepted: Epoch,
}

/// Everything that a group has, but for the entries themselves. Stands at the head of each segment, so that older
/// segments are needed for the entries in them only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    /// Which group.
    pub(crate) group: GroupId,
    /// The hard state.
    pub(crate) hard: HardRecord,
    /// The purged position.
    pub(crate) purged: Position,
    /// The configurations in force at the purged position and after.
    pub(crate) configurations: Vec<(Index, Configuration)>,
    /// Every slot whose epochs are known, in order.
    pub(crate) extents: Vec<Extent>,
    /// Slots of which nothing is known any more: first and count.
    pub(crate) unknown: Vec<(Index, u64)>,
}

/// Consecutive entries of a group with the same epochs, as the directory lists them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WriteRun {
    /// Which group.
    pub(crate) group: GroupId,
    /// The first slot.
    pub(crate) first: Index,
    /// The created epoch of all of them.
    pub(crate) created: Epoch,
    /// The epoch in which all of them were accepted.
    pub(crate) accepted: Epoch,
    /// Where the first begins among the batch's entries, in bytes.
    pub(crate) offset: u32,
    /// The entries.
    pub(crate) entries: Vec<EntryMark>,
}

/// The size and check of an entry in a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryMark {
    /// The size of the encoded entry in bytes.
    pub(crate) size: u32,
    /// The low half of its content hash: ties the entry to its slot, so that swapped entries show.
    pub(crate) check: u32,
}

/// One item of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// How a group stood before this batch.
    Standing(Standing),
    /// All of a group, before this batch's changes.
    Checkpoint(Checkpoint),
    /// Every older segment, and where the stream left it: what lies beyond was cut away by an earlier open.
    Segments(Vec<(SegmentNumber, u64)>),
    /// A new hard state.
    HardState(GroupId, HardState),
    /// Entries.
    Write(WriteRun),
    /// Slots at or above are emptied.
    Truncate(GroupId, Index),
    /// Slots at or below are emptied.
    Purge(GroupId, Position),
    /// All slots are emptied; a snapshot took their place.
    Reset(GroupId, Position, Configuration),
}

impl Item {
    /// The standing that this is, if it is one.
    pub(crate) fn standing(&self) -> Option<&Standing> {
        if let Item::Standing(standing) = self { Some(standing) } else { None }
    }

    /// The group concerned, if it is one.
    pub(crate) fn group(&self) -> Option<GroupId> {
        match self {
            Item::Standing(standing) => Some(standing.group),
            Item::Checkpoint(checkpoint) => Some(checkpoint.group),
            Item::Segments(_) => None,
            Item::Write(run) => Some(run.group),
            Item::HardState(group, _)
            | Item::Truncate(group, _)
            | Item::Purge(group, _)
            | Item::Reset(group, _, _) => Some(*group),
        }
    }

    /// The first slot concerned, for reports.
    pub(crate) fn index(&self) -> Option<Index> {
        match self {
            Item::Write(run) => Some(run.first),
            Item::Truncate(_, index) => Some(*index),
            Item::Purge(_, position) | Item::Reset(_, position, _) => Some(position.index),
            Item::Standing(standing) => Some(standing.last),
            Item::Checkpoint(checkpoint) => checkpoint.extents.first().map(|extent| extent.first),
            Item::HardState(_, _) | Item::Segments(_) => None,
        }
    }

    /// The lowest slot that this item changes; `None` when it changes none.
    pub(crate) fn low(&self) -> Option<Index> {
        match self {
            Item::Write(run) => Some(run.first),
            Item::Truncate(_, index) => Some(*index),
            Item::Reset(_, _, _) => Some(Index::ZERO),
            // What a purge empties is told by the purged position itself.
            Item::Purge(_, _)
            | Item::Standing(_)
            | Item::Checkpoint(_)
            | Item::Segments(_)
            | Item::HardState(_, _) => None,
        }
    }

    /// Appends the encoding.
    pub(crate) fn encode(&self, buffer: &mut BytesMut) {
        match self {
            Item::Standing(standing) => {
                buffer.put_u8(1);
                buffer.put_u64_le(standing.group.0);
                buffer.put_u64_le(standing.since.0);
                buffer.put_u8(u8::try_from(standing.lows.len()).expect("recent batches are few"));
                for (batch, low) in &standing.lows {
                    buffer.put_u64_le(batch.0);
                    buffer.put_u64_le(low.0);
                }
                encode_hard_record(buffer, standing.hard);
                buffer.write_position(standing.purged);
                buffer.put_u64_le(standing.last.0);
            }
            Item::Checkpoint(checkpoint) => {
                buffer.put_u8(2);
                checkpoint.encode(buffer);
            }
            Item::Segments(segments) => {
                buffer.put_u8(8);
                buffer.write_count(segments.len());
                for (segment, end) in segments {
                    buffer.put_u64_le(segment.0);
                    buffer.put_u64_le(*end);
                }
            }
            Item::HardState(group, state) => {
                buffer.put_u8(3);
                buffer.put_u64_le(group.0);
                encode_hard_state(buffer, state);
            }
            Item::Write(run) => {
                buffer.put_u8(4);
                run.encode(buffer);
            }
            Item::Truncate(group, index) => {
                buffer.put_u8(5);
                buffer.put_u64_le(group.0);
                buffer.put_u64_le(index.0);
            }
            Item::Purge(group, position) => {
                buffer.put_u8(6);
                buffer.put_u64_le(group.0);
                buffer.write_position(*position);
            }
            Item::Reset(group, position, configuration) => {
                buffer.put_u8(7);
                buffer.put_u64_le(group.0);
                buffer.write_position(*position);
                encode_configuration(buffer, configuration);
            }
        }
    }

    /// Reads a whole directory.
    pub(crate) fn decode_all(bytes: Bytes) -> Result<Vec<Item>, DecodeError> {
        let mut reader = Reader::new("directory", bytes);
        let mut items = Vec::new();
        while reader.left() > 0 {
            items.push(Item::decode(&mut reader)?);
        }
        Ok(items)
    }

    fn decode(reader: &mut Reader) -> Result<Item, DecodeError> {
        match reader.u8()? {
            1 => Ok(Item::Standing(Standing {
                group: GroupId(reader.u64()?),
                since: BatchNumber(reader.u64()?),
                lows: decode_lows(reader)?,
                hard: decode_hard_record(reader)?,
                purged: reader.position()?,
                last: Index(reader.u64()?),
            })),
            2 => Checkpoint::decode(reader).map(Item::Checkpoint),
            3 => Ok(Item::HardState(GroupId(reader.u64()?), decode_hard_state(reader)?)),
            4 => WriteRun::decode(reader).map(Item::Write),
            5 => Ok(Item::Truncate(GroupId(reader.u64()?), Index(reader.u64()?))),
            6 => Ok(Item::Purge(GroupId(reader.u64()?), reader.position()?)),
            7 => Ok(Item::Reset(
                GroupId(reader.u64()?),
                reader.position()?,
                Configuration::decode(reader.blob()?)?,
            )),
            8 => decode_segments(reader).map(Item::Segments),
            value => Err(DecodeError::Unknown { what: "directory item", value: value.into() }),
        }
    }
}

impl Checkpoint {
    fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u64_le(self.group.0);
        encode_hard_record(buffer, self.hard);
        buffer.write_position(self.purged);
        buffer.write_count(self.configurations.len());
        for (index, configuration) in &self.configurations {
            buffer.put_u64_le(index.0);
            encode_configuration(buffer, configuration);
        }
        buffer.write_count(self.extents.len());
        for extent in &self.extents {
            buffer.put_u64_le(extent.first.0);
            buffer.put_u64_le(extent.count);
            buffer.write_epoch(extent.created);
            buffer.write_epoch(extent.accepted);
        }
        buffer.write_count(self.unknown.len());
        for (first, count) in &self.unknown {
            buffer.put_u64_le(first.0);
            buffer.put_u64_le(*count);
        }
    }

    fn decode(reader: &mut Reader) -> Result<Checkpoint, DecodeError> {
        let mut checkpoint = Checkpoint {
            group: GroupId(reader.u64()?),
            hard: decode_hard_record(reader)?,
            purged: reader.position()?,
            ..Checkpoint::default()
        };
        for _ in 0..reader.count(12)? {
            let index = Index(reader.u64()?);
            checkpoint.configurations.push((index, Configuration::decode(reader.blob()?)?));
        }
        for _ in 0..reader.count(48)? {
            checkpoint.extents.push(Extent {
                first: Index(reader.u64()?),
                count: reader.u64()?,
                created: reader.epoch()?,
                accepted: reader.epoch()?,
            });
        }
        for _ in 0..reader.count(16)? {
            checkpoint.unknown.push((Index(reader.u64()?), reader.u64()?));
        }
        Ok(checkpoint)
    }
}

impl WriteRun {
    fn encode(&self, buffer: &mut BytesMut) {
        buffer.put_u64_le(self.group.0);
        buffer.put_u64_le(self.first.0);
        buffer.write_epoch(self.created);
        buffer.write_epoch(self.accepted);
        buffer.put_u32_le(self.offset);
        buffer.write_count(self.entries.len());
        buffer.reserve(self.entries.len() * 8);
        for mark in &self.entries {
            buffer.put_u64_le(u64::from(mark.size) | u64::from(mark.check) << 32);
        }
    }

    fn decode(reader: &mut Reader) -> Result<WriteRun, DecodeError> {
        let mut run = WriteRun {
            group: GroupId(reader.u64()?),
            first: Index(reader.u64()?),
            created: reader.epoch()?,
            accepted: reader.epoch()?,
            offset: reader.u32()?,
            entries: Vec::new(),
        };
        let count = reader.count(8)?;
        if run.first.0.checked_add(count as u64).is_none() {
            return Err(DecodeError::Invalid("a run of entries passes the last index"));
        }
        run.entries.reserve_exact(count);
        for _ in 0..count {
            run.entries.push(EntryMark { size: reader.u32()?, check: reader.u32()? });
        }
        Ok(run)
    }
}

fn decode_lows(reader: &mut Reader) -> Result<Vec<(BatchNumber, Index)>, DecodeError> {
    let count = reader.u8()?;
    (0..count).map(|_| Ok((BatchNumber(reader.u64()?), Index(reader.u64()?)))).collect()
}

fn decode_segments(reader: &mut Reader) -> Result<Vec<(SegmentNumber, u64)>, DecodeError> {
    let count = reader.count(16)?;
    (0..count).map(|_| Ok((SegmentNumber(reader.u64()?), reader.u64()?))).collect()
}

fn encode_configuration(buffer: &mut BytesMut, configuration: &Configuration) {
    buffer.write_blob(&configuration.encode());
}

fn encode_hard_state(buffer: &mut BytesMut, state: &HardState) {
    buffer.write_epoch(state.promised);
    buffer.write_bool(state.voted_for.is_some());
    buffer.put_u64_le(state.voted_for.unwrap_or_default().0);
    buffer.write_epoch(state.log_epoch);
}

fn decode_hard_state(reader: &mut Reader) -> Result<HardState, DecodeError> {
    let promised = reader.epoch()?;
    let voted = reader.bool()?;
    let node = NodeId(reader.u64()?);
    let log_epoch = reader.epoch()?;
    Ok(HardState { promised, voted_for: voted.then_some(node), log_epoch })
}

fn encode_hard_record(buffer: &mut BytesMut, record: HardRecord) {
    match record {
        HardRecord::Unset => buffer.put_u8(0),
        HardRecord::Known(state) => {
            buffer.put_u8(1);
            encode_hard_state(buffer, &state);
        }
        HardRecord::Damaged => buffer.put_u8(2),
    }
}

fn decode_hard_record(reader: &mut Reader) -> Result<HardRecord, DecodeError> {
    match reader.u8()? {
        0 => Ok(HardRecord::Unset),
        1 => decode_hard_state(reader).map(HardRecord::Known),
        2 => Ok(HardRecord::Damaged),
        value => Err(DecodeError::Unknown { what: "hard state record", value: value.into() }),
    }
}

impl fmt::Display for HardRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HardRecord::Unset => f.write_str("hard(unset)"),
            HardRecord::Known(state) => write!(f, "hard({state})"),
            HardRecord::Damaged => f.write_str("hard(DAMAGED)"),
        }
    }
}

/// A run of slots as `first..=last`.
fn span(f: &mut fmt::Formatter<'_>, first: Index, count: u64) -> fmt::Result {
    write!(f, "{first}..={}", first.0.saturating_add(count.saturating_sub(1)))
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(group) = self.group() {
            write!(f, "{group} ")?;
        }
        match self {
            Item::Standing(standing) => {
                write!(f, "standing({} purged={} ", standing.hard, standing.purged)?;
                write!(f, "last={} since={}", standing.last, standing.since)?;
                for (batch, low) in &standing.lows {
                    match *low {
                        NO_SLOT => write!(f, " {batch}:-")?,
                        low => write!(f, " {batch}:{low}")?,
                    }
                }
                f.write_str(")")
            }
            Item::Checkpoint(checkpoint) => {
                write!(f, "checkpoint({} purged={}", checkpoint.hard, checkpoint.purged)?;
                for (index, configuration) in &checkpoint.configurations {
                    write!(f, " configuration({index} {configuration})")?;
                }
                for extent in &checkpoint.extents {
                    f.write_str(" ")?;
                    span(f, extent.first, extent.count)?;
                    write!(f, "@{}", extent.created)?;
                    if extent.accepted != extent.created {
                        write!(f, "/{}", extent.accepted)?;
                    }
                }
                for (first, count) in &checkpoint.unknown {
                    f.write_str(" DAMAGED ")?;
                    span(f, *first, *count)?;
                }
                f.write_str(")")
            }
            Item::Segments(segments) => {
                f.write_str("segments(")?;
                for (place, (segment, end)) in segments.iter().enumerate() {
                    let comma = if place == 0 { "" } else { " " };
                    write!(f, "{comma}{segment}+{end}")?;
                }
                f.write_str(")")
            }
            Item::HardState(_, state) => write!(f, "hard({state})"),
            Item::Write(run) => {
                f.write_str("write(")?;
                span(f, run.first, run.entries.len() as u64)?;
                write!(f, " accepted={})", run.accepted)
            }
            Item::Truncate(_, index) => write!(f, "truncate({index}..)"),
            Item::Purge(_, position) => write!(f, "purge(..={position})"),
            Item::Reset(_, position, configuration) => {
                write!(f, "reset({position} {configuration})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Incarnation, Member};
    use std::collections::BTreeMap;

    fn samples() -> Vec<Item> {
        let epoch = Epoch::new(2, NodeId(1));
        let hard =
            HardState { promised: epoch, voted_for: Some(NodeId(3)), log_epoch: Epoch::ZERO };
        let member = Member {
            incarnation: Incarnation(7),
            name: "n1".into(),
            peer_address: "h:1".into(),
            voter: true,
            outgoing_voter: false,
            intent: quorate_types::Intent::Stay,
        };
        let members = BTreeMap::from([(NodeId(1), member)]);
        let configuration = Configuration { members, ..Configuration::default() };
        let position = Position::new(Index(4), epoch);
        let group = GroupId(5);
        vec![
            Item::Standing(Standing {
                group,
                since: BatchNumber(3),
                lows: vec![(BatchNumber(4), Index(9)), (BatchNumber(5), NO_SLOT)],
                hard: HardRecord::Known(hard),
                purged: position,
                last: Index(12),
            }),
            Item::Checkpoint(Checkpoint {
                group,
                hard: HardRecord::Damaged,
                purged: position,
                configurations: vec![(Index(2), configuration.clone())],
                extents: vec![Extent {
                    first: Index(5),
                    count: 2,
                    created: epoch,
                    accepted: epoch,
                }],
                unknown: vec![(Index(7), 3)],
            }),
            Item::HardState(group, hard),
            Item::Write(WriteRun {
                group,
                first: Index(5),
                created: epoch,
                accepted: epoch,
                offset: 0,
                entries: vec![EntryMark { size: 64, check: 0xabcd_0123 }; 2],
            }),
            Item::Segments(vec![(SegmentNumber(1), 512)]),
            Item::Truncate(group, Index(6)),
            Item::Purge(group, position),
            Item::Reset(group, position, configuration),
        ]
    }

    #[test]
    fn items_survive_their_encoding() {
        let mut buffer = BytesMut::new();
        samples().iter().for_each(|item| item.encode(&mut buffer));
        let bytes = buffer.freeze();
        assert_eq!(Item::decode_all(bytes.clone()), Ok(samples()));
        let decoded = Item::decode_all(bytes.slice(..bytes.len() - 1));
        assert!(decoded.is_err(), "a missing byte is noticed: {decoded:?}");
    }

    #[test]
    fn an_item_names_what_it_concerns_and_changes() {
        let named: Vec<_> = samples()
            .iter()
            .map(|item| {
                let number = |index: Option<Index>| index.map(|index| index.0);
                (item.group().map(|group| group.0), number(item.index()), number(item.low()))
            })
            .collect();
        let expected = [
            (Some(5), Some(12), None),
            (Some(5), Some(5), None),
            (Some(5), None, None),
            (Some(5), Some(5), Some(5)),
            (None, None, None),
            (Some(5), Some(6), Some(6)),
            (Some(5), Some(4), None),
            (Some(5), Some(4), Some(0)),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_hostile_count_reserves_nothing() {
        let mut buffer = BytesMut::new();
        samples()[3].encode(&mut buffer);
        let count_at = 1 + 8 + 8 + 16 + 16 + 4;
        buffer[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        let decoded = Item::decode_all(buffer.freeze());
        assert!(matches!(decoded, Err(DecodeError::TooLarge { .. })), "{decoded:?}");
    }
}
