//! Random runs by seed: a lossy, reordering network, crashes that lose what is not durable, damaged slots, cut
//! links. Safety is checked all the way; at the end everything heals, and progress is demanded.

mod faults;
mod quiet;

use crate::machine::Machine;
use crate::replica::{Replica, encoded, incarnation};
use bytes::Bytes;
use quorate_consensus::{
    DropReason, Effect, Event, Input, Limits, Mending, Message, Proposal, Protocol, ReadId,
    RoleName, SnapshotEffect, SnapshotInput, SnapshotOutcome, StepDownReason, Timing, raft,
};
use quorate_types::{
    Configuration, ContentHash, EntryKind, Index, Instant, NodeId, Origin, Position, TransactionId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A small generator whose stream never changes.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    fn micros(&mut self, min: u64, max: u64) -> Duration {
        Duration::from_micros(min + self.below(max - min + 1))
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).expect("small")]
    }
}

/// Something that will happen. Those of a node carry its start number, and come to nothing after a crash.
enum Happening {
    Deliver { from: NodeId, to: NodeId, start: u64, bytes: Bytes },
    WriteDone { node: NodeId, start: u64 },
    ApplyDone { node: NodeId, start: u64 },
    Fetched { node: NodeId, start: u64, input: Input },
    Snapshot { to: NodeId, start: u64, from: NodeId, input: SnapshotInput, staged: Option<Staged> },
    Installed { node: NodeId, start: u64, from: NodeId, position: Position },
    Start { node: NodeId },
    Client,
    Fault,
}

type Staged = (Machine, Configuration);

/// A read that waits.
struct Reading {
    node: NodeId,
    /// Increments acknowledged, or read by somebody, before it began.
    floor: u64,
    /// The index it waits for, once the barrier is reached.
    index: Option<Index>,
}

/// What a run went through: a run that never meets the rare cases tests nothing.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    elections: u64,
    acknowledged: u64,
    refused: u64,
    reads: u64,
    snapshots: u64,
    damaged: u64,
    fetched: u64,
    crashes: u64,
    transfers: u64,
    rotten: u64,
    lost_ends: u64,
    identified: u64,
    given: u64,
    given_up: u64,
    targets: u64,
    targets_refused: u64,
    joint: u64,
    removed: u64,
}

/// How many nodes one run may see.
const NODES_MAX: usize = 12;

pub(crate) struct World {
    now: Instant,
    random: Random,
    voters: Vec<NodeId>,
    replicas: BTreeMap<NodeId, Replica>,
    queue: BTreeMap<(Instant, u64), Happening>,
    queued: u64,
    /// Links that carry nothing at present.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// The one node of which any slot and the hard state may be damaged in this run, beyond knowledge.
    fragile: Option<NodeId>,
    /// What stood in ends of its log that were lost without a trace. It may have acknowledged them.
    lost_ends: BTreeSet<(Index, u64)>,
    /// How often a state machine syncs, of a thousand applies: the less, the more rests on the logs.
    sync_chance: u64,
    /// Whether members come and go.
    changing: bool,
    /// What new replicas may hold.
    limits: Limits,
    /// Whether the slots of all nodes rot, each index on one node only.
    rotting: bool,
    healing: bool,
    loss: u64,
    /// Whether clients ask for nothing at present.
    paused: bool,
    leaders: BTreeMap<u64, NodeId>,
    agreed: BTreeMap<Index, (ContentHash, u64)>,
    sequences: BTreeMap<NodeId, u64>,
    proposed: BTreeSet<Origin>,
    refused: BTreeSet<Origin>,
    acknowledged: BTreeSet<Origin>,
    effective: BTreeSet<Origin>,
    /// The highest count that anybody outside has seen.
    seen: u64,
    reads: BTreeMap<ReadId, Reading>,
    next_read: u64,
    marks: Marks,
    trace: bool,
    /// How many things happened at the present moment.
    still: u64,
    /// What worlds without random faults are asked for.
    asked: quiet::Asked,
}

