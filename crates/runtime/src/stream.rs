//! One stream: a socket, the frames that wait to be sent on it, and the task that carries both directions.

use crate::inbound::Inbound;
use crate::metrics::Counters;
use crate::net::Context;
use bytes::{Buf, BytesMut};
use quorate_node::{NodeInput, StreamId, StreamPurpose};
use quorate_types::{FRAME_HEADER_SIZE, FRAME_PAYLOAD_MAX, Frame, FrameHeader};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

/// Bytes that may wait to be sent on one stream: the window of a group's entries twice over, and room for one
/// frame of the largest size. Above it what comes last is dropped; protocols expect loss.
const SEND_QUEUE_SIZE_MAX: usize = 32 * 1024 * 1024;

/// Bytes read from one stream that may wait for the node's thread; above it the stream reads no further.
const RECEIVE_QUEUE_SIZE_MAX: usize = 32 * 1024 * 1024;

/// How long a peer may take from the connection to its first frame, which is its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest payload before the first frame was accepted: far above any hello.
const HELLO_SIZE_MAX: usize = 64 * 1024;

/// Frames are gathered into one write up to about this size.
const WRITE_SIZE_MAX: usize = 256 * 1024;

/// Room for one read: several small frames, or a good part of a large one.
const READ_SIZE: usize = 32 * 1024;

/// A read gets more room when less than this is left.
const READ_SIZE_MIN: usize = 4 * 1024;

/// What opens a connection, before the byte for its purpose.
const PREAMBLE: [u8; 3] = *b"Qr\0";

/// Says what a connection is for; first on it.
pub(crate) async fn write_preamble(
    socket: &mut TcpStream,
    purpose: StreamPurpose,
) -> std::io::Result<()> {
    let purpose = match purpose {
        StreamPurpose::Messages => 1,
        StreamPurpose::Bulk => 2,
    };
    socket.write_all(&[PREAMBLE[0], PREAMBLE[1], PREAMBLE[2], purpose]).await
}

/// Reads what a connection is for.
pub(crate) async fn read_preamble(socket: &mut TcpStream) -> Result<StreamPurpose, String> {
    let mut preamble = [0; 4];
    match timeout_at(Instant::now() + HELLO_TIMEOUT, socket.read_exact(&mut preamble)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("nothing was said".to_owned()),
    }
    if preamble[..3] != PREAMBLE {
        return Err(format!("not Quorate's peer protocol: first bytes {preamble:02x?}"));
    }
    match preamble[3] {
        1 => Ok(StreamPurpose::Messages),
        2 => Ok(StreamPurpose::Bulk),
        other => Err(format!("a stream for the unknown purpose {other}")),
    }
}

/// What the node's thread and the stream's task share.
#[derive(Debug)]
pub(crate) struct StreamSide {
    socket: TcpStream,
    outbox: Mutex<Outbox>,
    /// Wakes the stream's task when what waits could not be written at once.
    blocked: Notify,
    /// Bytes read and not yet handled by the node's thread.
    unhandled: AtomicUsize,
    /// Wakes the stream's task when `unhandled` is low again.
    handled: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// What waits, oldest first.
    frames: VecDeque<Frame>,
    /// Encoded frames, of which the beginning may have been written.
    buffer: BytesMut,
    /// Bytes that wait in `frames` and `buffer`.
    size: usize,
    /// Set when the stream is to end after what waits.
    closing: Option<String>,
}

/// What became of what waited to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    /// Nothing waits.
    All,
    /// The socket takes no more for now.
    Blocked,
}

fn frame_size(frame: &Frame) -> usize {
    FRAME_HEADER_SIZE + frame.payload.len()
}

