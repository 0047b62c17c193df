//! What a node promises to whoever drives it, and to those who wait.

use crate::world::{Disk, World};
use bytes::Bytes;
use quorate_consensus::{Control, RoleName};
use quorate_node::{
    Answer, MachineDone, MachineRequest, Node, NodeEffect, NodeInput, NodeOptions, Phase, Request,
    RequestId, StopReason,
};
use quorate_types::{
    Applied, DiskDone, DiskError, DiskOp, DiskRequest, EntryKind, GroupId, Instant, MachineState,
    Position,
};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const GROUP: GroupId = GroupId(0);

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Who leads, and who does not.
fn formed() -> (World, String, Vec<&'static str>) {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(1));
    let leader = world.await_leader();
    let others = NAMES.into_iter().filter(|name| *name != leader).collect();
    (world, leader, others)
}

#[test]
fn what_is_not_durable_on_a_quorum_is_not_acknowledged() {
    let (mut world, leader, others) = formed();
    for name in &others {
        world.host_mut(name).is_disk_held = true;
    }
    let id = world.propose(&leader, 1);
    world.run(Duration::from_millis(300));
    assert!(!world.is_over(&leader, id), "only the leader's disk has it");
    assert_eq!(world.host(&leader).counter.sum, 0);
}

#[test]
fn a_leader_of_an_idle_cluster_stays() {
    let (mut world, leader, _) = formed();
    let epoch = world.status(&leader).groups[&GROUP].epoch;
    world.run(Duration::from_secs(10));
    assert_eq!(world.leader(), Some(leader.clone()));
    assert_eq!(world.status(&leader).groups[&GROUP].epoch, epoch);
}

#[test]
fn a_status_says_how_far_a_node_is_and_how_many_wait() {
    let (mut world, leader, others) = formed();
    assert_eq!(world.add(&leader, 3), 3);
    let status = world.status(&leader);
    assert_eq!(status.applied[&GROUP], world.host(&leader).counter.applied);
    assert_eq!(status.waiting_count, 0);
    others.iter().for_each(|name| world.kill(name));
    world.propose(&leader, 1);
    world.read(&leader);
    assert_eq!(world.status(&leader).waiting_count, 2);
}

#[test]
fn whoever_waits_is_answered_when_a_node_leaves() {
    let (mut world, leader, others) = formed();
    others.iter().for_each(|name| world.kill(name));
    let (write, read) = (world.propose(&leader, 1), world.read(&leader));
    world.tell(&leader, NodeInput::Shutdown);
    world.await_that("stop", |world| world.host(&leader).stopped.is_some());
    assert_eq!(world.host(&leader).stopped, Some(StopReason::Asked));
    for id in [write, read] {
        let answer = &world.host(&leader).answers[&id];
        let Answer::Unknown { origin, missing } = answer else { panic!("{answer:?}") };
        assert!(missing.is_empty());
        assert_eq!(origin.is_some(), id == write, "only what was proposed has a name");
    }
}

#[test]
fn a_change_of_members_that_nobody_answers_ends_at_its_deadline() {
    let (mut world, _, others) = formed();
    world.drop_every = 1;
    let begun = world.now;
    let base = world.status(others[0]).groups[&GROUP].configuration.clone();
    let mut target = base.clone();
    target.members.pop_first();
    let control = Control::TargetMembership { base, target };
    let id = world.request(others[0], Request::Control { group: GROUP, control });
    world.await_that("answer", |world| world.is_over(others[0], id));
    let answer = &world.host(others[0]).answers[&id];
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
    let waited = world.now.since(begun);
    assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
}

#[test]
fn a_proposal_goes_to_the_next_leader_as_soon_as_there_is_one() {
    for _ in 0..3 {
        let (mut world, leader, others) = formed();
        let lost = world.propose(others[0], 1);
        world.kill(&leader);
        world.run(Duration::from_millis(10));
        let late = world.propose(others[0], 2);
        world.await_leader();
        world.run(Duration::from_millis(20));
        for id in [lost, late] {
            assert!(world.host(others[0]).replies.contains_key(&id));
        }
    }
}

/// A cluster of one whose state machine waits.
struct Alone {
    node: Node,
    disk: Disk,
    now: Instant,
    next_request: u64,
    asked: Vec<MachineRequest>,
    notes: Vec<String>,
    /// Whether no file can be made.
    is_full: bool,
    /// How often one could not be.
    refused_count: u64,
}

