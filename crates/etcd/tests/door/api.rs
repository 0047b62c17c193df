//! The door over loopback, with the generated client and with bare sockets.

use crate::double::Server;
use quorate_consensus::RefuseReason;
use quorate_etcd::proto::etcdserverpb::cluster_client::ClusterClient;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::{
    AlarmRequest, CompactionRequest, Compare, DeleteRangeRequest, HashRequest, LeaseGrantRequest,
    MemberAddRequest, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest, PutRequest, RangeRequest, RequestOp, StatusRequest, TxnRequest,
    request_op, response_op,
};
use quorate_etcd::proto::health::HealthCheckRequest;
use quorate_etcd::proto::health::health_check_response::ServingStatus;
use quorate_etcd::proto::health::health_client::HealthClient;
use quorate_etcd::{Failure, MISSING_MEMBERS_METADATA, REQUEST_SIZE_MAX};
use std::time::Duration;
use tonic::{Code, Request, Status};

fn put(key: &str, value: &str) -> PutRequest {
    let (key, value) = (key.to_string().into(), value.to_string().into());
    PutRequest { key, value, ..PutRequest::default() }
}

fn range(key: &str, range_end: &str) -> RangeRequest {
    let (key, range_end) = (key.to_string().into(), range_end.to_string().into());
    RangeRequest { key, range_end, ..RangeRequest::default() }
}

fn says(status: &Status, code: Code, text: &str) {
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn keys_are_put_read_deleted_and_compacted() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    let first = kv.put(put("a", "1")).await.expect("put").into_inner();
    let header = first.header.expect("a header");
    assert_eq!((header.cluster_id, header.member_id), (0xc1, 1));
    assert_eq!((header.revision, header.raft_term), (2, 3));
    kv.put(put("b", "2")).await.expect("put");
    let again = PutRequest { prev_kv: true, ..put("a", "3") };
    let again = kv.put(again).await.expect("put").into_inner();
    assert_eq!(again.prev_kv.expect("asked for").value, "1");
    let all = kv.range(range("a", "\0")).await.expect("range").into_inner();
    let found: Vec<_> = all.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..], kv.version)).collect();
    assert_eq!(found, [(&b"a"[..], &b"3"[..], 2), (&b"b"[..], &b"2"[..], 1)]);
    assert_eq!((all.count, all.more), (2, false));
    let old = RangeRequest { revision: 2, ..range("a", "") };
    let old = kv.range(old).await.expect("an old read").into_inner();
    assert_eq!(old.kvs[0].value, "1");
    assert_eq!(old.header.expect("a header").revision, 4);
    let delete = DeleteRangeRequest { key: "b".into(), ..DeleteRangeRequest::default() };
    let deleted = kv.delete_range(delete).await.expect("delete").into_inner();
    assert_eq!((deleted.deleted, deleted.header.expect("a header").revision), (1, 5));
    let compaction = CompactionRequest { revision: 4, physical: false };
    kv.compact(compaction).await.expect("compact");
    let gone = RangeRequest { revision: 3, ..range("a", "") };
    let gone = kv.range(gone).await.expect_err("compacted");
    says(&gone, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
    let future = RangeRequest { revision: 99, ..range("a", "") };
    let future = kv.range(future).await.expect_err("not there yet");
    says(&future, Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision");
    server.stop().await;
}

#[tokio::test]
async fn transactions_take_the_branch_that_their_comparisons_say() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    let op = |request| RequestOp { request: Some(request) };
    let create = |value: &str| TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Mod.into(),
            key: "k".into(),
            target_union: Some(TargetUnion::ModRevision(0)),
            ..Compare::default()
        }],
        success: vec![op(request_op::Request::RequestPut(put("k", value)))],
        failure: vec![op(request_op::Request::RequestRange(range("k", "")))],
    };
    let first = kv.txn(create("1")).await.expect("txn").into_inner();
    assert!(first.succeeded);
    let Some(response_op::Response::ResponsePut(written)) = &first.responses[0].response else {
        panic!("{first:?}");
    };
    assert_eq!(written.header.expect("a header").revision, 2);
    let second = kv.txn(create("2")).await.expect("txn").into_inner();
    assert!(!second.succeeded);
    let Some(response_op::Response::ResponseRange(read)) = &second.responses[0].response else {
        panic!("{second:?}");
    };
    assert_eq!(read.kvs[0].value, "1");
    let nested = TxnRequest {
        success: vec![op(request_op::Request::RequestTxn(create("3")))],
        ..TxnRequest::default()
    };
    let nested = kv.txn(nested).await.expect("txn").into_inner();
    let Some(response_op::Response::ResponseTxn(inner)) = &nested.responses[0].response else {
        panic!("{nested:?}");
    };
    assert!(!inner.succeeded);
    let writes = op(request_op::Request::RequestPut(put("k", "x")));
    let twice = TxnRequest { success: vec![writes; 2], ..TxnRequest::default() };
    let twice = kv.txn(twice).await.expect_err("two writes of a key");
    says(&twice, Code::InvalidArgument, "etcdserver: duplicate key given in txn request");
    let reads = op(request_op::Request::RequestRange(range("k", "")));
    let many = TxnRequest { success: vec![reads; 129], ..TxnRequest::default() };
    let many = kv.txn(many).await.expect_err("too many");
    says(&many, Code::InvalidArgument, "etcdserver: too many operations in txn request");
    server.stop().await;
}

