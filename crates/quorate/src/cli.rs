//! The command line: what can be asked for.

use crate::config::{DevSettings, StartSettings, StatusSettings};
use crate::{bench, dump, member, version};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// A replicated store that speaks etcd v3: three nodes that agree and keep what they acknowledged.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version = version::SHORT.as_str(),
    long_version = version::LONG.as_str(),
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 the command line or configuration makes no sense."
)]
pub(crate) struct Cli {
    /// A TOML file with a table for each command and a key for each flag; flags and environment variables win over it
    #[arg(long, global = true, env = "QUORATE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Starts one node of a cluster
    Start(StartSettings),
    /// Runs a whole cluster in this process, to try things out
    Dev(DevSettings),
    /// Shows what nodes say of themselves; needs no quorum
    Status(StatusSettings),
    /// Lists and changes the members of a cluster
    Member(member::Arguments),
    /// Checks or prints the configuration that `start` would run with
    Config {
        /// Which of the two.
        #[command(subcommand)]
        action: ConfigAction,
    },
    /// Measures servers, the machine, or the engine
    Bench {
        /// What is measured.
        #[command(subcommand)]
        command: bench::Command,
    },
    /// Prints the log files of a stopped node
    Dump(dump::Arguments),
    /// Prints a completion script; for bash: `source <(quorate completion bash)`
    Completion {
        /// The shell it is for
        shell: clap_complete::Shell,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Says whether the configuration can be used, without using it
    Check(StartSettings),
    /// Prints the configuration in force as TOML: flags, environment, file and defaults together
    Print(StartSettings),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_flag_of_a_server_has_an_environment_variable() {
        for name in ["start", "dev", "status"] {
            let command = Cli::command();
            let command = command.find_subcommand(name).expect("it exists").clone();
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if argument.get_long().is_some() && id != "help" {
                    assert!(argument.get_env().is_some(), "{name} --{id} has no variable");
                }
            }
        }
    }
}
