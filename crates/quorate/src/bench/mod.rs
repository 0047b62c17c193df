//! `quorate bench`: measures servers, the machine they run on, and the engine by itself.
//!
//! Start with [`generator`], which makes the load; [`recorder`] counts what happens, [`report`] shows it.

mod channel;
mod generator;
mod links;
mod wire;

mod recorder;
mod report;

mod cpu;
mod etcd;

mod disk_probe;
mod echo;
mod loopback_probe;
mod probe;

mod allocations;
mod engine;
mod noop_machine;

use crate::exit::{Failure, Outcome, show};
use serde::Serialize;
use std::fmt::Display;

/// What is measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Puts load on anything that speaks etcd v3 and reports rate and latencies
    Etcd(etcd::Arguments),
    /// Measures what this machine gives at best: disk syncs, loopback, a gRPC server that answers at once
    Probe(probe::Arguments),
    /// Measures consensus and log without gRPC: three durable replicas, a state machine without work
    Engine(engine::Arguments),
    /// Answers puts at once, for `bench probe`
    #[command(hide = true)]
    EchoServer,
}

/// Measures and prints.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Etcd(arguments) => etcd::run(arguments),
        Command::Probe(arguments) => probe::run(arguments),
        Command::Engine(arguments) => engine::run(arguments),
        Command::EchoServer => echo::serve(),
    }
}

/// Prints a result on stdout, for people or for programs.
fn print<T: Serialize + Display>(result: &T, json: bool) -> Outcome {
    if !json {
        show(&result.to_string());
        return Ok(());
    }
    let text = serde_json::to_string_pretty(result);
    let text = text.map_err(|error| Failure::Failed(format!("cannot print as JSON: {error}")))?;
    show(&text);
    Ok(())
}
