//! The streams of a process: dialled, greeted, closed and dialled again, and what is said and heard on them.

use crate::checkers::claims::{Claim, Claims};
use crate::marks;
use crate::network::{End, Life, Packet, ProcessId};
use crate::process::{address, name, process_at, read_log};
use crate::world::{Event, World};
use bytes::BytesMut;
use quorate_consensus::Message;
use quorate_node::{NodeInput, StreamDirection, StreamId, StreamPurpose};
use quorate_types::{Frame, FrameKind};
use std::collections::BTreeSet;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// One in so many claims is compared with the durable half of the disk when it is sent: opening a log is work.
const CLAIM_SAMPLE: u64 = 150;

/// One in so many votes is.
const VOTE_SAMPLE: u64 = 3;

/// How soon a stream that could not be opened, or was closed, is dialled again, at least.
const REDIAL_MIN: Duration = Duration::from_millis(1);

/// How soon at most.
const REDIAL_MAX: Duration = Duration::from_millis(200);

impl World {
    pub(crate) fn keep_streams_to(&mut self, id: ProcessId, addresses: &[String]) {
        let wanted: BTreeSet<ProcessId> =
            addresses.iter().filter_map(|address| process_at(address)).collect();
        let life = self.processes[id.0].life;
        let running = self.processes[id.0].running.as_mut().expect("it asked");
        let new: Vec<ProcessId> = wanted.difference(&running.dialled).copied().collect();
        running.dialled = wanted;
        for peer in new {
            self.redial(id, life, peer);
        }
    }

    /// Plans to dial the streams to a peer, one attempt at a time for each.
    fn redial(&mut self, id: ProcessId, life: Life, peer: ProcessId) {
        for purpose in [StreamPurpose::Messages, StreamPurpose::Bulk] {
            let process = &mut self.processes[id.0];
            let running = process.running.as_mut().filter(|_| process.life == life);
            if running.is_some_and(|running| running.dialling.insert((peer, purpose))) {
                let wait = self.dice.network.duration(REDIAL_MIN, REDIAL_MAX);
                self.plan_in(wait, Event::Dial(id, life, peer, purpose));
            }
        }
    }

    /// A process tries to open a stream, unless it is open or not wanted any more.
    pub(crate) fn dial(
        &mut self,
        id: ProcessId,
        life: Life,
        to: ProcessId,
        purpose: StreamPurpose,
    ) {
        let process = &mut self.processes[id.0];
        let Some(running) = process.running.as_mut().filter(|_| process.life == life) else {
            return;
        };
        running.dialling.remove(&(to, purpose));
        if !running.dialled.contains(&to) || self.network.is_open(id, to, purpose) {
            return;
        }
        let stream = self.new_stream(id).expect("it runs");
        let opened = self.new_stream(to).and_then(|listener| {
            self.network.connect(stream, listener, purpose)?;
            Some(listener)
        });
        let Some(listener) = opened else {
            self.tell_closed(id, stream.stream, "cannot connect");
            return self.redial(id, life, to);
        };
        self.trace.step(self.now, "connect", &[id.0 as u64, to.0 as u64], |f| {
            write!(f, "{} {} {purpose:?}", name(id), name(to))
        });
        let direction = StreamDirection::Outgoing { address: address(to) };
        self.tell(id, NodeInput::StreamOpened { stream: stream.stream, direction, purpose });
        let direction = StreamDirection::Incoming;
        self.tell(to, NodeInput::StreamOpened { stream: listener.stream, direction, purpose });
    }

    fn new_stream(&mut self, id: ProcessId) -> Option<End> {
        let process = &mut self.processes[id.0];
        let running = process.running.as_mut()?;
        running.next_stream += 1;
        Some(End { process: id, life: process.life, stream: StreamId(running.next_stream) })
    }

    fn tell_closed(&mut self, id: ProcessId, stream: StreamId, reason: &str) {
        self.tell(id, NodeInput::StreamClosed { stream, reason: reason.to_owned() });
    }

    pub(crate) fn send(&mut self, id: ProcessId, stream: StreamId, frame: Frame) {
        let hash = xxh3_64(&frame.payload);
        let numbers = [id.0 as u64, stream.0, frame.kind as u64, hash];
        let message = match frame.kind {
            FrameKind::Consensus => Message::decode(frame.payload.clone()).ok(),
            FrameKind::Hello | FrameKind::Refusal | FrameKind::Formation | FrameKind::Bulk => None,
        };
        self.trace.step(self.now, "send", &numbers, |f| match &message {
            Some(message) => write!(f, "{} on {}: {message}", name(id), stream.0),
            None => {
                let (kind, size) = (frame.kind, frame.payload.len());
                write!(f, "{} on {}: {kind:?} {size}B", name(id), stream.0)
            }
        });
        if let Some(mark) = message.as_ref().and_then(marks::of_message) {
            *self.counts.marks.entry(mark).or_default() += 1;
        }
        if frame.kind == FrameKind::Bulk {
            self.watch_transfer(id, &frame);
        }
        if let Some(message) = &message {
            let running = self.processes[id.0].running.as_ref();
            let node = running.and_then(|running| running.node_id);
            self.matches.on_send(node.unwrap_or_else(|| self.label(id)), message);
            let result = self.logs.on_send(message);
            self.accuse(result);
            self.count_append(id, message);
        }
        if let Some(claim) = message.as_ref().and_then(Claim::of) {
            if let Claim::Voted(epoch) = claim
                && let Some(node) = self.node_of(id)
            {
                let result = self.elections.on_vote(node, epoch);
                self.accuse(result);
            }
            self.check_claim(id, claim);
        }
        let sent = self.network.send(self.now, id, stream, frame, &mut self.dice.network);
        for (at, packet) in sent {
            self.plan(at, Event::Arrival(packet));
        }
    }

