//! The systems that are measured: how three processes of each are started on loopback.

use crate::command::{Result, root};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A system beside which we are measured, or ourselves.
#[derive(Clone, Debug)]
pub(crate) enum System {
    /// This project's binary.
    Quorate(PathBuf),
    /// An etcd binary, with its version.
    Etcd(PathBuf, String),
}

impl System {
    /// Its name in tables.
    pub(crate) fn label(&self) -> String {
        match self {
            System::Quorate(_) => "Quorate".into(),
            System::Etcd(_, version) => format!("etcd {version}"),
        }
    }

    /// The metric whose sum counts syncs of the log.
    pub(crate) fn sync_count_metric(&self) -> &'static str {
        "etcd_disk_wal_fsync_duration_seconds_count"
    }
}

/// Three running processes; killed and waited for when dropped.
pub(crate) struct Cluster {
    /// The processes, in order of node.
    pub(crate) processes: Vec<Child>,
    /// Their client addresses.
    pub(crate) clients: Vec<SocketAddr>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // A process that has ended already cannot be killed again; either way it is waited for.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Our own release binary, built before.
pub(crate) fn quorate_binary() -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let path = target.join("release/quorate");
    if path.exists() { Ok(path) } else { Err(format!("{} does not exist", path.display())) }
}

/// Ourselves, the etcd in the path, and the newest that Go modules give, as far as they are there.
pub(crate) fn present(scratch: &Path) -> Result<Vec<System>> {
    let mut systems = vec![System::Quorate(quorate_binary()?)];
    match etcd_version(Path::new("etcd")) {
        Some(version) => systems.push(System::Etcd("etcd".into(), version)),
        None => println!("skipped: no `etcd` in the path (Debian: etcd-server)"),
    }
    match build_newest_etcd(scratch) {
        Ok((path, version)) => systems.push(System::Etcd(path, version)),
        Err(error) => println!("skipped: no newest etcd from Go modules: {error}"),
    }
    Ok(systems)
}

fn etcd_version(binary: &Path) -> Option<String> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::to_owned)
}

/// Builds the newest etcd that the Go module proxy has, once; kept beside our own build.
fn build_newest_etcd(scratch: &Path) -> Result<(PathBuf, String)> {
    let kept = quorate_binary()?.with_file_name("etcd-newest");
    if !kept.exists() {
        let folder = scratch.join("etcd");
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let main = "package main\n\nimport (\n\t\"os\"\n\n\t\"go.etcd.io/etcd/server/v3/etcdmain\"\n)\n\n\
                    func main() { etcdmain.Main(os.Args) }\n";
        std::fs::write(folder.join("main.go"), main).map_err(|error| error.to_string())?;
        std::fs::write(folder.join("go.mod"), "module newest\n\ngo 1.24\n")
            .map_err(|error| error.to_string())?;
        for arguments in [
            &["get", "go.etcd.io/etcd/server/v3@latest"][..],
            &["mod", "tidy"],
            &["build", "-o", "etcd", "."],
        ] {
            let output = Command::new("go")
                .args(arguments)
                .current_dir(&folder)
                .output()
                .map_err(|error| format!("go: {error}"))?;
            if !output.status.success() {
                return Err(format!(
                    "go {}: {}",
                    arguments.join(" "),
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
        std::fs::copy(folder.join("etcd"), &kept).map_err(|error| error.to_string())?;
    }
    let version = etcd_version(&kept).ok_or("it does not say its version")?;
    Ok((kept, version))
}

/// Starts three processes with fresh data and waits until each answers as healthy.
pub(crate) fn start(system: &System, folder: &Path) -> Result<Cluster> {
    if folder.exists() {
        std::fs::remove_dir_all(folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let ports = free_ports(6)?;
    let members: Vec<(String, u16, u16)> =
        (0..3).map(|i| (format!("n{}", i + 1), ports[i], ports[i + 3])).collect();
    let mut cluster = Cluster { processes: Vec::new(), clients: Vec::new() };
    for (name, client, peer) in &members {
        let log = std::fs::File::create(folder.join(format!("{name}.log")))
            .map_err(|error| error.to_string())?;
        let mut command = command_of(system, folder, &members, name, *client, *peer);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        cluster
            .processes
            .push(command.spawn().map_err(|error| format!("{}: {error}", system.label()))?);
        cluster.clients.push(SocketAddr::from(([127, 0, 0, 1], *client)));
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    for client in &cluster.clients {
        while !http_get(*client, "/health").is_ok_and(|body| body.contains("\"true\"")) {
            if Instant::now() > deadline {
                return Err(format!(
                    "{} did not become healthy; see {}",
                    system.label(),
                    folder.display()
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(cluster)
}

fn command_of(
    system: &System,
    folder: &Path,
    members: &[(String, u16, u16)],
    name: &str,
    client: u16,
    peer: u16,
) -> Command {
    let data = folder.join(name);
    match system {
        System::Quorate(binary) => {
            let list: Vec<_> =
                members.iter().map(|(name, _, peer)| format!("{name}=127.0.0.1:{peer}")).collect();
            let mut command = Command::new(binary);
            command.args(["start", "--name", name, "--cluster", &list.join(",")]);
            command
                .arg("--data-dir")
                .arg(data)
                .args(["--listen-etcd", &format!("127.0.0.1:{client}")]);
            command
        }
        System::Etcd(binary, _) => {
            let list: Vec<_> = members
                .iter()
                .map(|(name, _, peer)| format!("{name}=http://127.0.0.1:{peer}"))
                .collect();
            let client = format!("http://127.0.0.1:{client}");
            let peer = format!("http://127.0.0.1:{peer}");
            let mut command = Command::new(binary);
            command.args([
                "--name",
                name,
                "--initial-cluster",
                &list.join(","),
                "--initial-cluster-state",
                "new",
            ]);
            command.arg("--data-dir").arg(data);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
            command
        }
    }
}

fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<_>> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0))).collect();
    let listeners = listeners.map_err(|error| error.to_string())?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|a| a.port()).map_err(|e| e.to_string()))
        .collect()
}

/// The body that an HTTP/1.1 GET gives.
pub(crate) fn http_get(address: SocketAddr, path: &str) -> Result<String> {
    let wait = Duration::from_secs(2);
    let text = |error: std::io::Error| format!("{address}{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, wait).map_err(text)?;
    stream.set_read_timeout(Some(wait)).map_err(text)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    answer
        .split_once("\r\n\r\n")
        .map(|(_, body)| body.to_owned())
        .ok_or_else(|| format!("{address}{path}: no answer"))
}

/// The sum of all samples of a metric, over its labels.
pub(crate) fn metric(address: SocketAddr, name: &str) -> Result<f64> {
    let text = http_get(address, "/metrics")?;
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        if !rest.starts_with('{') && !rest.starts_with(' ') {
            return None;
        }
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Ok(text.lines().filter_map(value).sum())
}
