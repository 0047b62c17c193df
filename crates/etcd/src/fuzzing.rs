//! Entry points for what clients send, as fuzzers and the replay of their corpora call them.

use crate::cluster::peer_address;
use crate::deadline;
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

/// A request to add a member or to change where it is reached: its number (1), then its message. An address that is taken
/// must be one that a member can be reached at, and the same when it is written as a URL again.
pub fn member(data: &[u8]) {
    let Some((kind, message)) = data.split_first() else { return };
    let urls = match kind % 2 {
        0 => pb::MemberAddRequest::decode(message).map(|add| add.peer_ur_ls),
        _ => pb::MemberUpdateRequest::decode(message).map(|update| update.peer_ur_ls),
    };
    let Some(address) = urls.ok().and_then(|urls| peer_address(&urls).ok()) else { return };
    assert!(address.rsplit_once(':').is_some_and(|(host, _)| !host.is_empty()), "{address}");
    let again = peer_address(&[format!("http://{address}")]);
    assert_eq!(again.ok().as_ref(), Some(&address), "an address changes by being written");
}

/// The header with a client's deadline. A little of it is kept back, never more than there is.
pub fn timeout(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(timeout) = deadline::parse(text) else { return };
    assert!(deadline::with_margin(timeout) <= timeout, "{text} grows");
}
