//! Disks that are slow, fail or are full, wall clocks that are wrong, and power that is cut.

use super::{Begun, Remedy, target};
use crate::Result;
use crate::cluster::Cluster;
use crate::disk::{Control, Loss};
use crate::plan::{Who, Wrong};
use std::fs;
use std::time::Duration;

/// How long a node may go on after a sync has failed, while clients write.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What can be wrong with a device.
const CONTROLS: [Control; 6] = [
    Control::SyncDelay,
    Control::SyncFails,
    Control::IsFull,
    Control::WallShift,
    Control::WallRate,
    Control::WallSince,
];

/// Syncs take longer.
pub(super) fn slow(cluster: &mut Cluster, who: Who, millis: u32) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    for node in &target.nodes {
        cluster.nodes[*node].disk.set(Control::SyncDelay, i64::from(millis) * 1_000)?;
    }
    Ok(Some((format!("{} syncs +{millis} ms", target.said), Remedy::Right(target.nodes))))
}

/// Syncs fail.
pub(super) fn fail(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    let node = target.nodes[0];
    cluster.nodes[node].may_end = true;
    cluster.nodes[node].disk.set(Control::SyncFails, 1)?;
    Ok(Some((target.said, Remedy::RightAndStart(node))))
}

/// No file grows. A node whose engine must write then stops until there is space and it is started again: so the README
/// says, and so it is let here.
pub(super) fn fill(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    let node = target.nodes[0];
    cluster.nodes[node].may_end = true;
    cluster.nodes[node].disk.set(Control::IsFull, 1)?;
    Ok(Some((target.said, Remedy::Empty(node))))
}

/// There is space again; the node goes on, or is started if it has stopped for the reason it may.
pub(super) fn empty(cluster: &mut Cluster, node: usize) -> Result<()> {
    let ended = cluster.take_ended(node);
    cluster.nodes[node].may_end = false;
    let complaint = cluster.log_tail(node);
    right(cluster, &[node])?;
    let name = &cluster.nodes[node].name;
    match ended {
        Some(status) if status.code() != Some(1) || !complaint.contains("No space left") => {
            Err(format!("{name} met a full disk and ended with {status}:\n{complaint}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The wall clock is wrong.
pub(super) fn misset(cluster: &mut Cluster, who: Who, wrong: Wrong) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    for node in &target.nodes {
        let disk = &cluster.nodes[*node].disk;
        match wrong {
            Wrong::Jump(seconds) => disk.set(Control::WallShift, seconds * 1_000_000_000)?,
            Wrong::Drift(rate) => {
                disk.set(Control::WallSince, monotonic_nanos()?)?;
                disk.set(Control::WallRate, rate)?;
            }
        }
    }
    Ok(Some((format!("{}: {wrong}", target.said), Remedy::Right(target.nodes))))
}

/// Everything is right again.
pub(super) fn right(cluster: &mut Cluster, nodes: &[usize]) -> Result<()> {
    for node in nodes {
        for control in CONTROLS {
            cluster.nodes[*node].disk.set(control, 0)?;
        }
    }
    // One of them may have been killed meanwhile.
    cluster.start_missing()
}

/// The disk is right again; the node must have stopped, because after a failed sync nobody knows what is on it.
pub(super) fn right_and_start(cluster: &mut Cluster, node: usize) -> Result<()> {
    let ended = cluster.wait_end(node, STOP_MAX);
    let went_on = ended.is_none() && cluster.active().contains(&node);
    let name = cluster.nodes[node].name.clone();
    if went_on {
        cluster.kill(&[node]);
    }
    right(cluster, &[node])?;
    match ended {
        None if went_on => Err(format!("{name} went on for {STOP_MAX:?} after syncs had failed")),
        Some(status) if status.code() != Some(1) => {
            Err(format!("{name} met a sync that failed and ended with {status}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// The power is cut.
pub(super) fn power(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    cluster.kill(&target.nodes);
    let mut sum = Loss::default();
    for node in &target.nodes {
        let one = &cluster.nodes[*node];
        let loss = one.disk.cut().map_err(|error| format!("the disk of {}: {error}", one.name))?;
        sum = Loss { bytes: sum.bytes + loss.bytes, files: sum.files + loss.files };
    }
    let lost =
        format!("{}, {} unsynced bytes and {} names lost", target.said, sum.bytes, sum.files);
    Ok(Some((lost, Remedy::Start)))
}

/// The monotonic clock, as the layer sees it.
fn monotonic_nanos() -> Result<i64> {
    let text =
        fs::read_to_string("/proc/uptime").map_err(|error| format!("/proc/uptime: {error}"))?;
    let seconds = text.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    let seconds = seconds.ok_or("/proc/uptime holds no number")?;
    // A drift that begins at a hundredth of a second is as good as any other.
    #[expect(clippy::cast_possible_truncation, reason = "uptime in nanoseconds fits for 292 years")]
    Ok((seconds * 1e9) as i64)
}
