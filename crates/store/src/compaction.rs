//! Removing, in small steps, the versions that compaction made unreachable.
//!
//! Compaction itself is one number, the lowest readable revision. What no read at or above it can
//! reach goes later: after every entry a bounded number of changes is swept, so a compaction never
//! stalls what comes after it. The step is part of applying an entry, hence the same on all
//! replicas.
//!
//! ```text
//!   history   1.0  2.0  2.1  3.0  4.0  5.0 | 6.0 ...
//!             ──────────────▶ swept        └ compacted
//! ```
//! Each version that something followed at or below the compacted revision is found through what
//! followed it: sweeping a change removes the versions of its key before it, and the change itself
//! when it is a tombstone. Changes of the compacted revision itself stay, because a watch may begin
//! there; they are met again by the next sweep.

use crate::engine::{Direction, EngineView, Table};
use crate::keys::{Keys, Revision, split_version};
use crate::overlay::Overlay;
use crate::record::{Record, Summary, read_record};
use quorate_types::ApplyFault;

/// How many changes are swept after one entry: more than an entry usually adds, so that sweeping
/// catches up, and few, because each costs about as much as a put.
const SWEEP_STEP: usize = 4;

/// The sub revision of a sweep that has come to the end of the compacted revision.
const SWEPT: u32 = u32::MAX;

/// Raises the compacted revision.
pub(crate) fn compact(summary: &mut Summary, compacted: i64) {
    if summary.swept.main == summary.compacted {
        // What was the compacted revision is none any longer: sweep it again, now whole.
        summary.swept.sub = 0;
    }
    summary.compacted = compacted;
}

/// Sweeps a few changes, if there are any to sweep.
pub(crate) fn sweep<V: EngineView>(
    overlay: &mut Overlay<V>,
    keys: Keys,
    summary: &mut Summary,
) -> Result<(), ApplyFault> {
    let (swept, compacted) = (summary.swept, summary.compacted);
    if swept.main > compacted || (swept.main == compacted && swept.sub == SWEPT) {
        return Ok(());
    }
    let behind = Revision { main: compacted + 1, sub: 0 };
    let range = keys.history_range(swept, behind);
    let mut step = Vec::with_capacity(SWEEP_STEP);
    for pair in overlay.scan(Table::History, &range, Direction::Forward).take(SWEEP_STEP) {
        step.push(read_record(pair?.1)?);
    }
    for record in &step {
        sweep_change(overlay, keys, record, compacted)?;
    }
    summary.swept = match step.last() {
        Some(last) if step.len() == SWEEP_STEP => {
            Revision { main: last.kv.mod_revision, sub: last.sub + 1 }
        }
        Some(_) | None => Revision { main: compacted, sub: SWEPT },
    };
    Ok(())
}

fn sweep_change<V: EngineView>(
    overlay: &mut Overlay<V>,
    keys: Keys,
    record: &Record,
    compacted: i64,
) -> Result<(), ApplyFault> {
    let revision = record.revision();
    let in_last = revision.main == compacted;
    let before = if in_last { Revision { main: compacted, sub: 0 } } else { revision };
    let range = keys.versions_before(&record.kv.key, before);
    let mut gone = Vec::new();
    for pair in overlay.scan(Table::Versions, &range, Direction::Backward) {
        let (version, _) = pair?;
        let (_, revision) = split_version(&version)?;
        gone.push((version, revision));
    }
    if record.deleted && !in_last {
        gone.push((keys.version(&record.kv.key, revision), revision));
    }
    for (version, revision) in gone {
        overlay.changes.remove(Table::Versions, version);
        overlay.changes.remove(Table::History, keys.history(revision));
    }
    Ok(())
}
