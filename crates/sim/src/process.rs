//! A process: a production node, its log's disk and its store's engine, started, woken, crashed and started again.

use crate::checkers::claims::Claims;
use crate::checkers::order::Order;
use crate::checkers::stalls::Stalls;
use crate::checkers::{Violation, bounded, damage};
use crate::churn::Standing;
use crate::clock::Clock;
use crate::core::FOR_EVER;
use crate::dice::PartsPerMillion;
use crate::disk::{CrashDisk, Ending, Ticket};
use crate::engine::Machine;
use crate::faults::devices::Image;
use crate::history::{ClientId, Outcome};
use crate::marks;
use crate::mutants::Mutant;
use crate::network::{Life, ProcessId};
use crate::world::{Event, World};
use quorate_consensus::{Event as ConsensusEvent, Mending, Message, RoleName};
use quorate_log::{DamageReport, DamageWhat, Log, LogOptions};
use quorate_node::{
    Node, NodeEffect, NodeInput, NodeOptions, Phase, RequestId, StopReason, StreamPurpose,
};
use quorate_store::engine::MemoryDisk;
use quorate_types::{
    DiskOp, DiskReader, DiskRequest, Frame, FrameKind, GroupId, Instant, LogSummary, NodeId,
    Origin, ProtocolName, StateMachine,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many starts of a seed whose settings change come with other settings.
const TUNED_STARTS: PartsPerMillion = 400_000;

/// At one in so many starts the log is compared with what was claimed before.
const OPEN_SAMPLE: u64 = 3;

/// How many starts of an exiled node end early.
const EXILE_CUT: PartsPerMillion = 600_000;

/// How long such a start lasts, at most.
const EXILE_CUT_MAX: Duration = Duration::from_millis(100);

/// What a folder says that knows itself refused.
const REFUSED_FOR_GOOD: &str = "refused this data folder for good";

/// What a folder says whose log lost its end to damage, when its engine holds more, or something else than what the lost
/// end had replaced: the member is to be replaced.
const LOG_CUT_SHORT: [&str; 2] =
    ["the log was replaced or rolled back", "where the log holds another entry"];

/// How long after a folder changed its peers may still have streams of the node before: they notice late that those are
/// closed, and stand still at times.
const EXILE_KNOWN_AFTER: Duration = Duration::from_secs(10);

/// How many requests of operators may wait beside those of clients.
const OPERATOR_COUNT: usize = 10;

/// How long a slow process takes to wake, at most.
const SLOW_WAKE_MAX: Duration = Duration::from_millis(40);

/// How long a slow disk takes longer for each request, at most.
const SLOW_DISK_MAX: Duration = Duration::from_millis(120);

/// One in so many wake-ups is followed by a look at the node's status.
const STATUS_SAMPLE: u64 = 8;

/// How often in a row a node may ask to be woken at once and then do nothing: more is a loop that burns a processor.
const IDLE_COUNT_MAX: u64 = 10;

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
    /// How long it has led without its disk.
    stalls: Stalls,
    /// How its next write to the log ends.
    pub(crate) sabotage: Option<Ending>,
    /// The write that ends so, once it is under way.
    pub(crate) sabotaged: Option<Ticket>,
    /// Until when its disk stands still.
    pub(crate) disk_stalled_until: Instant,
    /// What waits for a disk that stands still until it is told otherwise.
    stalled: Vec<(Ticket, Ending)>,
    /// Until when its disk takes long.
    pub(crate) disk_slow_until: Instant,
    /// Which node its folder makes it, as far as it knew when it last ran.
    pub(crate) node: Option<NodeId>,
    /// Whether its log may be damaged.
    pub(crate) is_wounded: bool,
    /// Whether its hard state may be lost: that takes everybody else to make up for.
    pub(crate) is_forgetful: bool,
    /// Whether its disk was ever damaged, or failed to sync: what lies behind the end of the log may not be what it was, and once the end has
    /// come there, it cannot be told from a batch that was lost.
    pub(crate) is_tainted: bool,
    /// Whether its engine was lost, and nothing has taken its place yet.
    pub(crate) is_stateless: bool,
    /// Whether its folder is not the one that the cluster knows: it must never take part again.
    pub(crate) is_exiled: bool,
    /// Since when.
    pub(crate) exiled_since: Instant,
    /// Whether that folder itself knows, so that no node is opened on it any more.
    pub(crate) is_barred: bool,
    /// Whether it must not be started again before everything is healed.
    pub(crate) is_frozen: bool,
    /// Where it stands to the cluster.
    pub(crate) standing: Standing,
    /// What its folder was at an earlier time.
    pub(crate) image: Option<Image>,
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
    /// Its clock.
    pub(crate) clock: Clock,
    /// When this life began.
    pub(crate) began: Instant,
    /// When it is to be woken next.
    wake_at: Option<Instant>,
    /// Until when it stands still.
    pub(crate) paused_until: Instant,
    /// Until when it takes long for everything.
    pub(crate) slow_until: Instant,
    /// Which processes it keeps streams to.
    pub(crate) dialled: BTreeSet<ProcessId>,
    /// Which streams it is about to dial.
    pub(crate) dialling: BTreeSet<(ProcessId, StreamPurpose)>,
    /// The next stream.
    pub(crate) next_stream: u64,
    /// The transfer of which it last sent a piece, and the number of that.
    pub(crate) last_piece: Option<(u64, u64)>,
    /// The next request.
    pub(crate) next_request: u64,
    /// Who waits for which request.
    pub(crate) requests: BTreeMap<RequestId, ClientId>,
    /// Requests that ask what became of a proposal.
    pub(crate) settling: BTreeMap<RequestId, Origin>,
    /// Whether it has met a slot that it cannot read. Those behind it are suspected of the same and written again when they
    /// come again, applied or not.
    pub(crate) is_suspicious: bool,
    /// How often it was woken.
    wake_count: u64,
    /// How often in a row it was woken when it had asked to be, had nothing to do, and asked for the same moment again.
    idle_count: u64,
    /// After how many more messages with entries it falls silent, if it is to.
    pub(crate) appends_left: Option<u64>,
    /// Whether it was asked to leave.
    pub(crate) leaving: bool,
    /// Whether a failure of its disk was simulated in this life.
    pub(crate) disk_failed: bool,
    /// Whether one of its engine was.
    pub(crate) engine_failed: bool,
}

