//! The door itself: what every service of it shares.

use crate::deadline::timeout_of;
use crate::errors::EtcdError;
use crate::replica::{Failure, Replica, SYSTEM_GROUP};
use crate::translate::Header;
use bytes::Bytes;
use quorate_consensus::RoleName;
use quorate_store::engine::Engine;
use quorate_store::etcd::{
    Command, KvError, RangeRequest, RangeResponse, Reply, SetMemberAttributes, TxnRequest,
    TxnResponse,
};
use quorate_store::{ReadError, StoreReader};
use quorate_types::ApplyFault;
use std::sync::Arc;
use std::time::Duration;
use tonic::Status;
use tonic::metadata::MetadataMap;

/// The largest request in bytes, as in etcd.
pub const REQUEST_SIZE_MAX: usize = 3 * 512 * 1024;

/// What a message may be larger than a request, in bytes, as in etcd: above that it is not even decoded.
pub const REQUEST_OVERHEAD_MAX: usize = 512 * 1024;

/// The version of etcd whose API this is; digits and dots only, because clients parse each part.
pub const ETCD_VERSION: &str = "3.6.0";

/// How long to wait before trying again to say how clients reach this member.
const PUBLISH_RETRY: Duration = Duration::from_millis(500);

/// How long a client that did not say how long is kept waiting for a compaction to be swept: some ten million versions.
const SWEEP_WAIT_MAX: Duration = Duration::from_secs(60);

/// How long a waiting client's compaction is left alone between two looks at how far it has come.
const SWEEP_LOOK: Duration = Duration::from_millis(10);

/// One node's etcd door. Cheap to clone; every connection has one.
pub struct Door<R, E: Engine> {
    shared: Arc<Shared<R, E>>,
}

struct Shared<R, E: Engine> {
    /// Agrees on writes and on how far reads must wait.
    replica: R,
    /// Reads the local store.
    reader: StoreReader<E>,
}

