//! How a cluster is formed, in every order and through every mishap.

use crate::world::World;
use quorate_node::{Phase, StopReason};
use std::time::Duration;

const NAMES: [&str; 3] = ["n1", "n2", "n3"];

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn three_nodes_form_a_cluster_in_every_order_of_starting() {
    for order in ORDERS {
        let mut world = World::new(&NAMES);
        for (count, place) in order.iter().enumerate() {
            world.start(NAMES[*place]);
            world.run(Duration::from_secs(3));
            let is_last = count == 2;
            for started in &order[..=count] {
                let phase = world.status(NAMES[*started]).phase;
                assert_eq!(phase == Phase::Running, is_last, "{order:?} {count}: {phase:?}");
                if let Phase::Forming { missing } = phase {
                    for place in &order[count + 1..] {
                        assert!(missing.contains(&NAMES[*place].to_owned()), "{missing:?}");
                    }
                }
            }
        }
        let leader = world.await_leader();
        assert_eq!(world.add(&leader, 5), 5, "{order:?}");
        for (place, name) in NAMES.iter().enumerate() {
            let status = world.status(name);
            assert_eq!(status.node.map(|node| node.0), Some(place as u64 + 1));
            assert_eq!(status.cluster, world.status("n1").cluster);
            assert_eq!(world.sum(name), 5);
        }
    }
}

#[test]
fn a_single_node_forms_a_cluster_of_its_own() {
    let mut world = World::formed(&["n1"]);
    assert_eq!(world.add("n1", 3), 3);
    world.kill("n1");
    world.start("n1");
    world.await_leader();
    assert_eq!(world.sum("n1"), 3);
}

#[test]
fn a_founder_that_missed_the_completion_completes_when_it_comes_back() {
    let mut world = World::new(&NAMES);
    for name in NAMES {
        world.start(name);
    }
    // n3 has recorded the roster and says so, then dies before it hears that all have.
    world.await_that("record of n3", |world| {
        world.status("n1").phase == Phase::Forming { missing: vec!["n2".into()] }
            || world.status("n1").phase == Phase::Forming { missing: vec![] }
            || world.is_running("n1")
    });
    world.kill("n3");
    world.await_that("n1 and n2", |world| world.is_running("n1") && world.is_running("n2"));
    let leader = world.await_leader();
    world.add(&leader, 1);
    world.start("n3");
    world.await_that("n3", |world| world.is_running("n3"));
    assert_eq!(world.sum("n3"), 1);
}

#[test]
fn an_emptied_folder_is_refused_by_the_cluster_it_was_in() {
    for name in NAMES {
        let mut world = World::formed(&NAMES);
        let leader = world.await_leader();
        world.add(&leader, 7);
        world.kill(name);
        world.wipe(name);
        world.start(name);
        world.await_that("refusal", |world| world.host(name).stopped.is_some());
        let Some(StopReason::Refused(text)) = world.host(name).stopped.clone() else {
            panic!("{:?}", world.host(name).stopped);
        };
        let expected = format!("this cluster was formed with another data folder of {name}");
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains("put the former data folder back"), "{text}");
        let leader = world.await_leader();
        assert_eq!(world.add(&leader, 1), 8, "the others go on");
    }
}

#[test]
fn an_emptied_folder_before_completion_stops_formation_and_says_what_to_do() {
    let mut world = World::new(&NAMES);
    for name in NAMES {
        world.start(name);
        world.host_mut(name).is_disk_held = name == "n3";
    }
    // n3 cannot record anything, so nobody can complete; n1 and n2 have recorded.
    world.host_mut("n3").is_disk_held = false;
    world.kill("n3");
    world.wipe("n3");
    world.start("n3");
    world.await_that("start of n3", |world| world.status("n3").phase != Phase::Recovering);
    world.host_mut("n3").is_disk_held = true;
    world.await_that("records", |world| {
        ["n1", "n2"]
            .iter()
            .all(|name| world.status(name).phase == Phase::Forming { missing: vec!["n3".into()] })
            && !world.host("n3").held_disk.is_empty()
    });
    world.run(Duration::from_secs(1));
    world.kill("n3");
    world.wipe("n3");
    world.start("n3");
    world.await_that("text", |world| {
        world.has_note("n1", "has recorded another data folder of n3")
            && world.has_note("n3", "n1 has recorded another data folder of n3")
    });
    world.run(Duration::from_secs(10));
    for name in NAMES {
        assert!(!world.is_running(name), "{name} takes part in a half-formed cluster");
    }
    assert!(world.has_note("n3", "delete the data folders of all its members"));
    // What the text says helps.
    for name in NAMES {
        world.kill(name);
        world.wipe(name);
    }
    for name in NAMES {
        world.start(name);
    }
    world.await_leader();
}