impl World {
    fn new(seed: u64) -> World {
        let mut random = Random(seed);
        let count = random.pick(&[1, 2, 3, 3, 3, 4, 5]);
        let voters: Vec<NodeId> = (1..=count).map(NodeId).collect();
        let limits = Limits {
            window_size_max: random.pick(&[300, 2_000, 100_000]),
            append_size_max: random.pick(&[100, 500, 5_000]),
            uncommitted_size_max: random.pick(&[1_000, 100_000]),
            unapplied_count_max: random.pick(&[10, 5_000]),
            tail_size_max: random.pick(&[0, 500, 100_000]),
            apply_count_max: random.pick(&[3, 100]),
            retained_count: random.pick(&[0, 5, 100]),
            purge_count_min: random.pick(&[1, 10]),
            digest_interval: 4,
        };
        // In half of the worlds followers hear of commits at once.
        let commit_delay = Duration::from_millis(2 * (seed % 2));
        let timing = Timing { commit_delay, ..Timing::default() };
        let replica = |node: &NodeId| Replica { timing, ..Replica::new(*node, &voters, limits) };
        let replicas = voters.iter().map(|node| (*node, replica(node)));
        let fragile = (count >= 3 && random.chance(300)).then(|| random.pick(&voters));
        let rotting = fragile.is_none() && count >= 2 && random.chance(500);
        let changing = fragile.is_none() && !rotting && random.chance(700);
        let mut world = World {
            now: Instant(1),
            replicas: replicas.collect(),
            queue: BTreeMap::new(),
            queued: 0,
            cut: BTreeSet::new(),
            fragile,
            lost_ends: BTreeSet::new(),
            sync_chance: random.pick(&[300, 300, 10]),
            rotting,
            changing,
            limits,
            healing: false,
            paused: false,
            loss: random.pick(&[0, 20, 200]),
            leaders: BTreeMap::new(),
            agreed: BTreeMap::new(),
            sequences: BTreeMap::new(),
            proposed: BTreeSet::new(),
            refused: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            effective: BTreeSet::new(),
            seen: 0,
            reads: BTreeMap::new(),
            next_read: 0,
            marks: Marks::default(),
            trace: std::env::var("RAFT_TRACE").is_ok(),
            still: 0,
            asked: quiet::Asked::default(),
            random,
            voters,
        };
        for node in world.voters.clone() {
            world.after(Duration::ZERO, Happening::Start { node });
        }
        world.after(Duration::from_millis(1), Happening::Client);
        world.after(Duration::from_millis(300), Happening::Fault);
        world
    }

    fn after(&mut self, wait: Duration, happening: Happening) {
        self.queued += 1;
        self.queue.insert((self.now + wait, self.queued), happening);
    }

    fn start_of(&self, node: NodeId) -> u64 {
        self.replicas[&node].starts
    }

    fn replica(&mut self, node: NodeId) -> &mut Replica {
        self.replicas.get_mut(&node).expect("is a voter")
    }

    fn runs(&self, node: NodeId) -> bool {
        self.replicas[&node].raft.is_some()
    }

    /// Lets time pass to `until`.
    fn run_until(&mut self, until: Instant) {
        loop {
            let event = self.queue.keys().next().map(|(at, _)| *at);
            let deadlines = self.replicas.values().filter_map(|replica| {
                if self.asked.stopped.contains_key(&replica.node) {
                    return None;
                }
                let due = replica.raft.as_ref()?.next_deadline()?;
                Some((due, replica.node))
            });
            let deadline = deadlines.min();
            let next = event.into_iter().chain(deadline.map(|(due, _)| due)).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.still = if next > self.now { 0 } else { self.still + 1 };
            assert!(self.still < 100_000, "time stands still at {}: {}", self.now, self.describe());
            self.now = self.now.max(next);
            match deadline {
                Some((due, node)) if event.is_none_or(|event| due < event) => {
                    self.tell(node, Input::Tick);
                }
                Some(_) | None => {
                    let (_, happening) = self.queue.pop_first().expect("an event is next");
                    self.happen(happening);
                }
            }
        }
        self.now = self.now.max(until);
    }

