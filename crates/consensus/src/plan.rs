//! Membership plans: how a group gets from the members it has to those it is to have.
//!
//! Somebody names a target; the steps are the engine's. They stand in the configuration itself, as the [`Intent`] of
//! each member, so that whoever leads next goes on where the last leader stopped:
//! ```text
//! take in   newcomers become learners, and it is recorded who is to vote and who is to leave
//! wait      until every learner that is to vote holds almost the whole log
//! enter     joint: majorities of the old and of the new voters must agree on everything (Raft thesis 4.3)
//! leave     the new voters alone; who is no voter of them is gone
//! ```
//! Each step is one entry, and none is taken before the one before is committed. Before *enter* another target may take
//! the place of this one; from then on the change is carried through.

use quorate_types::{Configuration, ConfigurationError, Incarnation, Intent, Member, NodeId};
use std::collections::BTreeSet;

/// Why a target cannot be taken in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The asker has worked from another configuration than the one in force.
    #[error("the membership has changed meanwhile")]
    Stale,
    /// The leader leads only now, or is handing over.
    #[error("leadership has only just changed: ask again")]
    Early,
    /// A step of another change is not committed, or voters are being exchanged.
    #[error("another change of membership is under way")]
    UnderWay,
    /// What every configuration must satisfy.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// An id that stands for another member, or once did.
    #[error("{0} was used before: ids of nodes are never used again")]
    Reused(NodeId),
    /// A member's name or data folder cannot become another.
    #[error("{0} is another member: a member with a new data folder is a new member")]
    Other(NodeId),
    /// A voter cannot become a learner.
    #[error("{0} votes: it can be removed, and join again as a learner")]
    Demotion(NodeId),
    /// Two members share a name or an address.
    #[error("{0} stands for two members")]
    Twice(String),
    /// A new member has the name of one that there is, perhaps of the one whose place it is to take.
    #[error("{0} is the name of a member, or of one that leaves: a new member needs another")]
    Taken(String),
    /// Too few of the target's voters can be reached.
    #[error("{reachable} of {voters} voters of the target can be reached: no majority")]
    Unhealthy {
        /// How many can, newcomers among them.
        reachable: usize,
        /// How many there would be.
        voters: usize,
    },
}

/// What `configuration` aims at already: the target that would change nothing. Edit this, and ask for it.
#[must_use]
pub fn aim(configuration: &Configuration) -> Configuration {
    let mut target = configuration.clone();
    target.members.retain(|_, member| {
        member.intent != Intent::Remove && (member.voter || !member.outgoing_voter)
    });
    for member in target.members.values_mut() {
        member.voter |= member.intent == Intent::Promote;
        member.outgoing_voter = false;
        member.intent = Intent::Stay;
    }
    target
}

/// The id that the next member gets.
#[must_use]
pub fn next_node(configuration: &Configuration) -> NodeId {
    let highest = configuration.members.keys().next_back().copied().unwrap_or_default();
    NodeId(highest.max(configuration.removed_max).0 + 1)
}

/// The first step from `current` to `target`: nobody's vote changes. `is_reachable` says who follows at present.
///
/// # Errors
/// See [`PlanError`].
pub fn take_in(
    current: &Configuration,
    target: &Configuration,
    is_reachable: impl Fn(NodeId) -> bool,
) -> Result<Configuration, PlanError> {
    if current.is_joint() {
        return Err(PlanError::UnderWay);
    }
    target.check()?;
    check_unique(target)?;
    let mut planned = current.clone();
    for (id, member) in &mut planned.members {
        member.intent = Intent::Remove;
        if let Some(wanted) = target.members.get(id) {
            renew(*id, member, wanted)?;
        }
    }
    let next = next_node(current);
    for (id, wanted) in &target.members {
        if planned.members.contains_key(id) {
            continue;
        }
        if *id < next {
            return Err(PlanError::Reused(*id));
        }
        let intent = if wanted.voter { Intent::Promote } else { Intent::Stay };
        let member = Member { voter: false, outgoing_voter: false, intent, ..wanted.clone() };
        planned.members.insert(*id, member);
    }
    check_names(current, &planned)?;
    planned.check()?;
    check_health(current, target, is_reachable)?;
    Ok(planned)
}

