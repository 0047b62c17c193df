//! How fast three durable nodes in one process agree on puts and answer read barriers, without any door:
//! `cargo run --release -p quorate-runtime --example throughput -- [seconds] [clients,clients,...] [folder]`.

#![expect(clippy::print_stdout, reason = "it prints what it measures")]
#![expect(clippy::disallowed_types, reason = "it measures with the operating system's clock")]

#[path = "../tests/common/mod.rs"]
mod common;
mod measure;

use common::{Cluster, Running, put_body};
use measure::resident;
use quorate_runtime::RuntimeMetrics;
use quorate_types::{EntryKind, GroupId, HISTOGRAM_BOUNDS, Histogram};
use std::time::{Duration, Instant};

const GROUP: GroupId = GroupId(0);

/// The size of each value in bytes.
const VALUE_SIZE: usize = 256;

/// How many keys are put in turn.
const KEY_COUNT: usize = 100_000;

#[derive(Clone, Copy, Debug)]
enum Operation {
    Put,
    Read,
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(5, |text| text.parse().expect("a number of seconds"));
    let duration = Duration::from_secs(seconds);
    let clients = arguments.next().unwrap_or_else(|| "1,64,256".to_owned());
    let clients: Vec<usize> =
        clients.split(',').map(|text| text.parse().expect("a number of clients")).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let cluster = match arguments.next() {
            Some(folder) => Cluster::start_in(std::path::Path::new(&folder)),
            None => Cluster::start(),
        };
        let leader = cluster.leader().await;
        for operation in [Operation::Put, Operation::Read] {
            for &concurrency in &clients {
                measure(&cluster, leader, operation, concurrency, duration).await;
            }
        }
        println!("resident: {}", resident());
        cluster.stop().await;
    });
}

async fn measure(
    cluster: &Cluster,
    through: usize,
    operation: Operation,
    concurrency: usize,
    duration: Duration,
) {
    let before: Vec<RuntimeMetrics> =
        cluster.running().map(|(_, node)| node.handle.metrics()).collect();
    let processor_before = processor_time();
    let begin = Instant::now();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..concurrency {
        let node = cluster.node(through).share();
        clients.spawn(client_loop(node, operation, client, begin + duration));
    }
    let mut latencies = clients.join_all().await.concat();
    let elapsed = begin.elapsed();
    let processor = processor_time() - processor_before;
    latencies.sort_unstable();
    let count = latencies.len();
    let at = |share: f64| latencies[((count - 1) as f64 * share) as usize].as_micros();
    println!(
        "{operation:?} at {concurrency:3}: {:6.0}/s  p50 {} p99 {} p99.9 {} max {} us  {:.1} us of a core each",
        count as f64 / elapsed.as_secs_f64(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        processor.as_secs_f64() * 1e6 / count as f64,
    );
    for ((number, node), before) in cluster.running().zip(before) {
        let now = node.handle.metrics();
        let each = |now: u64, before: u64| (now - before) as f64 / count as f64;
        let syncs = now.log_sync.count - before.log_sync.count;
        let sync_time = (now.log_sync.sum - before.log_sync.sum).checked_div(syncs).unwrap_or(0);
        let worst = |now: &Histogram, before: &Histogram| {
            let grown = (0..now.counts.len()).rev().find(|at| now.counts[*at] > before.counts[*at]);
            grown.and_then(|at| HISTOGRAM_BOUNDS.get(at)).map_or(0, |bound| bound / 1000)
        };
        println!(
            "   n{}{} slowest sync below {} us, apply below {} us",
            number + 1,
            if number == through { "*" } else { " " },
            worst(&now.log_sync, &before.log_sync),
            worst(&now.apply, &before.apply),
        );
        println!(
            "   n{}{} syncs {:.3} ({} us) rounds {:.3} inputs {:.2} sends {:.3} frames {:.3} applies {:.3}",
            number + 1,
            if number == through { "*" } else { " " },
            each(now.log_sync.count, before.log_sync.count),
            sync_time / 1000,
            each(now.round_count, before.round_count),
            each(now.input_count, before.input_count),
            each(now.send_call_count, before.send_call_count),
            each(now.sent_count, before.sent_count),
            each(now.apply.count, before.apply.count),
        );
    }
}

async fn client_loop(
    node: Running,
    operation: Operation,
    client: usize,
    until: Instant,
) -> Vec<Duration> {
    let value = vec![b'v'; VALUE_SIZE];
    let mut latencies = Vec::new();
    let mut number = client * 7919;
    while Instant::now() < until {
        number = (number + 7919) % KEY_COUNT;
        let begin = Instant::now();
        match operation {
            Operation::Put => {
                let body = put_body(&format!("key{number:010}"), &value);
                let put = node.handle.propose(GROUP, EntryKind::Command, body, None);
                drop(put.await.expect("a quorum is up"));
            }
            Operation::Read => {
                node.handle.read_barrier(GROUP, None).await.expect("a quorum is up");
                drop(node.local(&format!("key{number:010}")));
            }
        }
        latencies.push(begin.elapsed());
    }
    latencies
}

/// What all threads of this process used of the processors so far.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let fields: Vec<&str> =
        text.rsplit(')').next().expect("the name ends").split_whitespace().collect();
    let ticks: u64 =
        [11, 12].map(|at: usize| fields[at].parse::<u64>().expect("ticks")).iter().sum();
    Duration::from_millis(ticks * 10)
}
