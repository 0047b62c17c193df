//! Logs, on stderr: text for people, JSON for programs.

use crate::exit::{Failure, Outcome};
use serde::{Deserialize, Serialize};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Format {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Begins to write logs. `level` is a level, or directives such as `info,quorate_runtime=debug`.
///
/// # Errors
/// When `level` is neither.
pub(crate) fn start(format: Format, level: &str) -> Outcome {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        Format::Text => {
            builder.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::Failed(format!("cannot write logs: {error}")))
}

/// Checks a level or directives.
///
/// # Errors
/// When the text is neither.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, Failure> {
    EnvFilter::builder().parse(level).map_err(|error| {
        Failure::Usage(format!(
            "log-level `{level}`: {error}; use error, warn, info, debug, trace, or directives such as `info,quorate_runtime=debug`"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_directives_are_taken() {
        let check = |level, good: bool| assert_eq!(filter(level).is_ok(), good, "{level}");
        check("info", true);
        check("info,quorate_runtime=debug", true);
        check("info,quorate_runtime=loud", false);
    }
}
