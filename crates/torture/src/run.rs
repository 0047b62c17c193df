//! One run: a cluster is formed, faults strike while clients work, everything is healed, and what was seen is judged.

use crate::Result;
use crate::clients::Clients;
use crate::cluster::{Cluster, Setting};
use crate::disk::build_layer;
use crate::nemesis::{self, Active};
use crate::options::{Kind, Options, Sabotage};
use crate::plan::{Episode, Plan};
use crate::recall::{self, Shown};
use crate::record::{Recorder, Taken};
use crate::report::{Facts, FaultReport};
use crate::space::Space;
use crate::verdict::{self, Behaviour, GAP_MAX, READY_MAX, RECOVERY_MAX};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use tokio::runtime::Runtime;

/// How long a cluster may take to form.
const FORMATION_MAX: Duration = Duration::from_secs(30);

/// The first port of a cluster on the loopback interface, and how many runs can stand beside each other.
const LOOPBACK_PORT: u16 = 21_000;
const LOOPBACK_RUN_COUNT: u16 = 10;

/// How many ports each has.
const LOOPBACK_PORTS: u16 = 1_000;

/// How long the clients work before the first fault.
const WARM_UP: Duration = Duration::from_secs(1);

/// What a folder of ours is known by, so that no other one is ever emptied.
const MARK: &str = "torture.run";

/// What is known of a run before it begins.
struct Stage {
    folder: PathBuf,
    setting: Setting,
    kinds: Vec<Kind>,
    /// What was left out and why, a sentence each.
    notes: Vec<String>,
}

/// What a run has come to so far.
struct Course {
    cluster: Cluster,
    runtime: Runtime,
    recorder: Arc<Recorder>,
    faults: Vec<FaultReport>,
    behaviour: Behaviour,
}

/// Runs, and gives whether the verdict is PASS. `namespaces` says why there are none, if so.
pub(crate) fn run(options: &Options, namespaces: Result<()>) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(fresh_seed);
    let stage = prepare(options, namespaces.as_ref().err())?;
    let kinds = stage.kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(", ");
    println!(
        "torture: seed {seed}, {} nodes, {} minutes, {} clients, {} calls/s\nfaults: {kinds}",
        options.nodes, options.minutes, options.clients, options.rate
    );
    for note in &stage.notes {
        println!("note: {note}");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start threads: {error}"))?;
    let space = if namespaces.is_ok() {
        Space::namespaces()?
    } else {
        let number = u16::try_from(std::process::id() % u32::from(LOOPBACK_RUN_COUNT));
        Space::Loopback(LOOPBACK_PORT + number.expect("below ten") * LOOPBACK_PORTS)
    };
    let setting = stage.setting.clone();
    let cluster = Cluster::new(setting, space, options.nodes, runtime.handle().clone())?;
    let mut course = Course {
        cluster,
        runtime,
        recorder: Arc::new(Recorder::new()),
        faults: Vec::new(),
        behaviour: Behaviour::default(),
    };
    course.form()?;
    // Time begins with the clients.
    course.recorder = Arc::new(Recorder::new());
    let clients = Clients::start(
        course.runtime.handle(),
        &course.recorder,
        &course.cluster.addresses,
        seed,
        usize::from(options.clients),
        options.rate,
    );
    course.cluster.wait(WARM_UP);
    course.torment(Plan::new(seed, &stage.kinds, options.nodes), options.minutes)?;
    course.runtime.block_on(clients.stop());
    course.behaviour.duration = course.recorder.elapsed();
    println!("clients have stopped; every member is asked for everything it holds");
    let mut taken = course.recorder.finish();
    let shown = course.ask_all(&mut taken);
    let Course { mut behaviour, cluster, faults, .. } = course;
    behaviour.fault_count = faults.len();
    behaviour.deaths.clone_from(&cluster.deaths);
    behaviour.panics = cluster.panics();
    let (peak, name) = cluster.memory_peak();
    behaviour.memory = (peak, name.to_owned());
    println!("judging {} operations", taken.history.operations.len());
    let begin = Instant::now();
    let findings = verdict::judge(&taken.history, &shown, &behaviour);
    let facts = Facts {
        seed,
        options: options.clone(),
        kinds: stage.kinds,
        notes: stage.notes,
        version: cluster.ask(&["--version"]).unwrap_or_default().trim().to_owned(),
        judged_in: begin.elapsed(),
        duration: behaviour.duration,
        faults,
        findings,
    };
    facts.publish(&stage.folder, &taken)
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) ^ now.as_secs() ^ u64::from(std::process::id()) << 20
}

