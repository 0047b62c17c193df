//! `docs/benchmarks.md`: what was measured, on what, and how it compares.

use super::Workload;
use super::measured::{Measured, Soak};
use super::run::Sample;
use serde_json::Value;
use std::fmt::Write as _;

/// The middle of some figures (the mean of the two middle ones, if there are two).
pub(crate) fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    match figures.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => figures[count / 2],
        count => f64::midpoint(figures[count / 2 - 1], figures[count / 2]),
    }
}

fn span(figures: &[f64]) -> String {
    let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
    let high = figures.iter().copied().fold(0.0, f64::max);
    format!("{low:.0}–{high:.0}")
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let processor = read("/proc/cpuinfo");
    let model =
        processor.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(" : unknown");
    let cores = processor.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or(" unknown");
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cores} cores ({}), {} memory, Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        total.trim(),
        kernel.trim()
    )
}

/// The whole page, of whatever was measured so far.
pub(crate) fn render(measured: &Measured, workloads: &[Workload]) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    let commits: Vec<&str> = measured.commits.iter().map(String::as_str).collect();
    let _ = write!(
        page,
        "Written by `cargo xtask bench` at {}; run it to see your own figures.\n\n\
         Three processes of each system on one machine and one disk, logs synced, default settings of each, fresh data for \
         every run, one generator (`quorate bench etcd`, closed loop, 256 B values, 100,000 keys, at most 16 connections), \
         {} runs of {} s of each system in turn, none dropped. Servers and generator share the cores. A figure here is good as \
         a ratio within this page, not as an absolute. What the disk under a virtual machine does with a flush cannot be known \
         from inside: read \"synced\" as \"with the guest's fdatasync\".\n\nMachine: {}.\n\n",
        commits.join(", "),
        measured.pairs,
        measured.seconds,
        machine()
    );
    let missing = missing(measured, workloads);
    if !missing.is_empty() {
        let _ = write!(
            page,
            "**This page is not complete**: the run was cut off or left out {}.\n\n",
            missing.join("; ")
        );
    }
    throughput(&mut page, measured, workloads);
    costs(&mut page, measured, workloads);
    memory_and_gaps(&mut page, measured);
    if let Some(engine) = &measured.engine {
        consensus_and_log(&mut page, engine);
    }
    if let Some(soak) = &measured.soak {
        long_run(&mut page, soak);
    }
    if let Some(probe) = &measured.probe {
        let _ = write!(
            page,
            "## Probe\n\nWhat this machine gave at best, in the same session (`quorate bench probe --json`):\n\n```json\n{}\n```\n",
            serde_json::to_string_pretty(probe).unwrap_or_default()
        );
    }
    page
}

/// What was intended and not measured.
fn missing(measured: &Measured, workloads: &[Workload]) -> Vec<String> {
    let mut missing = Vec::new();
    let systems = measured.systems.len();
    for workload in workloads {
        let wanted = measured.pairs * systems;
        let runs = (0..systems).map(|system| measured.samples(workload.name, system).len());
        let found = runs.sum::<usize>();
        if found < wanted {
            missing.push(format!("{} of {wanted} runs of *{}*", wanted - found, workload.name));
        }
    }
    if measured.memory.len() < systems {
        missing.push("memory".into());
    }
    if measured.gaps.iter().any(|gaps| gaps.len() < measured.kills) {
        missing.push(format!("some of the {} kills of each system's leader", measured.kills));
    }
    if measured.engine.is_none() {
        missing.push("consensus and log by themselves".into());
    }
    if measured.soak.is_none() {
        missing.push("the long run under full load".into());
    }
    if measured.probe.is_none() {
        missing.push("the probe of the machine".into());
    }
    missing
}

fn echo_rate(probe: &Value, clients: usize) -> Option<f64> {
    probe.pointer(&format!("/grpc_echo/{clients}/rate")).and_then(Value::as_f64)
}

