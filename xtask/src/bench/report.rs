//! `docs/benchmarks.md`: what was measured, on what, and how it compares.

use super::Workload;
use super::run::Sample;
use super::systems::System;
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

/// The whole page.
pub(crate) fn render(
    systems: &[System],
    probe: &Value,
    results: &[(Workload, Vec<Vec<Sample>>)],
    memory: &[f64],
    gaps: &[Vec<f64>],
    seconds: u64,
) -> String {
    let mut page = String::new();
    let runs = results.first().and_then(|(_, rows)| rows.first()).map_or(0, Vec::len);
    let _ = write!(
        page,
        "# Benchmarks\n\nWritten by `cargo xtask bench`; run it to see your own figures.\n\n\
         Three processes of each system on one machine and one disk, logs synced, default settings of each, fresh data for every run, \
         one generator (`quorate bench etcd`, closed loop, 256 B values, 100,000 keys, at most 16 connections), {runs} runs of {seconds} s of each system in turn, none \
         dropped. Servers and generator share the cores. A figure here is good as a ratio within this page, not as an absolute. What the disk under a \
         virtual machine does with a flush cannot be known from inside: read \"synced\" as \"with the guest's fdatasync\".\n\n\
         Machine: {}.\n\n",
        machine()
    );
    throughput(&mut page, systems, probe, results);
    costs(&mut page, systems, results);
    memory_and_gaps(&mut page, systems, memory, gaps);
    let _ = write!(
        page,
        "## Probe\n\nWhat this machine gave at best, in the same session (`quorate bench probe --json`):\n\n```json\n{}\n```\n",
        serde_json::to_string_pretty(probe).unwrap_or_default()
    );
    page
}

fn echo_rate(probe: &Value, clients: usize) -> Option<f64> {
    probe.pointer(&format!("/grpc_echo/{clients}/rate")).and_then(Value::as_f64)
}

fn throughput(
    page: &mut String,
    systems: &[System],
    probe: &Value,
    results: &[(Workload, Vec<Vec<Sample>>)],
) {
    page.push_str("## Throughput and latency\n\n");
    page.push_str("| workload | system | median ops/s | min–max | p50 ms | p99 ms | p99.9 ms | errors | ratio | of echo | goal |\n");
    page.push_str("|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (workload, rows) in results {
        let own = median(rows[0].iter().map(|sample| sample.rate));
        for (system, row) in systems.iter().zip(rows) {
            let rates: Vec<f64> = row.iter().map(|sample| sample.rate).collect();
            let rate = median(rates.iter().copied());
            let echo = echo_rate(probe, workload.clients).map(|echo| rate / echo);
            let (ratio, goal) = match system {
                System::Quorate(_) => {
                    let echo_goal =
                        workload.echo_goal.map(|goal| format!(", ≥ {:.0} % of echo", goal * 100.0));
                    (
                        String::new(),
                        format!(
                            "≥ {} × etcd{}",
                            workload.ratio_goal,
                            echo_goal.unwrap_or_default()
                        ),
                    )
                }
                System::Etcd(..) => (format!("we are {:.2} ×", own / rate), String::new()),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {rate:.0} | {} | {:.2} | {:.2} | {:.2} | {:.0} | {ratio} | {} | {goal} |",
                workload.name,
                system.label(),
                span(&rates),
                median(row.iter().map(|sample| sample.p50_ms)),
                median(row.iter().map(|sample| sample.p99_ms)),
                median(row.iter().map(|sample| sample.p999_ms)),
                row.iter().map(|sample| sample.errors).sum::<f64>(),
                echo.map_or_else(|| "–".into(), |echo| format!("{:.0} %", echo * 100.0)),
            );
        }
    }
    page.push('\n');
}

fn costs(page: &mut String, systems: &[System], results: &[(Workload, Vec<Vec<Sample>>)]) {
    page.push_str("## Costs\n\nMedians. CPU is that of the three servers together.\n\n");
    page.push_str("| workload | system | server CPU µs per op | syncs per op and node | leader changes in all runs | longest gap ms |\n");
    page.push_str("|---|---|---|---|---|---|\n");
    for (workload, rows) in results {
        for (system, row) in systems.iter().zip(rows) {
            let _ = writeln!(
                page,
                "| {} | {} | {:.1} | {:.3} | {:.0} | {:.0} |",
                workload.name,
                system.label(),
                median(row.iter().map(|sample| sample.cpu_us_per_op)),
                median(row.iter().map(|sample| sample.syncs_per_op)),
                row.iter().map(|sample| sample.leader_changes).sum::<f64>(),
                median(row.iter().map(|sample| sample.longest_gap_ms)),
            );
        }
    }
    page.push('\n');
}

fn memory_and_gaps(page: &mut String, systems: &[System], memory: &[f64], gaps: &[Vec<f64>]) {
    page.push_str("## Memory and fail-over\n\n");
    page.push_str("Memory: sum of the three resident sizes after the same 200,000 puts. Gap: the longest time without a success of 16 writers on the two \
                   survivors, `kill -9` of the leader.\n\n");
    page.push_str(
        "| system | memory MiB | gap ms, median | gap ms, min–max |\n|---|---|---|---|\n",
    );
    for ((system, memory), gaps) in systems.iter().zip(memory).zip(gaps) {
        let _ = writeln!(
            page,
            "| {} | {memory:.0} | {:.0} | {} |",
            system.label(),
            median(gaps.iter().copied()),
            span(gaps)
        );
    }
    page.push('\n');
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
}
