//! The encoding of commands in log entries: a version byte, a tag byte, fields in order
//! (`docs/format/store.md`).

use super::{
    Command, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    RangeRequest, RequestOp, SetMemberAttributes, SortOrder, SortTarget, TXN_OPS_MAX, TxnRequest,
};
use crate::record::read_i64;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{DecodeError, NodeId, Reader, Writer};

/// The version of the encoding that this code writes.
const COMMAND_VERSION: u8 = 1;

/// How deep transactions may stand inside each other: each level uses at least one operation.
const TXN_DEPTH_MAX: usize = TXN_OPS_MAX;

/// The fewest bytes of an operation or a compare: a tag and an empty delete.
const OP_SIZE_MIN: usize = 10;

const TAG_PUT: u8 = 1;
const TAG_DELETE_RANGE: u8 = 2;
const TAG_TXN: u8 = 3;
const TAG_COMPACT: u8 = 4;
const TAG_SET_MEMBER_ATTRIBUTES: u8 = 5;
/// Only inside a transaction.
const TAG_RANGE: u8 = 6;

impl Command {
    /// The body of a log entry that holds this command. What [`super::check`] refuses can be
    /// encoded too, and is refused again at apply: a door that forgot to check must not stop the
    /// replicas.
    ///
    /// # Panics
    /// When transactions stand deeper inside each other than [`super::check`] allows: nobody could
    /// decode it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(self.size_hint());
        buffer.put_u8(COMMAND_VERSION);
        match self {
            Command::Put(put) => {
                buffer.put_u8(TAG_PUT);
                write_put(&mut buffer, put);
            }
            Command::DeleteRange(delete) => {
                buffer.put_u8(TAG_DELETE_RANGE);
                write_delete(&mut buffer, delete);
            }
            Command::Txn(txn) => {
                buffer.put_u8(TAG_TXN);
                write_txn(&mut buffer, txn, 1);
            }
            Command::Compact(compact) => {
                buffer.put_u8(TAG_COMPACT);
                buffer.put_i64_le(compact.revision);
            }
            Command::SetMemberAttributes(attributes) => {
                buffer.put_u8(TAG_SET_MEMBER_ATTRIBUTES);
                buffer.put_u64_le(attributes.member.0);
                write_attributes(&mut buffer, &attributes.name, &attributes.client_urls);
            }
        }
        buffer.freeze()
    }

    /// Reads what [`Command::encode`] wrote; keys and values share memory with the source.
    ///
    /// # Errors
    /// When the bytes are not such an encoding, or of a version that this code does not know.
    pub fn decode(bytes: Bytes) -> Result<Command, DecodeError> {
        let mut reader = Reader::new("command", bytes);
        let version = reader.u8()?;
        if version != COMMAND_VERSION {
            return Err(DecodeError::Unknown { what: "command version", value: version.into() });
        }
        let command = match reader.u8()? {
            TAG_PUT => Command::Put(read_put(&mut reader)?),
            TAG_DELETE_RANGE => Command::DeleteRange(read_delete(&mut reader)?),
            TAG_TXN => Command::Txn(read_txn(&mut reader, 1)?),
            TAG_COMPACT => Command::Compact(CompactRequest { revision: read_i64(&mut reader)? }),
            TAG_SET_MEMBER_ATTRIBUTES => {
                let member = NodeId(reader.u64()?);
                let (name, client_urls) = read_attributes(&mut reader)?;
                Command::SetMemberAttributes(SetMemberAttributes { member, name, client_urls })
            }
            tag => return Err(DecodeError::Unknown { what: "command", value: tag.into() }),
        };
        reader.finish()?;
        Ok(command)
    }

    fn size_hint(&self) -> usize {
        match self {
            Command::Put(put) => 32 + put.key.len() + put.value.len(),
            Command::DeleteRange(delete) => 32 + delete.key.len() + delete.range_end.len(),
            Command::Txn(_) => 1024,
            Command::Compact(_) | Command::SetMemberAttributes(_) => 128,
        }
    }
}

