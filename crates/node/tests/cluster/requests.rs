//! Proposals and reads, through crashes.

use crate::world::World;
use bytes::Bytes;
use quorate_consensus::{Control, RefuseReason};
use quorate_node::{Answer, NodeInput, Request, RequestId, StopReason};
use quorate_types::{BODY_SIZE_MAX, EntryKind, Fate, GroupId, Origin};
use std::time::Duration;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn every_node_takes_proposals_and_reads_and_all_restart_with_what_they_had() {
    let mut world = World::formed(&NAMES);
    let mut sum = 0;
    for round in 0..20 {
        for name in NAMES {
            sum += round;
            assert_eq!(world.add(name, round), sum);
        }
    }
    for name in NAMES {
        assert_eq!(world.sum(name), sum);
    }
    for name in NAMES {
        world.kill(name);
    }
    for name in NAMES {
        world.start(name);
    }
    world.await_leader();
    for name in NAMES {
        assert_eq!(world.sum(name), sum);
        assert_eq!(world.status(name).start.0, 2);
    }
}

#[test]
fn proposals_that_wait_when_the_leader_dies_are_applied_once_or_end_unknown() {
    for seed in 0..40_u64 {
        let mut world = World::formed(&NAMES);
        let leader = world.await_leader();
        let followers: Vec<&str> = NAMES.into_iter().filter(|name| *name != leader).collect();
        let ids: Vec<(&str, RequestId, u64)> = (0..20)
            .map(|bit| {
                let name = followers[bit as usize % 2];
                (name, world.propose(name, 1 << bit), 1 << bit)
            })
            .collect();
        for _ in 0..seed {
            world.step();
        }
        world.kill(&leader);
        for (name, id, _) in &ids {
            world.await_that("end", |world| world.is_over(name, *id));
        }
        world.await_leader();
        let sum = world.sum(followers[0]);
        assert_eq!(sum, world.sum(followers[1]), "seed {seed}");
        for (name, id, amount) in ids {
            let has_reply = world.host(name).replies.contains_key(&id);
            assert!(has_reply, "seed {seed}: {:?}", world.host(name).answers.get(&id));
            assert_eq!(sum & amount, amount, "seed {seed}: an acknowledged proposal is lost");
        }
        assert_eq!(sum, (1 << 20) - 1, "seed {seed}: applied more than once");
    }
}

#[test]
fn lost_frames_neither_lose_nor_repeat_a_proposal() {
    let mut world = World::formed(&NAMES);
    world.drop_every = 5;
    let mut ids = Vec::new();
    for round in 0..100_u64 {
        let name = NAMES[round as usize % 3];
        ids.push((name, world.propose(name, 1)));
        world.run(Duration::from_millis(5));
    }
    world.run(Duration::from_secs(10));
    world.drop_every = 0;
    let mut acknowledged = 0;
    let mut refused = 0;
    for (name, id) in ids {
        world.await_that("end", |world| world.is_over(name, id));
        let host = world.host(name);
        acknowledged += u64::from(host.replies.contains_key(&id));
        refused += u64::from(matches!(host.answers.get(&id), Some(Answer::Refused { .. })));
    }
    world.await_leader();
    let sum = world.sum("n1");
    assert!(acknowledged > 50, "{acknowledged}");
    assert!(acknowledged <= sum, "{acknowledged} acknowledged, {sum} applied");
    assert!(sum <= 100 - refused, "{refused} refused, {sum} applied");
}

#[test]
fn a_leader_that_is_reached_again_is_asked_again_at_once() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    let follower = NAMES.into_iter().find(|name| *name != leader).expect("three nodes");
    world.add(follower, 1);
    // It goes on to hear its leader, which hears nothing of it.
    world.hang_up(follower, &leader, Duration::from_millis(400));
    let proposed = world.propose(follower, 1);
    let asked = world.read(follower);
    world.run(Duration::from_millis(300));
    assert_eq!(world.leader(), Some(leader));
    assert!(!world.is_over(follower, proposed) && !world.is_over(follower, asked));
    world.run(Duration::from_millis(150));
    assert!(world.is_over(follower, proposed));
    // The protocol asks again itself with the next heartbeat.
    world.run(Duration::from_millis(150));
    assert!(world.is_over(follower, asked));
}

