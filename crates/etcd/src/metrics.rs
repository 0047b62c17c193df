//! `/metrics`: what this node measured, as Prometheus text.
//!
//! Ours begin with `quorate_`. Those with etcd's names are there for dashboards and alerts made for etcd, and only
//! where the figure means the same.

mod process;
mod text;

use crate::door::{Door, ETCD_VERSION};
use crate::replica::{Replica, SYSTEM_GROUP};
use quorate_consensus::{RoleName, Status};
use quorate_node::NodeStatus;
use quorate_runtime::RuntimeMetrics;
use quorate_store::engine::Engine;
use quorate_types::{Configuration, Histogram, NodeId};
use std::collections::BTreeMap;
use text::{Kind, Text};

/// Everything, at this moment.
pub(crate) fn render<R: Replica, E: Engine>(door: &Door<R, E>) -> String {
    let status = door.replica().status();
    let mut text = Text::new();
    consensus(&mut text, &status);
    replicas(&mut text, &status);
    peers(&mut text, &status);
    runtime(&mut text, &status.name, &door.replica().runtime());
    compatible(&mut text, door, &status);
    process::render(&mut text);
    text.finish()
}

/// The name of a member, or its id where the configuration does not know it.
fn name_of(configuration: &Configuration, id: NodeId) -> String {
    configuration.members.get(&id).map_or_else(|| id.to_string(), |member| member.name.clone())
}

/// What the protocol of each group measured.
fn consensus(text: &mut Text, status: &NodeStatus) {
    let groups = || status.groups.iter().map(|(id, group)| (id.0.to_string(), group));
    text.family(
        "quorate_leader_election_time_seconds",
        Kind::Histogram,
        "From the moment no leader was known to the moment one was.",
    );
    for (id, group) in groups() {
        let labels = [("group", &id[..]), ("node", &status.name)];
        text.histogram(&labels, &group.metrics.leader_election_time);
    }
    let per_peer = |text: &mut Text, of: fn(&Status) -> &BTreeMap<NodeId, Histogram>| {
        for (id, group) in groups() {
            for (peer, histogram) in of(group) {
                let peer = name_of(&group.configuration, *peer);
                let labels = [("group", &id[..]), ("node", &status.name), ("peer", &peer)];
                text.histogram(&labels, histogram);
            }
        }
    };
    text.family(
        "quorate_log_replication_latency_seconds",
        Kind::Histogram,
        "From sending entries to a peer to its durable acknowledgement; measured while leading.",
    );
    per_peer(text, |group| &group.metrics.log_replication_latency);
    text.family(
        "quorate_commit_latency_seconds",
        Kind::Histogram,
        "From taking a proposal in to its commit; measured while leading.",
    );
    for (id, group) in groups() {
        let labels = [("group", &id[..]), ("node", &status.name)];
        text.histogram(&labels, &group.metrics.commit_latency);
    }
    text.family(
        "quorate_network_round_trips_seconds",
        Kind::Histogram,
        "Round trips of heartbeats with a peer, without any disk in them; measured while leading.",
    );
    per_peer(text, |group| &group.metrics.network_round_trips);
    let mut counter = |name, help, of: fn(&Status) -> u64| {
        text.family(name, Kind::Counter, help);
        for (id, group) in groups() {
            text.sample(&[("group", &id), ("node", &status.name)], of(group));
        }
    };
    counter("quorate_term_changes_total", "How often the epoch rose.", |group| {
        group.metrics.term_changes
    });
    counter("quorate_proposals_refused_total", "Proposals refused, for any reason.", |group| {
        group.metrics.refused_count
    });
    counter(
        "quorate_messages_dropped_total",
        "Messages dropped because they contradicted local state.",
        |group| group.metrics.dropped_count,
    );
    counter(
        "quorate_slots_truncated_total",
        "Slots cut off the end of the log, because a leader had others there.",
        |group| group.metrics.truncated_count,
    );
    counter(
        "quorate_acknowledgements_stale_total",
        "Acknowledgements that were meant for an earlier leadership of this node.",
        |group| group.metrics.stale_count,
    );
    counter("quorate_read_rounds_total", "Rounds of the read barrier completed.", |group| {
        group.metrics.read_rounds
    });
}

