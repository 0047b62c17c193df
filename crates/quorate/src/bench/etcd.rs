//! `quorate bench etcd`: a load on anything that speaks etcd's KV service.

use super::generator::{self, Load, Operation};
use crate::exit::{Failure, Outcome};
use std::time::Duration;

/// How many connections the clients share unless told otherwise: enough that none is a bottleneck, few enough that
/// frames of several clients travel together.
pub(crate) const CONNECTIONS: usize = 16;

/// Measures a server that speaks etcd v3.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Client addresses, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    endpoints: Vec<String>,
    /// Logical clients, each with one request under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// Connections that the clients share [default: 16, but no more than clients]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    connections: Option<u32>,
    /// How long to measure
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    seconds: f64,
    /// How long to run before that
    #[arg(long, default_value_t = 1.0, value_parser = not_negative)]
    warm_up: f64,
    /// The size of a value in bytes
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    value_size: u32,
    /// How many keys there are
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    keys: u64,
    /// What is asked of the server
    #[arg(long, value_enum, default_value_t = Operation::Put)]
    op: Operation,
    /// Begin this many operations a second, and count latency from when each was due [default: as fast as they go]
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// Let gets be answered by any member from what it has
    #[arg(long)]
    serializable: bool,
    /// Do not fill the keys in before gets: they are there already
    #[arg(long)]
    no_fill: bool,
    /// How many seconds one attempt may take
    #[arg(long, default_value_t = 5.0, value_parser = positive)]
    timeout: f64,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs it and prints what it found.
pub(crate) fn run(arguments: &Arguments) -> Outcome {
    let report = generator::run(load(arguments)?)?;
    super::print(&report, arguments.json)
}

fn load(arguments: &Arguments) -> Result<Load, Failure> {
    let endpoints = arguments.endpoints.clone();
    let clients = arguments.clients as usize;
    let connections = match arguments.connections {
        Some(connections) => connections as usize,
        None => CONNECTIONS.min(clients),
    };
    if connections > clients {
        return Err(Failure::Usage(format!(
            "--connections {connections} is above --clients {clients}: some would never be used"
        )));
    }
    Ok(Load {
        endpoints,
        clients,
        connections,
        duration: Duration::from_secs_f64(arguments.seconds),
        warm_up: Duration::from_secs_f64(arguments.warm_up),
        value_size: arguments.value_size as usize,
        key_count: arguments.keys,
        operation: arguments.op,
        rate: arguments.rate,
        serializable: arguments.serializable,
        fill: !arguments.no_fill,
        attempt_timeout: Duration::from_secs_f64(arguments.timeout),
        progress: true,
    })
}

/// A number above 0 that is small enough to be a time or a rate.
fn positive(text: &str) -> Result<f64, String> {
    match not_negative(text)? {
        0.0 => Err("it must be above 0".into()),
        value => Ok(value),
    }
}

fn not_negative(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "it is not a number".to_owned())?;
    if (0.0..=1e9).contains(&value) { Ok(value) } else { Err("it must lie in 0 to 1e9".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_are_checked() {
        let check = |text, good: bool| assert_eq!(positive(text).is_ok(), good, "{text}");
        check("1", true);
        check("0.5", true);
        check("0", false);
        check("-1", false);
        check("NaN", false);
        check("inf", false);
        check("ten", false);
    }
}