#[test]
fn different_lists_are_named_and_nothing_is_formed() {
    let mut world = World::new(&NAMES);
    world.start("n1");
    world.start("n2");
    let mut options = world.options("n3");
    options.cluster[0].1 = "elsewhere:1".into();
    world.start_with(options).expect("a good list in itself");
    world.await_that("note", |world| {
        world.has_note("n2", "n2 and n3 were given different --cluster lists")
    });
    assert!(world.has_note("n2", "n1=elsewhere:1"));
    world.run(Duration::from_secs(5));
    for name in NAMES {
        assert!(!world.is_running(name));
    }
    // Corrected and started again.
    world.kill("n3");
    world.start("n3");
    world.await_leader();
}

#[test]
fn options_and_folders_that_do_not_fit_are_refused_at_open() {
    let mut world = World::new(&NAMES);
    let check = |world: &mut World, options: quorate_node::NodeOptions, part: &str| {
        let error = world.start_with(options).expect_err(part);
        assert!(error.to_string().contains(part), "{error}");
    };
    let mut options = world.options("n9");
    check(&mut world, options.clone(), "the --cluster list does not name n9 itself");
    options.cluster.push(("n9".into(), "n1:1".into()));
    check(&mut world, options, "gives one address to two members");
    let mut options = world.options("n1");
    options.protocol = quorate_types::ProtocolName::Zab;
    check(&mut world, options, "zab is not part of this version");
    let mut world = World::formed(&["n1"]);
    world.kill("n1");
    // The folder of n1, used by a node that is named otherwise.
    let disk = world.host("n1").disk.clone();
    let mut options = world.options("n1");
    options.name = "n2".into();
    options.cluster.push(("n2".into(), "n2:1".into()));
    let opened = quorate_node::Node::open(world.now, options, &disk, Default::default());
    let error = opened.err().expect("another node's folder");
    assert!(error.to_string().contains("belongs to n1, this node is named n2"), "{error}");
    // Without its identity, then without its log.
    let identity = quorate_types::FileName::new("identity");
    let bytes = disk.0.borrow_mut().remove(&identity).expect("there");
    let options = world.options("n1");
    check(&mut world, options.clone(), "holds a log but no identity file");
    let mut future = bytes.clone();
    future[4] = 3;
    disk.0.borrow_mut().insert(identity.clone(), future);
    check(&mut world, options.clone(), "identity: it has format version 3");
    let mut damaged = bytes.clone();
    damaged[20] ^= 1;
    disk.0.borrow_mut().insert(identity.clone(), damaged);
    check(&mut world, options.clone(), "identity: it is damaged");
    disk.0.borrow_mut().retain(|name, _| *name == identity);
    disk.0.borrow_mut().insert(identity, bytes);
    check(&mut world, options, "its log is gone");
}

#[test]
fn a_rolled_back_image_is_refused_by_those_who_remember_more() {
    let mut world = World::formed(&NAMES);
    let image = world.host("n3").disk.0.borrow().clone();
    let synced = world.host("n3").synced.clone();
    for _ in 0..2 {
        world.kill("n3");
        world.start("n3");
        world.await_leader();
    }
    world.kill("n3");
    world.host_mut("n3").synced = synced;
    *world.host_mut("n3").disk.0.borrow_mut() = image;
    // Those who remember were themselves restarted since.
    for name in ["n1", "n2"] {
        world.kill(name);
        world.start(name);
    }
    world.start("n3");
    world.await_that("refusal", |world| world.host("n3").stopped.is_some());
    let Some(StopReason::Refused(text)) = &world.host("n3").stopped else { panic!("not refused") };
    assert!(text.contains("older image"), "{text}");
    world.await_leader();
}

