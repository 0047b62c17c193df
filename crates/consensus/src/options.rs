//! What a replica is told of itself and its limits.

use quorate_types::{GroupId, Incarnation, NodeId};
use std::time::Duration;

/// How long things take, the same for all protocols and all measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often a leader is heard from when it has nothing else to say.
    pub heartbeat_interval: Duration,
    /// The shortest time without a leader before a replica campaigns.
    pub election_timeout_min: Duration,
    /// The longest; each wait is drawn between the two.
    pub election_timeout_max: Duration,
    /// How long a follower of which nobody waits for an answer may not know that something is committed, where no entries
    /// follow that say so. Under load this saves two messages and two wake-ups a write.
    pub commit_delay: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat_interval: Duration::from_millis(100),
            election_timeout_min: Duration::from_millis(500),
            election_timeout_max: Duration::from_millis(1000),
            commit_delay: Duration::from_millis(2),
        }
    }
}

/// Bounds of what a replica holds and sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entry bytes on the way to one peer and not yet acknowledged: enough to keep a disk sync and a round trip busy.
    pub window_size_max: usize,
    /// Entry bytes in one append message: large enough to batch, far below a frame.
    pub append_size_max: usize,
    /// Entry bytes proposed and not yet committed on a leader; above it proposals are refused as busy.
    pub uncommitted_size_max: usize,
    /// Entries committed and not yet applied on a leader; above it proposals are refused as busy (etcd's 5,000).
    pub unapplied_count_max: u64,
    /// Recent entries kept in memory for replication, in bytes.
    pub tail_size_max: usize,
    /// Slots in one `Apply`.
    pub apply_count_max: u64,
    /// Applied and synced entries kept in the log for peers that lag, before it is purged.
    pub retained_count: u64,
    /// Purge at least this many at a time, so that purges are rare.
    pub purge_count_min: u64,
    /// Digests are compared at multiples of this index.
    pub digest_interval: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window_size_max: 8 * 1024 * 1024,
            append_size_max: 1024 * 1024,
            uncommitted_size_max: 64 * 1024 * 1024,
            unapplied_count_max: 5_000,
            tail_size_max: 8 * 1024 * 1024,
            apply_count_max: 4_096,
            retained_count: 10_000,
            purge_count_min: 5_000,
            digest_interval: 1_024,
        }
    }
}

/// Who a replica is, and how it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The group it is a replica of.
    pub group: GroupId,
    /// The node it runs on.
    pub node: NodeId,
    /// The incarnation of that node's data folder; it votes only where the configuration names this one.
    pub incarnation: Incarnation,
    /// Where its randomness comes from.
    pub seed: u64,
    /// How long things take.
    pub timing: Timing,
    /// What it may hold and send.
    pub limits: Limits,
}
