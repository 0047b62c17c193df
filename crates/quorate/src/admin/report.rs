//! A node's status as JSON. The fields are an interface: they are added to, never renamed.

use crate::version;
use quorate_consensus::{PeerStatus, Status};
use quorate_node::{NodeStatus, PeerReach, Phase};
use quorate_runtime::RuntimeMetrics;
use quorate_types::{Applied, Configuration, Histogram, NodeId};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct NodeReport {
    /// Its name.
    pub(crate) name: String,
    /// Its number in the cluster; none until one is formed.
    pub(crate) node: Option<u64>,
    /// The cluster, as 16 hex digits; none until it is formed.
    pub(crate) cluster: Option<String>,
    /// The identity of its data folder, as 16 hex digits.
    pub(crate) incarnation: String,
    /// How often the folder was opened.
    pub(crate) start: u64,
    /// The version of the binary.
    pub(crate) version: String,
    /// `recovering`, `forming`, `running` or `stopped`.
    pub(crate) phase: String,
    /// While it forms: the members that are waited for.
    pub(crate) missing: Vec<String>,
    /// Why it has stopped.
    pub(crate) stopped: Option<String>,
    /// Its replicas.
    pub(crate) groups: Vec<GroupReport>,
    /// Its peers.
    pub(crate) peers: Vec<PeerReport>,
    /// Syncs of log files since it was started.
    pub(crate) log_sync: SyncReport,
    /// Syncs of the engine since it was started.
    pub(crate) engine_sync: SyncReport,
    /// Bytes of log files.
    pub(crate) log_size: u64,
    /// Why the log refuses everything, if it does.
    pub(crate) log_failed: Option<String>,
    /// Whether the disk gives no more space.
    pub(crate) disk_full: bool,
    /// Requests that wait for an answer.
    pub(crate) waiting: usize,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct GroupReport {
    /// The group; 0 is the system group.
    pub(crate) group: u64,
    /// `leader`, `follower`, `candidate`, `pre-candidate` or `learner`.
    pub(crate) role: String,
    /// The number of its epoch.
    pub(crate) epoch: u64,
    /// Whom it follows, by name.
    pub(crate) leader: Option<String>,
    /// The last index of its log.
    pub(crate) last: u64,
    /// The last index durable here.
    pub(crate) durable: u64,
    /// The last index it knows to be committed.
    pub(crate) committed: u64,
    /// The last index applied here.
    pub(crate) applied: u64,
    /// The last index synced in the engine here.
    pub(crate) synced: u64,
    /// The digest of the state at `applied`, as 16 hex digits.
    pub(crate) digest: Option<String>,
    /// Why it neither leads nor follows, if so.
    pub(crate) why_not: Option<String>,
    /// How often the epoch rose since it was started.
    pub(crate) term_changes: u64,
    /// What it knows of the other replicas; complete on a leader only.
    pub(crate) followers: Vec<FollowerReport>,
}

/// What a leader knows of another replica.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FollowerReport {
    /// Its name.
    pub(crate) name: String,
    /// The highest index known durable there.
    pub(crate) matched: u64,
    /// Bytes on the way to it.
    pub(crate) in_flight_size: usize,
    /// Whether it is being sent a snapshot.
    pub(crate) snapshot: bool,
    /// Milliseconds since it was last heard from.
    pub(crate) last_contact_ms: Option<u64>,
}

/// Whether a peer can be reached, each way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PeerReport {
    /// Its name.
    pub(crate) name: String,
    /// Its peer address.
    pub(crate) address: String,
    /// Whether a stream from here to it is open.
    pub(crate) outgoing: bool,
    /// Whether a stream from it to here is open.
    pub(crate) incoming: bool,
    /// Milliseconds since anything was heard from it.
    pub(crate) last_heard_ms: Option<u64>,
    /// Why it or this node was refused, if so.
    pub(crate) refusal: Option<String>,
}

/// How long syncs take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SyncReport {
    /// How many there were.
    pub(crate) count: u64,
    /// Their mean in milliseconds.
    pub(crate) mean_ms: f64,
    /// The latest in milliseconds.
    pub(crate) latest_ms: f64,
}

impl NodeReport {
    /// What a node says of itself and of its devices.
    pub(crate) fn new(status: &NodeStatus, metrics: &RuntimeMetrics) -> NodeReport {
        let (phase, missing, stopped) = match &status.phase {
            Phase::Recovering => ("recovering", Vec::new(), None),
            Phase::Joining { contacts } => ("joining", contacts.clone(), None),
            Phase::Forming { missing } => ("forming", missing.clone(), None),
            Phase::Running => ("running", Vec::new(), None),
            Phase::Stopped(reason) => ("stopped", Vec::new(), Some(reason.clone())),
        };
        let groups = status.groups.values();
        let groups = groups.map(|group| GroupReport::new(group, status.applied.get(&group.group)));
        NodeReport {
            name: status.name.clone(),
            node: status.node.map(|node| node.0),
            cluster: status.cluster.map(|cluster| cluster.to_string()),
            incarnation: status.incarnation.to_string(),
            start: status.start.0,
            version: version::SHORT.clone(),
            phase: phase.into(),
            missing,
            stopped,
            groups: groups.collect(),
            peers: status.peers.values().map(PeerReport::new).collect(),
            log_sync: SyncReport::new(&metrics.log_sync),
            engine_sync: SyncReport::new(&metrics.engine_sync),
            log_size: status.log.disk_size,
            log_failed: status.log.failed.clone(),
            disk_full: status.log.full,
            waiting: status.waiting_count,
        }
    }
}

impl GroupReport {
    fn new(status: &Status, applied: Option<&Applied>) -> GroupReport {
        let named = |node: NodeId| name_of(&status.configuration, node);
        let peers = status.peers.iter();
        let followers = peers.map(|(node, peer)| FollowerReport::new(named(*node), peer));
        GroupReport {
            group: status.group.0,
            role: status.role.to_string(),
            epoch: status.epoch.number,
            leader: status.leader.map(named),
            last: status.last.index.0,
            durable: status.durable.0,
            committed: status.committed.0,
            applied: status.applied.0,
            synced: status.synced.0,
            digest: applied.map(|applied| applied.digest.to_string()),
            why_not: status.why_not.clone(),
            term_changes: status.metrics.term_changes,
            followers: followers.collect(),
        }
    }
}

impl FollowerReport {
    fn new(name: String, peer: &PeerStatus) -> FollowerReport {
        FollowerReport {
            name,
            matched: peer.matched.0,
            in_flight_size: peer.in_flight_size,
            snapshot: peer.snapshot,
            last_contact_ms: peer.last_contact.map(milliseconds),
        }
    }
}

impl PeerReport {
    fn new(peer: &PeerReach) -> PeerReport {
        PeerReport {
            name: peer.name.clone(),
            address: peer.address.clone(),
            outgoing: peer.outgoing,
            incoming: peer.incoming,
            last_heard_ms: peer.last_heard.map(milliseconds),
            refusal: peer.refusal.clone(),
        }
    }
}

impl SyncReport {
    fn new(histogram: &Histogram) -> SyncReport {
        let shown = |nanoseconds: u64| (nanoseconds as f64 / 1e4).round() / 100.0;
        SyncReport {
            count: histogram.count,
            mean_ms: shown(histogram.mean()),
            latest_ms: shown(histogram.latest),
        }
    }
}

/// The name of a member, or its number where the configuration does not know it.
fn name_of(configuration: &Configuration, node: NodeId) -> String {
    match configuration.members.get(&node) {
        Some(member) => member.name.clone(),
        None => node.to_string(),
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
