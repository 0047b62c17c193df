//! One replica on this node: joins its protocol, its part of the log and its state machine.

mod machine_steps;
mod snapshot_steps;

use crate::install::InstallFile;
use crate::interface::{
    Answer, NodeEffect, Request, RequestId, StopReason, StreamId, StreamPurpose,
};
use crate::later::Later;
use crate::machine::Machine;
use crate::peers::{LinkChange, Peers, Speaker};
use crate::transfer::{Inbound, Outbound, Wanted};
use crate::waiters::{Answered, Waiters};
use bytes::BytesMut;
use quorate_consensus::{
    Control, Effect, Event, FetchId, Input, Message, Opening, Options, Protocol, RefuseReason,
    RoleName, SnapshotEffect, Status,
};
use quorate_log::{Log, ReadId};
use quorate_types::{
    Applied, Configuration, DiskDone, DiskId, DiskRequest, EntryKind, FRAME_PAYLOAD_MAX, Frame,
    FrameKind, GroupId, Incarnation, Index, Instant, Member, Mistake, NodeId, ProtocolName, Slot,
    StartNumber, WriteId,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// The names of disk requests that the node itself makes; those of the log lie below.
#[derive(Debug)]
pub(crate) struct DiskIds(u64);

impl DiskIds {
    /// None was used.
    pub(crate) fn new() -> DiskIds {
        DiskIds(1 << 62)
    }

    /// The next.
    pub(crate) fn next(&mut self) -> DiskId {
        self.0 += 1;
        DiskId(self.0)
    }
}

/// The names of reads of the log, of which several may be under way.
#[derive(Debug)]
struct ReadIds(u64);

impl ReadIds {
    /// None was used.
    fn new() -> ReadIds {
        ReadIds(0)
    }

    /// The next.
    fn next(&mut self) -> ReadId {
        self.0 += 1;
        ReadId(self.0)
    }
}

/// What a group reaches of its node.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    /// The time.
    pub(crate) now: Instant,
    /// The log of all groups.
    pub(crate) log: &'a mut Log,
    /// The streams.
    pub(crate) peers: &'a Peers,
    /// What the node asks for.
    pub(crate) out: &'a mut VecDeque<NodeEffect>,
    /// Why the node must stop, if it must.
    pub(crate) stop: &'a mut Option<StopReason>,
}

impl Context<'_> {
    fn answer(&mut self, answers: impl IntoIterator<Item = Answered>) {
        for (id, answer) in answers {
            self.out.push_back(NodeEffect::Answer { id, answer });
        }
    }

    fn fail(&mut self, reason: StopReason) {
        self.stop.get_or_insert(reason);
    }
}

/// What a group is opened with.
#[derive(Debug)]
pub(crate) struct GroupOptions {
    /// Which protocol.
    pub(crate) protocol: ProtocolName,
    /// What the protocol is told of itself.
    pub(crate) options: Options,
    /// How often the data folder was opened; durable.
    pub(crate) start: StartNumber,
    /// Where transfers are named from.
    pub(crate) run: u64,
    /// Whether an install file was found that is of no more use.
    pub(crate) has_install_file: bool,
}

/// How many changes of membership may be asked for at once: people ask for them.
const TARGETS_MAX: usize = 16;

