//! What a run is asked for.

use clap::{Parser, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;

/// Puts a cluster of real processes under faults while clients work, and judges what they saw.
///
/// Needs Linux; the faults of the network need namespaces (root, or user namespaces) and iproute2, those of the disk and of
/// the clock a C compiler. What cannot be done here is said and left out.
#[derive(Clone, Debug, Parser)]
#[command(name = "cargo xtask torture")]
pub(crate) struct Options {
    /// For how long faults strike
    #[arg(long, default_value_t = 10.0, value_parser = minutes)]
    pub(crate) minutes: f64,
    /// How many nodes there are
    #[arg(long, default_value_t = 3, value_parser = nodes)]
    pub(crate) nodes: usize,
    /// What the schedule of faults and the clients' calls are drawn from [default: a new one, which is printed]
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Only these kinds of fault, separated by commas
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) only: Vec<Kind>,
    /// Where data, logs and the report go; emptied first if it holds an earlier run [default: target/torture]
    #[arg(long, default_value = "target/torture")]
    pub(crate) dir: PathBuf,
    /// How many clients there are
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) clients: u16,
    /// How many calls they make a second, together
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=5000))]
    pub(crate) rate: u32,
    /// Break a promise on purpose: the verdict must be FAIL
    #[arg(long, value_enum)]
    pub(crate) sabotage: Option<Sabotage>,
    /// Run on the loopback interface, without the faults of the network
    #[arg(long)]
    pub(crate) loopback: bool,
    /// The binary under test [default: quorate beside this one]
    #[arg(long)]
    pub(crate) binary: Option<PathBuf>,
    /// Set when the program has started itself inside a network namespace
    #[arg(long, hide = true)]
    pub(crate) inside: bool,
}

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Sabotage {
    /// Disks acknowledge syncs and keep nothing of them: a power cut must then lose acknowledged writes
    IgnoreSync,
}

/// A kind of fault. Each has a lane of its own in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// `kill -9` of one node or of all
    Kill,
    /// SIGSTOP, later SIGCONT
    Pause,
    /// Links cut, in one or both directions: isolated nodes, halves, bridge, ring
    Partition,
    /// A link with little bandwidth
    SlowLink,
    /// Syncs that take long, or stand still
    DiskSlow,
    /// Syncs that fail
    DiskFail,
    /// A disk on which no file grows
    DiskFull,
    /// A wall clock that jumps or drifts
    Clock,
    /// Members that come and go
    Members,
    /// Every node leaves by SIGTERM and comes back, one after the other
    Rolling,
    /// The power of one node or of all is cut: what was not synced is gone
    Power,
}

impl Kind {
    /// All of them, in the order of their lanes.
    pub(crate) const ALL: [Kind; 11] = [
        Kind::Kill,
        Kind::Pause,
        Kind::Partition,
        Kind::SlowLink,
        Kind::DiskSlow,
        Kind::DiskFail,
        Kind::DiskFull,
        Kind::Clock,
        Kind::Members,
        Kind::Rolling,
        Kind::Power,
    ];

    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill",
            Kind::Pause => "pause",
            Kind::Partition => "partition",
            Kind::SlowLink => "slow-link",
            Kind::DiskSlow => "disk-slow",
            Kind::DiskFail => "disk-fail",
            Kind::DiskFull => "disk-full",
            Kind::Clock => "clock",
            Kind::Members => "members",
            Kind::Rolling => "rolling",
            Kind::Power => "power",
        }
    }

    /// Whether it needs network namespaces.
    pub(crate) fn needs_namespaces(self) -> bool {
        match self {
            Kind::Partition | Kind::SlowLink => true,
            Kind::Kill
            | Kind::Pause
            | Kind::DiskSlow
            | Kind::DiskFail
            | Kind::DiskFull
            | Kind::Clock
            | Kind::Members
            | Kind::Rolling
            | Kind::Power => false,
        }
    }

    /// Whether it needs the layer between process and disk.
    pub(crate) fn needs_layer(self) -> bool {
        match self {
            Kind::DiskSlow | Kind::DiskFail | Kind::DiskFull | Kind::Clock | Kind::Power => true,
            Kind::Kill
            | Kind::Pause
            | Kind::Partition
            | Kind::SlowLink
            | Kind::Members
            | Kind::Rolling => false,
        }
    }
}

fn minutes(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if (0.05..=10_000.0).contains(&value) {
        Ok(value)
    } else {
        Err("it must lie in 0.05 to 10000".into())
    }
}

fn nodes(text: &str) -> Result<usize, String> {
    match text {
        "3" => Ok(3),
        "5" => Ok(5),
        _ => Err("it must be 3 or 5".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_called_as_on_the_command_line() {
        assert_eq!(Kind::ALL.as_slice(), Kind::value_variants());
        for kind in Kind::ALL {
            let value = kind.to_possible_value().expect("none is hidden");
            assert_eq!(value.get_name(), kind.name());
        }
    }

    #[test]
    fn numbers_outside_their_ranges_are_refused() {
        let parse = |words: &[&str]| Options::try_parse_from([&["torture"], words].concat());
        assert!(parse(&["--minutes", "0.5", "--nodes", "5", "--only", "kill,power"]).is_ok());
        assert!(parse(&["--minutes", "0"]).is_err());
        assert!(parse(&["--minutes", "NaN"]).is_err());
        assert!(parse(&["--nodes", "4"]).is_err());
        assert!(parse(&["--only", "rain"]).is_err());
    }
}
