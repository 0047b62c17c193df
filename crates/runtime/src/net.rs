//! Streams of frames between nodes.
//!
//! ```text
//!   dialler                                      listener
//!   'Q' 'r' 0 purpose │ hello │ frame │ frame ...  ──▶
//!                       ◀──  hello or refusal
//! ```
//! A pair of nodes has two connections in each direction, one a purpose, so that heartbeats never queue
//! behind snapshots. Here connections are made, on the async runtime; once both sides know what one is for, the
//! node's thread carries it (see [`crate::streams`]).

use crate::inbound::{Inbound, Inbox};
use crate::metrics::Counters;
use crate::outside::warn_outside;
use quorate_node::{StreamDirection, StreamId, StreamPurpose};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

/// What opens a connection, before the byte for its purpose.
const PREAMBLE: [u8; 3] = *b"Qr\0";

/// How long a peer may take to say what its connection is for.
const PREAMBLE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The first wait before dialling again.
const BACKOFF_MIN: Duration = Duration::from_millis(50);

/// The longest wait before dialling again: a peer that returns is found within about a second.
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// A stream that lived this long was no failed attempt.
const SETTLED: Duration = Duration::from_secs(5);

/// Connections that may be open from peers at one time: four times what 64 members need.
const INCOMING_MAX: usize = 512;

/// The wait after the system refused to accept, for want of file handles as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The streams of a node. Dropping it closes them all.
#[derive(Debug)]
pub(crate) struct Net {
    context: Context,
    runtime: Handle,
    /// Who is dialled; dropping a sender ends its diallers.
    dialled: BTreeMap<String, watch::Sender<()>>,
    /// Ends the listener.
    listening: Option<watch::Sender<()>>,
}

/// What every task of the streams needs.
#[derive(Clone, Debug)]
struct Context {
    queue: Arc<Inbox>,
    counters: Arc<Counters>,
    alive: Arc<Alive>,
    next_stream: Arc<AtomicU64>,
}

impl Context {
    /// Hands a connection to the node's thread, and waits until it has ended or is to end.
    async fn carry(
        &self,
        socket: TcpStream,
        direction: StreamDirection,
        purpose: StreamPurpose,
        mut stop: watch::Receiver<()>,
    ) {
        let socket = match socket.into_std() {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!(%error, "cannot hand a connection over"),
        };
        let stream = StreamId(self.next_stream.fetch_add(1, Ordering::Relaxed));
        let (ended, end) = oneshot::channel();
        self.queue.push(Inbound::Opened { stream, direction, purpose, socket, ended });
        tokio::select! {
            // Nothing is ever sent: the other end is dropped with the stream.
            _ = end => {}
            _ = stop.changed() => {
                self.queue.push(Inbound::HangUp(stream));
            }
        }
    }
}

impl Net {
    /// Begins to accept streams.
    pub(crate) fn start(
        runtime: Handle,
        listener: TcpListener,
        queue: Arc<Inbox>,
        counters: Arc<Counters>,
    ) -> Net {
        let context = Context {
            queue,
            counters,
            alive: Arc::default(),
            next_stream: Arc::new(AtomicU64::new(1)),
        };
        let (listening, stop) = watch::channel(());
        let alive = Alive::enter(&context.alive);
        let accepting = accept(listener, context.clone(), stop);
        runtime.spawn(async move {
            accepting.await;
            drop(alive);
        });
        Net { context, runtime, dialled: BTreeMap::new(), listening: Some(listening) }
    }

    /// Keeps streams of both purposes open to exactly these addresses.
    pub(crate) fn dial(&mut self, addresses: Vec<String>) {
        self.dialled.retain(|address, _| addresses.contains(address));
        for address in addresses {
            if self.dialled.contains_key(&address) {
                continue;
            }
            let (running, stop) = watch::channel(());
            for purpose in [StreamPurpose::Messages, StreamPurpose::Bulk] {
                let alive = Alive::enter(&self.context.alive);
                let dialling =
                    keep_open(address.clone(), purpose, self.context.clone(), stop.clone());
                self.runtime.spawn(async move {
                    dialling.await;
                    drop(alive);
                });
            }
            self.dialled.insert(address, running);
        }
    }

    /// Stops accepting and dialling, and waits until every task has ended, but no longer than `limit`.
    pub(crate) fn stop(mut self, limit: Duration) {
        self.listening = None;
        self.dialled.clear();
        self.context.alive.wait_for_none(limit);
    }
}

