//! Quorum systems: which sets of voters may decide.

use quorate_types::{Configuration, Index, NodeId};

/// Voters, and how many of them decide.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Majority {
    /// The voters, in order of id.
    voters: Vec<NodeId>,
    /// How many of them are a quorum.
    threshold: usize,
}

impl Majority {
    fn new(voters: Vec<NodeId>) -> Majority {
        let threshold = voters.len() / 2 + 1;
        assert!(
            2 * threshold > voters.len(),
            "two quorums of {threshold} among {} voters may not meet",
            voters.len()
        );
        Majority { voters, threshold }
    }

    fn is_quorum(&self, holds: &impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().filter(|voter| holds(**voter)).count() >= self.threshold
    }

    fn is_blocked_by(&self, denies: &impl Fn(NodeId) -> bool) -> bool {
        self.voters.iter().filter(|voter| !denies(**voter)).count() < self.threshold
    }

    fn highest(&self, index_of: &impl Fn(NodeId) -> Index) -> Index {
        let mut indexes: Vec<Index> = self.voters.iter().map(|voter| index_of(*voter)).collect();
        indexes.sort_unstable();
        indexes[self.voters.len() - self.threshold]
    }
}

/// The quorums of one configuration: a majority of its voters, and during a joint change also a majority of the
/// outgoing voters (thesis 4.3).
///
/// # Invariants
/// 1. Any two quorums have a voter in common.
/// 2. A system without voters has no quorum: nothing is ever decided by nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Quorum {
    /// One majority, two during a joint change, none without voters.
    majorities: Vec<Majority>,
}

impl Quorum {
    /// The quorums of `configuration`.
    pub(crate) fn new(configuration: &Configuration) -> Quorum {
        let incoming: Vec<NodeId> = configuration.voters().collect();
        let outgoing: Vec<NodeId> = configuration.outgoing_voters().collect();
        let majorities = [incoming, outgoing]
            .into_iter()
            .filter(|voters| !voters.is_empty())
            .map(Majority::new)
            .collect();
        Quorum { majorities }
    }

    /// Whether those who satisfy `holds` are a quorum.
    pub(crate) fn is_quorum(&self, holds: impl Fn(NodeId) -> bool) -> bool {
        !self.majorities.is_empty()
            && self.majorities.iter().all(|majority| majority.is_quorum(&holds))
    }

    /// Whether those who satisfy `denies` have a member in every majority of each set of voters: also in those of a
    /// configuration that follows this one.
    pub(crate) fn is_blocked_by(&self, denies: impl Fn(NodeId) -> bool) -> bool {
        !self.majorities.is_empty()
            && self.majorities.iter().all(|majority| majority.is_blocked_by(&denies))
    }

    /// The highest index that a quorum holds, where `index_of` says how far each voter holds the log.
    pub(crate) fn highest(&self, index_of: impl Fn(NodeId) -> Index) -> Index {
        self.majorities
            .iter()
            .map(|majority| majority.highest(&index_of))
            .min()
            .unwrap_or(Index::ZERO)
    }

    /// Whether `node` alone is a quorum.
    pub(crate) fn is_alone(&self, node: NodeId) -> bool {
        self.is_quorum(|voter| voter == node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Incarnation, Intent, Member};
    use std::collections::BTreeMap;

    fn configuration(incoming: u64, outgoing: u64) -> Configuration {
        let members: BTreeMap<NodeId, Member> = (0..64)
            .filter(|bit| (incoming | outgoing) >> bit & 1 == 1)
            .map(|bit| {
                let member = Member {
                    incarnation: Incarnation(bit),
                    name: format!("n{bit}"),
                    peer_address: String::new(),
                    voter: incoming >> bit & 1 == 1,
                    outgoing_voter: outgoing >> bit & 1 == 1,
                    intent: Intent::Stay,
                };
                (NodeId(bit), member)
            })
            .collect();
        Configuration { members, ..Configuration::default() }
    }

    fn has_majority(set: u64, of: u64) -> bool {
        of == 0 || 2 * (set & of).count_ones() > of.count_ones()
    }

    #[test]
    fn every_set_of_up_to_six_nodes_is_judged_like_the_definition() {
        for incoming in 1_u64..64 {
            for outgoing in [0, 1, 5, 7, 21, 42, 56, 63] {
                let quorum = Quorum::new(&configuration(incoming, outgoing));
                for set in 0_u64..64 {
                    let expected = has_majority(set, incoming) && has_majority(set, outgoing);
                    let found = quorum.is_quorum(|node| set >> node.0 & 1 == 1);
                    assert_eq!(found, expected, "{incoming:b} {outgoing:b} {set:b}");
                    let others = |of| of == 0 || !has_majority(!set & 63, of);
                    let blocked = quorum.is_blocked_by(|node| set >> node.0 & 1 == 1);
                    let expected = others(incoming) && others(outgoing);
                    assert_eq!(blocked, expected, "{incoming:b} {outgoing:b} {set:b} blocks");
                }
            }
        }
    }

    #[test]
    fn any_two_quorums_meet() {
        for (incoming, outgoing) in [(7, 0), (31, 0), (7, 56), (15, 7), (3, 12), (1, 6)] {
            let quorum = Quorum::new(&configuration(incoming, outgoing));
            let quorums: Vec<u64> =
                (0_u64..64).filter(|set| quorum.is_quorum(|node| set >> node.0 & 1 == 1)).collect();
            for one in &quorums {
                for other in &quorums {
                    assert_ne!(
                        one & other,
                        0,
                        "{one:b} and {other:b} of {incoming:b} {outgoing:b}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_highest_index_is_what_brute_force_finds() {
        let mut state = 11_u64;
        for round in 0..2_000_u64 {
            let incoming = 1 + round % 63;
            let outgoing = if round % 3 == 0 { round / 3 % 64 } else { 0 };
            let indexes: Vec<Index> = (0..6)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(99);
                    Index((state >> 33) % 8)
                })
                .collect();
            let quorum = Quorum::new(&configuration(incoming, outgoing));
            let index_of = |node: NodeId| indexes[usize::try_from(node.0).expect("small")];
            let expected = (0..8)
                .map(Index)
                .filter(|index| quorum.is_quorum(|node| index_of(node) >= *index))
                .max();
            assert_eq!(Some(quorum.highest(index_of)), expected, "round {round}");
        }
    }

    #[test]
    fn nobody_decides_nothing() {
        let quorum = Quorum::new(&Configuration::default());
        assert!(!quorum.is_quorum(|_| true));
        assert_eq!(quorum.highest(|_| Index(9)), Index::ZERO);
    }
}
