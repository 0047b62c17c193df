//! Entry points for what clients send, as fuzzers and the replay of their corpora call them.

use crate::proto::etcdserverpb as pb;
use crate::translate;
use bytes::Bytes;
use prost::Message;
use quorate_store::etcd::{Command, check, check_range};

/// A request of the key-value service: its number (1), then its message. What is good must become a command that
/// replicas read as it was meant.
pub fn request(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else { return };
    let message = Bytes::copy_from_slice(message);
    let command = match kind % 5 {
        0 => {
            let range = pb::RangeRequest::decode(message).ok().map(translate::range);
            let _ = range.and_then(Result::ok).map(|range| check_range(&range));
            None
        }
        1 => pb::PutRequest::decode(message).ok().map(|put| Command::Put(translate::put(put))),
        2 => pb::DeleteRangeRequest::decode(message)
            .ok()
            .map(|delete| Command::DeleteRange(translate::delete_range(delete))),
        3 => pb::TxnRequest::decode(message)
            .ok()
            .and_then(|txn| translate::txn(txn).ok())
            .map(Command::Txn),
        _ => pb::CompactionRequest::decode(message)
            .ok()
            .map(|compact| Command::Compact(translate::compaction(compact))),
    };
    let Some(command) = command.filter(|command| check(command).is_ok()) else { return };
    let again = Command::decode(command.encode());
    assert_eq!(again.as_ref(), Ok(&command), "a command changes by its encoding");
}
