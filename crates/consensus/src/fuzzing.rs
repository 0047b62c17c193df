//! Entry points for bytes from peers, as fuzzers and the replay of their corpora call them.
//!
//! [`message`] takes one message. [`replica`] plays what a fuzzer wrote to a running replica: messages of two peers who
//! say whatever they like, in any order, between its own timeouts, syncs and applies. Peers are input, so whatever they
//! say must be taken in or dropped; the replica's own invariants are asserted all the way.
//!
//! ```text
//!  script  [step (1) size (2) message (size)]*       size and message only where the step is a message
//! ```

use crate::raft::Raft;
use crate::{
    Control, Effect, Input, Limits, Message, Opening, Options, Proposal, Protocol, ReadId, Timing,
};
use bytes::{Buf, Bytes, BytesMut};
use quorate_types::{
    Applied, Bounds, Configuration, Entry, EntryKind, Epoch, EpochRun, GroupId, HardState,
    Incarnation, Index, Instant, Intent, LogSummary, Member, NodeId, Op, Origin, Position, Slot,
    SlotFault, TransactionId, WriteId,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A message of a peer.
pub fn message(data: &[u8]) {
    let Ok(decoded) = Message::decode(Bytes::copy_from_slice(data)) else { return };
    let mut again = BytesMut::new();
    decoded.encode(&mut again);
    let again = Message::decode(again.freeze());
    assert_eq!(again.as_ref(), Ok(&decoded), "a message changes by its encoding");
    assert!(!decoded.to_string().is_empty(), "a message has no notation");
}

/// A replica among two others that say what the script makes them say.
pub fn replica(data: &[u8]) {
    play(World::new(&[Some(1)], &[]), data);
}

/// The same with a log of which slots are damaged, one of them beyond knowledge.
pub fn damaged_replica(data: &[u8]) {
    let log = [Some(1), Some(1), None, Some(2), Some(2), Some(3), Some(3), Some(3)];
    play(World::new(&log, &[Index(6)]), data);
}

fn play(mut world: World, data: &[u8]) {
    world.poll();
    let mut data = data;
    while data.has_remaining() {
        let step = data.get_u8();
        world.step(step, &mut data);
        world.poll();
    }
}

/// The replica, its log, and what it waits for.
struct World {
    now: Instant,
    raft: Raft,
    slots: BTreeMap<Index, Slot>,
    writes: VecDeque<WriteId>,
    applies: VecDeque<Index>,
    fetches: VecDeque<Input>,
    sequence: u64,
}

fn configuration() -> Configuration {
    let member = |id: u64| {
        let member = Member {
            incarnation: Incarnation(id),
            name: format!("n{id}"),
            peer_address: format!("n{id}:1"),
            voter: true,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        (NodeId(id), member)
    };
    Configuration { members: (1..=3).map(member).collect(), ..Configuration::default() }
}

impl World {
    /// The log has an entry of each of these terms, and nobody knows which where there is none; the slots in `damaged` have
    /// lost theirs.
    fn new(terms: &[Option<u64>], damaged: &[Index]) -> World {
        let (mut slots, mut epochs, mut faults) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut latest = Epoch::ZERO;
        for (index, term) in (1..).map(Index).zip(terms) {
            let Some(term) = term else {
                faults.push(SlotFault::DamagedUnknown(index));
                continue;
            };
            latest = Epoch::new(*term, NodeId(term - 1));
            epochs.push(EpochRun { first: index, created: latest, accepted: latest });
            if damaged.contains(&index) {
                faults.push(SlotFault::DamagedKnown(Position::new(index, latest)));
                continue;
            }
            let (kind, body) = match index {
                Index(1) => (EntryKind::Configuration, configuration().encode()),
                Index(_) => (EntryKind::Noop, Bytes::new()),
            };
            let entry = Entry::new(latest, kind, Origin::NONE, TransactionId(0), body);
            slots.insert(index, Slot { index, accepted: latest, entry });
        }
        let hard_state = HardState { promised: latest, log_epoch: latest, voted_for: None };
        let log = LogSummary {
            hard_state: Some(hard_state),
            bounds: Bounds { purged: Position::ZERO, last: Index(terms.len() as u64) },
            epochs,
            faults,
            configurations: vec![(Index(1), configuration())],
        };
        let limits = Limits { retained_count: 2, purge_count_min: 1, ..Limits::default() };
        let (node, incarnation) = (NodeId(1), Incarnation(1));
        let (group, timing) = (GroupId(0), Timing::default());
        let options = Options { group, node, incarnation, seed: 1, timing, limits };
        let now = Instant(1);
        World {
            now,
            raft: Raft::open(now, options, Opening { log, applied: Applied::default() }),
            slots,
            writes: VecDeque::new(),
            applies: VecDeque::new(),
            fetches: VecDeque::new(),
            sequence: 0,
        }
    }

    fn step(&mut self, step: u8, data: &mut &[u8]) {
        match step % 10 {
            0 | 1 => {
                let from = NodeId(2 + u64::from(step % 2));
                let size = data.try_get_u16_le().map_or(0, usize::from).min(data.len());
                let bytes = data.copy_to_bytes(size);
                if let Ok(message) = Message::decode(bytes) {
                    self.tell(Input::Message { from, message });
                }
            }
            2 => {
                if let Some(id) = self.writes.pop_front() {
                    self.tell(Input::Durable(id));
                }
            }
            3 => {
                if let Some(index) = self.applies.pop_front() {
                    self.tell(Input::Applied { index, synced: index, digest: None });
                }
            }
            4 => {
                self.now += Duration::from_millis(u64::from(step) * 8);
                self.tell(Input::Tick);
            }
            5 => self.tell(Input::Control(Control::Campaign)),
            6 => self.tell(Input::Read(ReadId(self.sequence))),
            7 => self.propose(),
            8 => {
                if let Some(input) = self.fetches.pop_front() {
                    self.tell(input);
                }
            }
            _ => self.tell(Input::Control(Control::Transfer(NodeId(2)))),
        }
    }

    fn propose(&mut self) {
        self.sequence += 1;
        let (node, incarnation) = (NodeId(1), Incarnation(1));
        let origin = Origin { node, incarnation, sequence: self.sequence };
        let (kind, transaction) = (EntryKind::Command, TransactionId(0));
        let body = Bytes::from_static(b"proposed");
        self.tell(Input::Propose(vec![Proposal { origin, kind, transaction, body }]));
    }

    fn tell(&mut self, input: Input) {
        self.raft.handle(self.now, input);
        self.poll();
    }

    fn poll(&mut self) {
        while let Some(effect) = self.raft.poll() {
            match effect {
                Effect::Persist { id, ops } => {
                    ops.into_iter().for_each(|op| self.change(op));
                    self.writes.push_back(id);
                }
                Effect::Apply { last, .. } => self.applies.push_back(last),
                Effect::Fetch { id, first, last, .. } => {
                    let slots = (first.0..=last.0).map_while(|at| self.slots.get(&Index(at)));
                    let slots = slots.cloned().collect();
                    self.fetches.push_back(Input::Fetched { id, slots });
                }
                Effect::Send { .. }
                | Effect::SendBulk { .. }
                | Effect::Refused { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadFailed { .. }
                | Effect::Snapshot(_)
                | Effect::Event(_) => {}
            }
        }
    }

    fn change(&mut self, op: Op) {
        match op {
            Op::HardState(_) => {}
            Op::Write(slot) => drop(self.slots.insert(slot.index, slot)),
            Op::Truncate(from) => drop(self.slots.split_off(&from)),
            Op::Purge(position) => self.slots = self.slots.split_off(&position.index.next()),
            Op::Reset(_, _) => self.slots.clear(),
        }
    }
}
