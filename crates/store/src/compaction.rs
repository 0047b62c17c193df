//! Removing, in small steps, the changes that compaction made unreachable.
//!
//! Compaction itself is one number, the lowest readable revision. What no read at or above it can
//! reach goes later, a bounded number of changes at a time: with applies, and when there is nothing
//! else to do. How far that has come is each replica's own business: neither answers nor digests nor
//! snapshots depend on it, because whatever meets what is unreachable treats it as gone.
//!
//! ```text
//!   history   1.0  2.0  2.1  3.0  4.0  5.0 | 6.0 ...
//!             ──────────────▶ swept        └ compacted
//! ```
//! Each change that something followed at or below the compacted revision is found through what
//! followed it: sweeping a change removes the one before it of its key, and the change itself when it
//! is a tombstone. Changes of the compacted revision itself stay, because a watch may begin there;
//! they are met again by the next sweep.

use crate::engine::{Direction, EngineView, Table};
use crate::keys::{Keys, REVISION_SIZE, Revision};
use crate::overlay::Overlay;
use crate::range::newest_below;
use crate::record::{Record, damaged, read_i64, read_record};
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{ApplyFault, DecodeError, Reader};

/// The sub revision of a sweep that has come to the end of the compacted revision.
const SWEPT: u32 = u32::MAX;

/// How far unreachable changes were removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// The first change that was not swept.
    at: Revision,
}

impl Sweep {
    /// A sweep that removed everything that a compaction at `compacted` made unreachable.
    pub(crate) fn done(compacted: i64) -> Sweep {
        Sweep { at: Revision { main: compacted.max(0), sub: SWEPT } }
    }

    /// Whether everything is removed that a compaction at `compacted` made unreachable.
    pub(crate) fn is_done(self, compacted: i64) -> bool {
        self.at.main > compacted || (self.at.main == compacted && self.at.sub == SWEPT)
    }

    /// The compacted revision was raised from `before`: what was in it is swept again, now whole.
    pub(crate) fn reopen(&mut self, before: i64) {
        if self.at.main == before {
            self.at.sub = 0;
        }
    }

    pub(crate) fn encode(self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(REVISION_SIZE);
        buffer.put_i64_le(self.at.main);
        buffer.put_u32_le(self.at.sub);
        buffer.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Sweep, DecodeError> {
        let mut reader = Reader::new("place of the sweep", bytes);
        let at = Revision { main: read_i64(&mut reader)?, sub: reader.u32()? };
        reader.finish()?;
        if at.main < 0 {
            return Err(DecodeError::Invalid("the store swept to a negative revision"));
        }
        Ok(Sweep { at })
    }

    /// What a view holds of it; nothing was swept before the first time.
    pub(crate) fn read<V: EngineView>(
        overlay: &Overlay<V>,
        keys: Keys,
    ) -> Result<Sweep, ApplyFault> {
        match overlay.read(Table::State, &keys.swept())? {
            Some(value) => Sweep::decode(value).map_err(|error| damaged(&error)),
            None => Ok(Sweep::default()),
        }
    }

    /// Sweeps at most `count` changes, if there are any to sweep.
    pub(crate) fn step<V: EngineView>(
        &mut self,
        overlay: &mut Overlay<V>,
        keys: Keys,
        compacted: i64,
        count: usize,
    ) -> Result<(), ApplyFault> {
        if self.is_done(compacted) {
            return Ok(());
        }
        let behind = Revision { main: compacted + 1, sub: 0 };
        let range = keys.history_range(self.at, behind);
        let mut changes = Vec::with_capacity(count);
        for pair in overlay.scan(Table::History, &range, Direction::Forward).take(count) {
            changes.push(read_record(pair?.1)?);
        }
        for change in &changes {
            sweep_change(overlay, keys, change, compacted)?;
        }
        match changes.last() {
            Some(last) if changes.len() == count => {
                self.at = Revision { main: last.kv.mod_revision, sub: last.sub + 1 };
            }
            Some(_) | None => *self = Sweep::done(compacted),
        }
        overlay.changes.put(Table::State, keys.swept(), self.encode());
        Ok(())
    }
}

fn sweep_change<V: EngineView>(
    overlay: &mut Overlay<V>,
    keys: Keys,
    change: &Record,
    compacted: i64,
) -> Result<(), ApplyFault> {
    let before = change.links.before;
    if before != Revision::NONE && before.main < compacted {
        overlay.changes.remove(Table::History, keys.history(before));
    }
    if !is_gone(change, compacted) {
        return Ok(());
    }
    overlay.changes.remove(Table::History, keys.history(change.revision()));
    let place = keys.current(&change.kv.key);
    if let Some(newest) = overlay.read(Table::Current, &place)?
        && read_record(newest)?.revision() == change.revision()
    {
        overlay.changes.remove(Table::Current, place);
    }
    Ok(())
}

/// Whether a change is a deletion that no read and no watch can meet any more.
pub(crate) fn is_gone(change: &Record, compacted: i64) -> bool {
    change.deleted && change.kv.mod_revision < compacted
}

/// Whether a read or a watch can still meet a change.
pub(crate) fn is_reachable<V: EngineView>(
    overlay: &Overlay<V>,
    keys: Keys,
    change: &Record,
    compacted: i64,
) -> Result<bool, ApplyFault> {
    if change.kv.mod_revision >= compacted {
        return Ok(true);
    }
    if is_gone(change, compacted) {
        return Ok(false);
    }
    let Some(newest) = overlay.read(Table::Current, &keys.current(&change.kv.key))? else {
        // Deleted below the compacted revision, after this change.
        return Ok(false);
    };
    let behind = Revision { main: compacted + 1, sub: 0 };
    let visible = newest_below(overlay, keys, read_record(newest)?, behind, compacted)?;
    Ok(visible.is_some_and(|visible| visible.revision() == change.revision()))
}
