//! The few fields of etcd's KV messages that a load generator writes and reads. The full messages live with the
//! door; these leave out what the generator would only decode to throw away, so that it takes little of the
//! machine that it measures.

/// The path of `KV.Put`.
pub(crate) const PUT_PATH: &str = "/etcdserverpb.KV/Put";
/// The path of `KV.Range`.
pub(crate) const RANGE_PATH: &str = "/etcdserverpb.KV/Range";
/// The path of `KV.Txn`.
pub(crate) const TXN_PATH: &str = "/etcdserverpb.KV/Txn";

/// A put of one key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PutRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: bytes::Bytes,
    /// Its new value.
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: bytes::Bytes,
}

/// A read of one key.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeRequest {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) key: bytes::Bytes,
    /// Whether any member may answer from what it has.
    #[prost(bool, tag = "7")]
    pub(crate) serializable: bool,
}

/// A transaction without conditions, to put many keys at once.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TxnRequest {
    /// What is done.
    #[prost(message, repeated, tag = "2")]
    pub(crate) success: Vec<RequestOp>,
}

/// One put of a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RequestOp {
    /// The put.
    #[prost(message, optional, tag = "2")]
    pub(crate) put: Option<PutRequest>,
}

/// The header of every response.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ResponseHeader {
    /// Which cluster answered.
    #[prost(uint64, tag = "1")]
    pub(crate) cluster_id: u64,
    /// Which member.
    #[prost(uint64, tag = "2")]
    pub(crate) member_id: u64,
    /// At which revision.
    #[prost(int64, tag = "3")]
    pub(crate) revision: i64,
    /// In which term.
    #[prost(uint64, tag = "4")]
    pub(crate) raft_term: u64,
}

/// The answer to a put or a transaction.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct WriteResponse {
    /// Who answered, and when.
    #[prost(message, optional, tag = "1")]
    pub(crate) header: Option<ResponseHeader>,
}

/// The answer to a read; the pair itself is skipped, its number is not.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RangeResponse {
    /// How many keys there are.
    #[prost(int64, tag = "4")]
    pub(crate) count: i64,
}
