//! Golden scripts: every message, write and apply moves only when the script says so. `UPDATE_GOLDENFILES=1`
//! writes the outputs anew; they are read as a diff before they are committed.

use crate::replica::{Replica, encoded, incarnation, member};
use bytes::Bytes;
use goldenscript::{Command, Context, Runner};
use quorate_consensus::{
    Control, Effect, Input, Limits, Message, Proposal, Protocol, ReadId, SnapshotEffect,
    SnapshotInput, SnapshotOutcome, Timing,
};
use quorate_types::{
    Configuration, EntryKind, Epoch, Incarnation, Index, Instant, Member, NodeId, Origin,
    SlotFault, TransactionId, WriteId,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write;
use std::time::Duration;

type Outcome = Result<String, Box<dyn Error>>;

/// A message on its way.
struct Packet {
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// A few replicas, a bag of messages, and a clock that only scripts move.
struct Script {
    now: Instant,
    replicas: BTreeMap<NodeId, Replica>,
    bag: Vec<Packet>,
    /// Fetches that the script has not answered: node, effect.
    fetches: Vec<(NodeId, Effect)>,
    /// Snapshots that the script has not sent: from, to, effect.
    snapshots: Vec<(NodeId, SnapshotEffect)>,
    sequence: u64,
    reads: u64,
    output: String,
}

impl Script {
    fn new() -> Script {
        Script {
            now: Instant(1_000_000_000),
            replicas: BTreeMap::new(),
            bag: Vec::new(),
            fetches: Vec::new(),
            snapshots: Vec::new(),
            sequence: 0,
            reads: 0,
            output: String::new(),
        }
    }

    fn line(&mut self, text: impl std::fmt::Display) {
        writeln!(self.output, "{text}").expect("strings take everything");
    }

    fn replica(&mut self, node: NodeId) -> &mut Replica {
        self.replicas.get_mut(&node).expect("scripts name existing nodes")
    }

    fn form(&mut self, count: u64, limits: Limits, timing: Timing) {
        let voters: Vec<NodeId> = (1..=count).map(NodeId).collect();
        for node in &voters {
            let replica = Replica { timing, ..Replica::new(*node, &voters, limits) };
            self.replicas.insert(*node, replica);
        }
        for node in voters {
            self.start(node);
        }
    }

    fn start(&mut self, node: NodeId) {
        let now = self.now;
        self.replica(node).start(now, 7);
        self.poll(node);
    }

    fn tell(&mut self, node: NodeId, input: Input) {
        let now = self.now;
        self.replica(node).handle(now, input);
        self.poll(node);
    }

    fn poll(&mut self, node: NodeId) {
        let (effects, sends) = self.replica(node).poll();
        for effect in effects {
            self.line(format_args!("{node} {effect}"));
            match effect {
                Effect::Fetch { .. } => self.fetches.push((node, effect)),
                Effect::Snapshot(snapshot) => {
                    self.replica(node).discard(&snapshot);
                    self.snapshots.push((node, snapshot));
                }
                Effect::Persist { .. }
                | Effect::Send { .. }
                | Effect::SendBulk { .. }
                | Effect::Apply { .. }
                | Effect::Refused { .. }
                | Effect::ReadReady { .. }
                | Effect::ReadFailed { .. }
                | Effect::Event(_) => {}
            }
        }
        self.put(node, sends);
    }

    fn put(&mut self, from: NodeId, sends: Vec<(NodeId, Message)>) {
        for (to, message) in sends {
            let message = Message::decode(encoded(&message)).expect("own encoding");
            self.bag.push(Packet { from, to, message });
        }
    }

    /// Delivers what matches, in order; what is sent meanwhile stays in the bag.
    fn deliver(&mut self, choice: &Choice) {
        let (chosen, rest): (Vec<Packet>, Vec<Packet>) =
            self.bag.drain(..).partition(|packet| choice.fits(packet));
        self.bag = rest;
        let order: Vec<Packet> = match choice.reversed {
            true => chosen.into_iter().rev().collect(),
            false => chosen,
        };
        for Packet { from, to, message } in order {
            if choice.keep {
                self.bag.push(Packet { from, to, message: message.clone() });
            }
            if self.replica(to).raft.is_some() {
                self.line(format_args!("{to} <- {from}: {message}"));
                self.tell(to, Input::Message { from, message });
            }
        }
    }

    fn sync(&mut self, node: NodeId, count: usize) {
        for _ in 0..count {
            let now = self.now;
            let Some(released) = self.replica(node).complete_write(now) else { break };
            self.put(node, released);
            self.poll(node);
        }
    }

    fn apply(&mut self, node: NodeId, sync: bool) {
        let now = self.now;
        while !self.replica(node).apply_next(now, sync).is_empty() {
            self.poll(node);
        }
    }

    fn fetch(&mut self) {
        for (node, effect) in std::mem::take(&mut self.fetches) {
            let Effect::Fetch { id, first, last, budget } = effect else { continue };
            let slots = self.replica(node).read_slots(first, last, budget);
            self.tell(node, Input::Fetched { id, slots });
        }
    }

    /// Delivers, syncs and applies until nothing moves, among the given nodes or all.
    fn stabilize(&mut self, nodes: &[NodeId]) {
        let nodes: Vec<NodeId> =
            if nodes.is_empty() { self.replicas.keys().copied().collect() } else { nodes.to_vec() };
        loop {
            let choice = Choice { among: Some(nodes.clone()), ..Choice::default() };
            let mut moved = self.bag.iter().any(|packet| choice.fits(packet));
            self.deliver(&choice);
            self.fetch();
            for node in nodes.clone() {
                moved |= !self.replica(node).disk.pending.is_empty();
                self.sync(node, usize::MAX);
                moved |= !self.replica(node).to_apply.is_empty();
                self.apply(node, true);
            }
            if !moved {
                break;
            }
        }
    }

    /// Sends the snapshots that were asked for; their receivers have them staged.
    fn send_snapshots(&mut self, outcome: SnapshotOutcome) {
        for (node, effect) in std::mem::take(&mut self.snapshots) {
            let SnapshotEffect::Send { to, epoch } = effect else {
                self.snapshots.push((node, effect));
                continue;
            };
            let (machine, configuration) = self.replica(node).capture();
            let position = machine.position();
            if outcome == SnapshotOutcome::Delivered {
                self.stage(node, to, epoch, machine, configuration);
            }
            self.tell(node, Input::Snapshot(SnapshotInput::Sent { to, position, outcome }));
        }
    }

    fn stage(
        &mut self,
        from: NodeId,
        to: NodeId,
        epoch: quorate_types::Epoch,
        machine: crate::machine::Machine,
        configuration: quorate_types::Configuration,
    ) {
        let position = machine.position();
        self.line(format_args!("{to} <- {from}: snapshot of {position} staged"));
        self.replica(to).staged.insert(from, (machine, configuration.clone()));
        let staged = SnapshotInput::Staged { from, epoch, position, configuration };
        self.tell(to, Input::Snapshot(staged));
    }

    fn install(&mut self, node: NodeId) {
        let asked = self.snapshots.iter().position(|(at, _)| *at == node);
        let Some(asked) = asked else { return };
        let (_, effect) = self.snapshots.remove(asked);
        if let SnapshotEffect::Install { from, position } = effect
            && let Some(input) = self.replica(node).install(from, position)
        {
            self.tell(node, input);
        }
    }

    fn describe(&mut self) {
        let now = self.now;
        let lines: Vec<String> = self
            .replicas
            .iter()
            .map(|(node, replica)| match &replica.raft {
                Some(raft) => raft.status(now).to_string(),
                None => format!("{node} is down"),
            })
            .collect();
        lines.into_iter().for_each(|line| self.line(line));
    }

    fn log(&mut self, node: NodeId) {
        let log = &self.replicas[&node].disk.live;
        let mut lines = vec![format!("{node} purged={}", log.purged)];
        lines.extend(log.slots.values().map(|slot| match log.faults.contains_key(&slot.index) {
            true => format!("{} damaged", slot.index),
            false => slot.to_string(),
        }));
        lines.into_iter().for_each(|line| self.line(line));
    }

    fn configuration(&mut self, node: NodeId) -> Configuration {
        let now = self.now;
        self.replica(node).raft.as_ref().expect("runs").status(now).configuration
    }

    fn target(
        &mut self,
        node: NodeId,
        voters: &[NodeId],
        learner: Option<NodeId>,
        unbound: Option<NodeId>,
    ) {
        let base = self.configuration(node);
        let removed_max = base.removed_max;
        let mut members: BTreeMap<NodeId, Member> =
            voters.iter().map(|id| (*id, member(*id))).collect();
        members.extend(learner.map(|id| (id, Member { voter: false, ..member(id) })));
        for (_, member) in members.iter_mut().filter(|(id, _)| Some(**id) == unbound) {
            member.incarnation = Incarnation::UNBOUND;
        }
        let target = Configuration { members, removed_max };
        self.tell(node, Input::Control(Control::TargetMembership { base, target }));
    }

    fn propose(&mut self, node: NodeId, bodies: &[String]) {
        let mut proposals = Vec::new();
        for body in bodies {
            self.sequence += 1;
            let sequence = self.sequence;
            let origin = Origin { node, incarnation: incarnation(node), sequence };
            let body = Bytes::from(body.clone());
            let (kind, transaction) = (EntryKind::Command, TransactionId(0));
            proposals.push(Proposal { origin, kind, transaction, body });
        }
        self.tell(node, Input::Propose(proposals));
    }
}

/// Which messages a command concerns.
#[derive(Default)]
struct Choice {
    from: Option<NodeId>,
    to: Option<NodeId>,
    among: Option<Vec<NodeId>>,
    /// The first word of the message's notation.
    kind: Option<String>,
    keep: bool,
    reversed: bool,
}

impl Choice {
    fn fits(&self, packet: &Packet) -> bool {
        let text = packet.message.to_string();
        self.from.is_none_or(|from| from == packet.from)
            && self.to.is_none_or(|to| to == packet.to)
            && self
                .among
                .as_ref()
                .is_none_or(|among| among.contains(&packet.from) && among.contains(&packet.to))
            && self.kind.as_ref().is_none_or(|kind| text.split(' ').next() == Some(kind))
    }
}

fn node_of(text: &str) -> Result<NodeId, Box<dyn Error>> {
    let number = text.strip_prefix('n').ok_or_else(|| format!("{text} is no node"))?;
    Ok(NodeId(number.parse()?))
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Outcome {
        self.output.clear();
        let mut args = command.consume_args();
        let mut optional = |key: &str| args.take_key(key).map(String::from);
        let node_in = |text: Option<String>| text.map(|text| node_of(&text)).transpose();
        let from = node_in(optional("from"))?;
        let to = node_in(optional("to"))?;
        let kind = optional("kind");
        let learner = node_in(optional("learner"))?;
        let unbound = node_in(optional("unbound"))?;
        let keep = optional("keep");
        let claimed = optional("term");
        let order = optional("order");
        let number = |text: Option<String>, default: u64| {
            text.map_or(Ok(default), |text| text.parse::<u64>())
        };
        let limits = Limits {
            retained_count: number(optional("retained"), 10_000)?,
            purge_count_min: number(optional("purge"), 1)?,
            tail_size_max: usize::try_from(number(optional("tail"), 1_000_000)?)?,
            append_size_max: usize::try_from(number(optional("append"), 1_000_000)?)?,
            window_size_max: usize::try_from(number(optional("window"), 1_000_000)?)?,
            ..Limits::default()
        };
        // Who is not told to wait tells at once what is committed: that is easier to follow.
        let commit_delay = Duration::from_millis(number(optional("commit-delay"), 0)?);
        let timing = Timing { commit_delay, ..Timing::default() };
        let count = number(optional("count"), u64::MAX)?;
        let mut rest: Vec<String> = Vec::new();
        while let Some(text) = args.next_pos() {
            rest.push(text.into());
        }
        args.reject_next()?;
        let choice = Choice {
            from,
            to,
            among: None,
            kind,
            keep: keep.is_some(),
            reversed: order.is_some_and(|order| order == "reversed"),
        };
        let node = |at: usize| -> Result<NodeId, Box<dyn Error>> {
            node_of(rest.get(at).ok_or("a node is missing")?)
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match command.name.as_str() {
            "form" => self.form(rest[0].parse()?, limits, timing),
            "campaign" => self.tell(node(0)?, Input::Control(Control::Campaign)),
            "transfer" => {
                self.tell(node(0)?, Input::Control(Control::Transfer(node(1)?)));
            }
            "wait" => self.now += Duration::from_millis(rest[0].parse()?),
            "tick" => self.tell(node(0)?, Input::Tick),
            "deliver" => self.deliver(&choice),
            "drop" => self.bag.retain(|packet| !choice.fits(packet)),
            "sync" => self.sync(node(0)?, count),
            "apply" => self.apply(node(0)?, true),
            "apply-unsynced" => self.apply(node(0)?, false),
            "fetch" => self.fetch(),
            "stabilize" => {
                let nodes = rest.iter().map(|text| node_of(text)).collect::<Result<Vec<_>, _>>()?;
                self.stabilize(&nodes);
            }
            "propose" => self.propose(node(0)?, &rest[1..]),
            "read" => {
                self.reads += 1;
                let id = ReadId(self.reads);
                self.tell(node(0)?, Input::Read(id));
            }
            "crash" => {
                let node = node(0)?;
                self.replica(node).crash(0);
                self.snapshots.retain(|(at, _)| *at != node);
            }
            "lose-state" => {
                let node = node(0)?;
                self.replica(node).lose_state();
            }
            "start" => self.start(node(0)?),
            "link" => {
                let (node, peer) = (node(0)?, node(1)?);
                let up = rest[2] == "up";
                self.tell(node, Input::Link { peer, incarnation: incarnation(peer), up });
            }
            "damage" => {
                // `damage n2 3`, or `damage n2 3 known` where it is still legible what was there.
                let (node, index) = (node(0)?, Index(rest[1].parse()?));
                let disk = &mut self.replica(node).disk;
                disk.durable.damage(index, rest.get(2).is_some_and(|word| word == "known"));
                disk.live = disk.durable.clone();
            }
            "found" => {
                // `found n2 3`: a read of the running replica's log finds the slot damaged.
                let (node, index) = (node(0)?, Index(rest[1].parse()?));
                self.replica(node).disk.live.damage(index, true);
                self.replica(node).disk.durable.damage(index, true);
                self.tell(node, Input::Damaged(SlotFault::DamagedUnknown(index)));
            }
            "forget" => {
                let node = node(0)?;
                let disk = &mut self.replica(node).disk;
                disk.durable.hard = None;
                disk.live.hard = None;
            }
            // `truncate n2 3`: the slots from 3 on are lost without a trace.
            "truncate" => {
                let (node, index) = (node(0)?, Index(rest[1].parse()?));
                let disk = &mut self.replica(node).disk;
                disk.durable.lose_end(index);
                disk.live = disk.durable.clone();
            }
            "durable" => {
                let (node, id) = (node(0)?, WriteId(rest[1].parse()?));
                self.tell(node, Input::Durable(id));
            }
            "snapshot" => self.send_snapshots(SnapshotOutcome::Delivered),
            "stage" => {
                // `stage n1 n2 term=7`: n1 claims that what it sends is of term 7.
                let (from, to) = (node(0)?, node(1)?);
                let (mut machine, configuration) = self.replicas[&from].capture();
                if let Some(number) = claimed {
                    machine.applied.position.epoch = Epoch::new(number.parse()?, from);
                }
                let epoch = self.replicas[&from].disk.live.hard.unwrap_or_default().promised;
                self.stage(from, to, epoch, machine, configuration);
            }
            "fail-snapshot" => self.send_snapshots(SnapshotOutcome::Failed),
            "install" => self.install(node(0)?),
            "status" => self.describe(),
            // `target n1 n2 n3 learner=n4` asks n1 for the voters n2 and n3 and the learner n4; `unbound=n3`: the folder of n3
            // is not recorded yet.
            "target" => {
                let voters =
                    rest[1..].iter().map(|text| node_of(text)).collect::<Result<Vec<_>, _>>()?;
                self.target(node(0)?, &voters, learner, unbound);
            }
            "join" => {
                let (node, from) = (node(0)?, node(1)?);
                let members = self.configuration(from);
                self.replicas.insert(node, Replica::joining(node, members, limits));
                self.start(node);
            }
            "why-not" => {
                let now = self.now;
                let reason = |replica: &Replica| Some(replica.raft.as_ref()?.status(now).why_not);
                let lines: Vec<String> = self
                    .replicas
                    .values()
                    .filter_map(|replica| Some((replica.node, reason(replica)??)))
                    .map(|(node, reason)| format!("{node}: {reason}"))
                    .collect();
                lines.into_iter().for_each(|line| self.line(line));
            }
            "log" => self.log(node(0)?),
            "pending" => {
                let lines: Vec<String> = self
                    .bag
                    .iter()
                    .map(|packet| format!("{} to {}: {}", packet.from, packet.to, packet.message))
                    .collect();
                lines.into_iter().for_each(|line| self.line(line));
            }
            name => return Err(format!("unknown command {name}").into()),
        }
        Ok(std::mem::take(&mut self.output))
    }
}

#[test]
fn scripts_give_what_they_say() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/raft");
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts are there")
        .map(|entry| entry.expect("can be listed").path())
        .collect();
    paths.sort();
    assert!(paths.len() >= 12, "only {} scripts", paths.len());
    for path in paths {
        goldenscript::run(&mut Script::new(), &path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
