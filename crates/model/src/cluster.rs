//! The model: a few replicas, a network that keeps, repeats, reorders and loses what it likes, crashes, and bounds on
//! how much of each there is.

use crate::past::{Past, Promise, check_matching};
use crate::replica::{Deed, Replica, configuration};
use bytes::Bytes;
use quorate_consensus::raft::Message as RaftMessage;
use quorate_consensus::{Control, Input, Message, Proposal, ReadId};
use quorate_types::{EntryKind, Incarnation, Index, Mistake, NodeId, Origin, TransactionId};
use stateright::{Model, Property};
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How much may happen in one history.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Who votes at first.
    pub voters: Vec<u64>,
    /// Who learns at first.
    pub learners: Vec<u64>,
    /// What each log holds at first above the configuration, by the terms and leaders that wrote it, in order of voters and
    /// learners; nothing where nothing is said. None of it is known to be committed.
    pub logs: Vec<Vec<(u64, u64)>>,
    /// How often each replica campaigns, in order of voters and learners.
    pub campaigns: Vec<usize>,
    /// How many entries clients propose, beside those that leaders write by themselves.
    pub entries: usize,
    /// How many crashes there are, each with the loss of any suffix of what is not durable: of replicas with slow disks,
    /// if there are any.
    pub crashes: usize,
    /// How many hard states are lost, of the same replicas. Who lost one asks the others again and again while time stands
    /// still, so that a search of unbroken code with such losses has no end: only traps have them.
    pub losses: usize,
    /// How many messages arrive twice.
    pub duplicates: usize,
    /// How many reads are asked for.
    pub reads: usize,
    /// Who is to vote in the end, where that is to change.
    pub target: Option<Vec<u64>>,
    /// Whose writes take time, so that anything may happen before they are durable. The others' are durable at once.
    pub slow_disks: Vec<u64>,
    /// Between whom nothing is carried, in either direction.
    pub cut: Option<(u64, u64)>,
}

/// A read that waits: where, which, and what it must show.
type PendingRead = (usize, ReadId, Index);

/// One moment of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// The replicas.
    replicas: Vec<Replica>,
    /// Messages on their way, in an order that says nothing.
    network: Vec<Packet>,
    /// What judges the rest of the history.
    past: Past,
    /// How often each replica has campaigned.
    campaigns: Vec<usize>,
    /// How many entries were proposed.
    entries: usize,
    /// How many crashes there were.
    crashes: usize,
    /// How many hard states were lost.
    losses: usize,
    /// How many messages were repeated.
    duplicates: usize,
    /// How many reads were asked for.
    reads: usize,
    /// The read that waits.
    read: Option<PendingRead>,
    /// Whether other members were asked for.
    is_changing: bool,
    /// The broken promise, if one was: nothing follows it.
    broken: Option<Promise>,
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Packet {
    /// From whom.
    from: NodeId,
    /// To whom.
    to: NodeId,
    /// What, encoded.
    message: Bytes,
}

/// Something that may happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A replica begins a new term and asks for votes.
    Campaign(usize),
    /// A client proposes an entry to a leader.
    Propose(usize),
    /// A client asks a leader for a read.
    Read(usize),
    /// An operator asks a leader for other members.
    Change(usize),
    /// The packet of this number arrives.
    Deliver(usize),
    /// The packet of this number arrives, and may do so again.
    Repeat(usize),
    /// A replica's writes become durable.
    Sync(usize),
    /// A replica loses power after so many of its writes became durable, and starts again.
    Crash(usize, usize),
    /// A replica starts again without its hard state.
    Lose(usize),
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let replicas = self.replicas.iter().map(Replica::fingerprint);
        replicas.for_each(|fingerprint| fingerprint.hash(state));
        (&self.network, &self.past, &self.campaigns, self.broken).hash(state);
        (self.entries, self.crashes, self.duplicates, self.reads, self.read).hash(state);
        (self.is_changing, self.losses).hash(state);
    }
}

/// The replicas and the bounds of what befalls them.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How much happens.
    pub bounds: Bounds,
    /// What production code does wrong on purpose.
    pub mistake: Option<Mistake>,
}