/// Where each replica stands.
fn replicas(text: &mut Text, status: &NodeStatus) {
    text.family(
        "quorate_awaiting_snapshot",
        Kind::Gauge,
        "Whether the state is lost, and nothing is served until a peer's snapshot has come.",
    );
    for id in status.groups.keys() {
        let labels = [("group", &id.0.to_string()[..]), ("node", &status.name)];
        text.sample(&labels, u64::from(status.awaiting_snapshot.contains(id)));
    }
    let mut gauge = |name, help, of: fn(&Status) -> u64| {
        text.family(name, Kind::Gauge, help);
        for (id, group) in &status.groups {
            text.sample(&[("group", &id.0.to_string()), ("node", &status.name)], of(group));
        }
    };
    gauge("quorate_epoch", "The number of the replica's epoch.", |group| group.epoch.number);
    gauge("quorate_is_leader", "Whether the replica leads.", |group| {
        u64::from(group.role == RoleName::Leader)
    });
    gauge("quorate_has_leader", "Whether the replica knows a leader.", |group| {
        u64::from(group.leader.is_some())
    });
    gauge("quorate_log_last_index", "The last index of the log.", |group| group.last.index.0);
    gauge("quorate_log_durable_index", "The last index known durable here.", |group| {
        group.durable.0
    });
    gauge("quorate_committed_index", "The last index known committed.", |group| group.committed.0);
    gauge("quorate_applied_index", "The last index applied here.", |group| group.applied.0);
    gauge("quorate_synced_index", "The last index synced in the engine here.", |group| {
        group.synced.0
    });
}

/// Whether peers can be reached.
fn peers(text: &mut Text, status: &NodeStatus) {
    text.family(
        "quorate_peer_connected",
        Kind::Gauge,
        "Whether a stream with the peer is open, in each direction.",
    );
    for peer in status.peers.values() {
        for (direction, open) in [("out", peer.outgoing), ("in", peer.incoming)] {
            let labels =
                [("direction", direction), ("node", &status.name[..]), ("peer", &peer.name)];
            text.sample(&labels, u64::from(open));
        }
    }
}

/// What the node's devices and queues did.
fn runtime(text: &mut Text, node: &str, metrics: &RuntimeMetrics) {
    let labels = [("node", node)];
    for (name, help, histogram) in [
        ("quorate_log_sync_seconds", "Syncs of log files.", &metrics.log_sync),
        ("quorate_engine_sync_seconds", "Syncs of the engine.", &metrics.engine_sync),
        ("quorate_apply_seconds", "Calls of the state machine's apply.", &metrics.apply),
    ] {
        text.family(name, Kind::Histogram, help);
        text.histogram(&labels, histogram);
    }
    for (name, help, count) in [
        ("quorate_log_written_bytes_total", "Bytes written to the log.", metrics.log_written_size),
        ("quorate_applied_entries_total", "Entries applied.", metrics.applied_count),
        ("quorate_node_rounds_total", "Rounds of the node's thread.", metrics.round_count),
        ("quorate_node_inputs_total", "Inputs handled in these rounds.", metrics.input_count),
        ("quorate_frames_sent_total", "Frames handed to peers.", metrics.sent_count),
        ("quorate_frames_sent_bytes_total", "Bytes of these frames.", metrics.sent_size),
        ("quorate_frame_writes_total", "Calls that carried them.", metrics.send_call_count),
        ("quorate_frames_received_total", "Frames received.", metrics.received_count),
        ("quorate_frames_received_bytes_total", "Bytes of these frames.", metrics.received_size),
        (
            "quorate_frames_dropped_total",
            "Frames dropped because a queue was full.",
            metrics.dropped_count,
        ),
        (
            "quorate_streams_malformed_total",
            "Peer streams closed because what came was no frame.",
            metrics.malformed_count,
        ),
    ] {
        text.family(name, Kind::Counter, help);
        text.sample(&labels, count);
    }
    for (name, help, value) in [
        ("quorate_requests_waiting", "Requests that wait.", metrics.waiting_count),
        ("quorate_input_queue", "Inputs that wait for the node.", metrics.input_queue_count),
        ("quorate_apply_queue", "Requests to the state machine.", metrics.apply_queue_count),
        ("quorate_send_queue_bytes", "Bytes that wait for peers.", metrics.send_queue_size),
    ] {
        text.family(name, Kind::Gauge, help);
        text.sample(&labels, value);
    }
}