/// One replica.
pub(crate) struct Group {
    /// Which group.
    id: GroupId,
    /// This node.
    node: NodeId,
    /// The protocol.
    protocol: Box<dyn Protocol>,
    /// Messages that wait for a write.
    held: BTreeMap<WriteId, Vec<(NodeId, Message)>>,
    /// The last write known durable in this run.
    durable: Option<WriteId>,
    /// The configurations in force from an index on.
    configurations: BTreeMap<Index, Configuration>,
    /// Members of a later configuration than this log holds.
    later: Later,
    /// Whether either has changed since the node last looked.
    has_configuration_changed: bool,
    /// Who leads, as far as is known.
    leader: Option<NodeId>,
    /// Clients that wait.
    waiters: Waiters,
    /// Who waits for the answer to a target membership, nobody for one that the node asked for, and until when.
    targets: VecDeque<(Option<RequestId>, Instant)>,
    /// The state machine.
    machine: Machine,
    /// The snapshot on its way out.
    outbound: Outbound,
    /// The snapshot on its way in.
    inbound: Inbound,
    /// The snapshot that the state machine cannot go on without, if it cannot.
    wanted: Option<Wanted>,
    /// The record of an install under way.
    install_file: InstallFile,
    /// Whether the protocol's next write brings the log in line with an install.
    is_write_owed: bool,
    /// The write whose durability ends an install.
    install_write: Option<WriteId>,
    /// What must be synced before the node leaves, once it wants to.
    save_up_to: Option<Index>,
    /// Reads of the log that the protocol asked for.
    fetches: BTreeMap<ReadId, FetchId>,
    /// Names of reads of the log.
    read_ids: ReadIds,
}

impl Group {
    /// Opens a replica whose log and state machine belong together.
    pub(crate) fn open(now: Instant, group: GroupOptions, opening: Opening) -> Group {
        let GroupOptions { protocol, options, start, run, has_install_file } = group;
        let configurations: BTreeMap<Index, Configuration> =
            opening.log.configurations.iter().cloned().collect();
        let purged = opening.log.bounds.purged.index;
        let is_behind = opening.applied.position.index < purged;
        let machine = Machine::new(opening.applied, options.limits.digest_interval);
        let resend_after = options.timing.election_timeout_max;
        let later = Later::of(&configurations);
        Group {
            id: options.group,
            node: options.node,
            protocol: open_protocol(protocol, now, options, opening),
            held: BTreeMap::new(),
            durable: None,
            configurations,
            later,
            has_configuration_changed: false,
            leader: None,
            waiters: Waiters::new(options.node, options.incarnation, start, resend_after),
            targets: VecDeque::new(),
            machine,
            outbound: Outbound::new(run),
            inbound: Inbound::new(),
            wanted: is_behind.then(|| Wanted::new(now, purged)),
            install_file: InstallFile::new(options.group, has_install_file),
            is_write_owed: false,
            install_write: None,
            save_up_to: None,
            fetches: BTreeMap::new(),
            read_ids: ReadIds::new(),
        }
    }

    /// The configuration in force.
    pub(crate) fn configuration(&self) -> Option<&Configuration> {
        self.configurations.values().next_back()
    }

    /// Everybody to talk to: the members of the configuration in force, and those of later ones that this log does not hold
    /// yet.
    pub(crate) fn acquaintances(&self) -> Option<Configuration> {
        Some(self.later.beside(self.configuration()?))
    }

    /// A member of this cluster has said who it is. Whether that is news, because the log here lags behind.
    pub(crate) fn introduce(&mut self, node: NodeId, member: Member) -> bool {
        let Some(configuration) = self.configurations.values().next_back() else { return false };
        node != self.node && self.later.introduce(configuration, node, member)
    }

    /// Whether that is certain to stay.
    pub(crate) fn is_configuration_committed(&self) -> bool {
        let last = self.configurations.keys().next_back();
        last.is_some_and(|index| *index <= self.protocol.committed())
    }

    /// How many clients wait.
    pub(crate) fn waiting_count(&self) -> usize {
        self.waiters.count()
    }

    /// Whether something can go on once entries handed over are applied.
    pub(crate) fn awaits_apply(&self) -> bool {
        self.machine.is_held_up() || self.waiters.awaits_apply()
    }

    /// How far the state machine has come.
    pub(crate) fn applied(&self) -> Applied {
        self.machine.applied()
    }

    /// Whether the state machine is lost and nothing may be served from it.
    pub(crate) fn is_awaiting_snapshot(&self) -> bool {
        self.wanted.is_some()
    }

