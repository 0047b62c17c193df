//! Members of a later configuration than the log here holds.
//!
//! A log that lags names members who have left, and none of those who took their places: a newcomer that reads the past from
//! its beginning, or a member that was down while others were replaced. It must hear the leader all the same (thesis 4.1: a
//! server takes requests from servers that are not in its configuration), or it lags for ever. Ids rise and are never used
//! again, so a member of this cluster whose id is above every id that the log has seen is one that the log has yet to reach.

use quorate_consensus::plan;
use quorate_types::{Configuration, Incarnation, Index, Member, NodeId};
use std::collections::BTreeMap;

/// How many are kept in mind at most: as many as a configuration may have.
const COUNT_MAX: usize = 64;

/// Members that the log has yet to reach.
///
/// # Invariants
/// 1. Of every id the configuration in force has yet to learn whose it is: see [`is_ahead`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Later {
    members: BTreeMap<NodeId, Member>,
}

impl Later {
    /// Those that configurations of a log name and the last one of them has yet to reach: a newcomer's log begins with the
    /// configuration that took it in, and the past follows.
    pub(crate) fn of(configurations: &BTreeMap<Index, Configuration>) -> Later {
        let mut later = Later::default();
        if let Some(last) = configurations.values().next_back() {
            configurations.values().for_each(|former| later.pass(Some(former), last));
        }
        later
    }

    /// Another configuration is in force.
    pub(crate) fn pass(&mut self, former: Option<&Configuration>, now: &Configuration) {
        for (node, member) in former.into_iter().flat_map(|former| &former.members) {
            if is_ahead(now, *node) && member.incarnation != Incarnation::UNBOUND {
                self.insert(*node, member.clone());
            }
        }
        self.members.retain(|node, _| is_ahead(now, *node));
    }

    /// A member of the cluster has said who it is. Whether that is news.
    pub(crate) fn introduce(&mut self, now: &Configuration, node: NodeId, member: Member) -> bool {
        is_ahead(now, node) && !member.peer_address.is_empty() && self.insert(node, member)
    }

    /// Whether it was not known.
    fn insert(&mut self, node: NodeId, member: Member) -> bool {
        let is_news = !self.members.contains_key(&node) && self.members.len() < COUNT_MAX;
        if is_news {
            self.members.insert(node, member);
        }
        is_news
    }

    /// All of them.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter()
    }

    /// The one of this id.
    pub(crate) fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(&node)
    }

    /// The members of a configuration and these; one that has the name of a former member is the one of that name.
    pub(crate) fn beside(&self, now: &Configuration) -> Configuration {
        let mut all = now.clone();
        all.members
            .retain(|_, member| self.members.values().all(|later| later.name != member.name));
        all.members.extend(self.members.clone());
        all
    }
}

/// Whether a member of this id, whose folder is recorded, is one of a later configuration: the id is above all that were ever
/// given, or was given and waits for its folder.
fn is_ahead(now: &Configuration, node: NodeId) -> bool {
    let waits = |member: &Member| member.incarnation == Incarnation::UNBOUND;
    node >= plan::next_node(now) || now.members.get(&node).is_some_and(waits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Intent;

    fn member(node: u64) -> Member {
        Member {
            incarnation: Incarnation(node),
            name: format!("n{node}"),
            peer_address: format!("n{node}:1"),
            voter: true,
            outgoing_voter: false,
            intent: Intent::Stay,
        }
    }

    fn configuration(nodes: &[u64]) -> Configuration {
        let members = nodes.iter().map(|node| (NodeId(*node), member(*node))).collect();
        Configuration { members, ..Configuration::default() }
    }

    fn names(later: &Later) -> Vec<&str> {
        later.members().map(|(_, member)| member.name.as_str()).collect()
    }

    #[test]
    fn who_took_a_newcomer_in_is_heard_until_the_log_reaches_it() {
        let welcome = (Index(0), configuration(&[2, 5, 6, 7]));
        let past = (Index(1), configuration(&[1, 2, 3]));
        let mut later = Later::of(&BTreeMap::from([welcome, past]));
        assert_eq!(names(&later), ["n5", "n6", "n7"]);
        let mut waiting = configuration(&[2, 3, 5]);
        if let Some(member) = waiting.members.get_mut(&NodeId(5)) {
            member.incarnation = Incarnation::UNBOUND;
        }
        later.pass(None, &waiting);
        assert_eq!(names(&later), ["n5", "n6", "n7"], "n5 has come since");
        later.pass(None, &configuration(&[2, 3, 5]));
        assert_eq!(names(&later), ["n6", "n7"]);
        later.pass(None, &configuration(&[2, 5, 6, 7]));
        assert_eq!(names(&later), [""; 0]);
    }

    #[test]
    fn only_a_member_above_all_ids_seen_can_introduce_itself() {
        let now = Configuration { removed_max: NodeId(4), ..configuration(&[1, 2, 3]) };
        let mut later = Later::default();
        assert!(!later.introduce(&now, NodeId(4), member(4)), "it was removed");
        assert!(!later.introduce(&now, NodeId(2), member(9)), "another one has that id");
        let unreachable = Member { peer_address: String::new(), ..member(5) };
        assert!(!later.introduce(&now, NodeId(5), unreachable));
        assert!(later.introduce(&now, NodeId(5), member(5)));
        assert!(!later.introduce(&now, NodeId(5), member(5)), "no news");
        for node in 6..200 {
            later.introduce(&now, NodeId(node), member(node));
        }
        assert_eq!(later.members().count(), COUNT_MAX);
    }

    #[test]
    fn a_name_belongs_to_the_latest_of_its_bearers() {
        let mut later = Later::default();
        let now = configuration(&[1, 2]);
        assert!(later.introduce(&now, NodeId(9), Member { name: "n2".into(), ..member(9) }));
        let all = later.beside(&now);
        assert_eq!(all.members.keys().copied().collect::<Vec<_>>(), [NodeId(1), NodeId(9)]);
    }

    #[test]
    fn a_member_without_a_folder_is_not_kept_in_mind() {
        let mut former = configuration(&[1, 2, 8, 9]);
        if let Some(member) = former.members.get_mut(&NodeId(9)) {
            member.incarnation = Incarnation::UNBOUND;
        }
        let mut later = Later::default();
        later.pass(Some(&former), &configuration(&[1, 2]));
        assert_eq!(names(&later), ["n8"]);
    }
}
