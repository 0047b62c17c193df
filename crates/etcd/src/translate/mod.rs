//! Between the API's messages and the store's plain data; nothing is decided here.

mod request;
mod response;

pub(crate) use request::{compaction, delete_range, put, range, txn};
pub(crate) use response::{
    Header, compaction_response, delete_range_response, put_response, range_response, txn_response,
};
