//! What a node knows of itself and its surroundings, as plain data.

use quorate_consensus::Status;
use quorate_types::{Applied, ClusterId, GroupId, Incarnation, NodeId, StartNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How far a node is in taking part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The log makes durable again what no record proves synced.
    Recovering,
    /// A cluster is being formed.
    Forming {
        /// The members not yet heard from, or not yet known to have recorded the others, by name.
        missing: Vec<String>,
    },
    /// It has asked a cluster to be taken in, and waits to be a member.
    Joining {
        /// Whom it asks, by address.
        contacts: Vec<String>,
    },
    /// It takes part.
    Running,
    /// It has stopped, or records a refusal before it does; the text says why. What its replicas say of themselves is out of
    /// date.
    Stopped(String),
}

/// Whether a peer can be reached, in each direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReach {
    /// Its name.
    pub name: String,
    /// Its peer address.
    pub address: String,
    /// Whether a stream from here to it is open.
    pub outgoing: bool,
    /// Whether a stream from it to here is open.
    pub incoming: bool,
    /// Time since anything was heard from it; `None` when never in this run.
    pub last_heard: Option<Duration>,
    /// Why it or this node was refused, if so.
    pub refusal: Option<String>,
}

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Its id, once the cluster is formed.
    pub node: Option<NodeId>,
    /// The cluster, once formed.
    pub cluster: Option<ClusterId>,
    /// Its data folder's incarnation.
    pub incarnation: Incarnation,
    /// How often the data folder was opened.
    pub start: StartNumber,
    /// How far it is.
    pub phase: Phase,
    /// Its replicas.
    pub groups: BTreeMap<GroupId, Status>,
    /// The state machine's own position and digest, by group.
    pub applied: BTreeMap<GroupId, Applied>,
    /// The groups whose state machine is lost: nothing of theirs may be served until a snapshot has taken its place.
    pub awaiting_snapshot: BTreeSet<GroupId>,
    /// Its peers, by name.
    pub peers: BTreeMap<String, PeerReach>,
    /// Its log.
    pub log: quorate_log::LogStatus,
    /// Requests that wait for an answer.
    pub waiting_count: usize,
}