impl<R, E: Engine> Clone for Door<R, E> {
    fn clone(&self) -> Door<R, E> {
        Door { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Replica, E: Engine> Door<R, E> {
    /// A door to a replica and to the store that it applies to.
    #[must_use]
    pub fn new(replica: R, reader: StoreReader<E>) -> Door<R, E> {
        Door { shared: Arc::new(Shared { replica, reader }) }
    }

    /// Says how clients reach this member, again and again until it is agreed on: from then on the member counts
    /// as started, with its name and URLs in every member list.
    pub async fn publish(&self, name: String, client_urls: Vec<String>) {
        loop {
            if let Some(member) = self.replica().node() {
                let attributes = SetMemberAttributes {
                    member,
                    name: name.clone(),
                    client_urls: client_urls.clone(),
                };
                let command = Command::SetMemberAttributes(attributes);
                match self.replica().propose(command.encode(), None).await {
                    Ok(_) => return,
                    Err(Failure::Stopped(_)) => return,
                    Err(failure) => tracing::debug!(?failure, "client addresses not published yet"),
                }
            }
            tokio::time::sleep(PUBLISH_RETRY).await;
        }
    }

    /// The replica.
    pub(crate) fn replica(&self) -> &R {
        &self.shared.replica
    }

    /// The local store.
    pub(crate) fn reader(&self) -> &StoreReader<E> {
        &self.shared.reader
    }

    /// Who answers.
    pub(crate) fn header(&self) -> Header {
        let replica = self.replica();
        Header {
            cluster_id: replica.cluster().map_or(0, |cluster| cluster.0),
            member_id: replica.node().map_or(0, |node| node.0),
            raft_term: replica.term(),
        }
    }

    /// Lets a request in and says how long the node may take for it. Clients that require a leader are turned away
    /// at once when there is none.
    pub(crate) fn admit(&self, metadata: &MetadataMap) -> Result<Option<Duration>, Status> {
        if metadata.get("hasleader").is_some_and(|value| value == "true")
            && self.replica().leader().is_none()
        {
            return Err(EtcdError::NoLeader.status_missing(&self.missing()));
        }
        Ok(timeout_of(metadata))
    }

    /// The members that cannot be reached, by name.
    pub(crate) fn missing(&self) -> Vec<String> {
        let status = self.replica().status();
        let unreachable = status.peers.values().filter(|peer| !peer.outgoing || !peer.incoming);
        unreachable.map(|peer| peer.name.clone()).collect()
    }

    /// Whether this member only listens.
    pub(crate) fn is_learner(&self) -> bool {
        let status = self.replica().status();
        status.groups.get(&SYSTEM_GROUP).is_some_and(|group| group.role == RoleName::Learner)
    }

    /// Waits until local reads are as recent as they must be: linearizable, unless any state that this member has had is
    /// good enough.
    pub(crate) async fn barrier(
        &self,
        serializable: bool,
        timeout: Option<Duration>,
    ) -> Result<(), Status> {
        if !serializable {
            return Ok(self.replica().read_barrier(timeout).await?);
        }
        match self.replica().is_awaiting_snapshot() {
            true => Err(EtcdError::Unhealthy.status()),
            false => Ok(()),
        }
    }

    /// Agrees on a command, applies it, and gives back what it says.
    pub(crate) async fn propose(
        &self,
        command: &Command,
        timeout: Option<Duration>,
    ) -> Result<Reply, Status> {
        let body: Bytes = command.encode();
        if body.len() > REQUEST_SIZE_MAX {
            return Err(EtcdError::RequestTooLarge.status());
        }
        let reply = self.replica().propose(body, timeout).await?;
        if let Reply::Error(error) = reply {
            return Err(refused(error));
        }
        Ok(reply)
    }

    /// Reads keys from the local store as it is now. One key is read at once; a range, which is counted to its end
    /// whatever its limit, on a thread of its own, so that requests behind it do not wait.
    pub(crate) async fn read(&self, range: RangeRequest) -> Result<RangeResponse, Status> {
        if range.range_end.is_empty() {
            return self.reader().range(&range).map_err(|error| self.unreadable(error));
        }
        let door = self.clone();
        self.aside(move || door.reader().range(&range)).await
    }

    /// Waits until everything is removed from the local store that a compaction at `revision` made unreachable.
    pub(crate) async fn swept(
        &self,
        revision: i64,
        timeout: Option<Duration>,
    ) -> Result<(), Status> {
        let swept = async {
            while !self.reader().is_swept(revision) {
                tokio::time::sleep(SWEEP_LOOK).await;
            }
        };
        let result = tokio::time::timeout(timeout.unwrap_or(SWEEP_WAIT_MAX), swept).await;
        result.map_err(|_| EtcdError::Timeout.status())
    }

    /// Carries out a transaction that writes nothing, on the local store as it is now.
    pub(crate) async fn read_txn(&self, txn: TxnRequest) -> Result<TxnResponse, Status> {
        let door = self.clone();
        self.aside(move || door.reader().txn(&txn)).await
    }

    /// Reads on a thread that may take its time.
    async fn aside<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Status> {
        match tokio::task::spawn_blocking(read).await {
            Ok(result) => result.map_err(|error| self.unreadable(error)),
            Err(error) => {
                tracing::error!(%error, "a read was cut short");
                Err(EtcdError::Stopped.status())
            }
        }
    }

    /// The error of a read that the store could not answer. A node whose engine is damaged is told so, and stops: what it
    /// would go on to serve may be wrong as well.
    pub(crate) fn unreadable(&self, error: ReadError) -> Status {
        match error {
            ReadError::Refused(error) => refused(error),
            ReadError::Fault(fault) => {
                tracing::error!(%fault, "a read failed");
                match fault {
                    ApplyFault::Damaged(_) => self.replica().report_fault(fault),
                    ApplyFault::Engine(_) | ApplyFault::Unsupported { .. } => {}
                }
                EtcdError::Stopped.status()
            }
        }
    }
}

/// The error of a request that the store refused.
pub(crate) fn refused(error: KvError) -> Status {
    EtcdError::from(error).status()
}
