//! Fates: what a client is told of a proposal whose outcome was unknown is so, and stays so.
//!
//! A proposal is applied at most once, and one that was settled before it was applied never is (Raft thesis 6.3 keeps
//! sessions for the first; the second is ours). Read off the entries that state machines are given, in order.

use super::Violation;
use quorate_types::{
    Entry, EntryKind, Fate, Incarnation, Index, NodeId, ORIGIN_WINDOW, Origin, settled_by,
};
use std::collections::BTreeMap;

/// What came first of each proposal: itself, or what settled it.
#[derive(Clone, Debug, Default)]
pub struct Fates {
    /// The last entry looked at.
    last: Option<Index>,
    /// Whether the proposal was applied, or settled before.
    first: BTreeMap<Origin, bool>,
    /// The highest sequence of each incarnation.
    highest: BTreeMap<(NodeId, Incarnation), u64>,
}

impl Fates {
    /// A state machine is given an entry; the first who is given it tells.
    ///
    /// # Errors
    /// When it settles what cannot be read.
    pub fn on_apply(&mut self, index: Index, entry: &Entry) -> Result<(), Violation> {
        if self.last.is_some_and(|last| index != last.next()) {
            return Ok(());
        }
        self.last = Some(index);
        match entry.kind() {
            EntryKind::Noop | EntryKind::Configuration => {}
            EntryKind::Command | EntryKind::WriteSet | EntryKind::Prepared => {
                self.note(entry.origin(), true);
            }
            EntryKind::Settle => {
                let target = settled_by(entry);
                self.note(entry.origin(), true);
                self.note(target.map_err(|error| violation(format!("{index}: {error}")))?, false);
            }
        }
        Ok(())
    }

    fn note(&mut self, origin: Origin, is_applied: bool) {
        self.first.entry(origin).or_insert(is_applied);
        let highest = self.highest.entry((origin.node, origin.incarnation)).or_default();
        *highest = (*highest).max(origin.sequence);
    }

    /// A client was told what became of a proposal.
    ///
    /// # Errors
    /// When that is not what became of it.
    pub fn on_told(&self, origin: Origin, fate: Fate) -> Result<(), Violation> {
        let first = self.first.get(&origin);
        let highest = self.highest.get(&(origin.node, origin.incarnation));
        let is_old = highest.is_some_and(|highest| origin.sequence + ORIGIN_WINDOW <= *highest);
        let is_so = match fate {
            Fate::Applied => first == Some(&true),
            Fate::Never => first == Some(&false),
            Fate::Open => false,
            Fate::Forgotten => is_old,
        };
        if is_so {
            return Ok(());
        }
        Err(violation(format!("{origin} is told to be {fate:?}; it was applied: {first:?}")))
    }
}

fn violation(seen: String) -> Violation {
    Violation { promise: "fates", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::{Bytes, BytesMut};
    use quorate_types::{Epoch, TransactionId};

    fn origin(sequence: u64) -> Origin {
        Origin { node: NodeId(1), incarnation: Incarnation(7), sequence }
    }

    fn entry(kind: EntryKind, origin: Origin, body: Bytes) -> Entry {
        Entry::new(Epoch::new(1, NodeId(1)), kind, origin, TransactionId(0), body)
    }

    fn settle(own: u64, target: u64) -> Entry {
        let mut body = BytesMut::new();
        origin(target).encode(&mut body);
        entry(EntryKind::Settle, origin(own), body.freeze())
    }

    #[test]
    fn only_what_came_first_may_be_told() {
        let command = |sequence| entry(EntryKind::Command, origin(sequence), Bytes::new());
        // 1 is applied, 2 settled before it comes, 3 settled after it has come, 9 has not come.
        let log = [command(1), settle(4, 2), command(2), command(3), settle(5, 3)];
        let mut fates = Fates::default();
        for (at, entry) in log.iter().enumerate() {
            let index = Index(1 + at as u64);
            // Every replica applies it; what is applied again changes nothing.
            assert_eq!(fates.on_apply(index, entry), Ok(()));
            assert_eq!(fates.on_apply(Index(1), &settle(6, 1)), Ok(()));
        }
        let truth = [(1, Fate::Applied), (2, Fate::Never), (3, Fate::Applied)];
        for (sequence, fate) in truth {
            for told in [Fate::Applied, Fate::Never, Fate::Open, Fate::Forgotten] {
                let result = fates.on_told(origin(sequence), told);
                assert_eq!(result.is_ok(), told == fate, "{sequence} {told:?}");
            }
        }
        for told in [Fate::Applied, Fate::Never, Fate::Open, Fate::Forgotten] {
            assert!(fates.on_told(origin(9), told).is_err(), "nobody settled it");
        }
        let late = Index(1 + log.len() as u64);
        assert_eq!(fates.on_apply(late, &command(1 + ORIGIN_WINDOW)), Ok(()));
        assert_eq!(fates.on_told(origin(1), Fate::Forgotten), Ok(()));
        assert!(fates.on_told(origin(2), Fate::Forgotten).is_err());
    }
}
