//! Which configuration is in force: the last one in the log, whether committed or not (thesis 4.1).

use crate::quorum::Quorum;
use quorate_types::{Configuration, Incarnation, Index, Intent, Member, NodeId};
use std::collections::VecDeque;

/// The configurations of the log.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    /// The one in force where the log begins, then every one in it. Never empty.
    configurations: VecDeque<(Index, Configuration)>,
    /// The quorums of the last one.
    quorum: Quorum,
    /// Whether a step of a change follows the last one.
    is_changing: bool,
}

impl Membership {
    /// The configurations as the log tells them at open.
    pub(super) fn open(configurations: Vec<(Index, Configuration)>) -> Membership {
        let mut configurations = VecDeque::from(configurations);
        if configurations.is_empty() {
            configurations.push_back((Index::ZERO, Configuration::default()));
        }
        let mut membership =
            Membership { configurations, quorum: Quorum::default(), is_changing: false };
        membership.renew_quorum();
        membership
    }

    fn renew_quorum(&mut self) {
        self.quorum = Quorum::new(self.latest());
        let latest = self.latest();
        let intends = |member: &Member| member.intent != Intent::Stay;
        self.is_changing = latest.is_joint() || latest.members.values().any(intends);
    }

    /// Whether a step of a change follows the configuration in force.
    pub(super) fn is_changing(&self) -> bool {
        self.is_changing
    }

    /// Every configuration above `index`.
    pub(super) fn above(&self, index: Index) -> Vec<(Index, Configuration)> {
        self.configurations.iter().filter(|(at, _)| *at > index).cloned().collect()
    }

    /// The configuration in force.
    pub(super) fn latest(&self) -> &Configuration {
        let (_, configuration) = self.configurations.back().expect("is never empty");
        configuration
    }

    /// The index of the entry that put it in force.
    pub(super) fn latest_index(&self) -> Index {
        self.configurations.back().expect("is never empty").0
    }

    /// The configuration in force at `index`.
    pub(super) fn at(&self, index: Index) -> &Configuration {
        let below = self.configurations.iter().rev().find(|(at, _)| *at <= index);
        let (_, configuration) = below.or(self.configurations.front()).expect("is never empty");
        configuration
    }

    /// From which index on the configurations name `node` with the folder that it has now. Where nobody of that name is a
    /// member, that is where the configuration in force stands.
    pub(super) fn named_at(&self, node: NodeId) -> Index {
        let folder = |configuration: &Configuration| {
            configuration.members.get(&node).map(|member| member.incarnation)
        };
        let is_named = |of: &&(Index, Configuration)| folder(&of.1) == folder(self.latest());
        let named = self.configurations.iter().rev().take_while(is_named);
        named.last().map_or(self.latest_index(), |(index, _)| *index)
    }

    /// Its quorums.
    pub(super) fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// Everybody else in it.
    pub(super) fn peers(&self, node: NodeId) -> Vec<NodeId> {
        self.latest().members.keys().copied().filter(|id| *id != node).collect()
    }

    /// Whether `node`, under `incarnation`, votes.
    pub(super) fn is_voter(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let member = self.latest().members.get(&node);
        member.is_some_and(|member| member.incarnation == incarnation)
            && self.latest().is_voter(node)
    }

    /// Whether `node`, under `incarnation`, voted until the configuration in force was appended.
    pub(super) fn was_voter(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let before = self.configurations.iter().rev().nth(1);
        before.is_some_and(|(_, configuration)| {
            let member = configuration.members.get(&node);
            member.is_some_and(|member| member.incarnation == incarnation)
                && configuration.is_voter(node)
        })
    }

    /// Whether a vote of `node`, under `incarnation`, may be given: who asks for it decides whether it counts, by a
    /// configuration that may not have come here yet. A log that lags may be where this node was added and its folder had yet
    /// to be recorded.
    pub(super) fn may_vote(&self, node: NodeId, incarnation: Incarnation) -> bool {
        let fits = |named: Incarnation| named == incarnation || named == Incarnation::UNBOUND;
        self.latest().members.get(&node).is_none_or(|member| fits(member.incarnation))
    }