impl Running {
    pub(crate) fn local(&self, now: Instant) -> Instant {
        self.clock.local(now)
    }

    /// What the node says of itself.
    pub(crate) fn status(&self, now: Instant) -> quorate_node::NodeStatus {
        self.node.status(self.local(now))
    }

    fn global(&self, local: Instant) -> Instant {
        self.clock.global(local)
    }
}

impl Process {
    pub(crate) fn new(standing: Standing) -> Process {
        Process {
            disk: CrashDisk::new(),
            engine: MemoryDisk::new(),
            life: Life(0),
            running: None,
            claims: Claims::default(),
            order: Order::default(),
            stalls: Stalls::default(),
            sabotage: None,
            sabotaged: None,
            disk_stalled_until: Instant::ZERO,
            stalled: Vec::new(),
            disk_slow_until: Instant::ZERO,
            node: None,
            is_wounded: false,
            is_forgetful: false,
            is_tainted: false,
            is_stateless: false,
            is_exiled: false,
            exiled_since: Instant::ZERO,
            is_barred: false,
            is_frozen: false,
            standing,
            image: None,
        }
    }
}

/// The name that an operator gave to a process.
pub(crate) fn name(process: ProcessId) -> String {
    format!("n{}", process.0 + 1)
}

/// Where peers reach it.
pub(crate) fn address(process: ProcessId) -> String {
    format!("{}.sim:7000", name(process))
}

/// The process of a name.
pub(crate) fn process_named(name: &str) -> Option<ProcessId> {
    name.strip_prefix('n')?.parse::<usize>().ok()?.checked_sub(1).map(ProcessId)
}

