//! How long writers wait when the leader is killed under them.

use crate::common::{Client, Cluster};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many write at once, half of them through each survivor.
const WRITER_COUNT: usize = 8;

/// How many acknowledgements are waited for before the kill and after it.
const SETTLED_COUNT: usize = 200;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_millis(500);

/// Far more than a gap takes, for machines that are busy; the benchmark holds it to 1.5 s.
const GAP_MAX: Duration = Duration::from_secs(5);

/// Writes until told to stop; gives its longest time without an acknowledgement, and how many attempts failed.
fn write(
    endpoint: String,
    number: usize,
    acknowledged: &AtomicUsize,
    stop: &AtomicBool,
) -> (Duration, usize) {
    let mut client = Client::new(&[endpoint]);
    let (mut longest, mut failures, mut last) = (Duration::ZERO, 0, Instant::now());
    let key = format!("writer/{number}");
    while !stop.load(Ordering::Relaxed) {
        match client.put_at(0, &key, "value", ATTEMPT) {
            Ok(_) => {
                longest = longest.max(last.elapsed());
                last = Instant::now();
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => failures += 1,
        }
    }
    (longest.max(last.elapsed()), failures)
}

/// Waits until so many more were acknowledged.
fn wait_for_more(acknowledged: &AtomicUsize) {
    let before = acknowledged.load(Ordering::Relaxed);
    crate::common::wait_for("writers to get on", || {
        (acknowledged.load(Ordering::Relaxed) >= before + SETTLED_COUNT).then_some(())
    });
}

#[test]
fn writers_on_survivors_go_on_soon_after_the_leader_is_killed() {
    let mut cluster = Cluster::formed();
    let leader = cluster.leader();
    let survivors = [(leader + 1) % 3, (leader + 2) % 3];
    let (acknowledged, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Vec<(Duration, usize)> = std::thread::scope(|scope| {
        let (acknowledged, stop) = (&acknowledged, &stop);
        let writers: Vec<_> = (0..WRITER_COUNT)
            .map(|number| {
                let endpoint = cluster.endpoint(survivors[number % 2]);
                scope.spawn(move || write(endpoint, number, acknowledged, stop))
            })
            .collect();
        wait_for_more(acknowledged);
        cluster.kill(leader);
        wait_for_more(acknowledged);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().map(|writer| writer.join().expect("it does not panic")).collect()
    });
    let gap = results.iter().map(|(gap, _)| *gap).max().expect("several writers");
    let failures: usize = results.iter().map(|(_, failures)| failures).sum();
    println!(
        "{} puts of {WRITER_COUNT} writers on the survivors: longest gap {gap:?}, {failures} attempts failed",
        acknowledged.load(Ordering::Relaxed)
    );
    assert!(gap <= GAP_MAX, "writers waited {gap:?}");
}
