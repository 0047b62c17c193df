//! Proposals and reads, through crashes.

use crate::world::World;

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
