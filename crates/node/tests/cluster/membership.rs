//! Nodes that join, leave and take each other's place.

use crate::counter::Counter;
use crate::world::World;
use quorate_consensus::Control;
use quorate_node::{Answer, Join, Phase, Request, StopReason};
use quorate_types::{Configuration, GroupId, Incarnation, Intent, Member, NodeId};
use std::time::Duration;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

/// Adds a member whose data folder is not known yet.
fn add(name: &str, voter: bool) -> impl FnOnce(&mut Configuration) {
    let name = name.to_owned();
    move |target| {
        let id = quorate_consensus::plan::next_node(target);
        let member = Member {
            incarnation: Incarnation::UNBOUND,
            peer_address: format!("{name}:1"),
            name,
            voter,
            outgoing_voter: false,
            intent: Intent::Stay,
        };
        target.members.insert(id, member);
    }
}

/// Adds a voter whose data folder is not known yet, reached at this address.
fn add_at(name: &str, address: &str) -> impl FnOnce(&mut Configuration) {
    let (name, address) = (name.to_owned(), address.to_owned());
    move |target| {
        add(&name, true)(target);
        let added = target.members.values_mut().next_back().expect("was just added");
        added.peer_address = address;
    }
}

fn remove(name: &str) -> impl FnOnce(&mut Configuration) {
    let name = name.to_owned();
    move |target| target.members.retain(|_, member| member.name != name)
}

/// Waits until all of `names` know these voters and no change under way.
fn await_voters(world: &mut World, names: &[&str], voters: &str) {
    world.await_that(voters, |world| {
        names.iter().all(|name| world.is_running(name) && world.voters(name) == voters)
    });
    // The last step is committed.
    world.run(Duration::from_millis(300));
}

#[test]
fn a_node_joins_after_or_before_it_is_added_and_comes_back_by_itself() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 7);
    let follower = NAMES.into_iter().find(|name| *name != leader).expect("three nodes");

    world.start_joining("n4", "n1");
    world.await_that("a refusal", |world| world.has_note("n4", "has no member n4"));
    assert_eq!(world.status("n4").phase, Phase::Joining { contacts: vec!["n1:1".into()] });
    assert_eq!(world.change(follower, add("n4", true)), Answer::Taken);
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3,n4");
    assert_eq!(world.sum("n4"), 7);
    assert_eq!(world.status("n4").node, Some(NodeId(4)));
    assert_eq!(world.status("n4").cluster, world.status("n1").cluster);

    assert_eq!(world.change(follower, add("n5", true)), Answer::Taken);
    world.run(Duration::from_secs(3));
    assert_eq!(world.voters("n1"), "n1,n2,n3,n4 changing", "nobody has come yet");
    world.start_joining("n5", "n4");
    let all = ["n1", "n2", "n3", "n4", "n5"];
    await_voters(&mut world, &all, "n1,n2,n3,n4,n5");
    world.add("n5", 1);

    // Its folder knows where it belongs: neither a list nor a contact is needed.
    for name in ["n4", "n5"] {
        world.kill(name);
        let mut options = world.options(name);
        options.cluster.clear();
        world.start_with(options).expect("it is a member");
    }
    world.kill("n1");
    world.kill("n2");
    await_voters(&mut world, &all[2..], "n1,n2,n3,n4,n5");
    assert_eq!(world.sum("n4"), 8);
    assert_eq!(world.sum("n5"), 8);
}

#[test]
fn an_emptied_folder_does_not_join_in_place_of_the_one_that_did() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 1);
    world.start_joining("n4", "n2");
    assert_eq!(world.change(&leader, add("n4", true)), Answer::Taken);
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3,n4");
    world.kill("n4");
    world.wipe("n4");
    world.start_joining("n4", "n2");
    world.await_that("the end", |world| world.host("n4").stopped.is_some());
    let Some(StopReason::Refused(text)) = &world.host("n4").stopped else {
        panic!("{:?}", world.host("n4").stopped);
    };
    assert!(text.contains("another data folder of n4"), "{text}");
    assert_eq!(world.voters("n1"), "n1,n2,n3,n4");
    // The place of a lost folder is taken by a new member.
    assert_eq!(world.change(&leader, remove("n4")), Answer::Taken);
    await_voters(&mut world, &NAMES, "n1,n2,n3");
    world.start_joining("n4", "n2");
    assert_eq!(world.change(&leader, add("n4", true)), Answer::Taken);
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3,n4");
    assert_eq!(world.status("n4").node, Some(NodeId(5)), "ids are never used again");
}