    fn tell(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        if self.trace {
            eprintln!("{now} {node} <- {input}");
        }
        self.replica(node).handle(now, input);
        self.poll(node);
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        let Some(happening) = self.unless_stopped(happening) else { return };
        match happening {
            Happening::Deliver { from, to, start, bytes } => {
                if self.start_of(to) == start && self.runs(to) && !self.cut.contains(&(from, to)) {
                    let message = Message::decode(bytes).expect("own encoding");
                    self.tell(to, Input::Message { from, message });
                }
            }
            Happening::WriteDone { node, start } if self.start_of(node) == start => {
                if let Some(released) = self.replica(node).complete_write(now) {
                    self.transmit(node, released);
                    self.poll(node);
                }
            }
            Happening::ApplyDone { node, start } if self.start_of(node) == start => {
                self.apply(node);
            }
            Happening::Fetched { node, start, input } if self.start_of(node) == start => {
                self.marks.fetched += 1;
                self.tell(node, input);
            }
            Happening::Snapshot { to, start, from, input, staged }
                if self.start_of(to) == start && self.runs(to) =>
            {
                if let Some(staged) = staged {
                    self.replica(to).staged.insert(from, staged);
                }
                self.tell(to, Input::Snapshot(input));
            }
            Happening::Installed { node, start, from, position }
                if self.start_of(node) == start =>
            {
                // Another transfer from the same peer may have taken the place of what was staged.
                let input = self.replica(node).install(from, position);
                let failed = Input::Snapshot(SnapshotInput::InstallFailed { position });
                self.marks.snapshots += u64::from(input.is_some());
                self.tell(node, input.unwrap_or(failed));
                self.finish_reads(node);
            }
            Happening::Start { node } if !self.runs(node) => {
                let seed = self.random.next();
                self.replica(node).start(now, seed);
                self.links_of(node, true);
                self.poll(node);
            }
            Happening::Client => self.client(),
            Happening::Fault => self.fault(),
            Happening::WriteDone { .. }
            | Happening::ApplyDone { .. }
            | Happening::Fetched { .. }
            | Happening::Snapshot { .. }
            | Happening::Installed { .. }
            | Happening::Start { .. } => {}
        }
    }

    /// Tells `node` and its peers of the links between them.
    fn links_of(&mut self, node: NodeId, up: bool) {
        for peer in self.voters.clone() {
            if peer == node || !self.runs(peer) {
                continue;
            }
            self.tell(peer, Input::Link { peer: node, incarnation: incarnation(node), up });
            if self.runs(node) {
                self.tell(node, Input::Link { peer, incarnation: incarnation(peer), up });
            }
        }
    }

    fn poll(&mut self, node: NodeId) {
        let (effects, sends) = self.replica(node).poll();
        for effect in effects {
            if self.trace {
                eprintln!("{} {node} -> {effect}", self.now);
            }
            self.on_effect(node, effect);
        }
        self.transmit(node, sends);
    }

