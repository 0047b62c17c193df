//! The way to a node that runs: a queue and a one-shot, nothing more.

use crate::clock::Clock;
use crate::inbound::{Inbound, Inbox};
use crate::metrics::{Counters, RuntimeMetrics};
use crate::published::Published;
use crate::queue::Queue;
use crate::waiters::{Waiter, Waiters};
use bytes::Bytes;
use quorate_consensus::{Control, Event, RefuseReason};
use quorate_node::{
    MachineDone, MachineRequest, NodeInput, NodeStatus, Request, RequestId, StopReason,
};
use quorate_types::{
    ApplyFault, ClusterId, EntryKind, Fate, GroupId, Index, Instant, NodeId, Origin,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, oneshot};

/// Why a request was not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It was not done and will not be: it may be sent again.
    #[error("refused: {reason:?}{}", missing_text(missing))]
    Refused {
        /// Why.
        reason: RefuseReason,
        /// The members that could not be reached, by name, where that is why.
        missing: Vec<String>,
    },
    /// What was asked for cannot be, as things are.
    #[error("{0}")]
    Declined(String),
    /// Its deadline passed; a proposal may or may not be applied, now or later.
    #[error("not answered in time{}", missing_text(missing))]
    Unknown {
        /// The name of the proposal, for [`NodeHandle::settle`]; `None` where nothing was proposed.
        origin: Option<Origin>,
        /// The members that could not be reached, by name.
        missing: Vec<String>,
    },
    /// The node has stopped; a proposal may or may not be applied by the others.
    #[error("{0}")]
    Stopped(String),
}

fn missing_text(missing: &[String]) -> String {
    if missing.is_empty() {
        String::new()
    } else {
        format!("; not reached: {}", missing.join(", "))
    }
}

/// Something that a node makes known, for logs and people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeNotice {
    /// Something happened in a group.
    Event {
        /// In which group.
        group: GroupId,
        /// What.
        event: Event,
    },
    /// A line in plain words.
    Note(String),
    /// A line about something that an operator should know of: damage.
    Warning(String),
    /// The node has stopped; nothing more comes.
    Stop(StopReason),
}

impl fmt::Display for NodeNotice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeNotice::Event { group, event } => write!(f, "{group} {event}"),
            NodeNotice::Note(text) | NodeNotice::Warning(text) => f.write_str(text),
            NodeNotice::Stop(reason) => write!(f, "stopped: {reason:?}"),
        }
    }
}

/// A handle on a node that runs. The node ends, as if it had been killed, when the last handle is dropped;
/// [`NodeHandle::shutdown`] lets it leave cleanly.
#[derive(Debug)]
pub struct NodeHandle<R>(Arc<Inner<R>>);

impl<R> Clone for NodeHandle<R> {
    fn clone(&self) -> NodeHandle<R> {
        NodeHandle(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
pub(crate) struct Inner<R> {
    pub(crate) clock: Clock,
    pub(crate) queue: Arc<Inbox>,
    pub(crate) waiters: Arc<Waiters<R>>,
    pub(crate) published: Arc<Published>,
    pub(crate) counters: Arc<Counters>,
    /// What waits for the system group's state machine.
    pub(crate) applies: Arc<Queue<MachineRequest>>,
}

impl<R> Drop for Inner<R> {
    fn drop(&mut self) {
        self.queue.push(Inbound::Abort);
    }
}

impl<R: Send + 'static> NodeHandle<R> {
    pub(crate) fn new(inner: Inner<R>) -> NodeHandle<R> {
        NodeHandle(Arc::new(inner))
    }

    /// Has a body agreed on and applied, and gives the state machine's reply. Without a timeout the node's
    /// default holds; either way an answer comes.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn propose(
        &self,
        group: GroupId,
        kind: EntryKind,
        body: Bytes,
        timeout: Option<Duration>,
    ) -> Result<R, RequestError> {
        let deadline = self.deadline(timeout);
        let (promise, answer) = oneshot::channel();
        self.request(Waiter::Reply(promise), Request::Propose { group, kind, body, deadline })?;
        self.answer(answer).await
    }

    /// As [`NodeHandle::propose`] for many bodies at once, which are handed to the node together; gives an answer for
    /// each, in order, when the last one has come.
    pub async fn propose_batch(
        &self,
        group: GroupId,
        kind: EntryKind,
        bodies: Vec<Bytes>,
        timeout: Option<Duration>,
    ) -> Vec<Result<R, RequestError>> {
        if bodies.is_empty() {
            return Vec::new();
        }
        let count = bodies.len();
        let deadline = self.deadline(timeout);
        let (promise, answers) = oneshot::channel();
        let first = match self.0.waiters.enter_batch(count, promise) {
            Ok(first) => first,
            Err(error) => return vec_of(count, || Err(error.clone())),
        };
        let request = |(body, number)| {
            let request = Request::Propose { group, kind, body, deadline };
            Inbound::Node(NodeInput::Request { id: RequestId(number), request })
        };
        self.0.queue.push_all(&mut bodies.into_iter().zip(first.0..).map(request).collect());
        match answers.await {
            Ok(results) => results,
            Err(_) => vec_of(count, || Err(stopped())),
        }
    }

    /// Finds out what became of a proposal whose outcome was unknown, and ends it: what was not applied by then never will be.
    /// Any node that runs can be asked, and again after an error. Never gives [`Fate::Open`]. `origin` is one that
    /// [`RequestError::Unknown`] has named: one that was never given out may end what its node has yet to propose.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn settle(
        &self,
        group: GroupId,
        origin: Origin,
        timeout: Option<Duration>,
    ) -> Result<Fate, RequestError> {
        let deadline = self.deadline(timeout);
        let (promise, answer) = oneshot::channel();
        self.request(Waiter::Fate(promise), Request::Settle { group, origin, deadline })?;
        self.answer(answer).await
    }