/// Accepts until the other end of `stop` is dropped.
async fn accept(listener: TcpListener, context: Context, mut stop: watch::Receiver<()>) {
    let places = Arc::new(Semaphore::new(INCOMING_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let (socket, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn_outside(format_args!("cannot accept a peer: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn_outside(format_args!("refused {address}: {INCOMING_MAX} connections are open"));
            continue;
        };
        let (context, stop) = (context.clone(), stop.clone());
        let alive = Alive::enter(&context.alive);
        tokio::spawn(async move {
            incoming(socket, context, stop).await;
            drop(place);
            drop(alive);
        });
    }
}

async fn incoming(mut socket: TcpStream, context: Context, mut stop: watch::Receiver<()>) {
    let peer = socket.peer_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
    tune(&socket);
    let purpose = tokio::select! {
        purpose = read_preamble(&mut socket) => purpose,
        _ = stop.changed() => return,
    };
    match purpose {
        Ok(Some(purpose)) => context.carry(socket, StreamDirection::Incoming, purpose, stop).await,
        Ok(None) => tracing::debug!(peer, "a connection ended before it said what it is for"),
        Err(reason) => {
            context.counters.malformed_count.add(1);
            warn_outside(format_args!("refused a connection of {peer} on the peer port: {reason}"));
        }
    }
}

/// Dials again and again until the other end of `stop` is dropped.
async fn keep_open(
    address: String,
    purpose: StreamPurpose,
    context: Context,
    mut stop: watch::Receiver<()>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let begin = Instant::now();
        let connected = tokio::select! {
            connected = timeout(CONNECT_TIMEOUT, connect(&address, purpose)) => connected,
            _ = stop.changed() => return,
        };
        match connected {
            Ok(Ok(socket)) => {
                let direction = StreamDirection::Outgoing { address: address.clone() };
                context.carry(socket, direction, purpose, stop.clone()).await;
            }
            Ok(Err(error)) => tracing::debug!(address, %error, "cannot reach a peer"),
            Err(_) => tracing::debug!(address, "a peer does not answer"),
        }
        if begin.elapsed() > SETTLED {
            backoff = BACKOFF_MIN;
        }
        tokio::select! {
            () = sleep(jittered(backoff)) => {}
            _ = stop.changed() => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn connect(address: &str, purpose: StreamPurpose) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(address).await?;
    tune(&socket);
    write_preamble(&mut socket, purpose).await?;
    Ok(socket)
}

/// Says what a connection is for; first on it.
async fn write_preamble(socket: &mut TcpStream, purpose: StreamPurpose) -> std::io::Result<()> {
    let purpose = match purpose {
        StreamPurpose::Messages => 1,
        StreamPurpose::Bulk => 2,
    };
    socket.write_all(&[PREAMBLE[0], PREAMBLE[1], PREAMBLE[2], purpose]).await
}

/// Reads what a connection is for; `None` when it ends before it says so, as that of a peer that ends does, or of somebody
/// who looks whether the port is open.
async fn read_preamble(socket: &mut TcpStream) -> Result<Option<StreamPurpose>, String> {
    let mut preamble = [0; 4];
    match timeout(PREAMBLE_TIMEOUT, socket.read_exact(&mut preamble)).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) => return Ok(None),
        Err(_) => return Err("nothing was said".to_owned()),
    }
    if preamble[..3] != PREAMBLE {
        return Err(format!("not Quorate's peer protocol: first bytes {preamble:02x?}"));
    }
    match preamble[3] {
        1 => Ok(Some(StreamPurpose::Messages)),
        2 => Ok(Some(StreamPurpose::Bulk)),
        other => Err(format!("a stream for the unknown purpose {other}")),
    }
}

/// Small frames leave at once; a peer whose machine is gone is noticed even when nothing is said.
fn tune(socket: &TcpStream) {
    let options = socket2::SockRef::from(socket);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(5))
        .with_interval(Duration::from_secs(2))
        .with_retries(3);
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| options.set_tcp_keepalive(&keepalive))
        .and_then(|()| options.set_tcp_user_timeout(Some(Duration::from_secs(10))));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune a connection");
    }
}

/// Between half and all of a wait, so that nodes do not dial each other in step.
fn jittered(wait: Duration) -> Duration {
    // A new state hashes differently each time; no more randomness is needed here.
    let random = RandomState::new().hash_one(0u8) % 1024;
    wait / 2 + (wait / 2).mul_f64(random as f64 / 1024.0)
}

/// Counts the tasks that run.
#[derive(Debug, Default)]
struct Alive {
    count: Mutex<usize>,
    none: Condvar,
}

/// One task that runs.
#[derive(Debug)]
struct AliveGuard(Arc<Alive>);

impl Alive {
    fn enter(alive: &Arc<Alive>) -> AliveGuard {
        *alive.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        AliveGuard(Arc::clone(alive))
    }