/// Every workload with each system that ran it: its number and its runs.
fn rows<'a>(
    measured: &'a Measured,
    workloads: &'a [Workload],
) -> impl Iterator<Item = (&'a Workload, usize, &'a [Sample])> {
    workloads.iter().flat_map(move |workload| {
        let systems = 0..measured.systems.len();
        let row = move |system| (workload, system, measured.samples(workload.name, system));
        systems.map(row).filter(|(_, _, samples)| !samples.is_empty())
    })
}

fn throughput(page: &mut String, measured: &Measured, workloads: &[Workload]) {
    page.push_str("## Throughput and latency\n\n");
    page.push_str("| workload | system | runs | median ops/s | min–max | p50 ms | p99 ms | p99.9 ms | errors | ratio | of echo | goal |\n");
    page.push_str("|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (workload, system, samples) in rows(measured, workloads) {
        let own = median(measured.samples(workload.name, 0).iter().map(|sample| sample.rate));
        let rates: Vec<f64> = samples.iter().map(|sample| sample.rate).collect();
        let rate = median(rates.iter().copied());
        let probe = measured.probe.as_ref();
        let echo = probe.and_then(|probe| echo_rate(probe, workload.clients));
        let echo_goal = workload.echo_goal.map(|goal| format!(", ≥ {:.0} % of echo", goal * 100.0));
        let (ratio, goal) = match system {
            0 => (
                String::new(),
                format!("≥ {} × etcd{}", workload.ratio_goal, echo_goal.unwrap_or_default()),
            ),
            _ => (format!("we are {:.2} ×", own / rate), String::new()),
        };
        let _ = writeln!(
            page,
            "| {} | {} | {} | {rate:.0} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {ratio} | {} | {goal} |",
            workload.name,
            measured.systems[system],
            samples.len(),
            span(&rates),
            median(samples.iter().map(|sample| sample.p50_ms)),
            median(samples.iter().map(|sample| sample.p99_ms)),
            median(samples.iter().map(|sample| sample.p999_ms)),
            samples.iter().map(|sample| sample.errors).sum::<f64>(),
            echo.map_or_else(|| "–".into(), |echo| format!("{:.0} %", rate / echo * 100.0)),
        );
    }
    page.push('\n');
}

fn costs(page: &mut String, measured: &Measured, workloads: &[Workload]) {
    page.push_str("## Costs\n\nMedians. CPU is that of the three servers together.\n\n");
    page.push_str("| workload | system | server CPU µs per op | syncs per op and node | leader changes in all runs | longest gap ms |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for (workload, system, samples) in rows(measured, workloads) {
        let _ = writeln!(
            page,
            "| {} | {} | {:.1} | {:.3} | {:.0} | {:.0} |",
            workload.name,
            measured.systems[system],
            median(samples.iter().map(|sample| sample.cpu_us_per_op)),
            median(samples.iter().map(|sample| sample.syncs_per_op)),
            samples.iter().map(|sample| sample.leader_changes).sum::<f64>(),
            median(samples.iter().map(|sample| sample.longest_gap_ms)),
        );
    }
    page.push('\n');
}

fn memory_and_gaps(page: &mut String, measured: &Measured) {
    page.push_str("## Memory and fail-over\n\n");
    page.push_str("Memory: sum of the three resident sizes after the same 200,000 puts. Gap: the longest time without a success of 16 writers on the two \
                   survivors, `kill -9` of the leader.\n\n");
    page.push_str(
        "| system | memory MiB | kills | gap ms, median | gap ms, min–max |\n|---|---|---|---|---|\n",
    );
    for ((number, system), gaps) in measured.systems.iter().enumerate().zip(&measured.gaps) {
        let memory = measured.memory.get(number);
        let memory = memory.map_or_else(|| "–".into(), |size| format!("{size:.0}"));
        let gap = match gaps.is_empty() {
            true => "– | –".into(),
            false => format!("{:.0} | {}", median(gaps.iter().copied()), span(gaps)),
        };
        let _ = writeln!(page, "| {system} | {memory} | {} | {gap} |", gaps.len());
    }
    page.push('\n');
}

