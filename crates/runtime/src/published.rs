//! What a node makes known without being asked: its status, what happens, and that it stopped.

use crate::handle::NodeNotice;
use quorate_node::{NodeStatus, StopReason};
use quorate_types::{ClusterId, GroupId, NodeId};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tokio::sync::{broadcast, watch};

/// Notices that a slow reader may lag behind before it misses some.
const NOTICES_MAX: usize = 1024;

/// Read by any thread, written by the node's.
#[derive(Debug)]
pub(crate) struct Published {
    status: RwLock<Arc<NodeStatus>>,
    /// The system group's epoch number; 0 before the first.
    term: AtomicU64,
    /// The system group's leader; 0 while none is known.
    leader: AtomicU64,
    /// This node; 0 while no cluster is formed.
    node: AtomicU64,
    /// The cluster; 0 while none is formed.
    cluster: AtomicU64,
    /// Whether the system group's state is lost and waits for a snapshot.
    awaiting_snapshot: AtomicBool,
    notices: broadcast::Sender<NodeNotice>,
    /// What was noted before anybody could ask: the node runs, and says what it found in its folder, before its
    /// starter has the handle. Given to the first who asks.
    early: Mutex<Option<broadcast::Receiver<NodeNotice>>>,
    stopped: watch::Sender<Option<StopReason>>,
}

impl Published {
    pub(crate) fn new(status: NodeStatus) -> Published {
        let (notices, early) = broadcast::channel(NOTICES_MAX);
        let published = Published {
            status: RwLock::new(Arc::new(status.clone())),
            term: AtomicU64::new(0),
            leader: AtomicU64::new(0),
            node: AtomicU64::new(0),
            cluster: AtomicU64::new(0),
            awaiting_snapshot: AtomicBool::new(false),
            notices,
            early: Mutex::new(Some(early)),
            stopped: watch::channel(None).0,
        };
        published.publish(status);
        published
    }

    pub(crate) fn publish(&self, status: NodeStatus) {
        if let Some(system) = status.groups.get(&GroupId(0)) {
            self.term.store(system.epoch.number, Ordering::Relaxed);
            self.leader.store(system.leader.map_or(0, |node| node.0), Ordering::Relaxed);
        }
        self.node.store(status.node.map_or(0, |node| node.0), Ordering::Relaxed);
        self.cluster.store(status.cluster.map_or(0, |cluster| cluster.0), Ordering::Relaxed);
        let awaiting = status.awaiting_snapshot.contains(&GroupId(0));
        self.awaiting_snapshot.store(awaiting, Ordering::Relaxed);
        *self.status.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    pub(crate) fn status(&self) -> Arc<NodeStatus> {
        Arc::clone(&self.status.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        Some(NodeId(self.leader.load(Ordering::Relaxed))).filter(|node| node.0 != 0)
    }

    pub(crate) fn node(&self) -> Option<NodeId> {
        Some(NodeId(self.node.load(Ordering::Relaxed))).filter(|node| node.0 != 0)
    }

    pub(crate) fn cluster(&self) -> Option<ClusterId> {
        Some(ClusterId(self.cluster.load(Ordering::Relaxed))).filter(|cluster| cluster.0 != 0)
    }

    pub(crate) fn is_awaiting_snapshot(&self) -> bool {
        self.awaiting_snapshot.load(Ordering::Relaxed)
    }

    pub(crate) fn notify(&self, notice: NodeNotice) {
        // Without a reader there is nobody to tell.
        drop(self.notices.send(notice));
    }

    pub(crate) fn notices(&self) -> broadcast::Receiver<NodeNotice> {
        let early = self.early.lock().unwrap_or_else(PoisonError::into_inner).take();
        early.unwrap_or_else(|| self.notices.subscribe())
    }

    pub(crate) fn stop(&self, reason: StopReason) {
        self.notify(NodeNotice::Stop(reason.clone()));
        self.stopped.send_replace(Some(reason));
    }

    pub(crate) fn stopped(&self) -> watch::Receiver<Option<StopReason>> {
        self.stopped.subscribe()
    }
}
