//! The thread that drives a node: inputs in, effects out, never waiting for anything but the next input.
//!
//! ```text
//!   clients ─┐                       ┌─▶ disk threads ───┐
//!   devices ─┴─▶ queue ─▶ node ─▶ effects ─▶ streams     ├─▶ queue
//!   streams ──────────────▲          └─▶ machine thread ─┘
//!                         └── next deadline
//! ```
//! One round handles all that waits and then executes all effects, so under load many inputs cost one
//! wake-up, one log write, one message a peer and one apply. The queue is bounded by its sources: clients by
//! the places of [`Waiters`], devices by what was asked of them. What streams bring stays in their sockets until
//! this thread reads it.

use crate::clock::Clock;
use crate::disk::Disk;
use crate::folder::DataFolder;
use crate::handle::NodeNotice;
use crate::inbound::{Inbound, Inbox, Replier};
use crate::machine::MachineThreads;
use crate::metrics::Counters;
use crate::net::Net;
use crate::outside::warn_outside;
use crate::published::Published;
use crate::queue::{Drained, Then};
use crate::spin::Spin;
use crate::streams::Streams;
use crate::waiters::Waiters;
use quorate_consensus::Event;
use quorate_node::{Answer, Node, NodeEffect, NodeInput, RequestId, StopReason};
use quorate_types::{GroupId, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How old the published status may be while the node is not idle.
const STATUS_INTERVAL: Duration = Duration::from_millis(100);

/// How long streams may take to say the last of it when the node stops.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that the node's thread owns.
pub(crate) struct Driver<R> {
    pub(crate) name: String,
    pub(crate) node: Node,
    pub(crate) clock: Clock,
    pub(crate) queue: Arc<Inbox>,
    pub(crate) disk: Disk,
    pub(crate) machines: BTreeMap<GroupId, MachineThreads>,
    pub(crate) net: Net,
    pub(crate) streams: Streams,
    pub(crate) spin: Spin,
    pub(crate) waiters: Arc<Waiters<R>>,
    pub(crate) replier: Replier,
    pub(crate) published: Arc<Published>,
    pub(crate) counters: Arc<Counters>,
    /// Unlocked when this is dropped, after all that writes to it has ended.
    pub(crate) folder: DataFolder,
}

/// What one round leaves for its end, and what lasts from round to round.
struct Round {
    /// Answers of this round.
    answers: Vec<(RequestId, Answer)>,
    /// When the status was last published.
    published_at: Instant,
    /// Whether something happened since then.
    stale: bool,
    /// Whether something happened that people should see at once.
    urgent: bool,
}

impl<R: Send + 'static> Driver<R> {
    /// Drives the node until it stops, then ends everything that belongs to it.
    pub(crate) fn run(mut self) {
        let mut panicked = Some(PanicReport {
            waiters: Arc::clone(&self.waiters),
            published: Arc::clone(&self.published),
        });
        let mut round = Round {
            answers: Vec::new(),
            published_at: self.clock.now(),
            stale: true,
            urgent: true,
        };
        let mut inbound = Vec::new();
        let reason = loop {
            if let Some(reason) = self.execute_all(&mut round) {
                break reason;
            }
            let drained = match self.wait(&mut inbound, &round) {
                Ok(drained) => drained,
                Err(error) => {
                    let reason =
                        format!("the system does not say which sockets are ready: {error}");
                    break StopReason::Refused(reason);
                }
            };
            let now = self.clock.now();
            match drained {
                Drained::Items => {
                    self.counters.input_count.add(inbound.len());
                    round.stale = true;
                    if self.handle_all(now, &mut inbound) == Next::Abort {
                        break StopReason::Asked;
                    }
                }
                Drained::Nothing => {}
                // Only this thread closes the queue, further down.
                Drained::Closed => break StopReason::Asked,
            }
            self.read_streams(now, &mut round);
            self.counters.round_count.add(1);
            if self.node.next_deadline().is_some_and(|deadline| deadline <= now) {
                self.node.handle(now, NodeInput::Tick);
            }
        };
        drop(round);
        self.finish(reason);
        panicked.take().expect("it is taken once").disarm();
    }

    /// Waits for something to do, until the next deadline, and takes what waits in the queue.
    fn wait(&mut self, inbound: &mut Vec<Inbound>, round: &Round) -> std::io::Result<Drained> {
        let (queue, streams) = (&self.queue, &mut self.streams);
        self.spin.until(|| queue.has_news() || streams.is_ready() || streams.look());
        let sleep = if self.node.awaits_apply() { Then::Sleep } else { Then::SleepDeeply };
        let first = self.queue.take(inbound, sleep);
        if first != Drained::Nothing || self.streams.is_ready() {
            self.streams.wait(Some(Duration::ZERO))?;
            return Ok(first);
        }
        let now = self.clock.now();
        self.streams.wait(self.wake_at(round).map(|until| until.since(now)))?;
        Ok(self.queue.take(inbound, Then::GoOn))
    }

    /// Hands everything that waited in the queue to the node.
    fn handle_all(&mut self, now: Instant, inbound: &mut Vec<Inbound>) -> Next {
        for one in inbound.drain(..) {
            match one {
                Inbound::Node(input) => self.node.handle(now, input),
                Inbound::Opened { stream, direction, purpose, socket, ended } => {
                    self.streams.open(stream, socket, ended, now);
                    let opened = NodeInput::StreamOpened { stream, direction, purpose };
                    self.node.handle(now, opened);
                }
                Inbound::HangUp(stream) => self.streams.hang_up(stream),
                Inbound::Status(promise) => drop(promise.send(self.node.status(now))),
                Inbound::Abort => return Next::Abort,
            }
        }
        Next::Continue
    }

    /// Hands what came on the streams to the node.
    fn read_streams(&mut self, now: Instant, round: &mut Round) {
        let (node, mut count) = (&mut self.node, 0);
        self.streams.read(now, |input| {
            node.handle(now, input);
            count += 1;
        });
        self.counters.input_count.add(count);
        round.stale |= count > 0;
    }

    /// Executes every effect; gives the reason when the node stops.
    fn execute_all(&mut self, round: &mut Round) -> Option<StopReason> {
        let mut stop = None;
        while let Some(effect) = self.node.poll() {
            if let NodeEffect::Stop(reason) = effect {
                stop = Some(reason);
                break;
            }
            self.execute(effect, round);
        }
        self.streams.flush();
        if !round.answers.is_empty() {
            self.replier.deliver(self.waiters.answers(&mut round.answers));
        }
        let now = self.clock.now();
        if round.urgent || (round.stale && now.since(round.published_at) >= STATUS_INTERVAL) {
            self.published.publish(self.node.status(now));
            round.published_at = now;
            round.stale = false;
            round.urgent = false;
        }
        stop
    }

    fn execute(&mut self, effect: NodeEffect, round: &mut Round) {
        match effect {
            NodeEffect::Disk(request) => self.disk.submit(request),
            NodeEffect::Dial(addresses) => self.net.dial(addresses),
            NodeEffect::Send { stream, frame } => self.streams.push(stream, frame),
            NodeEffect::Close { stream, reason } => {
                self.streams.close(stream, self.clock.now(), reason);
            }
            NodeEffect::Machine { group, request } => {
                let machine = self.machines.get(&group);
                machine
                    .expect("the node only knows the groups it was opened with")
                    .requests
                    .push(request);
            }
            NodeEffect::Answer { id, answer } => round.answers.push((id, answer)),
            NodeEffect::Event { group, event } => {
                round.urgent |= changes_leadership(&event);
                self.published.notify(NodeNotice::Event { group, event });
            }
            NodeEffect::Outside(text) => warn_outside(format_args!("{}: {text}", self.name)),
            NodeEffect::Note(text) => {
                round.urgent = true;
                self.published.notify(NodeNotice::Note(text));
            }
            NodeEffect::Warning(text) => {
                round.urgent = true;
                self.published.notify(NodeNotice::Warning(text));
            }
            NodeEffect::Stop(_) => unreachable!("the caller ends the round at a stop"),
        }
    }

    /// When to go on if nothing comes: at a deadline of the node or of a stream, or when the published status is due.
    fn wake_at(&self, round: &Round) -> Option<Instant> {
        let publish = round.stale.then(|| round.published_at + STATUS_INTERVAL);
        let deadlines = [self.node.next_deadline(), self.streams.next_deadline(), publish];
        deadlines.into_iter().flatten().min()
    }

    /// Ends what belongs to the node, in the order of who uses whom.
    fn finish(self, reason: StopReason) {
        let Driver {
            name,
            node,
            clock,
            queue,
            disk,
            machines,
            net,
            streams,
            waiters,
            published,
            folder,
            ..
        } = self;
        published.publish(node.status(clock.now()));
        waiters.stop(&stop_text(&reason));
        streams.finish(CLOSE_TIMEOUT);
        queue.close();
        net.stop(CLOSE_TIMEOUT);
        machines.into_values().for_each(MachineThreads::stop);
        disk.stop();
        drop(folder);
        tracing::info!(node = name, ?reason, "stopped");
        published.stop(reason);
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Abort,
}

/// Whether whoever reads the published status should see this at once.
fn changes_leadership(event: &Event) -> bool {
    match event {
        Event::Role { .. }
        | Event::EpochChanged { .. }
        | Event::Leader { .. }
        | Event::SteppedDown { .. }
        | Event::Configuration { .. }
        | Event::NotReady { .. } => true,
        Event::Campaign { .. }
        | Event::Dropped { .. }
        | Event::SnapshotNeeded { .. }
        | Event::SnapshotInstalled { .. }
        | Event::Diverged { .. }
        | Event::Mended { .. }
        | Event::MembershipAnswer { .. } => false,
    }
}

fn stop_text(reason: &StopReason) -> String {
    match reason {
        StopReason::Asked => "the node was asked to stop".to_owned(),
        StopReason::Log(text) => format!("the node stopped because its log failed: {text}"),
        StopReason::Machine(fault) => {
            format!("the node stopped because its state machine failed: {fault}")
        }
        StopReason::Refused(text) => text.clone(),
    }
}

/// Ends every wait when the node's thread panics, where that does not end the process.
struct PanicReport<R> {
    waiters: Arc<Waiters<R>>,
    published: Arc<Published>,
}

impl<R> PanicReport<R> {
    fn disarm(self) {
        std::mem::forget(self);
    }
}

impl<R> Drop for PanicReport<R> {
    fn drop(&mut self) {
        let text = "the node's thread panicked: one of its invariants was broken";
        self.waiters.stop(text);
        self.published.stop(StopReason::Refused(text.to_owned()));
    }
}