    /// The replica, as plain data.
    pub(crate) fn status(&self, now: Instant) -> Status {
        self.protocol.status(now)
    }

    /// The protocol is told something.
    pub(crate) fn tell(&mut self, now: Instant, input: Input) {
        self.protocol.handle(now, input);
    }

    /// A client wants something.
    pub(crate) fn on_request(
        &mut self,
        ctx: &mut Context<'_>,
        id: RequestId,
        request: Request,
        timeout: Duration,
    ) {
        let now = ctx.now;
        let taken = match request {
            // No reply could be given, and nothing read.
            Request::Propose { .. } | Request::Read { .. } | Request::Settle { .. }
                if self.wanted.is_some() =>
            {
                Err(RefuseReason::NotReady)
            }
            // Only `Request::Settle` makes those.
            Request::Propose { kind: EntryKind::Settle, .. } => Err(RefuseReason::NotReady),
            Request::Propose { kind, body, deadline, .. } => {
                let deadline = deadline.unwrap_or(now + timeout);
                self.waiters.propose(id, kind, body, deadline)
            }
            Request::Settle { origin, .. } if !self.waiters.may_exist(origin) => {
                let text = format!("{} has made no proposal {origin}", self.node);
                ctx.answer([(id, Answer::Declined(text))]);
                Ok(())
            }
            Request::Settle { origin, deadline, .. } => {
                self.waiters.settle(id, origin, deadline.unwrap_or(now + timeout))
            }
            Request::Read { deadline, .. } => {
                self.waiters.read(id, deadline.unwrap_or(now + timeout))
            }
            Request::Control { control: control @ Control::TargetMembership { .. }, .. } => {
                if self.targets.len() >= TARGETS_MAX {
                    Err(RefuseReason::Busy)
                } else {
                    self.targets.push_back((Some(id), now + timeout));
                    self.protocol.handle(now, Input::Control(control));
                    Ok(())
                }
            }
            Request::Control { control, .. } => {
                self.protocol.handle(now, Input::Control(control));
                ctx.answer([(id, Answer::Taken)]);
                Ok(())
            }
        };
        if let Err(reason) = taken {
            ctx.answer([(id, Answer::Refused { reason, missing: Vec::new() })]);
        }
    }

    /// The node itself asks for other members.
    pub(crate) fn target(&mut self, now: Instant, base: Configuration, target: Configuration) {
        /// How long the answer may take; nobody waits for it.
        const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
        if self.targets.len() < TARGETS_MAX {
            self.targets.push_back((None, now + ANSWER_TIMEOUT));
            let control = Control::TargetMembership { base, target };
            self.protocol.handle(now, Input::Control(control));
        }
    }

    /// A peer says something to the protocol. False when its bytes are no message.
    pub(crate) fn on_message(&mut self, now: Instant, speaker: &Speaker, frame: &Frame) -> bool {
        let Ok(message) = Message::decode(frame.payload.clone()) else { return false };
        // A voter counts only under the incarnation that the configuration names.
        if let Some(from) = self.member(&speaker.name, speaker.incarnation) {
            self.protocol.handle(now, Input::Message { from, message });
        }
        true
    }

    /// The member of that name, if that incarnation is the one that counts.
    fn member(&self, name: &str, incarnation: Incarnation) -> Option<NodeId> {
        let members = self.configuration()?.members.iter().chain(self.later.members());
        let mut members = members.filter(|(_, member)| member.name == name);
        members.find(|(_, member)| member.incarnation == incarnation).map(|(node, _)| *node)
    }

    /// A link came up or went down.
    pub(crate) fn on_link(&mut self, ctx: &mut Context<'_>, change: &LinkChange) {
        if let Some(peer) = self.member(&change.name, change.incarnation) {
            let LinkChange { incarnation, up, .. } = *change;
            self.protocol.handle(ctx.now, Input::Link { peer, incarnation, up });
            if up && self.leader == Some(peer) {
                // What was said while there was no way to it is lost.
                self.waiters.resend_all();
            }
            if !up {
                let effects = self.outbound.on_link_down(ctx.now, peer);
                self.on_transfer(ctx, effects);
            }
        }
    }

