//! What a node is told and what it asks for.

use bytes::Bytes;
use quorate_consensus::{Control, Event, Limits, RefuseReason, Timing};
use quorate_types::{
    Applied, ApplyFault, Committed, DiskDone, DiskRequest, EntryKind, Fate, Frame, GroupId, Index,
    InstallFault, Instant, Origin, ProtocolName, SnapshotName, settled_by,
};
use std::time::Duration;

/// Who a node is to be, and how it behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeOptions {
    /// Its name (`n1`).
    pub name: String,
    /// The members to form a cluster of, by name, with their peer addresses; its own name among them. Read only
    /// while no cluster is formed: afterwards the logged membership wins.
    pub cluster: Vec<(String, String)>,
    /// How to join a cluster that is formed already; `None` to form one. Read only while the folder is empty.
    pub join: Option<Join>,
    /// Which protocol its groups run.
    pub protocol: ProtocolName,
    /// How long things take.
    pub timing: Timing,
    /// Bounds of each replica.
    pub limits: Limits,
    /// Bounds of the log.
    pub log: quorate_log::LogOptions,
    /// A random value from the operating system, fresh at each start: incarnation, cluster id and seeds come from it.
    pub entropy: u64,
    /// How long a request without a deadline may take: etcd's 5 s and two election timeouts.
    pub request_timeout: Duration,
}

/// How a node with an empty folder joins a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// Peer addresses of members: any of them will do.
    pub contacts: Vec<String>,
    /// Where the members reach this node.
    pub address: String,
}

/// Names one request of a client of this node; chosen by whoever drives the node, unique within a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// What a client of this node wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Agree on this and apply it.
    Propose {
        /// In which group.
        group: GroupId,
        /// What the body means.
        kind: EntryKind,
        /// What it says.
        body: Bytes,
        /// When the client stops waiting; `None` for the default.
        deadline: Option<Instant>,
    },
    /// Wait until a local read is linearizable.
    Read {
        /// In which group.
        group: GroupId,
        /// When the client stops waiting; `None` for the default.
        deadline: Option<Instant>,
    },
    /// Put an end to the uncertainty about a proposal: apply it never, if it was not applied before.
    Settle {
        /// In which group.
        group: GroupId,
        /// Which, as [`Answer::Unknown`] named it.
        origin: Origin,
        /// When the client stops waiting; `None` for the default.
        deadline: Option<Instant>,
    },
    /// Do this to the group's replica; answered when it was taken in.
    Control {
        /// To which group.
        group: GroupId,
        /// What.
        control: Control,
    },
}

/// How a request ended, where the state machine's reply does not say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The local state machine holds everything acknowledged before the request, as of this index.
    ReadReady {
        /// The index that the read may rest on; it is applied.
        index: Index,
    },
    /// What became of a proposal: never [`Fate::Open`].
    Settled(Fate),
    /// A control request was taken in.
    Taken,
    /// A control request was considered and is not carried out, for this reason.
    Declined(String),
    /// It was not done and will not be.
    Refused {
        /// Why.
        reason: RefuseReason,
        /// The members that could not be reached, by name, where that is why.
        missing: Vec<String>,
    },
    /// The deadline passed; a proposal may or may not be applied, now or later.
    Unknown {
        /// The name of the proposal, by which [`Request::Settle`] finds out; `None` where nothing was proposed.
        origin: Option<Origin>,
        /// The members that could not be reached, by name.
        missing: Vec<String>,
    },
}

/// Names one stream of frames to or from a peer; chosen by whoever drives the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// Who opened a stream. Beside the answer to the hello, frames flow from the one who opened it to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamDirection {
    /// This node, to this peer address.
    Outgoing {
        /// As given in [`NodeEffect::Dial`].
        address: String,
    },
    /// A peer; who, its hello says.
    Incoming,
}

/// What a stream is for. A pair of nodes has one of each in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamPurpose {
    /// Messages of all groups: small, urgent.
    Messages,
    /// Snapshots and catch-up: large, patient.
    Bulk,
}

/// One committed entry and the local request that waits for its reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedFor {
    /// The entry; `wanted` is set exactly when `request` is.
    pub committed: Committed,
    /// Who waits. Whoever drives the node delivers the state machine's reply to that request itself (and, where the
    /// state machine gives none because the origin was seen before, leaves it to the node's [`Answer`]).
    pub request: Option<RequestId>,
}

impl CommittedFor {
    /// The request that this entry settles a proposal's fate for. Once it is applied, `fate` of the state machine is what
    /// goes into [`MachineDone::Applied`].
    #[must_use]
    pub fn settles(&self) -> Option<(RequestId, Origin)> {
        let entry = &self.committed.entry;
        let request = self.request.filter(|_| entry.kind() == EntryKind::Settle)?;
        settled_by(entry).ok().map(|origin| (request, origin))
    }
}

