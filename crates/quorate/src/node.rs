//! One node of this process: data folder, engine, store, replica and door, put together and taken apart in order.

use crate::admin;
use crate::exit::Failure;
use quorate_etcd::Door;
use quorate_node::Join;
use quorate_node::StopReason;
use quorate_runtime::{
    DataFolder, DiskEngine, EngineOptions, NodeHandle, PeerListener, RuntimeOptions,
};
use quorate_store::Store;
use quorate_store::etcd::Reply;
use quorate_types::{ApplyFault, GroupId};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// How long a node may take to leave cleanly: a hand-over of leadership and the answers that are due.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The folder of the engine inside the data folder.
const ENGINE_FOLDER: &str = "engine";

/// What a node is started with; its ports are bound already.
pub(crate) struct NodeSettings {
    /// Its name.
    pub(crate) name: String,
    /// Its data folder.
    pub(crate) data_dir: PathBuf,
    /// The members to form a cluster of.
    pub(crate) cluster: Vec<(String, String)>,
    /// How to join a cluster that is formed already.
    pub(crate) join: Option<Join>,
    /// Where peers connect.
    pub(crate) peer: TcpListener,
    /// Where clients connect.
    pub(crate) etcd: TcpListener,
    /// The client URLs that member lists show; those of `etcd` when empty.
    pub(crate) advertise_etcd: Vec<String>,
    /// How long a thread that has run out of work looks for more before it sleeps.
    pub(crate) spin: Duration,
}

/// A node that runs.
pub(crate) struct RunningNode {
    /// The way to it.
    pub(crate) handle: NodeHandle<Reply>,
    /// Where clients connect.
    pub(crate) etcd_address: SocketAddr,
    /// Where the engine is.
    engine_folder: PathBuf,
    /// Closes the door when it is sent or dropped.
    close: oneshot::Sender<()>,
    /// Serves clients.
    door: JoinHandle<std::io::Result<()>>,
    /// Tells the cluster how clients reach this node.
    publisher: JoinHandle<()>,
}

impl RunningNode {
    /// Starts a node. Must be called inside a runtime.
    ///
    /// # Errors
    /// When the folder is not this node's, or the system gives no sockets or threads.
    pub(crate) fn start(settings: NodeSettings) -> Result<RunningNode, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Failed(error.to_string());
        check_folder(&settings.data_dir)?;
        let owner = format!("node {}", settings.name);
        let folder =
            DataFolder::lock(&settings.data_dir, &owner).map_err(|error| failed(&error))?;
        let engine_folder = settings.data_dir.join(ENGINE_FOLDER);
        let open = || {
            let engine = DiskEngine::open(&engine_folder, EngineOptions::default())?;
            Store::open(engine, GroupId(0))
        };
        let opened = quorate_runtime::open_or_set_aside(&engine_folder, open);
        let (store, set_aside) = opened.map_err(|error| {
            Failure::Failed(format!("the engine in {}: {error}", engine_folder.display()))
        })?;
        if let Some(set_aside) = set_aside {
            tracing::warn!(node = settings.name, "{set_aside}");
        }
        let reader = store.reader();
        let peer = PeerListener::Bound(settings.peer);
        let name = settings.name.clone();
        let options = RuntimeOptions::new(settings.name, settings.cluster, folder, peer);
        let options = RuntimeOptions { join: settings.join, spin: settings.spin, ..options };
        let handle = quorate_runtime::start(options, store).map_err(|error| failed(&error))?;