    /// Marks a transfer whose pieces are sent again.
    fn watch_transfer(&mut self, id: ProcessId, frame: &Frame) {
        let Some(running) = &mut self.processes[id.0].running else { return };
        let Some((transfer, number)) = quorate_node::piece_of(&frame.payload) else { return };
        let last = running.last_piece.replace((transfer, number));
        if last.is_some_and(|(of, last)| of == transfer && number <= last) {
            *self.counts.marks.entry(marks::SNAPSHOT_GOES_ON).or_default() += 1;
        }
    }

    fn check_claim(&mut self, id: ProcessId, claim: Claim) {
        if self.processes[id.0].is_wounded {
            return;
        }
        self.processes[id.0].claims.on_send(claim);
        // Votes are few and dear.
        let sample = if matches!(claim, Claim::Voted(_)) { VOTE_SAMPLE } else { CLAIM_SAMPLE };
        let sampled = self.dice.process.below(sample) == 0;
        if !sampled {
            return;
        }
        self.counts.claim_count += 1;
        let group = self.group();
        let durable = self.processes[id.0].disk.durable();
        let is_tainted = self.processes[id.0].is_tainted;
        let result = match read_log(&durable, self.mix.log(id), group) {
            Ok(found) if is_tainted && found.has_lost_end() => return self.wound(id),
            Ok(found) => Claims::check_sent(self.label(id), claim, &found.log),
            Err(error) => {
                return self.fail("claims", format!("{} has no durable log: {error}", name(id)));
            }
        };
        self.accuse(result);
    }

    /// A frame has come to its end.
    pub(crate) fn arrive(&mut self, packet: &Packet) {
        let Some(end) = self.network.arrive(packet, &mut self.dice.network) else { return };
        if self.processes[end.process.0].life != end.life {
            return;
        }
        let numbers = [end.process.0 as u64, end.stream.0, packet.frame.kind as u64];
        self.trace.step(self.now, "arrive", &numbers, |f| {
            let size = packet.frame.payload.len();
            write!(f, "{} on {}: {:?} {size}B", name(end.process), end.stream.0, packet.frame.kind)
        });
        let frame = self.distort(packet.frame.clone());
        self.tell(end.process, NodeInput::Frame { stream: end.stream, frame });
    }

    /// What a mutant makes of a frame that arrives.
    fn distort(&self, frame: Frame) -> Frame {
        let Some(mutant) = self.options.mutant.filter(|_| frame.kind == FrameKind::Consensus)
        else {
            return frame;
        };
        let message = Message::decode(frame.payload.clone()).ok();
        let distorted = message.and_then(|message| mutant.distort(&message));
        let Some(distorted) = distorted else { return frame };
        let mut payload = BytesMut::new();
        distorted.encode(&mut payload);
        Frame { payload: payload.freeze(), ..frame }
    }

    pub(crate) fn close(&mut self, id: ProcessId, stream: StreamId, reason: String) {
        let numbers = [id.0 as u64, stream.0];
        self.trace.step(self.now, "close", &numbers, |f| {
            write!(f, "{} closes {}: {reason}", name(id), stream.0)
        });
        let Some((other, until)) = self.network.close(id, stream) else { return };
        let wait = self.dice.network.duration(Duration::from_micros(100), Duration::from_millis(5));
        self.plan(until.max(self.now) + wait, Event::Closed(other, id));
        self.tell_closed(id, stream, "closed by this node");
        let life = self.processes[id.0].life;
        self.redial(id, life, other.process);
    }

    /// An end of a stream notices that it is closed, and dials again if it had dialled.
    pub(crate) fn notice_closed(&mut self, end: End, peer: ProcessId) {
        self.network.forget(end);
        let process = &self.processes[end.process.0];
        if process.running.is_none() || process.life != end.life {
            return;
        }
        self.trace.step(self.now, "closed", &[end.process.0 as u64, end.stream.0], |f| {
            write!(f, "{} loses {} with {}", name(end.process), end.stream.0, name(peer))
        });
        self.tell_closed(end.process, end.stream, "closed by the peer or the network");
        self.redial(end.process, end.life, peer);
    }
}
