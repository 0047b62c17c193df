//! The `quorate` binary: start with [`cli`], which says what can be asked for; each command has a module of its own.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its user"
)]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the binary is where clocks, threads and sockets are real"
)]

mod cli;
mod config;
mod exit;
mod logging;
mod server_config;
mod version;

mod admin;
mod http;
mod node;
mod notices;

mod bench;
mod dev;
mod dump;
mod member;
mod start;
mod status;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, ConfigAction};
use config::StartSettings;
use exit::{Outcome, show};
use server_config::ServerConfig;
use std::path::Path;
use std::process::ExitCode;

/// Mistakes are for builds that test the tests; no build of the database makes any.
const _: () = assert!(!quorate_types::Mistake::CAN_BE_MADE);

fn main() -> ExitCode {
    exit::finish(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Outcome {
    let file = cli.config.as_deref();
    match &cli.command {
        Command::Start(given) => start::run(given, file),
        Command::Dev(given) => dev::run(given, file),
        Command::Status(given) => status::run(given, file),
        Command::Member(arguments) => member::run(arguments, file),
        Command::Dump(arguments) => dump::run(arguments),
        Command::Config { action: ConfigAction::Check(given) } => check_config(given, file),
        Command::Config { action: ConfigAction::Print(given) } => print_config(given, file),
        Command::Bench { command } => bench::run(command),
        Command::Completion { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "quorate", &mut std::io::stdout());
            Ok(())
        }
    }
}

fn check_config(given: &StartSettings, file: Option<&Path>) -> Outcome {
    let settings = config::merged(given, file)?;
    let config = ServerConfig::new(&settings)?;
    logging::filter(settings.log_level.as_deref().unwrap_or_default())?;
    config.etcd_addresses()?;
    config.peer_addresses()?;
    show(&format!("the configuration of {} is usable", config.name));
    Ok(())
}

fn print_config(given: &StartSettings, file: Option<&Path>) -> Outcome {
    show(&config::print(&config::merged(given, file)?));
    Ok(())
}

/// The runtime of a server: connections are served by one thread for every two processors, since a node's own threads
/// need the others. On two processors a second one only wakes the first: measured at 1 and 64 clients, puts were 5 to
/// 12 % slower with it.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = (processors / 2).max(1);
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}
