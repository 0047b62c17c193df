//! Configurations: who counts changes one step at a time, and quorums of one step meet those of the next.
//!
//! C10 of the common invariants and R8 of Raft's (Ongaro 2014, sections 4.1 to 4.3, and the flaw of changes made before an
//! entry of the own term is committed, raft-dev 2015). What is committed is read off what state machines apply; what is
//! appended, and who leads, off the events of nodes; what leaders commit by, off their status.

use super::Violation;
use crate::network::ProcessId;
use quorate_consensus::{RoleName, Status};
use quorate_types::{AppliedMembers, Configuration, Entry, EntryKind, Index, NodeId};
use std::collections::{BTreeMap, BTreeSet};

/// The most voters of two configurations whose quorums are compared by trying every set.
const VOTERS_MAX: usize = 16;

/// What one process has said in its present life.
#[derive(Clone, Debug, Default)]
struct Told {
    /// The index of the last configuration that it appended.
    appended: Option<Index>,
    /// While it leads: what it knew as committed when it began, before anything of its own.
    leads_from: Option<Index>,
}

/// Every configuration that was ever committed, and what each process does about them.
#[derive(Clone, Debug, Default)]
pub struct Configurations {
    /// The committed ones.
    committed: BTreeMap<Index, Configuration>,
    /// What each process has said.
    told: BTreeMap<ProcessId, Told>,
    /// Ids that some log has dropped from the members, committed or not.
    dropped: BTreeSet<NodeId>,
}

impl Configurations {
    /// The latest configuration that is surely committed.
    #[must_use]
    pub fn latest(&self) -> Option<&Configuration> {
        self.committed.values().next_back()
    }

    /// Whether an id was dropped from the members in some log.
    #[must_use]
    pub fn is_dropped(&self, node: NodeId) -> bool {
        self.dropped.contains(&node)
    }

    /// A process starts anew.
    pub fn on_restart(&mut self, process: ProcessId) {
        self.told.remove(&process);
    }

    /// A state machine is given an entry, which is committed therefore. Gives whether it is a configuration that nobody
    /// knew as committed.
    ///
    /// # Errors
    /// When it is a configuration that is not a legal step after the one before, or another one than at that index before.
    pub fn on_apply(&mut self, index: Index, entry: &Entry) -> Result<bool, Violation> {
        if entry.kind() != EntryKind::Configuration {
            return Ok(false);
        }
        let configuration = Configuration::decode(entry.body().clone())
            .map_err(|error| violation(format!("the configuration at {index}: {error}")))?;
        self.on_committed(index, configuration)
    }

    /// A configuration is committed. Gives whether that is news.
    ///
    /// # Errors
    /// When it is not a legal step after the one before, or another one than at that index before.
    pub fn on_committed(&mut self, index: Index, next: Configuration) -> Result<bool, Violation> {
        if let Some(known) = self.committed.get(&index) {
            return if *known == next {
                Ok(false)
            } else {
                Err(violation(format!("at {index} is {known} committed, and {next}")))
            };
        }
        let former = self.committed.range(..index).next_back();
        let later = self.committed.range(index..).next();
        let step = |(at, one): (&Index, &Configuration), (to, two): (&Index, &Configuration)| {
            check_step(one, two)
                .map_err(|why| violation(format!("{one} at {at}, {two} at {to}: {why}")))
        };
        former.map_or(Ok(()), |former| step(former, (&index, &next)))?;
        later.map_or(Ok(()), |later| step((&index, &next), later))?;
        self.committed.insert(index, next);
        Ok(true)
    }

    /// A process says that a configuration is in force from an index of its log on; `status` is its state after that.
    ///
    /// # Errors
    /// When it leads and may not append one now.
    pub fn on_appended(
        &mut self,
        process: ProcessId,
        index: Index,
        next: &Configuration,
        status: &Status,
    ) -> Result<(), Violation> {
        let told = self.told.entry(process).or_default();
        let former = told.appended.replace(index).filter(|former| *former < index);
        if let Some(latest) = self.committed.range(..index).next_back() {
            let gone = latest.1.members.keys().filter(|node| !next.members.contains_key(node));
            self.dropped.extend(gone);
        }
        let Some(began) = told.leads_from else { return Ok(()) };
        let (node, committed) = (status.node, status.committed);
        if former.is_some_and(|former| committed < former) {
            return Err(violation(format!(
                "{node} appends {next} at {index} while the one at {} is not committed",
                former.unwrap_or_default()
            )));
        }
        if committed <= began && status.configuration.voters().count() > 1 {
            return Err(violation(format!(
                "{node} appends {next} at {index} before anything of its own term is committed"
            )));
        }
        Ok(())
    }