    fn on_effect(&mut self, node: NodeId, effect: Effect) {
        let start = self.start_of(node);
        match effect {
            Effect::Persist { .. } => {
                let wait = match self.asked.gray == Some(node) {
                    true => Duration::from_secs(1),
                    false => self.random.micros(50, 3_000),
                };
                self.after(wait, Happening::WriteDone { node, start });
            }
            Effect::Send { .. } | Effect::SendBulk { .. } => {}
            Effect::Apply { first, last } => {
                self.check_apply(node, first, last);
                let wait = self.random.micros(10, 1_000);
                self.after(wait, Happening::ApplyDone { node, start });
            }
            Effect::Refused { origin, .. } => {
                assert!(!self.effective.contains(&origin), "{origin} was refused after its apply");
                self.marks.refused += 1;
                self.refused.insert(origin);
            }
            Effect::ReadReady { id, index } => {
                if let Some(reading) = self.reads.get_mut(&id) {
                    assert_eq!(reading.node, node);
                    reading.index = Some(index);
                }
                self.finish_reads(node);
            }
            Effect::ReadFailed { id, .. } => {
                self.reads.remove(&id);
            }
            Effect::Fetch { id, first, last, budget } => {
                let slots = self.replica(node).read_slots(first, last, budget);
                let wait = self.random.micros(10, 2_000);
                let input = Input::Fetched { id, slots };
                self.after(wait, Happening::Fetched { node, start, input });
            }
            Effect::Snapshot(snapshot) => self.on_snapshot(node, &snapshot),
            Effect::Event(event) => self.on_event(node, &event),
        }
    }

    fn on_event(&mut self, node: NodeId, event: &Event) {
        match event {
            Event::Role { role: RoleName::Leader, epoch } => {
                self.marks.elections += 1;
                let first = *self.leaders.entry(epoch.number).or_insert(node);
                assert_eq!(first, node, "election safety: two leaders of term {}", epoch.number);
                let log = &self.replicas[&node].disk.live;
                for (index, (hash, _)) in &self.agreed {
                    let found = log.slots.get(index).map(|slot| slot.entry.hash());
                    let is_held = *index <= log.purged.index || found == Some(*hash);
                    assert!(is_held, "leader completeness: {node} lacks {index} in term {epoch}");
                }
            }
            Event::Diverged { .. } => panic!("{node}: {event}"),
            Event::Mended { how: Mending::From(_), .. } => self.marks.given += 1,
            Event::Mended { how: Mending::FromMemory, .. } => {}
            Event::Mended { how: Mending::GivenUp, .. } => self.marks.given_up += 1,
            Event::MembershipAnswer { refusal: None } => self.marks.targets += 1,
            Event::MembershipAnswer { refusal: Some(_) } => self.marks.targets_refused += 1,
            Event::Configuration { configuration, .. } => {
                self.marks.joint += u64::from(configuration.is_joint());
            }
            Event::SteppedDown { reason: StepDownReason::Removed, .. } => self.marks.removed += 1,
            Event::Dropped { reason: DropReason::NotMember, .. } => {}
            Event::Dropped { .. } => panic!("{node}: {event}: nobody lies in this world"),
            Event::Role { .. }
            | Event::EpochChanged { .. }
            | Event::Leader { .. }
            | Event::Campaign { .. }
            | Event::SteppedDown { .. }
            | Event::SnapshotNeeded { .. }
            | Event::SnapshotInstalled { .. }
            | Event::NotReady { .. } => {}
        }
    }

    fn on_snapshot(&mut self, node: NodeId, effect: &SnapshotEffect) {
        let start = self.start_of(node);
        match effect {
            SnapshotEffect::Send { to, epoch } => {
                let (to, epoch) = (*to, *epoch);
                let (machine, configuration) = self.replicas[&node].capture();
                let position = machine.position();
                let wait = self.random.micros(500, 40_000);
                let arrives = self.runs(to)
                    && !self.cut.contains(&(node, to))
                    && !self.random.chance(self.loss);
                let outcome =
                    if arrives { SnapshotOutcome::Delivered } else { SnapshotOutcome::Failed };
                if arrives {
                    let staged = Some((machine, configuration.clone()));
                    let input =
                        SnapshotInput::Staged { from: node, epoch, position, configuration };
                    let to_start = self.start_of(to);
                    let happening =
                        Happening::Snapshot { to, start: to_start, from: node, input, staged };
                    self.after(wait, happening);
                }
                let input = SnapshotInput::Sent { to, position, outcome };
                let sent = Happening::Snapshot { to: node, start, from: to, input, staged: None };
                self.after(wait + Duration::from_micros(100), sent);
            }
            SnapshotEffect::Install { from, position } => {
                let wait = self.random.micros(100, 20_000);
                self.after(
                    wait,
                    Happening::Installed { node, start, from: *from, position: *position },
                );
            }
            SnapshotEffect::Discard { .. } => self.replica(node).discard(effect),
        }
    }