#[test]
fn without_a_quorum_requests_end_at_their_deadline_and_name_who_is_missing() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    let others: Vec<String> =
        NAMES.into_iter().filter(|name| *name != leader).map(str::to_owned).collect();
    for name in &others {
        world.kill(name);
    }
    let begun = world.now;
    let (write, read) = (world.propose(&leader, 1), world.read(&leader));
    world.await_that("end", |world| world.is_over(&leader, write) && world.is_over(&leader, read));
    assert!(world.now.since(begun) >= Duration::from_secs(7));
    assert!(world.now.since(begun) < Duration::from_secs(8));
    let host = world.host(&leader);
    let Answer::Unknown { origin: Some(origin), missing } = host.answers[&write].clone() else {
        panic!("the write ended as {:?}", host.answers[&write]);
    };
    assert_eq!(missing, others);
    let unknown = Answer::Unknown { origin: None, missing: others.clone() };
    assert_eq!(host.answers[&read], unknown);
    // By now it knows that it does not lead: what was never sent is refused, not unknown.
    let late = world.propose(&leader, 1);
    world.await_that("end", |world| world.is_over(&leader, late));
    let refused = Answer::Refused { reason: RefuseReason::NoLeader, missing: others.clone() };
    assert_eq!(world.host(&leader).answers[&late], refused);
    for name in &others {
        world.start(name);
    }
    let leader = world.await_leader();
    let fate = world.settle(&leader, origin);
    let sum = world.sum(&leader);
    match fate {
        Fate::Applied => assert_eq!(sum, 1),
        Fate::Never => assert_eq!(sum, 0),
        Fate::Open | Fate::Forgotten => panic!("its fate is {fate:?}"),
    }
}

#[test]
fn what_became_of_a_proposal_is_found_out_and_stays_so() {
    let mut world = World::formed(&NAMES);
    let old = world.await_leader();
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != old).collect();
    others.iter().for_each(|name| world.kill(name));
    // It stands in the log of the leader, which leaves before anybody else has it.
    let write = world.propose(&old, 1);
    world.await_that("end", |world| world.is_over(&old, write));
    let Answer::Unknown { origin: Some(origin), .. } = world.host(&old).answers[&write] else {
        panic!("the write ended as {:?}", world.host(&old).answers[&write]);
    };
    world.kill(&old);
    others.iter().for_each(|name| world.start(name));
    let leader = world.await_leader();
    assert_eq!(world.settle(&leader, origin), Fate::Never);
    world.start(&old);
    let leader = world.await_leader();
    others.iter().for_each(|name| assert_eq!(world.settle(name, origin), Fate::Never, "{name}"));
    NAMES.iter().for_each(|name| assert_eq!(world.sum(name), 0, "{name}"));
    // What was applied is told from it, over restarts of whoever is asked.
    let applied = Origin { sequence: origin.sequence + 1, ..origin };
    assert_eq!(world.add(&leader, 2), 2);
    let last = world.host(&leader).counter.last.expect("it has applied something");
    let (leader, others) = (leader.as_str(), NAMES.into_iter().filter(|name| *name != leader));
    for name in others {
        world.kill(name);
        world.start(name);
        world.await_leader();
        assert_eq!(world.settle(name, last), Fate::Applied, "{name}");
    }
    assert_eq!(world.sum(leader), 2);
    // A later start of the folder that it came from has proposed: nobody remembers those before one by one.
    world.settle(&old, last);
    assert_eq!(world.settle(&old, applied), Fate::Forgotten);
}

#[test]
fn only_settling_makes_entries_that_settle() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    let (kind, body) = (EntryKind::Settle, Bytes::from_static(b"?"));
    let request = Request::Propose { group: GroupId(0), kind, body, deadline: None };
    let id = world.request(&leader, request);
    world.await_that("end", |world| world.is_over(&leader, id));
    assert!(matches!(world.host(&leader).answers[&id], Answer::Refused { .. }));
    let settle = Request::Settle { group: GroupId(0), origin: Origin::NONE, deadline: None };
    let id = world.request(&leader, settle);
    world.await_that("end", |world| world.is_over(&leader, id));
    assert!(matches!(world.host(&leader).answers[&id], Answer::Declined(_)), "nobody made it");
}

