//! What the engine's values hold: records of keys, and the summary of a group's state.

use crate::etcd::KeyValue;
use crate::keys::Revision;
use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::{Applied, ApplyFault, DecodeError, Digest, Reader, Writer};

/// The version of the layout of engine keys and values that this code writes.
pub const FORMAT_VERSION: u8 = 1;

/// The bytes of a record before key and value.
const RECORD_HEADER_SIZE: usize = 1 + 8 + 4 + 8 + 8 + 8 + 4;

const KIND_TOMBSTONE: u8 = 0;
const KIND_PUT: u8 = 1;

/// One version of a key. The same bytes stand in `History` and, while it is the newest, in
/// `Current`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Whether the key was deleted here; then only key and mod revision say anything.
    pub(crate) deleted: bool,
    /// The position of the change inside its main revision.
    pub(crate) sub: u32,
    /// The version.
    pub(crate) kv: KeyValue,
}

impl Record {
    pub(crate) fn tombstone(key: Bytes, revision: Revision) -> Record {
        let kv = KeyValue { key, mod_revision: revision.main, ..KeyValue::default() };
        Record { deleted: true, sub: revision.sub, kv }
    }

    pub(crate) fn revision(&self) -> Revision {
        Revision { main: self.kv.mod_revision, sub: self.sub }
    }

    /// The size of the encoding in bytes.
    pub(crate) fn encoded_size(&self) -> usize {
        RECORD_HEADER_SIZE + self.kv.key.len() + self.kv.value.len()
    }

    pub(crate) fn encode(&self, buffer: &mut BytesMut) {
        let kv = &self.kv;
        buffer.put_u8(if self.deleted { KIND_TOMBSTONE } else { KIND_PUT });
        buffer.put_i64_le(kv.mod_revision);
        buffer.put_u32_le(self.sub);
        buffer.put_i64_le(kv.create_revision);
        buffer.put_i64_le(kv.version);
        buffer.put_i64_le(kv.lease);
        buffer.write_blob(&kv.key);
        buffer.put_slice(&kv.value);
    }

    /// Reads a record; key and value share memory with the source.
    pub(crate) fn decode(bytes: Bytes) -> Result<Record, DecodeError> {
        let mut reader = Reader::new("record", bytes);
        let deleted = match reader.u8()? {
            KIND_TOMBSTONE => true,
            KIND_PUT => false,
            value => return Err(DecodeError::Unknown { what: "record kind", value: value.into() }),
        };
        let mod_revision = read_i64(&mut reader)?;
        let sub = reader.u32()?;
        let create_revision = read_i64(&mut reader)?;
        let version = read_i64(&mut reader)?;
        let lease = read_i64(&mut reader)?;
        let key = reader.blob()?;
        let value = reader.bytes(reader.left())?;
        if mod_revision < 0 {
            return Err(DecodeError::Invalid("a record's revision is negative"));
        }
        let kv = KeyValue { key, create_revision, mod_revision, version, value, lease };
        Ok(Record { deleted, sub, kv })
    }
}

/// Reads a record that the engine gave: what does not decode is damage.
pub(crate) fn read_record(bytes: Bytes) -> Result<Record, ApplyFault> {
    Record::decode(bytes).map_err(|error| damaged(&error))
}

pub(crate) fn damaged(error: &DecodeError) -> ApplyFault {
    ApplyFault::Damaged(error.to_string())
}

/// Reads eight bytes as a signed integer.
pub(crate) fn read_i64(reader: &mut Reader) -> Result<i64, DecodeError> {
    Ok(reader.u64()?.cast_signed())
}

/// What is known of a group's state as a whole; one record, rewritten with each apply.
///
/// # Invariants
/// 1. `compacted <= revision`.
/// 2. `swept.main <= max(compacted, 0)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    /// How far the log is applied, and the digest chain there.
    pub(crate) applied: Applied,
    /// The revision of the last change; 1 while there was none.
    pub(crate) revision: i64,
    /// Reads below this revision are refused; -1 before the first compaction.
    pub(crate) compacted: i64,
    /// Where the removal of what compaction made unreachable goes on.
    pub(crate) swept: Revision,
}

impl Default for Summary {
    fn default() -> Summary {
        Summary {
            applied: Applied::default(),
            revision: 1,
            compacted: -1,
            swept: Revision::default(),
        }
    }
}

impl Summary {
    pub(crate) fn check(&self) {
        assert!(
            self.compacted <= self.revision,
            "compacted to {} above the revision {}",
            self.compacted,
            self.revision
        );
        assert!(
            self.swept.main <= self.compacted.max(0),
            "swept to {} above the compacted revision {}",
            self.swept.main,
            self.compacted
        );
    }

    pub(crate) fn encode(&self) -> Bytes {
        self.check();
        let mut buffer = BytesMut::with_capacity(72);
        buffer.put_u8(FORMAT_VERSION);
        buffer.write_position(self.applied.position);
        buffer.put_u64_le(self.applied.digest.0);
        buffer.put_i64_le(self.revision);
        buffer.put_i64_le(self.compacted);
        buffer.put_i64_le(self.swept.main);
        buffer.put_u32_le(self.swept.sub);
        buffer.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Summary, DecodeError> {
        let mut reader = Reader::new("store summary", bytes);
        let version = reader.u8()?;
        if version != FORMAT_VERSION {
            return Err(DecodeError::Unknown { what: "store format", value: version.into() });
        }
        let applied = Applied { position: reader.position()?, digest: Digest(reader.u64()?) };
        let revision = read_i64(&mut reader)?;
        let compacted = read_i64(&mut reader)?;
        let swept = Revision { main: read_i64(&mut reader)?, sub: reader.u32()? };
        reader.finish()?;
        if revision < 1 || compacted > revision || compacted < -1 {
            return Err(DecodeError::Invalid("the store's revisions contradict each other"));
        }
        if swept.main < 0 || swept.main > compacted.max(0) {
            return Err(DecodeError::Invalid("the store swept above its compacted revision"));
        }
        Ok(Summary { applied, revision, compacted, swept })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_encoding() {
        let kv = KeyValue {
            key: Bytes::from_static(b"k\0"),
            create_revision: 2,
            mod_revision: 9,
            version: 3,
            value: Bytes::from_static(b"value"),
            lease: 0,
        };
        let put = Record { deleted: false, sub: 4, kv };
        let gone = Record::tombstone(Bytes::from_static(b"k"), Revision { main: 10, sub: 1 });
        for record in [put, gone] {
            let mut buffer = BytesMut::new();
            record.encode(&mut buffer);
            assert_eq!(buffer.len(), record.encoded_size());
            let encoded = buffer.freeze();
            assert_eq!(Record::decode(encoded.clone()), Ok(record));
            assert!(Record::decode(encoded.slice(..RECORD_HEADER_SIZE)).is_err());
        }
    }

    #[test]
    fn a_summary_survives_its_encoding_and_a_later_format_is_refused() {
        let summary = Summary { revision: 7, compacted: 5, ..Summary::default() };
        assert_eq!(Summary::decode(summary.encode()), Ok(summary));
        let mut later = BytesMut::from(&summary.encode()[..]);
        later[0] = FORMAT_VERSION + 1;
        assert!(Summary::decode(later.freeze()).is_err());
    }
}
