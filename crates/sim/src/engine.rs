//! Between the workload's registers and the store: calls become commands, replies become outcomes; and the store of one
//! process with the work that its node has asked of it.

use crate::history::{Call, Found, Key, Outcome, Revision, Value};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_node::MachineRequest;
use quorate_store::engine::{MemoryDisk, MemoryEngine};
use quorate_store::etcd::{
    Command, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, KeyValue,
    PutRequest, RangeRequest, RangeResponse, Reply, RequestOp, ResponseOp, TxnRequest,
};
use quorate_store::{ReadError, Store, StoreReader};
use quorate_types::{ApplyFault, GroupId, SnapshotSource};
use std::collections::{BTreeMap, VecDeque};

/// What all keys of the workload begin with.
const KEY_PREFIX: &[u8] = b"register/";

/// How many bytes follow most values, at most: records then end anywhere in a sector.
const PADDING_SIZE_MAX: u64 = 400;

/// How many bytes follow one value in [`LARGE_EVERY`], at most: records then span sectors.
const LARGE_PADDING_SIZE_MAX: u64 = 6_000;

/// One value in so many is large.
const LARGE_EVERY: u64 = 50;

/// The store of one process and what is asked of it.
pub(crate) struct Machine {
    /// The replicated state.
    pub(crate) store: Store<MemoryEngine>,
    /// What is read from.
    pub(crate) reader: StoreReader<MemoryEngine>,
    /// The view that is being streamed.
    pub(crate) capture: Option<Box<dyn SnapshotSource>>,
    /// Requests that wait for their turn, first come first served.
    pub(crate) waiting: VecDeque<MachineRequest>,
    /// Whether one of them is under way.
    pub(crate) busy: bool,
}

impl Machine {
    /// Opens the store on what the engine's device holds.
    ///
    /// # Errors
    /// When the device holds something that cannot be right.
    pub(crate) fn open(disk: &MemoryDisk) -> Result<Machine, ApplyFault> {
        let store = Store::open(disk.open(), GroupId(0))?;
        let reader = store.reader();
        Ok(Machine { store, reader, capture: None, waiting: VecDeque::new(), busy: false })
    }
}

/// The body of the entry that carries out a call; `None` for reads, which need none.
#[must_use]
pub(crate) fn command(call: Call) -> Option<Bytes> {
    let put = |key, value| PutRequest {
        key: key_bytes(key),
        value: value_bytes(value),
        ..PutRequest::default()
    };
    let command = match call {
        Call::Put { key, value } => Command::Put(put(key, value)),
        Call::Swap { key, expected, value, also } => {
            let target = match expected {
                None => CompareTarget::Version(0),
                Some(expected) => CompareTarget::Value(value_bytes(expected)),
            };
            let compare = Compare {
                key: key_bytes(key),
                range_end: Bytes::new(),
                result: CompareResult::Equal,
                target,
            };
            Command::Txn(TxnRequest {
                compare: vec![compare],
                success: [(key, value)]
                    .into_iter()
                    .chain(also)
                    .map(|(key, value)| RequestOp::Put(put(key, value)))
                    .collect(),
                failure: vec![RequestOp::Range(range(key, Key(key.0 + 1), 0))],
            })
        }
        Call::Delete { key } => Command::DeleteRange(DeleteRangeRequest {
            key: key_bytes(key),
            ..DeleteRangeRequest::default()
        }),
        Call::Compact { revision } => Command::Compact(CompactRequest {
            revision: i64::try_from(revision.0).expect("revisions are small"),
        }),
        Call::Get { .. } | Call::Scan { .. } => return None,
    };
    Some(command.encode())
}

/// What a reply says to the call it answers.
///
/// # Errors
/// When it is no answer to such a call.
pub(crate) fn outcome(call: Call, reply: &Reply) -> Result<Outcome, String> {
    match (call, reply) {
        (Call::Put { .. }, Reply::Put(put)) => Ok(Outcome::Written(revision(put.revision)?)),
        (Call::Swap { .. }, Reply::Txn(txn)) if txn.succeeded => {
            Ok(Outcome::Written(revision(txn.revision)?))
        }
        (Call::Swap { key, .. }, Reply::Txn(txn)) => match txn.responses.as_slice() {
            [ResponseOp::Range(response)] => {
                let found = registers(response)?.get(&key).copied();
                Ok(Outcome::NotWritten(revision(txn.revision)?, found))
            }
            other => Err(format!("{other:?} answers the read of one register")),
        },
        (Call::Delete { .. }, Reply::DeleteRange(response)) => {
            Ok(Outcome::Deleted(revision(response.revision)?, response.deleted > 0))
        }
        (Call::Compact { .. }, Reply::Compact(response)) => {
            Ok(Outcome::Compacted(revision(response.revision)?))
        }
        // What is forgotten already, or not there yet, cannot be forgotten.
        (Call::Compact { .. }, Reply::Error(_)) => Ok(Outcome::Refused),
        (
            Call::Put { .. }
            | Call::Swap { .. }
            | Call::Delete { .. }
            | Call::Compact { .. }
            | Call::Get { .. }
            | Call::Scan { .. },
            other,
        ) => Err(format!("{other:?} answers {call}")),
    }
}

