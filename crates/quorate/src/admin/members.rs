//! The members of the cluster: who they are, and how they are changed.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quorate_consensus::{Control, plan};
use quorate_runtime::{NodeHandle, RequestError};
use quorate_types::{Configuration, GroupId, Incarnation, Intent, Member, NodeId};
use serde::{Deserialize, Serialize};

/// The path of the members.
pub(crate) const MEMBERS_PATH: &str = "/quorate/v1/members";

/// The group whose members are those of the cluster.
const GROUP: GroupId = GroupId(0);

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub(crate) enum Change {
    /// A new member.
    Add {
        /// Its name.
        name: String,
        /// Where peers reach it.
        address: String,
        /// Whether it is to receive the log without a vote.
        learner: bool,
    },
    /// A learner is to vote.
    Promote {
        /// Its name.
        name: String,
    },
    /// A member is to leave.
    Remove {
        /// Its name.
        name: String,
    },
    /// A new member is to take another's place.
    Replace {
        /// Who is to leave, once the new one has the log.
        name: String,
        /// The new member's name.
        with: String,
        /// Where peers reach the new member.
        address: String,
    },
}

/// One member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemberReport {
    /// Its number.
    pub(crate) node: u64,
    /// Its name.
    pub(crate) name: String,
    /// Where peers reach it.
    pub(crate) address: String,
    /// What it is, in a word or two: `voter`, `learner`, `voter, leaving`.
    pub(crate) role: String,
    /// The identity of its data folder; none until it has joined.
    pub(crate) incarnation: Option<String>,
}

/// All members.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MembersReport {
    /// In order of number.
    pub(crate) members: Vec<MemberReport>,
    /// Whether a change is under way.
    pub(crate) changing: bool,
}

impl MembersReport {
    fn new(configuration: &Configuration) -> MembersReport {
        let members = configuration.members.iter().map(|(id, member)| MemberReport {
            node: id.0,
            name: member.name.clone(),
            address: member.peer_address.clone(),
            role: role(member).to_owned(),
            incarnation: (member.incarnation != Incarnation::UNBOUND)
                .then(|| member.incarnation.to_string()),
        });
        let changing = plan::aim(configuration) != *configuration;
        MembersReport { members: members.collect(), changing }
    }
}

fn role(member: &Member) -> &'static str {
    match (member.voter, member.outgoing_voter, member.intent) {
        (_, _, Intent::Promote) if member.incarnation == Incarnation::UNBOUND => {
            "learner, waited for"
        }
        (_, _, Intent::Promote) => "learner, catching up",
        (true, _, Intent::Remove) => "voter, to be removed",
        (false, true, _) => "voter, leaving",
        (false, false, Intent::Remove) => "learner, to be removed",
        (true, _, Intent::Stay) => "voter",
        (false, false, Intent::Stay) => "learner",
    }
}

/// The members as this node knows them.
pub(super) async fn list<R: Send + 'static>(
    State(node): State<NodeHandle<R>>,
) -> Result<Json<MembersReport>, (StatusCode, String)> {
    let configuration = configuration(&node).await?;
    Ok(Json(MembersReport::new(&configuration)))
}

/// Takes a change in, or says why not.
pub(super) async fn change<R: Send + 'static>(
    State(node): State<NodeHandle<R>>,
    Json(change): Json<Change>,
) -> Result<Json<MembersReport>, (StatusCode, String)> {
    let base = configuration(&node).await?;
    let target = target(&base, &change).map_err(|text| (StatusCode::CONFLICT, text))?;
    let control = Control::TargetMembership { base, target };
    node.control(GROUP, control).await.map_err(|error| {
        let code = match &error {
            RequestError::Declined(_) => StatusCode::CONFLICT,
            RequestError::Refused { .. }
            | RequestError::Unknown { .. }
            | RequestError::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        (code, error.to_string())
    })?;
    list(State(node)).await
}

async fn configuration<R: Send + 'static>(
    node: &NodeHandle<R>,
) -> Result<Configuration, (StatusCode, String)> {
    let none = || (StatusCode::SERVICE_UNAVAILABLE, "this node takes no part in a cluster".into());
    let status = node.status().await.ok_or_else(none)?;
    let group = status.groups.get(&GROUP).ok_or_else(none)?;
    Ok(group.configuration.clone())
}

/// Who is to be a member after a change.
fn target(base: &Configuration, change: &Change) -> Result<Configuration, String> {
    let mut target = plan::aim(base);
    let next = plan::next_node(base);
    match change {
        Change::Add { name, address, learner } => {
            target.members.insert(next, newcomer(name, address, !learner));
        }
        Change::Promote { name } => {
            let id = find(&target, name)?;
            target.members.entry(id).and_modify(|member| member.voter = true);
        }
        Change::Remove { name } => {
            target.members.remove(&find(&target, name)?);
        }
        Change::Replace { name, with, address } => {
            let votes = target.members.remove(&find(&target, name)?);
            let votes = votes.is_some_and(|member| member.voter);
            target.members.insert(next, newcomer(with, address, votes));
        }
    }
    Ok(target)
}

fn find(configuration: &Configuration, name: &str) -> Result<NodeId, String> {
    let mut members = configuration.members.iter();
    let found = members.find(|(_, member)| member.name == name).map(|(id, _)| *id);
    found.ok_or_else(|| {
        let names = configuration.members.values().map(|member| member.name.as_str());
        format!(
            "there is no member {name}; the members are {}",
            names.collect::<Vec<_>>().join(", ")
        )
    })
}

fn newcomer(name: &str, address: &str, voter: bool) -> Member {
    Member {
        incarnation: Incarnation::UNBOUND,
        name: name.to_owned(),
        peer_address: address.to_owned(),
        voter,
        outgoing_voter: false,
        intent: Intent::Stay,
    }
}