    /// The log has made a write durable, and with it every earlier one.
    pub(crate) fn on_durable(&mut self, ctx: &mut Context<'_>, write: WriteId) {
        self.durable = self.durable.max(Some(write));
        let released = match Mistake::ReleasedByAnyWrite.is_made() {
            true => WriteId(u64::MAX),
            false => write.next(),
        };
        let later = self.held.split_off(&released);
        for (to, message) in std::mem::replace(&mut self.held, later).into_values().flatten() {
            self.send(ctx, to, &message);
        }
        if self.install_write.is_some_and(|wanted| wanted <= write) {
            self.install_write = None;
            self.install_file.forget();
        }
        self.protocol.handle(ctx.now, Input::Durable(write));
    }

    /// The log answers a fetch.
    pub(crate) fn on_fetched(
        &mut self,
        ctx: &mut Context<'_>,
        read: ReadId,
        slots: Vec<Slot>,
        damaged: Option<quorate_log::Damage>,
    ) {
        if let Some(damage) = damaged {
            let text = format!("the log is damaged: {}", damage.report);
            ctx.out.push_back(NodeEffect::Warning(text));
            self.protocol.handle(ctx.now, Input::Damaged(damage.fault));
        }
        if self.machine.take_read(read) {
            self.hand_over_slots(ctx, slots);
        } else if let Some(id) = self.fetches.remove(&read) {
            self.protocol.handle(ctx.now, Input::Fetched { id, slots });
        }
    }

    /// A disk request of the node is done; false when it is none of this group's.
    pub(crate) fn on_disk(&mut self, ctx: &mut Context<'_>, done: &DiskDone) -> bool {
        match self.install_file.handle(done) {
            None => return false,
            Some(Ok(true)) => self.begin_install(ctx),
            Some(Ok(false)) => {}
            Some(Err(error)) => ctx.fail(StopReason::Log(error.to_string())),
        }
        true
    }

    /// The next disk request of this group beside the log.
    pub(crate) fn poll_disk(&mut self, ids: &mut DiskIds) -> Option<DiskRequest> {
        self.install_file.poll(|| ids.next())
    }

    /// Time has passed.
    pub(crate) fn on_time(&mut self, ctx: &mut Context<'_>) {
        let now = ctx.now;
        if self.protocol.next_deadline().is_some_and(|at| at <= now) {
            self.protocol.handle(now, Input::Tick);
        }
        self.machine.on_time(now);
        let peers = ctx.peers;
        let answers = self.waiters.on_time(now, &|| peers.missing());
        ctx.answer(answers);
        while self.targets.front().is_some_and(|(_, due)| *due <= now) {
            if let Some((Some(id), _)) = self.targets.pop_front() {
                ctx.answer([(id, Answer::Unknown { origin: None, missing: peers.missing() })]);
            }
        }
        let effects = self.outbound.on_time(now);
        self.on_transfer(ctx, effects);
        self.ask_for_snapshot(ctx);
    }

    /// When something is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        [
            self.protocol.next_deadline(),
            self.machine.next_deadline(),
            self.waiters.next_deadline(self.leader.is_some()),
            self.targets.front().map(|(_, due)| *due),
            self.outbound.next_deadline(),
            self.wanted.as_ref().map(Wanted::next_deadline),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Answers everybody who waits: the node leaves.
    pub(crate) fn give_up_all(&mut self, ctx: &mut Context<'_>) {
        let answers = self.waiters.give_up_all();
        ctx.answer(answers);
        let targets = std::mem::take(&mut self.targets);
        let unknown = Answer::Unknown { origin: None, missing: Vec::new() };
        let targets = targets.into_iter().filter_map(|(id, _)| id);
        ctx.answer(targets.map(|id| (id, unknown.clone())));
    }

