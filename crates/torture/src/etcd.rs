//! One call over gRPC, as any etcd v3 client makes it, and what its answer means.

use crate::Result;
use quorate_etcd::EtcdError;
use quorate_etcd::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_etcd::proto::etcdserverpb::kv_client::KvClient;
use quorate_etcd::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_etcd::proto::etcdserverpb::request_op::Request as Op;
use quorate_etcd::proto::etcdserverpb::response_op::Response as OpResponse;
use quorate_etcd::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp,
    ResponseHeader, StatusRequest, StatusResponse, TxnRequest, TxnResponse,
};
use quorate_etcd::proto::mvccpb::KeyValue;
use quorate_sim::history::{Call, Found, Key, Outcome, Revision, Value};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_millis(300);

/// How long an answer may take; then the outcome is unknown.
const ANSWER_MAX: Duration = Duration::from_millis(1_500);

/// How large an answer may be: all registers of a long run.
const ANSWER_SIZE_MAX: usize = 1 << 30;

/// What clients are told when nothing was done and never will be.
const DENIALS: [EtcdError; 5] = [
    EtcdError::NoLeader,
    EtcdError::LeaderChanged,
    EtcdError::TooManyRequests,
    EtcdError::Unhealthy,
    EtcdError::NoSpace,
];

/// The value that stands for one that cannot have been written.
const GARBLED: Value = Value(u64::MAX);

/// A connection to one node.
pub(crate) type Connection = KvClient<Channel>;

/// What came of a call.
pub(crate) struct Answer {
    /// In the words of the checkers.
    pub(crate) outcome: Outcome,
    /// The epoch in which it was answered.
    pub(crate) epoch: Option<u64>,
    /// What the node said when it did not answer.
    pub(crate) failure: Option<Status>,
}

/// Which state a read is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// All that was acknowledged before.
    Linearizable,
    /// Whatever the node has.
    Serializable,
    /// What the node had at this revision.
    At(Revision),
}

/// Connects to a node. A call that could not even be sent has not happened.
pub(crate) async fn connect(address: &str) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"));
    let endpoint = endpoint.map_err(|error| format!("{address}: {error}"))?;
    let endpoint = endpoint.connect_timeout(CONNECT_MAX);
    match tokio::time::timeout(CONNECT_MAX, endpoint.connect()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(format!("{address}: {error}")),
        Err(_) => Err(format!("{address}: no connection within {CONNECT_MAX:?}")),
    }
}

/// A client of the key-value service on a connection.
pub(crate) fn key_values(channel: Channel) -> Connection {
    KvClient::new(channel).max_decoding_message_size(ANSWER_SIZE_MAX)
}

/// What a node says of itself.
pub(crate) async fn status(address: &str) -> Result<StatusResponse> {
    let mut client = MaintenanceClient::new(connect(address).await?);
    let asked = client.status(StatusRequest::default());
    match tokio::time::timeout(CONNECT_MAX, asked).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(format!("{address}: {status}")),
        Err(_) => Err(format!("{address}: no status within {CONNECT_MAX:?}")),
    }
}

/// Makes one call. Reads show what `view` says; writes pay no heed to it.
pub(crate) async fn call(connection: &mut Connection, call: Call, view: View) -> Answer {
    let made = tokio::time::timeout(ANSWER_MAX, make(connection, call, view));
    match made.await {
        Ok(Ok((outcome, epoch))) => Answer { outcome, epoch, failure: None },
        Ok(Err(status)) => {
            let denied = DENIALS
                .iter()
                .any(|error| error.code() == status.code() && error.text() == status.message());
            let outcome = if denied { Outcome::Refused } else { Outcome::Unknown };
            Answer { outcome, epoch: None, failure: Some(status) }
        }
        Err(_) => {
            let status = Status::deadline_exceeded(format!("no answer within {ANSWER_MAX:?}"));
            Answer { outcome: Outcome::Unknown, epoch: None, failure: Some(status) }
        }
    }
}

async fn make(
    connection: &mut Connection,
    call: Call,
    view: View,
) -> std::result::Result<(Outcome, Option<u64>), Status> {
    match call {
        Call::Put { key, value } => {
            let answer = connection.put(timed(put(key, value))).await?.into_inner();
            let (revision, epoch) = head(answer.header)?;
            Ok((Outcome::Written(revision), epoch))
        }
        Call::Swap { key, expected, value, also } => {
            let request = swap(key, expected, value, also);
            let answer = connection.txn(timed(request)).await?.into_inner();
            swapped(answer)
        }
        Call::Delete { key } => {
            let request = DeleteRangeRequest { key: name(key).into(), ..Default::default() };
            let answer = connection.delete_range(timed(request)).await?.into_inner();
            let (revision, epoch) = head(answer.header)?;
            Ok((Outcome::Deleted(revision, answer.deleted > 0), epoch))
        }
        Call::Get { key } => {
            let answer = connection.range(timed(range(key, None, view))).await?.into_inner();
            let epoch = head(answer.header)?.1;
            let (revision, mut all) = found(answer, view)?;
            Ok((Outcome::Got(revision, all.remove(&key)), epoch))
        }
        Call::Scan { first, end } => {
            let answer = connection.range(timed(range(first, Some(end), view))).await?.into_inner();
            let epoch = head(answer.header)?.1;
            let (revision, all) = found(answer, view)?;
            Ok((Outcome::Scanned(revision, all), epoch))
        }
        Call::Compact { .. } => Err(Status::unimplemented("the clients do not compact")),
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER_MAX);
    request
}

