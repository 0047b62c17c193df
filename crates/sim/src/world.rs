//! The world: virtual time, a queue of what is to happen, and everything that it happens to.
//!
//! One thread, one queue. Two events at one moment happen in the order in which they were planned, and every choice comes
//! from the seed, so a seed is a whole history.

use crate::checkers::Violation;
use crate::checkers::agreement::Agreement;
use crate::checkers::configuration::Configurations;
use crate::checkers::election::Elections;
use crate::checkers::fates::Fates;
use crate::checkers::logs::Logs;
use crate::checkers::matches::Matches;
use crate::churn::{Churn, SPARE_COUNT, Standing};
use crate::client::Clients;
use crate::dice::Dice;
use crate::disk::{Ending, Ticket};
use crate::finale::Stage;
use crate::history::{Call, ClientId, Moment};
use crate::mutants::Mutant;
use crate::network::{End, Life, Network, Packet, ProcessId, Weather};
use crate::process::Process;
use crate::report::Counts;
use crate::settling::Settling;
use crate::swarm::Mix;
use crate::trace::{Trace, Verbosity};
use quorate_node::StreamPurpose;
use quorate_types::{Applied, FileName, GroupId, Instant, Origin};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The most events of a run for each virtual second of work, and of a minute more: ten times what the busiest need. Above it
/// something asks itself for more, for ever.
const EVENT_RATE_MAX: u64 = 50_000;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How long clients work under faults, in virtual time, after the cluster is formed.
    pub work: Duration,
    /// How much text the trace makes.
    pub verbosity: Verbosity,
    /// Whether what later versions of the world draw in addition is left out: then seeds mean what they meant to earlier
    /// ones.
    pub plain: bool,
    /// What is broken on purpose.
    pub mutant: Option<Mutant>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            work: Duration::from_secs(60),
            verbosity: Verbosity::Quiet,
            plain: false,
            mutant: None,
        }
    }
}

/// Something that is to happen.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process handles what waits.
    Wake(ProcessId, Life),
    /// A process is started, unless it was in the meantime.
    Open(ProcessId, Life),
    /// A start of an exiled node ends.
    CutExile(ProcessId, Life),
    /// A process tries to open a stream to another.
    Dial(ProcessId, Life, ProcessId, StreamPurpose),
    /// A frame arrives.
    Arrival(Packet),
    /// An end of a stream notices that it is closed; the other end was at this process.
    Closed(End, ProcessId),
    /// A disk request is done.
    Disk(ProcessId, Ticket, Ending),
    /// A system writes a file back by itself.
    WriteBack(ProcessId, FileName),
    /// A state machine carries out its next request.
    Machine(ProcessId, Life),
    /// A sync of a state machine's engine is done: of its first so many batches, which hold this much.
    Synced(ProcessId, Life, u64, Applied),
    /// A client calls.
    Call(ClientId),
    /// A client that called then must have been answered by now.
    Overdue(ClientId, Moment),
    /// The fault of this number in the mix strikes.
    Strike(usize),
    /// Links are mended.
    Mend(Vec<(ProcessId, ProcessId)>),
    /// A machine's links hold frames back until then.
    Clog(ProcessId, Instant),
    /// A follower of this leader and the leader crash, and the follower loses its hard state.
    Forget(ProcessId, ProcessId),
    /// A leader dies, if it is still in this life.
    EndReign(ProcessId, Life),
    /// A disk has space again.
    Space(ProcessId),
    /// An operator looks at the members.
    Operate,
    /// Somebody asks what became of a proposal, for the so-many-th time.
    Settle(Origin, u32),
    /// The run looks whether its stage is over.
    Look,
}

/// An event and when it happens.
struct Planned {
    /// When.
    at: Instant,
    /// Breaks ties: in order of planning.
    number: u64,
    /// What.
    event: Event,
}

impl PartialEq for Planned {
    fn eq(&self, other: &Planned) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Planned) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Planned) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The streams of random numbers, one a purpose.
