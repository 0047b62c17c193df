//! Opening a data folder, and the way from there to running replicas.

use super::early::Early;
use super::found::found;
use super::{Forming, Node, OPENING_WRITE, SYSTEM_GROUP, Stage};
use crate::formation::Formation;
use crate::group::{DiskIds, Group, GroupOptions};
use crate::identity::{IDENTITY_FILE, Identity, IdentityStore, IdentityVersion, Membership};
use crate::install::{decode_install, install_file};
use crate::interface::{NodeEffect, NodeOptions};
use crate::peers::Peers;
use crate::roster::Roster;
use crate::sealed::{SEALED_SIZE_MAX, SealError};
use bytes::Bytes;
use quorate_consensus::{Opening, Options};
use quorate_log::{Log, Recovery};
use quorate_types::{
    Applied, Bounds, DiskError, DiskReader, EpochRun, FileName, GroupId, Incarnation, Index,
    Instant, LogSummary, MachineState, Member, Op, Position, ProtocolName, SnapshotName,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The most members that a cluster is formed of.
const MEMBERS_MAX: usize = 64;

/// Why a data folder cannot be opened. Nothing was changed in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// What the node was told of itself makes no sense: correct it.
    #[error("{0}")]
    Options(String),
    /// The folder is another node's, or another protocol's, or parts of it are missing: use the right one.
    #[error("{0}")]
    Folder(String),
    /// A small file of the folder cannot be read: its format is newer, or it is damaged.
    #[error("{file}: {reason}")]
    File {
        /// Which file.
        file: FileName,
        /// Why.
        reason: SealError,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] quorate_log::OpenError),
    /// The device failed.
    #[error("cannot read the data folder: {0}")]
    Disk(#[from] DiskError),
}

impl Node {
    /// Opens a data folder. `machines` says where each group's state machine stands, durably.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was changed.
    pub fn open(
        now: Instant,
        options: NodeOptions,
        reader: &dyn DiskReader,
        mut machines: BTreeMap<GroupId, MachineState>,
    ) -> Result<Node, OpenError> {
        if options.protocol != ProtocolName::Raft {
            return Err(OpenError::Options(format!(
                "{} is not part of this version; it has {}",
                options.protocol,
                ProtocolName::Raft
            )));
        }
        let identity = read_identity(reader)?;
        let (log, recovery) = Log::open(reader, options.log.clone())?;
        let install = read_install(reader)?;
        let machine = machines.remove(&SYSTEM_GROUP).unwrap_or_default();
        let mut identity = match identity {
            Some(identity) => checked(identity, &options)?,
            None => fresh(&options, &recovery, machine.applied)?,
        };
        let is_new = identity.roster.is_none() && identity.membership.is_none();
        if is_new && options.join.is_none() {
            check_list(&options)?;
        }
        let found = found(&identity, &recovery, machine, install)?;
        identity.begin_run(derive(options.entropy, b"run"));
        let mut node = Node {
            now,
            stage: Stage::Starting { is_recovered: false },
            identity: IdentityStore::new(identity),
            log,
            found: BTreeMap::from([(SYSTEM_GROUP, found)]),
            groups: BTreeMap::new(),
            peers: Peers::default(),
            assigned: Vec::new(),
            disk_ids: DiskIds::new(),
            out: VecDeque::new(),
            stop: None,
            stopped: None,
            leaving: None,
            space_at: None,
            noted: BTreeSet::new(),
            cast_out: None,
            early: Early::default(),
            options,
        };
        node.report(&recovery);
        node.report_standing();
        Ok(node)
    }

    fn report(&mut self, recovery: &Recovery) {
        for report in &recovery.reports {
            self.warn(format!("the log is damaged: {report}"));
        }
        if let Some(torn) = &recovery.torn {
            let (file, offset) = (&torn.file, torn.offset);
            self.note(format!("{file} offset {offset}: a write that was under way is cut away"));
        }
    }