impl Alone {
    fn new() -> Alone {
        let mut world = World::formed(&["n1"]);
        world.run(Duration::from_secs(2));
        let (now, host) = (world.now, world.host_mut("n1"));
        let node = host.node.take().expect("it runs");
        let disk = host.disk.clone();
        Alone {
            node,
            disk,
            now,
            next_request: 1_000,
            asked: Vec::new(),
            notes: Vec::new(),
            is_full: false,
            refused_count: 0,
        }
    }

    fn tell(&mut self, input: NodeInput) {
        self.node.handle(self.now, input);
        while let Some(effect) = self.node.poll() {
            match effect {
                NodeEffect::Disk(request) => {
                    let result = match request.op {
                        DiskOp::Allocate { file, .. } if self.is_full => {
                            self.refused_count += 1;
                            Err(DiskError::NoSpace(file))
                        }
                        op @ (DiskOp::Allocate { .. }
                        | DiskOp::Write { .. }
                        | DiskOp::Read { .. }
                        | DiskOp::Rename { .. }
                        | DiskOp::Delete { .. }
                        | DiskOp::Replace { .. }) => self.disk.execute(op),
                    };
                    let done = DiskDone { id: request.id, result };
                    self.node.handle(self.now, NodeInput::Disk(done));
                }
                NodeEffect::Machine { request, .. } => self.asked.push(request),
                NodeEffect::Note(note) | NodeEffect::Warning(note) => self.notes.push(note),
                NodeEffect::Dial(_)
                | NodeEffect::Send { .. }
                | NodeEffect::Close { .. }
                | NodeEffect::Answer { .. }
                | NodeEffect::Event { .. }
                | NodeEffect::Outside(_)
                | NodeEffect::Stop(_) => {}
            }
        }
    }

    fn request(&mut self, request: Request) {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        self.tell(NodeInput::Request { id, request });
    }

    fn propose(&mut self, size: usize) {
        let (kind, body) = (EntryKind::Command, Bytes::from(vec![0; size]));
        self.request(Request::Propose { group: GROUP, kind, body, deadline: None });
    }

    /// The state machine applies the oldest of what it was asked to.
    fn apply(&mut self) {
        let MachineRequest::Apply(entries) = self.asked.remove(0) else { return };
        let last = &entries.last().expect("not empty").committed;
        let position = Position::new(last.index, last.entry.created());
        let answered = entries.iter().filter_map(|entry| entry.request).collect();
        let applied = Applied { position, ..Applied::default() };
        let done = MachineDone::Applied { applied, answered, settled: Vec::new() };
        self.tell(NodeInput::Machine { group: GROUP, done });
    }
}

#[test]
fn a_driver_is_told_when_something_waits_for_an_apply() {
    let mut alone = Alone::new();
    assert!(!alone.node.awaits_apply());
    alone.propose(8);
    assert!(!alone.node.awaits_apply(), "its reply comes with the apply");
    alone.request(Request::Read { group: GROUP, deadline: None });
    assert!(alone.node.awaits_apply(), "the read waits for the index of its barrier");
    alone.apply();
    assert!(!alone.node.awaits_apply());
    // More than may be handed over at once.
    for _ in 0..40 {
        alone.propose(1024 * 1024);
    }
    assert!(alone.node.awaits_apply());
    while !alone.asked.is_empty() {
        alone.apply();
    }
    assert!(!alone.node.awaits_apply());
}

#[test]
fn a_node_that_leaves_answers_syncs_and_hands_leadership_over_first() {
    let (mut world, leader, others) = formed();
    let id = world.propose(&leader, 5);
    world.tell(&leader, NodeInput::Shutdown);
    let begun = world.now;
    world.await_that("stop", |world| world.host(&leader).stopped.is_some());
    world.run(Duration::from_millis(10));
    let leads = |name: &&str| world.status(name).groups[&GROUP].role == RoleName::Leader;
    assert!(others.iter().any(leads), "another leads at once");
    assert!(world.now.since(begun) < Duration::from_millis(300));
    let host = world.host(&leader);
    assert_eq!(host.replies.get(&id), Some(&5));
    assert_eq!(host.synced.applied, host.counter.applied);
    world.await_leader();
    assert!(world.now.since(begun) < Duration::from_millis(400), "without an election timeout");
}

#[test]
fn a_follower_leaves_as_soon_as_nobody_waits() {
    let (mut world, _, others) = formed();
    let id = world.propose(others[0], 5);
    world.tell(others[0], NodeInput::Shutdown);
    let begun = world.now;
    world.await_that("stop", |world| world.host(others[0]).stopped.is_some());
    assert!(world.now.since(begun) < Duration::from_millis(100));
    assert_eq!(world.host(others[0]).replies.get(&id), Some(&5));
}

