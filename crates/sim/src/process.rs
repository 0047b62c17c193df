//! A process: a production node, its log's disk and its store's engine, started, woken, crashed and started again.

use crate::checkers::claims::{Claim, Claims};
use crate::checkers::order::Order;
use crate::disk::{CrashDisk, Ending, Ticket};
use crate::engine::{self, Machine};
use crate::finale::Stage;
use crate::history::{Call, ClientId, Outcome};
use crate::mutants::Mutant;
use crate::network::{End, Life, Packet, ProcessId};
use crate::world::{Event, PROCESS_COUNT, World};
use quorate_consensus::{Event as ConsensusEvent, Message};
use quorate_log::{Log, LogOptions};
use quorate_node::{
    Answer, Node, NodeEffect, NodeInput, NodeOptions, RequestId, StopReason, StreamDirection,
    StreamId, StreamPurpose,
};
use quorate_store::engine::MemoryDisk;
use quorate_types::{
    DiskOp, DiskReader, DiskRequest, Frame, FrameKind, GroupId, Instant, LogSummary, NodeId,
    ProtocolName, StateMachine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// One in so many claims is compared with the durable half of the disk when it is sent: opening a log is work.
const CLAIM_SAMPLE: u64 = 40;

/// One in so many wake-ups is followed by a look at the node's status.
const STATUS_SAMPLE: u64 = 8;

/// How often in a row a node may ask to be woken at once and then do nothing: more is a loop that burns a processor.
const IDLE_COUNT_MAX: u64 = 10;

/// How soon a stream that could not be opened, or was closed, is dialled again, at least.
const REDIAL_MIN: Duration = Duration::from_millis(1);

/// How soon at most.
const REDIAL_MAX: Duration = Duration::from_millis(200);

/// One machine of the world.
pub(crate) struct Process {
    /// The disk under its log; survives crashes as far as it is durable.
    pub(crate) disk: CrashDisk,
    /// The device under its engine; likewise.
    pub(crate) engine: MemoryDisk,
    /// How often it was started.
    pub(crate) life: Life,
    /// What runs, if anything does.
    pub(crate) running: Option<Running>,
    /// What it said to its peers, in all its lives.
    pub(crate) claims: Claims,
    /// What it said of itself.
    pub(crate) order: Order,
    /// How its next write to the log ends.
    pub(crate) sabotage: Option<Ending>,
    /// Until when its disk stands still.
    pub(crate) disk_stalled_until: Instant,
}

/// One life of a process.
pub(crate) struct Running {
    /// The production node.
    pub(crate) node: Node,
    /// Its store.
    pub(crate) machine: Machine,
    /// Its id, once it has one.
    pub(crate) node_id: Option<NodeId>,
    /// What it has not been told yet.
    inbox: Vec<NodeInput>,
    /// How far its clock is ahead of the world's.
    clock_ahead: u64,
    /// When it is to be woken next.
    wake_at: Option<Instant>,
    /// Until when it stands still.
    pub(crate) paused_until: Instant,
    /// Which processes it keeps streams to.
    dialled: BTreeSet<ProcessId>,
    /// Which streams it is about to dial.
    dialling: BTreeSet<(ProcessId, StreamPurpose)>,
    /// The next stream.
    next_stream: u64,
    /// The next request.
    next_request: u64,
    /// Who waits for which request.
    requests: BTreeMap<RequestId, ClientId>,
    /// How often it was woken.
    wake_count: u64,
    /// How often in a row it was woken when it had asked to be, had nothing to do, and asked for the same moment again.
    idle_count: u64,
    /// Whether it was asked to leave.
    pub(crate) leaving: bool,
    /// Whether a failure of its disk was simulated in this life.
    pub(crate) disk_failed: bool,
}

impl Running {
    fn local(&self, now: Instant) -> Instant {
        Instant(now.0 + self.clock_ahead)
    }

    /// What the node says of itself.
    pub(crate) fn status(&self, now: Instant) -> quorate_node::NodeStatus {
        self.node.status(self.local(now))
    }

    fn global(&self, local: Instant) -> Instant {
        Instant(local.0.saturating_sub(self.clock_ahead))
    }
}

impl Process {
    pub(crate) fn new() -> Process {
        Process {
            disk: CrashDisk::new(),
            engine: MemoryDisk::new(),
            life: Life(0),
            running: None,
            claims: Claims::default(),
            order: Order::default(),
            sabotage: None,
            disk_stalled_until: Instant::ZERO,
        }
    }
}

/// The name that an operator gave to a process.
fn name(process: ProcessId) -> String {
    format!("n{}", process.0 + 1)
}

/// Where peers reach it.
fn address(process: ProcessId) -> String {
    format!("{}.sim:7000", name(process))
}

fn process_at(address: &str) -> Option<ProcessId> {
    (0..PROCESS_COUNT).map(ProcessId).find(|process| self::address(*process) == address)
}

/// What a log on this disk says of the group.
fn log_summary(
    disk: &dyn DiskReader,
    options: &LogOptions,
    group: GroupId,
) -> Result<LogSummary, String> {
    let (_, recovery) = Log::open(disk, options.clone()).map_err(|error| error.to_string())?;
    Ok(recovery.groups.get(&group).cloned().unwrap_or_default())
}

impl World {
    /// Starts a process, if it is still in the life after which this start was planned.
    pub(crate) fn open(&mut self, id: ProcessId, life: Life) {
        let process = &mut self.processes[id.0];
        if process.running.is_some() || process.life != life {
            return;
        }
        process.life = Life(life.0 + 1);
        process.order.on_restart();
        self.trace.step(self.now, "open", &[id.0 as u64, life.0 + 1], |f| {
            write!(f, "{} for the {}. time", name(id), life.0 + 1)
        });
        self.check_opened(id);
        if let Err(reason) = self.try_open(id) {
            self.fail("open", format!("{} cannot start: {reason}", name(id)));
        }
    }

    fn check_opened(&mut self, id: ProcessId) {
        let group = self.group();
        let process = &self.processes[id.0];
        let result = match log_summary(&process.disk, &self.mix.log, group) {
            Ok(log) => process.claims.check_opened(NodeId(id.0 as u64 + 1), &log),
            // The node will say so itself.
            Err(_) => Ok(()),
        };
        self.accuse(result);
    }

    fn try_open(&mut self, id: ProcessId) -> Result<(), String> {
        let clock_ahead = self.dice.process.below(1 << 42);
        let options = self.node_options(id);
        let process = &mut self.processes[id.0];
        let machine = Machine::open(&process.engine).map_err(|fault| fault.to_string())?;
        let applied = machine.store.applied();
        process.order.on_open(applied.position.index).map_err(|violation| violation.to_string())?;
        let local = Instant(self.now.0 + clock_ahead);
        let node =
            Node::open(local, options, &process.disk, BTreeMap::from([(GroupId(0), applied)]))
                .map_err(|error| error.to_string())?;
        let is_stateless = !node.status(local).awaiting_snapshot.is_empty();
        self.counts.stateless_start_count += u64::from(is_stateless);
        process.running = Some(Running {
            node,
            machine,
            node_id: None,
            inbox: Vec::new(),
            clock_ahead,
            wake_at: None,
            paused_until: self.now,
            dialled: BTreeSet::new(),
            dialling: BTreeSet::new(),
            next_stream: 0,
            next_request: 0,
            requests: BTreeMap::new(),
            wake_count: 0,
            idle_count: 0,
            leaving: false,
            disk_failed: false,
        });
        self.wake_soon(id);
        Ok(())
    }

    fn node_options(&mut self, id: ProcessId) -> NodeOptions {
        NodeOptions {
            name: name(id),
            cluster: (0..PROCESS_COUNT).map(ProcessId).map(|p| (name(p), address(p))).collect(),
            join: None,
            protocol: ProtocolName::Raft,
            timing: self.mix.timing,
            limits: self.mix.limits,
            log: self.mix.log.clone(),
            entropy: self.dice.process.bits(),
            request_timeout: Duration::from_secs(7),
        }
    }

    /// Tells a process something, and has it woken soon.
    pub(crate) fn tell(&mut self, id: ProcessId, input: NodeInput) {
        if let Some(running) = &mut self.processes[id.0].running {
            running.inbox.push(input);
            self.wake_soon(id);
        }
    }

    fn wake_soon(&mut self, id: ProcessId) {
        let latency_max = self.mix.wake_latency_max;
        let at = self.dice.process.moment(self.now, Duration::from_micros(1), latency_max);
        self.wake_by(id, at);
    }

    fn wake_by(&mut self, id: ProcessId, at: Instant) {
        let process = &mut self.processes[id.0];
        let Some(running) = &mut process.running else { return };
        let at = at.max(running.paused_until);
        if running.wake_at.is_none_or(|planned| at < planned) {
            running.wake_at = Some(at);
            let event = Event::Wake(id, process.life);
            self.plan(at, event);
        }
    }

    /// A process handles everything that waits, then does what it asks for.
    pub(crate) fn wake(&mut self, id: ProcessId, life: Life) {
        let now = self.now;
        let process = &mut self.processes[id.0];
        if process.life != life {
            return;
        }
        let Some(running) = &mut process.running else { return };
        if running.wake_at != Some(now) {
            return;
        }
        running.wake_at = None;
        if running.paused_until > now {
            let at = running.paused_until;
            return self.wake_by(id, at);
        }
        let local = running.local(now);
        let mut inputs = std::mem::take(&mut running.inbox);
        let told_nothing = inputs.is_empty();
        if running.node.next_deadline().is_some_and(|deadline| deadline <= local) {
            inputs.push(NodeInput::Tick);
        }
        let count = inputs.len() as u64;
        let answers_vote =
            self.options.mutant == Some(Mutant::VoteBeforeSync) && inputs.iter().any(asks_for_vote);
        for input in inputs {
            running.node.handle(local, input);
        }
        running.wake_count += 1;
        let effects: Vec<NodeEffect> = std::iter::from_fn(|| running.node.poll()).collect();
        let deadline = running.node.next_deadline().map(|deadline| running.global(deadline));
        let idle = told_nothing && effects.is_empty() && deadline.is_some_and(|due| due <= now);
        running.idle_count = if idle { running.idle_count + 1 } else { 0 };
        let spins = running.idle_count > IDLE_COUNT_MAX;
        let look = running.wake_count.is_multiple_of(STATUS_SAMPLE);
        self.trace.step(now, "wake", &[id.0 as u64, count], |f| write!(f, "{} {count}", name(id)));
        for effect in effects {
            self.carry_out(id, effect, answers_vote);
        }
        if spins {
            self.fail("bounded", format!("{} asks to be woken for nothing, for ever", name(id)));
        }
        if let Some(deadline) = deadline {
            let slack = Duration::from_micros(self.dice.process.between(1, 50));
            self.wake_by(id, deadline.max(now) + slack);
        }
        if look {
            self.look_at_status(id);
        }
    }

    /// Compares what a node says of itself with what it said before.
    pub(crate) fn look_at_status(&mut self, id: ProcessId) {
        let process = &mut self.processes[id.0];
        let Some(running) = &mut process.running else { return };
        let status = running.status(self.now);
        running.node_id = status.node;
        if let Some(group) = status.groups.get(&GroupId(0)) {
            let has_state = !status.awaiting_snapshot.contains(&GroupId(0));
            let result = process.order.on_status(group, has_state);
            self.accuse(result);
        }
    }

    fn carry_out(&mut self, id: ProcessId, effect: NodeEffect, answers_vote: bool) {
        if self.processes[id.0].running.is_none() {
            return;
        }
        match effect {
            NodeEffect::Disk(request) => self.submit(id, request, answers_vote),
            NodeEffect::Dial(addresses) => self.keep_streams_to(id, &addresses),
            NodeEffect::Send { stream, frame } => self.send(id, stream, frame),
            NodeEffect::Close { stream, reason } => self.close(id, stream, reason),
            NodeEffect::Machine { group: _, request } => self.ask_machine(id, request),
            NodeEffect::Answer { id: request, answer } => self.answer(id, request, answer),
            NodeEffect::Event { group, event } => self.note_event(id, group, &event),
            NodeEffect::Note(text) | NodeEffect::Outside(text) => {
                self.trace
                    .step(self.now, "note", &[id.0 as u64], |f| write!(f, "{} {text}", name(id)));
            }
            NodeEffect::Stop(reason) => self.stopped(id, reason),
        }
    }

    fn submit(&mut self, id: ProcessId, request: DiskRequest, answers_vote: bool) {
        let speed = self.mix.disk;
        let dice = &mut self.dice.disk;
        let mut at = dice.moment(self.now, speed.latency_min, speed.latency_max);
        if dice.chance(speed.slow) {
            at = dice.moment(at, Duration::ZERO, speed.slow_max);
        }
        let process = &mut self.processes[id.0];
        at = at.max(process.disk_stalled_until);
        let mut ending = Ending::Good;
        if let DiskOp::Write { file, sync: true, .. } = &request.op {
            let lies = match self.options.mutant {
                Some(Mutant::AckBeforeSync) => true,
                Some(Mutant::VoteBeforeSync) => answers_vote,
                Some(Mutant::PurgePastSynced | Mutant::StaleRead) | None => false,
            };
            if let Some(sabotage) = process.sabotage.take() {
                ending = sabotage;
                process.running.as_mut().expect("it asked").disk_failed = true;
            } else if lies {
                ending = Ending::Unsynced;
                let write_back = Event::WriteBack(id, file.clone());
                self.plan(at, write_back);
                at = self.now + Duration::from_micros(10);
            }
        }
        self.trace.step(self.now, "submit", &[id.0 as u64, request.id.0], |f| {
            write!(f, "{} {}", name(id), request.op)
        });
        let ticket = self.processes[id.0].disk.submit(request);
        self.plan(at, Event::Disk(id, ticket, ending));
    }

    /// A disk request is done.
    pub(crate) fn disk_done(&mut self, id: ProcessId, ticket: Ticket, ending: Ending) {
        let process = &mut self.processes[id.0];
        let Some(done) = process.disk.complete(ticket, ending, &mut self.dice.disk) else { return };
        let good = u64::from(done.result.is_ok());
        self.trace.step(self.now, "disk", &[id.0 as u64, done.id.0, good], |f| {
            match &done.result {
                Ok(_) => write!(f, "{} {} done", name(id), done.id.0),
                Err(error) => write!(f, "{} {} {error}", name(id), done.id.0),
            }
        });
        self.tell(id, NodeInput::Disk(done));
    }

    fn keep_streams_to(&mut self, id: ProcessId, addresses: &[String]) {
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

    fn send(&mut self, id: ProcessId, stream: StreamId, frame: Frame) {
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
        if let Some(claim) = message.as_ref().and_then(Claim::of) {
            self.check_claim(id, claim);
        }
        let sent = self.network.send(self.now, id, stream, frame, &mut self.dice.network);
        for (at, packet) in sent {
            self.plan(at, Event::Arrival(packet));
        }
    }

    fn check_claim(&mut self, id: ProcessId, claim: Claim) {
        self.processes[id.0].claims.on_send(claim);
        // Votes are few and dear, so each is checked.
        let sampled =
            matches!(claim, Claim::Voted(_)) || self.dice.process.below(CLAIM_SAMPLE) == 0;
        if !sampled {
            return;
        }
        self.counts.claim_count += 1;
        let group = self.group();
        let image = self.processes[id.0].disk.durable_image();
        let result = match log_summary(&image, &self.mix.log, group) {
            Ok(log) => Claims::check_sent(NodeId(id.0 as u64 + 1), claim, &log),
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
        let frame = packet.frame.clone();
        self.tell(end.process, NodeInput::Frame { stream: end.stream, frame });
    }

    fn close(&mut self, id: ProcessId, stream: StreamId, reason: String) {
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

    fn note_event(&mut self, id: ProcessId, group: GroupId, event: &ConsensusEvent) {
        self.trace.step(self.now, "event", &[id.0 as u64], |f| write!(f, "{} {event}", name(id)));
        let node = self.processes[id.0].running.as_ref().and_then(|running| running.node_id);
        match event {
            ConsensusEvent::Role { epoch, .. } => {
                let node = node.unwrap_or(epoch.owner);
                let result = self.elections.on_event(node, group, event);
                self.accuse(result);
            }
            ConsensusEvent::Diverged { .. } => self.fail("agreement", event.to_string()),
            ConsensusEvent::SnapshotInstalled { .. } => self.counts.snapshot_count += 1,
            ConsensusEvent::EpochChanged { .. }
            | ConsensusEvent::Leader { .. }
            | ConsensusEvent::Campaign { .. }
            | ConsensusEvent::SteppedDown { .. }
            | ConsensusEvent::Configuration { .. }
            | ConsensusEvent::Dropped { .. }
            | ConsensusEvent::SnapshotNeeded { .. }
            | ConsensusEvent::Mended { .. }
            | ConsensusEvent::MembershipAnswer { .. }
            | ConsensusEvent::NotReady { .. } => {}
        }
    }

    /// A node stops by itself: only right when it was asked to, or when its disk failed.
    fn stopped(&mut self, id: ProcessId, reason: StopReason) {
        self.trace.step(self.now, "stop", &[id.0 as u64], |f| write!(f, "{} {reason:?}", name(id)));
        let running = self.processes[id.0].running.as_ref().expect("it spoke");
        let right = match &reason {
            StopReason::Asked => running.leaving,
            StopReason::Log(_) => running.disk_failed,
            StopReason::Machine(_) | StopReason::Refused(_) => false,
        };
        if !right {
            self.fail("stop", format!("{} stops: {reason:?}", name(id)));
        }
        self.kill(id);
        self.reopen_later(id);
    }

    /// Starts a process that is down after a while.
    pub(crate) fn reopen_later(&mut self, id: ProcessId) {
        let faults_go_on = matches!(self.stage, Stage::Forming | Stage::Working);
        let slow = faults_go_on && self.dice.faults.chance(300_000);
        let longest = if slow { Duration::from_secs(6) } else { Duration::from_millis(400) };
        let wait = self.dice.faults.duration(Duration::from_millis(5), longest);
        let life = self.processes[id.0].life;
        self.plan_in(wait, Event::Open(id, life));
    }

    /// What a crash of any kind takes: memory, streams, and answers that were under way.
    pub(crate) fn end_life(&mut self, id: ProcessId, notice_max: Duration) {
        let Some(running) = self.processes[id.0].running.take() else { return };
        self.counts.crash_count += 1;
        for other in self.network.close_all(id) {
            let wait = self.dice.network.duration(Duration::from_micros(50), notice_max);
            self.plan_in(wait, Event::Closed(other, id));
        }
        for client in running.requests.into_values() {
            self.end_call(client, Outcome::Unknown);
        }
        let unsynced = self.processes[id.0].engine.unsynced_batches();
        let keep = self.dice.disk.between(0, unsynced);
        self.counts.lost_batch_count += unsynced - keep;
        self.processes[id.0].engine.crash(keep);
    }

    /// The process dies; its system keeps what it wrote.
    pub(crate) fn kill(&mut self, id: ProcessId) {
        self.end_life(id, Duration::from_millis(2));
        self.processes[id.0].disk.kill(&mut self.dice.disk);
    }

    /// The machine loses power. Peers only notice when they give up waiting.
    pub(crate) fn lose_power(&mut self, id: ProcessId) {
        self.end_life(id, Duration::from_secs(5));
        let loss = self.processes[id.0].disk.lose_power(&mut self.dice.disk);
        self.counts.unsynced_crash_count += u64::from(loss.unsynced_size > 0);
        self.counts.torn_count += loss.torn_count;
    }

    /// Sends a client's call to a process; false when it does not run.
    pub(crate) fn request(
        &mut self,
        id: ProcessId,
        client: ClientId,
        make: impl FnOnce(Instant) -> quorate_node::Request,
    ) -> bool {
        let now = self.now;
        let Some(running) = &mut self.processes[id.0].running else { return false };
        running.next_request += 1;
        let request_id = RequestId(running.next_request);
        running.requests.insert(request_id, client);
        let request = make(running.local(now));
        self.tell(id, NodeInput::Request { id: request_id, request });
        true
    }

    /// Who waits for a request; from now on nobody does.
    pub(crate) fn take_waiter(&mut self, id: ProcessId, request: RequestId) -> Option<ClientId> {
        self.processes[id.0].running.as_mut()?.requests.remove(&request)
    }

    fn answer(&mut self, id: ProcessId, request: RequestId, answer: Answer) {
        let Some(client) = self.take_waiter(id, request) else { return };
        let Some(call) = self.clients.pending(client).map(|pending| pending.call) else { return };
        let outcome = match answer {
            Answer::ReadReady { index } => {
                let running = self.processes[id.0].running.as_ref().expect("it spoke");
                let applied = running.machine.store.applied().position.index;
                if applied < index {
                    let seen = format!("{} reads at {index}, but applied {applied}", name(id));
                    return self.fail("read", seen);
                }
                return self.read_locally(id, client, call);
            }
            Answer::Taken => return,
            Answer::Refused { .. } | Answer::Declined(_) => Outcome::Refused,
            Answer::Unknown { .. } => Outcome::Unknown,
        };
        self.end_call(client, outcome);
    }

    /// Carries a read out on the local store and ends the call with what it shows.
    pub(crate) fn read_locally(&mut self, id: ProcessId, client: ClientId, call: Call) {
        let Some(running) = &self.processes[id.0].running else { return };
        let key = match call {
            Call::Get { key } => Some(key),
            Call::Scan => None,
            Call::Put { .. } | Call::Swap { .. } => {
                return self.fail("read", format!("{call} is answered as a read"));
            }
        };
        match engine::read(&running.machine.reader, key, None) {
            Ok((revision, found)) => {
                let outcome = match key {
                    Some(key) => Outcome::Got(revision, found.get(&key).copied()),
                    None => Outcome::Scanned(revision, found),
                };
                self.end_call(client, outcome);
            }
            Err(reason) => self.fail("read", format!("{}: {reason}", name(id))),
        }
    }
}

/// Whether an input is a peer's request for a vote.
fn asks_for_vote(input: &NodeInput) -> bool {
    let NodeInput::Frame { frame: Frame { kind: FrameKind::Consensus, payload, .. }, .. } = input
    else {
        return false;
    };
    let Ok(Message::Raft(message)) = Message::decode(payload.clone()) else { return false };
    matches!(message, quorate_consensus::raft::Message::Vote { .. })
}
