//! What a replica says of itself.

use super::leader::Leader;
use super::replica::{Contact, Raft, Role};
use crate::progress::ProgressState;
use crate::{PeerStatus, Status};
use quorate_types::{Index, Instant, NodeId};

impl Raft {
    /// The status at `now`.
    pub(super) fn describe(&self, now: Instant) -> Status {
        let leader = match &self.role {
            Role::Leader(leader) => Some(&**leader),
            Role::Follower | Role::PreCandidate(_) | Role::Candidate(_) => None,
        };
        let peers = self.membership.peers(self.node());
        Status {
            group: self.options.group,
            node: self.node(),
            role: self.role_name(),
            epoch: if leader.is_some() { self.own_epoch() } else { self.hard.promised },
            leader: self.leader,
            last: self.tail.last_position(),
            durable: self.writes.durable(),
            committed: self.committed,
            applied: self.applied,
            synced: self.synced,
            configuration: self.membership.latest().clone(),
            peers: peers.into_iter().map(|id| (id, self.describe_peer(now, leader, id))).collect(),
            why_not: self.why_not(),
            metrics: self.metrics.clone(),
        }
    }

    fn describe_peer(&self, now: Instant, leader: Option<&Leader>, id: NodeId) -> PeerStatus {
        let contact = self.contacts.get(&id).copied().unwrap_or_default();
        let Contact { heard, link } = contact;
        let last_contact = heard.map(|heard| now.since(heard));
        let link_up = link == Some(true);
        match leader.and_then(|leader| leader.peers.get(&id)) {
            Some(peer) => PeerStatus {
                matched: peer.progress.matched,
                next: peer.progress.next,
                in_flight_size: peer.progress.in_flight_size(),
                snapshot: matches!(peer.progress.state, ProgressState::Snapshot { .. }),
                last_contact,
                link_up,
            },
            None => PeerStatus {
                matched: Index::ZERO,
                next: Index::ZERO,
                in_flight_size: 0,
                snapshot: false,
                last_contact,
                link_up,
            },
        }
    }

    fn why_not(&self) -> Option<String> {
        if let Some(reason) = self.why_not_ready() {
            return Some(reason);
        }
        if !self.membership.latest().members.contains_key(&self.node()) {
            return Some("this node is not a member of the group".into());
        }
        if self.leader.is_some() {
            return None;
        }
        if self.is_stalled() {
            return Some("a write to the log has not been completed for long".into());
        }
        let voters = self.membership.latest().voters().count();
        let term = self.term();
        Some(match &self.role {
            Role::PreCandidate(_) => {
                format!("no majority of the {voters} voters answers or would vote for this node")
            }
            Role::Candidate(_) => format!("no majority of the {voters} votes in term {term} yet"),
            Role::Follower | Role::Leader(_) => "no leader was heard of; waiting".into(),
        })
    }
}