    /// A process says which role it has now; `status` is its state after that.
    ///
    /// # Errors
    /// When it leads and votes in no configuration that counts.
    pub fn on_role(
        &mut self,
        process: ProcessId,
        role: RoleName,
        status: &Status,
    ) -> Result<(), Violation> {
        let told = self.told.entry(process).or_default();
        let leads = role == RoleName::Leader;
        told.leads_from = leads.then_some(status.committed);
        if !leads {
            return Ok(());
        }
        // Who is leaving may be elected until the end of that is committed.
        let latest = self.committed.values().rev().take(2);
        let is_voter = |configuration: &Configuration| configuration.is_voter(status.node);
        if is_voter(&status.configuration) || latest.into_iter().any(is_voter) {
            return Ok(());
        }
        let (node, configuration) = (status.node, &status.configuration);
        Err(violation(format!("{node} leads and has no vote in {configuration}")))
    }

    /// What a node takes for the configuration in force, beside the last one that its state machine has applied.
    ///
    /// # Errors
    /// When it is one that came before that.
    pub fn on_members(&self, status: &Status, members: &AppliedMembers) -> Result<(), Violation> {
        let AppliedMembers { index, configuration: applied } = members;
        let in_force = &status.configuration;
        // An installed snapshot is not told to the protocol yet.
        let is_told = *index <= status.applied;
        if !is_told || in_force == applied {
            return Ok(());
        }
        let Some((at, _)) = self.committed.range(..*index).find(|(_, it)| *it == in_force) else {
            return Ok(());
        };
        let node = status.node;
        Err(violation(format!(
            "{node} takes {in_force} of {at} for the members, and has applied {applied} at {index}"
        )))
    }

    /// A leader shows its status; `are_logs_whole` unless somebody may have lost what it acknowledged.
    ///
    /// # Errors
    /// When what it takes for committed in its time is not held by a quorum of the configuration in force.
    pub fn on_status(
        &self,
        process: ProcessId,
        status: &Status,
        are_logs_whole: bool,
    ) -> Result<(), Violation> {
        let began = self.told.get(&process).and_then(|told| told.leads_from);
        let (Some(began), true) = (began, are_logs_whole) else { return Ok(()) };
        let Some((at, latest)) = self.committed.iter().next_back() else { return Ok(()) };
        let committed = status.committed;
        let counts = status.role == RoleName::Leader && committed > began && committed >= *at;
        if !counts || status.configuration != *latest {
            return Ok(());
        }
        let holds = |node: NodeId| {
            if node == status.node {
                return status.durable >= committed;
            }
            status.peers.get(&node).is_some_and(|peer| peer.matched >= committed)
        };
        if is_quorum(latest, holds) {
            return Ok(());
        }
        let node = status.node;
        Err(violation(format!(
            "{node} takes {committed} for committed without a quorum of {latest}"
        )))
    }
}

/// Whether those who satisfy `holds` are a quorum: a majority of the voters, and of the outgoing ones if there are any.
fn is_quorum(configuration: &Configuration, holds: impl Fn(NodeId) -> bool) -> bool {
    let is_majority = |voters: Vec<NodeId>| {
        let count = voters.iter().filter(|voter| holds(**voter)).count();
        voters.is_empty() || 2 * count > voters.len()
    };
    is_majority(configuration.voters().collect())
        && is_majority(configuration.outgoing_voters().collect())
}

/// Why a configuration may not follow another, if it may not: every quorum of one must meet every quorum of the other. By
/// the definition: no set of voters is a quorum of one while the others are a quorum of the other.
fn check_step(one: &Configuration, two: &Configuration) -> Result<(), String> {
    let of = |it: &Configuration| it.voters().chain(it.outgoing_voters()).collect::<Vec<_>>();
    let voters: BTreeSet<NodeId> = of(one).into_iter().chain(of(two)).collect();
    let voters: Vec<NodeId> = voters.into_iter().collect();
    if voters.len() > VOTERS_MAX {
        return Err(format!("{} voters are more than can be compared", voters.len()));
    }
    let place = |node: NodeId| voters.iter().position(|voter| *voter == node);
    let is_in = |set: u32, node: NodeId| place(node).is_some_and(|place| set >> place & 1 == 1);
    for set in 0..1_u32 << voters.len() {
        if is_quorum(one, |node| is_in(set, node)) && is_quorum(two, |node| is_in(!set, node)) {
            let list = voters.iter().filter(|node| is_in(set, **node));
            let list: Vec<String> = list.map(ToString::to_string).collect();
            return Err(format!(
                "{} decide in the former, the others in the latter",
                list.join(",")
            ));
        }
    }
    let is_reused = |node: &NodeId| *node <= one.removed_max && !one.members.contains_key(node);
    match two.members.keys().find(|node| is_reused(node)) {
        Some(node) => Err(format!("{node} was removed before")),
        None => Ok(()),
    }
}

fn violation(seen: String) -> Violation {
    Violation { promise: "configuration", seen }
}
