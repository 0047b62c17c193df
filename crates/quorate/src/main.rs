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

mod bench;

use clap::{CommandFactory, Parser};
use cli::{Cli, Command, ConfigAction};
use config::StartSettings;
use exit::Outcome;
use server_config::ServerConfig;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    exit::finish(run(&Cli::parse()))
}

fn run(cli: &Cli) -> Outcome {
    let file = cli.config.as_deref();
    match &cli.command {
        Command::Start(_) => Ok(()),
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
    println!("the configuration of {} is usable", config.name);
    Ok(())
}

fn print_config(given: &StartSettings, file: Option<&Path>) -> Outcome {
    print!("{}", config::print(&config::merged(given, file)?));
    Ok(())
}
