//! The requests and responses of the `etcd` keyspace as plain data.
//!
//! Field names and number types are etcd's (API v3); a door translates its own messages to these
//! and back. Writes travel in a log entry as a [`Command`]; its reply comes back as a [`Reply`].
//! Reads go to [`crate::StoreReader`].

mod check;
mod codec;
mod error;
mod request;
mod response;

pub(crate) use codec::{read_attributes, write_attributes};

pub use check::{KEY_SIZE_MAX, TXN_OPS_MAX, check, check_range, check_txn};
pub use error::KvError;
pub use request::{
    Command, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, SetMemberAttributes, SortOrder, SortTarget, TxnRequest,
};
pub use response::{
    CompactResponse, DeleteRangeResponse, KeyValue, PutResponse, RangeResponse, Reply, ResponseOp,
    TxnResponse,
};
