//! The live lines of `quorate dev`: elections and failures as they happen.

use crate::exit::show;
use quorate_consensus::{Event, RoleName};
use quorate_node::{NodeStatus, StopReason};
use quorate_runtime::{NodeHandle, NodeNotice};
use quorate_types::GroupId;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::timeout;

/// How often a node is asked whether it takes part already.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Writes lines for all nodes.
#[derive(Clone)]
pub(crate) struct Live {
    /// What times count from.
    begin: Instant,
    /// How many nodes do not follow a leader yet.
    waiting: Arc<AtomicUsize>,
}

impl Live {
    /// Lines of so many nodes, with times from `begin`.
    pub(crate) fn new(begin: Instant, nodes: usize) -> Live {
        Live { begin, waiting: Arc::new(AtomicUsize::new(nodes)) }
    }

    /// Writes a line.
    pub(crate) fn say(&self, text: &str) {
        show(&format!("{:>8.2} s  {text}", self.begin.elapsed().as_secs_f64()));
    }

    /// Says what happens in a node until it has stopped. What it notes on the way to its first leader is left out: all
    /// is new then, and nothing is amiss.
    pub(crate) async fn watch<R: Send + 'static>(self, node: NodeHandle<R>) {
        let name = node.latest_status().name.clone();
        let mut notices = node.events();
        let mut ready = false;
        loop {
            if !ready && let Some(leader) = leader_of(&node.latest_status()) {
                ready = true;
                // The last node of all says so.
                if self.waiting.fetch_sub(1, Ordering::Relaxed) == 1 {
                    self.say(&format!("ready: {leader} leads, all nodes follow"));
                }
            }
            let notice = match timeout(READY_INTERVAL, notices.recv()).await {
                Ok(notice) => notice,
                Err(_) => continue,
            };
            match notice {
                Ok(NodeNotice::Note(text)) if ready => self.say(&format!("{name}: {text}")),
                Ok(NodeNotice::Note(_)) => {}
                Ok(NodeNotice::Warning(text)) => self.say(&format!("{name}: {text}")),
                Ok(NodeNotice::Event { group, event }) => {
                    if let Some(line) = line(&name, &node.latest_status(), group, &event) {
                        self.say(&line);
                    }
                }
                Ok(NodeNotice::Stop(StopReason::Asked)) | Err(RecvError::Closed) => return,
                Ok(NodeNotice::Stop(reason)) => {
                    self.say(&format!("{name} STOPPED: {reason:?}"));
                    return;
                }
                Err(RecvError::Lagged(count)) => {
                    self.say(&format!("{name}: {count} notices came too fast to be shown"));
                }
            }
        }
    }
}

fn leader_of(status: &NodeStatus) -> Option<String> {
    let group = status.groups.get(&GroupId(0))?;
    let leader = group.leader?;
    let member = group.configuration.members.get(&leader);
    Some(member.map_or_else(|| leader.to_string(), |member| member.name.clone()))
}

/// The line of an event; most are of no interest here, the logs have them.
fn line(name: &str, status: &NodeStatus, group: GroupId, event: &Event) -> Option<String> {
    match event {
        Event::Role { role: RoleName::Leader, epoch } => {
            Some(format!("{name} leads {group} in epoch {epoch}"))
        }
        Event::Role { role: RoleName::Candidate, epoch } => {
            Some(format!("{name} asks for votes in epoch {epoch}"))
        }
        Event::SteppedDown { epoch, reason } => {
            Some(format!("{name} no longer leads epoch {epoch}: {reason:?}"))
        }
        Event::Leader { leader: Some(_), leaderless, .. } if *leaderless > Duration::ZERO => {
            let leader = leader_of(status).filter(|leader| leader != name)?;
            Some(format!("{name} follows {leader} after {} ms without", leaderless.as_millis()))
        }
        Event::Leader { leader: None, .. } => Some(format!("{name} knows no leader")),
        Event::SnapshotNeeded { peer } => Some(format!("{name} sends {peer} a snapshot")),
        Event::SnapshotInstalled { position } => {
            Some(format!("{name} took over a snapshot up to {position}"))
        }
        Event::Diverged { .. }
        | Event::Mended { .. }
        | Event::MembershipAnswer { .. }
        | Event::NotReady { .. } => Some(format!("{name}: {event}")),
        Event::Role {
            role: RoleName::Learner | RoleName::Follower | RoleName::PreCandidate,
            ..
        }
        | Event::Leader { leader: Some(_), .. }
        | Event::EpochChanged { .. }
        | Event::Campaign { .. }
        | Event::Configuration { .. }
        | Event::Dropped { .. } => None,
    }
}