/// Makes the folder and finds out what can be done here.
fn prepare(options: &Options, no_namespaces: Option<&String>) -> Result<Stage> {
    let folder = empty_folder(&options.dir)?;
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("quorate")
        }
    };
    if !binary.is_file() {
        return Err(format!("there is no binary {}: build it first", binary.display()));
    }
    let mut kinds = if options.only.is_empty() { Kind::ALL.to_vec() } else { options.only.clone() };
    kinds.sort();
    kinds.dedup();
    let mut notes = Vec::new();
    if let Some(reason) = no_namespaces {
        notes.push(format!(
            "no network namespaces ({reason}): all nodes on 127.0.0.1, no partitions, no slow links"
        ));
        kinds.retain(|kind| !kind.needs_namespaces());
    }
    let layer = match build_layer(&folder) {
        Ok(layer) => Some(layer),
        Err(reason) => {
            notes.push(format!("no disk layer ({reason}): no faults of disk, clock and power"));
            kinds.retain(|kind| !kind.needs_layer());
            None
        }
    };
    if kinds.is_empty() {
        return Err(format!("none of the kinds of fault is possible here: {}", notes.join("; ")));
    }
    let setting = Setting {
        binary,
        folder: folder.clone(),
        layer,
        keeps_shadow: kinds.contains(&Kind::Power),
        ignores_sync: options.sabotage == Some(Sabotage::IgnoreSync),
    };
    Ok(Stage { folder, setting, kinds, notes })
}

/// An empty folder; what an earlier run left in it is deleted, anything else never.
fn empty_folder(path: &Path) -> Result<PathBuf> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() {
        let is_empty = fs::read_dir(path).map_err(failed)?.next().is_none();
        if !is_empty && !path.join(MARK).is_file() {
            return Err(format!("{} holds something that is not ours", path.display()));
        }
        fs::remove_dir_all(path).map_err(failed)?;
    }
    fs::create_dir_all(path).map_err(failed)?;
    fs::write(path.join(MARK), "what cargo xtask torture left; it may be deleted\n")
        .map_err(failed)?;
    path.canonicalize().map_err(failed)
}

impl Course {
    fn form(&mut self) -> Result<()> {
        self.cluster.start_missing()?;
        match self.wait_ready(FORMATION_MAX) {
            Ok(_) if self.cluster.deaths.is_empty() => Ok(()),
            Ok(_) => Err(self.cluster.deaths.join("\n")),
            Err(reason) => Err(format!("the cluster did not form: {reason}")),
        }
    }

    /// Waits until every member answers a linearizable read; gives how long it took.
    fn wait_ready(&mut self, patience: Duration) -> Result<Duration> {
        let begin = Instant::now();
        for node in self.cluster.members() {
            let address = self.cluster.space.client_address(node);
            let left = patience.saturating_sub(begin.elapsed());
            let waiting =
                self.runtime.spawn(async move { recall::wait_ready(&address, left).await });
            while !waiting.is_finished() {
                self.cluster.wait(Duration::from_millis(10));
            }
            let ready = self.runtime.block_on(waiting).map_err(|error| error.to_string())?;
            ready.map_err(|error| format!("{}: {error}", self.cluster.nodes[node].name))?;
        }
        Ok(begin.elapsed())
    }

    /// Lets faults strike until the time is over.
    fn torment(&mut self, mut plan: Plan, minutes: f64) -> Result<()> {
        let end = self.recorder.elapsed() + Duration::from_secs_f64(minutes * 60.0);
        while self.recorder.elapsed() < end {
            let episode = plan.draw();
            self.cluster.wait(episode.wait);
            self.episode(&episode)?;
        }
        // The last thing that clients see is a cluster that nothing ails.
        self.cluster.wait(WARM_UP);
        Ok(())
    }