#[test]
fn leadership_is_handed_to_one_that_can_be_reached() {
    let (mut world, leader, others) = formed();
    for gone in &others {
        world.kill(gone);
        world.run(Duration::from_millis(10));
        world.tell(&leader, NodeInput::Shutdown);
        let begun = world.now;
        world.await_that("stop", |world| world.host(&leader).stopped.is_some());
        assert!(world.now.since(begun) < Duration::from_millis(300));
        for name in [*gone, &leader] {
            world.start(name);
        }
        world.await_leader();
        world.run(Duration::from_secs(1));
        let node = world.status(&leader).node.expect("formed");
        let control = Request::Control { group: GROUP, control: Control::Transfer(node) };
        let now = world.await_leader();
        world.request(&now, control);
        world.await_that("leader", |world| world.leader().as_ref() == Some(&leader));
        world.run(Duration::from_secs(1));
    }
}

#[test]
fn nothing_comes_after_a_stop() {
    let mut alone = Alone::new();
    alone.propose(8);
    alone.apply();
    let (mut is_synced, mut is_stopped) = (false, false);
    let mut last = Vec::new();
    alone.node.handle(alone.now, NodeInput::Shutdown);
    while let Some(effect) = alone.node.poll() {
        assert!(!is_stopped, "{effect:?} after the end");
        is_stopped = matches!(effect, NodeEffect::Stop(StopReason::Asked));
        match effect {
            NodeEffect::Machine { request: MachineRequest::Sync, .. } => {
                // All else that it asks for comes before this is done.
                while let Some(other) = alone.node.poll() {
                    assert!(
                        !matches!(other, NodeEffect::Stop(_)),
                        "what is applied is not durable"
                    );
                }
                is_synced = true;
                let applied = alone.node.status(alone.now).applied[&GROUP];
                let done = MachineDone::Synced(applied);
                alone.node.handle(alone.now, NodeInput::Machine { group: GROUP, done });
            }
            NodeEffect::Disk(request) => last.push(request),
            NodeEffect::Machine { .. }
            | NodeEffect::Dial(_)
            | NodeEffect::Send { .. }
            | NodeEffect::Close { .. }
            | NodeEffect::Answer { .. }
            | NodeEffect::Event { .. }
            | NodeEffect::Note(_)
            | NodeEffect::Warning(_)
            | NodeEffect::Outside(_)
            | NodeEffect::Stop(_) => {}
        }
    }
    assert!(is_synced && is_stopped);
    assert!(!last.is_empty(), "that the last batch is synced is said for the next open");
    assert_eq!(alone.node.next_deadline(), None);
    alone.now += Duration::from_secs(9);
    alone.node.handle(alone.now, NodeInput::Tick);
    assert!(alone.node.poll().is_none());
}

#[test]
fn a_full_log_goes_on_once_there_is_space() {
    let mut alone = Alone::new();
    alone.is_full = true;
    let is_full = |alone: &Alone, part: &str| alone.notes.iter().any(|note| note.contains(part));
    for _ in 0..8 {
        alone.propose(512 * 1024);
    }
    assert!(is_full(&alone, "is full"), "{:?}", alone.notes);
    alone.notes.clear();
    let (begun, before) = (alone.now, alone.refused_count);
    for _ in 0..60 {
        alone.now = alone.node.next_deadline().expect("it tries again").max(alone.now);
        alone.tell(NodeInput::Tick);
    }
    let second_count = alone.now.since(begun).as_secs();
    let tried_count = alone.refused_count - before;
    assert!(second_count > 1);
    assert!((second_count - 1..=second_count + 1).contains(&tried_count), "{tried_count} tries");
    assert!(!is_full(&alone, "space again"));
    alone.is_full = false;
    let begun = alone.now;
    while !is_full(&alone, "space again") {
        assert!(alone.now.since(begun) <= Duration::from_secs(2));
        alone.now = alone.node.next_deadline().expect("it tries again").max(alone.now);
        alone.tell(NodeInput::Tick);
    }
}

#[test]
fn nothing_is_said_before_the_start_is_durable() {
    for name in NAMES {
        let (mut world, ..) = formed();
        world.kill(name);
        world.host_mut(name).is_disk_held = true;
        world.start(name);
        world.run(Duration::from_secs(2));
        assert_eq!(world.status(name).phase, Phase::Recovering);
        assert_eq!(world.host(name).dial, [""; 0]);
        assert!(!world.host(name).held_disk.is_empty());
    }
}

