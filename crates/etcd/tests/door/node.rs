//! The door in front of a real node: a cluster of one, with its log, its engine and its threads.
#![expect(clippy::disallowed_types, reason = "a real node listens on a real socket")]

use crate::etcdctl::{etcdctl, installed};
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::{
    CompactionRequest, Compare, MemberListRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    request_op,
};
use quorate_etcd::{Door, MISSING_MEMBERS_METADATA, serve};
use quorate_runtime::{
    DataFolder, DiskEngine, EngineOptions, NodeHandle, PeerListener, RuntimeOptions, start,
};
use quorate_store::Store;
use quorate_store::etcd::Reply;
use quorate_types::GroupId;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request};

/// How long a cluster of one may take to form and to be served.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node that runs, with its door open.
struct Member {
    name: String,
    address: String,
    node: NodeHandle<Reply>,
    door: Door<NodeHandle<Reply>, DiskEngine>,
    serving: JoinHandle<std::io::Result<()>>,
}

/// A socket for peers, on a free port.
fn peer_socket() -> (std::net::TcpListener, String) {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("bound").to_string();
    (socket, address)
}

impl Member {
    /// Starts a cluster of one on a folder, and waits until it has published how clients reach it.
    async fn start(folder: &Path) -> Member {
        let (socket, address) = peer_socket();
        let member = Member::open("n1", &[("n1".to_string(), address)], folder, socket).await;
        member.publish().await;
        member
    }

    /// Starts a node and opens its door.
    async fn open(
        name: &str,
        cluster: &[(String, String)],
        folder: &Path,
        peers: std::net::TcpListener,
    ) -> Member {
        let folder = DataFolder::lock(folder, name).expect("nobody else has it");
        let root = folder.path().join("engine");
        let engine = DiskEngine::open(&root, EngineOptions::default()).expect("an engine");
        let store = Store::open(engine, GroupId(0)).expect("a store");
        let reader = store.reader();
        let peers = PeerListener::Bound(peers);
        let options = RuntimeOptions::new(name, cluster.to_vec(), folder, peers);
        let node = start(options, store).expect("a node");
        let door = Door::new(node.clone(), reader);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let stopped = node.clone();
        let shutdown = async move {
            stopped.stopped().await;
        };
        let serving = tokio::spawn(serve(listener, door.clone(), shutdown));
        Member { name: name.to_string(), address, node, door, serving }
    }

    /// Waits until the member has published how clients reach it.
    async fn publish(&self) {
        let urls = vec![format!("http://{}", self.address)];
        let published = self.door.publish(self.name.clone(), urls);
        timeout(PATIENCE, published).await.expect("a leader is elected and agrees");
    }

    async fn kv(&self) -> KvClient<Channel> {
        let endpoint = format!("http://{}", self.address);
        KvClient::connect(endpoint).await.expect("the door is open")
    }