    fn transmit(&mut self, from: NodeId, sends: Vec<(NodeId, Message)>) {
        for (to, message) in sends {
            let start = self.start_of(to);
            let bytes = encoded(&message);
            self.marks.identified +=
                u64::from(matches!(&message, Message::Raft(raft::Message::Identified { .. })));
            let is_gray = self.asked.gray.is_some_and(|gray| gray == from || gray == to);
            let copies = if self.healing {
                1
            } else if self.random.chance(if is_gray { 500 } else { self.loss }) {
                0
            } else {
                1 + u64::from(self.random.chance(self.loss))
            };
            for _ in 0..copies {
                let far = if self.random.chance(self.loss / 4) { 300_000 } else { 2_000 };
                let wait = self.random.micros(50, if self.healing { 1_000 } else { far });
                let bytes = bytes.clone();
                self.after(wait, Happening::Deliver { from, to, start, bytes });
            }
        }
    }

    /// Only what is committed and durable here is applied here, and it is on a quorum of disks.
    fn check_apply(&mut self, node: NodeId, first: Index, last: Index) {
        for index in (first.0..=last.0).map(Index) {
            let slot = self.replicas[&node].disk.durable.slots.get(&index);
            let slot =
                slot.unwrap_or_else(|| panic!("{node} applies {index} before it is durable"));
            let (hash, epoch) = (slot.entry.hash(), slot.entry.created().number);
            let old = *self.agreed.entry(index).or_insert((hash, epoch));
            assert_eq!(old, (hash, epoch), "agreement: {node} applies another {index}");
            let holds = |id: &NodeId| {
                let replica = &self.replicas[id];
                let log = &replica.disk.durable;
                index <= log.purged.index
                    || index <= replica.synced.index()
                    || self.fragile == Some(*id) && self.lost_ends.contains(&(index, hash.0))
                    || log.slots.get(&index).is_some_and(|slot| slot.entry.hash() == hash)
            };
            let is_majority = |voters: Vec<NodeId>| {
                voters.is_empty() || 2 * voters.iter().filter(|id| holds(id)).count() > voters.len()
            };
            // It was committed under the configuration in force there, or under a later one, which may not have come to
            // this replica.
            let logs = self.replicas.values().map(|replica| &replica.disk.live);
            let mut configurations = logs.flat_map(|log| log.configurations_from(index));
            let is_quorum = |configuration: &Configuration| {
                is_majority(configuration.voters().collect())
                    && is_majority(configuration.outgoing_voters().collect())
            };
            assert!(
                configurations.any(|configuration| is_quorum(&configuration)),
                "{index} is applied at {node}, but is on too few disks"
            );
        }
    }

    fn apply(&mut self, node: NodeId) {
        let (now, sync) = (self.now, self.random.chance(self.sync_chance));
        let done = self.replica(node).apply_next(now, sync);
        for (_, origin) in done {
            let Some(origin) = origin else { continue };
            assert!(!self.refused.contains(&origin), "{origin} was refused, now it is applied");
            self.effective.insert(origin);
            if origin.node == node && self.acknowledged.insert(origin) {
                self.marks.acknowledged += 1;
                self.asked.acknowledge(origin, self.now);
                self.seen = self.seen.max(self.replicas[&node].machine.count);
            }
        }
        self.poll(node);
        self.finish_reads(node);
    }

