//! What was found of a group at open: log, state machine and identity, and how they stand to each other.

use super::opening::OpenError;
use super::{Found, SYSTEM_GROUP};
use crate::identity::Identity;
use crate::install::{Standing, standing};
use crate::roster::Roster;
use quorate_log::Recovery;
use quorate_types::{
    AppliedMembers, Configuration, Index, LogSummary, MachineState, Mistake, SnapshotName,
};

/// How log, state machine and identity stand to each other.
pub(super) fn found(
    identity: &Identity,
    recovery: &Recovery,
    machine: MachineState,
    install: Option<SnapshotName>,
) -> Result<Found, OpenError> {
    let MachineState { applied, members } = machine;
    let mut log = recovery.groups.get(&SYSTEM_GROUP).cloned().unwrap_or_default();
    let has_log = log.bounds.last > Index::ZERO;
    if has_log && !Mistake::MembersForgotten.is_made() {
        restore_members(&mut log, applied.position.index, members);
    }
    if has_log && log.configurations.is_empty() {
        log.configurations.push((Index::ZERO, remembered_peers(identity)));
    }
    // The log of a member that joined and was told nothing yet holds the configuration that it joined with.
    let is_begun = has_log || !log.configurations.is_empty();
    if identity.membership.is_some() && !is_begun {
        return Err(OpenError::Folder(format!(
            "{} is a member of a cluster, but its log is gone: put the log back. A member whose log is lost for good \
             must be replaced; an empty log has forgotten its votes",
            identity.name
        )));
    }
    if identity.roster.is_none() && identity.membership.is_none() && has_log {
        return Err(OpenError::Folder(
            "the data folder holds a log that its identity file does not know: put the right file back"
                .to_owned(),
        ));
    }
    let has_install_file = install.is_some();
    let is_only_voter = is_only_voter(&log, &identity.name);
    let standing = standing(&log, applied, install);
    let standing = standing.map_err(|reason| folder_in_parts(&reason, identity, is_only_voter))?;
    let needs_snapshot = standing == Standing::Behind;
    if needs_snapshot && is_only_voter {
        return Err(OpenError::Folder(format!(
            "the state machine stands at {}, the log begins after {}: the engine was lost or rolled back, and {} is the \
             only voter, so that nobody can give it a snapshot: put the right engine back, or restore a backup",
            applied.position, log.bounds.purged, identity.name
        )));
    }
    let reset = match standing {
        Standing::Within | Standing::Behind => None,
        Standing::Reset(name) => Some(name),
    };
    let has_install_file = has_install_file && reset.is_none();
    Ok(Found { log, applied, reset, has_install_file, needs_snapshot })
}

/// What to do where log and state machine do not belong together.
fn folder_in_parts(reason: &str, identity: &Identity, is_only_voter: bool) -> OpenError {
    let name = &identity.name;
    let otherwise = match is_only_voter {
        true => "it is the only voter, so otherwise restore a backup".to_owned(),
        false => format!(
            "otherwise replace the member: quorate member replace {name} --with NAME=HOST:PORT. This one may have \
             forgotten what it promised"
        ),
    };
    OpenError::Folder(format!(
        "{reason}. If a part of the data folder was exchanged, put the right one back; {otherwise}"
    ))
}

/// Puts back the latest change of members that the state machine has applied, where the log has lost its entry: nobody asks
/// for damaged slots again that the state machine holds durably. Up to where that stands, its word goes before the
/// log's. One that stands before the log begins knows nothing that the log does not.
fn restore_members(log: &mut LogSummary, applied: Index, members: AppliedMembers) {
    let AppliedMembers { index, configuration } = members;
    if applied < log.bounds.purged.index || configuration.members.is_empty() {
        return;
    }
    let last_known = index.max(log.bounds.purged.index);
    log.configurations.retain(|(at, _)| *at <= last_known || *at > applied);
    let place = log.configurations.partition_point(|(at, _)| *at <= applied);
    let is_known = place.checked_sub(1).is_some_and(|before| log.configurations[before].0 >= index);
    if !is_known {
        log.configurations.insert(place, (index, configuration));
    }
}

/// Whom a member may hear whose log has lost every configuration to damage: those it formed the cluster with, and whoever
/// comes and says that it is a member, as the present ones do, to whom this node is one (`later`). One that joined later has
/// only those. It is no member in it itself, so that it follows and takes what it lacks from them, but never counts a
/// quorum that may no longer be one.
fn remembered_peers(identity: &Identity) -> Configuration {
    let mut configuration = identity.roster.as_ref().map(Roster::configuration).unwrap_or_default();
    if let Some(membership) = identity.membership {
        configuration.members.remove(&membership.node);
    }
    configuration
}