fn consensus_and_log(page: &mut String, engine: &Value) {
    page.push_str(
        "## Consensus and log by themselves\n\nThree durable replicas in one process, over real sockets and synced files, on entries of 128 B that a state \
         machine without work applies (`cargo xtask bench engine`). Goal: 300,000 entries/s in batches of 1,024; aim: 1,000,000.\n\n\
         | entries a batch | entries/s | p99 ms | CPU µs per entry | allocations per entry | syncs a batch | bound by |\n|---|---|---|---|---|---|---|\n",
    );
    for result in engine.get("results").and_then(Value::as_array).into_iter().flatten() {
        let number = |path: &str| result.pointer(path).and_then(Value::as_f64).unwrap_or(f64::NAN);
        let _ = writeln!(
            page,
            "| {:.0} | {:.0} | {:.2} | {:.2} | {:.2} | {:.2} | {} |",
            number("/batch"),
            number("/entries_per_second"),
            number("/latency_us/p99") / 1e3,
            number("/cpu_us_per_entry"),
            number("/allocations_per_entry"),
            number("/leader_syncs_per_batch"),
            result.get("bound_by").and_then(Value::as_str).unwrap_or_default(),
        );
    }
    page.push('\n');
}

fn long_run(page: &mut String, soak: &Soak) {
    let sample = &soak.sample;
    let _ = write!(
        page,
        "## {} minutes under full load\n\n{} clients put as fast as they can, to Quorate alone. An election here would be a false alarm: nothing fails.\n\n\
         | puts/s | elections | longest time without a success, ms | errors | p99 ms |\n|---|---|---|---|---|\n\
         | {:.0} | {:.0} | {:.0} | {:.0} | {:.2} |\n\n",
        soak.minutes,
        soak.clients,
        sample.rate,
        sample.leader_changes,
        sample.longest_gap_ms,
        sample.errors,
        sample.p99_ms,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median([4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_page_says_what_it_lacks_and_shows_what_it_has() {
        let sample = |rate| Sample {
            rate,
            p50_ms: 1.0,
            p99_ms: 2.0,
            p999_ms: 3.0,
            errors: 0.0,
            cpu_us_per_op: 10.0,
            syncs_per_op: 1.0,
            leader_changes: 0.0,
            longest_gap_ms: 5.0,
        };
        let workload = Workload {
            name: "put, 1 client",
            clients: 1,
            op: "put",
            ratio_goal: 1.8,
            echo_goal: None,
        };
        let systems = vec!["Quorate".to_owned(), "etcd".to_owned()];
        let mut measured = Measured::new(systems, 2, 20, 0);
        measured.add(workload.name, 0, sample(300.0));
        measured.add(workload.name, 1, sample(100.0));
        let page = render(&measured, std::slice::from_ref(&workload));
        assert!(page.contains("2 of 4 runs of *put, 1 client*; memory;"), "{page}");
        assert!(page.contains("themselves; the long run under full load; the probe"), "{page}");
        assert!(page.contains("we are 3.00 ×"), "{page}");
        measured.add(workload.name, 0, sample(300.0));
        measured.add(workload.name, 1, sample(100.0));
        measured.memory = vec![1.0, 2.0];
        measured.probe = Some(Value::Null);
        let result = serde_json::json!({
            "batch": 1024, "entries_per_second": 500_000.4, "latency_us": { "p99": 2500 },
            "cpu_us_per_entry": 1.5, "allocations_per_entry": 0.25, "leader_syncs_per_batch": 0.6,
            "bound_by": "syncs",
        });
        measured.engine = Some(serde_json::json!({ "results": [result] }));
        measured.soak = Some(Soak { minutes: 10, clients: 256, sample: sample(9.0) });
        let page = render(&measured, &[workload]);
        assert!(!page.contains("not complete"), "{page}");
        let row = "| 1024 | 500000 | 2.50 | 1.50 | 0.25 | 0.60 | syncs |";
        assert!(page.contains(row), "{page}");
        assert!(page.contains("## 10 minutes under full load"), "{page}");
    }
}
