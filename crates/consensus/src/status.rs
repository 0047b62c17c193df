//! What a replica knows and does, as plain data.

use quorate_types::{Configuration, Epoch, GroupId, Histogram, Index, NodeId, Position};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a replica does at present.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Receives the log without a vote.
    Learner,
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it could win.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

impl fmt::Display for RoleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RoleName::Learner => "learner",
            RoleName::Follower => "follower",
            RoleName::PreCandidate => "pre-candidate",
            RoleName::Candidate => "candidate",
            RoleName::Leader => "leader",
        })
    }
}

/// What a leader knows of a peer; on other roles only the contact is filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The highest index known durable there and equal to ours.
    pub matched: Index,
    /// The next index to send.
    pub next: Index,
    /// Entry bytes sent and not acknowledged.
    pub in_flight_size: usize,
    /// Whether a snapshot is on its way.
    pub snapshot: bool,
    /// Time since it was last heard from; `None` when never in this run.
    pub last_contact: Option<Duration>,
    /// Whether its link was last said to be up.
    pub link_up: bool,
}

/// What a replica measured since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// How often the epoch rose.
    pub term_changes: u64,
    /// From the moment no leader was known to the moment one was.
    pub leader_election_time: Histogram,
    /// From sending entries to a peer to its durable acknowledgement; leaders only.
    pub log_replication_latency: BTreeMap<NodeId, Histogram>,
    /// From taking a proposal in to its commit; leaders only.
    pub commit_latency: Histogram,
    /// Round trips of heartbeats with each peer, without any disk in them; leaders only.
    pub network_round_trips: BTreeMap<NodeId, Histogram>,
    /// Proposals refused, by any reason.
    pub refused_count: u64,
    /// Messages dropped because they contradicted local state.
    pub dropped_count: u64,
    /// Slots cut off the end of the log, because a leader has others there.
    pub truncated_count: u64,
    /// Acknowledgements that were meant for another leadership than the present one, and counted for nothing.
    pub stale_count: u64,
    /// Rounds of the read barrier completed.
    pub read_rounds: u64,
}

/// A replica at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The group.
    pub group: GroupId,
    /// The node.
    pub node: NodeId,
    /// What it does.
    pub role: RoleName,
    /// Its epoch.
    pub epoch: Epoch,
    /// Whom it follows, itself if it leads.
    pub leader: Option<NodeId>,
    /// The last slot of its log.
    pub last: Position,
    /// The last index it knows to be durable here.
    pub durable: Index,
    /// The last index it knows to be committed.
    pub committed: Index,
    /// The last index applied here.
    pub applied: Index,
    /// The last index synced in the engine here.
    pub synced: Index,
    /// The members.
    pub configuration: Configuration,
    /// What it knows of its peers.
    pub peers: BTreeMap<NodeId, PeerStatus>,
    /// Why it neither leads nor follows a leader, or takes no part; `None` when all is well.
    pub why_not: Option<String>,
    /// What it measured.
    pub metrics: Metrics,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{} {}", self.node, self.epoch, self.role)?;
        if let Some(leader) = self.leader {
            write!(f, " leader={leader}")?;
        }
        write!(f, " last={} durable={}", self.last, self.durable)?;
        write!(f, " commit={} applied={}", self.committed, self.applied)
    }
}
