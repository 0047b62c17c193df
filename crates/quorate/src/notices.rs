//! What a node makes known while it runs, as log lines.

use quorate_consensus::Event;
use quorate_node::{NodeStatus, Phase};
use quorate_runtime::{NodeHandle, NodeNotice};
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::sleep;

/// How often the same wait is said again: often enough to see that the node lives.
const FORMATION_REPEAT: Duration = Duration::from_secs(10);

/// Writes a line for each notice until the node has stopped.
pub(crate) async fn log<R: Send + 'static>(node: NodeHandle<R>) {
    let name = node.latest_status().name.clone();
    let mut notices = node.events();
    loop {
        match notices.recv().await {
            Ok(NodeNotice::Stop(_)) | Err(RecvError::Closed) => return,
            Ok(NodeNotice::Note(text)) => tracing::info!(node = name, "{text}"),
            Ok(NodeNotice::Event { group, event }) => log_event(&name, group.0, &event),
            Err(RecvError::Lagged(count)) => {
                tracing::warn!(node = name, "{count} notices came too fast to be written");
            }
        }
    }
}

fn log_event(node: &str, group: u64, event: &Event) {
    match event {
        Event::Role { .. }
        | Event::Leader { leader: Some(_), .. }
        | Event::Campaign { .. }
        | Event::Configuration { .. }
        | Event::SnapshotNeeded { .. }
        | Event::SnapshotInstalled { .. }
        | Event::Mended { .. }
        | Event::MembershipAnswer { .. } => tracing::info!(node, group, "{event}"),
        Event::Leader { leader: None, .. } | Event::SteppedDown { .. } | Event::NotReady { .. } => {
            tracing::warn!(node, group, "{event}")
        }
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
