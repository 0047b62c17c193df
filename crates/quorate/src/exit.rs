//! How the process ends: three exit codes that scripts may rely on, and the text that goes with them.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// The exit code of a command that did what it was asked to do.
pub(crate) const SUCCESS: u8 = 0;

/// The exit code of a command that could not.
pub(crate) const FAILURE: u8 = 1;

/// The exit code of a command line or configuration that makes no sense; clap uses the same.
pub(crate) const USAGE: u8 = 2;

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Something went wrong while doing it; the text says what, and what to do where that is known.
    Failed(String),
    /// What was asked for makes no sense, or a file of the configuration does not.
    Usage(String),
    /// It went wrong and was already reported on stdout, as part of the result.
    Reported,
}

impl Failure {
    /// The exit code of this failure.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::Failed(_) | Failure::Reported => FAILURE,
            Failure::Usage(_) => USAGE,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Failed(text) | Failure::Usage(text) => f.write_str(text),
            Failure::Reported => f.write_str("see above"),
        }
    }
}

/// How every command ends.
pub(crate) type Outcome = Result<(), Failure>;

/// Writes a result on stdout. A reader that closed the pipe has seen enough: that is no failure.
pub(crate) fn show(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    // Any other error could only be reported where nobody looks for a result.
    let _ = write!(stdout, "{text}{end}").and_then(|()| stdout.flush());
}

/// Turns an outcome into the exit code, and says on stderr why it is not 0.
pub(crate) fn finish(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::from(SUCCESS),
        Err(failure) => {
            if failure != Failure::Reported {
                eprintln!("error: {failure}");
            }
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_configuration_is_told_from_a_failed_run() {
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        assert_eq!(Failure::Failed(String::new()).code(), 1);
        assert_eq!(Failure::Reported.code(), 1);
    }
}
