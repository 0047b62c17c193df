//! The verdict: each promise, whether it was kept, and what was seen.
//!
//! What clients saw is judged by the checkers of the simulator, unchanged: strict serializability with the revision as a
//! witness that is checked and not trusted, and a search for a legal order of each register that trusts nothing.

use crate::recall::Shown;
use quorate_sim::checkers::{Violation, linearizable, witness};
use quorate_sim::history::{Call, Found, History, Operation, Outcome};
use serde::Serialize;
use std::time::Duration;

/// Within which time writes must succeed again after everything that ailed the cluster was healed: a node must start, an
/// election takes two rounds at worst, a connection that lost packets sends again.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(10);

/// The longest time without a write while a quorum is healthy and connected: five of the longest election timeouts.
pub(crate) const GAP_MAX: Duration = Duration::from_secs(5);

/// Within which time each member must answer a linearizable read after everything was healed.
pub(crate) const READY_MAX: Duration = Duration::from_secs(30);

/// The most memory that a node may hold, in bytes.
pub(crate) const MEMORY_MAX: u64 = 512 * 1024 * 1024;

/// The fewest operations a second of the run below which it shows nothing.
const COMPLETED_RATE_MIN: f64 = 10.0;

/// One promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was promised.
    pub(crate) promise: &'static str,
    /// Whether it was kept.
    pub(crate) kept: bool,
    /// What was seen.
    pub(crate) seen: String,
}

/// What was seen of the processes and of time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Behaviour {
    /// How long the run was.
    pub(crate) duration: Duration,
    /// Faults that began.
    pub(crate) fault_count: usize,
    /// Faults after which something came back too late, or that ended otherwise than they must.
    pub(crate) late: Vec<String>,
    /// The longest time without a write beside a healthy quorum, and after a heal.
    pub(crate) longest: (Duration, Duration),
    /// Processes that ended by themselves.
    pub(crate) deaths: Vec<String>,
    /// Lines of logs that tell of a broken program.
    pub(crate) panics: Vec<String>,
    /// The most memory that any node held, in bytes, and which.
    pub(crate) memory: (u64, String),
    /// What the nodes say of their state: name, applied index, digest.
    pub(crate) digests: Vec<(String, u64, String)>,
}

/// Judges a run. `shown` is what each member showed at the end, or why it did not.
pub(crate) fn judge(
    history: &History,
    shown: &[Result<Shown, String>],
    behaviour: &Behaviour,
) -> Vec<Finding> {
    vec![
        worked(history, behaviour),
        checked(
            "answers have one serial order in real time, the revisions' own",
            witness::check(history),
        ),
        checked("each register is linearizable, by search", linearizable::check(history)),
        none_lost(history, shown),
        all_equal(shown, behaviour),
        listed(
            "after each fault writes succeed again in time",
            &behaviour.late,
            format!(
                "longest without a write {} ms beside a healthy quorum (bound {} ms), {} ms after a heal (bound {} ms)",
                behaviour.longest.0.as_millis(),
                GAP_MAX.as_millis(),
                behaviour.longest.1.as_millis(),
                RECOVERY_MAX.as_millis(),
            ),
        ),
        listed("no process ended that was not made to", &behaviour.deaths, "none did".into()),
        listed("no log tells of a panic", &behaviour.panics, "none does".into()),
        memory(behaviour),
    ]
}

/// Whether every promise was kept.
pub(crate) fn is_pass(findings: &[Finding]) -> bool {
    !findings.is_empty() && findings.iter().all(|finding| finding.kept)
}

fn worked(history: &History, behaviour: &Behaviour) -> Finding {
    let completed = history.completed_count();
    let unknown = |operation: &&Operation| operation.outcome == Outcome::Unknown;
    let unknown = history.operations.iter().filter(unknown).count();
    #[expect(clippy::cast_precision_loss, reason = "a count of operations")]
    let rate = completed as f64 / behaviour.duration.as_secs_f64().max(1.0);
    Finding {
        promise: "the run shows something",
        kept: rate >= COMPLETED_RATE_MIN && behaviour.fault_count > 0,
        seen: format!(
            "{completed} operations completed, {unknown} of unknown outcome, {} serializable readings, {} faults",
            history.recalls.len(),
            behaviour.fault_count
        ),
    }
}

