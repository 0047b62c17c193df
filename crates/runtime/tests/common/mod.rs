//! Three real nodes over loopback, each with its own folder, port and store.

#![expect(dead_code, reason = "each of the programs that share this uses a part of it")]
#![expect(clippy::disallowed_types, reason = "real sockets and a real clock are what is tested")]

use bytes::Bytes;
use quorate_runtime::{
    DataFolder, DiskEngine, EngineOptions, NodeHandle, PeerListener, RequestError, RuntimeOptions,
    start,
};
use quorate_store::etcd::{Command, PutRequest, RangeRequest, Reply};
use quorate_store::{Store, StoreReader};
use quorate_types::{EntryKind, GroupId};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Far longer than anything here takes, also on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A node that runs.
pub(crate) struct Running {
    pub(crate) handle: NodeHandle<Reply>,
    pub(crate) reader: StoreReader<DiskEngine>,
}

/// Three nodes, some of which may be down.
pub(crate) struct Cluster {
    /// Where the nodes' folders are; removed with this value, but not when it was given.
    folder: PathBuf,
    _temporary: Option<tempfile::TempDir>,
    addresses: Vec<SocketAddr>,
    pub(crate) nodes: Vec<Option<Running>>,
}

impl Cluster {
    /// Starts three nodes with empty folders.
    pub(crate) fn start() -> Cluster {
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Cluster::start_in(folder.path());
        cluster._temporary = Some(folder);
        cluster
    }

    /// Starts three nodes with folders below the one given.
    pub(crate) fn start_in(folder: &Path) -> Cluster {
        let listeners: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
        let addresses =
            listeners.iter().map(|listener| listener.local_addr().expect("bound")).collect();
        let folder = folder.to_owned();
        let mut cluster = Cluster { folder, _temporary: None, addresses, nodes: Vec::new() };
        for (number, listener) in listeners.into_iter().enumerate() {
            let running = cluster.run(number, PeerListener::Bound(listener));
            cluster.nodes.push(Some(running.expect("the node starts")));
        }
        cluster
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(name(number))
    }

    fn run(&self, number: usize, listener: PeerListener) -> Result<Running, String> {
        let folder = DataFolder::lock(&self.path(number), &name(number)).expect("a free folder");
        let engine = DiskEngine::open(&folder.path().join("engine"), EngineOptions::default());
        let engine = engine.map_err(|error| error.to_string())?;
        let store = Store::open(engine, GroupId(0)).map_err(|error| error.to_string())?;
        let reader = store.reader();
        let members = self.addresses.iter().enumerate();
        let members = members.map(|(number, address)| (name(number), address.to_string()));
        let options = RuntimeOptions::new(name(number), members.collect(), folder, listener);
        let handle = start(options, store).map_err(|error| error.to_string())?;
        Ok(Running { handle, reader })
    }

    /// Stops all nodes as if their processes had been killed.
    pub(crate) async fn kill_all(&mut self) {
        let mut handles = Vec::new();
        for running in self.nodes.iter_mut().filter_map(Option::take) {
            running.handle.kill();
            handles.push(running.handle);
        }
        for handle in handles {
            handle.abort().await;
        }
    }

    pub(crate) fn node(&self, number: usize) -> &Running {
        self.nodes[number].as_ref().expect("this node runs")
    }

    /// The nodes that run.
    pub(crate) fn running(&self) -> impl Iterator<Item = (usize, &Running)> {
        self.nodes.iter().enumerate().filter_map(|(number, node)| Some((number, node.as_ref()?)))
    }

    /// Stops a node as if its process had been killed.
    pub(crate) async fn kill(&mut self, number: usize) {
        let running = self.nodes[number].take().expect("this node runs");
        running.handle.abort().await;
    }

    /// Stops every node that runs, cleanly.
    pub(crate) async fn stop(mut self) {
        for running in self.nodes.iter_mut().filter_map(Option::take) {
            running.handle.shutdown().await;
        }
    }

    /// Starts a node again on what its folder holds.
    pub(crate) fn restart(&mut self, number: usize) {
        self.nodes[number] = Some(self.try_restart(number).expect("the node starts"));
    }

    /// Starts a node again, which may refuse.
    pub(crate) fn try_restart(&self, number: usize) -> Result<Running, String> {
        self.run(number, PeerListener::Address(self.addresses[number]))
    }

    /// Waits until every running node knows one and the same running leader.
    pub(crate) async fn leader(&self) -> usize {
        eventually("a leader that all agree on", async || {
            let views: Vec<_> = self
                .running()
                .map(|(_, node)| (node.handle.leader(), node.handle.term()))
                .collect();
            let leader = views[0].0?;
            let agreed = views.iter().all(|view| *view == views[0]);
            let leads = |node: &Running| node.handle.node_id() == Some(leader);
            let found = self.running().find(|(_, node)| leads(node));
            found.filter(|_| agreed).map(|(number, _)| number)
        })
        .await
    }
}

impl Running {
    /// The same node once more.
    pub(crate) fn share(&self) -> Running {
        Running { handle: self.handle.clone(), reader: self.reader.clone() }
    }

    pub(crate) async fn put(&self, key: &str, value: &[u8]) -> Result<i64, RequestError> {
        let body = put_body(key, value);
        let reply = self.handle.propose(GroupId(0), EntryKind::Command, body, None).await?;
        let Reply::Put(put) = reply else { panic!("a put was answered with {reply:?}") };
        Ok(put.revision)
    }

    /// What this node itself holds, without asking anybody.
    pub(crate) fn local(&self, key: &str) -> Option<Bytes> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let found = self.reader.range(&RangeRequest { key, ..RangeRequest::default() });
        found.expect("readable").kvs.pop().map(|pair| pair.value)
    }
}

/// The body of an entry that puts a key.
pub(crate) fn put_body(key: &str, value: &[u8]) -> Bytes {
    Command::Put(PutRequest {
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: Bytes::copy_from_slice(value),
        ..PutRequest::default()
    })
    .encode()
}

pub(crate) fn name(number: usize) -> String {
    format!("n{}", number + 1)
}

/// Asks again and again until there is an answer.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