/// Appends a member's name and client addresses: also the value under its key in the engine.
pub(crate) fn write_attributes(buffer: &mut BytesMut, name: &str, client_urls: &[String]) {
    buffer.write_blob(name.as_bytes());
    buffer.write_count(client_urls.len());
    client_urls.iter().for_each(|url| buffer.write_blob(url.as_bytes()));
}

/// Reads what [`write_attributes`] wrote.
pub(crate) fn read_attributes(reader: &mut Reader) -> Result<(String, Vec<String>), DecodeError> {
    let name = reader.text()?;
    let count = reader.count(4)?;
    let client_urls = (0..count).map(|_| reader.text()).collect::<Result<_, _>>()?;
    Ok((name, client_urls))
}

fn write_put(buffer: &mut BytesMut, put: &PutRequest) {
    buffer.write_bool(put.prev_kv);
    buffer.write_bool(put.ignore_value);
    buffer.write_bool(put.ignore_lease);
    buffer.put_i64_le(put.lease);
    buffer.write_blob(&put.key);
    buffer.write_blob(&put.value);
}

fn read_put(reader: &mut Reader) -> Result<PutRequest, DecodeError> {
    Ok(PutRequest {
        prev_kv: reader.bool()?,
        ignore_value: reader.bool()?,
        ignore_lease: reader.bool()?,
        lease: read_i64(reader)?,
        key: reader.blob()?,
        value: reader.blob()?,
    })
}

fn write_delete(buffer: &mut BytesMut, delete: &DeleteRangeRequest) {
    buffer.write_bool(delete.prev_kv);
    buffer.write_blob(&delete.key);
    buffer.write_blob(&delete.range_end);
}

fn read_delete(reader: &mut Reader) -> Result<DeleteRangeRequest, DecodeError> {
    Ok(DeleteRangeRequest {
        prev_kv: reader.bool()?,
        key: reader.blob()?,
        range_end: reader.blob()?,
    })
}

fn write_txn(buffer: &mut BytesMut, txn: &TxnRequest, depth: usize) {
    assert!(depth <= TXN_DEPTH_MAX, "a transaction at depth {depth} was encoded without a check");
    buffer.write_count(txn.compare.len());
    txn.compare.iter().for_each(|compare| write_compare(buffer, compare));
    for branch in [&txn.success, &txn.failure] {
        buffer.write_count(branch.len());
        for op in branch {
            match op {
                RequestOp::Range(range) => {
                    buffer.put_u8(TAG_RANGE);
                    write_range(buffer, range);
                }
                RequestOp::Put(put) => {
                    buffer.put_u8(TAG_PUT);
                    write_put(buffer, put);
                }
                RequestOp::DeleteRange(delete) => {
                    buffer.put_u8(TAG_DELETE_RANGE);
                    write_delete(buffer, delete);
                }
                RequestOp::Txn(inner) => {
                    buffer.put_u8(TAG_TXN);
                    write_txn(buffer, inner, depth + 1);
                }
            }
        }
    }
}

fn read_txn(reader: &mut Reader, depth: usize) -> Result<TxnRequest, DecodeError> {
    if depth > TXN_DEPTH_MAX {
        return Err(DecodeError::TooLarge {
            what: "transaction depth",
            value: depth as u64,
            limit: TXN_DEPTH_MAX as u64,
        });
    }
    let compares = reader.count(OP_SIZE_MIN)?;
    let compare = (0..compares).map(|_| read_compare(reader)).collect::<Result<_, _>>()?;
    let mut branches = [Vec::new(), Vec::new()];
    for branch in &mut branches {
        for _ in 0..reader.count(OP_SIZE_MIN)? {
            branch.push(match reader.u8()? {
                TAG_RANGE => RequestOp::Range(read_range(reader)?),
                TAG_PUT => RequestOp::Put(read_put(reader)?),
                TAG_DELETE_RANGE => RequestOp::DeleteRange(read_delete(reader)?),
                TAG_TXN => RequestOp::Txn(read_txn(reader, depth + 1)?),
                tag => return Err(DecodeError::Unknown { what: "operation", value: tag.into() }),
            });
        }
    }
    let [success, failure] = branches;
    Ok(TxnRequest { compare, success, failure })
}

