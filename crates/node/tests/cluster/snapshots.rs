//! Snapshots to those who lag behind the log.

use crate::counter::Counter;
use crate::world::World;
use quorate_consensus::{Limits, RefuseReason, plan};
use quorate_node::{Answer, StopReason};
use quorate_types::{
    ApplyFault, Configuration, DiskOp, FileName, GroupId, Incarnation, Index, Member, StateMachine,
};
use std::time::Duration;

const GROUP: GroupId = GroupId(0);

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// A cluster whose log is purged early, and a member that lags behind it.
fn with_laggard() -> (World, String) {
    let mut world = World::new(&NAMES);
    world.limits = Limits { retained_count: 20, purge_count_min: 10, ..Limits::default() };
    for name in NAMES {
        world.start(name);
    }
    let leader = world.await_leader();
    let laggard = NAMES.into_iter().rfind(|name| *name != leader).expect("three").to_owned();
    world.kill(&laggard);
    for _ in 0..200 {
        world.add(&leader, 1);
        world.run(Duration::from_millis(10));
    }
    world.await_that("purge", |world| {
        let status = world.status(&leader);
        let log = &status.log.groups[&GROUP];
        log.bounds.purged.index.0 > 100
    });
    (world, laggard)
}

#[test]
fn a_laggard_is_brought_up_by_a_snapshot_and_keeps_it_over_restarts() {
    for drop_every in [0, 7] {
        let (mut world, laggard) = with_laggard();
        world.start(&laggard);
        world.drop_every = drop_every;
        world.await_that("catch-up", |world| world.host(&laggard).counter.sum == 200);
        world.drop_every = 0;
        assert_eq!(world.sum(&laggard), 200);
        let purged = world.status(&laggard).log.groups[&GROUP].bounds.purged;
        assert!(purged.index.0 > 100, "it came by a snapshot: {purged}");
        world.run(Duration::from_secs(2));
        let install = FileName::new("install-0");
        assert!(!world.host(&laggard).disk.0.borrow().contains_key(&install));
        world.kill(&laggard);
        world.start(&laggard);
        world.await_leader();
        assert_eq!(world.sum(&laggard), 200);
    }
}

#[test]
fn a_laggard_whose_vote_a_change_waits_for_gets_a_snapshot_from_before_it() {
    let (mut world, laggard) = with_laggard();
    let leader = world.await_leader();
    let other = NAMES.into_iter().find(|name| *name != leader && *name != laggard);
    let other = other.expect("three");
    world.host_mut(other).is_disk_held = true;
    assert_eq!(world.change(&leader, |target| add_learner(target, "n4")), Answer::Taken);
    let change = world.status(&leader).groups[&GROUP].last.index;
    world.start(&laggard);
    world.await_that("the change", |world| {
        world.status(&laggard).groups.get(&GROUP).is_some_and(|group| group.committed >= change)
    });
    let purged = world.status(&laggard).log.groups[&GROUP].bounds.purged.index;
    assert!(Index(100) < purged && purged < change, "the snapshot is of {purged}");
    assert_eq!(world.sum(&laggard), 200);
}

/// A learner that has yet to join.
fn add_learner(target: &mut Configuration, name: &str) {
    let member = target.members.values().next().expect("three").clone();
    let member = Member {
        incarnation: Incarnation::UNBOUND,
        name: name.into(),
        peer_address: format!("{name}:1"),
        voter: false,
        ..member
    };
    target.members.insert(plan::next_node(target), member);
}

