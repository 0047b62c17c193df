//! What clients saw, as it happens: the history that is judged, and samples for figures and the picture.

use quorate_sim::history::{
    Call, ClientId, Found, History, Key, Moment, Operation, Outcome, Recall, Revision, Value,
};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What a sample was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sort {
    /// A put, a swap or a delete.
    Write,
    /// A linearizable read.
    Read,
    /// A serializable read.
    SerializableRead,
}

/// How a sample ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ending {
    /// It was answered.
    Ok,
    /// It has surely not happened.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// One call, for figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it ended, since the run began.
    pub(crate) ended: Duration,
    /// How long it took.
    pub(crate) latency: Duration,
    /// What it was.
    pub(crate) sort: Sort,
    /// How it ended.
    pub(crate) ending: Ending,
}

/// The first sign of a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Election {
    /// Milliseconds since the run began.
    pub(crate) at_ms: u64,
    /// The epoch.
    pub(crate) epoch: u64,
}

/// A call that was begun.
pub(crate) struct Begun {
    client: ClientId,
    call: Call,
    called: Moment,
    at: Instant,
}

/// Takes everything down.
pub(crate) struct Recorder {
    /// When the run began.
    began: Instant,
    /// The next moment in the order of events.
    next_moment: AtomicU64,
    /// The next value to write.
    next_value: AtomicU64,
    /// What was taken down.
    taken: Mutex<Taken>,
}

/// Everything that was taken down.
#[derive(Default)]
pub(crate) struct Taken {
    /// What is judged.
    pub(crate) history: History,
    /// What is counted and drawn, in order of ends.
    pub(crate) samples: Vec<Sample>,
    /// New epochs.
    pub(crate) elections: Vec<Election>,
    /// What failed calls were told, and how often.
    pub(crate) failures: BTreeMap<String, u64>,
    /// The latest value known of each register.
    latest: BTreeMap<Key, Value>,
    /// The highest epoch seen.
    epoch: u64,
}

impl Recorder {
    /// A run begins.
    pub(crate) fn new() -> Recorder {
        Recorder {
            began: Instant::now(),
            next_moment: AtomicU64::new(1),
            next_value: AtomicU64::new(1),
            taken: Mutex::default(),
        }
    }

    /// How long the run has lasted.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// A value that nobody has written yet.
    pub(crate) fn fresh_value(&self) -> Value {
        Value(self.next_value.fetch_add(1, Ordering::SeqCst))
    }

    /// The value that a register held when last heard of.
    pub(crate) fn latest(&self, key: Key) -> Option<Value> {
        self.lock().latest.get(&key).copied()
    }

    /// A client calls.
    pub(crate) fn begin(&self, client: ClientId, call: Call) -> Begun {
        let called = Moment(self.next_moment.fetch_add(1, Ordering::SeqCst));
        Begun { client, call, called, at: Instant::now() }
    }

    /// A call has ended. `is_serializable` if any state that the node had at the revision is right.
    pub(crate) fn end(
        &self,
        begun: Begun,
        is_serializable: bool,
        outcome: Outcome,
        epoch: Option<u64>,
        failure: Option<String>,
    ) {
        let Begun { client, call, called, at } = begun;
        let ended = Moment(self.next_moment.fetch_add(1, Ordering::SeqCst));
        let (latency, since) = (at.elapsed(), self.began.elapsed());
        let sort = match (call.is_write(), is_serializable) {
            (true, _) => Sort::Write,
            (false, false) => Sort::Read,
            (false, true) => Sort::SerializableRead,
        };
        let ending = match outcome {
            Outcome::Refused => Ending::Refused,
            Outcome::Unknown => Ending::Unknown,
            Outcome::Written(_)
            | Outcome::NotWritten(..)
            | Outcome::Deleted(..)
            | Outcome::Compacted(_)
            | Outcome::Got(..)
            | Outcome::Scanned(..) => Ending::Ok,
        };
        let mut taken = self.lock();
        taken.samples.push(Sample { ended: since, latency, sort, ending });
        if let Some(failure) = failure {
            *taken.failures.entry(failure).or_default() += 1;
        }
        if let Some(epoch) = epoch.filter(|epoch| *epoch > taken.epoch) {
            let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            taken.epoch = epoch;
            taken.elections.push(Election { at_ms, epoch });
        }
        taken.learn(call, &outcome);
        if sort == Sort::SerializableRead {
            taken.take_old_state(call, &outcome);
        } else {
            let operation = Operation { client, call, called, ended, outcome };
            taken.history.operations.push(operation);
        }
    }

    /// The longest time without a write that succeeded, within this span.
    pub(crate) fn longest_gap(&self, from: Duration, to: Duration) -> Duration {
        longest_gap(&self.lock().samples, from, to)
    }

