//! One replica of the model: the production state machine, its disk, and the messages that wait for writes.

use bytes::{Bytes, BytesMut};
use quorate_consensus::raft::{Message as RaftMessage, Raft};
use quorate_consensus::{
    Effect, Event, Input, Limits, Message, Opening, Options, Protocol, ReadId, RoleName, Timing,
};
use quorate_types::{
    Applied, Bounds, Configuration, Entry, EntryKind, Epoch, EpochRun, GroupId, HardState,
    Incarnation, Index, Instant, Intent, LogSummary, Member, NodeId, Op, Origin, Position, Slot,
    TransactionId, WriteId,
};
use std::sync::Arc;
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

/// Time stands still: elections are begun by the model, never by a timeout. No draw of a timeout is ever due.
const NOW: Instant = Instant::ZERO;

/// A voter may at any time have lost sight of its leader, so nobody ever counts as a live one.
const TIMING: Timing = Timing {
    heartbeat_interval: Duration::from_secs(3_600),
    election_timeout_min: Duration::ZERO,
    election_timeout_max: Duration::from_secs(3_600),
    commit_delay: Duration::ZERO,
};

/// The incarnation of a node.
fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(node.0 * 0x11)
}

/// A configuration of these voters and learners.
pub(crate) fn configuration(voters: &[u64], learners: &[u64]) -> Configuration {
    let member = |id: &u64, voter| {
        let node = NodeId(*id);
        let member = Member {
            incarnation: incarnation(node),
            name: node.to_string(),
            peer_address: format!("{node}:1"),
            voter,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        (node, member)
    };
    let voters = voters.iter().map(|id| member(id, true));
    let members = voters.chain(learners.iter().map(|id| member(id, false))).collect();
    Configuration { members, ..Configuration::default() }
}

/// The entries on a disk and the hard state, all of it durable. Nothing is purged in the model.
#[derive(Clone, Debug, Default)]
struct Disk {
    /// The hard state, unless it is damaged.
    hard: Option<HardState>,
    /// The slots from index 1 on.
    slots: Vec<Slot>,
}

impl Disk {
    fn apply(&mut self, op: &Op) {
        match op {
            Op::HardState(hard) => self.hard = Some(*hard),
            Op::Write(slot) => {
                let at = usize::try_from(slot.index.0 - 1).expect("the model's logs are short");
                assert!(at <= self.slots.len(), "a gap before {}", slot.index);
                self.slots.truncate(at);
                self.slots.push(slot.clone());
            }
            Op::Truncate(from) => {
                let kept = usize::try_from(from.0 - 1).expect("the model's logs are short");
                self.slots.truncate(kept);
            }
            Op::Purge(_) | Op::Reset(..) => unreachable!("nothing is synced, so nothing is purged"),
        }
    }

    fn summary(&self) -> LogSummary {
        let run = |slot: &Slot| EpochRun {
            first: slot.index,
            created: slot.entry.created(),
            accepted: slot.accepted,
        };
        let configurations = self.slots.iter().filter_map(|slot| {
            let is_one = slot.entry.kind() == EntryKind::Configuration;
            let decode = || Configuration::decode(slot.entry.body().clone()).expect("we wrote it");
            is_one.then(|| (slot.index, decode()))
        });
        let bounds = Bounds { purged: Position::ZERO, last: Index(self.slots.len() as u64) };
        LogSummary {
            hard_state: self.hard,
            bounds,
            epochs: self.slots.iter().map(run).collect(),
            faults: Vec::new(),
            configurations: configurations.collect(),
        }
    }
}

/// What a replica did that concerns others.
#[derive(Debug)]
pub(crate) enum Deed {
    /// It says this.
    Sends(NodeId, Bytes),
    /// It applies the slots from the first index to the last.
    Applies(Index, Index),
    /// It leads this epoch.
    Leads(Epoch),
    /// A read is answered with this index, or not at all.
    Read(ReadId, Option<Index>),
}

/// One replica.
#[derive(Clone, Debug)]
pub(crate) struct Replica {
    /// Who it is.
    node: NodeId,
    /// The production code; shared with other states in which it stands the same.
    raft: Arc<Raft>,
    /// What is durable.
    disk: Disk,
    /// Writes that the log has not completed, oldest first.
    pending: Vec<(WriteId, Vec<Op>)>,
    /// Messages that wait for one of them.
    held: Vec<(WriteId, NodeId, Bytes)>,
    /// Its log as it will be once all writes are done.
    log: Arc<[Entry]>,
    /// Covers all of the above: equal for equal replicas.
    fingerprint: u64,
}

impl PartialEq for Replica {
    fn eq(&self, other: &Replica) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Replica {
    /// A formed replica in this term: it holds the configuration that formation wrote, and what these leaders wrote in
    /// their terms, all of it durable.
    pub(crate) fn formed(
        node: NodeId,
        members: &Configuration,
        term: u64,
        log: &[(u64, u64)],
    ) -> Replica {
        let first = Epoch::new(1, NodeId(0));
        let (kind, body) = (EntryKind::Configuration, members.encode());
        let entry = Entry::new(first, kind, Origin::NONE, TransactionId(0), body);
        let mut slots = vec![Slot { index: Index(1), accepted: first, entry }];
        let mut log_epoch = Epoch::ZERO;
        for (index, (number, leader)) in (2..).map(Index).zip(log) {
            log_epoch = Epoch::new(*number, NodeId(*leader));
            let entry = Entry::noop(log_epoch);
            slots.push(Slot { index, accepted: log_epoch, entry });
        }
        let promised = Epoch::new(term, NodeId(0));
        Replica::open(
            node,
            Disk { hard: Some(HardState { promised, voted_for: None, log_epoch }), slots },
        )
    }

    fn open(node: NodeId, disk: Disk) -> Replica {
        let options = Options {
            group: GroupId(0),
            node,
            incarnation: incarnation(node),
            seed: 1,
            timing: TIMING,
            // One entry a message, so that entries of one leader may part ways.
            limits: Limits { append_size_max: 1, ..Limits::default() },
        };
        let opening = Opening { log: disk.summary(), applied: Applied::default() };
        let raft = Arc::new(Raft::open(NOW, options, opening));
        let (pending, held, log) = (Vec::new(), Vec::new(), Arc::from([]));
        let mut replica = Replica { node, raft, disk, pending, held, log, fingerprint: 0 };
        let deeds = replica.drain();
        assert!(deeds.is_empty(), "a replica that opens says {deeds:?}");
        replica
    }

    /// Power fails after so many of the pending writes were done, and comes back.
    pub(crate) fn restart(&self, kept: usize) -> Replica {
        let mut disk = self.disk.clone();
        let done = self.pending.iter().take(kept).flat_map(|(_, ops)| ops);
        done.for_each(|op| disk.apply(op));
        Replica::open(self.node, disk)
    }

    /// Power fails, and the hard state cannot be read when it comes back.
    pub(crate) fn restart_without_hard_state(&self) -> Replica {
        Replica::open(self.node, Disk { hard: None, slots: self.disk.slots.clone() })
    }

    /// Tells it something; gives what it does then.
    pub(crate) fn handle(&mut self, input: Input) -> Vec<Deed> {
        Arc::make_mut(&mut self.raft).handle(NOW, input);
        self.drain()
    }

    /// Its log completes all pending writes.
    pub(crate) fn sync(&mut self) -> Vec<Deed> {
        let Some((last, _)) = self.pending.last() else { return Vec::new() };
        let last = *last;
        for (_, ops) in std::mem::take(&mut self.pending) {
            ops.iter().for_each(|op| self.disk.apply(op));
        }
        let held = std::mem::take(&mut self.held);
        let mut deeds: Vec<Deed> =
            held.into_iter().map(|(_, to, message)| Deed::Sends(to, message)).collect();
        deeds.extend(self.handle(Input::Durable(last)));
        deeds
    }

    /// Polls until there is nothing more to do. What is applied is applied at once, and nobody refuses a pre-vote: who
    /// may campaign when is for the model to choose.
    fn drain(&mut self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        while let Some(effect) = Arc::make_mut(&mut self.raft).poll() {
            match effect {
                Effect::Persist { id, ops } => self.pending.push((id, ops)),
                Effect::Send { to, message, after } => {
                    if let Some(grant) = grant(&message) {
                        let granted = Input::Message { from: to, message: grant };
                        Arc::make_mut(&mut self.raft).handle(NOW, granted);
                        continue;
                    }
                    let bytes = encoded(&message);
                    let is_due = after.is_none_or(|write| {
                        self.pending.first().is_none_or(|(oldest, _)| write < *oldest)
                    });
                    match after.filter(|_| !is_due) {
                        Some(write) => self.held.push((write, to, bytes)),
                        None => deeds.push(Deed::Sends(to, bytes)),
                    }
                }
                Effect::Apply { first, last } => {
                    deeds.push(Deed::Applies(first, last));
                    let applied = Input::Applied { index: last, synced: Index::ZERO, digest: None };
                    Arc::make_mut(&mut self.raft).handle(NOW, applied);
                }
                Effect::ReadReady { id, index } => deeds.push(Deed::Read(id, Some(index))),
                Effect::ReadFailed { id, .. } => deeds.push(Deed::Read(id, None)),
                Effect::Event(Event::Role { role: RoleName::Leader, epoch }) => {
                    deeds.push(Deed::Leads(epoch));
                }
                Effect::Event(_) | Effect::Refused { .. } => {}
                Effect::SendBulk { to, message } => deeds.push(Deed::Sends(to, encoded(&message))),
                Effect::Fetch { id, first, .. } => {
                    let at = usize::try_from(first.0 - 1).expect("the model's logs are short");
                    let slots = self.slots().get(at).cloned().into_iter().collect();
                    let fetched = Input::Fetched { id, slots };
                    Arc::make_mut(&mut self.raft).handle(NOW, fetched);
                }
                Effect::Snapshot(_) => unreachable!("nothing is purged, so no snapshot is needed"),
            }
        }
        self.log = self.slots().into_iter().map(|slot| slot.entry).collect();
        self.fingerprint = self.find_fingerprint();
        deeds
    }

    /// A number for everything in which replicas may differ: what `Debug` shows of the production state but its
    /// measurements, which decide nothing, and what is around it. The position of the random stream is not shown; it only
    /// names requests.
    fn find_fingerprint(&self) -> u64 {
        let raft = format!("{:?}", self.raft);
        let (before, rest) = raft.split_once(", metrics: ").expect("it has a field of that name");
        let (_, after) = rest.rsplit_once(", outbox: ").expect("it has a field of that name");
        let Replica { node, disk, pending, held, raft: _, log: _, fingerprint: _ } = self;
        let around = format!("{node} {disk:?} {pending:?} {held:?}");
        xxh3_64([before, after, &around].concat().as_bytes())
    }

    /// Equal for replicas that stand the same.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// Who it is.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Whether it leads.
    pub(crate) fn is_leader(&self) -> bool {
        self.raft.status(NOW).role == RoleName::Leader
    }

    /// Its term.
    pub(crate) fn term(&self) -> u64 {
        self.raft.status(NOW).epoch.number
    }

    /// What it knows to be committed.
    pub(crate) fn committed(&self) -> Index {
        self.raft.committed()
    }

    /// The configuration in force for it.
    pub(crate) fn configuration(&self) -> Configuration {
        self.raft.status(NOW).configuration
    }

    /// How many writes are pending.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Its log as it will be once all writes are done: what stands at each index from 1 on.
    pub(crate) fn log(&self) -> Arc<[Entry]> {
        Arc::clone(&self.log)
    }

    fn slots(&self) -> Vec<Slot> {
        let mut disk = self.disk.clone();
        self.pending.iter().flat_map(|(_, ops)| ops).for_each(|op| disk.apply(op));
        disk.slots
    }
}

fn encoded(message: &Message) -> Bytes {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer);
    buffer.freeze()
}

/// The answer of a voter that has lost sight of its leader to a question about a pre-vote.
fn grant(message: &Message) -> Option<Message> {
    let Message::Raft(message) = message;
    let RaftMessage::PreVote { epoch, context, last: _ } = message else { return None };
    let granted = true;
    Some(Message::Raft(RaftMessage::PreVoteReply { epoch: *epoch, context: *context, granted }))
}