    /// Stops the node and, because it has stopped, the door.
    async fn stop(self) {
        timeout(PATIENCE, self.node.shutdown()).await.expect("the node leaves");
        let served = timeout(PATIENCE, self.serving).await.expect("the door closes");
        served.expect("it did not panic").expect("it served");
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_string().into(), value.to_string().into());
    PutRequest { key, value, ..PutRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_of_its_own_agreed_on_is_there_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(folder.path()).await;
    let mut kv = member.kv().await;
    for round in 0..100 {
        let reply = kv.put(put(&format!("k{round:03}"), "v")).await.expect("put").into_inner();
        assert_eq!(reply.header.expect("a header").revision, 2 + round);
    }
    let txn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: "k000".into(),
            target_union: Some(TargetUnion::Version(1)),
            ..Compare::default()
        }],
        success: vec![RequestOp {
            request: Some(request_op::Request::RequestPut(put("k000", "w"))),
        }],
        failure: vec![],
    };
    assert!(kv.txn(txn).await.expect("txn").into_inner().succeeded);
    // Waits for the sweep, which goes on although nothing more is written.
    kv.compact(CompactionRequest { revision: 50, physical: true }).await.expect("compact");
    member.stop().await;

    let member = Member::start(folder.path()).await;
    let mut kv = member.kv().await;
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let all = kv.range(all).await.expect("range").into_inner();
    assert_eq!((all.count, all.header.expect("a header").revision), (100, 102));
    assert_eq!((&all.kvs[0].value[..], all.kvs[0].version), (&b"w"[..], 2));
    let old = RangeRequest { key: "k000".into(), revision: 49, ..RangeRequest::default() };
    let old = kv.range(old).await.expect_err("it stays compacted");
    assert_eq!(old.message(), "etcdserver: mvcc: required revision has been compacted");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcdctl_works_with_a_real_node() {
    if !installed() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let member = Member::start(folder.path()).await;
    let run = async |arguments: &[&str]| {
        etcdctl(&member.address, arguments).await.unwrap_or_else(|error| panic!("{error}"))
    };
    assert_eq!(run(&["put", "app/1", "one"]).await, "OK\n");
    assert_eq!(run(&["put", "app/2", "two"]).await, "OK\n");
    assert_eq!(run(&["get", "--prefix", "app/"]).await, "app/1\none\napp/2\ntwo\n");
    assert_eq!(run(&["del", "app/1"]).await, "1\n");
    assert_eq!(run(&["compact", "3"]).await, "compacted revision 3\n");
    let members = run(&["member", "list"]).await;
    assert!(members.contains("started, n1, http://127.0.0.1:"), "{members}");
    assert!(members.contains(&format!("http://{}, false", member.address)), "{members}");
    let status = run(&["endpoint", "status", "-w", "table"]).await;
    assert!(status.contains("3.6.0 |") && status.contains("|      true |"), "{status}");
    let health = run(&["endpoint", "health"]).await;
    assert!(health.contains("is healthy"), "{health}");
    member.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_quorum_a_real_node_says_who_is_missing_and_serves_what_it_has() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = ["n1", "n2", "n3"];
    let (sockets, addresses): (Vec<_>, Vec<_>) = names.map(|_| peer_socket()).into_iter().unzip();
    let names = names.map(str::to_string);
    let cluster: Vec<_> = names.clone().into_iter().zip(addresses).collect();
    let mut members = Vec::new();
    for (name, socket) in names.iter().zip(sockets) {
        members.push(Member::open(name, &cluster, &folder.path().join(name), socket).await);
    }
    for member in &members {
        member.publish().await;
    }
    let survivor = members.remove(0);
    let mut kv = survivor.kv().await;
    kv.put(put("k", "v")).await.expect("put");
    let list = MemberListRequest { linearizable: true };
    let mut list_client =
        ClusterClient::connect(format!("http://{}", survivor.address)).await.expect("it is open");
    let listed = list_client.member_list(list).await.expect("members").into_inner().members;
    let listed: Vec<_> = listed.iter().map(|member| &member.name[..]).collect();
    assert_eq!(listed, ["n1", "n2", "n3"]);
    for member in members {
        member.node.abort().await;
    }

    let mut request = Request::new(put("k", "w"));
    request.set_timeout(Duration::from_secs(3));
    let begun = Instant::now();
    let error = kv.put(request).await.expect_err("nobody to agree with");
    assert!(begun.elapsed() < Duration::from_secs(3), "the answer comes within the deadline");
    assert_eq!(error.code(), Code::Unavailable, "{error}");
    let text = error.message();
    assert!(["etcdserver: no leader", "etcdserver: request timed out"].contains(&text), "{text}");
    let missing = error.metadata().get(MISSING_MEMBERS_METADATA).expect("who is missing");
    assert_eq!(missing, "n2,n3");
    let local = RangeRequest { key: "k".into(), serializable: true, ..RangeRequest::default() };
    let local = kv.range(local).await.expect("a local read").into_inner();
    assert_eq!(local.kvs[0].value, "v");
    survivor.stop().await;
}