/// Brings what is recorded of a member in line with the target.
fn renew(id: NodeId, member: &mut Member, wanted: &Member) -> Result<(), PlanError> {
    if member.name.is_empty() {
        member.name.clone_from(&wanted.name);
    }
    if member.incarnation == Incarnation::UNBOUND {
        member.incarnation = wanted.incarnation;
    }
    if member.name != wanted.name || member.incarnation != wanted.incarnation {
        return Err(PlanError::Other(id));
    }
    member.peer_address.clone_from(&wanted.peer_address);
    member.intent = match (member.voter, wanted.voter) {
        (true, false) => return Err(PlanError::Demotion(id)),
        (false, true) => Intent::Promote,
        (true, true) | (false, false) => Intent::Stay,
    };
    Ok(())
}

fn check_unique(target: &Configuration) -> Result<(), PlanError> {
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for member in target.members.values() {
        // A name that is not known yet is no name.
        if !member.name.is_empty() && !names.insert(&member.name) {
            return Err(PlanError::Twice(member.name.clone()));
        }
        if !addresses.insert(&member.peer_address) {
            return Err(PlanError::Twice(member.peer_address.clone()));
        }
    }
    Ok(())
}

/// Whether nobody gets a name that another has: members are told apart by their names until the one that leaves has left.
fn check_names(current: &Configuration, planned: &Configuration) -> Result<(), PlanError> {
    let is_new = |id: &NodeId| current.members.get(id).is_none_or(|member| member.name.is_empty());
    for (id, named) in planned.members.iter().filter(|(id, _)| is_new(id)) {
        let mut others = planned.members.iter().filter(|(other, _)| *other != id);
        if !named.name.is_empty() && others.any(|(_, member)| member.name == named.name) {
            return Err(PlanError::Taken(named.name.clone()));
        }
    }
    Ok(())
}

/// Whether the target could decide anything: whoever does not vote yet counts, since it is waited for before it does.
fn check_health(
    current: &Configuration,
    target: &Configuration,
    is_reachable: impl Fn(NodeId) -> bool,
) -> Result<(), PlanError> {
    let voters: Vec<NodeId> = target.voters().collect();
    let reaches = |id: &&NodeId| !current.is_voter(**id) || is_reachable(**id);
    let reachable = voters.iter().filter(reaches).count();
    match 2 * reachable > voters.len() {
        true => Ok(()),
        false => Err(PlanError::Unhealthy { reachable, voters: voters.len() }),
    }
}

/// The next step of the change that `current`, which is committed, records; `None` when there is none, or it must wait.
/// `is_ready` says which learners hold almost the whole log, `is_reachable` who follows at present.
#[must_use]
pub(crate) fn next_step(
    current: &Configuration,
    is_ready: impl Fn(NodeId) -> bool,
    is_reachable: impl Fn(NodeId) -> bool,
) -> Option<Configuration> {
    if current.is_joint() {
        return Some(leave(current));
    }
    let mut members = current.members.iter();
    if members.all(|(_, member)| member.intent == Intent::Stay) {
        return None;
    }
    let waits = |(id, member): (&NodeId, &Member)| {
        member.intent == Intent::Promote
            && (member.incarnation == Incarnation::UNBOUND || !is_ready(*id))
    };
    if current.members.iter().any(waits) {
        return None;
    }
    let next = enter(current);
    let voters: Vec<NodeId> = next.voters().collect();
    let reachable = voters.iter().filter(|id| is_reachable(**id)).count();
    (2 * reachable > voters.len()).then_some(next)
}