    fn report_standing(&mut self) {
        let Some(found) = self.found.get(&SYSTEM_GROUP).filter(|found| found.needs_snapshot) else {
            return;
        };
        let (applied, purged) = (found.applied.position, found.log.bounds.purged);
        self.warn(format!(
            "the state machine stands at {applied}, the log begins after {purged}: the engine was lost or rolled back. \
             A snapshot of a peer will take its place; until then this node keeps its log and its votes, and serves \
             nothing"
        ));
    }

    /// Goes on when what a stage waits for has come.
    pub(super) fn advance(&mut self) {
        loop {
            match &mut self.stage {
                Stage::Starting { is_recovered } => {
                    let is_durable = self.identity.is_durable(IdentityVersion::FIRST);
                    if !*is_recovered || !is_durable {
                        return;
                    }
                    self.begin();
                }
                Stage::Forming(_) => {
                    if !self.advance_formation() {
                        return;
                    }
                }
                Stage::Enrolling(version) => {
                    if !self.identity.is_durable(*version) {
                        return;
                    }
                    let membership = self.identity.identity().membership;
                    let cluster = membership.map(|membership| membership.cluster.to_string());
                    let is_founder = self.identity.identity().roster.is_some();
                    let what = if is_founder { "is formed" } else { "is joined" };
                    self.note(format!("cluster {} {what}", cluster.unwrap_or_default()));
                    self.run();
                }
                Stage::Bootstrapping(_)
                | Stage::Joining
                | Stage::Admitted(_)
                | Stage::Resetting(_)
                | Stage::Running => return,
            }
        }
    }

    /// The start number is durable and the log recovered: takes up what the data folder says.
    fn begin(&mut self) {
        let identity = self.identity.identity();
        let found = self.found.get(&SYSTEM_GROUP);
        let has_log = found.is_some_and(|found| found.log.bounds.last > Index::ZERO);
        let reset = found.and_then(|found| found.reset.clone());
        if let Some(name) = reset {
            let ops = vec![Op::Reset(name.position, name.configuration.clone())];
            self.log.submit(SYSTEM_GROUP, OPENING_WRITE, ops);
            self.note(format!("finishing the install of a snapshot of {}", name.position));
            self.stage = Stage::Resetting(name);
        } else if identity.membership.is_some() {
            self.run();
        } else if let Some(roster) = identity.roster.clone().filter(|_| has_log) {
            self.enrol(&roster);
        } else if self.options.join.is_some() && identity.roster.is_none() {
            self.begin_joining();
        } else {
            self.form();
        }
    }

    fn form(&mut self) {
        let identity = self.identity.identity();
        let formation = Formation::new(
            identity.name.clone(),
            identity.incarnation,
            self.options.cluster.clone(),
            identity.roster.clone(),
        );
        let own = &self.options.name;
        let others = formation.list().iter().filter(|(name, _)| name != own);
        let peers = others.cloned().collect();
        self.assign_peers(peers);
        self.stage = Stage::Forming(Forming {
            formation,
            recording: None,
            say_at: self.now,
            noted_missing: Vec::new(),
        });
    }

    /// Every founder holds the roster: the log begins with its configuration.
    pub(super) fn bootstrap(&mut self, roster: Roster) {
        self.log.submit(SYSTEM_GROUP, OPENING_WRITE, roster.bootstrap());
        self.stage = Stage::Bootstrapping(roster);
    }

    /// The log holds the first configuration: the identity file takes in whom it makes of this node.
    fn enrol(&mut self, roster: &Roster) {
        let cluster = roster.cluster();
        let node = roster.node(&self.options.name);
        let node = node.expect("a roster is recorded only by its founders");
        let version = self
            .identity
            .change(|identity| identity.membership = Some(Membership { cluster, node }));
        self.stage = Stage::Enrolling(version);
    }

