//! Members that come and go while everything else goes on, through the command line of the binary.

use super::{Begun, Remedy, target};
use crate::Result;
use crate::cluster::{Cluster, ask};
use crate::plan::Who;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a change may take, faults inside included.
const CHANGE_MAX: Duration = Duration::from_secs(60);

/// How often its progress is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a node that was removed may take to end by itself.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// A change under way.
pub(super) struct Changing {
    /// Who comes.
    came: usize,
    /// Who goes.
    goes: usize,
    /// What asks for it and watches.
    watcher: JoinHandle<Result<()>>,
}

/// How the change is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// `member replace`.
    Replace,
    /// `member add`, then `member remove`.
    AddRemove,
}

/// What the watcher needs.
struct Watcher {
    binary: PathBuf,
    /// Where the members and the new one can be asked.
    endpoints: Vec<String>,
    /// The name of the new one, and where peers reach it.
    comes: (String, String),
    /// The name of the one that goes.
    goes: String,
    how: How,
}

/// A new node takes the place of another in one step.
pub(super) fn replace(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    begin(cluster, who, How::Replace)
}

/// A new node is added, then another one removed.
pub(super) fn add_and_remove(cluster: &mut Cluster, who: Who) -> Result<Begun> {
    begin(cluster, who, How::AddRemove)
}

fn begin(cluster: &mut Cluster, who: Who, how: How) -> Result<Begun> {
    let Some(target) = target(cluster, who) else { return Ok(None) };
    let goes = target.nodes[0];
    let came = cluster.add_joining()?;
    cluster.start(came)?;
    let name = cluster.nodes[came].name.clone();
    // Not the one that goes: it cannot say how its own removal ended.
    let others = cluster.members().into_iter().filter(|node| *node != goes);
    let endpoints = others.map(|node| cluster.space.client_address(node));
    let watcher = Watcher {
        binary: cluster.binary().to_path_buf(),
        endpoints: endpoints.collect(),
        comes: (name.clone(), cluster.space.peer_address(came)),
        goes: cluster.nodes[goes].name.clone(),
        how,
    };
    cluster.nodes[goes].may_end = true;
    let watcher = std::thread::spawn(move || watcher.run());
    let what = match how {
        How::Replace => format!("{} replaced by {name}", target.said),
        How::AddRemove => format!("{name} added, {} removed", target.said),
    };
    Ok(Some((what, Remedy::Wait(Changing { came, goes, watcher }))))
}

/// Waits until the change has come to its end, and takes the node away that has left.
pub(super) fn wait(cluster: &mut Cluster, changing: Changing) -> Result<()> {
    let Changing { came, goes, watcher } = changing;
    while !watcher.is_finished() {
        // The one that goes may have been killed by another fault; it is needed until it has gone.
        cluster.start_missing()?;
        cluster.nodes[goes].may_end = true;
        cluster.watch();
        std::thread::sleep(LOOK_INTERVAL);
    }
    let result = watcher.join().map_err(|_| "the watcher of the members panicked".to_owned())?;
    if let Err(reason) = result {
        // Whoever is a member in the end is not known: both stay.
        cluster.nodes[goes].may_end = false;
        cluster.publish();
        return Err(reason);
    }
    let name = cluster.nodes[goes].name.clone();
    let ended = cluster.wait_end(goes, LEAVE_MAX);
    let runs = ended.is_none() && cluster.active().contains(&goes);
    cluster.kill(&[goes]);
    cluster.nodes[goes].is_retired = true;
    cluster.nodes[came].may_end = false;
    cluster.publish();
    if runs {
        return Err(format!("{name} was removed and still ran after {LEAVE_MAX:?}"));
    }
    Ok(())
}

impl Watcher {
    /// Asks until the members are what they are to be.
    fn run(&self) -> Result<()> {
        let begin = Instant::now();
        let mut last = "nobody was asked".to_owned();
        for round in 0.. {
            if begin.elapsed() > CHANGE_MAX {
                break;
            }
            let endpoint = &self.endpoints[round % self.endpoints.len()];
            match self.step(endpoint) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(reason) => last = reason,
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
        let (comes, _) = &self.comes;
        let goes = &self.goes;
        Err(format!("{comes} was not in the place of {goes} after {CHANGE_MAX:?}: {last}"))
    }

    /// Looks at the members and asks for what is missing; gives whether nothing is.
    fn step(&self, endpoint: &str) -> Result<bool> {
        let (name, address) = &self.comes;
        let pair = format!("{name}={address}");
        let list = self.ask(endpoint, &["list"])?;
        let line =
            |name: &str| list.lines().find(|line| line.split_whitespace().any(|word| word == name));
        let has_vote = |line: &str| line.contains("voter");
        match (line(name), line(&self.goes), self.how) {
            (Some(new), None, _) => Ok(has_vote(new) && !list.contains("learner")),
            (None, Some(_), How::Replace) => {
                self.ask(endpoint, &["replace", &self.goes, "--with", &pair, "--wait", "20"])?;
                Ok(false)
            }
            (None, Some(_), How::AddRemove) => {
                self.ask(endpoint, &["add", &pair, "--wait", "20"])?;
                Ok(false)
            }
            (Some(new), Some(_), How::AddRemove) if has_vote(new) => {
                self.ask(endpoint, &["remove", &self.goes, "--wait", "20"])?;
                Ok(false)
            }
            // It is under way.
            (Some(_), Some(_), How::Replace | How::AddRemove) => Ok(false),
            (None, None, _) => Err(format!("neither is a member any more:\n{list}")),
        }
    }

    fn ask(&self, endpoint: &str, words: &[&str]) -> Result<String> {
        let mut arguments = vec!["member", "--endpoint", endpoint];
        arguments.extend(words);
        ask(&self.binary, &arguments)
    }
}
