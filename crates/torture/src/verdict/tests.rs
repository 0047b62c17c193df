//! Hand-made runs: a good one passes, and each broken promise is noticed.

use super::*;
use quorate_sim::history::{ClientId, Key, Moment, Recall, Revision, Value};
use std::collections::BTreeMap;

fn operation(number: u64, call: Call, outcome: Outcome) -> Operation {
    let (called, ended) = (Moment(2 * number), Moment(2 * number + 1));
    Operation { client: ClientId(0), call, called, ended, outcome }
}

fn put(value: u64) -> Call {
    Call::Put { key: Key(1), value: Value(value) }
}

fn found(value: u64, revision: u64) -> Option<Found> {
    Some(Found { value: Value(value), written_at: Revision(revision) })
}

/// Two puts, then reads of the latest, as often as it takes to be a run that shows something.
fn history() -> History {
    let mut operations = vec![
        operation(1, put(11), Outcome::Written(Revision(2))),
        operation(2, put(12), Outcome::Written(Revision(3))),
    ];
    let read = |number| {
        operation(number, Call::Get { key: Key(1) }, Outcome::Got(Revision(3), found(12, 3)))
    };
    operations.extend((3..20).map(read));
    History { operations, ..History::default() }
}

fn shown(name: &str) -> Shown {
    Shown {
        name: name.into(),
        revision: Revision(3),
        now: BTreeMap::from([(Key(1), found(12, 3).expect("it is there"))]),
        past: BTreeMap::from([
            ((Key(1), Revision(2)), found(11, 2)),
            ((Key(1), Revision(3)), found(12, 3)),
        ]),
    }
}

fn behaviour() -> Behaviour {
    let digest = |name: &str| (name.to_owned(), 7, "abc".to_owned());
    Behaviour {
        duration: Duration::from_secs(1),
        fault_count: 1,
        digests: vec![digest("n1"), digest("n2")],
        ..Behaviour::default()
    }
}

/// A run that begins as the good one.
struct Run {
    history: History,
    shown: Vec<Result<Shown, String>>,
    behaviour: Behaviour,
}

fn check(change: impl FnOnce(&mut Run), broken: &[&str]) {
    let shown = vec![Ok(shown("n1")), Ok(shown("n2"))];
    let mut run = Run { history: history(), shown, behaviour: behaviour() };
    change(&mut run);
    let findings = judge(&run.history, &run.shown, &run.behaviour);
    let found: Vec<&str> = findings.iter().filter(|one| !one.kept).map(|one| one.promise).collect();
    let matches = found.len() == broken.len()
        && broken.iter().zip(&found).all(|(wanted, found)| found.contains(wanted));
    assert!(matches, "expected {broken:?}, found {findings:#?}");
    assert_eq!(is_pass(&findings), broken.is_empty());
}

fn node(run: &mut Run, node: usize) -> &mut Shown {
    run.shown[node].as_mut().expect("it shows something")
}

#[test]
fn a_good_run_passes_and_no_findings_at_all_do_not() {
    check(|_| {}, &[]);
    assert!(!is_pass(&[]));
}

#[test]
fn a_run_without_work_or_without_faults_shows_nothing() {
    check(|run| run.behaviour.fault_count = 0, &["shows something"]);
    check(|run| run.behaviour.duration = Duration::from_secs(600), &["shows something"]);
}

#[test]
fn a_stale_read_breaks_both_orders() {
    let stale = Outcome::Got(Revision(2), found(11, 2));
    check(|run| run.history.operations[5].outcome = stale, &["serial order", "linearizable"]);
}

#[test]
fn a_lying_revision_breaks_the_witness_alone() {
    let lying = Outcome::Got(Revision(2), found(12, 3));
    check(|run| run.history.operations[5].outcome = lying, &["serial order"]);
}

#[test]
fn a_value_that_was_denied_may_not_show() {
    let denied = |run: &mut Run| run.history.operations[1].outcome = Outcome::Refused;
    check(denied, &["serial order", "linearizable"]);
}

#[test]
fn a_serializable_read_may_be_old_but_not_wrong() {
    let recall =
        |value, revision| Recall { key: Key(1), revision: Revision(revision), found: value };
    check(|run| run.history.recalls.push(recall(found(11, 2), 2)), &[]);
    check(|run| run.history.recalls.push(recall(found(12, 3), 2)), &["serial order"]);
    check(|run| run.history.recalls.push(recall(None, 3)), &["serial order"]);
}

#[test]
fn a_write_that_one_member_lost_is_found() {
    let lose = |run: &mut Run| {
        node(run, 1).past.insert((Key(1), Revision(2)), None);
    };
    check(lose, &["is lost", "hold the same"]);
    let lose_everywhere = |run: &mut Run| {
        node(run, 0).past.remove(&(Key(1), Revision(3)));
        node(run, 1).past.remove(&(Key(1), Revision(3)));
    };
    check(lose_everywhere, &["is lost"]);
    check(|run| run.shown[1] = Err("it is down".into()), &["is lost", "hold the same"]);
    check(|run| run.shown.clear(), &["is lost", "hold the same"]);
}

#[test]
fn members_that_differ_are_found() {
    check(|run| node(run, 1).revision = Revision(4), &["hold the same"]);
    check(|run| node(run, 1).now.clear(), &["hold the same"]);
    check(|run| run.behaviour.digests[1].2 = "abd".into(), &["hold the same"]);
    check(|run| run.behaviour.digests[1].1 = 8, &[]);
}

#[test]
fn processes_that_die_panic_swell_or_come_back_late_are_found() {
    check(|run| run.behaviour.deaths.push("n1".into()), &["no process ended"]);
    check(|run| run.behaviour.panics.push("n1".into()), &["panic"]);
    check(|run| run.behaviour.late.push("kill".into()), &["in time"]);
    check(|run| run.behaviour.memory = (MEMORY_MAX + 1, "n2".into()), &["memory"]);
}
