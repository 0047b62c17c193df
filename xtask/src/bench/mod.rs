//! `cargo xtask bench`: Quorate beside etcd on this machine, in turn, with one generator, equal durability and fresh
//! data for every run. No run is dropped. A figure is a ratio between runs of one session.

mod report;
mod run;
mod systems;

use crate::command::{Result, cargo, root};
use std::path::PathBuf;

/// What to measure, and how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `engine` measures the engine alone; without it, everything beside etcd.
    #[arg(value_name = "PART")]
    part: Option<String>,
    /// How many times each system runs each workload, in turn.
    #[arg(long, default_value_t = 5)]
    pairs: usize,
    /// How long each run lasts, in seconds.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How many kills of a leader are measured.
    #[arg(long, default_value_t = 10)]
    kills: usize,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Where the report goes.
    #[arg(long, default_value = "docs/benchmarks.md")]
    out: PathBuf,
}

/// One workload: what the generator is told beside endpoints and time.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// How many logical clients, each with one request outstanding.
    pub(crate) clients: usize,
    /// `put` or `get`.
    pub(crate) op: &'static str,
    /// What the issue of this project asks: the least ratio to etcd.
    pub(crate) ratio_goal: f64,
    /// The least fraction of the gRPC echo with as many clients; none at one client.
    pub(crate) echo_goal: Option<f64>,
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "put, 1 client", clients: 1, op: "put", ratio_goal: 1.8, echo_goal: None },
    Workload {
        name: "put, 64 clients",
        clients: 64,
        op: "put",
        ratio_goal: 2.5,
        echo_goal: Some(0.6),
    },
    Workload {
        name: "put, 256 clients",
        clients: 256,
        op: "put",
        ratio_goal: 2.5,
        echo_goal: Some(0.6),
    },
    Workload {
        name: "linearizable get, 64 clients",
        clients: 64,
        op: "get",
        ratio_goal: 2.5,
        echo_goal: Some(0.75),
    },
    Workload {
        name: "linearizable get, 256 clients",
        clients: 256,
        op: "get",
        ratio_goal: 2.5,
        echo_goal: Some(0.75),
    },
];

/// Runs what was asked for.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    cargo(&["build", "--release", "-p", "quorate"])?;
    match arguments.part.as_deref() {
        Some("engine") => {
            cargo(&["run", "--release", "--quiet", "-p", "quorate", "--", "bench", "engine"])
        }
        Some(other) => Err(format!("unknown part {other:?}: only `engine` can be measured alone")),
        None => beside_etcd(arguments),
    }
}

fn beside_etcd(arguments: &Arguments) -> Result<()> {
    let scratch = std::env::temp_dir().join(format!("quorate-bench-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))?;
    let generator = systems::quorate_binary()?;
    let systems = systems::present(&scratch)?;
    println!(
        "systems: {}",
        systems.iter().map(|system| system.label()).collect::<Vec<_>>().join(", ")
    );
    let probe = run::probe(&generator)?;
    let mut results = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(&arguments.only)) {
        let mut rows = vec![Vec::new(); systems.len()];
        for pair in 1..=arguments.pairs {
            for (system, row) in systems.iter().zip(&mut rows) {
                let sample =
                    run::workload(&generator, system, workload, arguments.seconds, &scratch)?;
                println!(
                    "{} {pair}/{}: {}: {:.0}/s p99 {:.2} ms, {:.1} us server CPU per op, {} term changes",
                    workload.name,
                    arguments.pairs,
                    system.label(),
                    sample.rate,
                    sample.p99_ms,
                    sample.cpu_us_per_op,
                    sample.leader_changes,
                );
                row.push(sample);
            }
        }
        results.push((workload.clone(), rows));
    }
    let memory = run::memory_of_each(&generator, &systems, &scratch)?;
    let gaps = run::gaps_of_each(&generator, &systems, arguments.kills, &scratch)?;
    let text = report::render(&systems, &probe, &results, &memory, &gaps, arguments.seconds);
    let out = root().join(&arguments.out);
    std::fs::write(&out, text).map_err(|error| format!("{}: {error}", out.display()))?;
    println!("wrote {}", out.display());
    std::fs::remove_dir_all(&scratch).map_err(|error| format!("{}: {error}", scratch.display()))
}
