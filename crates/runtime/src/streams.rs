//! All streams of a node, and the one place where its thread sleeps.
//!
//! The node's thread reads and writes its streams itself, without ever waiting for one of them: between a message
//! and its decision there is no other thread to wake. What it cannot write at once stays in a queue of limited size
//! until the system says that the socket takes more; what it has not read yet stays in the socket, so a node that
//! cannot keep up slows its peers and not its memory.

use crate::metrics::Counters;
use crate::stream::{MoreToRead, Stream, Written};
use mio::{Events, Interest, Poll, Token, Waker};
use quorate_node::{NodeInput, StreamId};
use quorate_types::{Frame, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Sockets that the system may name in one go; the others come next.
const EVENTS_MAX: usize = 128;

/// Room for one read: many small frames, or a good part of a large one.
const READ_SIZE: usize = 64 * 1024;

/// What names the waker; no stream has this number.
const WAKER: Token = Token(0);

/// The streams of a node. They are closed when this is dropped.
#[derive(Debug)]
pub(crate) struct Streams {
    poll: Poll,
    events: Events,
    streams: BTreeMap<StreamId, Stream>,
    /// Those that may have something to read.
    readable: BTreeSet<StreamId>,
    /// Those that have something to write, and sockets that may take it.
    writable: BTreeSet<StreamId>,
    /// Those that have ended and why; the node is told next.
    ended: Vec<(StreamId, String)>,
    /// What one call reads into.
    scratch: Vec<u8>,
    counters: Arc<Counters>,
}

impl Streams {
    /// No streams yet, and what wakes the thread that waits in [`Streams::wait`].
    pub(crate) fn new(counters: Arc<Counters>) -> std::io::Result<(Streams, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let streams = Streams {
            poll,
            events: Events::with_capacity(EVENTS_MAX),
            streams: BTreeMap::new(),
            readable: BTreeSet::new(),
            writable: BTreeSet::new(),
            ended: Vec::new(),
            scratch: vec![0; READ_SIZE],
            counters,
        };
        Ok((streams, waker))
    }

    /// Takes a stream in. `ended` is dropped with it.
    pub(crate) fn open(
        &mut self,
        id: StreamId,
        socket: std::net::TcpStream,
        ended: oneshot::Sender<()>,
        now: Instant,
    ) {
        let mut socket = mio::net::TcpStream::from_std(socket);
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut socket, token(id), interest);
        if let Err(error) = registered {
            self.ended.push((id, error.to_string()));
        }
        let stream = Stream::new(socket, ended, now, Arc::clone(&self.counters));
        let before = self.streams.insert(id, stream);
        assert!(before.is_none(), "{id:?} names two streams");
    }

    /// Queues a frame, which is sent by the next [`Streams::flush`]. A stream that has ended takes none.
    pub(crate) fn push(&mut self, id: StreamId, frame: Frame) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.push(frame);
            self.writable.insert(id);
        }
    }

    /// Ends a stream after what waits to be sent on it.
    pub(crate) fn close(&mut self, id: StreamId, now: Instant, reason: String) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.close(now, reason);
            self.writable.insert(id);
        }
    }

    /// Ends a stream at once.
    pub(crate) fn hang_up(&mut self, id: StreamId) {
        if self.streams.contains_key(&id) {
            self.ended.push((id, "this node closes its streams".to_owned()));
        }
    }

    /// Writes what waits, as far as the sockets take it without waiting: most of the time that is all of it.
    pub(crate) fn flush(&mut self) {
        while let Some(id) = self.writable.pop_first() {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            match stream.write() {
                Ok(Written::All | Written::Blocked) => {}
                Err(reason) => self.ended.push((id, reason)),
            }
        }
    }

    /// Whether there is something to read or to tell without waiting.
    pub(crate) fn is_ready(&self) -> bool {
        !self.readable.is_empty() || !self.ended.is_empty()
    }

    /// When a stream is to be ended that says nothing, or does not take the last of what is said.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.streams.values().filter_map(|stream| stream.deadline).min()
    }

    /// Whether a socket is ready, or it cannot be said, which the next wait reports.
    pub(crate) fn look(&mut self) -> bool {
        self.wait(Some(Duration::ZERO)).is_err() || !self.events.is_empty()
    }

    /// Waits until a socket is ready or the thread is woken, but no longer than `limit`.
    pub(crate) fn wait(&mut self, limit: Option<Duration>) -> std::io::Result<()> {
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            done => done?,
        }
        for event in &self.events {
            if event.token() == WAKER {
                continue;
            }
            let id = StreamId(event.token().0 as u64);
            let is_closed = event.is_read_closed() || event.is_error();
            if event.is_readable() || is_closed {
                self.readable.insert(id);
            }
            if is_closed && let Some(stream) = self.streams.get_mut(&id) {
                stream.is_read_closed = true;
            }
            if event.is_writable() {
                self.writable.insert(id);
            }
        }
        Ok(())
    }

    /// Reads one turn of every stream that has something, and tells what came and which streams have ended.
    pub(crate) fn read(&mut self, now: Instant, mut each: impl FnMut(NodeInput)) {
        let mut frames = Vec::new();
        for id in std::mem::take(&mut self.readable) {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            let read = stream.read(&mut self.scratch, &mut frames);
            for frame in frames.drain(..) {
                each(NodeInput::Frame { stream: id, frame });
            }
            match read {
                Ok(MoreToRead::No) => {}
                Ok(MoreToRead::Yes) => {
                    self.readable.insert(id);
                }
                Err(reason) => self.ended.push((id, reason)),
            }
        }
        for (id, stream) in &mut self.streams {
            if stream.deadline.is_some_and(|deadline| deadline <= now) {
                stream.deadline = None;
                self.ended.push((*id, stream.overdue()));
            }
        }
        for (id, reason) in self.ended.drain(..) {
            if let Some(mut stream) = self.streams.remove(&id) {
                // The system forgets a socket that is closed by itself; this is for the others.
                drop(self.poll.registry().deregister(&mut stream.socket));
                each(NodeInput::StreamClosed { stream: id, reason });
            }
        }
    }

    /// Says the last of it on every stream, waits at most `limit` until that is sent, and closes them all.
    pub(crate) fn finish(mut self, limit: Duration) {
        let until = std::time::Instant::now() + limit;
        let mut unsent: BTreeSet<StreamId> = self.streams.keys().copied().collect();
        loop {
            unsent.retain(|id| match self.streams.get_mut(id).map(Stream::write) {
                Some(Ok(Written::Blocked)) => true,
                Some(Ok(Written::All) | Err(_)) | None => false,
            });
            let left = until.saturating_duration_since(std::time::Instant::now());
            if unsent.is_empty() || left.is_zero() || self.wait(Some(left)).is_err() {
                return;
            }
        }
    }
}

fn token(id: StreamId) -> Token {
    let number = usize::try_from(id.0).expect("fewer streams than there are numbers");
    assert!(number != WAKER.0, "streams are numbered from 1");
    Token(number)
}
