//! Power cut with real processes: 64 writers, every node killed at a random moment, every file of every node (the engine's too)
//! cut back to its synced content, all started again. No acknowledged put may be lost, on any node. With the syncs taken out,
//! the same check must fail.

mod disk;
mod writers;

use disk::{Disk, Loss, build_layer};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use writers::{Ledger, Verdict};

/// How many times the power is cut, and what says that it shall be more.
const CUTS: u32 = 20;
const CUTS_VARIABLE: &str = "QUORATE_TEST_POWER_CUTS";

/// How long the writers run before a cut, at least and at most.
const RUN_MIN: Duration = Duration::from_millis(100);
const RUN_MAX: Duration = Duration::from_millis(900);

/// How long a cluster may take from its start until every node has answered a linearizable read.
const READY_MAX: Duration = Duration::from_secs(30);

/// Three nodes on disks of their own.
struct Cluster {
    disks: Vec<Disk>,
    library: std::path::PathBuf,
    list: String,
    clients: Vec<String>,
    processes: Vec<Child>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Cluster {
    fn new(folder: &Path, ignore_sync: bool) -> Cluster {
        let disks =
            (1..=3).map(|n| Disk::new(&made(folder.join(format!("n{n}"))), ignore_sync)).collect();
        let ports = crate::common::free_ports::<6>();
        let list: Vec<_> = (0..3).map(|n| format!("n{}=127.0.0.1:{}", n + 1, ports[n])).collect();
        let clients = ports[3..].iter().map(|port| format!("127.0.0.1:{port}")).collect();
        Cluster {
            disks,
            library: build_layer(folder),
            list: list.join(","),
            clients,
            processes: Vec::new(),
        }
    }

    fn start(&mut self) {
        for (n, disk) in self.disks.iter().enumerate() {
            let log = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(disk.root.with_file_name("stderr.log"))
                .expect("a file of the test");
            let process = crate::common::quorate()
                .args(["start", "--name", &format!("n{}", n + 1), "--cluster", &self.list])
                .args(["--listen-etcd", &self.clients[n], "--data-dir"])
                .arg(&disk.root)
                .envs(disk.environment(&self.library))
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
                .expect("our own binary starts");
            self.processes.push(process);
        }
    }

    /// `kill -9` of every node, as close together as one thread can.
    fn kill(&mut self) {
        for process in &mut self.processes {
            // One that has ended by itself cannot be killed; it is waited for all the same.
            let _ = process.kill();
        }
        for mut process in self.processes.drain(..) {
            let _ = process.wait();
        }
    }

    fn cut(&mut self) -> Loss {
        self.kill();
        let losses = self.disks.iter().map(|disk| disk.cut().expect("the disk layer's own files"));
        losses.fold(Loss::default(), |sum, loss| Loss {
            bytes: sum.bytes + loss.bytes,
            files: sum.files + loss.files,
        })
    }

    /// What the nodes said last, for a failing test.
    fn logs(&self) -> String {
        let tail = |disk: &Disk| {
            let text =
                std::fs::read_to_string(disk.root.with_file_name("stderr.log")).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            format!(
                "{}:\n{}\n",
                disk.root.display(),
                lines[lines.len().saturating_sub(15)..].join("\n")
            )
        };
        self.disks.iter().map(tail).collect()
    }
}

fn made(folder: std::path::PathBuf) -> std::path::PathBuf {
    std::fs::create_dir_all(&folder).expect("a folder of the test");
    folder
}

/// Cuts the power until a check finds a loss, at most `cuts` times; what was lost, or how much was kept.
async fn cut_until_loss(ignore_sync: bool, cuts: u32) -> Result<(u64, Loss), String> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut cluster = Cluster::new(folder.path(), ignore_sync);
    let mut ledger = Ledger::default();
    let mut lost_bytes = Loss::default();
    // The moments need not be the same in every run: each run is another sample.
    let mut random = u64::from(std::process::id()) ^ 0x9e37_79b9_7f4a_7c15;
    for cut in 1..=cuts {
        cluster.start();
        if let Err(error) = ledger.wait_ready(&cluster.clients, Instant::now() + READY_MAX).await {
            return Err(format!("after cut {}: {error}\n{}", cut - 1, cluster.logs()));
        }
        match ledger.check(&cluster.clients).await {
            Verdict::Kept => {}
            Verdict::Lost(what) => return Err(format!("after cut {}: {what}", cut - 1)),
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let span = u64::try_from((RUN_MAX - RUN_MIN).as_millis()).expect("a second");
        let run = RUN_MIN + Duration::from_millis((random >> 33) % span);
        let clients = cluster.clients.clone();
        ledger
            .write_while(&clients, cut, run, || {
                let loss = cluster.cut();
                lost_bytes.bytes += loss.bytes;
                lost_bytes.files += loss.files;
            })
            .await;
    }
    cluster.start();
    if let Err(error) = ledger.wait_ready(&cluster.clients, Instant::now() + READY_MAX).await {
        return Err(format!("after the last cut: {error}\n{}", cluster.logs()));
    }
    match ledger.check(&cluster.clients).await {
        Verdict::Kept => Ok((ledger.acknowledged(), lost_bytes)),
        Verdict::Lost(what) => Err(format!("after the last cut: {what}")),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_put_is_lost_when_the_power_is_cut() {
    let wanted = std::env::var(CUTS_VARIABLE).ok();
    let cuts = wanted.map_or(CUTS, |cuts| cuts.parse().expect("it is a number"));
    match cut_until_loss(false, cuts).await {
        Ok((acknowledged, loss)) => {
            println!(
                "{cuts} cuts took {} unsynced bytes and {} unsynced names; all {acknowledged} acknowledged puts were kept",
                loss.bytes, loss.files
            );
            assert!(
                acknowledged > 1_000,
                "only {acknowledged} puts were acknowledged: too few to show anything"
            );
            assert!(loss.bytes > 0, "no cut took anything: the disk layer is not in place");
        }
        Err(loss) => panic!("{loss}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_check_fails_without_syncs() {
    let found = cut_until_loss(true, 3).await;
    assert!(found.is_err(), "without any sync the check found no loss: {found:?}");
}