fn write_compare(buffer: &mut BytesMut, compare: &Compare) {
    buffer.put_u8(match compare.result {
        CompareResult::Equal => 0,
        CompareResult::Greater => 1,
        CompareResult::Less => 2,
        CompareResult::NotEqual => 3,
    });
    match &compare.target {
        CompareTarget::Version(value) => write_number(buffer, 0, *value),
        CompareTarget::Create(value) => write_number(buffer, 1, *value),
        CompareTarget::Mod(value) => write_number(buffer, 2, *value),
        CompareTarget::Value(value) => {
            buffer.put_u8(3);
            buffer.write_blob(value);
        }
        CompareTarget::Lease(value) => write_number(buffer, 4, *value),
    }
    buffer.write_blob(&compare.key);
    buffer.write_blob(&compare.range_end);
}

fn write_number(buffer: &mut BytesMut, tag: u8, value: i64) {
    buffer.put_u8(tag);
    buffer.put_i64_le(value);
}

fn read_compare(reader: &mut Reader) -> Result<Compare, DecodeError> {
    let unknown = |what, value: u8| DecodeError::Unknown { what, value: value.into() };
    let result = match reader.u8()? {
        0 => CompareResult::Equal,
        1 => CompareResult::Greater,
        2 => CompareResult::Less,
        3 => CompareResult::NotEqual,
        value => return Err(unknown("compare result", value)),
    };
    let target = match reader.u8()? {
        0 => CompareTarget::Version(read_i64(reader)?),
        1 => CompareTarget::Create(read_i64(reader)?),
        2 => CompareTarget::Mod(read_i64(reader)?),
        3 => CompareTarget::Value(reader.blob()?),
        4 => CompareTarget::Lease(read_i64(reader)?),
        value => return Err(unknown("compare target", value)),
    };
    Ok(Compare { result, target, key: reader.blob()?, range_end: reader.blob()? })
}

fn write_range(buffer: &mut BytesMut, range: &RangeRequest) {
    buffer.write_blob(&range.key);
    buffer.write_blob(&range.range_end);
    buffer.put_i64_le(range.limit);
    buffer.put_i64_le(range.revision);
    buffer.put_u8(match range.sort_order {
        SortOrder::None => 0,
        SortOrder::Ascend => 1,
        SortOrder::Descend => 2,
    });
    buffer.put_u8(match range.sort_target {
        SortTarget::Key => 0,
        SortTarget::Version => 1,
        SortTarget::Create => 2,
        SortTarget::Mod => 3,
        SortTarget::Value => 4,
    });
    buffer.write_bool(range.keys_only);
    buffer.write_bool(range.count_only);
    buffer.put_i64_le(range.min_mod_revision);
    buffer.put_i64_le(range.max_mod_revision);
    buffer.put_i64_le(range.min_create_revision);
    buffer.put_i64_le(range.max_create_revision);
}

