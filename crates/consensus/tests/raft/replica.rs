//! One node of the test worlds: a replica with its disk, its state machine, and the messages that wait for writes.

use crate::disk::Disk;
use crate::machine::Machine;
use bytes::{Bytes, BytesMut};
use quorate_consensus::raft::Raft;
use quorate_consensus::{
    Effect, Input, Limits, Message, Opening, Options, Protocol, SnapshotEffect, Timing,
};
use quorate_types::{
    Configuration, Entry, EntryKind, Epoch, GroupId, HardState, Incarnation, Index, Instant,
    Intent, Member, NodeId, Op, Origin, Position, Slot, TransactionId, WriteId,
};
use std::collections::{BTreeMap, VecDeque};

/// The incarnation of a node.
pub(crate) fn incarnation(node: NodeId) -> Incarnation {
    Incarnation(node.0 * 0x11)
}

/// A member that votes, or is to.
pub(crate) fn member(node: NodeId) -> Member {
    Member {
        incarnation: incarnation(node),
        name: node.to_string(),
        peer_address: format!("{node}:1"),
        voter: true,
        outgoing_voter: false,
        intent: Intent::Stay,
    }
}

/// A configuration of voters.
pub(crate) fn configuration(voters: &[NodeId]) -> Configuration {
    let members = voters.iter().map(|node| (*node, member(*node))).collect();
    Configuration { members, ..Configuration::default() }
}

/// The slot that formation writes on every member.
pub(crate) fn first_slot(voters: &[NodeId]) -> Slot {
    let epoch = Epoch::new(1, NodeId(0));
    let body = configuration(voters).encode();
    let entry = Entry::new(epoch, EntryKind::Configuration, Origin::NONE, TransactionId(0), body);
    Slot { index: Index(1), accepted: epoch, entry }
}

/// A message through its encoding.
pub(crate) fn encoded(message: &Message) -> Bytes {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer);
    buffer.freeze()
}

/// A node.
pub(crate) struct Replica {
    pub(crate) node: NodeId,
    pub(crate) raft: Option<Raft>,
    pub(crate) disk: Disk,
    /// The state machine.
    pub(crate) machine: Machine,
    /// What a power cut would leave of it.
    pub(crate) synced: Machine,
    /// Messages that wait for a write.
    pub(crate) held: VecDeque<(WriteId, NodeId, Message)>,
    /// Ranges to apply.
    pub(crate) to_apply: VecDeque<(Index, Index)>,
    /// Snapshots received, by sender.
    pub(crate) staged: BTreeMap<NodeId, (Machine, Configuration)>,
    pub(crate) starts: u64,
    pub(crate) limits: Limits,
    pub(crate) timing: Timing,
}

impl Replica {
    /// A formed node that was never started.
    pub(crate) fn new(node: NodeId, voters: &[NodeId], limits: Limits) -> Replica {
        let mut disk = Disk::default();
        let promised = Epoch::new(1, NodeId(0));
        let hard = HardState { promised, ..HardState::default() };
        disk.persist(WriteId(0), vec![Op::Write(first_slot(voters)), Op::HardState(hard)]);
        disk.complete();
        Replica {
            node,
            raft: None,
            disk,
            machine: Machine::default(),
            synced: Machine::default(),
            held: VecDeque::new(),
            to_apply: VecDeque::new(),
            staged: BTreeMap::new(),
            starts: 0,
            limits,
            timing: Timing::default(),
        }
    }

    /// A new node, which knows no more than whom it joins.
    /// Its log goes on, from the second slot on, with an entry of each of these epochs.
    pub(crate) fn begin_with(&mut self, epochs: &[Epoch], hard: HardState) {
        let slot = |(index, epoch): (Index, &Epoch)| {
            Op::Write(Slot { index, accepted: *epoch, entry: Entry::noop(*epoch) })
        };
        let writes = (2..).map(Index).zip(epochs).map(slot);
        self.disk.persist(WriteId(0), writes.chain([Op::HardState(hard)]).collect());
        self.disk.complete();
    }

    pub(crate) fn joining(node: NodeId, members: Configuration, limits: Limits) -> Replica {
        let mut replica = Replica::new(node, &[node], limits);
        replica.disk = Disk::default();
        let ops = vec![Op::HardState(HardState::default()), Op::Reset(Position::ZERO, members)];
        replica.disk.persist(WriteId(0), ops);
        replica.disk.complete();
        replica
    }

    pub(crate) fn start(&mut self, now: Instant, seed: u64) {
        self.starts += 1;
        let options = Options {
            group: GroupId(0),
            node: self.node,
            incarnation: incarnation(self.node),
            seed: seed.wrapping_add(self.starts.wrapping_mul(0x1_0000_0001)),
            timing: self.timing,
            limits: self.limits,
        };
        let opening = Opening { log: self.disk.live.summary(), applied: self.machine.applied };
        self.raft = Some(Raft::open(now, options, opening));
    }

    /// Power is cut; `kept` pending writes were done already.
    pub(crate) fn crash(&mut self, kept: usize) {
        self.raft = None;
        self.disk.crash(kept);
        self.machine = self.synced.clone();
        self.held.clear();
        self.to_apply.clear();
        self.staged.clear();
    }

