//! The node: what it is told goes in, what it asks for comes out.

mod early;
mod forming;
mod found;
mod joining;
mod opening;
mod refused;
mod streams;

pub use opening::OpenError;

use crate::formation::Formation;
use crate::group::{Context, DiskIds, Group};
use crate::identity::{IdentityStore, IdentityVersion, Membership};
use crate::interface::{
    Answer, NodeEffect, NodeInput, NodeOptions, Request, RequestId, StopReason,
};
use crate::peers::Peers;
use crate::roster::Roster;
use crate::status::{NodeStatus, Phase};
use early::Early;
use quorate_consensus::{Control, Input, RefuseReason};
use quorate_log::{Log, LogEvent, LogStatus};
use quorate_types::{
    Applied, Configuration, DiskDone, GroupId, Instant, LogSummary, NodeId, SnapshotName, WriteId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// The group that a node forms its cluster with.
const SYSTEM_GROUP: GroupId = GroupId(0);

/// The write that this crate submits before a protocol is opened: the first configuration, or the reset that an
/// interrupted install still owes.
const OPENING_WRITE: WriteId = WriteId(0);

/// How often a full log tries again to get space.
const SPACE_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// How far a node is.
enum Stage {
    /// The start number becomes durable, and the log what no record proves synced.
    Starting {
        /// Whether the log has said that it is recovered.
        is_recovered: bool,
    },
    /// A cluster is being formed.
    Forming(Forming),
    /// Every founder holds the roster; the log takes in the first configuration.
    Bootstrapping(Roster),
    /// A cluster that is formed is asked to take this node in.
    Joining,
    /// It has; the log takes in its configuration.
    Admitted(Membership),
    /// The log has it; the identity file takes in the membership.
    Enrolling(IdentityVersion),
    /// The log takes in the reset that an interrupted install owes.
    Resetting(SnapshotName),
    /// The replicas run.
    Running,
}

/// Formation and what is on the way for it.
struct Forming {
    /// What is known.
    formation: Formation,
    /// The version of the identity file that holds the roster, until it is durable.
    recording: Option<IdentityVersion>,
    /// When to say again what this node knows.
    say_at: Instant,
    /// The members that a note named last.
    noted_missing: Vec<String>,
}

/// A clean leave under way.
#[derive(Clone, Copy, Debug)]
struct Leaving {
    /// When it ends at the latest.
    deadline: Instant,
}

/// A final refusal whose way to the identity file is not over.
#[derive(Clone, Debug)]
struct CastOut {
    /// The version of the file that holds it.
    version: IdentityVersion,
    /// Why.
    text: String,
}

/// One node of a cluster: a deterministic function from [`NodeInput`] to [`NodeEffect`].
///
/// It is driven like a [`quorate_consensus::Protocol`]: tell it all that waits with [`Node::handle`], then take what it
/// asks for with [`Node::poll`] until there is nothing, then wait for the next input or for [`Node::next_deadline`].
///
/// # Invariants
/// 1. No hello is said, and no origin used, before this start's number is durable.
/// 2. No protocol is opened before the log holds the first configuration durably and every founder has recorded the
///    same roster durably.
/// 3. After [`NodeEffect::Stop`] nothing more comes.
/// 4. A member that was refused for good says and does nothing more but record it, and stops once that is durable.
pub struct Node {
    /// Who it is to be.
    options: NodeOptions,
    /// The time of the last input.
    now: Instant,
    /// How far it is.
    stage: Stage,
    /// Who it is.
    identity: IdentityStore,
    /// The log of all groups.
    log: Log,
    /// What the log and the state machines said of themselves at open, until the replicas run.
    found: BTreeMap<GroupId, Found>,
    /// The replicas.
    groups: BTreeMap<GroupId, Group>,
    /// The streams.
    peers: Peers,
    /// The peers, as last assigned.
    assigned: Vec<(String, String)>,
    /// Names of disk requests.
    disk_ids: DiskIds,
    /// What it asks for.
    out: VecDeque<NodeEffect>,
    /// Why it must stop, if it must.
    stop: Option<StopReason>,
    /// Why it has stopped.
    stopped: Option<String>,
    /// A clean leave under way.
    leaving: Option<Leaving>,
    /// When to try again to get space for the log.
    space_at: Option<Instant>,
    /// Refusals of strangers that were noted.
    noted: BTreeSet<String>,
    /// The final refusal that this node records before it stops.
    cast_out: Option<CastOut>,
    /// Requests that wait for the replicas to be opened.
    early: Early,
}

/// What was found of one group at open.
struct Found {
    /// What the log says.
    log: LogSummary,
    /// How far the state machine is.
    applied: Applied,
    /// The install that was interrupted, if its reset is still owed.
    reset: Option<SnapshotName>,
    /// Whether there is an install file that is of no more use.
    has_install_file: bool,
    /// Whether the state machine stands below what the log holds, so that only a snapshot brings it further.
    needs_snapshot: bool,
}

impl Node {
    /// Tells the node something. It never fails: what peers say is checked, and what is wrong is refused.
    pub fn handle(&mut self, now: Instant, input: NodeInput) {
        if self.stopped.is_some() {
            return;
        }
        // Within one moment nothing becomes due but what is late already, and that the next tick finds.
        let may_be_due = now > self.now || matches!(input, NodeInput::Tick);
        self.now = self.now.max(now);
        if self.cast_out.is_some() {
            return self.handle_cast_out(input);
        }
        match input {
            NodeInput::Tick => {}
            NodeInput::Request { id, request } => self.on_request(id, request),
            NodeInput::StreamOpened { stream, direction, purpose } => {
                self.on_stream_opened(stream, direction, purpose);
            }
            NodeInput::StreamClosed { stream, .. } => self.peers.closed(stream),
            NodeInput::Frame { stream, frame } => self.on_frame(stream, frame),
            NodeInput::Disk(done) => self.on_disk(done),
            NodeInput::Machine { group, done } => {
                self.with_group(group, |group, ctx| group.on_machine(ctx, done));
            }
            NodeInput::Shutdown => self.on_shutdown(),
        }
        if may_be_due && self.next_deadline().is_some_and(|at| at <= self.now) {
            self.on_time();
        }
    }

    /// The next thing that the node asks for; `None` when it asks for nothing more until it is told something.
    pub fn poll(&mut self) -> Option<NodeEffect> {
        if self.out.is_empty() && self.stopped.is_none() {
            self.settle();
        }
        self.out.pop_front()
    }

    /// When [`NodeInput::Tick`] is due if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.stopped.is_some() || self.cast_out.is_some() {
            return None;
        }
        let forming = match &self.stage {
            Stage::Forming(forming) => Some(forming.say_at),
            Stage::Starting { .. }
            | Stage::Bootstrapping(_)
            | Stage::Joining
            | Stage::Admitted(_)
            | Stage::Enrolling(_)
            | Stage::Resetting(_)
            | Stage::Running => None,
        };
        let groups = self.groups.values().filter_map(Group::next_deadline).min();
        let leaving = self.leaving.map(|leaving| leaving.deadline);
        let (log, peers) = (self.log.next_deadline(), self.peers.next_deadline());
        let all = [forming, groups, leaving, self.space_at, log, peers, self.early.next_deadline()];
        all.into_iter().flatten().min()
    }

    /// Whether the node has something to do as soon as it hears that entries were applied. Otherwise that may wait
    /// for the next input or deadline.
    #[must_use]
    pub fn awaits_apply(&self) -> bool {
        self.leaving.is_some() || self.groups.values().any(Group::awaits_apply)
    }

    /// What the node knows of itself and its surroundings, as plain data.
    #[must_use]
    pub fn status(&self, now: Instant) -> NodeStatus {
        let identity = self.identity.identity();
        let applied = match self.stage {
            Stage::Running => {
                self.groups.iter().map(|(id, group)| (*id, group.applied())).collect()
            }
            Stage::Starting { .. }
            | Stage::Forming(_)
            | Stage::Bootstrapping(_)
            | Stage::Joining
            | Stage::Admitted(_)
            | Stage::Enrolling(_)
            | Stage::Resetting(_) => {
                self.found.iter().map(|(id, found)| (*id, found.applied)).collect()
            }
        };
        NodeStatus {
            name: self.options.name.clone(),
            node: identity.membership.map(|membership| membership.node),
            cluster: identity.membership.map(|membership| membership.cluster),
            incarnation: identity.incarnation,
            start: identity.start,
            phase: self.phase(),
            groups: self.groups.iter().map(|(id, group)| (*id, group.status(now))).collect(),
            applied,
            awaiting_snapshot: self.awaiting_snapshot(),
            peers: self.peers.reach(now),
            log: self.log_status(),
            waiting_count: self.groups.values().map(Group::waiting_count).sum::<usize>()
                + self.early.count(),
        }
    }

    /// The groups whose state machine is lost.
    fn awaiting_snapshot(&self) -> BTreeSet<GroupId> {
        let found = self.found.iter().filter(|(_, found)| found.needs_snapshot).map(|(id, _)| *id);
        let groups = self.groups.iter().filter(|(_, group)| group.is_awaiting_snapshot());
        found.chain(groups.map(|(id, _)| *id)).collect()
    }

    fn log_status(&self) -> LogStatus {
        self.log.status()
    }

    fn phase(&self) -> Phase {
        if let Some(text) = &self.stopped {
            return Phase::Stopped(text.clone());
        }
        // It takes part in nothing any more, however long its disk takes to record why.
        if let Some(CastOut { text, .. }) = &self.cast_out {
            return Phase::Stopped(text.clone());
        }
        match &self.stage {
            Stage::Starting { .. } | Stage::Resetting(_) => Phase::Recovering,
            Stage::Forming(forming) => Phase::Forming { missing: forming.formation.missing() },
            Stage::Joining | Stage::Admitted(_) | Stage::Bootstrapping(_) | Stage::Enrolling(_) => {
                match &self.options.join {
                    Some(join) => Phase::Joining { contacts: join.contacts.clone() },
                    None => Phase::Forming { missing: Vec::new() },
                }
            }
            Stage::Running => Phase::Running,
        }
    }

    /// The configuration in force; while none is logged, the one that formation agreed on.
    fn configuration(&self) -> Option<Configuration> {
        let running = self.groups.get(&SYSTEM_GROUP).and_then(Group::configuration);
        let found = || {
            let configurations = &self.found.get(&SYSTEM_GROUP)?.log.configurations;
            configurations.last().map(|(_, configuration)| configuration.clone())
        };
        let agreed = || self.identity.identity().roster.as_ref().map(Roster::configuration);
        running.cloned().or_else(found).or_else(agreed)
    }

    /// Everybody to talk to: the configuration in force, and members of later ones that the log has yet to reach.
    fn acquaintances(&self) -> Option<Configuration> {
        let running = self.groups.get(&SYSTEM_GROUP).and_then(Group::acquaintances);
        running.or_else(|| self.configuration())
    }

    fn with_group(&mut self, id: GroupId, run: impl FnOnce(&mut Group, &mut Context<'_>)) {
        if let Some(group) = self.groups.get_mut(&id) {
            let mut ctx = Context {
                now: self.now,
                log: &mut self.log,
                peers: &self.peers,
                out: &mut self.out,
                stop: &mut self.stop,
            };
            run(group, &mut ctx);
        }
    }

    fn with_groups(&mut self, mut run: impl FnMut(&mut Group, &mut Context<'_>)) {
        let Node { now, log, groups, peers, out, stop, .. } = self;
        for group in groups.values_mut() {
            run(group, &mut Context { now: *now, log, peers, out, stop });
        }
    }

    fn note(&mut self, text: String) {
        self.out.push_back(NodeEffect::Note(text));
    }

    fn warn(&mut self, text: String) {
        self.out.push_back(NodeEffect::Warning(text));
    }

    fn on_request(&mut self, id: RequestId, request: Request) {
        let group = match &request {
            Request::Propose { group, .. }
            | Request::Read { group, .. }
            | Request::Settle { group, .. }
            | Request::Control { group, .. } => *group,
        };
        if !self.is_running() && self.leaving.is_none() {
            return self.wait_for_replica(id, request);
        }
        let reason = if self.leaving.is_some() {
            Some(RefuseReason::Transferring)
        } else if self.groups.contains_key(&group) {
            None
        } else {
            Some(RefuseReason::NotReady)
        };
        if let Some(reason) = reason {
            let missing = match self.phase() {
                Phase::Forming { missing } => missing,
                Phase::Recovering | Phase::Joining { .. } | Phase::Running | Phase::Stopped(_) => {
                    Vec::new()
                }
            };
            let answer = Answer::Refused { reason, missing };
            self.out.push_back(NodeEffect::Answer { id, answer });
            return;
        }
        let timeout = self.options.request_timeout;
        self.with_group(group, |group, ctx| group.on_request(ctx, id, request, timeout));
    }

    fn on_disk(&mut self, done: DiskDone) {
        if let Some(result) = self.identity.handle(&done) {
            if let Err(error) = result {
                let text = format!("the identity file cannot be written: {error}");
                self.stop.get_or_insert(StopReason::Log(text));
            }
            return;
        }
        let mut is_taken = false;
        self.with_groups(|group, ctx| is_taken |= group.on_disk(ctx, &done));
        if !is_taken {
            self.log.handle(self.now, done);
        }
    }

    fn on_time(&mut self) {
        let now = self.now;
        for stream in self.peers.overdue(now) {
            self.close(stream, "no hello came");
        }
        if self.space_at.is_some_and(|at| at <= now) {
            self.log.retry_space();
            self.space_at = Some(now + SPACE_RETRY_INTERVAL);
        }
        self.end_overdue_early();
        self.say_formation_when_due();
        self.log.on_time(now);
        self.with_groups(|group, ctx| group.on_time(ctx));
    }

    /// Lets everything that was told take effect, until nothing more follows from it.
    fn settle(&mut self) {
        if self.cast_out.is_some() && self.stop.is_none() {
            return self.settle_cast_out();
        }
        loop {
            let before = self.out.len();
            let mut has_moved = self.take_log_events();
            self.advance();
            for change in self.peers.take_link_changes() {
                self.with_groups(|group, ctx| group.on_link(ctx, &change));
            }
            self.with_groups(Group::drive);
            self.maybe_reassign_peers();
            self.maybe_leave();
            self.poll_disks();
            has_moved |= self.take_log_events();
            if let Some(reason) = self.stop.take() {
                return self.halt(reason);
            }
            if !has_moved && self.out.len() == before {
                return;
            }
        }
    }

    fn take_log_events(&mut self) -> bool {
        let mut has_moved = false;
        while let Some(event) = self.log.poll_event() {
            has_moved = true;
            self.on_log_event(event);
        }
        has_moved
    }

    fn poll_disks(&mut self) {
        let ids = &mut self.disk_ids;
        let mut requests: Vec<_> = self.identity.poll(|| ids.next()).into_iter().collect();
        for group in self.groups.values_mut() {
            requests.extend(group.poll_disk(ids));
        }
        requests.extend(std::iter::from_fn(|| self.log.poll()));
        self.out.extend(requests.into_iter().map(NodeEffect::Disk));
    }

    fn on_log_event(&mut self, event: LogEvent) {
        match event {
            LogEvent::Recovered => {
                if let Stage::Starting { is_recovered } = &mut self.stage {
                    *is_recovered = true;
                }
            }
            LogEvent::Durable { write: OPENING_WRITE, .. } if !self.is_running() => {
                self.on_opening_write_durable();
            }
            LogEvent::Durable { group, write } => {
                self.with_group(group, |group, ctx| group.on_durable(ctx, write));
            }
            LogEvent::Fetched { group, read, slots, damaged } => {
                self.with_group(group, |group, ctx| group.on_fetched(ctx, read, slots, damaged));
            }
            LogEvent::Space { full } => {
                self.space_at = full.then_some(self.now + SPACE_RETRY_INTERVAL);
                self.note(if full {
                    "the disk of the log is full: free some space".to_owned()
                } else {
                    "the disk of the log has space again".to_owned()
                });
            }
            LogEvent::Failed { reason } => {
                self.stop.get_or_insert(StopReason::Log(reason));
            }
        }
    }

    fn is_running(&self) -> bool {
        matches!(self.stage, Stage::Running)
    }

    fn on_shutdown(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        self.end_all_early();
        let patience = self.options.timing.election_timeout_max;
        self.leaving = Some(Leaving { deadline: self.now + patience });
        let now = self.now;
        self.with_groups(|group, ctx| {
            if let Some(successor) = successor(group, ctx.now) {
                group.tell(now, Input::Control(Control::Transfer(successor)));
            }
        });
    }

    /// Leaves when leadership is elsewhere, or nobody can take it, nobody waits, and the engines are synced, so that a node
    /// that is started again without its peers shows what it had applied; or when patience is at its end.
    fn maybe_leave(&mut self) {
        let Some(leaving) = self.leaving else { return };
        let now = self.now;
        let is_done = |group: &Group| group.waiting_count() == 0 && successor(group, now).is_none();
        let is_late = leaving.deadline <= now;
        if is_late || (self.groups.values().all(is_done) && self.are_all_saved()) {
            self.with_groups(Group::give_up_all);
            self.stop.get_or_insert(StopReason::Asked);
        }
    }

    /// Whether every engine holds durably what was applied when this was asked first; sees to it that they will.
    fn are_all_saved(&mut self) -> bool {
        let mut are_saved = true;
        self.with_groups(|group, ctx| are_saved &= group.save(ctx));
        are_saved
    }

    fn halt(&mut self, reason: StopReason) {
        self.end_all_early();
        self.with_groups(Group::give_up_all);
        if reason == StopReason::Asked {
            // Nothing will be written any more: that the last batch is synced is said now, for the next open.
            self.log.on_time(Instant(u64::MAX));
            self.poll_disks();
        }
        self.stopped = Some(match &reason {
            StopReason::Asked => "asked to".to_owned(),
            StopReason::Log(text) | StopReason::Refused(text) => text.clone(),
            StopReason::Machine(fault) => fault.to_string(),
        });
        self.out.push_back(NodeEffect::Stop(reason));
    }
}

/// Whom a leader can hand over to: the voter that can be reached and has most of the log. `None` when it does not lead.
fn successor(group: &Group, now: Instant) -> Option<NodeId> {
    let status = group.status(now);
    if status.leader != Some(status.node) {
        return None;
    }
    let fit = status
        .peers
        .iter()
        .filter(|(id, peer)| peer.link_up && status.configuration.is_voter(**id));
    fit.max_by_key(|(_, peer)| peer.matched).map(|(id, _)| *id)
}