    /// One fault, with what strikes inside it, from its beginning to the recovery.
    fn episode(&mut self, episode: &Episode) -> Result<()> {
        let began = self.recorder.elapsed();
        let mut active: Vec<(Active, Duration)> = Vec::new();
        // What is late or wrong, and what could not be done at all.
        let mut owed = Vec::new();
        let faults = [Some(episode.fault), episode.second];
        for fault in faults.into_iter().flatten() {
            let at = self.recorder.elapsed();
            match nemesis::begin(&mut self.cluster, fault) {
                Ok(Some(one)) => active.push((one, at)),
                Ok(None) => {}
                Err(reason) => owed.push(reason),
            }
            self.cluster.wait(episode.hold / if episode.second.is_some() { 2 } else { 1 });
        }
        let mut healed = Vec::new();
        let mut heal_began = self.recorder.elapsed();
        while let Some((one, at)) = active.pop() {
            let (kind, what) = (one.kind, one.what.clone());
            heal_began = self.recorder.elapsed();
            if let Err(reason) = nemesis::heal(&mut self.cluster, one) {
                owed.push(reason);
            }
            healed.push((kind, what, at, self.recorder.elapsed()));
        }
        self.cluster.start_missing()?;
        // A change of members is over when it has been waited for, anything else when its remedy was given.
        if episode.fault.kind() == Kind::Members {
            heal_began = self.recorder.elapsed();
        }
        let writes = self.wait_writes(heal_began);
        let ready = match self.wait_ready(READY_MAX) {
            Ok(ready) => Some(ready),
            Err(reason) => {
                owed.push(reason);
                None
            }
        };
        let recovered = self.recorder.elapsed();
        let gap = self.recorder.longest_gap(began, recovered);
        let leaves_quorum = episode.second.is_none() && episode.fault.leaves_quorum();
        self.judge_times(leaves_quorum, gap, heal_began, writes, &mut owed);
        for (kind, what, at, end) in healed.into_iter().rev() {
            let report = FaultReport {
                kind,
                what,
                began_ms: millis(at),
                healed_ms: millis(end),
                recovered_ms: millis(recovered),
                unavailable_ms: millis(gap),
                ready_ms: ready.map(millis),
                owed: owed.clone(),
            };
            println!("{report}");
            self.faults.push(report);
        }
        let named = |reason: &String| {
            format!(
                "{} at {}: {reason}",
                episode.fault.kind().name(),
                crate::report::clock(millis(began))
            )
        };
        self.behaviour.late.extend(owed.iter().map(named));
        Ok(())
    }

    /// Waits until a write succeeds that was begun after this; gives how long after this it ended.
    fn wait_writes(&mut self, after: Duration) -> Option<Duration> {
        // Longer than it may take, so that the figure is known when it is too long.
        let patience = 2 * RECOVERY_MAX;
        let begin = Instant::now();
        while begin.elapsed() < patience {
            if let Some(at) = self.recorder.first_write_after(after) {
                return Some(at.saturating_sub(after));
            }
            self.cluster.wait(Duration::from_millis(10));
        }
        None
    }

    fn judge_times(
        &mut self,
        leaves_quorum: bool,
        gap: Duration,
        healed: Duration,
        writes: Option<Duration>,
        owed: &mut Vec<String>,
    ) {
        let longest = &mut self.behaviour.longest;
        if leaves_quorum {
            longest.0 = longest.0.max(gap);
            if gap > GAP_MAX {
                owed.push(format!(
                    "no write for {} ms although a quorum was healthy",
                    gap.as_millis()
                ));
            }
        }
        match writes {
            Some(waited) => {
                longest.1 = longest.1.max(waited);
                if waited > RECOVERY_MAX {
                    owed.push(format!("the first write {} ms after the heal", waited.as_millis()));
                }
            }
            None => owed.push(format!("no write after the heal at {} ms", millis(healed))),
        }
    }

    /// Asks every member for everything, and adds it to the history.
    fn ask_all(&mut self, taken: &mut Taken) -> Vec<Result<Shown>> {
        let places = Arc::new(recall::places(&taken.history));
        let mut shown = Vec::new();
        for node in self.cluster.members() {
            let name = self.cluster.nodes[node].name.clone();
            let address = self.cluster.space.client_address(node);
            let one = self.runtime.block_on(recall::show(&name, &address, Arc::clone(&places)));
            shown.push(one.map_err(|error| format!("{name}: {error}")));
        }
        for one in shown.iter().flatten() {
            taken.history.recalls.extend(recall::recalls(one));
        }
        let first = self.cluster.members().first().copied();
        let address = first.map(|node| self.cluster.space.client_address(node)).unwrap_or_default();
        match self.runtime.block_on(recall::explain(&address, &taken.history)) {
            Ok(changes) => taken.history.changes = changes,
            Err(reason) => shown.push(Err(reason)),
        }
        match self.digests() {
            Ok(digests) => self.behaviour.digests = digests,
            Err(reason) => shown.push(Err(reason)),
        }
        self.cluster.watch();
        shown
    }

    /// What the members say of their state.
    fn digests(&self) -> Result<Vec<(String, u64, String)>> {
        let members = self.cluster.members();
        let endpoints = members.iter().map(|node| self.cluster.space.client_address(*node));
        let endpoints = endpoints.collect::<Vec<_>>().join(",");
        let said = self.cluster.ask(&["status", "--json", "--endpoints", &endpoints])?;
        let said: serde_json::Value =
            serde_json::from_str(&said).map_err(|error| format!("quorate status: {error}"))?;
        let digest = |one: &serde_json::Value| {
            let group = &one["status"]["groups"][0];
            let name = one["status"]["name"].as_str()?.to_owned();
            Some((name, group["applied"].as_u64()?, group["digest"].as_str()?.to_owned()))
        };
        let digests: Vec<_> = said.as_array().into_iter().flatten().filter_map(digest).collect();
        if digests.len() == members.len() {
            return Ok(digests);
        }
        Err(format!("only {} of {} members show a digest", digests.len(), members.len()))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