    /// Whether the configuration in force at `index` has come after the removal of `node`.
    pub(super) fn is_removed(&self, node: NodeId, index: Index) -> bool {
        let configuration = self.at(index);
        !configuration.members.contains_key(&node) && node <= configuration.removed_max
    }

    /// A configuration entry was appended, or written again, at `index`.
    pub(super) fn append(&mut self, index: Index, configuration: Configuration) {
        let at = self.configurations.partition_point(|(at, _)| *at < index);
        match self.configurations.get_mut(at) {
            Some((found, old)) if *found == index => *old = configuration,
            Some(_) | None => self.configurations.insert(at, (index, configuration)),
        }
        self.renew_quorum();
    }

    /// Every slot at or above `from` was dropped.
    pub(super) fn truncate(&mut self, from: Index) {
        while self.configurations.len() > 1
            && self.configurations.back().is_some_and(|(at, _)| *at >= from)
        {
            self.configurations.pop_back();
        }
        self.renew_quorum();
    }

    /// Every slot at or below `index` was dropped; what was in force there stays known.
    pub(super) fn purge(&mut self, index: Index) {
        while self.configurations.get(1).is_some_and(|(at, _)| *at <= index) {
            self.configurations.pop_front();
        }
    }

    /// The log begins after `index`, where `configuration` is in force.
    pub(super) fn reset(&mut self, index: Index, configuration: Configuration) {
        self.configurations = VecDeque::from([(index, configuration)]);
        self.renew_quorum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn configuration(members: &[(u64, u64)], removed_max: u64) -> Configuration {
        let member = |(node, incarnation): &(u64, u64)| {
            let member = Member {
                incarnation: Incarnation(*incarnation),
                name: format!("n{node}"),
                peer_address: format!("n{node}:1"),
                voter: true,
                outgoing_voter: false,
                intent: Intent::Stay,
            };
            (NodeId(*node), member)
        };
        let members: BTreeMap<NodeId, Member> = members.iter().map(member).collect();
        Configuration { members, removed_max: NodeId(removed_max) }
    }

    #[test]
    fn a_vote_is_bound_to_a_folder_unless_the_log_has_yet_to_reach_where_that_is_recorded() {
        let of = |incarnation| {
            let named = configuration(&[(1, 11), (4, incarnation)], 0);
            Membership::open(vec![(Index(3), named)]).may_vote(NodeId(4), Incarnation(44))
        };
        assert!(of(44));
        assert!(of(Incarnation::UNBOUND.0));
        assert!(!of(45), "another folder of that name");
        let unnamed = Membership::open(vec![(Index(1), configuration(&[(1, 11)], 0))]);
        assert!(unnamed.may_vote(NodeId(4), Incarnation(44)), "added later than the log reaches");
    }

    #[test]
    fn a_member_is_named_from_where_its_folder_is_recorded() {
        let without = (Index(1), configuration(&[(1, 11)], 0));
        let unbound = (Index(3), configuration(&[(1, 11), (4, Incarnation::UNBOUND.0)], 0));
        let bound = (Index(5), configuration(&[(1, 11), (4, 44)], 0));
        let other = (Index(7), configuration(&[(1, 11), (4, 44), (5, 55)], 0));
        let mut membership = Membership::open(vec![without, unbound, bound, other]);
        let named =
            |membership: &Membership| [1, 4, 5].map(|node| membership.named_at(NodeId(node)).0);
        assert_eq!(named(&membership), [1, 5, 7]);
        membership.purge(Index(6));
        assert_eq!(named(&membership), [5, 5, 7], "as far as it is known");
        membership.truncate(Index(7));
        assert_eq!(membership.named_at(NodeId(4)), Index(5));
    }

    #[test]
    fn only_who_was_removed_by_what_is_committed_is_removed() {
        let with = (Index(3), configuration(&[(1, 11), (2, 22)], 0));
        let without = (Index(5), configuration(&[(1, 11)], 2));
        let membership = Membership::open(vec![with, without]);
        assert!(!membership.is_removed(NodeId(2), Index(4)));
        assert!(membership.is_removed(NodeId(2), Index(5)));
        assert!(!membership.is_removed(NodeId(3), Index(5)), "it may come later");
        assert!(!membership.is_removed(NodeId(1), Index(5)));
    }
}