impl Cluster {
    /// A replica is told something, and what it does then has its effects.
    fn step(&self, state: &mut State, at: usize, told: impl FnOnce(&mut Replica) -> Vec<Deed>) {
        self.make_mistake();
        let mut replica = state.replicas[at].clone();
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut deeds = told(&mut replica);
            let is_disk_slow = self.bounds.slow_disks.contains(&replica.node().0);
            while !is_disk_slow && replica.pending_count() > 0 {
                deeds.extend(replica.sync());
            }
            (replica, deeds)
        }));
        let judged = ended.map(|(replica, deeds)| {
            let before = std::mem::replace(&mut state.replicas[at], replica);
            self.judge(state, at, before.committed(), deeds)
        });
        state.broken = judged.unwrap_or(Err(Promise::Invariants)).err();
        state.network.sort();
    }

    /// The search has threads of its own; each makes the mistake.
    fn make_mistake(&self) {
        #[cfg(feature = "mutants")]
        Mistake::make(self.mistake);
        assert!(
            self.mistake.is_none() || Mistake::CAN_BE_MADE,
            "this build makes no mistakes: turn on the feature `mutants`"
        );
    }

    /// Looks at what a replica did and at what it has become.
    fn judge(
        &self,
        state: &mut State,
        at: usize,
        committed: Index,
        deeds: Vec<Deed>,
    ) -> Result<(), Promise> {
        let replica = &state.replicas[at];
        let (from, term, log) = (replica.node(), replica.term(), replica.log());
        state.past.on_committed((committed.next(), replica.committed()), term, &log)?;
        for deed in deeds {
            match deed {
                Deed::Sends(to, message) if self.is_carried(from, to, &message) => {
                    state.network.push(Packet { from, to, message });
                }
                Deed::Sends(..) => {}
                Deed::Applies(first, last) => {
                    state.past.on_committed((first, last), term, &log)?;
                }
                Deed::Leads(epoch) => state.past.on_leader(from, epoch, &log)?,
                Deed::Read(id, index) => {
                    let read = state.read.take_if(|(_, waiting, _)| *waiting == id);
                    let shown = read.zip(index);
                    if shown.is_some_and(|((_, _, wanted), shown)| shown < wanted) {
                        return Err(Promise::FreshReads);
                    }
                }
            }
        }
        let others = state.replicas.iter().enumerate().filter(|(other, _)| *other != at);
        others.map(|(_, other)| other.log()).try_for_each(|other| check_matching(&log, &other))
    }

    /// Whether the network carries a message. Heartbeats and words to those who are behind only matter where time passes,
    /// or where reads wait for them: losing them all is one of the things that may happen.
    fn is_carried(&self, from: NodeId, to: NodeId, message: &Bytes) -> bool {
        let link = Some((from.0.min(to.0), from.0.max(to.0)));
        if self.bounds.cut == link {
            return false;
        }
        match decode(message) {
            RaftMessage::Heartbeat { .. } | RaftMessage::HeartbeatReply { .. } => {
                self.bounds.reads > 0
            }
            RaftMessage::PreVoteReply { .. }
            | RaftMessage::VoteReply { granted: false, .. }
            | RaftMessage::Stale { .. } => false,
            RaftMessage::PreVote { .. }
            | RaftMessage::Vote { .. }
            | RaftMessage::VoteReply { granted: true, .. }
            | RaftMessage::Append { .. }
            | RaftMessage::AppendReply { .. }
            | RaftMessage::Commit { .. }
            | RaftMessage::TimeoutNow { .. }
            | RaftMessage::Propose { .. }
            | RaftMessage::Refuse { .. }
            | RaftMessage::Read { .. }
            | RaftMessage::ReadReply { .. }
            | RaftMessage::Survey { .. }
            | RaftMessage::SurveyReply { .. }
            | RaftMessage::Repair { .. }
            | RaftMessage::RepairReply { .. }
            | RaftMessage::Identify { .. }
            | RaftMessage::Identified { .. }
            | RaftMessage::Change { .. }
            | RaftMessage::ChangeReply { .. } => true,
        }
    }

    fn deliver(&self, state: &mut State, packet: &Packet) {
        let to = state.replicas.iter().position(|replica| replica.node() == packet.to);
        let Some(to) = to else { return };
        let message = Message::Raft(decode(&packet.message));
        let input = Input::Message { from: packet.from, message };
        self.step(state, to, |replica| replica.handle(input));
    }

    fn ask_for_change(&self, state: &mut State, at: usize, voters: &[u64]) {
        state.is_changing = true;
        let base = state.replicas[at].configuration();
        let target = configuration(voters, &[]);
        let control = Control::TargetMembership { base, target };
        self.step(state, at, |replica| replica.handle(Input::Control(control)));
    }

    fn propose(&self, state: &mut State, at: usize) {
        state.entries += 1;
        let sequence = state.entries as u64;
        let origin = Origin { node: NodeId(99), incarnation: Incarnation(1), sequence };
        let (kind, body) = (EntryKind::Command, Bytes::copy_from_slice(&sequence.to_le_bytes()));
        let proposal = Proposal { origin, kind, transaction: TransactionId(0), body };
        self.step(state, at, |replica| replica.handle(Input::Propose(vec![proposal])));
    }

    fn read(&self, state: &mut State, at: usize) {
        state.reads += 1;
        let id = ReadId(state.reads as u64);
        state.read = Some((at, id, state.past.highest_committed()));
        self.step(state, at, |replica| replica.handle(Input::Read(id)));
    }
}

fn decode(message: &Bytes) -> RaftMessage {
    let Message::Raft(message) = Message::decode(message.clone()).expect("a replica encoded it");
    message
}

