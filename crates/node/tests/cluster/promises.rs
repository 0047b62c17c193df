//! What a node promises to whoever drives it, and to those who wait.

use crate::world::{Disk, World};
use bytes::Bytes;
use quorate_consensus::Control;
use quorate_node::{
    Answer, MachineDone, MachineRequest, Node, NodeEffect, NodeInput, Request, RequestId,
    StopReason,
};
use quorate_types::{Applied, DiskDone, EntryKind, GroupId, Instant, Position};
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
    let unknown = Answer::Unknown { missing: Vec::new() };
    for id in [write, read] {
        assert_eq!(world.host(&leader).answers.get(&id), Some(&unknown));
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
        world.kill(&leader);
        world.run(Duration::from_millis(10));
        let id = world.propose(others[0], 1);
        world.await_leader();
        world.run(Duration::from_millis(20));
        assert!(world.host(others[0]).replies.contains_key(&id));
    }
}

/// A cluster of one whose state machine waits.
struct Alone {
    node: Node,
    disk: Disk,
    now: Instant,
    next_request: u64,
    asked: Vec<MachineRequest>,
}

impl Alone {
    fn new() -> Alone {
        let mut world = World::formed(&["n1"]);
        world.run(Duration::from_secs(2));
        let (now, host) = (world.now, world.host_mut("n1"));
        let node = host.node.take().expect("it runs");
        let disk = host.disk.clone();
        Alone { node, disk, now, next_request: 1_000, asked: Vec::new() }
    }

    fn tell(&mut self, input: NodeInput) {
        self.node.handle(self.now, input);
        while let Some(effect) = self.node.poll() {
            match effect {
                NodeEffect::Disk(request) => {
                    let result = self.disk.execute(request.op);
                    let done = DiskDone { id: request.id, result };
                    self.node.handle(self.now, NodeInput::Disk(done));
                }
                NodeEffect::Machine { request, .. } => self.asked.push(request),
                NodeEffect::Dial(_)
                | NodeEffect::Send { .. }
                | NodeEffect::Close { .. }
                | NodeEffect::Answer { .. }
                | NodeEffect::Event { .. }
                | NodeEffect::Note(_)
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
        let done = MachineDone::Applied { applied, answered };
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
