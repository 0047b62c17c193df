//! What a node makes known while it runs, as log lines.

use quorate_consensus::{Event, StepDownReason};
use quorate_node::{NodeStatus, Phase};
use quorate_runtime::{NodeHandle, NodeNotice};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep, timeout_at};

/// How often the same wait is said again: often enough to see that the node lives.
const FORMATION_REPEAT: Duration = Duration::from_secs(10);

/// How long a group may be without a leader before that is a warning: when leadership is handed over it is so for some
/// milliseconds, and a leader that dies is replaced about as soon as this where links close.
const LEADERLESS_PATIENCE: Duration = Duration::from_millis(500);

/// Groups whose leader is not known, and when that becomes a warning.
#[derive(Debug, Default)]
struct Leaderless {
    groups: BTreeMap<u64, Instant>,
}

impl Leaderless {
    /// Takes in what happened in a group.
    fn note(&mut self, group: u64, event: &Event, now: Instant) {
        if let Event::Leader { leader, .. } = event {
            match leader {
                Some(_) => self.groups.remove(&group),
                None => self.groups.insert(group, now + LEADERLESS_PATIENCE),
            };
        }
    }

    /// When a warning is due next.
    fn next(&self) -> Option<Instant> {
        self.groups.values().min().copied()
    }

    /// The groups to warn of, each once.
    fn take_due(&mut self, now: Instant) -> Vec<u64> {
        let due = self.groups.iter().filter(|(_, due)| **due <= now);
        let due: Vec<u64> = due.map(|(group, _)| *group).collect();
        self.groups.retain(|group, _| !due.contains(group));
        due
    }
}

/// Writes a line for each notice until the node has stopped.
pub(crate) async fn log<R: Send + 'static>(node: NodeHandle<R>) {
    let name = node.latest_status().name.clone();
    let mut notices = node.events();
    let mut leaderless = Leaderless::default();
    loop {
        let notice = match leaderless.next() {
            None => notices.recv().await,
            Some(due) => match timeout_at(due, notices.recv()).await {
                Ok(notice) => notice,
                Err(_) => {
                    for group in leaderless.take_due(Instant::now()) {
                        let limit = LEADERLESS_PATIENCE.as_millis();
                        tracing::warn!(node = name, group, "no leader for {limit} ms");
                    }
                    continue;
                }
            },
        };
        match notice {
            Ok(NodeNotice::Stop(_)) | Err(RecvError::Closed) => return,
            Ok(NodeNotice::Note(text)) => tracing::info!(node = name, "{text}"),
            Ok(NodeNotice::Warning(text)) => tracing::warn!(node = name, "{text}"),
            Ok(NodeNotice::Event { group, event }) => {
                leaderless.note(group.0, &event, Instant::now());
                log_event(&name, group.0, &event);
            }
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(node = name, "{count} notices came too fast to be written");
            }
        }
    }
}

fn log_event(node: &str, group: u64, event: &Event) {
    match event {
        Event::Role { .. }
        | Event::Leader { .. }
        // Somebody else was elected, or it is to leave: what becomes of that is said beside it.
        | Event::SteppedDown { reason: StepDownReason::HigherEpoch | StepDownReason::Removed, .. }
        | Event::Campaign { .. }
        | Event::Configuration { .. }
        | Event::SnapshotNeeded { .. }
        | Event::SnapshotInstalled { .. }
        | Event::Mended { .. }
        | Event::MembershipAnswer { .. } => tracing::info!(node, group, "{event}"),
        Event::SteppedDown {
            reason: StepDownReason::NoQuorum | StepDownReason::Stalled | StepDownReason::Damaged,
            ..
        }
        | Event::NotReady { .. } => tracing::warn!(node, group, "{event}"),
        Event::Diverged { .. } => tracing::error!(node, group, "{event}"),
        Event::EpochChanged { .. } | Event::Dropped { .. } => {
            tracing::debug!(node, group, "{event}");
        }
    }
}

/// Says from time to time whom formation waits for, until the node takes part or has stopped. What changes is noted
/// by the node itself; this is for waits in which nothing does.
pub(crate) async fn log_formation<R: Send + 'static>(node: NodeHandle<R>) {
    loop {
        sleep(FORMATION_REPEAT).await;
        let status = node.latest_status();
        match &status.phase {
            Phase::Recovering | Phase::Joining { .. } => {}
            Phase::Running | Phase::Stopped(_) => return,
            Phase::Forming { missing } => log_missing(&status, missing),
        }
    }
}

fn log_missing(status: &NodeStatus, missing: &[String]) {
    let address = |name: &String| match status.peers.get(name) {
        Some(peer) => format!("{name} ({})", peer.address),
        None => name.clone(),
    };
    let missing: Vec<String> = missing.iter().map(address).collect();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        tracing::info!(node = status.name, "still forming a cluster; waiting for {missing}");
    }
    for peer in status.peers.values() {
        if let Some(refusal) = &peer.refusal {
            tracing::warn!(node = status.name, peer = peer.name, "{refusal}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{Epoch, NodeId};

    #[test]
    fn only_a_group_that_stays_without_a_leader_is_warned_of_and_once() {
        let now = Instant::now();
        let leader = |leader| Event::Leader {
            leader,
            epoch: Epoch::new(2, NodeId(1)),
            leaderless: Duration::ZERO,
        };
        let mut leaderless = Leaderless::default();
        assert_eq!(leaderless.next(), None);
        leaderless.note(0, &leader(None), now);
        leaderless.note(7, &leader(None), now);
        leaderless.note(0, &leader(Some(NodeId(2))), now);
        assert_eq!(leaderless.next(), Some(now + LEADERLESS_PATIENCE));
        assert!(leaderless.take_due(now).is_empty());
        assert_eq!(leaderless.take_due(now + LEADERLESS_PATIENCE), [7]);
        assert_eq!(leaderless.next(), None);
    }
}