    fn wait_for_none(&self, limit: Duration) {
        let count = self.count.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.none.wait_timeout_while(count, limit, |count| *count > 0);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for AliveGuard {
    fn drop(&mut self) {
        *self.0.count.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.none.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::{Drained, Queue, Then};
    use crate::streams::Streams;
    use bytes::{BufMut, Bytes, BytesMut};
    use quorate_node::NodeInput;
    use quorate_types::{Frame, FrameKind, GroupId};
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::net::SocketAddr;

    /// Streams of one node, and what its thread would be told.
    struct Bench {
        net: Net,
        address: SocketAddr,
        queue: Arc<Inbox>,
        streams: Streams,
        told: VecDeque<Told>,
        counters: Arc<Counters>,
    }

    /// What a node's thread learns.
    #[derive(Debug)]
    enum Told {
        Opened(StreamId, StreamPurpose),
        Node(NodeInput),
    }

    impl Bench {
        fn new(runtime: &tokio::runtime::Runtime) -> Bench {
            let _entered = runtime.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
            let address = listener.local_addr().expect("bound");
            listener.set_nonblocking(true).expect("set");
            let listener = TcpListener::from_std(listener).expect("a socket");
            let counters = Arc::new(Counters::default());
            let (streams, waker) = Streams::new(Arc::clone(&counters)).expect("a poll");
            let queue = Arc::new(Queue::with(waker));
            let handle = runtime.handle().clone();
            let net = Net::start(handle, listener, Arc::clone(&queue), Arc::clone(&counters));
            Bench { net, address, queue, streams, told: VecDeque::new(), counters }
        }

        /// One round of the node's thread, without a node.
        fn round(&mut self, limit: Duration) {
            let mut inbound = Vec::new();
            if self.queue.take(&mut inbound, Then::Sleep) == Drained::Nothing {
                let limit = if self.streams.is_ready() { Duration::ZERO } else { limit };
                self.streams.wait(Some(limit)).expect("a poll");
                self.queue.take(&mut inbound, Then::GoOn);
            }
            let now = quorate_types::Instant::ZERO;
            for one in inbound {
                match one {
                    Inbound::Opened { stream, purpose, socket, ended, .. } => {
                        self.streams.open(stream, socket, ended, now);
                        self.told.push_back(Told::Opened(stream, purpose));
                    }
                    Inbound::HangUp(stream) => self.streams.hang_up(stream),
                    other @ (Inbound::Node(_) | Inbound::Status(_) | Inbound::Abort) => {
                        panic!("streams do not say {other:?}")
                    }
                }
            }
            self.streams.read(now, |input| self.told.push_back(Told::Node(input)));
            self.streams.flush();
        }

        fn next(&mut self) -> Told {
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            loop {
                if let Some(told) = self.told.pop_front() {
                    return told;
                }
                assert!(std::time::Instant::now() < deadline, "nothing came");
                self.round(Duration::from_millis(100));
            }
        }

        fn opened(&mut self) -> (StreamId, StreamPurpose) {
            let next = self.next();
            let Told::Opened(stream, purpose) = next else {
                panic!("a stream should have opened: {next:?}")
            };
            (stream, purpose)
        }

        fn closed(&mut self) -> String {
            let next = self.next();
            let Told::Node(NodeInput::StreamClosed { reason, .. }) = next else {
                panic!("a stream should have closed: {next:?}")
            };
            reason
        }

        fn frame(&mut self) -> Frame {
            let next = self.next();
            let Told::Node(NodeInput::Frame { frame, .. }) = next else {
                panic!("a frame should have come: {next:?}")
            };
            frame
        }
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Runtime::new().expect("a runtime")
    }

    fn frame(kind: FrameKind, payload: Vec<u8>) -> Frame {
        Frame { kind, group: GroupId(0), payload: Bytes::from(payload) }
    }

    fn wait_until(what: &str, mut true_now: impl FnMut() -> bool) {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !true_now() {
            assert!(std::time::Instant::now() < deadline, "{what} did not come");
            std::thread::yield_now();
        }
    }

    #[test]
    fn frames_arrive_whole_in_order_on_streams_of_both_purposes() {
        let runtime = runtime();
        let (mut one, mut other) = (Bench::new(&runtime), Bench::new(&runtime));
        one.net.dial(vec![other.address.to_string()]);
        let (stream, _) = [one.opened(), one.opened()]
            .into_iter()
            .find(|(_, purpose)| *purpose == StreamPurpose::Messages)
            .expect("one of each");
        let mut purposes = [other.opened().1, other.opened().1];
        purposes.sort_unstable();
        assert_eq!(purposes, [StreamPurpose::Messages, StreamPurpose::Bulk]);
        let sizes = [10, 0, 300_000, 5, 5_000_000, 77];
        for (number, size) in sizes.into_iter().enumerate() {
            one.streams.push(stream, frame(FrameKind::Consensus, vec![number as u8; size]));
        }
        one.streams.flush();
        for (number, size) in sizes.into_iter().enumerate() {
            while other.told.is_empty() {
                one.round(Duration::ZERO);
                other.round(Duration::from_millis(1));
            }
            assert_eq!(other.frame().payload, vec![number as u8; size]);
        }
        assert_eq!(other.counters.read().received_count, sizes.len() as u64);
        assert_eq!(one.counters.read().send_queue_size, 0);

        let calls = one.counters.read().send_call_count;
        (0..100).for_each(|_| one.streams.push(stream, frame(FrameKind::Consensus, vec![1; 100])));
        one.streams.flush();
        (0..100).for_each(|_| assert_eq!(other.frame().payload.len(), 100));
        assert!(one.counters.read().send_call_count < calls + 10, "small frames share a write");
    }

    #[test]
    fn a_stream_that_is_closed_says_what_waits_first() {
        let runtime = runtime();
        let (mut one, mut other) = (Bench::new(&runtime), Bench::new(&runtime));
        one.net.dial(vec![other.address.to_string()]);
        let (stream, _) = one.opened();
        one.opened();
        other.opened();
        other.opened();
        one.streams.push(stream, frame(FrameKind::Hello, vec![1; 10]));
        one.streams.close(stream, quorate_types::Instant::ZERO, "enough".to_owned());
        one.streams.push(stream, frame(FrameKind::Hello, vec![2; 10]));
        assert_eq!(one.closed(), "enough");
        let mut told = Vec::new();
        while told.len() < 2 {
            match other.next() {
                // It is dialled again meanwhile.
                Told::Opened(..) => {}
                Told::Node(input) => told.push(input),
            }
        }
        let [NodeInput::Frame { frame, .. }, NodeInput::StreamClosed { reason, .. }] = &told[..]
        else {
            panic!("{told:?}")
        };
        assert_eq!(frame.payload, vec![1; 10]);
        assert_eq!(reason, "the peer closed the stream");
    }

    #[test]
    fn a_closed_stream_is_noticed_and_dialled_again() {
        let runtime = runtime();
        let peer = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut bench = Bench::new(&runtime);
        bench.net.dial(vec![peer.local_addr().expect("bound").to_string()]);
        let first = [peer.accept().expect("dialled"), peer.accept().expect("dialled")];
        let (first_stream, _) = bench.opened();
        bench.opened();
        drop(first);
        assert_ne!(bench.closed(), "");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        drop([peer.accept().expect("dialled again"), peer.accept().expect("dialled again")]);
        assert!(std::time::Instant::now() < deadline);
        let again = loop {
            if let Told::Opened(stream, _) = bench.next() {
                break stream;
            }
        };
        assert!(again > first_stream, "a new stream has a new name");
        let begin = std::time::Instant::now();
        bench.net.stop(Duration::from_secs(10));
        assert!(begin.elapsed() < Duration::from_secs(9), "every task ends when asked");
    }

    #[test]
    fn garbage_is_refused_before_the_node_hears_of_it() {
        let runtime = runtime();
        let bench = Bench::new(&runtime);
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"Qr\0\x09", &[0xff; 4096]] {
            let refused = bench.counters.read().malformed_count;
            let mut socket = std::net::TcpStream::connect(bench.address).expect("accepted");
            socket.write_all(garbage).expect("written");
            wait_until("a refusal", || bench.counters.read().malformed_count > refused);
        }
        assert_eq!(bench.queue.len(), 0);
    }

    #[test]
    fn a_connection_that_ends_before_it_says_anything_is_no_garbage() {
        runtime().block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            for said in [&b""[..], b"Qr", b"Qr\0\x01"] {
                let mut socket = TcpStream::connect(address).await.expect("accepted");
                socket.write_all(said).await.expect("written");
                drop(socket);
                let (mut accepted, _) = listener.accept().await.expect("dialled");
                let expected = (said.len() == 4).then_some(StreamPurpose::Messages);
                assert_eq!(read_preamble(&mut accepted).await, Ok(expected));
            }
        });
    }