pub(crate) struct Streams {
    /// Fates of frames.
    pub(crate) network: Dice,
    /// Latencies of disks and what crashes leave.
    pub(crate) disk: Dice,
    /// Which fault strikes whom, and when.
    pub(crate) faults: Dice,
    /// What clients call.
    pub(crate) clients: Dice,
    /// Wake-ups and state machines.
    pub(crate) process: Dice,
}

/// One run.
pub struct World {
    /// Now, in virtual time.
    pub(crate) now: Instant,
    /// What is to happen.
    queue: BinaryHeap<Reverse<Planned>>,
    /// How many events were planned.
    planned_count: u64,
    /// The latest moment of the history.
    moment: u64,
    /// How the run is made.
    pub(crate) options: Options,
    /// What the seed drew.
    pub(crate) mix: Mix,
    /// Random numbers.
    pub(crate) dice: Streams,
    /// What happened.
    pub(crate) trace: Trace,
    /// Links and streams.
    pub(crate) network: Network,
    /// The processes.
    pub(crate) processes: Vec<Process>,
    /// The clients.
    pub(crate) clients: Clients,
    /// What is decided.
    pub(crate) agreement: Agreement,
    /// Who led.
    pub(crate) elections: Elections,
    /// What leaders believe of their peers.
    pub(crate) matches: Matches,
    /// What the logs of leaders hold.
    pub(crate) logs: Logs,
    /// Who counts.
    pub(crate) configurations: Configurations,
    /// What became of proposals.
    pub(crate) fates: Fates,
    /// Who asks what became of theirs.
    pub(crate) settling: Settling,
    /// What operators want of it.
    pub(crate) churn: Churn,
    /// What processes are set to when they start with other settings.
    pub(crate) tuning: Dice,
    /// Until when leaders die young.
    pub(crate) reigns_short_until: Instant,
    /// How far the run is.
    pub(crate) stage: Stage,
    /// Since when.
    pub(crate) stage_began: Instant,
    /// What each process must still answer at the end.
    pub(crate) probes: Vec<Option<Call>>,
    /// Who is healed at the end, while the others keep what ails them.
    pub(crate) core: Vec<ProcessId>,
    /// Those in it that follow its leader.
    pub(crate) core_led: Vec<ProcessId>,
    /// The epoch in which it got on.
    pub(crate) core_epoch: u64,
    /// What happened, in numbers.
    pub(crate) counts: Counts,
    /// The first broken promise; nothing happens after it.
    pub(crate) violation: Option<Violation>,
}

impl World {
    /// The world of a seed, before anything has happened.
    #[must_use]
    pub fn new(seed: u64, options: Options) -> World {
        let mix = if options.plain { Mix::plain(seed) } else { Mix::draw(seed) };
        let count = mix.process_count + if mix.churn.is_some() { SPARE_COUNT } else { 0 };
        let weather = if mix.early { mix.weather } else { Weather::fair() };
        World {
            now: Instant::ZERO,
            queue: BinaryHeap::new(),
            planned_count: 0,
            moment: 0,
            options,
            dice: Streams {
                network: Dice::new(seed, "network"),
                disk: Dice::new(seed, "disk"),
                faults: Dice::new(seed, "faults"),
                clients: Dice::new(seed, "clients"),
                process: Dice::new(seed, "process"),
            },
            trace: Trace::new(options.verbosity),
            network: Network::new(count, weather),
            processes: (0..count).map(|id| Process::new(standing(id, mix.process_count))).collect(),
            clients: Clients::new(mix.workload, count),
            agreement: Agreement::default(),
            elections: Elections::default(),
            matches: Matches::default(),
            logs: Logs::default(),
            configurations: Configurations::default(),
            fates: Fates::default(),
            settling: Settling::new(seed),
            churn: Churn::new(seed, mix.churn),
            tuning: Dice::new(seed, "settings"),
            reigns_short_until: Instant::ZERO,
            stage: Stage::Forming,
            stage_began: Instant::ZERO,
            probes: vec![None; count],
            core: Vec::new(),
            core_led: Vec::new(),
            core_epoch: 0,
            counts: Counts::default(),
            violation: None,
            mix,
        }
    }