    /// The state machine of a node that is down is lost.
    pub(crate) fn lose_state(&mut self) {
        assert!(self.raft.is_none(), "{} runs", self.node);
        self.machine = Machine::default();
        self.synced = Machine::default();
    }

    pub(crate) fn handle(&mut self, now: Instant, input: Input) {
        if let Some(raft) = &mut self.raft {
            raft.handle(now, input);
        }
    }

    /// Does what concerns this node alone; gives back the other effects, and what may be sent.
    pub(crate) fn poll(&mut self) -> (Vec<Effect>, Vec<(NodeId, Message)>) {
        let mut effects = Vec::new();
        let mut sends = Vec::new();
        while let Some(effect) = self.raft.as_mut().and_then(Raft::poll) {
            match &effect {
                Effect::Persist { id, ops } => self.disk.persist(*id, ops.clone()),
                Effect::Send { to, message, after } => {
                    let is_done =
                        |after: WriteId| self.disk.pending.iter().all(|(id, _)| *id != after);
                    match after {
                        Some(after) if !is_done(*after) => {
                            self.held.push_back((*after, *to, message.clone()));
                        }
                        Some(_) | None => sends.push((*to, message.clone())),
                    }
                }
                Effect::SendBulk { to, message } => sends.push((*to, message.clone())),
                Effect::Apply { first, last } => {
                    let asked = self.to_apply.back().map_or(self.machine.index(), |range| range.1);
                    assert_eq!(*first, asked.next(), "applies are consecutive");
                    self.to_apply.push_back((*first, *last));
                }
                Effect::Refused { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadFailed { .. }
                | Effect::Fetch { .. }
                | Effect::Snapshot(_)
                | Effect::Event(_) => {}
            }
            effects.push(effect);
        }
        (effects, sends)
    }

    /// The oldest write is done: tells the replica, and gives what may now be sent.
    pub(crate) fn complete_write(&mut self, now: Instant) -> Option<Vec<(NodeId, Message)>> {
        let id = self.disk.complete()?;
        self.handle(now, Input::Durable(id));
        let (released, held) = self.held.drain(..).partition(|(after, _, _)| *after <= id);
        self.held = held;
        let released: VecDeque<(WriteId, NodeId, Message)> = released;
        Some(released.into_iter().map(|(_, to, message)| (to, message)).collect())
    }

    /// Applies the oldest range asked for; gives the slots, with whose command took effect.
    pub(crate) fn apply_next(&mut self, now: Instant, sync: bool) -> Vec<(Slot, Option<Origin>)> {
        let Some((first, last)) = self.to_apply.pop_front() else { return Vec::new() };
        let mut done = Vec::new();
        for index in first.0..=last.0 {
            let index = Index(index);
            let slot = self.disk.live.slots.get(&index).expect("is in the log").clone();
            let fault = self.disk.live.faults.get(&index);
            assert_eq!(fault, None, "{} applies a damaged slot", self.node);
            let origin = self.machine.apply(&slot);
            done.push((slot, origin));
        }
        if sync {
            self.synced = self.machine.clone();
        }
        self.report_applied(now);
        done
    }

    /// Tells the replica how far the state machine has come.
    pub(crate) fn report_applied(&mut self, now: Instant) {
        let (index, synced) = (self.machine.index(), self.synced.index());
        let digest = Some(self.machine.applied.digest);
        self.handle(now, Input::Applied { index, synced, digest });
    }

    /// The answer to a fetch.
    pub(crate) fn read_slots(&self, first: Index, last: Index, budget: usize) -> Vec<Slot> {
        let mut slots: Vec<Slot> = Vec::new();
        let mut size = 0;
        for index in first.0..=last.0 {
            let index = Index(index);
            let Some(slot) = self.disk.live.slots.get(&index) else { break };
            if self.disk.live.faults.contains_key(&index) {
                break;
            }
            size += slot.entry.encoded_size();
            if !slots.is_empty() && size > budget {
                break;
            }
            slots.push(slot.clone());
        }
        slots
    }

    /// Installs what was staged from `from`; `None` when nothing is.
    pub(crate) fn install(&mut self, from: NodeId, position: Position) -> Option<Input> {
        let found = self.staged.get(&from).map(|(machine, _)| machine.position());
        if found != Some(position) {
            return None;
        }
        let (machine, configuration) = self.staged.remove(&from)?;
        self.machine = machine.clone();
        self.synced = machine;
        // What was asked for before is part of it.
        self.to_apply.retain(|(first, _)| *first > position.index);
        let installed = quorate_consensus::SnapshotInput::Installed { position, configuration };
        Some(Input::Snapshot(installed))
    }

    /// What a snapshot of this node holds now.
    pub(crate) fn capture(&self) -> (Machine, Configuration) {
        let configuration = self.disk.live.configuration_at(self.machine.index());
        (self.machine.clone(), configuration)
    }

    /// Drops what was staged, if the effect says so.
    pub(crate) fn discard(&mut self, effect: &SnapshotEffect) {
        if let SnapshotEffect::Discard { from, position } = effect
            && self.staged.get(from).is_some_and(|(machine, _)| machine.position() == *position)
        {
            self.staged.remove(from);
        }
    }
}
