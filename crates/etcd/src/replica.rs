//! What the door needs of the node it stands at.

use bytes::Bytes;
use quorate_consensus::{Control, RefuseReason};
use quorate_node::NodeStatus;
use quorate_runtime::{NodeHandle, RequestError, RuntimeMetrics};
use quorate_store::etcd::Reply;
use quorate_types::{ApplyFault, ClusterId, Configuration, EntryKind, GroupId, NodeId};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// The group that holds the `etcd` keyspace and whose members are the members of the cluster.
pub(crate) const SYSTEM_GROUP: GroupId = GroupId(0);

/// How a request ended that has no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not done and will not be.
    Refused {
        /// Why.
        reason: RefuseReason,
        /// The members that could not be reached, by name, where that is why.
        missing: Vec<String>,
    },
    /// Its time is over; a write may or may not be applied, now or later.
    Unknown {
        /// The members that could not be reached, by name.
        missing: Vec<String>,
    },
    /// The node has stopped; the text says why.
    Stopped(String),
}

/// One node's replica of the system group. Real nodes implement it, and in tests doubles that fail as told.
pub trait Replica: Send + Sync + 'static {
    /// Agrees on a command and applies it. Without a timeout the node's own holds.
    fn propose(
        &self,
        command: Bytes,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<Reply, Failure>> + Send;

    /// Returns once the local store holds everything acknowledged before the call.
    fn read_barrier(
        &self,
        timeout: Option<Duration>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The node as it last said it was; at most moments old, and never waits.
    fn status(&self) -> Arc<NodeStatus>;

    /// What its devices and queues measured.
    fn runtime(&self) -> RuntimeMetrics;

    /// Its id; `None` until a cluster is formed.
    fn node(&self) -> Option<NodeId>;

    /// Its cluster; `None` until it is formed.
    fn cluster(&self) -> Option<ClusterId>;

    /// The number of its epoch.
    fn term(&self) -> u64;

    /// Who leads.
    fn leader(&self) -> Option<NodeId>;

    /// Whether the local state is lost, so that nothing of it may be served before a snapshot has taken its place.
    fn is_awaiting_snapshot(&self) -> bool;

    /// A read has met something in the local state that cannot be right.
    fn report_fault(&self, fault: ApplyFault);

    /// Asks for other members than those of `base`; returns once the change is taken in, which is before it is done.
    fn change_members(
        &self,
        base: Configuration,
        target: Configuration,
    ) -> impl Future<Output = Result<(), RequestError>> + Send;
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Failure {
        match error {
            RequestError::Refused { reason, missing } => Failure::Refused { reason, missing },
            RequestError::Unknown { missing, .. } => Failure::Unknown { missing },
            // Said of control requests only; a write or a read is never declined.
            RequestError::Declined(_) => {
                Failure::Refused { reason: RefuseReason::NotReady, missing: Vec::new() }
            }
            RequestError::Stopped(reason) => Failure::Stopped(reason),
        }
    }
}

impl Replica for NodeHandle<Reply> {
    async fn propose(&self, command: Bytes, timeout: Option<Duration>) -> Result<Reply, Failure> {
        let kind = EntryKind::Command;
        Ok(NodeHandle::propose(self, SYSTEM_GROUP, kind, command, timeout).await?)
    }

    async fn read_barrier(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        NodeHandle::read_barrier(self, SYSTEM_GROUP, timeout).await?;
        Ok(())
    }

    fn status(&self) -> Arc<NodeStatus> {
        self.latest_status()
    }

    fn runtime(&self) -> RuntimeMetrics {
        self.metrics()
    }

    fn node(&self) -> Option<NodeId> {
        self.node_id()
    }

    fn cluster(&self) -> Option<ClusterId> {
        self.cluster_id()
    }

    fn term(&self) -> u64 {
        NodeHandle::term(self)
    }

    fn leader(&self) -> Option<NodeId> {
        NodeHandle::leader(self)
    }

    fn is_awaiting_snapshot(&self) -> bool {
        NodeHandle::is_awaiting_snapshot(self)
    }

    fn report_fault(&self, fault: ApplyFault) {
        NodeHandle::report_fault(self, SYSTEM_GROUP, fault);
    }

    async fn change_members(
        &self,
        base: Configuration,
        target: Configuration,
    ) -> Result<(), RequestError> {
        let control = Control::TargetMembership { base, target };
        NodeHandle::control(self, SYSTEM_GROUP, control).await
    }
}