/// What etcd's dashboards and alerts ask for.
fn compatible<R: Replica, E: Engine>(text: &mut Text, door: &Door<R, E>, status: &NodeStatus) {
    let metrics = door.replica().runtime();
    let (revision, compacted) = door.reader().revision();
    let size = door.reader().size();
    let mut one = |name, kind, help, value: u64| {
        text.family(name, kind, help);
        text.sample(&[], value);
    };
    if let Some(group) = status.groups.get(&SYSTEM_GROUP) {
        let is = |role| u64::from(group.role == role);
        let has_leader = u64::from(group.leader.is_some());
        let gauge = Kind::Gauge;
        one("etcd_server_has_leader", gauge, "Whether a leader is known.", has_leader);
        one("etcd_server_is_leader", gauge, "Whether this member leads.", is(RoleName::Leader));
        one("etcd_server_is_learner", gauge, "Whether it is a learner.", is(RoleName::Learner));
        let (committed, applied) = (group.committed.0, group.applied.0);
        one("etcd_server_proposals_committed_total", gauge, "Index committed.", committed);
        one("etcd_server_proposals_applied_total", gauge, "Index applied.", applied);
        let refused = group.metrics.refused_count;
        one("etcd_server_proposals_failed_total", Kind::Counter, "Proposals refused.", refused);
        let changes = group.metrics.leader_election_time.count;
        one(
            "etcd_server_leader_changes_seen_total",
            Kind::Counter,
            "How often a leader became known.",
            changes,
        );
    }
    one("etcd_server_proposals_pending", Kind::Gauge, "Requests that wait.", metrics.waiting_count);
    let revision = u64::try_from(revision).unwrap_or(0);
    one("etcd_debugging_mvcc_current_revision", Kind::Gauge, "The store's revision.", revision);
    // Before the first compaction etcd shows -1 as well, but a gauge of ours is never negative.
    if let Ok(compacted) = u64::try_from(compacted) {
        let help = "The lowest readable revision.";
        one("etcd_debugging_mvcc_compact_revision", Kind::Gauge, help, compacted);
    }
    one("etcd_mvcc_db_total_size_in_bytes", Kind::Gauge, "Bytes on the device.", size);
    let written = metrics.log_written_size;
    one("etcd_disk_wal_write_bytes_total", Kind::Gauge, "Bytes written to the log.", written);
    text.family("etcd_disk_wal_fsync_duration_seconds", Kind::Histogram, "Syncs of the log.");
    text.histogram(&[], &metrics.log_sync);
    text.family(
        "etcd_network_peer_round_trip_time_seconds",
        Kind::Histogram,
        "Round trips with peers; measured while leading.",
    );
    if let Some(group) = status.groups.get(&SYSTEM_GROUP) {
        for (peer, histogram) in &group.metrics.network_round_trips {
            // etcd writes its member ids in hexadecimal.
            text.histogram(&[("To", &format!("{:x}", peer.0))], histogram);
        }
    }
    text.family("etcd_server_version", Kind::Gauge, "Which etcd this is compatible with.");
    text.sample(&[("server_version", ETCD_VERSION)], 1);
    text.family("etcd_cluster_version", Kind::Gauge, "The same for the cluster.");
    text.sample(&[("cluster_version", "3.6")], 1);
    if let Some(node) = status.node {
        text.family("etcd_server_id", Kind::Gauge, "This member's id, in hexadecimal.");
        text.sample(&[("server_id", &format!("{:x}", node.0))], 1);
    }
}