#[tokio::test]
async fn wrong_requests_get_etcds_answers_and_the_connection_stays() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    let error = kv.put(put("", "v")).await.expect_err("no key");
    says(&error, Code::InvalidArgument, "etcdserver: key is not provided");
    let error = kv.range(range("", "")).await.expect_err("no key");
    says(&error, Code::InvalidArgument, "etcdserver: key is not provided");
    let sorted = RangeRequest { sort_order: 7, ..range("k", "") };
    let error = kv.range(sorted).await.expect_err("no such order");
    says(&error, Code::InvalidArgument, "etcdserver: invalid sort option");
    let leased = PutRequest { lease: 12, ..put("k", "v") };
    let error = kv.put(leased).await.expect_err("no such lease");
    says(&error, Code::NotFound, "etcdserver: requested lease not found");
    let kept = PutRequest { ignore_value: true, ..put("k", "") };
    let error = kv.put(kept).await.expect_err("no value to keep");
    says(&error, Code::InvalidArgument, "etcdserver: key not found");
    kv.put(put("k", "v")).await.expect("the connection is still good");
    server.stop().await;
}

#[tokio::test]
async fn requests_above_the_limit_are_refused_with_etcds_texts() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    let large = "v".repeat(REQUEST_SIZE_MAX);
    let error = kv.put(put("k", &large)).await.expect_err("above the request limit");
    says(&error, Code::InvalidArgument, "etcdserver: request is too large");
    let larger = "v".repeat(3 * 1024 * 1024);
    let error = kv.put(put("k", &larger)).await.expect_err("above the message limit");
    let text = "grpc: received message larger than max (3145736 vs. 2097152)";
    says(&error, Code::ResourceExhausted, text);
    kv.put(put("k", "v")).await.expect("the connection is still good");
    server.stop().await;
}

#[tokio::test]
async fn without_a_quorum_writes_fail_as_in_etcd_and_serializable_reads_answer() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    kv.put(put("k", "v")).await.expect("put");
    server.replica.lose_leader();
    let error = kv.put(put("k", "w")).await.expect_err("no leader");
    says(&error, Code::Unavailable, "etcdserver: no leader");
    let missing = error.metadata().get(MISSING_MEMBERS_METADATA).expect("who is missing");
    assert_eq!(missing, "n2,n3");
    assert!(!error.details().is_empty());
    let error = kv.range(range("k", "")).await.expect_err("no leader");
    says(&error, Code::Unavailable, "etcdserver: no leader");
    let local = RangeRequest { serializable: true, ..range("k", "") };
    let local = kv.range(local).await.expect("a local read").into_inner();
    assert_eq!(local.kvs[0].value, "v");
    let mut leader_required = Request::new(RangeRequest { serializable: true, ..range("k", "") });
    leader_required.metadata_mut().insert("hasleader", "true".parse().expect("ASCII"));
    let error = kv.range(leader_required).await.expect_err("no leader");
    says(&error, Code::Unavailable, "etcdserver: no leader");
    server.replica.fail(Failure::Unknown { missing: vec!["n2".into()] });
    let error = kv.put(put("k", "w")).await.expect_err("nobody agrees");
    says(&error, Code::Unavailable, "etcdserver: request timed out");
    server.replica.fail(Failure::Refused { reason: RefuseReason::Busy, missing: vec![] });
    let error = kv.put(put("k", "w")).await.expect_err("too much waits");
    says(&error, Code::ResourceExhausted, "etcdserver: too many requests");
    server.stop().await;
}

#[tokio::test]
async fn a_member_whose_state_is_lost_serves_nothing_and_lives() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    kv.put(put("k", "v")).await.expect("put");
    server.replica.lose_state();
    let local = RangeRequest { serializable: true, ..range("k", "") };
    for range in [range("k", ""), local] {
        let error = kv.range(range).await.expect_err("there is nothing to read");
        says(&error, Code::Unavailable, "etcdserver: unhealthy cluster");
    }
    assert_eq!(server.get("/livez").await, (200, "ok\n".into()));
    assert_eq!(server.get("/readyz").await.0, 503);
    let (_, text) = server.get("/metrics").await;
    assert!(text.contains("quorate_awaiting_snapshot{group=\"0\",node=\"n1\"} 1"), "{text}");
    server.stop().await;
}

