//! Processes that are killed, stopped for a while, or asked to leave.

use super::{Begun, Remedy, target};
use crate::Result;
use crate::cluster::Cluster;
use crate::plan::Who;
use rustix::process::Signal;
use std::time::Duration;

/// How long a node that is asked to leave may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// How long a leader may take to show after a node has come back.
const LEADER_MAX: Duration = Duration::from_secs(10);

/// How long a node stays away in a rolling restart, and how long the next one waits for it to be back.
const ROLL_PAUSE: Duration = Duration::from_millis(700);

/// `kill -9`.
pub(super) fn kill(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    cluster.kill(&target.nodes);
    Ok(Some((target.said, Remedy::Start)))
}

/// SIGSTOP.
pub(super) fn pause(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    for node in &target.nodes {
        cluster.signal(*node, Signal::STOP)?;
        cluster.nodes[*node].is_paused = true;
    }
    Ok(Some((target.said, Remedy::Continue(target.nodes))))
}

/// SIGCONT.
pub(super) fn go_on(cluster: &mut Cluster, nodes: &[usize]) -> Result<()> {
    for node in nodes {
        cluster.signal(*node, Signal::CONT)?;
        cluster.nodes[*node].is_paused = false;
    }
    // One of them may have been killed meanwhile.
    cluster.start_missing()
}

/// SIGTERM to one after the other, each started again.
pub(super) fn rolling(cluster: &mut Cluster) -> Result<Begun> {
    for node in cluster.members() {
        let name = cluster.nodes[node].name.clone();
        cluster.nodes[node].may_end = true;
        cluster.signal(node, Signal::TERM)?;
        match cluster.wait_end(node, LEAVE_MAX) {
            Some(status) if status.success() => {}
            Some(status) => return Err(format!("{name} was asked to leave and failed: {status}")),
            None => {
                cluster.kill(&[node]);
                cluster.start_missing()?;
                return Err(format!("{name} was asked to leave and still ran after {LEAVE_MAX:?}"));
            }
        }
        cluster.start(node)?;
        cluster.wait(ROLL_PAUSE);
        if cluster.wait_leader(LEADER_MAX).is_none() {
            return Err(format!("nobody led within {LEADER_MAX:?} after {name} came back"));
        }
    }
    Ok(Some(("all nodes in turn".into(), Remedy::Nothing)))
}