        let etcd_address = settings.etcd.local_addr().map_err(|error| failed(&error))?;
        settings.etcd.set_nonblocking(true).map_err(|error| failed(&error))?;
        let listener =
            tokio::net::TcpListener::from_std(settings.etcd).map_err(|error| failed(&error))?;
        let door = Door::new(handle.clone(), reader);
        let urls = match settings.advertise_etcd.is_empty() {
            true => vec![format!("http://{etcd_address}")],
            false => settings.advertise_etcd,
        };
        let publisher = tokio::spawn({
            let door = door.clone();
            async move { door.publish(name, urls).await }
        });
        let (close, closed) = oneshot::channel::<()>();
        let closed = async move {
            // A sender that is gone means the same as one that has spoken.
            let _ = closed.await;
        };
        let pages = admin::routes(handle.clone());
        let door = tokio::spawn(quorate_etcd::serve_with(listener, door, pages, closed));
        Ok(RunningNode { handle, etcd_address, engine_folder, close, door, publisher })
    }

    /// Leaves the cluster's work to others, answers what is due, and closes the door; gives the reason why the node
    /// stopped, which is another than being asked when it had stopped before.
    pub(crate) async fn leave(self) -> Result<StopReason, Failure> {
        let left = tokio::time::timeout(LEAVE_TIMEOUT, async {
            self.handle.shutdown().await;
            self.handle.stopped().await
        });
        let left = left.await;
        if let Ok(StopReason::Machine(ApplyFault::Damaged(reason))) = &left {
            condemn(&self.engine_folder, reason);
        }
        self.publisher.abort();
        let _ = self.close.send(());
        // The door limits by itself how long it waits for its clients.
        let _ = self.door.await;
        left.map_err(|_| {
            Failure::Failed(format!(
                "the node did not leave within {} s; nothing acknowledged is lost",
                LEAVE_TIMEOUT.as_secs()
            ))
        })
    }
}

/// Sees to it that the next start does not meet the same damage.
fn condemn(engine_folder: &Path, reason: &str) {
    match quorate_runtime::condemn(engine_folder, reason) {
        Ok(()) => tracing::warn!(
            "the engine is damaged: start this node again, and it takes its state from a peer; what is damaged is kept"
        ),
        Err(error) => tracing::error!(%error, "cannot record that the engine is damaged"),
    }
}

/// Refuses a folder that holds something else: a mistyped path must not fill somebody's home with segments.
fn check_folder(path: &Path) -> Result<(), Failure> {
    let listing = match std::fs::read_dir(path) {
        Ok(listing) => listing,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Failure::Failed(format!("the data folder {}: {error}", path.display())));
        }
    };
    let names = listing.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let names: Vec<String> = names.collect();
    let ours = |name: &String| ["LOCK", "identity", "log", ENGINE_FOLDER].contains(&name.as_str());
    if names.is_empty() || names.iter().any(ours) {
        return Ok(());
    }
    let hint = if names.iter().any(|name| name == "member") { " (etcd's, it seems)" } else { "" };
    Err(Failure::Failed(format!(
        "{} is not empty and no data folder of Quorate{hint}: give --data-dir a folder that is new, empty or this node's",
        path.display()
    )))
}

/// Binds a port, and says what to do when that fails.
///
/// # Errors
/// `Failed`, naming the flag and the address.
pub(crate) fn bind(flag: &str, addresses: &[SocketAddr]) -> Result<TcpListener, Failure> {
    TcpListener::bind(addresses).map_err(|error| {
        let shown: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let kind = error.kind();
        let hint = if kind == ErrorKind::AddrInUse {
            "; another process listens there: stop it, or choose another port"
        } else if kind == ErrorKind::AddrNotAvailable {
            "; this machine has no such address"
        } else if kind == ErrorKind::PermissionDenied {
            "; ports below 1024 need privileges"
        } else {
            ""
        };
        Failure::Failed(format!("--{flag} {}: {error}{hint}", shown.join(" and ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("member")).expect("made");
        let Err(Failure::Failed(text)) = check_folder(folder.path()) else { panic!("taken") };
        assert!(text.contains("etcd's") && text.contains("--data-dir"), "{text}");
        std::fs::create_dir(folder.path().join("log")).expect("made");
        assert_eq!(check_folder(folder.path()), Ok(()));
        assert_eq!(check_folder(&folder.path().join("new")), Ok(()));
    }

    #[test]
    fn a_used_port_is_named_with_its_flag() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("bound");
        let Err(Failure::Failed(text)) = bind("listen-etcd", &[address]) else { panic!("bound") };
        assert!(text.contains(&format!("--listen-etcd {address}")), "{text}");
        assert!(text.contains("choose another port"), "{text}");
    }
}
