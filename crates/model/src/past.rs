//! What a whole history must keep to, whatever happens: the four safety properties of Raft (thesis, figure 3.2), and that
//! reads are never stale.

use quorate_types::{Entry, Epoch, Index, NodeId, Position};
use std::collections::BTreeMap;

/// A promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Promise {
    /// At most one leader a term.
    ElectionSafety,
    /// Logs that share an entry share all before it.
    LogMatching,
    /// What was committed in a term is in the log of each leader of a later one.
    LeaderCompleteness,
    /// What is committed or applied at an index is the same everywhere and for ever.
    StateMachineSafety,
    /// A read shows all that was committed when it was asked.
    FreshReads,
    /// The production code's own invariants hold.
    Invariants,
}

impl Promise {
    /// Every promise.
    pub const ALL: [Promise; 6] = [
        Promise::ElectionSafety,
        Promise::LogMatching,
        Promise::LeaderCompleteness,
        Promise::StateMachineSafety,
        Promise::FreshReads,
        Promise::Invariants,
    ];

    /// What people call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Promise::ElectionSafety => "election safety",
            Promise::LogMatching => "log matching",
            Promise::LeaderCompleteness => "leader completeness",
            Promise::StateMachineSafety => "state machine safety",
            Promise::FreshReads => "fresh reads",
            Promise::Invariants => "invariants",
        }
    }
}

/// What is remembered of a history to judge what follows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Past {
    /// Who led each term.
    leaders: BTreeMap<u64, NodeId>,
    /// What was committed at each index, and in which term that was first known.
    committed: BTreeMap<Index, (Position, u64)>,
}

impl Past {
    /// Remembers that a node leads with this log.
    pub(crate) fn on_leader(
        &mut self,
        node: NodeId,
        epoch: Epoch,
        log: &[Entry],
    ) -> Result<(), Promise> {
        if *self.leaders.entry(epoch.number).or_insert(node) != node {
            return Err(Promise::ElectionSafety);
        }
        let lacks = |(index, (position, term)): (&Index, &(Position, u64))| {
            *term < epoch.number && position_at(log, *index) != Some(*position)
        };
        match self.committed.iter().any(lacks) {
            true => Err(Promise::LeaderCompleteness),
            false => Ok(()),
        }
    }

    /// Remembers that a node in `term` knows its log to be committed from `first` to `last`.
    pub(crate) fn on_committed(
        &mut self,
        (first, last): (Index, Index),
        term: u64,
        log: &[Entry],
    ) -> Result<(), Promise> {
        for index in (first.0..=last.0).map(Index) {
            let Some(found) = position_at(log, index) else {
                return Err(Promise::StateMachineSafety);
            };
            let (position, known) = self.committed.entry(index).or_insert((found, term));
            *known = term.min(*known);
            if *position != found {
                return Err(Promise::StateMachineSafety);
            }
        }
        Ok(())
    }

    /// The last index that anybody knew to be committed.
    pub(crate) fn highest_committed(&self) -> Index {
        self.committed.keys().next_back().copied().unwrap_or(Index::ZERO)
    }

    /// How many terms had a leader.
    pub(crate) fn leader_count(&self) -> usize {
        self.leaders.len()
    }
}

/// What a log holds at an index: the entry's epoch stands for it, because only the leader of a term makes entries of it.
fn position_at(log: &[Entry], index: Index) -> Option<Position> {
    let at = usize::try_from(index.0.checked_sub(1)?).ok()?;
    log.get(at).map(|entry| Position::new(index, entry.created()))
}

/// Checks that two logs are equal up to the last entry that they share.
pub(crate) fn check_matching(one: &[Entry], two: &[Entry]) -> Result<(), Promise> {
    let mut both = one.iter().zip(two);
    let shared = both.rposition(|(one, two)| one.created() == two.created());
    let end = shared.map_or(0, |last| last + 1);
    match one[..end] == two[..end] {
        true => Ok(()),
        false => Err(Promise::LogMatching),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(terms: &[u64]) -> Vec<Entry> {
        terms.iter().map(|term| Entry::noop(Epoch::new(*term, NodeId(1)))).collect()
    }

    #[test]
    fn each_promise_can_be_broken() {
        let mut past = Past::default();
        let epoch = |number| Epoch::new(number, NodeId(1));
        assert_eq!(past.on_leader(NodeId(1), epoch(2), &log(&[1])), Ok(()));
        assert_eq!(past.on_leader(NodeId(2), epoch(2), &log(&[1])), Err(Promise::ElectionSafety));
        let (first, last) = (Index(1), Index(2));
        assert_eq!(past.on_committed((first, last), 2, &log(&[1, 2])), Ok(()));
        let other = past.on_committed((first, last), 3, &log(&[1, 3]));
        assert_eq!(other, Err(Promise::StateMachineSafety));
        let lacking = past.on_leader(NodeId(2), epoch(3), &log(&[1]));
        assert_eq!(lacking, Err(Promise::LeaderCompleteness));
        assert_eq!(past.on_leader(NodeId(2), epoch(4), &log(&[1, 2, 3])), Ok(()));
        assert_eq!(check_matching(&log(&[1, 2, 3]), &log(&[1, 2, 4])), Ok(()));
        assert_eq!(check_matching(&log(&[1, 2, 3]), &log(&[1, 1, 3])), Err(Promise::LogMatching));
    }
}