fn read_range(reader: &mut Reader) -> Result<RangeRequest, DecodeError> {
    let unknown = |what, value: u8| DecodeError::Unknown { what, value: value.into() };
    Ok(RangeRequest {
        key: reader.blob()?,
        range_end: reader.blob()?,
        limit: read_i64(reader)?,
        revision: read_i64(reader)?,
        sort_order: match reader.u8()? {
            0 => SortOrder::None,
            1 => SortOrder::Ascend,
            2 => SortOrder::Descend,
            value => return Err(unknown("sort order", value)),
        },
        sort_target: match reader.u8()? {
            0 => SortTarget::Key,
            1 => SortTarget::Version,
            2 => SortTarget::Create,
            3 => SortTarget::Mod,
            4 => SortTarget::Value,
            value => return Err(unknown("sort target", value)),
        },
        keys_only: reader.bool()?,
        count_only: reader.bool()?,
        min_mod_revision: read_i64(reader)?,
        max_mod_revision: read_i64(reader)?,
        min_create_revision: read_i64(reader)?,
        max_create_revision: read_i64(reader)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Command> {
        let put = PutRequest {
            key: "k\0".into(),
            value: "value".into(),
            lease: -3,
            prev_kv: true,
            ignore_value: false,
            ignore_lease: true,
        };
        let delete = DeleteRangeRequest { key: "a".into(), range_end: "\0".into(), prev_kv: true };
        let range = RangeRequest {
            key: "r".into(),
            limit: 3,
            sort_order: SortOrder::Descend,
            sort_target: SortTarget::Value,
            max_create_revision: 9,
            ..RangeRequest::default()
        };
        let targets = [
            CompareTarget::Version(1),
            CompareTarget::Create(2),
            CompareTarget::Mod(3),
            CompareTarget::Value("v".into()),
            CompareTarget::Lease(4),
        ];
        let results = [
            CompareResult::Equal,
            CompareResult::Greater,
            CompareResult::Less,
            CompareResult::NotEqual,
        ];
        let compare = targets
            .into_iter()
            .zip(results.into_iter().cycle())
            .map(|(target, result)| Compare {
                key: "c".into(),
                range_end: "d".into(),
                result,
                target,
            })
            .collect();
        let inner =
            TxnRequest { success: vec![RequestOp::Put(put.clone())], ..TxnRequest::default() };
        let txn = TxnRequest {
            compare,
            success: vec![RequestOp::Range(range), RequestOp::Txn(inner)],
            failure: vec![RequestOp::DeleteRange(delete.clone())],
        };
        let attributes = SetMemberAttributes {
            member: NodeId(3),
            name: "n3".into(),
            client_urls: vec!["http://127.0.0.1:2379".into(), "http://n3:2379".into()],
        };
        vec![
            Command::Put(put),
            Command::DeleteRange(delete),
            Command::Txn(txn),
            Command::Compact(CompactRequest { revision: 7 }),
            Command::SetMemberAttributes(attributes),
        ]
    }

    #[test]
    fn a_command_survives_its_encoding_and_no_prefix_of_it_decodes() {
        for command in samples() {
            let encoded = command.encode();
            assert_eq!(Command::decode(encoded.clone()), Ok(command.clone()));
            for size in 0..encoded.len() {
                assert!(
                    Command::decode(encoded.slice(..size)).is_err(),
                    "{command:?} cut at {size}"
                );
            }
            let longer = [&encoded[..], &[0]].concat();
            assert!(Command::decode(longer.into()).is_err(), "trailing bytes after {command:?}");
        }
    }

    #[test]
    fn damaged_bytes_never_panic() {
        for command in samples() {
            let encoded = command.encode();
            for bit in 0..encoded.len() * 8 {
                let mut damaged = encoded.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                let _ = Command::decode(damaged.into());
            }
        }
    }

    #[test]
    fn a_later_version_and_a_bottomless_transaction_are_refused() {
        let mut later = samples()[0].encode().to_vec();
        later[0] = COMMAND_VERSION + 1;
        assert!(matches!(
            Command::decode(later.into()),
            Err(DecodeError::Unknown { what: "command version", .. })
        ));
        // No compares, one operation, which is a transaction; in the end no operations at all.
        let nested = |depth: usize| {
            let level = [&[0; 4][..], &[1, 0, 0, 0, TAG_TXN]].concat();
            let head =
                [&[COMMAND_VERSION, TAG_TXN][..], &level.repeat(depth - 1), &[0; 12]].concat();
            let failures = vec![0; 4 * (depth - 1)];
            Command::decode([head, failures].concat().into())
        };
        assert!(matches!(nested(TXN_DEPTH_MAX), Ok(Command::Txn(_))));
        let refused = nested(TXN_DEPTH_MAX + 1);
        assert!(matches!(refused, Err(DecodeError::TooLarge { what: "transaction depth", .. })));
    }
}