/// A machine whose disk is lost comes back as a new member, and most often at the address that it had.
#[test]
fn a_member_is_replaced_by_one_at_the_same_address() {
    for left in NAMES {
        let mut world = World::formed(&NAMES);
        let leader = world.await_leader();
        world.add(&leader, 3);
        world.kill(left);
        world.wipe(left);
        let leader = world.await_leader();
        world.add(&leader, 1);
        let address = format!("{left}:1");
        world.start_joining_at("n4", &leader, &address);
        let replaced = world.change(&leader, |target| {
            add_at("n4", &address)(target);
            remove(left)(target);
        });
        assert_eq!(replaced, Answer::Taken);
        let mut rest: Vec<&str> = NAMES.into_iter().filter(|name| *name != left).collect();
        rest.push("n4");
        await_voters(&mut world, &rest, &rest.join(","));
        world.add("n4", 4);
        assert_eq!(world.sum("n4"), 8);
    }
}

/// Peers are told apart by their names: with two of one name, neither could be reached.
#[test]
fn a_new_member_needs_a_name_that_nobody_has_who_is_or_leaves() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 1);
    let refused = world.change(&leader, |target| {
        add_at("n2", "other:1")(target);
        target.members.remove(&NodeId(2));
    });
    let Answer::Declined(text) = refused else { panic!("{refused:?}") };
    assert_eq!(
        text,
        "n2 is the name of a member, or of one that leaves: a new member needs another"
    );

    // One that was added without a name, as by etcd's clients, comes with one that is taken.
    world.kill("n2");
    world.wipe("n2");
    let leader = world.await_leader();
    world.add(&leader, 2);
    let added = world.change(&leader, |target| {
        add_at("", "n2:1")(target);
        target.members.remove(&NodeId(2));
    });
    assert_eq!(added, Answer::Taken);
    world.start_joining("n2", &leader);
    world.await_that("the end", |world| world.host("n2").stopped.is_some());
    let Some(StopReason::Refused(text)) = &world.host("n2").stopped else {
        panic!("{:?}", world.host("n2").stopped);
    };
    assert!(text.contains("another data folder of n2"), "{text}");
    world.kill("n2");
    world.wipe("n2");
    world.start_joining_at("n4", &leader, "n2:1");
    await_voters(&mut world, &["n1", "n3", "n4"], "n1,n3,n4");
}

#[test]
fn a_member_is_replaced_and_the_one_that_left_stops() {
    for left in NAMES {
        let mut world = World::formed(&NAMES);
        let leader = world.await_leader();
        world.add(&leader, 3);
        world.start_joining("n4", &leader);
        let replaced = world.change(&leader, |target| {
            // The new id is drawn while all former ones are there.
            add("n4", true)(target);
            remove(left)(target);
        });
        assert_eq!(replaced, Answer::Taken);
        let mut rest: Vec<&str> = NAMES.into_iter().filter(|name| *name != left).collect();
        rest.push("n4");
        await_voters(&mut world, &rest, &rest.join(","));
        world
            .await_that("the end of the one that left", |world| world.host(left).stopped.is_some());
        let Some(StopReason::Refused(text)) = &world.host(left).stopped else {
            panic!("{:?}", world.host(left).stopped);
        };
        assert!(text.contains("was removed from this cluster"), "{text}");
        world.kill(left);
        let leader = world.await_leader();
        assert_eq!(world.add(&leader, 4), 7, "{left} left");
        for name in rest {
            assert_eq!(world.sum(name), 7, "{left} left");
        }
    }
}

#[test]
fn a_change_half_way_is_carried_through_when_all_start_again() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 1);
    assert_eq!(world.change(&leader, add("n4", true)), Answer::Taken);
    world.run(Duration::from_millis(50));
    for name in NAMES {
        world.kill(name);
    }
    for name in NAMES {
        world.start(name);
    }
    world.await_leader();
    world.start_joining("n4", "n3");
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3,n4");
    assert_eq!(world.sum("n4"), 1);
}

#[test]
fn a_member_that_was_added_without_a_name_is_known_by_its_address() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 5);
    let added = world.change(&leader, |target| {
        add("n4", false)(target);
        let member = target.members.get_mut(&NodeId(4)).expect("it was added");
        member.name.clear();
    });
    assert_eq!(added, Answer::Taken);
    world.start_joining("n7", "n1");
    world.start_joining("n4", "n2");
    world.await_that("n4", |world| world.is_running("n4"));
    assert_eq!(world.sum("n4"), 5);
    assert!(!world.is_running("n7"), "it has another address");
    assert_eq!(world.voters("n4"), "n1,n2,n3", "it is a learner");
}