/// The joint configuration; the new one at once when nobody's vote changes.
fn enter(current: &Configuration) -> Configuration {
    let mut next = current.clone();
    let changes_votes = current.members.values().any(|member| match member.intent {
        Intent::Stay => false,
        Intent::Promote => true,
        Intent::Remove => member.voter,
    });
    for member in next.members.values_mut() {
        member.outgoing_voter = changes_votes && member.voter;
        member.voter = match member.intent {
            Intent::Stay => member.voter,
            Intent::Promote => true,
            Intent::Remove => false,
        };
        if member.intent == Intent::Promote {
            member.intent = Intent::Stay;
        }
    }
    drop_members(&mut next, |member| member.intent == Intent::Remove && !member.outgoing_voter);
    next
}

/// The configuration after a joint one.
pub(crate) fn leave(current: &Configuration) -> Configuration {
    let mut next = current.clone();
    drop_members(&mut next, |member| member.outgoing_voter && !member.voter);
    for member in next.members.values_mut() {
        member.outgoing_voter = false;
    }
    next
}

fn drop_members(configuration: &mut Configuration, leaves: impl Fn(&Member) -> bool) {
    let gone = configuration.members.iter().filter(|(_, member)| leaves(member)).map(|(id, _)| *id);
    let highest = gone.max().unwrap_or_default();
    configuration.removed_max = configuration.removed_max.max(highest);
    configuration.members.retain(|_, member| !leaves(member));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, voter: bool) -> (NodeId, Member) {
        let member = Member {
            incarnation: Incarnation(id * 0x11),
            name: format!("n{id}"),
            peer_address: format!("h{id}:1"),
            voter,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        (NodeId(id), member)
    }

    fn configuration(voters: &[u64]) -> Configuration {
        let members = voters.iter().map(|id| member(*id, true)).collect();
        Configuration { members, removed_max: NodeId(0) }
    }

    /// All steps from `voters` to the target.
    fn steps(voters: &[u64], target: &Configuration) -> Vec<String> {
        let mut current = take_in(&configuration(voters), target, |_| true).expect("can be taken");
        let mut found = vec![current.to_string()];
        while let Some(next) = next_step(&current, |_| true, |_| true) {
            current = next;
            found.push(current.to_string());
        }
        assert_eq!(
            aim(&current),
            Configuration { removed_max: current.removed_max, ..target.clone() }
        );
        found
    }

    #[test]
    fn the_steps_of_each_kind_of_change() {
        let mut learner = configuration(&[1, 2, 3]);
        learner.members.extend([member(4, false)]);
        assert_eq!(steps(&[1, 2, 3], &learner), ["n1,n2,n3 learners=n4"]);
        assert_eq!(
            steps(&[1, 2, 3], &configuration(&[1, 3, 4])),
            [
                "n1,n2,n3 learners=n4 promote=n4 remove=n2",
                "n1,n3,n4 out=n1,n2,n3 remove=n2",
                "n1,n3,n4"
            ]
        );
        assert_eq!(
            steps(&[1, 2], &configuration(&[2])),
            ["n1,n2 remove=n1", "n2 out=n1,n2 remove=n1", "n2"]
        );
    }

    #[test]
    fn learners_are_waited_for_and_dropped_without_a_joint_step() {
        let planned = take_in(&configuration(&[1]), &configuration(&[1, 2]), |_| true);
        let planned = planned.expect("can be taken");
        assert_eq!(next_step(&planned, |_| false, |_| true), None);
        assert_eq!(next_step(&planned, |_| true, |id| id == NodeId(9)), None);
        let back = take_in(&planned, &configuration(&[1]), |_| true).expect("it can be cancelled");
        assert_eq!(back.to_string(), "n1 learners=n2 remove=n2");
        let end = next_step(&back, |_| false, |_| true).expect("nobody to wait for");
        assert_eq!((end.to_string().as_str(), end.removed_max), ("n1", NodeId(2)));
        assert_eq!(next_node(&end), NodeId(3));
        let again = take_in(&end, &configuration(&[1, 2]), |_| true);
        assert_eq!(again, Err(PlanError::Reused(NodeId(2))));
    }

    #[test]
    fn each_bad_target_is_refused() {
        let current = configuration(&[1, 2, 3]);
        let check = |change: fn(&mut Configuration), expected: PlanError| {
            let mut target = current.clone();
            change(&mut target);
            let reachable = |id: NodeId| id != NodeId(3);
            assert_eq!(take_in(&current, &target, reachable), Err(expected));
        };
        check(|target| target.members.clear(), ConfigurationError::NoVoter.into());
        check(
            |target| {
                target.members.remove(&NodeId(2));
            },
            PlanError::Unhealthy { reachable: 1, voters: 2 },
        );
        check(|target| edit(target, |member| member.voter = false), PlanError::Demotion(NodeId(1)));
        check(
            |target| edit(target, |member| member.incarnation = Incarnation(7)),
            PlanError::Other(NodeId(1)),
        );
        check(
            |target| edit(target, |member| member.name = "n2".into()),
            PlanError::Twice("n2".into()),
        );
        check(
            |target| edit(target, |member| member.peer_address = "h2:1".into()),
            PlanError::Twice("h2:1".into()),
        );
        check(
            |target| {
                let (id, mut added) = member(4, true);
                added.name = "n3".into();
                target.members.remove(&NodeId(3));
                target.members.insert(id, added);
            },
            PlanError::Taken("n3".into()),
        );
        let joint = next_step(
            &take_in(&current, &configuration(&[1, 2, 4]), |_| true).expect("can be taken"),
            |_| true,
            |_| true,
        );
        let refused = take_in(&joint.expect("all are ready"), &current, |_| true);
        assert_eq!(refused, Err(PlanError::UnderWay));
    }

    fn edit(target: &mut Configuration, change: fn(&mut Member)) {
        change(target.members.get_mut(&NodeId(1)).expect("is there"));
    }

    #[test]
    fn newcomers_who_are_more_than_half_are_bound_to_their_folders() {
        let mut target = configuration(&[1, 4, 5]);
        for id in [4, 5] {
            let added = target.members.get_mut(&NodeId(id)).expect("is there");
            added.incarnation = Incarnation::UNBOUND;
        }
        let voters = |id: NodeId| id <= NodeId(3);
        let planned = take_in(&configuration(&[1, 2, 3]), &target, voters).expect("can be taken");
        target.members.extend([member(4, true)]);
        let bound = take_in(&planned, &target, voters).expect("the first is bound");
        target.members.extend([member(5, true)]);
        let bound = take_in(&bound, &target, voters).expect("the second is bound");
        assert_eq!(next_step(&bound, voters, voters), None, "both are waited for");
        assert!(next_step(&bound, |_| true, |_| true).is_some());
    }

    #[test]
    fn a_member_is_bound_to_its_folder_once() {
        let mut target = configuration(&[1, 2]);
        let added = target.members.get_mut(&NodeId(2)).expect("is there");
        (added.incarnation, added.name) = (Incarnation::UNBOUND, String::new());
        let planned = take_in(&configuration(&[1]), &target, |_| true).expect("can be taken");
        assert_eq!(next_step(&planned, |_| true, |_| true), None, "nobody has joined");
        let bound = take_in(&planned, &configuration(&[1, 2]), |_| true).expect("can be bound");
        assert_eq!(bound.members[&NodeId(2)].name, "n2");
        let mut other = configuration(&[1, 2]);
        other.members.get_mut(&NodeId(2)).expect("is there").incarnation = Incarnation(5);
        assert_eq!(take_in(&bound, &other, |_| true), Err(PlanError::Other(NodeId(2))));
    }
}