impl Model for Cluster {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let Bounds { voters, learners, campaigns, logs, .. } = &self.bounds;
        self.make_mistake();
        let members = configuration(voters, learners);
        let term = logs.iter().flatten().map(|(term, _)| *term).max().unwrap_or(1);
        let nodes = voters.iter().chain(learners).map(|id| NodeId(*id));
        let logs = logs.iter().map(Vec::as_slice).chain(std::iter::repeat(&[][..]));
        let formed = nodes.zip(logs).map(|(node, log)| Replica::formed(node, &members, term, log));
        let replicas: Vec<Replica> = formed.collect();
        vec![State {
            replicas,
            network: Vec::new(),
            past: Past::default(),
            campaigns: vec![0; campaigns.len()],
            entries: 0,
            crashes: 0,
            losses: 0,
            duplicates: 0,
            reads: 0,
            read: None,
            is_changing: false,
            broken: None,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.broken.is_some() {
            return;
        }
        let bounds = &self.bounds;
        for (at, replica) in state.replicas.iter().enumerate() {
            let is_leader = replica.is_leader();
            if !is_leader && state.campaigns[at] < bounds.campaigns[at] {
                actions.push(Action::Campaign(at));
            }
            if is_leader && state.entries < bounds.entries {
                actions.push(Action::Propose(at));
            }
            if is_leader && state.reads < bounds.reads && state.read.is_none() {
                actions.push(Action::Read(at));
            }
            if is_leader && bounds.target.is_some() && !state.is_changing {
                actions.push(Action::Change(at));
            }
            if replica.pending_count() > 0 {
                actions.push(Action::Sync(at));
            }
            let is_victim =
                bounds.slow_disks.is_empty() || bounds.slow_disks.contains(&replica.node().0);
            if is_victim && state.losses < bounds.losses {
                actions.push(Action::Lose(at));
            }
            if is_victim && state.crashes < bounds.crashes {
                // That all of it was kept is a sync before.
                let lost = 0..replica.pending_count().max(1);
                actions.extend(lost.map(|kept| Action::Crash(at, kept)));
            }
        }
        for number in 0..state.network.len() {
            // Copies of one message are one choice.
            if number > 0 && state.network[number] == state.network[number - 1] {
                continue;
            }
            actions.push(Action::Deliver(number));
            if state.duplicates < bounds.duplicates {
                actions.push(Action::Repeat(number));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Campaign(at) => {
                state.campaigns[at] += 1;
                let campaign = Input::Control(Control::Campaign);
                self.step(&mut state, at, |replica| replica.handle(campaign));
            }
            Action::Propose(at) => self.propose(&mut state, at),
            Action::Read(at) => self.read(&mut state, at),
            Action::Change(at) => {
                let target = self.bounds.target.clone()?;
                self.ask_for_change(&mut state, at, &target);
            }
            Action::Deliver(number) => {
                let packet = state.network.remove(number);
                self.deliver(&mut state, &packet);
            }
            Action::Repeat(number) => {
                state.duplicates += 1;
                let packet = state.network[number].clone();
                self.deliver(&mut state, &packet);
            }
            Action::Lose(at) => {
                state.losses += 1;
                self.step(&mut state, at, |replica| {
                    *replica = replica.restart_without_hard_state();
                    Vec::new()
                });
            }
            Action::Sync(at) => self.step(&mut state, at, Replica::sync),
            Action::Crash(at, kept) => {
                state.crashes += 1;
                state.read.take_if(|(place, _, _)| *place == at);
                self.step(&mut state, at, |replica| {
                    *replica = replica.restart(kept);
                    Vec::new()
                });
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Cluster>> {
        let mut properties = vec![
            Property::always(Promise::ElectionSafety.name(), |_, state: &State| {
                state.broken != Some(Promise::ElectionSafety)
            }),
            Property::always(Promise::LogMatching.name(), |_, state: &State| {
                state.broken != Some(Promise::LogMatching)
            }),
            Property::always(Promise::LeaderCompleteness.name(), |_, state: &State| {
                state.broken != Some(Promise::LeaderCompleteness)
            }),
            Property::always(Promise::StateMachineSafety.name(), |_, state: &State| {
                state.broken != Some(Promise::StateMachineSafety)
            }),
            Property::always(Promise::FreshReads.name(), |_, state: &State| {
                state.broken != Some(Promise::FreshReads)
            }),
            Property::always(Promise::Invariants.name(), |_, state: &State| {
                state.broken != Some(Promise::Invariants)
            }),
        ];
        // A search in which nothing happens proves nothing.
        properties.push(Property::sometimes(
            "a second leader follows a commit",
            |_, state: &State| {
                state.past.leader_count() > 1 && state.past.highest_committed() > Index(1)
            },
        ));
        if self.bounds.target.is_some() {
            properties.push(Property::sometimes(
                "the members have changed",
                |model: &Cluster, state: &State| {
                    let target = model.bounds.target.clone().unwrap_or_default();
                    let is_there = |replica: &Replica| {
                        let found = replica.configuration();
                        !found.is_joint() && found.voters().map(|node| node.0).eq(target.clone())
                    };
                    state.replicas.iter().any(is_there)
                },
            ));
        }
        properties
    }
}
