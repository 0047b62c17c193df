//! `cargo xtask bench`: Quorate beside etcd on this machine, in turn, with one generator, equal durability and fresh
//! data for every run. No run is dropped. A figure is a ratio between runs of one session.
//!
//! What was measured is kept beside the build, and the page is written anew after each run: one that is cut off leaves a
//! page that says what it lacks, and `--resume` goes on from there.

mod measured;
mod report;
mod run;
mod systems;

use crate::command::{Result, cargo, root};
use measured::Measured;
use std::path::{Path, PathBuf};
use systems::System;

/// What to measure, and how long.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// `engine` measures the engine alone, `soak` only the long run, `kills` only the gaps after a leader is killed; without
    /// it, everything beside etcd.
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
    /// How many minutes the long run under full load lasts, in which no election may happen; 0 leaves it out.
    #[arg(long, default_value_t = 0)]
    soak_minutes: u64,
    /// Go on with what an earlier run left.
    #[arg(long)]
    resume: bool,
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

/// How long the long run lasts when it is asked for by name.
const SOAK_MINUTES: u64 = 10;

/// What builds the binary that is measured.
const RELEASE_BUILD: [&str; 4] = ["build", "--release", "-p", "quorate"];

/// Runs what was asked for.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    match arguments.part.as_deref() {
        Some("engine") => run::engine(&counting_binary()?, &std::env::temp_dir()),
        Some("soak") => {
            cargo(&RELEASE_BUILD)?;
            let minutes = arguments.soak_minutes;
            let minutes = if minutes == 0 { SOAK_MINUTES } else { minutes };
            Session::begin(arguments, true)?.soak(minutes)
        }
        Some("kills") => {
            cargo(&RELEASE_BUILD)?;
            Session::begin(arguments, true)?.gaps()
        }
        Some(other) => Err(format!("unknown part {other:?}: engine, soak and kills are known")),
        None => beside_etcd(arguments, &counting_binary()?),
    }
}

/// Builds a binary that counts allocations, beside the one that does not.
fn counting_binary() -> Result<PathBuf> {
    cargo(&[&RELEASE_BUILD[..], &["--features", "count-allocations"]].concat())?;
    let plain = systems::quorate_binary()?;
    let counting = plain.with_file_name("quorate-counting");
    std::fs::copy(&plain, &counting).map_err(|error| format!("{}: {error}", counting.display()))?;
    cargo(&RELEASE_BUILD)?;
    Ok(counting)
}

/// One session of measuring, and its page.
struct Session<'a> {
    arguments: &'a Arguments,
    /// Where the servers' files are.
    scratch: PathBuf,
    /// Our own binary, which makes the load.
    generator: PathBuf,
    systems: Vec<System>,
    measured: Measured,
}

impl<'a> Session<'a> {
    fn begin(arguments: &'a Arguments, resume: bool) -> Result<Session<'a>> {
        let scratch = std::env::temp_dir().join(format!("quorate-bench-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)
            .map_err(|error| format!("{}: {error}", scratch.display()))?;
        let generator = systems::quorate_binary()?;
        let systems = systems::present(&scratch)?;
        let labels: Vec<String> = systems.iter().map(System::label).collect();
        println!("systems: {}", labels.join(", "));
        let fresh = Measured::new(labels, arguments.pairs, arguments.seconds, arguments.kills);
        let kept = if resume { Measured::load(&fresh)? } else { None };
        let mut measured = kept.unwrap_or(fresh);
        measured.note_commit()?;
        Ok(Session { arguments, scratch, generator, systems, measured })
    }

    /// Keeps what was measured, and writes the page.
    fn save(&self) -> Result<()> {
        self.measured.save()?;
        let out = root().join(&self.arguments.out);
        std::fs::write(&out, report::render(&self.measured, WORKLOADS))
            .map_err(|error| format!("{}: {error}", out.display()))
    }

    fn workloads(&mut self) -> Result<()> {
        for workload in WORKLOADS.iter().filter(|w| w.name.contains(&self.arguments.only)) {
            for pair in 1..=self.arguments.pairs {
                for (number, system) in self.systems.iter().enumerate() {
                    if self.measured.samples(workload.name, number).len() >= pair {
                        continue;
                    }
                    let seconds = self.arguments.seconds;
                    let (generator, scratch) = (&self.generator, &self.scratch);
                    let sample = run::workload(generator, system, workload, seconds, scratch)?;
                    println!(
                        "{} {pair}/{}: {}: {:.0}/s p99 {:.2} ms, {:.1} us server CPU per op, {:.2} syncs per op and node, {} term changes",
                        workload.name,
                        self.arguments.pairs,
                        system.label(),
                        sample.rate,
                        sample.p99_ms,
                        sample.cpu_us_per_op,
                        sample.syncs_per_op,
                        sample.leader_changes,
                    );
                    self.measured.add(workload.name, number, sample);
                    self.save()?;
                }
            }
        }
        Ok(())
    }

    fn memory(&mut self) -> Result<()> {
        for (number, system) in self.systems.iter().enumerate() {
            if self.measured.memory.len() <= number {
                let size = run::memory(&self.generator, system, &self.scratch)?;
                self.measured.memory.push(size);
                self.save()?;
            }
        }
        Ok(())
    }

    fn gaps(&mut self) -> Result<()> {
        for kill in 1..=self.arguments.kills {
            for (number, system) in self.systems.iter().enumerate() {
                if self.measured.gaps[number].len() < kill {
                    let gap = run::gap(&self.generator, system, &self.scratch)?;
                    println!(
                        "kill {kill}/{}: {}: {gap:.0} ms",
                        self.arguments.kills,
                        system.label()
                    );
                    self.measured.gaps[number].push(gap);
                    self.save()?;
                }
            }
        }
        Ok(())
    }

    fn soak(&mut self, minutes: u64) -> Result<()> {
        let ours = &self.systems[0];
        let workload = &WORKLOADS[2];
        println!("{} for {minutes} minutes", workload.name);
        let sample = run::workload(&self.generator, ours, workload, minutes * 60, &self.scratch)?;
        println!(
            "{:.0}/s, {} elections, longest gap {:.0} ms",
            sample.rate, sample.leader_changes, sample.longest_gap_ms
        );
        self.measured.soak = Some(measured::Soak { minutes, clients: workload.clients, sample });
        self.save()
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.scratch) {
            println!("{} stays behind: {error}", self.scratch.display());
        }
    }
}

fn beside_etcd(arguments: &Arguments, counting: &Path) -> Result<()> {
    let mut session = Session::begin(arguments, arguments.resume)?;
    if session.measured.probe.is_none() {
        session.measured.probe = Some(run::probe(&session.generator)?);
        session.save()?;
    }
    session.workloads()?;
    if arguments.only.is_empty() {
        session.memory()?;
        session.gaps()?;
    }
    if arguments.only.is_empty() && session.measured.engine.is_none() {
        session.measured.engine = Some(run::engine_results(counting, &session.scratch)?);
        session.save()?;
    }
    if arguments.soak_minutes > 0 {
        session.soak(arguments.soak_minutes)?;
    }
    println!("wrote {}", arguments.out.display());
    Ok(())
}