pub(crate) fn process_at(address: &str) -> Option<ProcessId> {
    process_named(address.strip_suffix(".sim:7000")?)
}

/// What a log on a disk says.
pub(crate) struct LogFound {
    /// Of the group.
    pub(crate) log: LogSummary,
    /// Of what it cannot read.
    pub(crate) reports: Vec<DamageReport>,
}

impl LogFound {
    /// Whether its end is unreadable.
    pub(crate) fn has_lost_end(&self) -> bool {
        self.reports.iter().any(|report| report.what == DamageWhat::End)
    }
}

/// What a log on a disk says of a group.
pub(crate) fn read_log(
    disk: &dyn DiskReader,
    options: &LogOptions,
    group: GroupId,
) -> Result<LogFound, String> {
    let (_, mut recovery) = Log::open(disk, options.clone()).map_err(|error| error.to_string())?;
    let log = recovery.groups.remove(&group).unwrap_or_default();
    Ok(LogFound { log, reports: recovery.reports })
}

impl World {
    /// Starts a process, if it is still in the life after which this start was planned.
    pub(crate) fn open(&mut self, id: ProcessId, life: Life) {
        let process = &mut self.processes[id.0];
        let is_closed = process.is_frozen || process.is_barred;
        if process.running.is_some() || is_closed || process.life != life {
            return;
        }
        process.life = Life(life.0 + 1);
        process.order.on_restart();
        self.configurations.on_restart(id);
        process.stalls = Stalls::default();
        self.trace.step(self.now, "open", &[id.0 as u64, life.0 + 1], |f| {
            write!(f, "{} for the {}. time", name(id), life.0 + 1)
        });
        if self.dice.process.below(OPEN_SAMPLE) == 0 {
            self.check_opened(id);
        }
        if self.mix.is_tuned && self.tuning.chance(TUNED_STARTS) {
            self.mix.settings[id.0].tune(&mut self.tuning);
        }
        let is_exiled = self.processes[id.0].is_exiled;
        let has_left = self.processes[id.0].standing == Standing::Left || self.is_leaving(id);
        let is_outcast = is_exiled || has_left;
        match self.try_open(id) {
            Ok(()) if is_exiled && self.dice.process.chance(EXILE_CUT) => {
                let wait = self.dice.process.duration(Duration::from_millis(1), EXILE_CUT_MAX);
                self.plan_in(wait, Event::CutExile(id, Life(life.0 + 1)));
            }
            Ok(()) => {}
            Err(reason) if is_outcast && reason.contains(REFUSED_FOR_GOOD) => {
                self.processes[id.0].is_barred = true;
            }
            Err(reason) if self.processes[id.0].is_wounded && is_cut_short(&reason) => {
                self.processes[id.0].is_exiled = true;
                self.processes[id.0].is_barred = true;
            }
            Err(reason) => self.fail("open", format!("{} cannot start: {reason}", name(id))),
        }
    }

    /// A start of an exiled node ends early, perhaps before it has heard or recorded that it is refused.
    pub(crate) fn cut_exile(&mut self, id: ProcessId, life: Life) {
        if self.processes[id.0].life == life && self.processes[id.0].running.is_some() {
            self.kill(id);
            self.reopen_later(id);
        }
    }

