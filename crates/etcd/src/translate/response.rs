//! From the store's replies to messages.

use crate::proto::etcdserverpb as pb;
use crate::proto::mvccpb;
use pb::response_op::Response;
use quorate_store::etcd;

/// Who answers; the revision comes with each reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// The cluster.
    pub(crate) cluster_id: u64,
    /// The node.
    pub(crate) member_id: u64,
    /// The number of its epoch.
    pub(crate) raft_term: u64,
}

impl Header {
    /// The header of an answer at `revision`.
    pub(crate) fn at(self, revision: i64) -> Option<pb::ResponseHeader> {
        Some(pb::ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.member_id,
            revision,
            raft_term: self.raft_term,
        })
    }
}

/// The header of an operation inside a transaction, which in etcd names the revision and nothing else.
fn inner_header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..pb::ResponseHeader::default() })
}

/// The answer to a range.
pub(crate) fn range_response(reply: etcd::RangeResponse, header: Header) -> pb::RangeResponse {
    range_with(header.at(reply.revision), reply)
}

/// The answer to a put.
pub(crate) fn put_response(reply: etcd::PutResponse, header: Header) -> pb::PutResponse {
    put_with(header.at(reply.revision), reply)
}

/// The answer to a delete.
pub(crate) fn delete_range_response(
    reply: etcd::DeleteRangeResponse,
    header: Header,
) -> pb::DeleteRangeResponse {
    delete_range_with(header.at(reply.revision), reply)
}

/// The answer to a transaction.
pub(crate) fn txn_response(reply: etcd::TxnResponse, header: Header) -> pb::TxnResponse {
    txn_with(header.at(reply.revision), reply)
}

/// The answer to a compaction.
pub(crate) fn compaction_response(
    reply: etcd::CompactResponse,
    header: Header,
) -> pb::CompactionResponse {
    pb::CompactionResponse { header: header.at(reply.revision) }
}

fn range_with(header: Option<pb::ResponseHeader>, reply: etcd::RangeResponse) -> pb::RangeResponse {
    let kvs = reply.kvs.into_iter().map(key_value).collect();
    pb::RangeResponse { header, kvs, more: reply.more, count: reply.count }
}

fn put_with(header: Option<pb::ResponseHeader>, reply: etcd::PutResponse) -> pb::PutResponse {
    pb::PutResponse { header, prev_kv: reply.prev_kv.map(key_value) }
}

fn delete_range_with(
    header: Option<pb::ResponseHeader>,
    reply: etcd::DeleteRangeResponse,
) -> pb::DeleteRangeResponse {
    let prev_kvs = reply.prev_kvs.into_iter().map(key_value).collect();
    pb::DeleteRangeResponse { header, deleted: reply.deleted, prev_kvs }
}

fn txn_with(header: Option<pb::ResponseHeader>, reply: etcd::TxnResponse) -> pb::TxnResponse {
    let responses = reply.responses.into_iter().map(op).collect();
    pb::TxnResponse { header, succeeded: reply.succeeded, responses }
}

fn op(reply: etcd::ResponseOp) -> pb::ResponseOp {
    let response = match reply {
        etcd::ResponseOp::Range(reply) => {
            Response::ResponseRange(range_with(inner_header(reply.revision), reply))
        }
        etcd::ResponseOp::Put(reply) => {
            Response::ResponsePut(put_with(inner_header(reply.revision), reply))
        }
        etcd::ResponseOp::DeleteRange(reply) => {
            Response::ResponseDeleteRange(delete_range_with(inner_header(reply.revision), reply))
        }
        etcd::ResponseOp::Txn(reply) => {
            Response::ResponseTxn(txn_with(inner_header(reply.revision), reply))
        }
    };
    pb::ResponseOp { response: Some(response) }
}

fn key_value(kv: etcd::KeyValue) -> mvccpb::KeyValue {
    mvccpb::KeyValue {
        key: kv.key,
        create_revision: kv.create_revision,
        mod_revision: kv.mod_revision,
        version: kv.version,
        value: kv.value,
        lease: kv.lease,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: Header = Header { cluster_id: 7, member_id: 2, raft_term: 5 };

    fn sample() -> etcd::KeyValue {
        etcd::KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 4,
            value: "v".into(),
            lease: 6,
        }
    }

    #[test]
    fn every_field_of_a_key_arrives() {
        let reply = etcd::RangeResponse { revision: 9, kvs: vec![sample()], more: true, count: 8 };
        let message = range_response(reply, HEADER);
        let header = pb::ResponseHeader { cluster_id: 7, member_id: 2, revision: 9, raft_term: 5 };
        assert_eq!(message.header, Some(header));
        let expected = mvccpb::KeyValue {
            key: "k".into(),
            create_revision: 2,
            mod_revision: 3,
            version: 4,
            value: "v".into(),
            lease: 6,
        };
        assert_eq!((message.kvs, message.more, message.count), (vec![expected], true, 8));
    }

    /// Kubernetes reads the revision of a write from the operation inside its transaction.
    #[test]
    fn operations_inside_a_transaction_carry_their_revision() {
        let put = etcd::PutResponse { revision: 9, prev_kv: Some(sample()) };
        let delete = etcd::DeleteRangeResponse { revision: 9, deleted: 1, prev_kvs: vec![] };
        let range = etcd::RangeResponse { revision: 9, ..etcd::RangeResponse::default() };
        let inner = etcd::TxnResponse { revision: 9, succeeded: true, responses: vec![] };
        let reply = etcd::TxnResponse {
            revision: 9,
            succeeded: false,
            responses: vec![
                etcd::ResponseOp::Put(put),
                etcd::ResponseOp::DeleteRange(delete),
                etcd::ResponseOp::Range(range),
                etcd::ResponseOp::Txn(inner),
            ],
        };
        let message = txn_response(reply, HEADER);
        assert!(!message.succeeded);
        let revisions: Vec<_> = message
            .responses
            .into_iter()
            .map(|response| match response.response.expect("an answer") {
                Response::ResponsePut(put) => put.header,
                Response::ResponseDeleteRange(delete) => delete.header,
                Response::ResponseRange(range) => range.header,
                Response::ResponseTxn(txn) => txn.header,
            })
            .map(|header| header.expect("a header").revision)
            .collect();
        assert_eq!(revisions, [9, 9, 9, 9]);
    }
}
