//! `quorate bench`: measures servers, the machine they run on, and the engine by itself.
//!
//! Start with [`generator`], which makes the load; [`recorder`] counts what happens, [`report`] shows it.

mod generator;
mod links;
mod wire;

mod recorder;
mod report;

mod cpu;
mod etcd;

use crate::exit::{Failure, Outcome};
use serde::Serialize;
use std::fmt::Display;

/// What is measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Puts load on anything that speaks etcd v3 and reports rate and latencies
    Etcd(etcd::Arguments),
}

/// Measures and prints.
pub(crate) fn run(command: &Command) -> Outcome {
    match command {
        Command::Etcd(arguments) => etcd::run(arguments),
    }
}

/// Prints a result on stdout, for people or for programs.
fn print<T: Serialize + Display>(result: &T, json: bool) -> Outcome {
    if !json {
        println!("{result}");
        return Ok(());
    }
    let text = serde_json::to_string_pretty(result);
    let text = text.map_err(|error| Failure::Failed(format!("cannot print as JSON: {error}")))?;
    println!("{text}");
    Ok(())
}
