//! Snapshots to those who lag behind the log.

use crate::world::World;
use quorate_consensus::Limits;
use std::time::Duration;

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
        let log = &status.log.groups[&quorate_types::GroupId(0)];
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
        let purged = world.status(&laggard).log.groups[&quorate_types::GroupId(0)].bounds.purged;
        assert!(purged.index.0 > 100, "it came by a snapshot: {purged}");
        world.run(Duration::from_secs(2));
        let install = quorate_types::FileName::new("install-0");
        assert!(!world.host(&laggard).disk.0.borrow().contains_key(&install));
        world.kill(&laggard);
        world.start(&laggard);
        world.await_leader();
        assert_eq!(world.sum(&laggard), 200);
    }
}

#[test]
fn a_crash_between_install_and_reset_is_made_up_for_at_open() {
    let (mut world, laggard) = with_laggard();
    world.host_mut(&laggard).is_cut_before_install_ends = true;
    world.start(&laggard);
    world.await_that("crash", |world| world.host(&laggard).node.is_none());
    assert_eq!(world.host(&laggard).stopped, None);
    let synced = world.host(&laggard).synced.applied.position;
    assert!(synced.index.0 > 100, "{synced}");
    world.start(&laggard);
    world.await_that("run", |world| world.is_running(&laggard));
    assert!(world.has_note(&laggard, "finishing the install of a snapshot"));
    assert_eq!(world.sum(&laggard), 200);
    world.run(Duration::from_secs(2));
    let install = quorate_types::FileName::new("install-0");
    assert!(!world.host(&laggard).disk.0.borrow().contains_key(&install));
}

#[test]
fn a_state_machine_that_fell_behind_the_log_is_refused_at_open() {
    let (mut world, laggard) = with_laggard();
    world.start(&laggard);
    world.await_that("catch-up", |world| world.host(&laggard).counter.sum == 200);
    world.run(Duration::from_secs(2));
    world.kill(&laggard);
    world.host_mut(&laggard).synced = crate::counter::Counter::default();
    let error = world.try_start(&laggard).expect_err("behind");
    assert!(error.to_string().contains("the log begins after"), "{error}");
}
