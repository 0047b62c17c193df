//! What reaches the node's thread, and how answers leave for clients.

use crate::queue::Queue;
use crate::waiters::Delivery;
use quorate_node::{NodeInput, NodeStatus, StreamDirection, StreamId, StreamPurpose};
use std::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Below this many, answers are given by the thread that has them.
const DELIVERIES_DIRECT_MAX: usize = 2;

/// The queue of the node's thread, which sleeps among its streams.
pub(crate) type Inbox = Queue<Inbound, mio::Waker>;

/// What the node's thread is told.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// For the node itself.
    Node(NodeInput),
    /// A connection was made; from here on this thread carries it.
    Opened {
        stream: StreamId,
        direction: StreamDirection,
        purpose: StreamPurpose,
        socket: TcpStream,
        /// Dropped when the stream has ended.
        ended: oneshot::Sender<()>,
    },
    /// A stream is not wanted any more.
    HangUp(StreamId),
    /// Somebody wants the status as of now.
    Status(oneshot::Sender<NodeStatus>),
    /// Stop at once, as if the process had been killed.
    Abort,
}

/// Gives answers to clients' tasks.
#[derive(Clone, Debug)]
pub(crate) struct Replier(pub(crate) Handle);

impl Replier {
    /// Several answers are given inside the async runtime: there a task that becomes ready is queued at the
    /// worker at hand, while each one woken from outside would go through the shared queue and, as a rule, a
    /// system call.
    pub(crate) fn deliver<R: Send + 'static>(&self, deliveries: Vec<Delivery<R>>) {
        if deliveries.len() <= DELIVERIES_DIRECT_MAX {
            deliveries.into_iter().for_each(Delivery::send);
        } else {
            self.0.spawn(async move { deliveries.into_iter().for_each(Delivery::send) });
        }
    }
}