#[test]
fn a_change_above_a_snapshot_that_took_the_place_of_lost_state_is_named_by_later_snapshots() {
    let (mut world, leader, others) = purged_cluster();
    let [victim, other] = others.as_slice() else { panic!("three nodes") };
    // The change is committed only once the victim's disk has it, so the snapshot that the victim gets is of before it.
    world.host_mut(other).is_disk_held = true;
    lose_state(&mut world, victim);
    world.await_that("run", |world| world.is_running(victim));
    world.host_mut(victim).is_disk_held = true;
    assert_eq!(world.change(&leader, |target| add_learner(target, "n4")), Answer::Taken);
    let change = world.status(&leader).groups[&GROUP].last.index;
    let knows = |world: &World, name: &str| {
        world.status(name).groups[&GROUP].configuration.members.len() == 4
    };
    world.await_that("the change", |world| knows(world, victim));
    world.await_that("a snapshot", |world| {
        let record = FileName::new("install-0");
        let mut held = world.host(victim).held_disk.iter();
        held.any(|held| matches!(&held.op, DiskOp::Replace { file, .. } if *file == record))
    });
    world.release_disk(victim);
    world.await_that("state", |world| !is_awaiting_snapshot(world, victim));
    let purged = world.status(victim).log.groups[&GROUP].bounds.purged.index;
    assert!(purged < change, "the snapshot is of {purged}, the change at {change}");
    world.release_disk(other);
    world.await_that("apply", |world| world.host(victim).counter.applied.position.index >= change);
    // Now the victim gives a snapshot.
    world.kill(&leader);
    lose_state(&mut world, other);
    world.await_that("state", |world| {
        world.is_running(other) && !is_awaiting_snapshot(world, other)
    });
    assert!(knows(&world, other), "the members that the snapshot names");
    assert_eq!(world.host(other).synced.state().members.configuration.members.len(), 4);
}

#[test]
fn a_crash_between_install_and_reset_is_made_up_for_at_open() {
    let (mut world, laggard) = with_laggard();
    let leader = world.await_leader();
    let before = world.status(&leader).groups[&GROUP].clone();
    world.host_mut(&laggard).is_cut_before_install_ends = true;
    world.start(&laggard);
    world.await_that("crash", |world| world.host(&laggard).node.is_none());
    assert_eq!(world.host(&laggard).stopped, None);
    let synced = world.host(&laggard).synced.applied.position;
    assert!(synced.index.0 > 100, "{synced}");
    world.start(&laggard);
    world.await_that("run", |world| world.is_running(&laggard));
    assert!(world.has_note(&laggard, "finishing the install of a snapshot"));
    let group = &world.status(&laggard).groups[&GROUP];
    assert!(group.last.index >= synced.index, "its log begins where the engine stands");
    assert_eq!(group.epoch.number, before.epoch.number, "it has not forgotten its promises");
    assert_eq!(group.configuration, before.configuration);
    assert_eq!(world.sum(&laggard), 200);
    world.run(Duration::from_secs(2));
    let install = FileName::new("install-0");
    assert!(!world.host(&laggard).disk.0.borrow().contains_key(&install));
}

/// Lets a node lose its state machine while its log begins after everything that it had applied.
fn lose_state(world: &mut World, name: &str) {
    world.kill(name);
    world.host_mut(name).synced = Counter::default();
    world.start(name);
}

fn is_awaiting_snapshot(world: &World, name: &str) -> bool {
    world.status(name).awaiting_snapshot.contains(&GROUP)
}

/// A cluster whose members have all purged their logs; gives who leads, and who does not.
fn purged_cluster() -> (World, String, Vec<String>) {
    let (mut world, laggard) = with_laggard();
    world.start(&laggard);
    world.await_that("catch-up", |world| world.host(&laggard).counter.sum == 200);
    world.run(Duration::from_secs(2));
    let leader = world.await_leader();
    let others = NAMES.into_iter().filter(|name| *name != leader).map(str::to_owned).collect();
    (world, leader, others)
}