#[test]
fn what_cannot_be_is_declined_with_the_reason() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    let lost = NAMES.into_iter().find(|name| *name != leader).expect("three nodes");
    let other = NAMES.into_iter().find(|name| *name != leader && *name != lost).expect("three");
    world.kill(lost);
    world.run(Duration::from_secs(3));
    let declined = |answer: Answer, part: &str| {
        assert!(matches!(&answer, Answer::Declined(text) if text.contains(part)), "{answer:?}");
    };
    declined(world.change(&leader, remove(other)), "no majority");
    declined(world.change(other, remove(other)), "no majority");
    declined(world.change(&leader, |target| target.members.clear()), "at least one voter");
    declined(world.change(other, add("n1", true)), "stands for two members");
    assert_eq!(world.change(other, remove(lost)), Answer::Taken);
    let rest: Vec<&str> = NAMES.into_iter().filter(|name| *name != lost).collect();
    await_voters(&mut world, &rest, &rest.join(","));
}

/// Puts a new member in the place of another, until those of `seen` know that these vote.
fn replace(world: &mut World, left: &str, new: &str, seen: &[&str], voters: &str) {
    let leader = world.await_leader();
    world.start_joining(new, &leader);
    let replaced = world.change(&leader, |target| {
        add(new, true)(target);
        remove(left)(target);
    });
    assert_eq!(replaced, Answer::Taken, "{new} for {left}");
    await_voters(world, seen, voters);
    world.kill(left);
}

#[test]
fn a_newcomer_reads_the_past_from_those_of_whom_the_past_knows_nothing() {
    let mut world = World::new(&NAMES);
    // Entry by entry, so that each of the former configurations is in force for a while.
    world.limits.append_size_max = 1;
    world.limits.window_size_max = 1;
    NAMES.iter().for_each(|name| world.start(name));
    let leader = world.await_leader();
    world.add(&leader, 3);
    replace(&mut world, "n1", "n4", &["n2", "n3", "n4"], "n2,n3,n4");
    replace(&mut world, "n2", "n5", &["n3", "n4", "n5"], "n3,n4,n5");
    replace(&mut world, "n3", "n6", &["n4", "n5", "n6"], "n4,n5,n6");
    replace(&mut world, "n4", "n7", &["n5", "n6", "n7"], "n5,n6,n7");
    let leader = world.await_leader();
    assert_eq!(world.add(&leader, 4), 7);
    assert_eq!(world.sum("n7"), 7);
}

#[test]
fn a_member_that_was_down_while_all_others_were_replaced_hears_the_new_ones() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 3);
    world.kill("n3");
    world.await_that("a leader of two", |world| world.leader().is_some());
    replace(&mut world, "n1", "n4", &["n2", "n4"], "n2,n3,n4");
    replace(&mut world, "n2", "n5", &["n4", "n5"], "n3,n4,n5");
    let leader = world.await_leader();
    world.add(&leader, 4);
    world.start("n3");
    await_voters(&mut world, &["n3", "n4", "n5"], "n3,n4,n5");
    assert_eq!(world.sum("n3"), 7);
    // It is one of two that are left.
    world.kill("n4");
    let leader = world.await_leader();
    assert_eq!(world.add(&leader, 1), 8);
}

#[test]
fn a_member_says_where_the_cluster_reaches_it_whatever_it_was_started_with() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 3);
    world.kill("n3");
    world.await_that("a leader of two", |world| world.leader().is_some());
    replace(&mut world, "n1", "n4", &["n2", "n4"], "n2,n3,n4");
    replace(&mut world, "n2", "n5", &["n4", "n5"], "n3,n4,n5");
    for name in ["n4", "n5"] {
        world.kill(name);
        let mut options = world.options(name);
        options.cluster.clear();
        let (contacts, address) = (vec!["n1:1".to_owned()], "elsewhere:1".to_owned());
        options.join = Some(Join { contacts, address });
        world.start_with(options).expect("it is a member");
    }
    // All that n3 knows of them is what they say.
    world.start("n3");
    await_voters(&mut world, &["n3", "n4", "n5"], "n3,n4,n5");
    assert_eq!(world.sum("n3"), 3);
}

