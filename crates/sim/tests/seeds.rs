//! Seeds of the small world: unbroken code passes, broken code does not, and a seed is a whole history.

use quorate_sim::fault_kind::FaultKind;
use quorate_sim::mutants::Mutant;
use quorate_sim::trace::Verbosity;
use quorate_sim::{Options, Outcome, run};
use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

/// How many seeds a mutant may survive.
const SEEDS_TO_KILL: u64 = 20;

fn short() -> Options {
    Options { work: Duration::from_secs(15), ..Options::default() }
}

fn check(outcome: &Outcome) {
    let Outcome { seed, mix, violation, .. } = outcome;
    assert_eq!(
        violation.as_ref(),
        None,
        "seed {seed} ({mix}): replay with `cargo xtask sim --seed {seed} --seconds 15 --trace`"
    );
}

fn check_whole(outcome: &Outcome) {
    let Outcome { seed, violation, .. } = outcome;
    assert_eq!(*violation, None, "replay with `cargo xtask sim --seed {seed} --trace`");
}

#[test]
fn unbroken_code_passes_and_faults_strike() {
    let mut faults = BTreeSet::new();
    let (mut completed, mut leaders, mut unsynced, mut lost_batches) = (0, 0, 0, 0);
    for seed in 0..24 {
        let outcome = run(seed, short());
        check(&outcome);
        faults.extend(outcome.counts.faults.keys().copied());
        completed += outcome.counts.completed_count;
        leaders += outcome.counts.leader_count;
        unsynced += outcome.counts.unsynced_crash_count;
        lost_batches += outcome.counts.lost_batch_count;
    }
    assert!(faults.len() >= 24, "only {faults:?} struck");
    assert!(completed > 24 * 40, "only {completed} calls were completed");
    assert!(leaders > 24 * 2, "only {leaders} leaders");
    assert!(unsynced > 5, "only {unsynced} crashes met unsynced bytes");
    assert!(lost_batches > 24, "engines lost only {lost_batches} batches");
}

#[test]
fn the_same_seed_leaves_the_same_trace() {
    let mut hashes = BTreeSet::new();
    for seed in 100..106 {
        let (first, second) = (run(seed, short()), run(seed, short()));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.counts, second.counts, "seed {seed}");
        let read = run(seed, Options { verbosity: Verbosity::Full, ..short() });
        assert_eq!(first.trace_hash, read.trace_hash, "seed {seed} depends on who reads it");
        assert!(read.lines.len() > 1_000, "seed {seed} left {} lines", read.lines.len());
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 6, "two seeds left the same trace");
}

#[test]
fn members_come_and_go_while_faults_strike() {
    let (mut changes, mut faults, mut runs) = (0, 0, 0);
    for seed in 200..240 {
        let mix = quorate_sim::swarm::Mix::draw(seed);
        if mix.churn.is_none() || runs == 6 {
            continue;
        }
        runs += 1;
        let outcome = run(seed, short());
        check(&outcome);
        changes += outcome.counts.change_count;
        faults += outcome.counts.faults.values().sum::<u64>();
    }
    assert!(changes > 6, "only {changes} changes came to their end in {runs} runs");
    assert!(faults > 12, "only {faults} faults struck");
}

#[test]
fn leaders_die_young_and_nothing_is_lost() {
    let is_short = |seed: &u64| {
        let faults = quorate_sim::swarm::Mix::draw(*seed).faults;
        faults.iter().any(|rate| rate.kind == FaultKind::ShortReigns)
    };
    let (mut leaders, mut times) = (0, 0);
    for seed in (400..).filter(is_short).take(6) {
        let outcome = run(seed, short());
        check(&outcome);
        leaders += outcome.counts.leader_count;
        times += outcome.counts.faults.get(&FaultKind::ShortReigns).copied().unwrap_or_default();
    }
    assert!(times > 3, "only {times} times were reigns made short");
    assert!(leaders > 6 * 5, "only {leaders} leaders in six runs");
}

/// In these seeds a member leaves while it is down; the operator took it for a newcomer and waited for it for ever.
#[test]
fn a_member_that_leaves_while_it_is_down_has_left() {
    for seed in [231, 246] {
        check_whole(&run(seed, Options::default()));
    }
}

#[test]
fn a_plain_world_has_no_changes_of_members() {
    let plain = Options { plain: true, ..short() };
    let changing = (0..).find(|seed| quorate_sim::swarm::Mix::draw(*seed).churn.is_some());
    let seed = changing.expect("some have");
    let outcome = run(seed, plain);
    assert!(outcome.mix.churn.is_none());
    assert_ne!(outcome.trace_hash, run(seed, short()).trace_hash);
}

fn killed_by(mutant: Mutant) -> Outcome {
    let options = Options { mutant: Some(mutant), ..short() };
    (0..SEEDS_TO_KILL)
        .map(|seed| run(seed, options))
        .find(|outcome| outcome.violation.is_some())
        .unwrap_or_else(|| panic!("{mutant} survives {SEEDS_TO_KILL} seeds"))
}

/// The checker that kills the mutant is the one whose promise it breaks.
fn check_killed(mutant: Mutant, promises: &[&str]) {
    let violation = killed_by(mutant).violation.expect("it was killed");
    assert!(promises.contains(&violation.promise), "{mutant}: {violation}");
}

#[test]
fn the_canary_dies() {
    check_killed(Mutant::Canary, &["witness"]);
}

#[test]
fn a_node_that_votes_before_the_sync_dies() {
    check_killed(Mutant::VoteBeforeSync, &["claims"]);
}

#[test]
fn a_node_that_purges_past_the_synced_index_dies() {
    check_killed(Mutant::PurgePastSynced, &["open", "order", "stop"]);
}

#[test]
fn a_node_that_reads_without_a_barrier_dies() {
    check_killed(Mutant::StaleRead, &["witness"]);
}

#[test]
fn replicas_that_apply_different_things_die() {
    check_killed(Mutant::ApplyDiffers, &["agreement"]);
}

#[test]
fn a_write_that_is_proposed_twice_dies() {
    check_killed(Mutant::ProposedTwice, &["witness", "durability"]);
}

#[test]
fn a_node_that_acknowledges_before_the_sync_dies() {
    let violation = killed_by(Mutant::AckBeforeSync).violation.expect("it was killed");
    assert_ne!(violation.promise, "panic", "{violation}");
}

#[test]
fn running_no_seed_is_a_failure_and_running_some_is_not() {
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate-sim")).args(arguments).output();
        output.expect("the binary runs").status.success()
    };
    assert!(!run(&["--seeds", "0"]));
    assert!(run(&["--seeds", "2", "--seconds", "5"]));
    assert!(run(&["--seeds", "20", "--seconds", "5", "--mutant", "vote-before-sync"]));
    assert!(!run(&["--seeds", "0", "--mutant", "vote-before-sync"]));
}
