//! One stream: a socket, the frames that wait to be sent on it, and what came of the next frame.

use crate::metrics::Counters;
use crate::outside::warn_outside;
use bytes::{Buf, BytesMut};
use mio::net::TcpStream;
use quorate_types::{FRAME_HEADER_SIZE, FRAME_PAYLOAD_MAX, Frame, FrameHeader, Instant};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Bytes that may wait to be sent on one stream: the window of a group's entries twice over, and room for one
/// frame of the largest size. Above it what comes last is dropped; protocols expect loss.
const SEND_QUEUE_SIZE_MAX: usize = 32 * 1024 * 1024;

/// How long a peer may take from the connection to its first frame, which is its hello; and how long it may take
/// to read the last that is said on a stream.
const PATIENCE: Duration = Duration::from_secs(5);

/// The largest payload before the first frame was accepted: far above any hello.
const HELLO_SIZE_MAX: usize = 64 * 1024;

/// Frames are gathered into one write up to about this size.
const WRITE_SIZE_MAX: usize = 256 * 1024;

/// Bytes read from one stream before the others, and the node, have their turn.
const READ_TURN_SIZE: usize = 1024 * 1024;

/// What became of what waited to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Nothing waits.
    All,
    /// The socket takes no more for now.
    Blocked,
}

/// Whether a socket may have more to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MoreToRead {
    /// It must be read again without waiting for word from the system.
    Yes,
    /// The system says when there is.
    No,
}

/// A stream, owned by the node's thread.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    /// Frames that wait to be sent, oldest first.
    frames: VecDeque<Frame>,
    /// Encoded frames, of which the beginning may have been written.
    encoded: BytesMut,
    /// Bytes that wait in `frames` and `encoded`.
    unsent_size: usize,
    /// What was read and is not a whole frame yet.
    partial: BytesMut,
    /// Whether the system said that the peer closed: then even a read that does not fill its room is not the last.
    pub(crate) is_read_closed: bool,
    /// The largest payload that is taken.
    payload_max: usize,
    /// Why the stream is to end after what waits.
    closing: Option<String>,
    /// When the stream ends unless a first frame came, or unless all was sent.
    pub(crate) deadline: Option<Instant>,
    /// Dropped with the stream, for whoever dialled it.
    _ended: oneshot::Sender<()>,
    counters: Arc<Counters>,
}

fn frame_size(frame: &Frame) -> usize {
    FRAME_HEADER_SIZE + frame.payload.len()
}

impl Stream {
    pub(crate) fn new(
        socket: TcpStream,
        ended: oneshot::Sender<()>,
        now: Instant,
        counters: Arc<Counters>,
    ) -> Stream {
        Stream {
            socket,
            frames: VecDeque::new(),
            encoded: BytesMut::new(),
            unsent_size: 0,
            partial: BytesMut::new(),
            is_read_closed: false,
            payload_max: HELLO_SIZE_MAX,
            closing: None,
            deadline: Some(now + PATIENCE),
            _ended: ended,
            counters,
        }
    }

    /// Queues a frame, or drops it when too much waits. Nothing is written yet.
    pub(crate) fn push(&mut self, frame: Frame) {
        let size = frame_size(&frame);
        if self.closing.is_some() || self.unsent_size + size > SEND_QUEUE_SIZE_MAX {
            self.counters.dropped_count.add(1);
            return;
        }
        self.unsent_size += size;
        self.frames.push_back(frame);
        self.counters.send_queue_size.add(size);
    }

    /// Ends the stream after what waits.
    pub(crate) fn close(&mut self, now: Instant, reason: String) {
        if self.closing.is_none() {
            self.closing = Some(reason);
            self.deadline = Some(now + PATIENCE);
        }
    }

    /// Why the stream ends now that its deadline has come.
    pub(crate) fn overdue(&mut self) -> String {
        self.closing.take().unwrap_or_else(|| "no hello came in time".to_owned())
    }

