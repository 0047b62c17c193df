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
