//! A door in this process: in front of a store in memory whose replica agrees at once, or fails as told.

use bytes::Bytes;
use quorate_consensus::{Metrics, PeerStatus, RefuseReason, RoleName, Status, plan};
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::{Door, Failure, Replica, serve};
use quorate_node::{NodeStatus, PeerReach, Phase};
use quorate_runtime::{RequestError, RuntimeMetrics};
use quorate_store::engine::{MemoryDisk, MemoryEngine};
use quorate_store::etcd::Reply;
use quorate_store::{Store, StoreReader};
use quorate_types::{
    Applied, ApplyFault, ClusterId, Committed, Configuration, Entry, EntryKind, Epoch, GroupId,
    Incarnation, Index, Member, NodeId, Origin, Position, StartNumber, StateMachine, TransactionId,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

/// Where the double stands.
struct State {
    store: Store<MemoryEngine>,
    index: Index,
    failure: Option<Failure>,
    leader: Option<NodeId>,
    timeouts: Vec<Option<Duration>>,
    /// Who takes part.
    configuration: Configuration,
    /// Whether the state is said to be lost.
    awaits_snapshot: bool,
}

/// A replica that agrees at once, or fails as told.
#[derive(Clone)]
pub(crate) struct Double(Arc<Mutex<State>>);

impl Double {
    fn new() -> (Double, StoreReader<MemoryEngine>) {
        let engine = MemoryDisk::new().open();
        let store = Store::open(engine, GroupId(0)).expect("an empty engine");
        let reader = store.reader();
        let state = State {
            store,
            index: Index::ZERO,
            failure: None,
            leader: Some(NodeId(1)),
            timeouts: Vec::new(),
            configuration: configuration(),
            awaits_snapshot: false,
        };
        (Double(Arc::new(Mutex::new(state))), reader)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics while it holds this lock")
    }

    /// From now on every agreement fails like this.
    pub(crate) fn fail(&self, failure: Failure) {
        self.state().failure = Some(failure);
    }

    /// The leader is gone, and peers cannot be reached.
    pub(crate) fn lose_leader(&self) {
        self.state().leader = None;
        let missing = vec!["n2".into(), "n3".into()];
        self.fail(Failure::Refused { reason: RefuseReason::NoLeader, missing });
    }

    /// The state is lost.
    pub(crate) fn lose_state(&self) {
        self.state().awaits_snapshot = true;
        let missing = Vec::new();
        self.fail(Failure::Refused { reason: RefuseReason::NotReady, missing });
    }

    /// The timeouts that came with requests.
    pub(crate) fn timeouts(&self) -> Vec<Option<Duration>> {
        self.state().timeouts.clone()
    }
}

impl Replica for Double {
    async fn propose(&self, command: Bytes, timeout: Option<Duration>) -> Result<Reply, Failure> {
        let mut state = self.state();
        state.timeouts.push(timeout);
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.index = state.index.next();
        let index = state.index;
        let origin = Origin { node: NodeId(1), incarnation: Incarnation(1), sequence: index.0 };
        let epoch = Epoch::new(3, NodeId(1));
        let entry = Entry::new(epoch, EntryKind::Command, origin, TransactionId(0), command);
        let committed = Committed { index, entry, wanted: true };
        let mut replies = state.store.apply(&[committed]).expect("a healthy engine");
        Ok(replies.remove(0).expect("a reply was wanted"))
    }

    /// Takes a change in as a leader does that reaches everybody.
    async fn change_members(
        &self,
        base: Configuration,
        target: Configuration,
    ) -> Result<(), RequestError> {
        let mut state = self.state();
        assert_eq!(base, state.configuration, "the door works on what it was told last");
        let planned = plan::take_in(&base, &target, |_| true);
        state.configuration = planned.map_err(|error| RequestError::Declined(error.to_string()))?;
        Ok(())
    }

    async fn read_barrier(&self, timeout: Option<Duration>) -> Result<(), Failure> {
        let mut state = self.state();
        state.timeouts.push(timeout);
        state.failure.clone().map_or(Ok(()), Err)
    }

    fn status(&self) -> Arc<NodeStatus> {
        let state = self.state();
        let up = state.leader.is_some();
        let mut metrics = Metrics { term_changes: 3, ..Metrics::default() };
        metrics.leader_election_time.observe(Duration::from_millis(700));
        let round_trips = metrics.network_round_trips.entry(NodeId(2)).or_default();
        round_trips.observe(Duration::from_micros(300));
        let group = Status {
            group: GroupId(0),
            node: NodeId(1),
            role: if up { RoleName::Leader } else { RoleName::Follower },
            epoch: Epoch::new(3, NodeId(1)),
            leader: state.leader,
            last: Position::new(state.index, Epoch::new(3, NodeId(1))),
            durable: state.index,
            committed: state.index,
            applied: state.index,
            synced: Index::ZERO,
            configuration: state.configuration.clone(),
            peers: BTreeMap::<NodeId, PeerStatus>::new(),
            why_not: None,
            metrics,
        };
        let peer = |name: &str| PeerReach {
            name: name.into(),
            address: format!("{name}:1"),
            outgoing: up,
            incoming: up,
            last_heard: None,
            refusal: None,
        };
        Arc::new(NodeStatus {
            name: "n1".into(),
            node: Some(NodeId(1)),
            cluster: Some(ClusterId(0xc1)),
            incarnation: Incarnation(1),
            start: StartNumber(1),
            phase: Phase::Running,
            groups: BTreeMap::from([(GroupId(0), group)]),
            applied: BTreeMap::<GroupId, Applied>::new(),
            awaiting_snapshot: state.awaits_snapshot.then_some(GroupId(0)).into_iter().collect(),
            peers: ["n2", "n3"].map(|name| (name.to_string(), peer(name))).into(),
            log: quorate_log::LogStatus::default(),
            waiting_count: 0,
        })
    }

    fn runtime(&self) -> RuntimeMetrics {
        let mut metrics = RuntimeMetrics::default();
        metrics.log_sync.observe(Duration::from_micros(900));
        metrics
    }

    fn node(&self) -> Option<NodeId> {
        Some(NodeId(1))
    }

    fn cluster(&self) -> Option<ClusterId> {
        Some(ClusterId(0xc1))
    }

    fn term(&self) -> u64 {
        3
    }

    fn is_awaiting_snapshot(&self) -> bool {
        self.state().awaits_snapshot
    }

    fn report_fault(&self, fault: ApplyFault) {
        panic!("the engine in memory is not damaged: {fault}");
    }

    fn leader(&self) -> Option<NodeId> {
        self.state().leader
    }
}

fn configuration() -> Configuration {
    let member = |id: u64| Member {
        incarnation: Incarnation(id),
        name: format!("n{id}"),
        peer_address: format!("127.0.0.1:710{id}"),
        voter: true,
        outgoing_voter: false,
        intent: quorate_types::Intent::Stay,
    };
    let members = (1..=3).map(|id| (NodeId(id), member(id))).collect();
    Configuration { members, ..Configuration::default() }
}

/// A door that is open.
pub(crate) struct Server {
    /// `127.0.0.1:port`.
    pub(crate) address: String,
    /// The replica behind it.
    pub(crate) replica: Double,
    /// The door.
    pub(crate) door: Door<Double, MemoryEngine>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Opens a door on a free port.
    pub(crate) async fn start() -> Server {
        let (replica, reader) = Double::new();
        let door = Door::new(replica.clone(), reader);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(serve(listener, door.clone(), shutdown));
        Server { address, replica, door, stop: Some(stop), task }
    }

    /// A client's channel.
    pub(crate) async fn channel(&self) -> Channel {
        let endpoint =
            Channel::from_shared(format!("http://{}", self.address)).expect("an address");
        endpoint.connect().await.expect("the door is open")
    }

    /// A client of the KV service.
    pub(crate) async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await)
    }

    /// What the server says to these bytes until it closes the connection.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.address).await.expect("the door is open");
        // The server may close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        if read.expect("the server closes the connection").is_err() {
            // A reset is a way to close as well.
            return answer;
        }
        answer
    }

    /// The status code and body of a plain GET.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = self.exchange(request.as_bytes()).await;
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let code = head.split(' ').nth(1).expect("a code").parse().expect("a number");
        (code, body.to_string())
    }

    /// Closes the door and waits until it is closed.
    pub(crate) async fn stop(mut self) {
        self.stop.take().expect("stopped once").send(()).expect("the server runs");
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("the server stops").expect("it did not panic").expect("it served");
    }
}