    /// What a peer sends after the preamble, and how the stream then ends.
    fn check_hostile(bytes: &[u8], reason: &str) {
        let runtime = runtime();
        let mut bench = Bench::new(&runtime);
        let mut socket = std::net::TcpStream::connect(bench.address).expect("accepted");
        socket.write_all(b"Qr\0\x01").expect("written");
        socket.write_all(bytes).expect("written");
        bench.opened();
        let found = bench.closed();
        assert!(found.contains(reason), "{found}");
        assert_eq!(bench.counters.read().malformed_count, 1);
        // The other side sees the end of it, at once or after what it had not read.
        drop(socket.read(&mut [0; 64]));
    }

    #[test]
    fn hostile_frames_end_their_stream() {
        let hello = frame(FrameKind::Hello, vec![1; 100]);
        let mut four_gibibytes = hello.encoded_header();
        four_gibibytes[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        check_hostile(&four_gibibytes, "does not match its checksum");

        let mut large = BytesMut::new();
        large.put_slice(b"Qr\x01\x01");
        large.put_u32_le(u32::MAX);
        large.put_slice(&[0; 12]);
        let crc = crc32c::crc32c(&large);
        large.put_u32_le(crc);
        check_hostile(&large, "above the limit");

        let long_hello = frame(FrameKind::Hello, vec![1; 1024 * 1024]);
        check_hostile(&long_hello.encoded_header(), "a hello of 1048576 bytes");

        let mut damaged = BytesMut::new();
        hello.encode(&mut damaged);
        damaged[50] ^= 1;
        check_hostile(&damaged, "does not match its checksum");
    }

    #[test]
    fn a_peer_that_does_not_read_costs_bounded_memory_and_never_a_wait() {
        let runtime = runtime();
        let peer = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut bench = Bench::new(&runtime);
        bench.net.dial(vec![peer.local_addr().expect("bound").to_string()]);
        let _unread = [peer.accept().expect("dialled"), peer.accept().expect("dialled")];
        let (stream, _) = bench.opened();
        let begin = std::time::Instant::now();
        let message = frame(FrameKind::Consensus, vec![0; 64 * 1024]);
        for _ in 0..4096 {
            bench.streams.push(stream, message.clone());
            bench.streams.flush();
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "pushing never waits");
        let counters = bench.counters.read();
        assert!(counters.dropped_count > 3000, "{counters:?}");
        assert!(counters.send_queue_size <= 33 * 1024 * 1024, "{counters:?}");
        let begin = std::time::Instant::now();
        bench.streams.finish(Duration::from_millis(100));
        assert!(begin.elapsed() < Duration::from_secs(5), "nor does the end");
        assert_eq!(bench.counters.read().send_queue_size, 0);
    }

    #[test]
    fn a_stream_that_says_nothing_is_closed_and_one_that_spoke_is_kept() {
        let runtime = runtime();
        let mut bench = Bench::new(&runtime);
        let mut sockets = Vec::new();
        for _ in 0..2 {
            let mut socket = std::net::TcpStream::connect(bench.address).expect("accepted");
            socket.write_all(b"Qr\0\x01").expect("written");
            bench.opened();
            sockets.push(socket);
        }
        let mut hello = BytesMut::new();
        frame(FrameKind::Hello, vec![1; 10]).encode(&mut hello);
        sockets[0].write_all(&hello).expect("written");
        bench.frame();
        let due = bench.streams.next_deadline().expect("one is silent");
        let mut closed = Vec::new();
        bench.streams.read(due, |input| closed.push(input));
        let [NodeInput::StreamClosed { reason, .. }] = &closed[..] else { panic!("{closed:?}") };
        assert_eq!(reason, "no hello came in time");
        assert_eq!(bench.streams.next_deadline(), None);
    }

    #[test]
    fn a_node_that_does_not_keep_up_stops_the_reading() {
        let runtime = runtime();
        let mut bench = Bench::new(&runtime);
        let mut socket = std::net::TcpStream::connect(bench.address).expect("accepted");
        socket.write_all(b"Qr\0\x01").expect("written");
        bench.opened();
        let mut hello = BytesMut::new();
        frame(FrameKind::Hello, vec![1; 10]).encode(&mut hello);
        socket.write_all(&hello).expect("written");
        bench.frame();

        const COUNT: usize = 100;
        let writer = std::thread::spawn(move || {
            let mut bytes = BytesMut::new();
            frame(FrameKind::Bulk, vec![7; 1024 * 1024]).encode(&mut bytes);
            (0..COUNT).for_each(|_| socket.write_all(&bytes).expect("written"));
            socket
        });
        for _ in 0..COUNT {
            assert_eq!(bench.frame().payload.len(), 1024 * 1024);
            assert!(bench.told.len() <= 2, "a turn is limited: {}", bench.told.len());
        }
        drop(writer.join().expect("everything was read in the end"));
    }
}