    /// Lets the protocol form its effects and carries them out, until it has nothing more to say.
    pub(crate) fn drive(&mut self, ctx: &mut Context<'_>) {
        loop {
            let has_flushed = self.flush(ctx.now);
            let mut fetched = Vec::new();
            let mut has_said = false;
            while let Some(effect) = self.protocol.poll() {
                has_said = true;
                self.execute(ctx, effect, &mut fetched);
            }
            for (id, slots) in fetched {
                self.protocol.handle(ctx.now, Input::Fetched { id, slots });
            }
            self.hand_over(ctx);
            if !has_flushed && !has_said {
                return;
            }
        }
    }

    /// Hands waiting proposals and reads to the protocol: one batch, one barrier.
    fn flush(&mut self, now: Instant) -> bool {
        if self.leader.is_none() {
            return false;
        }
        let proposals = self.waiters.take_proposals(now);
        let read = self.waiters.take_read(now);
        let has_flushed = !proposals.is_empty() || read.is_some();
        if !proposals.is_empty() {
            self.protocol.handle(now, Input::Propose(proposals));
        }
        if let Some(id) = read {
            self.protocol.handle(now, Input::Read(id));
        }
        has_flushed
    }

    fn execute(
        &mut self,
        ctx: &mut Context<'_>,
        effect: Effect,
        fetched: &mut Vec<(FetchId, Vec<Slot>)>,
    ) {
        match effect {
            Effect::Persist { id, ops } => {
                self.note_write(id);
                ctx.log.submit(self.id, id, ops);
            }
            Effect::Send { to, message, after } => match after {
                Some(write) if self.durable < Some(write) && !Mistake::AfterIgnored.is_made() => {
                    self.held.entry(write).or_default().push((to, message));
                }
                Some(_) | None => self.send(ctx, to, &message),
            },
            Effect::SendBulk { to, message } => {
                // Without a bulk stream, late is better than never.
                let bulk = self.way_to(ctx, to, StreamPurpose::Bulk);
                let stream = bulk.or_else(|| self.way_to(ctx, to, StreamPurpose::Messages));
                self.send_on(ctx, stream, to, &message);
            }
            Effect::Apply { last, .. } => self.machine.allow(last),
            Effect::Refused { origin, reason, .. } => {
                let answer = self.waiters.on_refused(ctx.now, origin, reason);
                ctx.answer(answer);
            }
            Effect::ReadReady { id, index } => {
                let applied = self.machine.applied().position.index;
                let answers = self.waiters.on_read_ready(id, index, applied);
                ctx.answer(answers);
            }
            Effect::ReadFailed { id, .. } => self.waiters.on_read_failed(ctx.now, id),
            Effect::Fetch { id, first, last, budget } => {
                match ctx.log.cached(self.id, first, last, budget) {
                    Some(slots) => fetched.push((id, slots)),
                    None => {
                        let read = self.read_ids.next();
                        self.fetches.insert(read, id);
                        ctx.log.fetch(self.id, read, first, last, budget);
                    }
                }
            }
            Effect::Snapshot(step) => self.on_snapshot(ctx, step),
            Effect::Event(event) => self.on_event(ctx, event),
        }
    }

    fn on_snapshot(&mut self, ctx: &mut Context<'_>, step: SnapshotEffect) {
        match step {
            SnapshotEffect::Send { to, epoch } => {
                let is_reachable = self.way_to(ctx, to, StreamPurpose::Bulk).is_some();
                let effects = self.outbound.send(ctx.now, to, epoch, is_reachable);
                self.on_transfer(ctx, effects);
            }
            SnapshotEffect::Install { from, position } => {
                let effects = self.inbound.install(from, position);
                self.on_transfer(ctx, effects);
            }
            SnapshotEffect::Discard { .. } => self.inbound.discard(),
        }
    }