    fn finish_reads(&mut self, node: NodeId) {
        let machine = &self.replicas[&node].machine;
        let (index, count) = (machine.index(), machine.count);
        let ready = |reading: &Reading| {
            reading.node == node && reading.index.is_some_and(|wanted| wanted <= index)
        };
        let done: Vec<ReadId> =
            self.reads.iter().filter(|(_, reading)| ready(reading)).map(|(id, _)| *id).collect();
        for id in done {
            let reading = self.reads.remove(&id).expect("was just seen");
            assert!(
                count >= reading.floor,
                "{node} reads {count} at {index}, but {} was seen before the read began",
                reading.floor
            );
            self.marks.reads += 1;
            self.seen = self.seen.max(count);
        }
    }

    fn propose(&mut self, node: NodeId, count: u64) {
        let mut proposals = Vec::new();
        for _ in 0..count {
            let sequence = self.sequences.entry(node).or_insert(0);
            *sequence += 1;
            let origin = Origin { node, incarnation: incarnation(node), sequence: *sequence };
            self.proposed.insert(origin);
            self.asked.proposed.insert(origin, self.now);
            let size = usize::try_from(self.random.below(60)).expect("small");
            let body = Bytes::from(vec![7; size]);
            let (kind, transaction) = (EntryKind::Command, TransactionId(0));
            proposals.push(Proposal { origin, kind, transaction, body });
        }
        self.tell(node, Input::Propose(proposals));
    }

    fn read(&mut self, node: NodeId) {
        let id = ReadId(self.next_read);
        self.next_read += 1;
        self.reads.insert(id, Reading { node, floor: self.seen, index: None });
        self.tell(node, Input::Read(id));
    }

    fn client(&mut self) {
        let voters = self.voters.clone();
        let node = self.random.pick(&voters);
        if self.runs(node) && !self.paused {
            if self.asked.pressed {
                self.propose(node, 8);
            } else if self.random.chance(600) {
                let count = self.random.pick(&[1, 1, 2, 8]);
                self.propose(node, count);
            } else {
                self.read(node);
            }
        }
        let wait = self.random.micros(100, if self.asked.pressed { 2_000 } else { 20_000 });
        self.after(wait, Happening::Client);
    }

    /// Entries of one index and term are the same everywhere, and so is all before them.
    fn check_log_matching(&self) {
        for (one, first) in &self.replicas {
            for (other, second) in self.replicas.range(NodeId(one.0 + 1)..) {
                let (a, b) = (&first.disk.live, &second.disk.live);
                let low = a.purged.index.max(b.purged.index);
                let high = a.last().min(b.last());
                let mut agreed = false;
                for index in (low.0 + 1..=high.0).rev().map(Index) {
                    if a.faults.contains_key(&index) || b.faults.contains_key(&index) {
                        continue;
                    }
                    let (x, y) = (&a.slots[&index].entry, &b.slots[&index].entry);
                    assert!(
                        !agreed || x.hash() == y.hash(),
                        "log matching: {one} and {other} differ at {index} but agree above"
                    );
                    let is_damaged =
                        self.fragile.is_some_and(|node| node == *one || node == *other);
                    agreed |= x.created() == y.created() && !is_damaged;
                }
            }
        }
    }

    /// Everything heals; the group must make progress.
    pub(crate) fn heal(&mut self) {
        self.healing = true;
        self.cut.clear();
        self.queue.retain(|_, happening| !matches!(happening, Happening::Client));
        for node in self.voters.clone() {
            if !self.runs(node) {
                self.after(Duration::ZERO, Happening::Start { node });
            }
        }
        self.run_until(self.now + Duration::from_millis(1));
        for node in self.voters.clone() {
            self.links_of(node, true);
        }
        self.run_until(self.now + Duration::from_secs(40));
        self.check_members();
        let leaders: Vec<NodeId> = self
            .voters
            .iter()
            .copied()
            .filter(|node| self.status(*node).role == RoleName::Leader)
            .collect();
        assert_eq!(leaders.len(), 1, "one leader after healing: {}", self.describe());
        let (acknowledged, reads) = (self.marks.acknowledged, self.marks.reads);
        let voters = self.voters.clone();
        for node in &voters {
            self.propose(*node, 1);
            self.read(*node);
            self.run_until(self.now + Duration::from_secs(2));
        }
        let count = voters.len() as u64;
        assert_eq!(self.marks.acknowledged - acknowledged, count, "writes: {}", self.describe());
        assert!(self.marks.reads - reads >= count, "reads: {}", self.describe());
        let first = self.replicas[&voters[0]].machine.applied;
        for node in &voters {
            let applied = self.replicas[node].machine.applied;
            assert_eq!(applied, first, "{node} has caught up: {}", self.describe());
            assert_eq!(self.status(*node).why_not, None, "{}", self.describe());
        }
        for origin in &self.acknowledged {
            assert!(self.effective.contains(origin), "{origin} was acknowledged and is gone");
        }
    }