fn put(key: Key, value: Value) -> PutRequest {
    PutRequest { key: name(key).into(), value: content(value).into(), ..Default::default() }
}

fn range(first: Key, end: Option<Key>, view: View) -> RangeRequest {
    let revision = match view {
        View::Linearizable | View::Serializable => 0,
        View::At(revision) => i64::try_from(revision.0).unwrap_or(i64::MAX),
    };
    let range_end = end.map(name).unwrap_or_default().into();
    let serializable = view != View::Linearizable;
    RangeRequest {
        key: name(first).into(),
        range_end,
        revision,
        serializable,
        ..Default::default()
    }
}

fn swap(key: Key, expected: Option<Value>, value: Value, also: Option<(Key, Value)>) -> TxnRequest {
    let (target, union) = match expected {
        Some(value) => (CompareTarget::Value, TargetUnion::Value(content(value).into())),
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
    };
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: target as i32,
        key: name(key).into(),
        target_union: Some(union),
        ..Default::default()
    };
    let op = |op| RequestOp { request: Some(op) };
    let also = also.map(|(key, value)| op(Op::RequestPut(put(key, value))));
    TxnRequest {
        compare: vec![compare],
        success: [op(Op::RequestPut(put(key, value)))].into_iter().chain(also).collect(),
        failure: vec![op(Op::RequestRange(range(key, None, View::Linearizable)))],
    }
}

fn swapped(answer: TxnResponse) -> std::result::Result<(Outcome, Option<u64>), Status> {
    let (revision, epoch) = head(answer.header)?;
    if answer.succeeded {
        return Ok((Outcome::Written(revision), epoch));
    }
    let Some(Some(OpResponse::ResponseRange(read))) =
        answer.responses.into_iter().next().map(|one| one.response)
    else {
        return Err(Status::internal("a swap that failed gave no read"));
    };
    let found = read.kvs.first().map(|pair| parse(pair).1);
    Ok((Outcome::NotWritten(revision, found), epoch))
}

fn head(header: Option<ResponseHeader>) -> std::result::Result<(Revision, Option<u64>), Status> {
    let header = header.ok_or_else(|| Status::internal("an answer without a header"))?;
    let revision = u64::try_from(header.revision)
        .map_err(|_| Status::internal(format!("the revision {}", header.revision)))?;
    Ok((Revision(revision), Some(header.raft_term)))
}

fn found(
    answer: RangeResponse,
    view: View,
) -> std::result::Result<(Revision, BTreeMap<Key, Found>), Status> {
    let current = head(answer.header)?.0;
    let revision = match view {
        View::Linearizable | View::Serializable => current,
        View::At(revision) => revision,
    };
    Ok((revision, answer.kvs.iter().map(parse).collect()))
}

/// The name of a register, so that registers sort as their numbers do.
fn name(key: Key) -> Vec<u8> {
    format!("register/{:010}", key.0).into_bytes()
}

/// What is written for a value: its number and as many bytes as its number says, so that a byte that changed shows.
fn content(value: Value) -> Vec<u8> {
    let mut content = format!("{:020}", value.0).into_bytes();
    let byte = b'a' + u8::try_from(value.0 % 26).expect("below 26");
    content.resize(content.len() + usize::try_from(value.0 % 400).expect("below 400"), byte);
    content
}

fn parse(pair: &KeyValue) -> (Key, Found) {
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
    let key = pair.key.strip_prefix(b"register/").and_then(number);
    let key = key.and_then(|key| u32::try_from(key).ok()).map_or(Key(u32::MAX), Key);
    let value = pair.value.get(..20).and_then(number).map(Value);
    let value = value.filter(|value| content(*value) == pair.value).unwrap_or(GARBLED);
    let written_at = Revision(u64::try_from(pair.mod_revision).unwrap_or(0));
    (key, Found { value, written_at })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_reads_as_it_was_written_and_a_changed_byte_shows() {
        let pair = |value: Vec<u8>| KeyValue {
            key: name(Key(7)).into(),
            value: value.into(),
            mod_revision: 9,
            ..Default::default()
        };
        let found = |value| Found { value, written_at: Revision(9) };
        assert_eq!(parse(&pair(content(Value(431)))), (Key(7), found(Value(431))));
        let mut changed = content(Value(431));
        changed[45] ^= 1;
        assert_eq!(parse(&pair(changed)), (Key(7), found(GARBLED)));
        assert_eq!(parse(&pair(Vec::new())), (Key(7), found(GARBLED)));
    }
}