    /// When the first write succeeded that was begun after this.
    pub(crate) fn first_write_after(&self, after: Duration) -> Option<Duration> {
        let taken = self.lock();
        let later = taken.samples.iter().rev().take_while(|sample| sample.ended >= after);
        let begun = later.filter(|sample| {
            is_good_write(sample) && sample.ended.saturating_sub(sample.latency) >= after
        });
        begun.last().map(|sample| sample.ended)
    }

    /// Ends the taking down.
    pub(crate) fn finish(&self) -> Taken {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Taken> {
        self.taken.lock().expect("no client panics while it records")
    }
}

fn is_good_write(sample: &Sample) -> bool {
    sample.sort == Sort::Write && sample.ending == Ending::Ok
}

fn longest_gap(samples: &[Sample], from: Duration, to: Duration) -> Duration {
    let begin = samples.partition_point(|sample| sample.ended < from);
    let inside = samples[begin..].iter().take_while(|sample| sample.ended <= to);
    let (mut last, mut longest) = (from, Duration::ZERO);
    for sample in inside.filter(|sample| is_good_write(sample)) {
        longest = longest.max(sample.ended - last);
        last = sample.ended;
    }
    longest.max(to.saturating_sub(last))
}

impl Taken {
    /// Remembers what registers hold, for swaps that are to succeed.
    fn learn(&mut self, call: Call, outcome: &Outcome) {
        match outcome {
            Outcome::Written(_) => {
                for (key, value) in call.writes() {
                    if let Some(value) = value {
                        self.latest.insert(key, value);
                    }
                }
            }
            Outcome::Deleted(..) => {
                for (key, _) in call.writes() {
                    self.latest.remove(&key);
                }
            }
            Outcome::NotWritten(..) | Outcome::Got(..) => {
                for (key, found) in outcome.found(call) {
                    self.latest.insert(key, found.value);
                }
            }
            Outcome::Compacted(_) | Outcome::Scanned(..) | Outcome::Refused | Outcome::Unknown => {}
        }
    }

    /// A serializable read shows a state of the past, whole: that is all it promises.
    fn take_old_state(&mut self, call: Call, outcome: &Outcome) {
        let mut take = |key: Key, revision: Revision, found: Option<Found>| {
            self.history.recalls.push(Recall { key, revision, found });
        };
        match (outcome, call) {
            (Outcome::Got(revision, found), Call::Get { key }) => take(key, *revision, *found),
            (Outcome::Scanned(revision, all), Call::Scan { first, end }) => {
                (first.0..end.0).map(Key).for_each(|key| {
                    take(key, *revision, all.get(&key).copied());
                });
            }
            (
                Outcome::Written(_)
                | Outcome::NotWritten(..)
                | Outcome::Deleted(..)
                | Outcome::Compacted(_)
                | Outcome::Got(..)
                | Outcome::Scanned(..)
                | Outcome::Refused
                | Outcome::Unknown,
                _,
            ) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ended_ms: u64, sort: Sort, ending: Ending) -> Sample {
        let ended = Duration::from_millis(ended_ms);
        Sample { ended, latency: Duration::from_millis(1), sort, ending }
    }

    #[test]
    fn only_writes_that_succeeded_end_a_gap() {
        let samples = [
            sample(100, Sort::Write, Ending::Ok),
            sample(200, Sort::Read, Ending::Ok),
            sample(300, Sort::Write, Ending::Unknown),
            sample(450, Sort::Write, Ending::Ok),
        ];
        let gap = |from, to| {
            longest_gap(&samples, Duration::from_millis(from), Duration::from_millis(to))
                .as_millis()
        };
        assert_eq!(gap(0, 500), 350);
        assert_eq!(gap(440, 500), 50);
        assert_eq!(gap(0, 420), 320);
        assert_eq!(gap(460, 900), 440);
    }

    #[test]
    fn a_serializable_read_is_a_recall_and_no_operation() {
        let recorder = Recorder::new();
        let begun = recorder.begin(ClientId(1), Call::Scan { first: Key(1), end: Key(3) });
        let found = Found { value: Value(5), written_at: Revision(4) };
        let outcome = Outcome::Scanned(Revision(6), BTreeMap::from([(Key(2), found)]));
        recorder.end(begun, true, outcome, Some(1), None);
        let taken = recorder.finish();
        assert!(taken.history.operations.is_empty());
        let recall = |key, found| Recall { key: Key(key), revision: Revision(6), found };
        assert_eq!(taken.history.recalls, [recall(1, None), recall(2, Some(found))]);
        assert_eq!(taken.elections.len(), 1);
    }
}
