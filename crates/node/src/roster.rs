//! Who forms a cluster: every listed member with the incarnation of its data folder.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{
    ClusterId, Configuration, DecodeError, Entry, EntryKind, Epoch, HardState, Incarnation, Index,
    Intent, Member, NodeId, Op, Origin, Reader, Slot, TransactionId, Writer,
};
use std::fmt;
use xxhash_rust::xxh3::xxh3_64;

/// The epoch that the first configuration is created in; nobody leads it.
const BOOTSTRAP_EPOCH: Epoch = Epoch::new(1, NodeId(0));

/// One member as it was when the cluster was formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Founder {
    /// Its name.
    pub(crate) name: String,
    /// Where peers reach it.
    pub(crate) address: String,
    /// The identity of its data folder.
    pub(crate) incarnation: Incarnation,
}

/// Everybody who forms a cluster.
///
/// # Invariants
/// 1. Founders stand in order of name, and no name stands twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Roster {
    founders: Vec<Founder>,
}

impl Roster {
    /// A roster of these, in any order.
    pub(crate) fn new(mut founders: Vec<Founder>) -> Roster {
        founders.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(
            founders.windows(2).all(|pair| pair[0].name < pair[1].name),
            "invariant 1: every name stands once in {founders:?}"
        );
        Roster { founders }
    }

    /// Everybody, in order of name.
    pub(crate) fn founders(&self) -> &[Founder] {
        &self.founders
    }

    /// The founder of that name.
    pub(crate) fn find(&self, name: &str) -> Option<&Founder> {
        self.founders.iter().find(|founder| founder.name == name)
    }

    /// The id of the node of that name: its place in the order of names, from 1.
    pub(crate) fn node(&self, name: &str) -> Option<NodeId> {
        let place = self.founders.iter().position(|founder| founder.name == name)?;
        Some(NodeId(place as u64 + 1))
    }

    /// The identity of the cluster that this roster forms. Random, because incarnations are.
    pub(crate) fn cluster(&self) -> ClusterId {
        ClusterId(xxh3_64(&self.encode()).max(1))
    }

    /// The first configuration.
    pub(crate) fn configuration(&self) -> Configuration {
        let member = |(place, founder): (usize, &Founder)| {
            let member = Member {
                incarnation: founder.incarnation,
                name: founder.name.clone(),
                peer_address: founder.address.clone(),
                voter: true,
                outgoing_voter: false,
                intent: Intent::Stay,
            };
            (NodeId(place as u64 + 1), member)
        };
        let members = self.founders.iter().enumerate().map(member).collect();
        Configuration { members, ..Configuration::default() }
    }

    /// What the log of every founder begins with: the same bytes everywhere, committed by formation itself.
    pub(crate) fn bootstrap(&self) -> Vec<Op> {
        let entry = Entry::new(
            BOOTSTRAP_EPOCH,
            EntryKind::Configuration,
            Origin::NONE,
            TransactionId(0),
            self.configuration().encode(),
        );
        let state =
            HardState { promised: BOOTSTRAP_EPOCH, voted_for: None, log_epoch: BOOTSTRAP_EPOCH };
        let slot = Slot { index: Index(1), accepted: BOOTSTRAP_EPOCH, entry };
        vec![Op::HardState(state), Op::Write(slot)]
    }

    /// The encoding, in files and frames.
    pub(crate) fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::new();
        buffer.write_count(self.founders.len());
        for founder in &self.founders {
            buffer.put_u64_le(founder.incarnation.0);
            buffer.write_blob(founder.name.as_bytes());
            buffer.write_blob(founder.address.as_bytes());
        }
        buffer.freeze()
    }

    /// Takes a roster off the front of `reader`.
    pub(crate) fn decode(reader: &mut Reader) -> Result<Roster, DecodeError> {
        let mut founders: Vec<Founder> = Vec::new();
        for _ in 0..reader.count(16)? {
            let incarnation = Incarnation(reader.u64()?);
            let name = reader.text()?;
            let address = reader.text()?;
            if founders.last().is_some_and(|last| last.name >= name) {
                return Err(DecodeError::Invalid("a roster is not in order of name"));
            }
            founders.push(Founder { name, address, incarnation });
        }
        Ok(Roster { founders })
    }
}

impl fmt::Display for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, founder) in self.founders.iter().enumerate() {
            let comma = if count == 0 { "" } else { ", " };
            write!(f, "{comma}{}={} ({})", founder.name, founder.address, founder.incarnation)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn founder(name: &str, incarnation: u64) -> Founder {
        let address = format!("{name}:1");
        Founder { name: name.into(), address, incarnation: Incarnation(incarnation) }
    }

    #[test]
    fn ids_follow_the_order_of_names_and_the_cluster_id_the_incarnations() {
        let roster = Roster::new(vec![founder("b", 2), founder("a", 1)]);
        assert_eq!(roster.node("a"), Some(NodeId(1)));
        assert_eq!(roster.node("b"), Some(NodeId(2)));
        assert_eq!(roster.node("c"), None);
        let other = Roster::new(vec![founder("b", 3), founder("a", 1)]);
        assert_ne!(roster.cluster(), other.cluster());
        assert_eq!(roster.configuration().to_string(), "n1,n2");
    }

    #[test]
    fn a_roster_survives_its_encoding() {
        let roster = Roster::new(vec![founder("b", 2), founder("a", 1)]);
        let mut reader = Reader::new("roster", roster.encode());
        assert_eq!(Roster::decode(&mut reader), Ok(roster));
        assert_eq!(reader.finish(), Ok(()));
    }
}
