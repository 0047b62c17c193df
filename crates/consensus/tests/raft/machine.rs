//! A state machine that counts: each new origin adds one.

use quorate_types::{
    Applied, Digest, EntryKind, Index, Origin, OriginTable, OriginVerdict, Position, Slot,
};

/// A counter with a digest chain over the entries applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) applied: Applied,
    pub(crate) count: u64,
    origins: OriginTable,
}

impl Machine {
    /// Applies one slot; says whose command took effect, if one did.
    pub(crate) fn apply(&mut self, slot: &Slot) -> Option<Origin> {
        assert_eq!(slot.index, self.applied.position.index.next(), "applies in order");
        self.applied.position = slot.position();
        let mixed = self.applied.digest.0.rotate_left(7) ^ slot.entry.hash().0;
        self.applied.digest = Digest(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let origin = slot.entry.origin();
        let is_new = slot.entry.kind() == EntryKind::Command
            && self.origins.record(origin) == OriginVerdict::New;
        self.count += u64::from(is_new);
        is_new.then_some(origin)
    }

    pub(crate) fn position(&self) -> Position {
        self.applied.position
    }

    pub(crate) fn index(&self) -> Index {
        self.applied.position.index
    }
}
