//! Damage: a crash alone damages nothing.
//!
//! What a kill or a power loss leaves of a log is a prefix of what it was told, and whole (`docs/format/log.md`). If the
//! device has never lied nor failed, what cannot be read is what the log threw away itself, as by using a file again
//! before that which takes its place was synced.

use super::Violation;
use quorate_log::DamageReport;
use quorate_types::{LogSummary, NodeId, SlotFault};

/// The log of a node whose device never lied nor failed is opened after a crash.
///
/// # Errors
/// When anything of it is damaged.
pub fn check_opened(
    node: NodeId,
    log: &LogSummary,
    reports: &[DamageReport],
) -> Result<(), Violation> {
    let damaged = log.faults.iter().filter(|fault| !matches!(fault, SlotFault::Absent(_)));
    let slots: Vec<String> = damaged.map(|fault| fault.index().to_string()).collect();
    let places: Vec<String> = reports.iter().map(ToString::to_string).collect();
    if slots.is_empty() && places.is_empty() {
        return Ok(());
    }
    let (slots, places) = (slots.join(" "), places.join(", "));
    let seen = format!("{node} only crashed, but its log has damaged slots [{slots}]: {places}");
    Err(Violation { promise: "damage", seen })
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_log::DamageWhat;
    use quorate_types::{FileName, Index};

    fn check(faults: &[SlotFault], reports: &[DamageReport]) -> bool {
        let log = LogSummary { faults: faults.to_vec(), ..LogSummary::default() };
        check_opened(NodeId(1), &log, reports).is_ok()
    }

    #[test]
    fn a_damaged_slot_or_place_is_seen_and_a_gap_is_none() {
        let what = DamageWhat::End;
        let file = FileName::new("log/0000000000000001.seg");
        let report = DamageReport { file, offset: 512, group: None, index: None, what };
        assert!(check(&[], &[]));
        assert!(check(&[SlotFault::Absent(Index(3))], &[]));
        assert!(!check(&[SlotFault::DamagedUnknown(Index(3))], &[]));
        assert!(!check(&[], &[report]));
    }
}
