//! How long a group is without a leader, or slow, in virtual time: what operators ask first. The figures are printed.

use crate::random::World;
use quorate_types::NodeId;
use std::collections::BTreeSet;
use std::time::Duration;

/// The longest election timeout.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(1);

/// How many entries a replica that keeps up may have still to apply: what a few messages carry.
const NEAR: u64 = 50;

/// A world with a leader and clients at work.
fn settled(seed: u64, count: u64) -> (World, NodeId) {
    let mut world = World::quiet(seed, count);
    world.run_for(ELECTION_TIMEOUT * 4);
    let leader = world.leader().unwrap_or_else(|| panic!("seed {seed}: {}", world.describe()));
    (world, leader)
}

fn percentile(sorted: &[Duration], per_cent: usize) -> Duration {
    sorted[(sorted.len() * per_cent / 100).min(sorted.len() - 1)]
}

fn print(what: &str, mut spans: Vec<Duration>) {
    spans.sort();
    let (middle, last) = (percentile(&spans, 50), percentile(&spans, 100));
    eprintln!(
        "{what}: median {} ms, longest {} ms of {}",
        middle.as_millis(),
        last.as_millis(),
        spans.len()
    );
}

/// The leader dies; how long until something is committed again, over many seeds.
fn killed(links_close: bool) -> Vec<Duration> {
    let mut spans = Vec::new();
    for seed in 1..=40 {
        for count in [3, 5] {
            let (mut world, leader) = settled(seed, count);
            let before = world.committed();
            world.kill(leader, links_close);
            let limit = ELECTION_TIMEOUT * 3 / 2;
            // What others know to be committed may be one message behind.
            let before = before.next();
            let span = world.until_committed(before, limit);
            spans.push(span.unwrap_or_else(|| {
                panic!("seed {seed} of {count}: nothing is committed: {}", world.describe())
            }));
        }
    }
    spans
}

#[test]
fn a_killed_leader_costs_at_most_one_and_a_half_election_timeouts() {
    print("leader killed, links stay silent", killed(false));
    // Peers that see the link close ask at once. Where two ask at the same moment, the votes may be split, and an election
    // timeout passes.
    let mut closed = killed(true);
    closed.sort();
    assert!(percentile(&closed, 50) < ELECTION_TIMEOUT / 5, "{closed:?}");
    print("leader killed, links close", closed);
}

#[test]
fn one_gray_follower_of_three_costs_half_as_much_again_at_most() {
    let mut ratios: Vec<f64> = Vec::new();
    for seed in 1..=5 {
        let (mut world, leader) = settled(seed, 3);
        let followers: Vec<NodeId> =
            world.nodes().into_iter().filter(|node| *node != leader).collect();
        let gray = followers[world.draw(followers.len())];
        world.take_latencies(None);
        world.run_for(ELECTION_TIMEOUT * 60);
        let healthy = world.take_latencies(Some(gray));
        world.make_gray(gray);
        world.run_for(ELECTION_TIMEOUT * 4);
        let term = world.term();
        world.take_latencies(None);
        world.run_for(ELECTION_TIMEOUT * 60);
        let slow = world.take_latencies(Some(gray));
        assert!(slow.len() > 1_000, "seed {seed}: only {} of its peers' proposals", slow.len());
        assert_eq!(world.term(), term, "seed {seed}: terms grow: {}", world.describe());
        let (before, after) = (percentile(&healthy, 99), percentile(&slow, 99));
        let ratio = after.as_secs_f64() / before.as_secs_f64();
        eprintln!(
            "seed {seed}: p99 {before:?} healthy, {after:?} beside a gray follower: {ratio:.2}"
        );
        ratios.push(ratio);
    }
    assert!(ratios.iter().all(|ratio| *ratio <= 1.5), "{ratios:?}");
}