/// However often such an image is started, also where the refusal is lost with the process that heard it: its start number
/// rises above what its peers remember, but they know that this is not how they knew it.
#[test]
fn a_rolled_back_image_that_is_started_again_and_again_stays_refused() {
    let mut world = World::formed(&NAMES);
    let image = world.host("n3").disk.0.borrow().clone();
    let synced = world.host("n3").synced.clone();
    for _ in 0..4 {
        world.kill("n3");
        world.start("n3");
        world.await_leader();
    }
    world.kill("n3");
    let newest = world.host("n3").disk.0.borrow().clone();
    let newest_synced = world.host("n3").synced.clone();
    world.host_mut("n3").synced = synced;
    *world.host_mut("n3").disk.0.borrow_mut() = image;
    for _ in 0..8 {
        let raised = world.host("n3").disk.0.borrow().clone();
        world.start("n3");
        // The start is on disk; what the peers say of it never is.
        world.await_that("its start", |world| {
            *world.host("n3").disk.0.borrow() != raised || world.host("n3").stopped.is_some()
        });
        world.host_mut("n3").is_disk_held = true;
        world.await_that("a refusal", |world| {
            let host = world.host("n3");
            host.held_disk.iter().any(|request| format!("{}", request.op).contains("identity"))
        });
        assert!(world.host("n3").stopped.is_none(), "it stopped before that was durable");
        world.kill("n3");
    }
    world.start("n3");
    world.await_that("refusal", |world| world.host("n3").stopped.is_some());
    let Some(StopReason::Refused(text)) = &world.host("n3").stopped else { panic!("not refused") };
    assert!(text.contains("older image"), "{text}");
    assert!(text.contains("quorate member replace n3 --with"), "{text}");

    // Once it is durable no peer is needed: the folder itself knows.
    world.kill("n1");
    world.kill("n2");
    for _ in 0..3 {
        let refused = world.try_start("n3").expect_err("it was refused").to_string();
        assert!(refused.contains("refused this data folder for good"), "{refused}");
        assert!(refused.contains("quorate member replace n3 --with"), "{refused}");
    }
    world.start("n1");
    world.start("n2");
    // The newest image, put back, is who it was.
    *world.host_mut("n3").disk.0.borrow_mut() = newest;
    world.host_mut("n3").synced = newest_synced;
    world.start("n3");
    let leader = world.await_leader();
    world.add(&leader, 5);
    assert_eq!(world.sum("n3"), 5);
}

/// Random starts, kills and lost frames while a cluster is formed: it always is in the end, as one.
#[test]
fn formation_survives_kills_and_losses_at_any_moment() {
    for seed in 0..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            (random >> 33) % limit
        };
        let mut world = World::new(&NAMES);
        world.drop_every = 2 + draw(4);
        for _ in 0..draw(30) {
            let name = NAMES[draw(3) as usize];
            let is_live = world.hosts.get(name).is_some_and(|host| host.node.is_some());
            if is_live {
                world.kill(name);
            } else {
                world.start(name);
            }
            for _ in 0..draw(40) {
                world.step();
            }
        }
        world.drop_every = 0;
        for name in NAMES {
            if world.hosts.get(name).is_none_or(|host| host.node.is_none()) {
                world.start(name);
            }
        }
        let leader = world.await_leader();
        assert_eq!(world.add(&leader, 4), 4, "seed {seed}");
        for name in NAMES {
            assert_eq!(world.status(name).cluster, world.status("n1").cluster, "seed {seed}");
        }
    }
}