#[test]
fn a_change_that_the_log_has_lost_is_remembered_by_the_state_machine() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 3);
    replace(&mut world, "n1", "n4", &["n2", "n3", "n4"], "n2,n3,n4");
    world.run(Duration::from_secs(2));
    ["n2", "n3", "n4"].iter().for_each(|name| world.kill(name));
    // Every configuration that came after the first. What the state machine holds durably, nobody refills.
    world.lose_configurations("n2", "n4");
    world.start("n2");
    world.run(Duration::from_secs(5));
    assert!(world.has_note("n2", "the log is damaged"));
    assert_eq!(world.voters("n2"), "n2,n3,n4", "alone, it has nobody to ask");
    world.start("n3");
    let leader = world.await_leader();
    assert_eq!(world.add(&leader, 4), 7);
    assert_eq!(world.sum("n2"), 7);
}

#[test]
fn a_member_that_joined_later_and_lost_every_configuration_is_found_by_the_others() {
    // Its state may be lost as well, where its log begins after it: then it asks those who found it for a snapshot.
    for is_state_lost in [false, true] {
        let mut world = World::new(&NAMES);
        world.limits.retained_count = 5;
        world.limits.purge_count_min = 2;
        NAMES.iter().for_each(|name| world.start(name));
        let leader = world.await_leader();
        world.add(&leader, 3);
        replace(&mut world, "n1", "n4", &["n2", "n3", "n4"], "n2,n3,n4");
        let leader = world.await_leader();
        for _ in 0..40 {
            world.add(&leader, 1);
        }
        world.run(Duration::from_secs(2));
        world.kill("n4");
        // All that ever were, n2 and n3 among them.
        world.lose_configurations("n4", "n2");
        if is_state_lost {
            assert!(world.status(&leader).log.groups[&GroupId(0)].bounds.purged.index.0 > 20);
            world.host_mut("n4").synced = Counter::default();
        }
        world.start("n4");
        let leader = world.await_leader();
        world.await_that("state", |world| world.status("n4").awaiting_snapshot.is_empty());
        assert_eq!(world.add(&leader, 5), 48);
        assert_eq!(world.sum("n4"), 48, "state lost: {is_state_lost}");
    }
}

#[test]
fn a_leader_that_was_removed_while_its_disk_stands_still_does_not_say_that_it_leads() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 3);
    world.host_mut(&leader).is_disk_held = true;
    // The two others make it durable, and elect one of them when this one gives up leading.
    assert_eq!(world.change(&leader, remove(&leader)), Answer::Taken);
    world.await_that("the refusal", |world| {
        matches!(world.status(&leader).phase, Phase::Stopped(_))
    });
    assert!(world.host(&leader).stopped.is_none(), "the disk has yet to record it");
    let Phase::Stopped(text) = world.status(&leader).phase else { unreachable!() };
    assert!(text.contains("was removed from this cluster"), "{text}");
}

#[test]
fn a_newcomer_that_is_killed_before_it_has_read_anything_goes_on() {
    let mut world = World::formed(&NAMES);
    let leader = world.await_leader();
    world.add(&leader, 5);
    assert_eq!(world.change(&leader, add("n4", true)), Answer::Taken);
    world.start_joining("n4", "n1");
    world.await_that("n4", |world| world.is_running("n4"));
    world.kill("n4");
    world.start("n4");
    world.await_that("n4", |world| world.is_running("n4"));
    assert_eq!(world.sum("n4"), 5);
}

/// Whether a member of that name is in the configuration in force.
fn knows(world: &World, name: &str, member: &str) -> bool {
    let status = world.status(name);
    let Some(group) = status.groups.get(&GroupId(0)) else { return false };
    group.configuration.members.values().any(|known| known.name == member)
}

