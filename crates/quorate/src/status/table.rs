//! The table of `quorate status`, and the sentences under it that say what is wrong.

use super::EndpointReport;
use crate::admin::{GroupReport, NodeReport, PeerReport, SyncReport};
use std::fmt::Write;

const HEADINGS: [&str; 12] = [
    "ENDPOINT",
    "NAME",
    "PHASE",
    "ROLE",
    "EPOCH",
    "LEADER",
    "COMMIT",
    "APPLIED",
    "LAG",
    "LOG SYNC",
    "ENGINE SYNC",
    "PEERS",
];

/// All endpoints, a row each, and what needs attention.
pub(crate) fn render(reports: &[EndpointReport]) -> String {
    let groups = reports.iter().filter_map(|report| system_group(report.status.as_ref()?));
    let committed = groups.map(|group| group.committed).max().unwrap_or(0);
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(reports.iter().map(|report| row(report, committed)));
    let mut text = aligned(&rows);
    let lines: Vec<String> = reports.iter().flat_map(attention).collect();
    if !lines.is_empty() {
        text.push('\n');
    }
    for line in lines {
        writeln!(text, "{line}").expect("a string takes everything");
    }
    text
}

fn system_group(status: &NodeReport) -> Option<&GroupReport> {
    status.groups.iter().find(|group| group.group == 0)
}

fn row(report: &EndpointReport, committed: u64) -> [String; 12] {
    let none = || "-".to_owned();
    let Some(status) = &report.status else {
        let mut row: [String; 12] = std::array::from_fn(|_| none());
        row[0].clone_from(&report.endpoint);
        "unreachable".clone_into(&mut row[2]);
        return row;
    };
    let group = system_group(status);
    let of_group = |show: fn(&GroupReport) -> String| group.map_or_else(none, show);
    [
        report.endpoint.clone(),
        status.name.clone(),
        status.phase.clone(),
        of_group(|group| group.role.clone()),
        of_group(|group| group.epoch.to_string()),
        of_group(|group| group.leader.clone().unwrap_or_else(|| "none".into())),
        of_group(|group| group.committed.to_string()),
        of_group(|group| group.applied.to_string()),
        group.map_or_else(none, |group| committed.saturating_sub(group.applied).to_string()),
        sync(&status.log_sync),
        sync(&status.engine_sync),
        status.peers.iter().map(peer).collect::<Vec<_>>().join(" "),
    ]
}

/// The mean, since a single sync says little.
fn sync(report: &SyncReport) -> String {
    match report.count {
        0 => "-".into(),
        _ => format!("{:.2} ms", report.mean_ms),
    }
}

/// A peer and the directions in which it can be reached.
fn peer(peer: &PeerReport) -> String {
    let directions = match (peer.outgoing, peer.incoming) {
        (true, true) => "<->",
        (true, false) => "-->",
        (false, true) => "<--",
        (false, false) => "-x-",
    };
    format!("{directions}{}", peer.name)
}

/// What is not as it should be, a sentence each.
fn attention(report: &EndpointReport) -> Vec<String> {
    let Some(status) = &report.status else {
        let error = report.error.as_deref().unwrap_or("no answer");
        return vec![format!("! {}: {error}", report.endpoint)];
    };
    let name = &status.name;
    let mut lines = Vec::new();
    if !status.missing.is_empty() {
        lines
            .push(format!("! {name}: waits for {} to form the cluster", status.missing.join(", ")));
    }
    if let Some(reason) = &status.stopped {
        lines.push(format!("! {name}: stopped: {reason}"));
    }
    if let Some(reason) = &status.log_failed {
        lines.push(format!("! {name}: the log failed: {reason}"));
    }
    if status.disk_full {
        lines.push(format!("! {name}: the disk gives no more space; writes are refused"));
    }
    for group in &status.groups {
        if let Some(reason) = &group.why_not {
            lines.push(format!("! {name}: group {}: {reason}", group.group));
        }
        if group.leader.is_none() {
            lines.push(format!("! {name}: group {} knows no leader", group.group));
        }
    }
    for peer in &status.peers {
        let what = match (peer.outgoing, peer.incoming) {
            (true, true) => None,
            (true, false) => Some("cannot reach this node"),
            (false, true) => Some("cannot be reached, though it reaches this node"),
            (false, false) => Some("cannot be reached"),
        };
        if let Some(what) = what {
            lines.push(format!("! {name}: {} ({}) {what}", peer.name, peer.address));
        }
        if let Some(refusal) = &peer.refusal {
            lines.push(format!("! {name}: {}: {refusal}", peer.name));
        }
    }
    lines
}

/// Columns as wide as their widest cell.
fn aligned(rows: &[[String; 12]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..HEADINGS.len()).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(text, "{}", line.trim_end()).expect("a string takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: &str, applied: u64, reachable: bool) -> EndpointReport {
        let sync = SyncReport { count: 4, mean_ms: 1.5, latest_ms: 2.0 };
        let status = NodeReport {
            name: name.into(),
            node: Some(1),
            cluster: Some("00".into()),
            incarnation: "01".into(),
            start: 1,
            version: "0".into(),
            phase: "running".into(),
            missing: Vec::new(),
            stopped: None,
            groups: vec![GroupReport {
                group: 0,
                role: role.into(),
                epoch: 2,
                leader: Some("n1".into()),
                last: 10,
                durable: 10,
                committed: applied,
                applied,
                synced: applied,
                digest: None,
                why_not: None,
                term_changes: 1,
                followers: Vec::new(),
            }],
            peers: vec![PeerReport {
                name: "n3".into(),
                address: "127.0.0.1:7301".into(),
                outgoing: reachable,
                incoming: true,
                last_heard_ms: Some(7),
                refusal: None,
            }],
            log_sync: sync.clone(),
            engine_sync: sync,
            log_size: 0,
            log_failed: None,
            disk_full: false,
            waiting: 0,
        };
        EndpointReport { endpoint: format!("{name}:2379"), error: None, status: Some(status) }
    }

    #[test]
    fn lag_is_what_the_furthest_commit_is_ahead_by() {
        let text = render(&[node("n1", "leader", 10, true), node("n2", "follower", 7, true)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "nothing needs attention:\n{text}");
        let cells: Vec<&str> = lines[2].split_whitespace().collect();
        assert_eq!(cells[..9], ["n2:2379", "n2", "running", "follower", "2", "n1", "7", "7", "3"]);
    }

    #[test]
    fn a_link_that_is_dead_one_way_is_named_with_its_direction() {
        let text = render(&[node("n1", "leader", 10, false)]);
        assert!(text.contains("<--n3"), "{text}");
        assert!(text.contains("! n1: n3 (127.0.0.1:7301) cannot be reached, though"), "{text}");
    }

    #[test]
    fn an_endpoint_that_does_not_answer_keeps_its_row() {
        let error = Some("Connection refused".into());
        let gone = EndpointReport { endpoint: "n9:2379".into(), error, status: None };
        let text = render(&[gone]);
        assert!(text.contains("unreachable") && text.contains("Connection refused"), "{text}");
    }
}
