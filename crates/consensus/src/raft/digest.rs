//! Whether replicas that applied the same entries hold the same state: their digests are compared at fixed
//! indexes.

use super::replica::{Raft, Role};
use crate::Event;
use quorate_types::{Digest, Index, NodeId};

/// How many own digests are kept for comparison: more intervals than a follower is usually behind.
const DIGESTS_MAX: usize = 64;

impl Raft {
    /// An apply ended at `index`.
    pub(super) fn on_own_digest(&mut self, index: Index, digest: Digest) {
        let is_fixed = index.0.is_multiple_of(self.options.limits.digest_interval);
        if !is_fixed || self.digests.back().is_some_and(|(last, _)| *last >= index) {
            return;
        }
        self.digests.push_back((index, digest));
        if self.digests.len() > DIGESTS_MAX {
            self.digests.pop_front();
        }
        if let Role::Leader(leader) = &self.role {
            let waiting = |(id, peer): (&NodeId, &super::leader::Peer)| {
                peer.digest.filter(|(at, _)| *at == index).map(|(_, theirs)| (*id, theirs))
            };
            for (peer, theirs) in leader.peers.iter().filter_map(waiting).collect::<Vec<_>>() {
                self.compare_digests(peer, index, digest, theirs);
            }
        }
    }

    /// A follower told its latest digest.
    pub(super) fn on_peer_digest(&mut self, from: NodeId, (index, theirs): (Index, Digest)) {
        let Role::Leader(leader) = &mut self.role else { return };
        let Some(peer) = leader.peers.get_mut(&from) else { return };
        if peer.digest == Some((index, theirs)) {
            return;
        }
        peer.digest = Some((index, theirs));
        let ours = self.digests.iter().rev().find(|(at, _)| *at == index).map(|(_, ours)| *ours);
        if let Some(ours) = ours {
            self.compare_digests(from, index, ours, theirs);
        }
    }

    fn compare_digests(&mut self, peer: NodeId, index: Index, ours: Digest, theirs: Digest) {
        if ours != theirs {
            self.event(Event::Diverged { peer, index, ours, theirs });
        }
    }
}