#[tokio::test]
async fn a_clients_deadline_reaches_the_node() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    kv.put(put("k", "v")).await.expect("put");
    let mut request = Request::new(put("k", "v"));
    request.set_timeout(Duration::from_secs(3));
    kv.put(request).await.expect("put");
    let mut request = Request::new(range("k", ""));
    request.set_timeout(Duration::from_millis(200));
    kv.range(request).await.expect("range");
    let expected = [None, Some(Duration::from_millis(2950)), Some(Duration::from_millis(190))];
    assert_eq!(server.replica.timeouts(), expected);
    server.stop().await;
}

#[tokio::test]
async fn members_are_listed_with_what_they_published() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel().await);
    let urls = vec!["http://127.0.0.1:2101".to_string()];
    server.door.publish("n1".into(), urls.clone()).await;
    let list = MemberListRequest { linearizable: true };
    let members = cluster.member_list(list).await.expect("members").into_inner().members;
    assert_eq!(members.len(), 3);
    assert_eq!((members[0].id, &members[0].name[..]), (1, "n1"));
    assert_eq!(members[0].peer_ur_ls, ["http://127.0.0.1:7101"]);
    assert_eq!(members[0].client_ur_ls, urls);
    assert!(members[1].name.is_empty(), "it has not started: {members:?}");
    assert!(members[1].client_ur_ls.is_empty());
    server.replica.lose_leader();
    let error = cluster.member_list(list).await.expect_err("nobody confirms it");
    says(&error, Code::Unavailable, "etcdserver: no leader");
    let list = MemberListRequest { linearizable: false };
    cluster.member_list(list).await.expect("as far as this member knows");
    server.stop().await;
}

#[tokio::test]
async fn members_are_added_promoted_updated_and_removed() {
    let server = Server::start().await;
    let mut cluster = ClusterClient::new(server.channel().await);
    let urls = |port: u16| vec![format!("http://127.0.0.1:{port}")];
    let add = |port, is_learner| MemberAddRequest { peer_ur_ls: urls(port), is_learner };
    let added = cluster.member_add(add(7104, true)).await.expect("added").into_inner();
    let member = added.member.expect("the new member");
    assert_eq!((member.id, member.is_learner, added.members.len()), (4, true, 4));
    assert_eq!(member.peer_ur_ls, urls(7104));

    let promote = |id| MemberPromoteRequest { id };
    let error = cluster.member_promote(promote(4)).await.expect_err("it has not joined");
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    says(&error, Code::FailedPrecondition, text);
    let error = cluster.member_promote(promote(1)).await.expect_err("it votes");
    says(&error, Code::FailedPrecondition, "etcdserver: can only promote a learner member");
    let error = cluster.member_promote(promote(9)).await.expect_err("nobody");
    says(&error, Code::NotFound, "etcdserver: member not found");

    let error = cluster.member_add(add(7102, false)).await.expect_err("it is taken");
    says(&error, Code::FailedPrecondition, "etcdserver: Peer URLs already exists");
    for wrong in [vec![], vec!["127.0.0.1:7105".to_owned()], vec!["http://h".to_owned()]] {
        let request = MemberAddRequest { peer_ur_ls: wrong, is_learner: false };
        let error = cluster.member_add(request).await.expect_err("no URL");
        says(&error, Code::InvalidArgument, "etcdserver: given member URLs are invalid");
    }

    let update = MemberUpdateRequest { id: 2, peer_ur_ls: urls(7112) };
    let updated = cluster.member_update(update).await.expect("updated").into_inner();
    assert_eq!(updated.members[1].peer_ur_ls, urls(7112));

    let remove = |id| MemberRemoveRequest { id };
    let removed = cluster.member_remove(remove(4)).await.expect("removed").into_inner();
    assert_eq!(removed.members.len(), 3);
    let error = cluster.member_remove(remove(4)).await.expect_err("it is to leave already");
    says(&error, Code::NotFound, "etcdserver: member not found");
    server.stop().await;
}

