//! What comes back. Every response carries the revision that etcd puts into its header.

use super::KvError;
use bytes::Bytes;

/// One version of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision of the put that created it.
    pub create_revision: i64,
    /// The revision of its last put.
    pub mod_revision: i64,
    /// How often it was put since it was created; 1 after the first.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease it is attached to; 0 for none.
    pub lease: i64,
}

/// The answer to a range.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeResponse {
    /// The current revision, also of a read at an old one.
    pub revision: i64,
    /// The keys.
    pub kvs: Vec<KeyValue>,
    /// Whether the limit left some out.
    pub more: bool,
    /// How many keys the range holds, whatever limit and filters say.
    pub count: i64,
}

/// The answer to a put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutResponse {
    /// The revision of the put.
    pub revision: i64,
    /// The version before, when asked for and there.
    pub prev_kv: Option<KeyValue>,
}

/// The answer to a delete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeResponse {
    /// The revision of the delete; the current one when nothing was deleted.
    pub revision: i64,
    /// How many keys were deleted.
    pub deleted: i64,
    /// What they were, when asked for.
    pub prev_kvs: Vec<KeyValue>,
}

/// The answer to one operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseOp {
    /// To a range.
    Range(RangeResponse),
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction inside.
    Txn(TxnResponse),
}

/// The answer to a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnResponse {
    /// The revision after it.
    pub revision: i64,
    /// Whether every compare held.
    pub succeeded: bool,
    /// One answer for each operation of the branch taken.
    pub responses: Vec<ResponseOp>,
}

/// The answer to a compaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactResponse {
    /// The current revision.
    pub revision: i64,
}

/// What the apply of a command gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a put.
    Put(PutResponse),
    /// To a delete.
    DeleteRange(DeleteRangeResponse),
    /// To a transaction.
    Txn(TxnResponse),
    /// To a compaction.
    Compact(CompactResponse),
    /// The attributes are recorded.
    SetMemberAttributes,
    /// Nothing was changed.
    Error(KvError),
}