/// As above, but folders are deleted too. However that ends, two nodes never take part in different clusters
/// while both hold a founder's folder of one of them, and a cluster that runs keeps what it acknowledged.
#[test]
fn deleted_folders_never_make_two_clusters() {
    let mut formed_count = 0;
    let mut stuck_count = 0;
    for seed in 0..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_041);
            (random >> 33) % limit
        };
        let mut world = World::new(&NAMES);
        world.drop_every = 2 + draw(4);
        for name in NAMES {
            world.start(name);
        }
        for _ in 0..draw(30) {
            world.step();
        }
        let victim = NAMES[draw(3) as usize];
        world.kill(victim);
        world.wipe(victim);
        world.start(victim);
        world.drop_every = 0;
        world.run(Duration::from_secs(5));
        let running: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| world.host(name).node.is_some() && world.is_running(name))
            .collect();
        for pair in running.windows(2) {
            let clusters = [world.status(pair[0]).cluster, world.status(pair[1]).cluster];
            assert_eq!(clusters[0], clusters[1], "seed {seed}");
        }
        match running.len() {
            3 => {
                let leader = world.await_leader();
                assert_eq!(world.add(&leader, 4), 4, "seed {seed}");
                formed_count += 1;
            }
            2 => {
                assert!(!running.contains(&victim), "seed {seed}");
                assert!(world.host(victim).stopped.is_some(), "seed {seed}: {victim} was told");
                let leader = world.await_leader();
                assert_eq!(world.add(&leader, 4), 4, "seed {seed}");
                formed_count += 1;
            }
            0 => {
                let told = |name: &&str| world.has_note(name, "delete the data folders");
                assert!(NAMES.iter().any(told), "seed {seed}: nobody says what to do");
                stuck_count += 1;
            }
            count => panic!("seed {seed}: {count} nodes run"),
        }
    }
    assert!(formed_count > 20, "{formed_count} formed, {stuck_count} stuck");
    assert!(stuck_count > 2, "{formed_count} formed, {stuck_count} stuck");
}

#[test]
fn a_member_whose_log_lost_its_configuration_hears_its_peers_and_catches_up() {
    let mut world = World::formed(&["n1", "n2", "n3"]);
    let leader = world.leader().expect("it is formed");
    let follower = if leader == "n2" { "n3" } else { "n2" };
    world.add(&leader, 5);
    world.run(Duration::from_secs(2));
    world.kill(follower);
    world.lose_configurations(follower, "n1");
    world.start(follower);
    world.add(&leader, 7);
    assert_eq!(world.sum(follower), 12);
}

#[test]
fn a_list_that_cannot_be_meant_is_refused_at_open() {
    let list = |count: usize| -> Vec<(String, String)> {
        (1..=count).map(|number| (format!("n{number}"), format!("n{number}:1"))).collect()
    };
    let with = |name: &str, address: &str| {
        let mut list = list(3);
        list.push((name.to_owned(), address.to_owned()));
        list
    };
    for (cluster, part) in [
        (list(64), None),
        (list(65), Some("has 65 members, at most 64 can be")),
        (list(66), Some("has 66 members, at most 64 can be")),
        (with("n2", "n9:1"), Some("names a member twice")),
        (with("n4", "n2:1"), Some("gives one address to two members")),
        (with("", "n4:1"), Some("has an empty name or address")),
        (with("n4", ""), Some("has an empty name or address")),
        (list(3).split_off(1), Some("does not name n1 itself")),
    ] {
        let mut world = World::new(&NAMES);
        let mut options = world.options("n1");
        options.cluster = cluster;
        let text = world.start_with(options).err().map(|error| error.to_string());
        let is_as_expected = match (&text, part) {
            (Some(text), Some(part)) => text.contains(part),
            (text, part) => text.is_none() && part.is_none(),
        };
        assert!(is_as_expected, "{text:?}, not {part:?}");
    }
}

#[test]
fn a_founder_that_was_away_when_its_cluster_was_formed_is_told_so() {
    let mut world = World::new(&NAMES);
    world.start("n1");
    world.host_mut("n1").is_disk_held = true;
    world.start("n2");
    world.start("n3");
    // n1 has recorded nothing, so that nobody can know the cluster to be formed.
    let waits_for_n1 = |world: &World, name: &str| {
        world.status(name).phase == Phase::Forming { missing: vec!["n1".into()] }
    };
    world.await_that("records", |world| ["n2", "n3"].iter().all(|name| waits_for_n1(world, name)));
    world.run(Duration::from_secs(1));
    world.kill("n3");
    world.release_disk("n1");
    world.await_that("n1 and n2", |world| world.is_running("n1") && world.is_running("n2"));
    world.start("n3");
    world.await_that("n3", |world| world.is_running("n3"));
}
