//! `cargo xtask torture`: real processes under real faults, judged by the simulator's checkers.
//!
//! [`run::run`] forms a cluster of release binaries in network namespaces ([`space`]), on disks that know what is synced
//! ([`disk`]); clients work over gRPC and take down what they see ([`clients`], [`record`]); faults strike by a schedule
//! that a seed fixes ([`plan`], [`nemesis`]); at the end every member is asked for everything ([`recall`]), and a
//! [`verdict`] follows, with a picture of faults against latency and availability ([`timeline`], [`report`]).
//!
//! What it does not do: it never wipes or rolls back a folder, and no client compacts; the simulator does both.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool speaks to its user"
)]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it torments real processes in real time"
)]

mod options;
mod plan;
mod run;

mod cluster;
mod disk;
mod nemesis;
mod space;

mod clients;
mod etcd;
mod record;

mod recall;
mod verdict;

mod report;
mod timeline;

use clap::Parser;
use options::Options;
use std::process::ExitCode;

/// What went wrong, for the person who called.
type Result<T> = std::result::Result<T, String>;

/// The exit code of a run whose verdict is FAIL.
const FAIL: u8 = 1;

/// The exit code of a run that came to no verdict.
const BROKEN: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = if options.inside {
        run::run(&options, Ok(()))
    } else if options.loopback {
        run::run(&options, Err("--loopback was given".into()))
    } else {
        match space::start_inside(&arguments) {
            Ok(status) => {
                // It has said everything itself.
                let code = status.code().and_then(|code| u8::try_from(code).ok());
                return ExitCode::from(code.unwrap_or(BROKEN));
            }
            Err(reason) => run::run(&options, Err(reason)),
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAIL),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(BROKEN)
        }
    }
}