#[test]
fn a_lost_state_machine_is_replaced_by_a_peers_and_nothing_is_served_before() {
    let (mut world, leader, others) = purged_cluster();
    for victim in [others[0].as_str(), &leader] {
        let sum = world.sum(&others[1]);
        lose_state(&mut world, victim);
        assert!(is_awaiting_snapshot(&world, victim), "before it has met anybody");
        world.await_that("run", |world| world.is_running(victim));
        assert!(world.has_note(victim, "A snapshot of a peer will take its place"));
        let why_not = world.status(victim).groups[&GROUP].why_not.clone().unwrap_or_default();
        assert!(why_not.contains("a snapshot of a peer must take its place"), "{why_not}");
        let refused = Answer::Refused { reason: RefuseReason::NotReady, missing: Vec::new() };
        let (write, read) = (world.propose(victim, 1), world.read(victim));
        assert_eq!(world.host(victim).answers.get(&write), Some(&refused));
        assert_eq!(world.host(victim).answers.get(&read), Some(&refused));

        world.await_that("state", |world| !is_awaiting_snapshot(world, victim));
        world.await_leader();
        assert_eq!(world.status(victim).groups[&GROUP].why_not, None);
        assert_eq!(world.add(victim, 5), sum + 5);
        assert_eq!(world.sum(victim), sum + 5);
        // What was installed is durable: the next start finds all in order.
        world.run(Duration::from_secs(2));
        world.kill(victim);
        world.start(victim);
        assert!(!is_awaiting_snapshot(&world, victim));
        assert_eq!(world.sum(victim), sum + 5);
    }
}

/// The node that lost its state has the only log that holds the last entry beside a node that is gone, so nobody can be
/// elected before it has state again; and it gets it from one who does not lead.
#[test]
fn a_lost_state_machine_is_replaced_without_a_leader() {
    let (mut world, leader, others) = purged_cluster();
    let (victim, behind) = (others[0].as_str(), others[1].as_str());
    world.isolate(behind);
    world.add(&leader, 7);
    world.run(Duration::from_secs(2));
    world.kill(victim);
    world.kill(&leader);
    world.cut.clear();
    lose_state(&mut world, victim);
    assert!(is_awaiting_snapshot(&world, victim));
    world.await_that("leader", |world| {
        let status = world.status(victim);
        status.groups.get(&GROUP).is_some_and(|group| group.leader == status.node)
    });
    assert_eq!(world.sum(victim), 207);
    assert_eq!(world.sum(behind), 207);
}

#[test]
fn a_lone_voter_without_its_state_stops_and_says_why() {
    let mut world = World::new(&["n1"]);
    world.limits = Limits { retained_count: 20, purge_count_min: 10, ..Limits::default() };
    world.start("n1");
    world.await_leader();
    for _ in 0..100 {
        world.add("n1", 1);
        world.run(Duration::from_millis(50));
    }
    world.kill("n1");
    world.host_mut("n1").synced = Counter::default();
    let error = world.try_start("n1").expect_err("nobody can give it a snapshot");
    assert!(error.to_string().contains("n1 is the only voter"), "{error}");
}

#[test]
fn damage_that_a_snapshot_meets_stops_the_node_that_reads_it() {
    let (mut world, leader, others) = purged_cluster();
    world.host_mut(&leader).counter.is_damaged = true;
    lose_state(&mut world, &others[0]);
    world.await_that("stop", |world| world.host(&leader).stopped.is_some());
    let stopped = world.host(&leader).stopped.clone();
    assert!(matches!(stopped, Some(StopReason::Machine(ApplyFault::Damaged(_)))), "{stopped:?}");
    world.await_that("state", |world| !is_awaiting_snapshot(world, &others[0]));
    assert_eq!(world.sum(&others[0]), 200);
}

#[test]
fn a_view_is_not_kept_for_a_receiver_that_is_gone() {
    let (mut world, laggard) = with_laggard();
    let leader = world.await_leader();
    world.start(&laggard);
    world.await_that("a snapshot on its way", |world| world.host(&leader).captured.is_some());
    world.kill(&laggard);
    world.run(Duration::from_millis(200));
    assert!(world.host(&leader).captured.is_none());
}