    /// Waits until a local read is linearizable with respect to this call, and gives the applied index that it
    /// may rest on.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn read_barrier(
        &self,
        group: GroupId,
        timeout: Option<Duration>,
    ) -> Result<Index, RequestError> {
        let deadline = self.deadline(timeout);
        let (promise, answer) = oneshot::channel();
        self.request(Waiter::Barrier(promise), Request::Read { group, deadline })?;
        self.answer(answer).await
    }

    /// Has a group's replica do something; answered when it was taken in.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn control(&self, group: GroupId, control: Control) -> Result<(), RequestError> {
        let (promise, answer) = oneshot::channel();
        self.request(Waiter::Control(promise), Request::Control { group, control })?;
        self.answer(answer).await
    }

    fn deadline(&self, timeout: Option<Duration>) -> Option<Instant> {
        timeout.map(|timeout| self.0.clock.now() + timeout)
    }

    fn request(&self, waiter: Waiter<R>, request: Request) -> Result<(), RequestError> {
        let id = self.0.waiters.enter(waiter)?;
        // A queue that closed meanwhile closed after all waits were ended, this one among them or before it.
        self.0.queue.push(Inbound::Node(NodeInput::Request { id, request }));
        Ok(())
    }

    async fn answer<T>(
        &self,
        answer: oneshot::Receiver<Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match answer.await {
            Ok(result) => result,
            Err(_) => Err(stopped()),
        }
    }

    /// What the node knows of itself now, asked of the node's thread; `None` when it has stopped. Needs no
    /// quorum.
    pub async fn status(&self) -> Option<NodeStatus> {
        let (promise, answer) = oneshot::channel();
        self.0.queue.push(Inbound::Status(promise));
        answer.await.ok()
    }

    /// What the node last made known of itself: at most about 100 ms old, and never older than the latest
    /// change of role, epoch, leader or configuration.
    #[must_use]
    pub fn latest_status(&self) -> Arc<NodeStatus> {
        self.0.published.status()
    }

    /// The system group's epoch number; 0 before the first.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.0.published.term()
    }

    /// The system group's leader, if one is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        self.0.published.leader()
    }

    /// This node's id, once the cluster is formed.
    #[must_use]
    pub fn node_id(&self) -> Option<NodeId> {
        self.0.published.node()
    }

    /// The cluster's id, once it is formed.
    #[must_use]
    pub fn cluster_id(&self) -> Option<ClusterId> {
        self.0.published.cluster()
    }

    /// Whether the system group's state is lost, so that nothing of it may be served before a snapshot has taken its
    /// place.
    #[must_use]
    pub fn is_awaiting_snapshot(&self) -> bool {
        self.0.published.is_awaiting_snapshot()
    }

    /// A read beside the node has met something in a group's state that cannot be right: the node stops, as when an apply
    /// meets it.
    pub fn report_fault(&self, group: GroupId, fault: ApplyFault) {
        let done = MachineDone::Failed(fault);
        self.0.queue.push(Inbound::Node(NodeInput::Machine { group, done }));
    }

    /// What happens from now on; the first who asks also gets what happened since the start. A reader that lags
    /// far behind misses some.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<NodeNotice> {
        self.0.published.notices()
    }

    /// What was measured of devices and queues since the start.
    #[must_use]
    pub fn metrics(&self) -> RuntimeMetrics {
        let mut metrics = self.0.counters.read();
        metrics.waiting_count = self.0.waiters.len() as u64;
        metrics.input_queue_count = self.0.queue.len() as u64;
        metrics.apply_queue_count = self.0.applies.len() as u64;
        metrics
    }

    /// Asks the node to leave cleanly and waits until it has.
    pub async fn shutdown(&self) {
        self.0.queue.push(Inbound::Node(NodeInput::Shutdown));
        self.stopped().await;
    }

    /// Begins to stop the node at once, as if its process had been killed.
    pub fn kill(&self) {
        self.0.queue.push(Inbound::Abort);
    }

    /// Stops the node at once, as if its process had been killed, and waits until everything that belongs to
    /// it has ended: its folder and its port are free then.
    pub async fn abort(&self) {
        self.kill();
        self.stopped().await;
    }

    /// Waits until the node has stopped, and says why.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.0.published.stopped();
        match stopped.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().expect("that is what was waited for"),
            // The sender is part of what this handle holds.
            Err(_) => StopReason::Asked,
        }
    }
}

fn stopped() -> RequestError {
    RequestError::Stopped("the node has stopped".to_owned())
}

fn vec_of<T>(count: usize, each: impl FnMut() -> T) -> Vec<T> {
    std::iter::repeat_with(each).take(count).collect()
}
