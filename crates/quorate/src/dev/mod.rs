//! `quorate dev`: a whole cluster in one process, with real sockets, real files and nothing to set up.

mod live;
mod ports;

use crate::config::{self, DevSettings};
use crate::exit::{Failure, Outcome, show};
use crate::node::{NodeSettings, RunningNode};
use crate::start::{Signals, outcome};
use crate::{logging, version};
use live::Live;
use ports::{Claim, DevLayout};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;
use tokio::task::JoinSet;

/// Where the data lies.
enum Home {
    /// In a folder that goes with the process.
    Temporary(TempDir),
    /// In a folder that stays.
    Kept(PathBuf),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Home::Temporary(folder) => folder.path(),
            Home::Kept(path) => path,
        }
    }
}

/// Runs the cluster until Ctrl-C.
///
/// # Errors
/// `Usage` for settings that make no sense, `Failed` when no cluster can be started or all nodes had to stop.
pub(crate) fn run(given: &DevSettings, file: Option<&Path>) -> Outcome {
    let settings = config::merged(given, file)?;
    logging::start(
        settings.log_format.unwrap_or_default(),
        settings.log_level.as_deref().unwrap_or_default(),
    )?;
    let home = match settings.data_dir {
        Some(path) => Home::Kept(path),
        None => Home::Temporary(
            tempfile::Builder::new()
                .prefix("quorate-dev-")
                .tempdir()
                .map_err(|error| Failure::Failed(format!("no temporary folder: {error}")))?,
        ),
    };
    let runtime = crate::runtime()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let nodes = given.nodes;
    let outcome = runtime.block_on(serve(&home, nodes, settings.nodes.unwrap_or(3)));
    drop(runtime);
    outcome
}

async fn serve(home: &Home, asked: Option<u8>, count: u8) -> Outcome {
    let begin = Instant::now();
    let mut signals = Signals::new()?;
    let layout = DevLayout::open(home.path(), asked, count)?;
    let claims = layout.claim().await?;
    let cluster = layout.cluster();
    let mut nodes = Vec::new();
    for claim in claims {
        nodes.push(start(home.path(), claim, &cluster)?);
    }
    show(&banner(home, &nodes));
    let live = Live::new(begin, nodes.len());
    let mut watchers = JoinSet::new();
    for node in &nodes {
        watchers.spawn(live.clone().watch(node.handle.clone()));
    }
    let mut stops = JoinSet::new();
    for node in &nodes {
        let handle = node.handle.clone();
        stops.spawn(async move { handle.stopped().await });
    }
    // A node that stops leaves the others running: that is what a cluster is for.
    let all_stopped = async {
        let mut last = Ok(());
        while let Some(stopped) = stops.join_next().await {
            last = stopped.map_or(Ok(()), |reason| outcome(&reason));
        }
        last
    };
    tokio::select! {
        last = all_stopped => return last,
        signal = signals.next() => live.say(&format!("{signal}: leaving")),
    }
    watchers.shutdown().await;
    let leaving = leave(nodes);
    tokio::select! {
        left = leaving => left?,
        _ = signals.next() => return Err(Failure::Failed("ended before the nodes had left".into())),
    }
    live.say(match home {
        Home::Temporary(_) => "all nodes have left; the temporary folder is removed",
        Home::Kept(_) => "all nodes have left; the data is kept",
    });
    Ok(())
}

fn start(home: &Path, claim: Claim, cluster: &[(String, String)]) -> Result<RunningNode, Failure> {
    RunningNode::start(NodeSettings {
        data_dir: home.join(&claim.name),
        name: claim.name,
        cluster: cluster.to_vec(),
        join: None,
        peer: claim.peer,
        etcd: claim.etcd,
        advertise_etcd: Vec::new(),
        spin: quorate_runtime::SPIN,
    })
}

/// All nodes leave at the same time: one after the other would hand leadership around.
async fn leave(nodes: Vec<RunningNode>) -> Outcome {
    let mut leaving = JoinSet::new();
    for node in nodes {
        leaving.spawn(node.leave());
    }
    let mut outcome = Ok(());
    while let Some(left) = leaving.join_next().await {
        match left {
            Ok(Ok(_)) => {}
            Ok(Err(failure)) => outcome = Err(failure),
            Err(error) => outcome = Err(Failure::Failed(error.to_string())),
        }
    }
    outcome
}

/// What there is and lines to copy.
fn banner(home: &Home, nodes: &[RunningNode]) -> String {
    let addresses: Vec<String> = nodes.iter().map(|node| node.etcd_address.to_string()).collect();
    let endpoints = addresses.join(",");
    let first = addresses.first().map_or("", String::as_str);
    let fate = match home {
        Home::Temporary(_) => "removed at the end; --data-dir keeps it",
        Home::Kept(_) => "kept",
    };
    let mut text = String::new();
    let mut line = |line: &str| writeln!(text, "{line}").expect("a string takes everything");
    line(&format!("quorate {}: {} nodes on this machine", *version::SHORT, nodes.len()));
    line(&format!("data in {} ({fate})", home.path().display()));
    line("");
    for node in nodes {
        let name = &node.handle.latest_status().name;
        line(&format!("  {name}  etcd clients at {}", node.etcd_address));
    }
    line("");
    line("lines to copy:");
    line(&format!("  export ETCDCTL_API=3 ETCDCTL_ENDPOINTS={endpoints}"));
    line("  etcdctl put greeting hello");
    line("  etcdctl get greeting");
    line("  etcdctl endpoint status -w table");
    line(&format!("  quorate status --endpoints {endpoints}"));
    line(&format!("  curl http://{first}/metrics"));
    line("");
    line("Ctrl-C ends it. What happens:");
    text
}