/// Carries out a read of registers from `first` to before `end` on one replica, at a revision, or at its current one.
///
/// # Errors
/// When the store cannot answer, or answers something that the workload never wrote.
pub(crate) fn read(
    reader: &StoreReader<MemoryEngine>,
    first: Key,
    end: Key,
    at: Option<Revision>,
) -> Result<(Revision, BTreeMap<Key, Found>), String> {
    let at = at.map_or(0, |revision| i64::try_from(revision.0).expect("revisions are small"));
    let response = reader.range(&range(first, end, at)).map_err(|error| match error {
        ReadError::Refused(refusal) => format!("a read at revision {at} is refused: {refusal}"),
        ReadError::Fault(fault) => format!("a read at revision {at} fails: {fault}"),
    })?;
    Ok((revision(response.revision)?, registers(&response)?))
}

fn range(first: Key, end: Key, revision: i64) -> RangeRequest {
    let (key, range_end) = (key_bytes(first), key_bytes(end));
    RangeRequest { key, range_end, revision, ..RangeRequest::default() }
}

fn revision(revision: i64) -> Result<Revision, String> {
    match u64::try_from(revision) {
        Ok(revision) if revision > 0 => Ok(Revision(revision)),
        _ => Err(format!("{revision} is no revision")),
    }
}

fn registers(response: &RangeResponse) -> Result<BTreeMap<Key, Found>, String> {
    response.kvs.iter().map(register).collect()
}

fn register(pair: &KeyValue) -> Result<(Key, Found), String> {
    let wrong = || format!("{pair:?} was never written");
    let key = pair.key.strip_prefix(KEY_PREFIX).ok_or_else(wrong)?;
    let key = Key(u32::from_be_bytes(key.try_into().map_err(|_| wrong())?));
    if pair.value.len() < 8 {
        return Err(wrong());
    }
    let value = Value((&pair.value[..]).get_u64());
    if pair.value != value_bytes(value) {
        return Err(wrong());
    }
    Ok((key, Found { value, written_at: revision(pair.mod_revision)? }))
}

fn key_bytes(key: Key) -> Bytes {
    let mut bytes = BytesMut::from(KEY_PREFIX);
    bytes.put_u32(key.0);
    bytes.freeze()
}

/// The bytes of a value: its number, then as many more as its number says, so that damage in them shows.
fn value_bytes(value: Value) -> Bytes {
    let mixed = value.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    let size_max =
        if value.0.is_multiple_of(LARGE_EVERY) { LARGE_PADDING_SIZE_MAX } else { PADDING_SIZE_MAX };
    let size = usize::try_from(mixed % size_max).expect("paddings are small");
    let mut bytes = BytesMut::with_capacity(8 + size);
    bytes.put_u64(value.0);
    bytes.put_bytes(mixed.to_le_bytes()[2], size);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::{
        Committed, Entry, EntryKind, Epoch, Incarnation, Index, NodeId, Origin, StateMachine,
        TransactionId,
    };

    fn apply(machine: &mut Machine, sequence: u64, call: Call) -> Outcome {
        let origin = Origin { node: NodeId(1), incarnation: Incarnation(1), sequence };
        let body = command(call).expect("a write");
        let epoch = Epoch::new(1, NodeId(1));
        let entry = Entry::new(epoch, EntryKind::Command, origin, TransactionId(0), body);
        let committed = Committed { index: Index(sequence), entry, wanted: true };
        let replies = machine.store.apply(&[committed]).expect("a good entry");
        outcome(call, replies[0].as_ref().expect("it is wanted")).expect("an answer to it")
    }

    #[test]
    fn calls_come_back_as_outcomes() {
        let mut machine = Machine::open(&MemoryDisk::new()).expect("an empty engine");
        let (key, other) = (Key(3), Key(4));
        let put = Call::Put { key, value: Value(50) };
        assert_eq!(apply(&mut machine, 1, put), Outcome::Written(Revision(2)));
        let found = Found { value: Value(50), written_at: Revision(2) };
        let swap = |expected, value| Call::Swap { key, expected, value: Value(value), also: None };
        assert_eq!(
            apply(&mut machine, 2, swap(None, 51)),
            Outcome::NotWritten(Revision(2), Some(found))
        );
        let written = Outcome::Written(Revision(3));
        assert_eq!(apply(&mut machine, 3, swap(Some(Value(50)), 52)), written);
        let also = Some((Key(9), Value(54)));
        let create = Call::Swap { key: other, expected: None, value: Value(53), also };
        assert_eq!(apply(&mut machine, 4, create), Outcome::Written(Revision(4)));
        let all = || read(&machine.reader, Key(0), Key(u32::MAX), None).expect("a read");
        assert_eq!(all().0, Revision(4));
        assert_eq!(all().1.keys().copied().collect::<Vec<_>>(), [key, other, Key(9)]);
        let (_, before) = read(&machine.reader, key, other, Some(Revision(2))).expect("a read");
        assert_eq!(before.get(&key), Some(&found));
        let delete = Call::Delete { key: other };
        assert_eq!(apply(&mut machine, 5, delete), Outcome::Deleted(Revision(5), true));
        assert_eq!(apply(&mut machine, 6, delete), Outcome::Deleted(Revision(5), false));
        let compact = |revision| Call::Compact { revision: Revision(revision) };
        assert_eq!(apply(&mut machine, 7, compact(4)), Outcome::Compacted(Revision(5)));
        assert_eq!(apply(&mut machine, 8, compact(4)), Outcome::Refused);
        assert!(read(&machine.reader, key, other, Some(Revision(3))).is_err());
    }
}
