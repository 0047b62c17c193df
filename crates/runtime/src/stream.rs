//! One stream: a socket, the frames that wait to be sent on it, and the task that carries both directions.

use crate::inbound::Inbound;
use crate::metrics::Counters;
use crate::net::Context;
use bytes::{Buf, BytesMut};
use quorate_node::{NodeInput, StreamId, StreamPurpose};
use quorate_types::{FRAME_HEADER_SIZE, FRAME_PAYLOAD_MAX, Frame, FrameHeader};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
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

/// What the node's thread holds of a stream.
#[derive(Debug)]
pub(crate) struct StreamSide {
    outbox: Mutex<Outbox>,
    /// Wakes the stream's task when there is something to send.
    filled: Notify,
    /// Bytes read and not yet handled by the node's thread.
    unhandled: AtomicUsize,
    /// Wakes the stream's task when `unhandled` is low again.
    handled: Notify,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Outbox {
    /// What waits, oldest first.
    frames: Vec<Frame>,
    /// Bytes that wait, in `frames` or taken and not yet written.
    size: usize,
    /// Set when the stream is to end after what waits.
    closing: Option<String>,
}

fn frame_size(frame: &Frame) -> usize {
    FRAME_HEADER_SIZE + frame.payload.len()
}

impl StreamSide {
    pub(crate) fn new(counters: Arc<Counters>) -> StreamSide {
        StreamSide {
            outbox: Mutex::default(),
            filled: Notify::new(),
            unhandled: AtomicUsize::new(0),
            handled: Notify::new(),
            counters,
        }
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame, or drops it when too much waits. The stream's task is not woken yet.
    pub(crate) fn push(&self, frame: Frame) {
        let size = frame_size(&frame);
        let mut outbox = self.outbox();
        if outbox.closing.is_some() || outbox.size + size > SEND_QUEUE_SIZE_MAX {
            drop(outbox);
            self.counters.dropped_count.add(1);
            return;
        }
        outbox.size += size;
        outbox.frames.push(frame);
        drop(outbox);
        self.counters.send_queue_size.add(size);
    }

    /// Wakes the stream's task.
    pub(crate) fn flush(&self) {
        self.filled.notify_one();
    }

    /// Ends the stream after what waits.
    pub(crate) fn close(&self, reason: String) {
        self.outbox().closing.get_or_insert(reason);
        self.filled.notify_one();
    }

    /// Says that the node's thread has dealt with a frame.
    pub(crate) fn handled(&self, frame: &Frame) {
        let size = frame_size(frame);
        let before = self.unhandled.fetch_sub(size, Ordering::AcqRel);
        if before > RECEIVE_QUEUE_SIZE_MAX && before - size <= RECEIVE_QUEUE_SIZE_MAX {
            self.handled.notify_one();
        }
    }

    fn sent(&self, size: usize) {
        self.outbox().size -= size;
        self.counters.send_queue_size.sub(size);
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
    socket: TcpStream,
    side: Arc<StreamSide>,
    context: Context,
    stop: watch::Receiver<()>,
}

impl StreamTask {
    pub(crate) fn new(
        id: StreamId,
        socket: TcpStream,
        side: Arc<StreamSide>,
        context: Context,
        stop: watch::Receiver<()>,
    ) -> StreamTask {
        StreamTask { id, socket, side, context, stop }
    }

    /// Reads and writes until either ends, then tells the node.
    pub(crate) async fn run(mut self) {
        let (read, write) = self.socket.split();
        let reason = tokio::select! {
            reason = receive(self.id, read, &self.side, &self.context) => reason,
            reason = send(write, &self.side) => reason,
            _ = self.stop.changed() => "this node closes its streams".to_owned(),
        };
        self.context.queue.push(Inbound::Node(NodeInput::StreamClosed { stream: self.id, reason }));
    }
}

/// Writes what is queued; gives the reason of the end.
async fn send(mut socket: WriteHalf<'_>, side: &StreamSide) -> String {
    let mut frames = Vec::new();
    let mut buffer = BytesMut::new();
    loop {
        side.filled.notified().await;
        loop {
            let closing = {
                let mut outbox = side.outbox();
                std::mem::swap(&mut frames, &mut outbox.frames);
                outbox.closing.clone()
            };
            if frames.is_empty() {
                match closing {
                    Some(reason) => {
                        // The peer reads what was said, then the end.
                        drop(socket.shutdown().await);
                        return reason;
                    }
                    None => break,
                }
            }
            if let Err(error) = write_all(&mut socket, &mut frames, &mut buffer, side).await {
                return error.to_string();
            }
        }
    }
}

async fn write_all(
    socket: &mut WriteHalf<'_>,
    frames: &mut Vec<Frame>,
    buffer: &mut BytesMut,
    side: &StreamSide,
) -> std::io::Result<()> {
    let mut count = 0;
    let mut waiting = frames.drain(..).peekable();
    while let Some(frame) = waiting.next() {
        frame.encode(buffer);
        count += 1;
        let full =
            waiting.peek().is_none_or(|next| buffer.len() + frame_size(next) > WRITE_SIZE_MAX);
        if full {
            let size = buffer.len();
            socket.write_all(buffer).await?;
            side.sent(size);
            side.counters.sent_count.add(std::mem::take(&mut count));
            side.counters.sent_size.add(size);
            side.counters.send_call_count.add(1);
            buffer.clear();
        }
    }
    if buffer.capacity() > 4 * WRITE_SIZE_MAX {
        // One large frame is no reason to keep its room for ever.
        *buffer = BytesMut::new();
    }
    Ok(())
}

/// Reads frames and hands them to the node's thread, many a wake-up; gives the reason of the end.
async fn receive(
    id: StreamId,
    mut socket: ReadHalf<'_>,
    side: &StreamSide,
    context: &Context,
) -> String {
    let mut buffer = BytesMut::with_capacity(READ_SIZE);
    let mut inputs = Vec::new();
    let mut payload_max = HELLO_SIZE_MAX;
    let mut hello_deadline = Some(Instant::now() + HELLO_TIMEOUT);
    loop {
        let read = match hello_deadline {
            None => socket.read_buf(&mut buffer).await,
            Some(deadline) => match timeout_at(deadline, socket.read_buf(&mut buffer)).await {
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
                return reason;
            }
        }
        while side.unhandled.load(Ordering::Acquire) > RECEIVE_QUEUE_SIZE_MAX {
            side.handled.notified().await;
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
