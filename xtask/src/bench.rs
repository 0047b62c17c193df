//! Measures Quorate beside its peers.

use crate::command::{Result, cargo};

/// What to measure.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Arguments of the measurement; `engine` for the engine alone.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the binary and hands over to its own measurements.
pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    let mut line = vec!["run", "--release", "--quiet", "-p", "quorate", "--", "bench"];
    line.extend(arguments.arguments.iter().map(String::as_str));
    cargo(&line)
}