    /// Writes as far as the socket takes it without waiting.
    ///
    /// # Errors
    /// Gives the reason when the stream has ended.
    pub(crate) fn write(&mut self) -> Result<Written, String> {
        loop {
            if self.encoded.is_empty() && !self.fill() {
                return self.closing.take().map_or(Ok(Written::All), Err);
            }
            match self.socket.write(&self.encoded) {
                Ok(size) => {
                    self.encoded.advance(size);
                    self.unsent_size -= size;
                    self.counters.send_queue_size.sub(size);
                    self.counters.sent_size.add(size);
                    self.counters.send_call_count.add(1);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Encodes what waits for one write; false when nothing waits.
    fn fill(&mut self) -> bool {
        if self.encoded.capacity() > 4 * WRITE_SIZE_MAX {
            // One large frame is no reason to keep its room for ever.
            self.encoded = BytesMut::new();
        }
        self.encoded.reserve(self.unsent_size.min(WRITE_SIZE_MAX));
        let mut count = 0;
        while let Some(frame) = self.frames.front() {
            let size = self.encoded.len() + frame_size(frame);
            if count > 0 && size > WRITE_SIZE_MAX {
                break;
            }
            frame.encode(&mut self.encoded);
            self.frames.pop_front();
            count += 1;
        }
        self.counters.sent_count.add(count);
        count > 0
    }

    /// Reads what is there, up to one turn's worth, and hands out whole frames. `scratch` is what one call reads
    /// into.
    ///
    /// # Errors
    /// Gives the reason when the stream has ended.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        frames: &mut Vec<Frame>,
    ) -> Result<MoreToRead, String> {
        let mut turn = 0;
        while turn < READ_TURN_SIZE {
            let size = match self.socket.read(scratch) {
                Ok(0) => return Err("the peer closed the stream".to_owned()),
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(MoreToRead::No),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            self.partial.extend_from_slice(&scratch[..size]);
            self.take_frames(frames)?;
            if size < scratch.len() && !self.is_read_closed {
                // The socket is empty; the system tells of what comes next, or of the end.
                return Ok(MoreToRead::No);
            }
            turn += size;
        }
        Ok(MoreToRead::Yes)
    }

    /// Takes every whole frame off what was read. The first frame of a stream lifts the limit for those behind it.
    fn take_frames(&mut self, frames: &mut Vec<Frame>) -> Result<(), String> {
        while let Some(header) = self.partial.first_chunk::<FRAME_HEADER_SIZE>() {
            let header =
                FrameHeader::decode(header).map_err(|error| self.malformed(error.to_string()))?;
            if header.payload_size > self.payload_max {
                return Err(self.malformed(format!("a hello of {} bytes", header.payload_size)));
            }
            let size = FRAME_HEADER_SIZE + header.payload_size;
            if self.partial.len() < size {
                return Ok(());
            }
            self.partial.advance(FRAME_HEADER_SIZE);
            let payload = self.partial.split_to(header.payload_size).freeze();
            let frame =
                header.with_payload(payload).map_err(|error| self.malformed(error.to_string()))?;
            self.payload_max = FRAME_PAYLOAD_MAX;
            if self.closing.is_none() {
                self.deadline = None;
            }
            self.counters.received_count.add(1);
            self.counters.received_size.add(size);
            frames.push(frame);
        }
        Ok(())
    }

    fn malformed(&self, reason: String) -> String {
        self.counters.malformed_count.add(1);
        let address = self.socket.peer_addr();
        let peer = address.map_or_else(|_| "?".to_owned(), |address| address.to_string());
        warn_outside(format_args!(
            "closes a stream of {peer} that carries no frames of ours: {reason}"
        ));
        reason
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.counters.send_queue_size.sub(self.unsent_size);
        // The peer should know even while somebody still holds a copy of the socket.
        drop(self.socket.shutdown(Shutdown::Both));
    }
}