#[test]
fn requests_before_formation_wait_for_it_until_their_deadline() {
    let mut world = World::new(&NAMES);
    world.start("n1");
    world.run(Duration::from_secs(1));
    let (write, read, begun) = (world.propose("n1", 1), world.read("n1"), world.now);
    assert_eq!(world.status("n1").waiting_count, 2);
    let missing = vec!["n2".to_owned(), "n3".to_owned()];
    world.await_that("end", |world| world.is_over("n1", write) && world.is_over("n1", read));
    assert!(world.now.since(begun) >= Duration::from_secs(7));
    let refused = Answer::Refused { reason: RefuseReason::NoLeader, missing };
    assert_eq!(world.host("n1").answers[&write], refused);
    assert_eq!(world.host("n1").answers[&read], refused);

    let (write, read) = (world.propose("n1", 2), world.read("n1"));
    world.run(Duration::from_secs(1));
    world.start("n2");
    world.start("n3");
    world.await_that("end", |world| world.is_over("n1", write) && world.is_over("n1", read));
    assert_eq!(world.host("n1").replies.get(&write), Some(&2));
    assert!(matches!(world.host("n1").answers[&read], Answer::ReadReady { .. }));
}

#[test]
fn a_node_that_leaves_before_it_has_met_anybody_answers_who_waits() {
    let mut world = World::new(&NAMES);
    world.start("n1");
    world.run(Duration::from_secs(1));
    let early = world.propose("n1", 1);
    world.tell("n1", NodeInput::Shutdown);
    world.await_that("stop", |world| world.host("n1").stopped.is_some());
    let missing = vec!["n2".to_owned(), "n3".to_owned()];
    let refused = Answer::Refused { reason: RefuseReason::NoLeader, missing };
    assert_eq!(world.host("n1").answers[&early], refused);
}

#[test]
fn bodies_above_the_limit_are_refused() {
    let mut world = World::formed(&["n1"]);
    let body = bytes::Bytes::from(vec![0; BODY_SIZE_MAX + 1]);
    let request =
        Request::Propose { group: GroupId(0), kind: EntryKind::Command, body, deadline: None };
    let large = world.request("n1", request);
    let refused = Answer::Refused { reason: RefuseReason::TooLarge, missing: vec![] };
    assert_eq!(world.host("n1").answers[&large], refused);
}

#[test]
fn a_leader_that_leaves_hands_over_first() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 5);
    let begun = world.now;
    world.tell(&leader, NodeInput::Shutdown);
    world.await_that("stop", |world| world.host(&leader).stopped.is_some());
    assert_eq!(world.host(&leader).stopped, Some(StopReason::Asked));
    let next = world.await_leader();
    assert_ne!(next, leader);
    assert!(world.now.since(begun) < Duration::from_millis(300), "an election timeout passed");
    assert_eq!(world.sum(&next), 5);
}

#[test]
fn a_node_that_leaves_keeps_what_it_has_applied() {
    let mut world = World::formed(&NAMES);
    world.run(Duration::from_secs(3));
    for name in NAMES {
        world.add(name, 1);
        world.tell(name, NodeInput::Shutdown);
        world.await_that("stop", |world| world.host(name).stopped.is_some());
        let host = world.host(name);
        assert_eq!(host.stopped, Some(StopReason::Asked));
        assert_eq!(host.synced.sum, host.counter.sum, "{name}");
        world.start(name);
        world.await_leader();
    }
}

#[test]
fn a_control_request_is_taken_and_done() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    let heir = if leader == "n1" { "n2" } else { "n1" };
    let node = world.status(heir).node.expect("formed");
    let control = Request::Control { group: GroupId(0), control: Control::Transfer(node) };
    let id = world.request(&leader, control);
    assert_eq!(world.host(&leader).answers[&id], Answer::Taken);
    world.await_that("heir", |world| world.leader().as_deref() == Some(heir));
}

#[test]
fn an_isolated_leader_neither_answers_reads_nor_keeps_what_others_overruled() {
    let mut world = World::formed(&NAMES);
    let old = world.await_leader();
    world.add(&old, 1);
    world.isolate(&old);
    let (write, read) = (world.propose(&old, 2), world.read(&old));
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != old).collect();
    let leads = |world: &World, name: &str| {
        let status = world.status(name);
        status.groups[&GroupId(0)].leader.is_some_and(|leader| Some(leader) == status.node)
    };
    world.await_that("new leader", |world| others.iter().any(|name| leads(world, name)));
    assert_eq!(world.add(others[0], 4), 5);
    assert!(!world.is_over(&old, read), "a read was answered without a quorum");
    assert!(!world.host(&old).replies.contains_key(&write));
    world.cut.clear();
    world.await_that("end", |world| world.is_over(&old, write) && world.is_over(&old, read));
    world.await_leader();
    // It was sent again to the new leader, within its deadline, and applied once.
    assert_eq!(world.host(&old).replies.get(&write), Some(&7));
    for name in NAMES {
        assert_eq!(world.sum(name), 7);
    }
}