    /// The write made before a protocol is opened is durable.
    pub(super) fn on_opening_write_durable(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Bootstrapping(roster) => {
                if let Some(found) = self.found.get_mut(&SYSTEM_GROUP) {
                    found.log = summary_of_bootstrap(&roster);
                }
                self.enrol(&roster);
            }
            Stage::Resetting(name) => {
                if let Some(found) = self.found.get_mut(&SYSTEM_GROUP) {
                    found.log = summary_of_reset(&found.log, &name);
                    found.has_install_file = true;
                }
                self.run();
            }
            Stage::Admitted(membership) => self.enrol_as_newcomer(membership),
            other @ (Stage::Starting { .. }
            | Stage::Forming(_)
            | Stage::Joining
            | Stage::Enrolling(_)
            | Stage::Running) => self.stage = other,
        }
    }

    /// Opens the replicas.
    fn run(&mut self) {
        self.stage = Stage::Running;
        let identity = self.identity.identity();
        let membership = identity.membership.expect("replicas run only once there is a cluster");
        for (group, found) in std::mem::take(&mut self.found) {
            let options = GroupOptions {
                protocol: self.options.protocol,
                options: Options {
                    group,
                    node: membership.node,
                    incarnation: identity.incarnation,
                    seed: derive(self.options.entropy, &group.0.to_le_bytes()),
                    timing: self.options.timing,
                    limits: self.options.limits,
                },
                start: identity.start,
                run: identity.run,
                has_install_file: found.has_install_file,
            };
            let opening = Opening { log: found.log, applied: found.applied };
            self.groups.insert(group, Group::open(self.now, options, opening));
        }
        for change in self.peers.links_up() {
            self.with_groups(|group, ctx| group.on_link(ctx, &change));
        }
        self.reassign_peers();
        for (name, run) in self.peers.runs() {
            self.remember(&name, run);
        }
        self.admit_early();
    }

    /// Dials the members of the configuration in force, once it has changed.
    pub(super) fn maybe_reassign_peers(&mut self) {
        let mut has_changed = false;
        self.with_groups(|group, _| has_changed |= group.take_configuration_change());
        if has_changed {
            self.reassign_peers();
        }
    }

    pub(super) fn reassign_peers(&mut self) {
        let Some(configuration) = self.acquaintances() else { return };
        let own = &self.options.name;
        // A member that has not joined yet is not dialled: it comes by itself.
        let is_there = |member: &&Member| member.incarnation != Incarnation::UNBOUND;
        let members = configuration.members.values().filter(is_there);
        let members = members.filter(|member| member.name != *own);
        let peers = members.map(|member| (member.name.clone(), member.peer_address.clone()));
        self.assign_peers(peers.collect());
    }

    pub(super) fn assign_peers(&mut self, peers: Vec<(String, String)>) {
        if peers == self.assigned {
            return;
        }
        for stream in self.peers.assign(&peers) {
            self.close(stream, "not a member");
        }
        self.out.push_back(NodeEffect::Dial(self.peers.addresses()));
        self.assigned = peers;
    }
}

/// A random value for one purpose.
fn derive(entropy: u64, purpose: &[u8]) -> u64 {
    xxh3_64_with_seed(purpose, entropy).max(1)
}

fn read_file(reader: &dyn DiskReader, file: &FileName) -> Result<Option<Bytes>, OpenError> {
    match reader.read(file, 0, SEALED_SIZE_MAX) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(DiskError::NotFound(_)) => Ok(None),
        Err(error @ (DiskError::NoSpace(_) | DiskError::Io { .. })) => Err(error.into()),
    }
}

fn read_identity(reader: &dyn DiskReader) -> Result<Option<Identity>, OpenError> {
    let file = FileName::new(IDENTITY_FILE);
    let Some(bytes) = read_file(reader, &file)? else { return Ok(None) };
    Identity::decode(&bytes).map(Some).map_err(|reason| OpenError::File { file, reason })
}