#[test]
fn a_member_is_cast_out_only_by_a_removal_that_is_committed() {
    let mut world = World::formed(&NAMES);
    let old = world.await_leader();
    let others: Vec<&str> = NAMES.into_iter().filter(|name| *name != old).collect();
    world.add(&old, 3);
    world.start_joining("n4", "n1");
    assert_eq!(world.change(&old, add("n4", false)), Answer::Taken);
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3");

    // The removal waits for n5. When that has come, all append it, and the disks of too few hold it.
    let exchanged = world.change(&old, |target| {
        add("n5", true)(target);
        remove("n4")(target);
    });
    assert_eq!(exchanged, Answer::Taken);
    world.start_joining("n5", &old);
    world.await_that("the removal", |world| !knows(world, &old, "n4"));
    others.iter().for_each(|name| world.host_mut(name).is_disk_held = true);
    world.await_that("the removal", |world| NAMES.iter().all(|name| !knows(world, name, "n4")));
    world.await_that("a refusal", |world| world.has_note("n4", "this cluster has no member n4"));
    world.run(Duration::from_millis(200));
    assert!(world.is_running("n4"), "{:?}", world.host("n4").stopped);

    // The others have forgotten it, and overrule the one whose disk held it: when that leads again, n4 hears it.
    world.kill(&old);
    world.kill("n5");
    for name in &others {
        world.kill(name);
        world.start(name);
    }
    let leader = world.await_leader();
    world.add(&leader, 4);
    world.start(&old);
    world.await_that("the log", |world| world.is_running(&old));
    assert!(!knows(&world, &old, "n4"), "its log holds the removal");
    world.await_leader();
    assert_eq!(world.sum(&old), 7);
    let heir = world.status(&old).node.expect("a member");
    let control = Control::Transfer(heir);
    world.request(&leader, Request::Control { group: GroupId(0), control });
    world.await_that("the heir", |world| world.leader().as_ref() == Some(&old));
    world.add(&old, 5);
    assert_eq!(world.sum("n4"), 12);

    // The removal, which waits again, is called off.
    let base = world.status(&old).groups[&GroupId(0)].configuration.clone();
    let kept = world.change(&old, |target| {
        remove("n5")(target);
        let n4 = base.members.iter().find(|(_, member)| member.name == "n4");
        let (node, member) = n4.expect("it is still there");
        target.members.insert(*node, Member { intent: Intent::Stay, ..member.clone() });
    });
    assert_eq!(kept, Answer::Taken);
    await_voters(&mut world, &["n1", "n2", "n3", "n4"], "n1,n2,n3");
    assert!(knows(&world, &old, "n4") && !knows(&world, &old, "n5"));
}

/// Takes n4 in while its disk is slow to record that it is a member, and lets it vote. Gives who leads.
fn take_in_slowly(world: &mut World) -> String {
    let leader = world.await_leader();
    world.start_joining("n4", "n1");
    world.await_that("a refusal", |world| world.has_note("n4", "has no member n4"));
    world.host_mut("n4").is_disk_held = true;
    assert_eq!(world.change(&leader, add("n4", true)), Answer::Taken);
    // Its log takes the members in; its identity file has yet to say whose member it is.
    for _ in 0..100 {
        if world.status("n4").node.is_none() {
            world.run(Duration::from_millis(5));
            world.release_disk_once("n4");
        }
    }
    assert_eq!(world.status("n4").node, Some(NodeId(4)));
    world.run(Duration::from_millis(500));
    world.release_disk("n4");
    await_voters(world, &["n1", "n2", "n3", "n4"], "n1,n2,n3,n4");
    leader
}

fn term_of(world: &World, name: &str) -> u64 {
    world.status(name).groups[&GroupId(0)].epoch.number
}

#[test]
fn a_newcomer_hears_whoever_it_has_greeted_and_can_lead_at_once() {
    let mut world = World::formed(&NAMES);
    let leader = take_in_slowly(&mut world);
    let term = term_of(&world, "n4");
    let control = Control::Transfer(NodeId(4));
    world.request(&leader, Request::Control { group: GroupId(0), control });
    world.run(Duration::from_millis(20));
    assert_eq!(world.leader().as_deref(), Some("n4"));
    assert_eq!(term_of(&world, "n4"), term + 1, "votes were lost");
}

#[test]
fn a_join_that_is_well_warns_only_of_what_was_done_in_the_wrong_order() {
    let mut world = World::formed(&NAMES);
    let formed: Vec<usize> = NAMES.iter().map(|name| world.host(name).notes.len()).collect();
    take_in_slowly(&mut world);
    let said = |world: &World, name: &str, from: usize| world.host(name).notes[from..].join("\n");
    let told = "this cluster has no member n4; its members are n1, n2, n3. To take it in, add it as a member";
    let cluster = world.status("n4").cluster.expect("it is in one");
    assert_eq!(said(&world, "n1", formed[0]), format!("refused a peer: {told}"));
    assert_eq!(said(&world, "n2", formed[1]), "");
    assert_eq!(said(&world, "n3", formed[2]), "");
    assert_eq!(
        said(&world, "n4", 0),
        format!(
            "joining a cluster by n1:1\nn1:1 refuses this node: {told}\ncluster {cluster} is joined"
        )
    );
}
