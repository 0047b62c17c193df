//! Every log is damaged in places of its own: the group makes itself whole, and has lost nothing.

use crate::random::World;
use std::time::Duration;

/// How often leadership changes before the damage: what stood where a term begins cannot be told by its neighbours.
const TERM_COUNT: usize = 8;

/// How many groups whose logs have parted.
const SEEDS: u64 = 3_000;

#[test]
fn different_damage_in_every_log_is_made_whole_and_nothing_is_lost() {
    let (mut unknown, mut identified) = (0, 0);
    for seed in 1..=40 {
        for count in [3, 5] {
            let mut world = World::unpurged(seed, count);
            for _ in 0..TERM_COUNT {
                world.run_for(Duration::from_millis(700));
                world.hand_over();
            }
            for node in world.nodes() {
                world.kill(node, false);
            }
            unknown += world.damage_each_slot_somewhere();
            world.heal();
            identified += world.identified_count();
        }
    }
    eprintln!(
        "80 groups: {unknown} slots damaged beyond knowledge, {identified} answers of what stood there"
    );
    assert!(identified >= 80, "no more than {identified} answers: the damage has grown too kind");
}

#[test]
fn a_slot_that_another_history_filled_is_not_taken_for_what_was_committed() {
    for seed in 1..=SEEDS {
        let mut world = World::parted(seed);
        for _ in 0..8 {
            world.reign();
        }
        world.heal();
    }
}