fn read_install(reader: &dyn DiskReader) -> Result<Option<SnapshotName>, OpenError> {
    let file = install_file(SYSTEM_GROUP);
    let Some(bytes) = read_file(reader, &file)? else { return Ok(None) };
    decode_install(&bytes).map(Some).map_err(|reason| OpenError::File { file, reason })
}

/// An identity that was found, if it is the one that the options mean.
fn checked(identity: Identity, options: &NodeOptions) -> Result<Identity, OpenError> {
    if identity.name != options.name {
        return Err(OpenError::Folder(format!(
            "the data folder belongs to {}, this node is named {}: use the folder of {}, or an empty one",
            identity.name, options.name, options.name
        )));
    }
    if identity.protocol != options.protocol {
        return Err(OpenError::Folder(format!(
            "the data folder was made for {}, this node is to run {}: a cluster keeps its protocol",
            identity.protocol, options.protocol
        )));
    }
    if let Some(text) = &identity.refused {
        return Err(OpenError::Folder(format!(
            "the cluster has refused this data folder for good, it cannot be used again: {text}"
        )));
    }
    Ok(identity)
}

/// The identity of a new data folder, if it is one.
fn fresh(
    options: &NodeOptions,
    recovery: &Recovery,
    applied: Applied,
) -> Result<Identity, OpenError> {
    let has_log = !recovery.groups.is_empty() || !recovery.reports.is_empty();
    if has_log || applied.position != Position::ZERO {
        let what = if has_log { "a log" } else { "applied state" };
        return Err(OpenError::Folder(format!(
            "the data folder holds {what} but no {IDENTITY_FILE} file: put the file back, or use an empty folder"
        )));
    }
    let incarnation = Incarnation(derive(options.entropy, b"incarnation"));
    Ok(Identity::fresh(options.name.clone(), options.protocol, incarnation))
}

fn check_list(options: &NodeOptions) -> Result<(), OpenError> {
    let list = &options.cluster;
    let names: BTreeSet<&str> = list.iter().map(|(name, _)| name.as_str()).collect();
    let addresses: BTreeSet<&str> = list.iter().map(|(_, address)| address.as_str()).collect();
    let text = if !names.contains(options.name.as_str()) {
        format!("the --cluster list does not name {} itself", options.name)
    } else if names.len() < list.len() {
        "the --cluster list names a member twice".to_owned()
    } else if addresses.len() < list.len() {
        "the --cluster list gives one address to two members".to_owned()
    } else if list.iter().any(|(name, address)| name.is_empty() || address.is_empty()) {
        "the --cluster list has an empty name or address".to_owned()
    } else if list.len() > MEMBERS_MAX {
        format!("the --cluster list has {} members, at most {MEMBERS_MAX} can be", list.len())
    } else {
        return Ok(());
    };
    Err(OpenError::Options(text))
}

fn summary_of_bootstrap(roster: &Roster) -> LogSummary {
    let mut summary = LogSummary {
        bounds: Bounds { purged: Position::ZERO, last: Index(1) },
        configurations: vec![(Index(1), roster.configuration())],
        ..LogSummary::default()
    };
    for op in roster.bootstrap() {
        match op {
            Op::HardState(state) => summary.hard_state = Some(state),
            Op::Write(slot) => summary.epochs.push(EpochRun {
                first: slot.index,
                created: slot.entry.created(),
                accepted: slot.accepted,
            }),
            Op::Truncate(_) | Op::Purge(_) | Op::Reset(..) => {}
        }
    }
    summary
}

fn summary_of_reset(before: &LogSummary, name: &SnapshotName) -> LogSummary {
    LogSummary {
        hard_state: before.hard_state,
        bounds: Bounds { purged: name.position, last: name.position.index },
        epochs: Vec::new(),
        faults: Vec::new(),
        configurations: vec![(name.position.index, name.configuration.clone())],
    }
}