/// Whether a log's configuration names nobody but this node as voter.
fn is_only_voter(log: &LogSummary, name: &str) -> bool {
    let Some((_, configuration)) = log.configurations.last() else { return false };
    if configuration.members.is_empty() {
        // The log has lost every configuration.
        return false;
    }
    let mut others = configuration
        .voters()
        .filter(|voter| configuration.members.get(voter).is_some_and(|member| member.name != name));
    others.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{
        Bounds, Epoch, Incarnation, Intent, Member, NodeId, Position, ProtocolName,
    };
    use std::collections::BTreeMap;

    fn configuration(node: u64) -> Configuration {
        let member = Member {
            incarnation: Incarnation(node),
            name: format!("n{node}"),
            peer_address: format!("n{node}:1"),
            voter: true,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        Configuration { members: BTreeMap::from([(NodeId(node), member)]), ..Default::default() }
    }

    /// Configurations of a log are named by the id of their only member, and so is the one that was applied, at an index.
    fn restored(purged: u64, log: &[(u64, u64)], applied: u64, members: (u64, u64)) -> String {
        let purged = Position::new(Index(purged), Epoch::new(1, NodeId(1)));
        let of = |(index, node): &(u64, u64)| (Index(*index), configuration(*node));
        let mut log = LogSummary {
            bounds: Bounds { purged, last: Index(100) },
            configurations: log.iter().map(of).collect(),
            ..LogSummary::default()
        };
        let (index, node) = members;
        let configuration = if node == 0 { Configuration::default() } else { configuration(node) };
        let members = AppliedMembers { index: Index(index), configuration };
        restore_members(&mut log, Index(applied), members);
        let name = |(index, it): &(Index, Configuration)| {
            let node = it.members.keys().next().map_or(0, |node| node.0);
            format!("{}:{node}", index.0)
        };
        log.configurations.iter().map(name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_was_applied_is_put_where_the_log_lacks_it() {
        let log = [(1, 1), (20, 2), (60, 3)];
        let check = |purged, log: &[(u64, u64)], applied, members, expected: &str| {
            let found = restored(purged, log, applied, members);
            assert_eq!(found, expected, "{purged} {log:?} {applied} {members:?}");
        };
        // The log lacks nothing.
        check(0, &log, 50, (20, 2), "1:1 20:2 60:3");
        check(0, &log, 60, (60, 3), "1:1 20:2 60:3");
        // It has lost the last one that was applied, or all.
        check(0, &[(1, 1), (60, 3)], 50, (20, 2), "1:1 20:2 60:3");
        check(0, &[(1, 1), (20, 2)], 70, (60, 3), "1:1 20:2 60:3");
        check(0, &[(60, 3)], 50, (20, 2), "20:2 60:3");
        check(0, &[], 50, (20, 2), "20:2");
        // And purged its slot as well, with an older one for where it begins.
        check(30, &[(1, 1), (60, 3)], 50, (20, 2), "1:1 20:2 60:3");
        check(30, &[(20, 2), (60, 3)], 50, (20, 2), "20:2 60:3");
        // The log begins with a snapshot that came with its members, which the state machine has installed or passed.
        check(30, &[(30, 2)], 50, (30, 2), "30:2");
        check(30, &[(30, 3)], 50, (20, 2), "30:3");
        // Where the state machine has been, the log cannot hold a change that it has not applied.
        check(0, &[(1, 1), (20, 2), (40, 9), (60, 3)], 50, (20, 2), "1:1 20:2 60:3");
        // A state machine that was lost, or knows of nothing, has nothing to say.
        check(30, &[(20, 2)], 10, (1, 1), "20:2");
        check(0, &[(1, 1)], 0, (0, 0), "1:1");
    }

    #[test]
    fn who_cannot_open_its_folder_is_told_what_to_do() {
        let identity = Identity::fresh("n3".into(), ProtocolName::Raft, Incarnation(3));
        let check = |is_only_voter, expected: &str| {
            let text =
                folder_in_parts("log and engine differ", &identity, is_only_voter).to_string();
            assert!(
                text.starts_with("log and engine differ. If a part of the data folder"),
                "{text}"
            );
            assert!(text.contains(expected), "{text}");
        };
        check(false, "quorate member replace n3 --with");
        check(true, "restore a backup");
    }
}