    fn status(&self, node: NodeId) -> quorate_consensus::Status {
        self.replicas[&node].raft.as_ref().expect("all run").status(self.now)
    }

    pub(crate) fn describe(&self) -> String {
        let line = |node: &NodeId| {
            if !self.runs(*node) {
                return format!("\n  {node} is down");
            }
            let status = self.status(*node);
            let why_not = status.why_not.clone().unwrap_or_default();
            let peers: Vec<String> = status
                .peers
                .iter()
                .map(|(id, peer)| {
                    format!("{id}:{}/{} snapshot={}", peer.matched, peer.next, peer.snapshot)
                })
                .collect();
            format!("\n  {status} {why_not} {peers:?}")
        };
        self.voters.iter().map(line).collect()
    }
}

/// One run.
pub(crate) fn run(seed: u64) -> Marks {
    let mut world = World::new(seed);
    let seconds = 2 + world.random.below(12);
    for _ in 0..seconds * 2 {
        world.run_until(world.now + Duration::from_millis(500));
        world.check_log_matching();
    }
    world.heal();
    world.check_log_matching();
    world.marks
}

#[test]
fn random_runs_are_safe_and_end_in_progress() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let first = number("RAFT_SEED").unwrap_or(1);
    let count = number("RAFT_SEEDS").unwrap_or(if number("RAFT_SEED").is_some() { 1 } else { 150 });
    let mut total = Marks::default();
    for seed in first..first + count {
        let ran = std::panic::catch_unwind(|| run(seed));
        let Ok(marks) = ran else { panic!("seed {seed} failed: RAFT_SEED={seed}") };
        total.elections += marks.elections;
        total.acknowledged += marks.acknowledged;
        total.refused += marks.refused;
        total.reads += marks.reads;
        total.snapshots += marks.snapshots;
        total.damaged += marks.damaged;
        total.fetched += marks.fetched;
        total.crashes += marks.crashes;
        total.transfers += marks.transfers;
        total.rotten += marks.rotten;
        total.lost_ends += marks.lost_ends;
        total.identified += marks.identified;
        total.given += marks.given;
        total.given_up += marks.given_up;
        total.targets += marks.targets;
        total.targets_refused += marks.targets_refused;
        total.joint += marks.joint;
        total.removed += marks.removed;
    }
    println!("{count} seeds from {first}: {total:?}");
    if count >= 150 {
        let marks = [
            ("elections", total.elections),
            ("acknowledged", total.acknowledged),
            ("refused", total.refused),
            ("reads", total.reads),
            ("snapshots", total.snapshots),
            ("damaged", total.damaged),
            ("fetched", total.fetched),
            ("crashes", total.crashes),
            ("transfers", total.transfers),
            ("rotten", total.rotten),
            ("lost ends", total.lost_ends),
            ("given", total.given),
            ("given up", total.given_up),
            ("targets", total.targets),
            ("targets refused", total.targets_refused),
            ("joint", total.joint),
        ];
        for (name, hits) in marks {
            assert!(hits > 0, "no run met {name}: the world has grown too kind");
        }
    }
}
