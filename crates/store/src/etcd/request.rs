//! What clients ask of the `etcd` keyspace.

use bytes::Bytes;
use quorate_types::NodeId;

/// In which order a range comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortOrder {
    /// No order asked for: by key, or ascending by the target when that is not the key.
    #[default]
    None,
    /// Lowest first.
    Ascend,
    /// Highest first.
    Descend,
}

/// By what a range is sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The create revision.
    Create,
    /// The mod revision.
    Mod,
    /// The value.
    Value,
}

/// Reads keys.
///
/// `range_end` empty names the one key; a single zero byte all keys from `key` on; anything else
/// the keys from `key` to before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends.
    pub range_end: Bytes,
    /// The most keys to return; 0 or less for all.
    pub limit: i64,
    /// The revision to read at; 0 or less for the current one.
    pub revision: i64,
    /// In which order.
    pub sort_order: SortOrder,
    /// By what.
    pub sort_target: SortTarget,
    /// Leave values out.
    pub keys_only: bool,
    /// Only count.
    pub count_only: bool,
    /// Leave out lower mod revisions; 0 for none.
    pub min_mod_revision: i64,
    /// Leave out higher mod revisions; 0 for none.
    pub max_mod_revision: i64,
    /// Leave out lower create revisions; 0 for none.
    pub min_create_revision: i64,
    /// Leave out higher create revisions; 0 for none.
    pub max_create_revision: i64,
}

/// Writes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PutRequest {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease to attach the key to; 0 for none.
    pub lease: i64,
    /// Whether to return the version before.
    pub prev_kv: bool,
    /// Keep the value; the key must exist.
    pub ignore_value: bool,
    /// Keep the lease; the key must exist.
    pub ignore_lease: bool,
}

/// Deletes keys; the range is as in [`RangeRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteRangeRequest {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends.
    pub range_end: Bytes,
    /// Whether to return the versions before.
    pub prev_kv: bool,
}

/// How a compare relates what is stored to what is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompareResult {
    /// Stored = given.
    #[default]
    Equal,
    /// Stored > given.
    Greater,
    /// Stored < given.
    Less,
    /// Stored ≠ given.
    NotEqual,
}

/// What of a key is compared, and with what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareTarget {
    /// The version.
    Version(i64),
    /// The create revision.
    Create(i64),
    /// The mod revision.
    Mod(i64),
    /// The value. Never true for a missing key.
    Value(Bytes),
    /// The lease.
    Lease(i64),
}

/// A condition of a transaction. Over a range it must hold for every key in it; a missing key
/// counts as one with zeroes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compare {
    /// The first key.
    pub key: Bytes,
    /// Where the range ends, as in [`RangeRequest`].
    pub range_end: Bytes,
    /// The relation.
    pub result: CompareResult,
    /// Both sides of it.
    pub target: CompareTarget,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestOp {
    /// Reads; sees the writes of earlier operations.
    Range(RangeRequest),
    /// Writes a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// A transaction inside.
    Txn(TxnRequest),
}

/// Does `success` when every compare holds, else `failure`; at one revision, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TxnRequest {
    /// The conditions.
    pub compare: Vec<Compare>,
    /// What to do when all hold.
    pub success: Vec<RequestOp>,
    /// What to do when one does not.
    pub failure: Vec<RequestOp>,
}

impl TxnRequest {
    /// Whether no branch writes: then it need not be agreed on, see [`crate::StoreReader::txn`].
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.success.iter().chain(&self.failure).all(|op| match op {
            RequestOp::Range(_) => true,
            RequestOp::Put(_) | RequestOp::DeleteRange(_) => false,
            RequestOp::Txn(inner) => inner.is_read_only(),
        })
    }

    /// Whether some branch puts.
    #[must_use]
    pub fn puts(&self) -> bool {
        self.success.iter().chain(&self.failure).any(|op| match op {
            RequestOp::Put(_) => true,
            RequestOp::Range(_) | RequestOp::DeleteRange(_) => false,
            RequestOp::Txn(inner) => inner.puts(),
        })
    }
}

/// Makes revisions below `revision` unreadable, so that their space can be used again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactRequest {
    /// The lowest revision that stays readable.
    pub revision: i64,
}

/// Says how clients reach a member. Kept in the `system` keyspace; changes no revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetMemberAttributes {
    /// Which member.
    pub member: NodeId,
    /// Its name.
    pub name: String,
    /// Where its etcd door listens.
    pub client_urls: Vec<String>,
}

/// What a log entry of kind `Command` holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Writes a key.
    Put(PutRequest),
    /// Deletes keys.
    DeleteRange(DeleteRangeRequest),
    /// A transaction.
    Txn(TxnRequest),
    /// Compacts.
    Compact(CompactRequest),
    /// Says how clients reach a member.
    SetMemberAttributes(SetMemberAttributes),
}

impl Command {
    /// Whether it may need more space: what a full quota refuses.
    #[must_use]
    pub fn grows(&self) -> bool {
        match self {
            Command::Put(_) => true,
            Command::Txn(txn) => txn.puts(),
            Command::DeleteRange(_) | Command::Compact(_) | Command::SetMemberAttributes(_) => {
                false
            }
        }
    }
}