    fn on_event(&mut self, ctx: &mut Context<'_>, event: Event) {
        match &event {
            Event::Leader { leader, .. } => self.on_leader(*leader),
            Event::Role { role: RoleName::Leader, .. } => self.on_leader(Some(self.node)),
            Event::Configuration { index, configuration } => {
                let former = self.configuration().cloned();
                self.configurations.split_off(index);
                self.configurations.insert(*index, configuration.clone());
                self.later.pass(former.as_ref(), configuration);
                self.has_configuration_changed = true;
            }
            Event::MembershipAnswer { refusal } => {
                if let Some((Some(id), _)) = self.targets.pop_front() {
                    let declined = refusal.clone().map(Answer::Declined);
                    ctx.answer([(id, declined.unwrap_or(Answer::Taken))]);
                }
            }
            Event::Role { .. }
            | Event::EpochChanged { .. }
            | Event::Campaign { .. }
            | Event::SteppedDown { .. }
            | Event::Dropped { .. }
            | Event::SnapshotNeeded { .. }
            | Event::SnapshotInstalled { .. }
            | Event::Diverged { .. }
            | Event::Mended { .. }
            | Event::NotReady { .. } => {}
        }
        ctx.out.push_back(NodeEffect::Event { group: self.id, event });
    }

    /// Another leader may never have heard of what the last one was sent.
    fn on_leader(&mut self, leader: Option<NodeId>) {
        if leader.is_some() && leader != self.leader {
            self.waiters.resend_all();
        }
        self.leader = leader;
    }

    /// Where to say something to a member; `None` when it cannot be reached.
    fn way_to(&self, ctx: &Context<'_>, to: NodeId, purpose: StreamPurpose) -> Option<StreamId> {
        let member = self.configuration()?.members.get(&to).or_else(|| self.later.member(to))?;
        ctx.peers.way_to(&member.name, purpose)
    }

    fn send(&self, ctx: &mut Context<'_>, to: NodeId, message: &Message) {
        let stream = self.way_to(ctx, to, StreamPurpose::Messages);
        self.send_on(ctx, stream, to, message);
    }

    fn send_on(
        &self,
        ctx: &mut Context<'_>,
        stream: Option<StreamId>,
        to: NodeId,
        message: &Message,
    ) {
        let Some(stream) = stream else { return };
        let mut payload = BytesMut::new();
        message.encode(&mut payload);
        if payload.len() > FRAME_PAYLOAD_MAX {
            let size = payload.len();
            let note = format!("a message of {size} bytes to {to} is above a frame; dropped");
            ctx.out.push_back(NodeEffect::Note(note));
            return;
        }
        let payload = payload.freeze();
        let frame = Frame { kind: FrameKind::Consensus, group: self.id, payload };
        ctx.out.push_back(NodeEffect::Send { stream, frame });
    }

    /// Whether the configuration has changed since this was last asked.
    pub(crate) fn take_configuration_change(&mut self) -> bool {
        std::mem::take(&mut self.has_configuration_changed)
    }
}

fn open_protocol(
    name: ProtocolName,
    now: Instant,
    options: Options,
    opening: Opening,
) -> Box<dyn Protocol> {
    match name {
        ProtocolName::Raft => Box::new(quorate_consensus::raft::Raft::open(now, options, opening)),
        ProtocolName::Paxos | ProtocolName::Zab | ProtocolName::Vsr => {
            unreachable!("`Node::open` refuses protocols that are not there")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_disk_requests_have_one_name() {
        let mut ids = DiskIds::new();
        let names: Vec<u64> = (0..9).map(|_| ids.next().0).collect();
        assert!(names.iter().all(|name| *name > 1 << 62), "those of the log lie below");
        assert!(names.is_sorted_by(|one, next| one < next));
    }

    #[test]
    fn no_two_reads_of_a_log_have_one_name() {
        let mut ids = ReadIds::new();
        let names: Vec<u64> = (0..9).map(|_| ids.next().0).collect();
        assert!(names.is_sorted_by(|one, next| one < next));
    }
}