    /// Runs to the end, or to the first broken promise.
    pub fn run(&mut self) {
        self.begin();
        while self.violation.is_none() && self.stage != Stage::Over {
            let Some(Reverse(Planned { at, number: _, event })) = self.queue.pop() else { break };
            assert!(at >= self.now, "an event at {at} was planned for the past of {}", self.now);
            self.now = at;
            self.happen(event);
            if self.planned_count > EVENT_RATE_MAX * (self.options.work.as_secs() + 60) {
                self.fail("bounded", format!("{} events were planned", self.planned_count));
            }
        }
        self.counts.virtual_nanos = self.now.0;
        self.counts.step_count = self.trace.step_count();
        self.counts.leader_count = self.elections.count();
        self.counts.completed_count = self.clients.history().completed_count();
        self.counts.operation_count = self.clients.history().operations.len() as u64;
        self.counts.frames = self.network.counts();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(process, life) => self.wake(process, life),
            Event::Open(process, life) => self.open(process, life),
            Event::CutExile(process, life) => self.cut_exile(process, life),
            Event::Dial(from, life, to, purpose) => self.dial(from, life, to, purpose),
            Event::Arrival(packet) => self.arrive(&packet),
            Event::Closed(end, peer) => self.notice_closed(end, peer),
            Event::Disk(process, ticket, ending) => self.disk_done(process, ticket, ending),
            Event::WriteBack(process, file) => self.processes[process.0].disk.write_back(&file),
            Event::Machine(process, life) => self.machine_step(process, life),
            Event::Synced(process, life, written, applied) => {
                self.machine_synced(process, life, written, applied);
            }
            Event::Call(client) => self.call(client),
            Event::Overdue(client, called) => self.check_answered(client, called),
            Event::Strike(number) => self.strike(number),
            Event::Mend(links) => self.mend(&links),
            Event::Clog(victim, until) => self.begin_clog(victim, until),
            Event::Forget(victim, leader) => self.forget(victim, leader),
            Event::EndReign(process, life) => self.end_reign(process, life),
            Event::Space(process) => self.processes[process.0].disk.set_full(false),
            Event::Operate => self.operate(),
            Event::Settle(origin, asked_count) => self.settle(origin, asked_count),
            Event::Look => self.look(),
        }
    }

    /// Plans an event.
    pub(crate) fn plan(&mut self, at: Instant, event: Event) {
        let number = self.planned_count;
        self.planned_count += 1;
        self.queue.push(Reverse(Planned { at: at.max(self.now), number, event }));
    }

    /// Plans an event for a while from now.
    pub(crate) fn plan_in(&mut self, wait: Duration, event: Event) {
        self.plan(self.now + wait, event);
    }

    /// The next moment of the history.
    pub(crate) fn next_moment(&mut self) -> Moment {
        self.moment += 1;
        Moment(self.moment)
    }

    /// Records a broken promise: the first one ends the run.
    pub(crate) fn accuse(&mut self, result: Result<(), Violation>) {
        if let (Err(violation), None) = (result, &self.violation) {
            self.trace.step(self.now, "violation", &[], |f| write!(f, "{violation}"));
            self.violation = Some(violation);
        }
    }

    /// Records that `promise` is broken.
    pub(crate) fn fail(&mut self, promise: &'static str, seen: String) {
        self.accuse(Err(Violation { promise, seen }));
    }

    /// The group that everything happens in.
    pub(crate) fn group(&self) -> GroupId {
        GroupId(0)
    }

    /// What happened, in numbers.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The first broken promise.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Takes the trace out.
    #[must_use]
    pub fn into_trace(self) -> Trace {
        self.trace
    }
}

/// Machines beside those that form the cluster wait until they are wanted.
fn standing(id: usize, founder_count: usize) -> Standing {
    if id < founder_count { Standing::Present } else { Standing::Spare }
}
