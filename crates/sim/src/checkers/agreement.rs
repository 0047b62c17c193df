//! Agreement: what was decided at an index is decided there for ever, and state is a function of the log.
//!
//! C2 and C6 of the common invariants (Lamport 1998 "consistency"; Raft's state machine safety, Ongaro 2014 figure 3.2). The
//! account covers all nodes for the whole run: a crash of a node does not take back what it has applied before.

use super::Violation;
use crate::network::ProcessId;
use quorate_types::{Applied, ContentHash, Digest, Index, Position};
use std::collections::BTreeMap;

/// What is known to be decided, by anybody, at any time.
#[derive(Debug, Default)]
pub struct Agreement {
    /// The entry that each index was first applied as, and by whom.
    decided: BTreeMap<Index, (ContentHash, ProcessId)>,
    /// The digest that each applied index was first seen with, and where.
    digests: BTreeMap<Index, (Position, Digest, ProcessId)>,
}

impl Agreement {
    /// A node is about to apply an entry.
    ///
    /// # Errors
    /// When another entry was applied at that index before.
    pub fn on_apply(
        &mut self,
        process: ProcessId,
        index: Index,
        hash: ContentHash,
    ) -> Result<(), Violation> {
        let (decided, first) = *self.decided.entry(index).or_insert((hash, process));
        if decided == hash {
            return Ok(());
        }
        Err(violation(format!(
            "index {index} is {decided} since process {} applied it, but {hash} on process {}",
            first.0, process.0
        )))
    }

    /// A state machine has come to a position.
    ///
    /// # Errors
    /// When another one had another digest or epoch there.
    pub fn on_applied(&mut self, process: ProcessId, applied: Applied) -> Result<(), Violation> {
        let Applied { position, digest } = applied;
        let (known, known_digest, first) =
            *self.digests.entry(position.index).or_insert((position, digest, process));
        if known == position && known_digest == digest {
            return Ok(());
        }
        Err(violation(format!(
            "process {} is at {known} with digest {known_digest}, process {} at {position} with {digest}",
            first.0, process.0
        )))
    }

    /// The highest index that anybody has applied.
    #[must_use]
    pub fn highest(&self) -> Index {
        self.decided.keys().next_back().copied().unwrap_or(Index::ZERO)
    }
}

fn violation(seen: String) -> Violation {
    Violation { promise: "agreement", seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Epoch, NodeId};

    fn applied(index: u64, digest: u64) -> Applied {
        let position = Position::new(Index(index), Epoch::new(1, NodeId(1)));
        Applied { position, digest: Digest(digest) }
    }

    #[test]
    fn one_index_has_one_entry_on_all_nodes_for_all_time() {
        let mut agreement = Agreement::default();
        let mut apply = |process, index, hash| {
            agreement.on_apply(ProcessId(process), Index(index), ContentHash(hash))
        };
        assert_eq!(apply(0, 1, 11), Ok(()));
        assert_eq!(apply(1, 1, 11), Ok(()));
        assert_eq!(apply(0, 1, 11), Ok(()), "again after a crash");
        assert!(apply(2, 1, 12).is_err());
        assert_eq!(agreement.highest(), Index(1));
    }

    #[test]
    fn one_index_has_one_digest() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.on_applied(ProcessId(0), applied(3, 5)), Ok(()));
        assert_eq!(agreement.on_applied(ProcessId(1), applied(4, 6)), Ok(()));
        assert_eq!(agreement.on_applied(ProcessId(1), applied(3, 5)), Ok(()));
        assert!(agreement.on_applied(ProcessId(2), applied(4, 7)).is_err());
    }
}
