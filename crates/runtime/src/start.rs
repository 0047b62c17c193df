//! Puts a node together with real devices.

use crate::clock::Clock;
use crate::disk::{Disk, DoneSink};
use crate::driver::Driver;
use crate::files::Files;
use crate::folder::DataFolder;
use crate::handle::{Inner, NodeHandle};
use crate::inbound::{Inbound, Replier};
use crate::machine::{MachineThreads, Reports};
use crate::metrics::Counters;
use crate::net::Net;
use crate::published::Published;
use crate::queue::Queue;
use crate::spin::Spin;
use crate::streams::Streams;
use crate::waiters::Waiters;
use quorate_consensus::{Limits, Timing};
use quorate_node::{Join, Node, NodeInput, NodeOptions, OpenError};
use quorate_types::{GroupId, ProtocolName, StateMachine};
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// Where a node listens for its peers.
#[derive(Debug)]
pub enum PeerListener {
    /// At an address that is still to be bound.
    Address(SocketAddr),
    /// On a socket that was bound before, as tests and `quorate dev` do to find a free port.
    Bound(TcpListener),
}

/// How long a thread waits awake unless told otherwise: about as long as a sync of a good disk, and a few times as long as a
/// hand-over from thread to thread.
pub const SPIN: Duration = Duration::from_micros(200);

/// Everything that a node is started with.
#[derive(Debug)]
pub struct RuntimeOptions {
    /// Its name (`n1`).
    pub name: String,
    /// The members to form a cluster of, by name, with their peer addresses; its own name among them. Read only
    /// while no cluster is formed.
    pub cluster: Vec<(String, String)>,
    /// How to join a cluster that is formed already; `None` to form one.
    pub join: Option<Join>,
    /// Which protocol its groups run.
    pub protocol: ProtocolName,
    /// How long things take.
    pub timing: Timing,
    /// Bounds of each replica.
    pub limits: Limits,
    /// Bounds of the log.
    pub log: quorate_log::LogOptions,
    /// How long a request without a deadline may take.
    pub request_timeout: Duration,
    /// How long a thread that has nothing to do waits awake before it sleeps; zero for never.
    pub spin: Duration,
    /// Its data folder, locked before the state machine inside it was opened.
    pub folder: DataFolder,
    /// Where it listens for its peers.
    pub listener: PeerListener,
}

impl RuntimeOptions {
    /// The defaults for a member called `name` of `cluster`.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        cluster: Vec<(String, String)>,
        folder: DataFolder,
        listener: PeerListener,
    ) -> RuntimeOptions {
        let timing = Timing::default();
        RuntimeOptions {
            name: name.into(),
            cluster,
            join: None,
            protocol: ProtocolName::Raft,
            timing,
            limits: Limits::default(),
            log: quorate_log::LogOptions::default(),
            request_timeout: Duration::from_secs(5) + 2 * timing.election_timeout_max,
            spin: SPIN,
            folder,
            listener,
        }
    }
}

/// Why a node was not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It cannot listen for its peers.
    #[error("cannot listen for peers at {address}: {source}")]
    Listen {
        /// Where.
        address: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in its data folder does not allow it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The system gives no threads or no randomness.
    #[error("the system refuses what a node needs: {0}")]
    System(std::io::Error),
}

/// Starts a node whose system group is applied by `machine`. Must be called inside a tokio runtime with I/O
/// and time, which carries the streams.
///
/// # Errors
/// See [`StartError`]; nothing runs then.
pub fn start<M: StateMachine + 'static>(
    options: RuntimeOptions,
    machine: M,
) -> Result<NodeHandle<M::Reply>, StartError> {
    let runtime = Handle::current();
    let listener = listen(options.listener)?;
    let clock = Clock::start();
    let node_options = NodeOptions {
        name: options.name.clone(),
        cluster: options.cluster,
        join: options.join,
        protocol: options.protocol,
        timing: options.timing,
        limits: options.limits,
        log: options.log,
        entropy: entropy().map_err(StartError::System)?,
        request_timeout: options.request_timeout,
    };
    let machines = BTreeMap::from([(GroupId(0), machine.state())]);
    let node = Node::open(clock.now(), node_options, &options.folder.reader(), machines)?;

    let spin = Spin::new(options.spin);
    let counters = Arc::new(Counters::default());
    let (streams, waker) = Streams::new(Arc::clone(&counters)).map_err(StartError::System)?;
    let queue = Arc::new(Queue::with(waker));
    let waiters = Arc::new(Waiters::new());
    let replier = Replier(runtime.clone());
    let published = Arc::new(Published::new(node.status(clock.now())));

    let files = Files::new(options.folder.path(), Arc::clone(&counters));
    let sink = Arc::clone(&queue);
    let sink: DoneSink = Arc::new(move |done| {
        sink.push(Inbound::Node(NodeInput::Disk(done)));
    });
    let disk = Disk::start(&options.name, files, &sink, &spin).map_err(StartError::System)?;
    let reports = Reports {
        group: GroupId(0),
        queue: Arc::clone(&queue),
        waiters: Arc::clone(&waiters),
        replier: replier.clone(),
        counters: Arc::clone(&counters),
    };
    let threads = MachineThreads::start(&options.name, machine, reports, spin.clone())
        .map_err(StartError::System)?;
    let handle = NodeHandle::new(Inner {
        clock,
        queue: Arc::clone(&queue),
        waiters: Arc::clone(&waiters),
        published: Arc::clone(&published),
        counters: Arc::clone(&counters),
        applies: Arc::clone(&threads.requests),
    });
    let net = Net::start(runtime, listener, Arc::clone(&queue), Arc::clone(&counters));
    let driver = Driver {
        name: options.name.clone(),
        node,
        clock,
        queue,
        disk,
        machines: BTreeMap::from([(GroupId(0), threads)]),
        net,
        streams,
        spin,
        waiters,
        replier,
        published,
        counters,
        folder: options.folder,
    };
    std::thread::Builder::new()
        .name(format!("{}-node", options.name))
        .spawn(move || driver.run())
        .map_err(StartError::System)?;
    Ok(handle)
}

fn listen(listener: PeerListener) -> Result<tokio::net::TcpListener, StartError> {
    let failed = |address: String| move |source| StartError::Listen { address, source };
    let listener = match listener {
        PeerListener::Address(address) => {
            TcpListener::bind(address).map_err(failed(address.to_string()))?
        }
        PeerListener::Bound(listener) => listener,
    };
    let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |found| found.to_string());
    listener.set_nonblocking(true).map_err(failed(address.clone()))?;
    tokio::net::TcpListener::from_std(listener).map_err(failed(address))
}

/// Eight bytes of the operating system's randomness.
fn entropy() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    let mut filled = 0;
    while filled < bytes.len() {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(u64::from_le_bytes(bytes))
}