/// Something for a group's state machine to do, beside the consensus loop. Requests are carried out in order, except
/// `Sync`, which may run beside later ones.
#[derive(Debug)]
pub enum MachineRequest {
    /// Apply these.
    Apply(Vec<CommittedFor>),
    /// Make what was applied before this request durable.
    Sync,
    /// Capture a view; answered by `Captured`. One at a time.
    Capture,
    /// The next chunk of the captured view; answered by `Chunk`.
    NextChunk,
    /// Drop the captured view; not answered.
    DropCapture,
    /// Begin to stage a received snapshot; answered by `Staged` only on failure.
    StageBegin(SnapshotName),
    /// Stage a chunk; answered by `ChunkStaged`.
    StageChunk(Bytes),
    /// Verify and sync what is staged; answered by `Staged`.
    StageFinish,
    /// Make the staged snapshot the live state; answered by `Installed`.
    Install,
}

/// The completion of a [`MachineRequest`].
#[derive(Debug)]
pub enum MachineDone {
    /// Applied up to here.
    Applied {
        /// How far the state machine has come.
        applied: Applied,
        /// The requests whose reply was delivered to the client.
        answered: Vec<RequestId>,
        /// What the requests to settle a proposal's fate came to: [`CommittedFor::settles`].
        settled: Vec<(RequestId, Fate)>,
    },
    /// What was applied up to here is durable in the engine.
    Synced(Applied),
    /// A view was captured.
    Captured(Result<Applied, ApplyFault>),
    /// The next chunk of it; `None` at the end.
    Chunk(Result<Option<Bytes>, ApplyFault>),
    /// One chunk was staged.
    ChunkStaged(Result<(), InstallFault>),
    /// The staged snapshot is complete, verified and synced, or is dropped.
    Staged(Result<(), InstallFault>),
    /// The staged snapshot is the live state, or the live state is as before.
    Installed(Result<Applied, InstallFault>),
    /// An apply or sync failed: the node must stop.
    Failed(ApplyFault),
}

/// Everything that a node can be told.
#[derive(Debug)]
pub enum NodeInput {
    /// Time has come to the last deadline named, or past it.
    Tick,
    /// A client of this node wants something.
    Request {
        /// Named again by the answer.
        id: RequestId,
        /// What it wants.
        request: Request,
    },
    /// A stream was opened. Outgoing: this node now says hello. Incoming: the peer will.
    StreamOpened {
        /// Which.
        stream: StreamId,
        /// By whom.
        direction: StreamDirection,
        /// What for.
        purpose: StreamPurpose,
    },
    /// A stream was closed, by either side or by the network; or could not be opened, if it never was.
    StreamClosed {
        /// Which.
        stream: StreamId,
        /// Why, for logs.
        reason: String,
    },
    /// A peer says this.
    Frame {
        /// On which stream.
        stream: StreamId,
        /// What.
        frame: Frame,
    },
    /// A disk request is done.
    Disk(DiskDone),
    /// A state machine request is done.
    Machine {
        /// Of which group.
        group: GroupId,
        /// What.
        done: MachineDone,
    },
    /// Leave cleanly: hand leadership over, answer what waits, then [`NodeEffect::Stop`].
    Shutdown,
}

/// Why a node stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// It was asked to.
    Asked,
    /// The log failed: a write or sync did.
    Log(String),
    /// The state machine failed.
    Machine(ApplyFault),
    /// It may not take part; the text says what to do.
    Refused(String),
}

/// Everything that a node can ask for.
#[derive(Debug)]
pub enum NodeEffect {
    /// Do this on the data folder's disk.
    Disk(DiskRequest),
    /// Keep outgoing streams of both purposes open to exactly these peer addresses, dialling again with back-off when
    /// one closes. Replaces the list given before.
    Dial(Vec<String>),
    /// Say this on a stream. It may be dropped when the stream's queue is full or closed.
    Send {
        /// On which stream.
        stream: StreamId,
        /// What.
        frame: Frame,
    },
    /// Close a stream after what was sent on it.
    Close {
        /// Which.
        stream: StreamId,
        /// Why, for logs.
        reason: String,
    },
    /// A group's state machine has something to do.
    Machine {
        /// Of which group.
        group: GroupId,
        /// What.
        request: MachineRequest,
    },
    /// A request has ended otherwise than by a reply of the state machine.
    Answer {
        /// Which.
        id: RequestId,
        /// How.
        answer: Answer,
    },
    /// Something worth knowing happened in a group.
    Event {
        /// In which group.
        group: GroupId,
        /// What.
        event: Event,
    },
    /// Something worth a line in the log, in plain words: formation's progress, repairs.
    Note(String),
    /// As a note, of something that an operator should know of even where it mends itself: damage.
    Warning(String),
    /// As a note, but caused by what came from outside: refused peers, and bytes that are no message. Whoever writes these
    /// down bounds how many.
    Outside(String),
    /// This node stops; nothing more comes.
    Stop(StopReason),
}