/// F1: the first thing that a leader hears of after it stood still is a read; the world checks that no read is stale.
#[test]
fn a_leader_that_stood_still_reads_nothing_stale() {
    for seed in 1..=10 {
        for halves in [1, 3, 6, 20] {
            let (mut world, leader) = settled(seed, 3);
            world.stop_for(leader, ELECTION_TIMEOUT * halves / 2);
            world.run_for(ELECTION_TIMEOUT * 4);
            assert!(world.leader().is_some(), "seed {seed}: {}", world.describe());
        }
    }
}

/// F6: nodes are cut off one after the other, and come back in another order.
#[test]
fn after_the_last_of_many_cuts_heals_work_goes_on_within_four_election_timeouts() {
    let mut spans = Vec::new();
    for seed in 1..=20 {
        let (mut world, _) = settled(seed, 5);
        let mut clogged: Vec<NodeId> = Vec::new();
        let mut left = world.nodes();
        for _ in 0..=world.draw(5) {
            let at = world.draw(left.len());
            clogged.push(left.remove(at));
            world.cut(ways_of(&world.nodes(), &clogged));
            let wait = world.draw(2_000);
            world.run_for(Duration::from_millis(wait as u64));
            if left.is_empty() {
                break;
            }
        }
        while !clogged.is_empty() {
            let at = world.draw(clogged.len());
            clogged.remove(at);
            world.cut(ways_of(&world.nodes(), &clogged));
            let wait = if clogged.is_empty() { 0 } else { world.draw(2_000) };
            world.run_for(Duration::from_millis(wait as u64));
        }
        let before = world.committed();
        let span = world.until_committed(before, ELECTION_TIMEOUT * 4);
        spans.push(span.unwrap_or_else(|| panic!("seed {seed}: {}", world.describe())));
    }
    print("work goes on after a swizzle", spans);
}

/// F5: a follower comes back when the log has long gone on beyond what is kept, and clients never let up.
#[test]
fn a_laggard_catches_up_while_clients_ask_for_twice_what_the_group_takes() {
    let mut spans = Vec::new();
    for seed in 1..=3 {
        let mut world = World::pressed(seed, 3);
        world.run_for(ELECTION_TIMEOUT * 4);
        let leader = world.leader().unwrap_or_else(|| panic!("seed {seed}: {}", world.describe()));
        let mut followers = world.nodes();
        followers.retain(|node| *node != leader);
        let laggard = followers[world.draw(2)];
        world.kill(laggard, false);
        world.run_for(ELECTION_TIMEOUT * 10);
        let (term, snapshots) = (world.term(), world.snapshot_count());
        let before = world.load();
        world.restart(laggard);
        let mut span = Duration::ZERO;
        while world.backlog(laggard) > NEAR {
            assert!(span < ELECTION_TIMEOUT * 4, "seed {seed}: {}", world.describe());
            world.run_for(Duration::from_millis(1));
            span += Duration::from_millis(1);
        }
        spans.push(span);
        for _ in 0..100 {
            world.run_for(ELECTION_TIMEOUT / 10);
            let backlog = world.backlog(laggard);
            assert!(backlog <= 2 * NEAR, "seed {seed}: {backlog} behind: {}", world.describe());
        }
        let after = world.load();
        let (asked, taken) = (after.0 - before.0, after.1 - before.1);
        assert!(taken > 1_000 && asked >= 2 * taken, "seed {seed}: {taken} of {asked}");
        let snapshots = world.snapshot_count() - snapshots;
        assert!((1..=2).contains(&snapshots), "seed {seed}: {snapshots} snapshots were installed");
        assert_eq!(world.term(), term, "seed {seed}: terms grow: {}", world.describe());
    }
    print("a laggard has caught up under load", spans);
}

/// Every way to and from these nodes.
fn ways_of(nodes: &[NodeId], clogged: &[NodeId]) -> BTreeSet<(NodeId, NodeId)> {
    let pairs = nodes.iter().flat_map(|one| nodes.iter().map(move |other| (*one, *other)));
    pairs
        .filter(|(one, other)| one != other && (clogged.contains(one) || clogged.contains(other)))
        .collect()
}