#[tokio::test]
async fn status_and_health_answer_without_a_quorum() {
    let server = Server::start().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    let mut health = HealthClient::new(server.channel().await);
    server.kv().await.put(put("k", "v")).await.expect("put");
    let status = maintenance.status(StatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.leader, status.raft_term, status.raft_applied_index), (1, 3, 1));
    assert_eq!((&status.version[..], status.is_learner), ("3.6.0", false));
    assert!(status.errors.is_empty());
    let alarms = maintenance.alarm(AlarmRequest::default()).await.expect("alarms").into_inner();
    assert!(alarms.alarms.is_empty());
    let whole = HealthCheckRequest::default();
    let mut watched = health.watch(whole.clone()).await.expect("watch").into_inner();
    let said = watched.message().await.expect("a status").expect("the stream goes on");
    assert_eq!(said.status(), ServingStatus::Serving);
    let other = HealthCheckRequest { service: "other".into() };
    let unknown = health.check(other).await.expect_err("there is no such service");
    assert_eq!(unknown.code(), Code::NotFound);
    server.replica.lose_leader();
    let status = maintenance.status(StatusRequest {}).await.expect("status").into_inner();
    assert_eq!((status.leader, status.errors), (0, vec!["etcdserver: no leader".to_string()]));
    let said = watched.message().await.expect("a status").expect("the stream goes on");
    assert_eq!(said.status(), ServingStatus::NotServing);
    let said = health.check(whole).await.expect("a status").into_inner();
    assert_eq!(said.status(), ServingStatus::NotServing);
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_there_yet_is_unimplemented() {
    let server = Server::start().await;
    let mut lease = LeaseClient::new(server.channel().await);
    let error = lease.lease_grant(LeaseGrantRequest::default()).await.expect_err("no leases");
    let text = "unknown method LeaseGrant for service etcdserverpb.Lease";
    says(&error, Code::Unimplemented, text);
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    let error = maintenance.hash(HashRequest {}).await.expect_err("no hashes");
    assert_eq!(error.code(), Code::Unimplemented);
    server.stop().await;
}

#[tokio::test]
async fn plain_http_answers_probes_and_dashboards() {
    let server = Server::start().await;
    assert_eq!(server.get("/health").await, (200, r#"{"health":"true","reason":""}"#.into()));
    let version = r#"{"etcdserver":"3.6.0","etcdcluster":"3.6.0","storage":"3.6.0"}"#;
    assert_eq!(server.get("/version").await, (200, version.into()));
    assert_eq!(server.get("/livez").await, (200, "ok\n".into()));
    let ready = "[+]data_corruption ok\n[+]serializable_read ok\n[+]linearizable_read ok\n\
        [+]non_learner ok\nok\n";
    assert_eq!(server.get("/readyz?verbose").await, (200, ready.into()));
    assert_eq!(server.get("/readyz/linearizable_read").await, (200, "ok\n".into()));
    assert_eq!(server.get("/readyz/other").await.0, 404);
    assert_eq!(server.get("/").await.0, 404);
    server.replica.lose_leader();
    let health = r#"{"health":"false","reason":"RAFT NO LEADER"}"#;
    assert_eq!(server.get("/health").await, (503, health.into()));
    assert_eq!(server.get("/health?serializable=true").await.0, 200);
    let (code, text) = server.get("/readyz?verbose").await;
    assert_eq!(code, 503);
    let line = "[-]linearizable_read failed: etcdserver: no leader; missing members: n2, n3\n";
    assert!(text.contains(line), "{text}");
    assert_eq!(server.get("/readyz?exclude=linearizable_read").await, (200, "ok\n".into()));
    assert_eq!(server.get("/livez").await, (200, "ok\n".into()));
    server.stop().await;
}

#[tokio::test]
async fn metrics_name_what_was_measured() {
    let server = Server::start().await;
    server.kv().await.put(put("k", "v")).await.expect("put");
    let (code, text) = server.get("/metrics").await;
    assert_eq!(code, 200);
    for line in [
        "quorate_term_changes_total{group=\"0\",node=\"n1\"} 3",
        "quorate_leader_election_time_seconds_count{group=\"0\",node=\"n1\"} 1",
        "quorate_network_round_trips_seconds_count{group=\"0\",node=\"n1\",peer=\"n2\"} 1",
        "quorate_log_sync_seconds_count{node=\"n1\"} 1",
        "etcd_server_has_leader 1",
        "etcd_debugging_mvcc_current_revision 2",
        "etcd_server_proposals_applied_total 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing:\n{text}");
    }
    let families: Vec<_> = text.lines().filter(|line| line.starts_with("# TYPE ")).collect();
    let unique: std::collections::BTreeSet<_> = families.iter().collect();
    assert_eq!(unique.len(), families.len(), "a family is announced once");
    server.stop().await;
}

#[tokio::test]
async fn garbage_closes_its_own_connection_and_no_other() {
    let server = Server::start().await;
    let mut kv = server.kv().await;
    kv.put(put("k", "v")).await.expect("put");
    let noise: Vec<u8> =
        (0..64 * 1024_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    server.exchange(&noise).await;
    server.exchange(&[0; 4096]).await;
    server.exchange(&[0xff; 4096]).await;
    // A client that begins right and goes on wrong: a frame of the largest size that a header can announce.
    let mut frame = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frame.extend([0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]);
    frame.extend([0; 1024]);
    server.exchange(&frame).await;
    let endless = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'x'; 256 * 1024]].concat();
    let answer = server.exchange(&endless).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    kv.put(put("k", "w")).await.expect("the good connection is still good");
    server.stop().await;
}