impl StreamSide {
    pub(crate) fn new(socket: TcpStream, counters: Arc<Counters>) -> StreamSide {
        StreamSide {
            socket,
            outbox: Mutex::default(),
            blocked: Notify::new(),
            unhandled: AtomicUsize::new(0),
            handled: Notify::new(),
            counters,
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame, or drops it when too much waits. Nothing is written yet.
    pub(crate) fn push(&self, frame: Frame) {
        let size = frame_size(&frame);
        let mut outbox = self.outbox();
        if outbox.closing.is_some() || outbox.size + size > SEND_QUEUE_SIZE_MAX {
            drop(outbox);
            self.counters.dropped_count.add(1);
            return;
        }
        outbox.size += size;
        outbox.frames.push_back(frame);
        drop(outbox);
        self.counters.send_queue_size.add(size);
    }

    /// Writes what waits as far as the socket takes it without waiting, on the calling thread: most of the time
    /// that is all of it, and no other thread has to be woken. The stream's task writes the rest.
    pub(crate) fn flush(&self) {
        let mut outbox = self.outbox();
        // After an error the task finds the same and ends the stream.
        if !matches!(self.write(&mut outbox), Ok(Written::All)) {
            self.blocked.notify_one();
        }
    }

    /// Ends the stream after what waits.
    pub(crate) fn close(&self, reason: String) {
        self.outbox().closing.get_or_insert(reason);
        self.blocked.notify_one();
    }

    /// Says that the node's thread has dealt with a frame.
    pub(crate) fn handled(&self, frame: &Frame) {
        let size = frame_size(frame);
        let before = self.unhandled.fetch_sub(size, Ordering::AcqRel);
        if before > RECEIVE_QUEUE_SIZE_MAX && before - size <= RECEIVE_QUEUE_SIZE_MAX {
            self.handled.notify_one();
        }
    }

    /// Writes until nothing waits or the socket takes no more; never waits.
    fn write(&self, outbox: &mut Outbox) -> std::io::Result<Written> {
        loop {
            if outbox.buffer.is_empty() && !self.fill(outbox) {
                return Ok(Written::All);
            }
            match self.socket.try_write(&outbox.buffer) {
                Ok(size) => {
                    outbox.buffer.advance(size);
                    outbox.size -= size;
                    self.counters.send_queue_size.sub(size);
                    self.counters.sent_size.add(size);
                    self.counters.send_call_count.add(1);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Written::Blocked);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Encodes what waits for one write; false when nothing waits.
    fn fill(&self, outbox: &mut Outbox) -> bool {
        if outbox.buffer.capacity() > 4 * WRITE_SIZE_MAX {
            // One large frame is no reason to keep its room for ever.
            outbox.buffer = BytesMut::new();
        }
        let mut count = 0;
        while let Some(frame) = outbox.frames.front() {
            let size = outbox.buffer.len() + frame_size(frame);
            if count > 0 && size > WRITE_SIZE_MAX {
                break;
            }
            frame.encode(&mut outbox.buffer);
            outbox.frames.pop_front();
            count += 1;
        }
        self.counters.sent_count.add(count);
        count > 0
    }
}

impl Drop for StreamSide {
    fn drop(&mut self) {
        let left = self.outbox().size;
        self.counters.send_queue_size.sub(left);
    }
}

/// Carries one stream until it ends.
#[derive(Debug)]
pub(crate) struct StreamTask {
    id: StreamId,
    side: Arc<StreamSide>,
    context: Context,
    stop: watch::Receiver<()>,
}

impl StreamTask {
    pub(crate) fn new(
        id: StreamId,
        side: Arc<StreamSide>,
        context: Context,
        stop: watch::Receiver<()>,
    ) -> StreamTask {
        StreamTask { id, side, context, stop }
    }

    /// Reads and writes until either ends, then tells the node.
    pub(crate) async fn run(mut self) {
        let reason = tokio::select! {
            reason = receive(self.id, &self.side, &self.context) => reason,
            reason = send(&self.side) => reason,
            _ = self.stop.changed() => "this node closes its streams".to_owned(),
        };
        // The node's thread may hold its side a little longer; the peer should know now.
        drop(socket2::SockRef::from(&self.side.socket).shutdown(Shutdown::Both));
        self.context.queue.push(Inbound::Node(NodeInput::StreamClosed { stream: self.id, reason }));
    }
}

/// Writes what the node's thread could not write at once; gives the reason of the end.
async fn send(side: &StreamSide) -> String {
    loop {
        side.blocked.notified().await;
        loop {
            let (written, closing) = {
                let mut outbox = side.outbox();
                (side.write(&mut outbox), outbox.closing.clone())
            };
            match (written, closing) {
                (Ok(Written::All), None) => break,
                (Ok(Written::All), Some(reason)) => return reason,
                (Ok(Written::Blocked), _) => {
                    if let Err(error) = side.socket.writable().await {
                        return error.to_string();
                    }
                }
                (Err(error), _) => return error.to_string(),
            }
        }
    }
}

/// Reads frames and hands them to the node's thread, many a wake-up; gives the reason of the end.
async fn receive(id: StreamId, side: &StreamSide, context: &Context) -> String {
    let mut buffer = BytesMut::with_capacity(READ_SIZE);
    let mut inputs = Vec::new();
    let mut payload_max = HELLO_SIZE_MAX;
    let mut hello_deadline = Some(Instant::now() + HELLO_TIMEOUT);
    loop {
        let read = match hello_deadline {
            None => read(&side.socket, &mut buffer).await,
            Some(deadline) => match timeout_at(deadline, read(&side.socket, &mut buffer)).await {
                Ok(read) => read,
                Err(_) => return "no hello came in time".to_owned(),
            },
        };
        match read {
            Ok(0) => return "the peer closed the stream".to_owned(),
            Ok(_) => {}
            Err(error) => return error.to_string(),
        }
        let before = inputs.len();
        let mut size = 0;
        let result = take_frames(&mut buffer, &mut payload_max, |frame| {
            size += frame_size(&frame);
            inputs.push(Inbound::Node(NodeInput::Frame { stream: id, frame }));
        });
        let count = inputs.len() - before;
        if count > 0 {
            hello_deadline = None;
            context.counters.received_count.add(count);
            context.counters.received_size.add(size);
            side.unhandled.fetch_add(size, Ordering::AcqRel);
            context.queue.push_all(&mut inputs);
        }
        match result {
            Ok(room) => buffer.reserve(room),
            Err(reason) => {
                context.counters.malformed_count.add(1);
                let address = side.socket.peer_addr();
                let peer = address.map_or_else(|_| "?".to_owned(), |address| address.to_string());
                tracing::warn!(peer, "closes a stream that carries no frames of ours: {reason}");
                return reason;
            }
        }
        while side.unhandled.load(Ordering::Acquire) > RECEIVE_QUEUE_SIZE_MAX {
            side.handled.notified().await;
        }
    }
}

/// Reads what is there, waiting until something is.
async fn read(socket: &TcpStream, buffer: &mut BytesMut) -> std::io::Result<usize> {
    loop {
        match socket.try_read_buf(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => socket.readable().await?,
            done => return done,
        }
    }
}

/// Takes every whole frame off the front; gives how much room the next read should have. The first frame of a
/// stream lifts the limit for those behind it.
fn take_frames(
    buffer: &mut BytesMut,
    payload_max: &mut usize,
    mut each: impl FnMut(Frame),
) -> Result<usize, String> {
    loop {
        let Some(header) = buffer.first_chunk::<FRAME_HEADER_SIZE>() else {
            return Ok(room(buffer, READ_SIZE_MIN));
        };
        let header = FrameHeader::decode(header).map_err(|error| error.to_string())?;
        if header.payload_size > *payload_max {
            return Err(format!("a hello of {} bytes", header.payload_size));
        }
        let size = FRAME_HEADER_SIZE + header.payload_size;
        if buffer.len() < size {
            return Ok(room(buffer, size - buffer.len()));
        }
        buffer.advance(FRAME_HEADER_SIZE);
        let payload = buffer.split_to(header.payload_size).freeze();
        *payload_max = FRAME_PAYLOAD_MAX;
        each(header.with_payload(payload).map_err(|error| error.to_string())?);
    }
}

/// Room grows with what has come, not with what a header announces.
fn room(buffer: &BytesMut, needed: usize) -> usize {
    let spare = buffer.capacity() - buffer.len();
    if spare >= needed { 0 } else { needed.max(READ_SIZE).min(buffer.len().max(READ_SIZE)) }
}

/// Counts the tasks that run.
#[derive(Debug, Default)]
pub(crate) struct Alive {
    count: Mutex<usize>,
    none: Condvar,
}

/// One task that runs.
#[derive(Debug)]
pub(crate) struct AliveGuard(Arc<Alive>);

impl Alive {
    pub(crate) fn enter(alive: &Arc<Alive>) -> AliveGuard {
        *alive.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        AliveGuard(Arc::clone(alive))
    }

    pub(crate) fn wait_for_none(&self, limit: Duration) {
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