#[test]
fn a_node_that_forms_a_cluster_says_whom_it_waits_for() {
    let mut world = World::new(&NAMES);
    world.start("n1");
    world.run(Duration::from_secs(2));
    assert!(world.has_note("n1", "waiting for n2, n3"), "{:?}", world.host("n1").notes);
    let count = |world: &World| {
        world.host("n1").notes.iter().filter(|note| note.contains("waiting for")).count()
    };
    assert_eq!(count(&world), 1, "once");
    world.start("n3");
    world.run(Duration::from_secs(2));
    assert_eq!(count(&world), 2);
    assert!(world.host("n1").notes.iter().any(|note| note.ends_with("waiting for n2")));
}

#[test]
fn damage_of_the_log_is_reported_at_the_start() {
    let (mut world, leader, _) = formed();
    world.add(&leader, 1);
    world.run(Duration::from_secs(2));
    world.kill("n2");
    world.lose_configurations("n2", "n1");
    world.start("n2");
    assert!(world.has_note("n2", "the log is damaged"), "{:?}", world.host("n2").notes);
}

fn is_identity(request: &DiskRequest) -> bool {
    matches!(&request.op, DiskOp::Replace { file, .. } if file.as_str() == "identity")
}

/// Starts a node on its own and does what it asks of the disk one thing at a time, as long as `goes_on`, which is shown the
/// node and what waits.
fn start_slowly(
    options: NodeOptions,
    disk: &Disk,
    mut goes_on: impl FnMut(&Node, Instant, &VecDeque<DiskRequest>) -> bool,
) {
    let mut now = Instant::ZERO + Duration::from_secs(1);
    let machines = BTreeMap::from([(GROUP, MachineState::default())]);
    let mut node = Node::open(now, options, disk, machines).expect("its own folder");
    let mut waiting = VecDeque::new();
    loop {
        while let Some(effect) = node.poll() {
            if let NodeEffect::Disk(request) = effect {
                waiting.push_back(request);
            }
        }
        if !goes_on(&node, now, &waiting) {
            return;
        }
        // The identity file is the slowest.
        let place = waiting.iter().position(|request| !is_identity(request)).unwrap_or(0);
        if let Some(DiskRequest { id, op }) = waiting.remove(place) {
            let result = disk.execute(op);
            node.handle(now, NodeInput::Disk(DiskDone { id, result }));
        } else {
            now = node.next_deadline().expect("it has something to do").max(now);
            node.handle(now, NodeInput::Tick);
        }
    }
}

#[test]
fn a_replica_runs_only_once_the_identity_file_knows_its_cluster() {
    let mut world = World::new(&["n1"]);
    let disk = Disk::default();
    let (mut write_count, mut first) = (0, None);
    start_slowly(world.options("n1"), &disk, |node, now, waiting| {
        let phase = node.status(now).phase;
        let write = waiting.iter().find(|request| is_identity(request)).map(|request| request.id);
        let start = *first.get_or_insert(write);
        assert!(start.is_some(), "the start is recorded");
        assert!(write != start || phase == Phase::Recovering, "{phase:?}");
        let is_running = phase == Phase::Running;
        assert!(!is_running || write.is_none());
        write_count += u64::from(write.is_some());
        !is_running
    });
    assert!(write_count >= 3, "the start, the roster, the membership");
}

#[test]
fn formation_that_is_cut_off_anywhere_goes_on_at_the_next_start() {
    for cut in 0.. {
        let mut world = World::new(&["n1"]);
        let disk = Disk::default();
        let (mut step_count, mut is_formed) = (0, false);
        start_slowly(world.options("n1"), &disk, |node, now, waiting| {
            let is_deletion = |request: &DiskRequest| matches!(request.op, DiskOp::Delete { .. });
            assert!(!waiting.iter().any(is_deletion), "there is no install file to delete");
            is_formed = node.status(now).phase == Phase::Running;
            step_count += 1;
            step_count <= cut && !is_formed
        });
        let mut clusters = Vec::new();
        for _ in 0..2 {
            start_slowly(world.options("n1"), &disk, |node, now, _| {
                let status = node.status(now);
                let is_running = status.phase == Phase::Running;
                if is_running {
                    assert_eq!(status.log.groups[&GROUP].bounds.last.0, 1);
                    clusters.push(status.cluster.expect("formed"));
                }
                !is_running
            });
        }
        assert_eq!(clusters[0], clusters[1], "cut after {cut}");
        if is_formed {
            return;
        }
    }
}
