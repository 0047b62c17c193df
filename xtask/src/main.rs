//! The one front door for people who work on Quorate: `cargo xtask ci` is the gate and writes nothing,
//! `cargo xtask fix` writes, `tidy`, `sim`, `torture` and `bench` stand beside them.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its user"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tools live outside the layers"
)]

mod bench;
mod command;
mod gate;
mod tidy;
mod torture;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Tasks of people who work on Quorate.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The gate: tests, formatting, clippy, tidy, rustdoc, simulation, examples. Writes nothing to the tree.
    Ci {
        /// How many seeds the simulation runs.
        #[arg(long, default_value_t = 3000)]
        seeds: u64,
    },
    /// Formats the tree and applies clippy's machine-applicable suggestions.
    Fix,
    /// Checks what no compiler does: the layers, module docs, file lengths, banned words.
    Tidy,
    /// Runs the simulator (release build); everything after `sim` goes to it.
    #[command(disable_help_flag = true)]
    Sim {
        /// Arguments of the simulator; try `cargo xtask sim --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Searches every history of small configurations of the consensus code; everything after `model` goes to it.
    #[command(disable_help_flag = true)]
    Model {
        /// Arguments of the search; try `cargo xtask model --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Puts real processes under real faults and judges what clients saw (release build).
    #[command(disable_help_flag = true)]
    Torture {
        /// Arguments of the tool; try `cargo xtask torture --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Measures Quorate beside its peers and writes docs/benchmarks.md; `bench engine` measures the engine alone.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Ci { seeds } => gate::ci(seeds),
        Task::Fix => gate::fix(),
        Task::Tidy => tidy::tidy(),
        Task::Sim { arguments } => gate::sim(&arguments),
        Task::Model { arguments } => gate::model(&arguments),
        Task::Torture { arguments } => torture::torture(&arguments),
        Task::Bench(arguments) => bench::bench(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
