//! Identifiers: newtypes, so that no bare `u64` crosses a boundary.

use std::fmt;

macro_rules! newtype {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }
    };
}

newtype!(
    /// A node of one cluster. Never 0, never used again for another node.
    NodeId, "n"
);
newtype!(
    /// A consensus group. Group 0 is the system group.
    GroupId, "g"
);
newtype!(
    /// The position of a slot in a group's log. The first is 1; 0 stands before the log.
    Index, ""
);
newtype!(
    /// One `Persist` of one group. Rises by one with each; never reused within a run of a process.
    WriteId, "w"
);
newtype!(
    /// How often this data folder was opened. The first start is 1.
    StartNumber, "s"
);
newtype!(
    /// Raised when a cluster is recovered by force, so that what was fenced off stays out.
    Generation, "generation "
);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }
    };
}

random_id!(
    /// The identity of a cluster: random, agreed at formation.
    ClusterId
);
random_id!(
    /// The identity of one data folder: drawn when the folder is made, lost with it.
    Incarnation
);
random_id!(
    /// A value of a digest chain over logical changes of a state machine.
    Digest
);

impl Incarnation {
    /// The data folder of a member that was added and has not joined yet.
    pub const UNBOUND: Incarnation = Incarnation(0);
}

impl Index {
    /// Before the first slot.
    pub const ZERO: Index = Index(0);

    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0.checked_add(1).expect("an index is reached one slot at a time"))
    }

    /// The index before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Index {
        Index(self.0.saturating_sub(1))
    }

    /// How many slots lie in `self < i <= other`; 0 when `other` is not above.
    #[must_use]
    pub fn distance_to(self, other: Index) -> u64 {
        other.0.saturating_sub(self.0)
    }
}

impl WriteId {
    /// The write after this one.
    #[must_use]
    pub fn next(self) -> WriteId {
        WriteId(self.0.checked_add(1).expect("a write id is reached one write at a time"))
    }
}

/// A period of leadership: Raft's term, a Paxos ballot, Zab's epoch, VSR's view.
///
/// Ordered lexicographically, number first. The owner breaks ties between proposers; `NodeId(0)`
/// means that no owner is known yet (a Raft term before its leader is elected).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch {
    /// Rises with every change of leadership.
    pub number: u64,
    /// The node that leads, or proposes to lead, this epoch.
    pub owner: NodeId,
}

impl Epoch {
    /// Before any leadership.
    pub const ZERO: Epoch = Epoch { number: 0, owner: NodeId(0) };

    /// An epoch from its parts.
    #[must_use]
    pub const fn new(number: u64, owner: NodeId) -> Epoch {
        Epoch { number, owner }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.owner {
            NodeId(0) => write!(f, "{}", self.number),
            owner => write!(f, "{}{owner}", self.number),
        }
    }
}

/// A slot by index and the epoch in which its entry was created: `4@2n1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Where in the log.
    pub index: Index,
    /// The created epoch of the entry there.
    pub epoch: Epoch,
}

impl Position {
    /// Before the log.
    pub const ZERO: Position = Position { index: Index::ZERO, epoch: Epoch::ZERO };

    /// A position from its parts.
    #[must_use]
    pub const fn new(index: Index, epoch: Epoch) -> Position {
        Position { index, epoch }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.index, self.epoch)
    }
}

/// Which protocol a group runs; part of a data folder's identity and of every hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum ProtocolName {
    /// Raft (Ongaro 2014).
    Raft = 1,
    /// Multi-Paxos.
    Paxos = 2,
    /// Zab, of ZooKeeper.
    Zab = 3,
    /// Viewstamped Replication Revisited.
    Vsr = 4,
}

impl ProtocolName {
    /// The protocol of a byte on disk or wire.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<ProtocolName> {
        match byte {
            1 => Some(ProtocolName::Raft),
            2 => Some(ProtocolName::Paxos),
            3 => Some(ProtocolName::Zab),
            4 => Some(ProtocolName::Vsr),
            _ => None,
        }
    }
}

impl fmt::Display for ProtocolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ProtocolName::Raft => "raft",
            ProtocolName::Paxos => "paxos",
            ProtocolName::Zab => "zab",
            ProtocolName::Vsr => "vsr",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_order_by_number_then_owner() {
        let check = |low: (u64, u64), high: (u64, u64)| {
            assert!(Epoch::new(low.0, NodeId(low.1)) < Epoch::new(high.0, NodeId(high.1)));
        };
        check((1, 9), (2, 0));
        check((2, 0), (2, 1));
        check((2, 1), (2, 3));
    }

    #[test]
    fn the_notation_is_compact() {
        let position = Position::new(Index(4), Epoch::new(2, NodeId(1)));
        assert_eq!(position.to_string(), "4@2n1");
        assert_eq!(Epoch::new(3, NodeId(0)).to_string(), "3");
        assert_eq!(Incarnation(0x9f3a).to_string(), "0000000000009f3a");
    }
}