fn checked(promise: &'static str, result: Result<(), Violation>) -> Finding {
    let (kept, seen) = match result {
        Ok(()) => (true, "no violation".to_owned()),
        Err(violation) => (false, violation.to_string()),
    };
    Finding { promise, kept, seen }
}

fn listed(promise: &'static str, breaches: &[String], otherwise: String) -> Finding {
    let seen = if breaches.is_empty() { otherwise } else { breaches.join("; ") };
    Finding { promise, kept: breaches.is_empty(), seen }
}

/// Every acknowledged write stands at its revision on every member.
fn none_lost(history: &History, shown: &[Result<Shown, String>]) -> Finding {
    let promise = "no acknowledged write is lost on any member";
    let mut count = 0_u64;
    let broken = |seen| Finding { promise, kept: false, seen };
    for node in shown {
        let node = match node {
            Ok(node) => node,
            Err(reason) => return broken(format!("a member shows nothing: {reason}")),
        };
        for operation in &history.operations {
            let (Outcome::Written(revision) | Outcome::Deleted(revision, true)) = operation.outcome
            else {
                continue;
            };
            for (key, value) in operation.call.writes() {
                let expected = value.map(|value| Found { value, written_at: revision });
                let held = node.past.get(&(key, revision));
                if held != Some(&expected) {
                    let name = &node.name;
                    return broken(format!("{name} shows {held:?} of {key} after {operation}"));
                }
                count += 1;
            }
        }
    }
    let kept = !shown.is_empty();
    let seen = format!("{count} readings at their revisions on {} members", shown.len());
    Finding { promise, kept, seen }
}

/// All members hold the same, now and at every revision that was read.
fn all_equal(shown: &[Result<Shown, String>], behaviour: &Behaviour) -> Finding {
    let promise = "all members hold the same";
    let broken = |seen| Finding { promise, kept: false, seen };
    let nodes: Vec<&Shown> = shown.iter().flatten().collect();
    let Some(first) = nodes.first().filter(|_| nodes.len() == shown.len()) else {
        return broken("not every member shows what it holds".into());
    };
    for node in &nodes {
        let (one, other) = (&first.name, &node.name);
        if node.revision != first.revision {
            let (left, right) = (first.revision, node.revision);
            return broken(format!("{one} is at {left}, {other} at {right}, and nobody writes"));
        }
        if let Some(key) = first
            .now
            .keys()
            .chain(node.now.keys())
            .find(|key| first.now.get(key) != node.now.get(key))
        {
            let (left, right) = (first.now.get(key), node.now.get(key));
            return broken(format!("{key} is {left:?} on {one} and {right:?} on {other}"));
        }
        if let Some(place) = first
            .past
            .keys()
            .chain(node.past.keys())
            .find(|place| first.past.get(place) != node.past.get(place))
        {
            return broken(format!("{place:?} differs on {one} and {other}"));
        }
    }
    for (name, applied, digest) in &behaviour.digests {
        let same = |(_, at, other): &&(String, u64, String)| at == applied && other != digest;
        if let Some((other, ..)) = behaviour.digests.iter().find(same) {
            return broken(format!("at index {applied} the digests of {name} and {other} differ"));
        }
    }
    let (revision, count) = (first.revision, first.now.len());
    Finding { promise, kept: true, seen: format!("{count} registers at {revision}, digests too") }
}

fn memory(behaviour: &Behaviour) -> Finding {
    let (peak, name) = &behaviour.memory;
    let mebibytes = |bytes: u64| bytes >> 20;
    Finding {
        promise: "memory is bounded",
        kept: *peak <= MEMORY_MAX,
        seen: format!(
            "at most {} MiB ({name}), bound {} MiB",
            mebibytes(*peak),
            mebibytes(MEMORY_MAX)
        ),
    }
}

/// How many calls of each sort the history holds, for the report.
pub(crate) fn call_counts(history: &History) -> [(&'static str, usize); 5] {
    let count = |wanted: fn(&Call) -> bool| {
        history.operations.iter().filter(|operation| wanted(&operation.call)).count()
    };
    [
        ("put", count(|call| matches!(call, Call::Put { .. }))),
        ("swap", count(|call| matches!(call, Call::Swap { .. }))),
        ("delete", count(|call| matches!(call, Call::Delete { .. }))),
        ("get", count(|call| matches!(call, Call::Get { .. }))),
        ("scan", count(|call| matches!(call, Call::Scan { .. }))),
    ]
}

#[cfg(test)]
mod tests;