    /// No member takes an exiled node for one of its peers: what was on its way when the folder changed is over by now.
    fn check_exiles(
        &self,
        id: ProcessId,
        status: &quorate_node::NodeStatus,
    ) -> Result<(), Violation> {
        let is_let_in = |exile: &ProcessId| {
            let process = &self.processes[exile.0];
            let is_long = self.now.since(process.exiled_since) > EXILE_KNOWN_AFTER;
            let is_heard = || status.peers.get(&name(*exile)).is_some_and(|peer| peer.incoming);
            process.is_exiled && is_long && process.running.is_some() && is_heard()
        };
        match self.ids().find(is_let_in) {
            Some(exile) if !self.processes[id.0].is_exiled => {
                let seen = format!(
                    "{} lets {} in, which must never take part again",
                    name(id),
                    name(exile)
                );
                Err(Violation { promise: "exile", seen })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_opened(&mut self, id: ProcessId) {
        let group = self.group();
        let process = &self.processes[id.0];
        if process.is_wounded {
            return;
        }
        let result = match read_log(&process.disk, self.mix.log(id), group) {
            Ok(found) if process.is_tainted && found.has_lost_end() => return self.wound(id),
            Ok(LogFound { log, reports }) => {
                let node = self.label(id);
                let result = process.claims.check_opened(node, &log);
                let is_honest = !process.is_tainted;
                let is_whole = || damage::check_opened(node, &log, &reports);
                result.and_then(|()| if is_honest { is_whole() } else { Ok(()) })
            }
            // The node will say so itself.
            Err(_) => Ok(()),
        };
        self.accuse(result);
    }

    fn try_open(&mut self, id: ProcessId) -> Result<(), String> {
        let shown = Instant(self.now.0 + self.dice.process.below(1 << 42));
        let clock = Clock::new(self.now, shown);
        let options = self.node_options(id);
        let process = &mut self.processes[id.0];
        let machine = Machine::open(&process.engine).map_err(|fault| fault.to_string())?;
        let state = machine.store.state();
        process
            .order
            .on_open(state.applied.position.index)
            .map_err(|violation| violation.to_string())?;
        let node = Node::open(shown, options, &process.disk, BTreeMap::from([(GroupId(0), state)]))
            .map_err(|error| error.to_string())?;
        let is_stateless = !node.status(shown).awaiting_snapshot.is_empty();
        self.counts.stateless_start_count += u64::from(is_stateless);
        process.running = Some(Running {
            node,
            machine,
            node_id: None,
            inbox: Vec::new(),
            clock,
            began: self.now,
            wake_at: None,
            paused_until: self.now,
            slow_until: Instant::ZERO,
            dialled: BTreeSet::new(),
            dialling: BTreeSet::new(),
            next_stream: 0,
            last_piece: None,
            next_request: 0,
            requests: BTreeMap::new(),
            settling: BTreeMap::new(),
            is_suspicious: false,
            wake_count: 0,
            idle_count: 0,
            appends_left: None,
            leaving: false,
            disk_failed: false,
            engine_failed: false,
        });
        self.wake_soon(id);
        Ok(())
    }

    /// The id of a process's node for reports: that of a newcomer may not be known yet.
    pub(crate) fn label(&self, id: ProcessId) -> NodeId {
        self.node_of(id).unwrap_or(NodeId(id.0 as u64 + 1))
    }

    fn node_options(&mut self, id: ProcessId) -> NodeOptions {
        let join = self.join_of(id);
        let founders = (0..self.mix.process_count).map(ProcessId);
        let founders = founders.map(|id| (name(id), address(id)));
        NodeOptions {
            name: name(id),
            cluster: if join.is_none() { founders.collect() } else { Vec::new() },
            join,
            protocol: ProtocolName::Raft,
            timing: self.mix.settings[id.0].timing,
            limits: self.mix.settings[id.0].limits,
            log: self.mix.log(id).clone(),
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

    pub(crate) fn wake_soon(&mut self, id: ProcessId) {
        let latency_max = self.mix.wake_latency_max;
        let mut at = self.dice.process.moment(self.now, Duration::from_micros(1), latency_max);
        let running = self.processes[id.0].running.as_ref();
        if running.is_some_and(|running| running.slow_until > self.now) {
            at = self.dice.process.moment(at, Duration::ZERO, SLOW_WAKE_MAX);
        }
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
        let (status, local) = (running.status(self.now), running.local(self.now));
        running.node_id = status.node;
        if status.phase == Phase::Running && status.awaiting_snapshot.is_empty() {
            process.is_stateless = false;
        }
        let (settling_count, is_suspicious) = (running.settling.len(), running.is_suspicious);
        let result = self.check_exiles(id, &status);
        self.accuse(result);
        let callers = self.mix.workload.client_count + self.processes.len() + OPERATOR_COUNT;
        let process = &mut self.processes[id.0];
        if let Some(group) = status.groups.get(&GroupId(0)) {
            let has_state = !status.awaiting_snapshot.contains(&GroupId(0));
            let result =
                process.order.on_status(group, has_state, process.is_wounded || is_suspicious);
            let limits = &self.mix.settings[id.0].limits;
            // A client that stopped waiting may have called again.
            let waiting_max = callers * 2 + settling_count;
            let result =
                result.and(bounded::check(group, status.waiting_count, limits, waiting_max));
            // Who was refused leads nobody, whatever its replica last said of itself.
            let result = match status.phase {
                Phase::Running => result.and(process.stalls.on_status(group, local)),
                Phase::Recovering
                | Phase::Forming { .. }
                | Phase::Joining { .. }
                | Phase::Stopped(_) => result,
            };
            for (mark, count) in marks::of_metrics(&group.metrics) {
                let hits = self.counts.marks.entry(mark).or_default();
                *hits = (*hits).max(count);
            }
            let result = result.and(self.matches.on_status(group));
            let are_whole = self.processes.iter().all(|it| !it.is_wounded && !it.is_tainted);
            let result = result.and(self.configurations.on_status(id, group, are_whole));
            // Only a log that was harmed forgets.
            let process = &self.processes[id.0];
            let running = process.running.as_ref().filter(|_| process.is_tainted);
            let members = running.map(|running| running.machine.store.state().members);
            let result = result.and(
                members.map_or(Ok(()), |members| self.configurations.on_members(group, &members)),
            );
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
            NodeEffect::Note(text) | NodeEffect::Warning(text) | NodeEffect::Outside(text) => {
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
        if self.processes[id.0].disk_slow_until > self.now {
            at = dice.moment(at, Duration::ZERO, SLOW_DISK_MAX);
        }
        let process = &mut self.processes[id.0];
        at = at.max(process.disk_stalled_until);
        let mut ending = Ending::Good;
        if let DiskOp::Write { file, sync: true, .. } = &request.op {
            let lies = match self.options.mutant {
                Some(Mutant::AckBeforeSync) => true,
                Some(Mutant::VoteBeforeSync) => answers_vote,
                Some(_) | None => false,
            };
            let retried = self.options.mutant == Some(Mutant::SyncRetried)
                && process.sabotage == Some(Ending::SyncFailed);
            if retried {
                process.sabotage = None;
                ending = Ending::SyncRetried;
            } else if let Some(sabotage) = process.sabotage.take() {
                ending = sabotage;
                process.running.as_mut().expect("it asked").disk_failed |=
                    matches!(sabotage, Ending::WriteFailed | Ending::SyncFailed);
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
        let process = &mut self.processes[id.0];
        let ticket = process.disk.submit(request);
        if ending != Ending::Good {
            process.sabotaged = Some(ticket);
        }
        if at >= FOR_EVER {
            return process.stalled.push((ticket, ending));
        }
        self.plan(at, Event::Disk(id, ticket, ending));
    }

    /// A disk that stood still until now goes on.
    pub(crate) fn end_stall(&mut self, id: ProcessId) {
        self.processes[id.0].disk_stalled_until = Instant::ZERO;
        for (ticket, ending) in std::mem::take(&mut self.processes[id.0].stalled) {
            let speed = self.mix.disk;
            let at = self.dice.disk.moment(self.now, speed.latency_min, speed.latency_max);
            self.plan(at, Event::Disk(id, ticket, ending));
        }
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

    fn note_event(&mut self, id: ProcessId, group: GroupId, event: &ConsensusEvent) {
        self.trace.step(self.now, "event", &[id.0 as u64], |f| write!(f, "{} {event}", name(id)));
        let node = self.processes[id.0].running.as_ref().and_then(|running| running.node_id);
        if let Some(mark) = marks::of_event(event) {
            *self.counts.marks.entry(mark).or_default() += 1;
        }
        match event {
            ConsensusEvent::Role { epoch, role } => {
                let node = node.unwrap_or(epoch.owner);
                let result = self.elections.on_event(node, group, event);
                self.accuse(result);
                if let Some(status) = self.group_status(id) {
                    let result = self.configurations.on_role(id, *role, &status);
                    self.accuse(result);
                }
                if *role == RoleName::Leader {
                    self.on_reign(id);
                }
            }
            ConsensusEvent::Configuration { index, configuration } => {
                if let Some(status) = self.group_status(id) {
                    let result =
                        self.configurations.on_appended(id, *index, configuration, &status);
                    self.accuse(result);
                }
            }
            ConsensusEvent::Mended { position, how: Mending::FromMemory } => {
                self.processes[id.0].order.on_rewritten(position.index);
            }
            ConsensusEvent::Diverged { .. } => self.fail("agreement", event.to_string()),
            ConsensusEvent::SnapshotInstalled { .. } => self.counts.snapshot_count += 1,
            ConsensusEvent::EpochChanged { .. }
            | ConsensusEvent::Leader { .. }
            | ConsensusEvent::Campaign { .. }
            | ConsensusEvent::SteppedDown { .. }
            | ConsensusEvent::Dropped { .. }
            | ConsensusEvent::SnapshotNeeded { .. }
            | ConsensusEvent::Mended { how: Mending::From(_) | Mending::GivenUp, .. }
            | ConsensusEvent::MembershipAnswer { .. } => {}
            ConsensusEvent::NotReady { .. } => {
                if let Some(running) = &mut self.processes[id.0].running {
                    running.is_suspicious = true;
                }
            }
        }
    }

    /// A node stops by itself: only right when it was asked to, or when its disk failed.
    fn stopped(&mut self, id: ProcessId, reason: StopReason) {
        self.trace.step(self.now, "stop", &[id.0 as u64], |f| write!(f, "{} {reason:?}", name(id)));
        let running = self.processes[id.0].running.as_ref().expect("it spoke");
        let right = match &reason {
            StopReason::Asked => running.leaving,
            StopReason::Log(_) => running.disk_failed,
            StopReason::Machine(_) => running.engine_failed,
            StopReason::Refused(_) => {
                let is_dropped = |node| self.configurations.is_dropped(node);
                self.processes[id.0].is_exiled || self.node_of(id).is_some_and(is_dropped)
            }
        };
        if !right {
            self.fail("stop", format!("{} stops: {reason:?}", name(id)));
        }
        if matches!(reason, StopReason::Refused(_)) && !self.processes[id.0].is_exiled {
            // A peer knows that it was removed before anybody has applied that.
            self.processes[id.0].standing = Standing::Left;
        }
        let is_asked = reason == StopReason::Asked;
        self.kill(id);
        if is_asked && self.processes[id.0].standing == Standing::Left {
            return;
        }
        // A supervisor starts a node that was refused like any other.
        self.reopen_later(id);
    }

    /// Starts a process that is down after a while.
    pub(crate) fn reopen_later(&mut self, id: ProcessId) {
        let slow = self.faults_go_on() && self.dice.faults.chance(300_000);
        let longest = if slow { Duration::from_secs(6) } else { Duration::from_millis(400) };
        let wait = self.dice.faults.duration(Duration::from_millis(5), longest);
        let life = self.processes[id.0].life;
        self.plan_in(wait, Event::Open(id, life));
    }

    /// What a crash of any kind takes: memory, streams, and answers that were under way.
    pub(crate) fn end_life(&mut self, id: ProcessId, notice_max: Duration) {
        let Some(running) = self.processes[id.0].running.take() else { return };
        self.counts.crash_count += 1;
        self.processes[id.0].node = running.status(self.now).node;
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
}

/// Whether a node does not start because its log lost its end.
fn is_cut_short(reason: &str) -> bool {
    LOG_CUT_SHORT.iter().any(|text| reason.contains(text))
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
