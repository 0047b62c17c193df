//! `quorate start`: one node, until it is asked to leave or has to stop.

use crate::config::{self, StartSettings};
use crate::exit::{Failure, Outcome};
use crate::node::{NodeSettings, RunningNode, bind};
use crate::server_config::ServerConfig;
use crate::{logging, notices, version};
use quorate_node::StopReason;
use std::path::Path;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Runs the node.
///
/// # Errors
/// `Usage` for settings that make no sense, `Failed` when the node cannot start or had to stop.
pub(crate) fn run(given: &StartSettings, file: Option<&Path>) -> Outcome {
    let settings = config::merged(given, file)?;
    let config = ServerConfig::new(&settings)?;
    let etcd_addresses = config.etcd_addresses()?;
    let peer_addresses = config.peer_addresses()?;
    logging::start(
        settings.log_format.unwrap_or_default(),
        settings.log_level.as_deref().unwrap_or_default(),
    )?;
    let settings = NodeSettings {
        peer: bind("listen-peer", &peer_addresses)?,
        etcd: bind("listen-etcd", &etcd_addresses)?,
        name: config.name,
        data_dir: config.data_dir,
        cluster: config.cluster,
        join: config.join,
        advertise_etcd: config.advertise_etcd,
        spin: config.spin,
    };
    let runtime = crate::runtime()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(serve(settings))
}

async fn serve(settings: NodeSettings) -> Outcome {
    let name = settings.name.clone();
    tracing::info!(
        node = name,
        data_dir = %settings.data_dir.display(),
        "quorate {} starts",
        *version::SHORT
    );
    let mut signals = Signals::new()?;
    let node = RunningNode::start(settings)?;
    tokio::spawn(notices::log(node.handle.clone()));
    tokio::spawn(notices::log_formation(node.handle.clone()));
    let handle = node.handle.clone();
    tokio::select! {
        signal = signals.next() => {
            tracing::info!(node = name, "{signal}: leaving; once more ends at once");
            tokio::select! {
                left = node.leave() => outcome(&left?),
                _ = signals.next() => Err(Failure::Failed("ended before the node had left".into())),
            }
        }
        reason = handle.stopped() => {
            let _ = node.leave().await;
            outcome(&reason)
        }
    }
}

/// What the reason of a stop means for the exit code.
pub(crate) fn outcome(reason: &StopReason) -> Outcome {
    let text = match reason {
        StopReason::Asked => return Ok(()),
        StopReason::Log(reason) => format!("the node stopped, its log failed: {reason}"),
        StopReason::Machine(fault) => format!("the node stopped, its store failed: {fault}"),
        StopReason::Refused(reason) => format!("the node may not take part: {reason}"),
    };
    Err(Failure::Failed(text))
}

/// The signals that ask a process to end.
pub(crate) struct Signals {
    /// From the terminal: Ctrl-C.
    interrupt: Signal,
    /// From whoever manages processes.
    terminate: Signal,
}

impl Signals {
    /// Begins to listen; from here on these signals do not end the process by themselves.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn new() -> Result<Signals, Failure> {
        let failed = |error| Failure::Failed(format!("cannot listen for signals: {error}"));
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
        })
    }

    /// The name of the next.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stop_that_was_asked_for_is_a_success() {
        assert_eq!(outcome(&StopReason::Asked), Ok(()));
        let refused = outcome(&StopReason::Refused("replace the member".into()));
        let Err(failure) = refused else { panic!("a refusal is no success") };
        assert_eq!(failure.code(), 1);
        assert!(failure.to_string().contains("replace the member"));
    }
}
